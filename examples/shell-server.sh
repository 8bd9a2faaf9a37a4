#!/bin/sh
# A server in shell that takes part: it answers every line written to a FIFO, in FIFO.log.
#
#   daemonize examples/shell-server.sh /tmp/greeter && echo world >/tmp/greeter   # then look into /tmp/greeter.log
#
# Here each answer is written to the log by name. A server that goes on talking on its stdout can say instead:
#
#   exec >>"${DAEMONIZE_STDOUT:-/dev/null}" 2>>"${DAEMONIZE_STDERR:-/dev/null}"

set -eu
[ $# = 1 ] || { echo "usage: shell-server.sh FIFO" >&2; exit 64; }

mkfifo "$1"
trap 'rm -f "$1"' EXIT
trap 'exit 0' TERM INT
exec 3<>"$1"
echo "greeting whoever writes to $1; stop me with: kill $$"

exec >/dev/null 2>&1 # ready: nothing is left that points at the caller

while read -r name <&3; do
    echo "hello, $name" >>"$1.log"
done
