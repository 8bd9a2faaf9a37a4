#!/bin/sh
# A server in shell that takes part in the streams protocol by itself, without Python: it greets whoever sends a name.
#
#   daemonize examples/ready-server.sh [PORT]     # or by hand: then it goes on talking to the terminal
#
# socat(1) listens, and says on its stderr on which port; from then on each of its lines is a line of our log.

set -eu

# Ready: nothing of ours leads to the caller any more. DAEMONIZE_STREAMS says which pipes the caller gave us; if our stdout
# and stderr are others (we were started by hand, or by a server that has inherited the variable), it is not our business.
ready() {
    streams=$(stat -Lc %d:%i "/proc/$$/fd/1"),$(stat -Lc %d:%i "/proc/$$/fd/2")
    if [ "$streams" = "${DAEMONIZE_STREAMS:-}" ]; then
        exec >>"${DAEMONIZE_STDOUT:-/dev/null}" 2>>"${DAEMONIZE_STDERR:-/dev/null}"
    fi
}

directory=$(mktemp -d)
mkfifo "$directory/words"
# Its stdout is not ours: it would keep the caller waiting.
socat -d -d "TCP4-LISTEN:${1:-0},bind=127.0.0.1,reuseaddr,fork" SYSTEM:'read -r name && echo "hello, $name"' \
    >/dev/null 2>"$directory/words" &
socat=$!
trap 'kill "$socat"; exit 0' TERM INT
exec 3<"$directory/words"
rm -r "$directory"

while read -r line <&3; do
    case $line in
    *' listening on '*)
        echo "listening on port ${line##*:}"
        ready
        ;;
    *) echo "$line" >&2 ;;
    esac
done
wait "$socat" # it has ended: with its own status
