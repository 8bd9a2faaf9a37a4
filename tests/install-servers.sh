#!/bin/sh
# Installs the real servers and clients that the tests use, on Debian and its children, as root.
# No service is started: while packages are being installed, a policy-rc.d says no, and what stood
# there before is put back. Returns at once when nothing is missing.
set -eu

# command:package
WANTED='
dnsmasq:dnsmasq-base
nginx:nginx-light
lighttpd:lighttpd
haproxy:haproxy
memcached:memcached
redis-server:redis-server
redis-cli:redis-tools
postgres:postgresql
psql:postgresql-client
man:man-db
groff:groff-base
tmux:tmux
'
PATH=$PATH:/usr/sbin:/sbin
for directory in /usr/lib/postgresql/*/bin; do PATH=$PATH:$directory; done
POLICY=/usr/sbin/policy-rc.d

missing=
for pair in $WANTED; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || { echo "test servers: all installed"; exit 0; }

command -v apt-get >/dev/null 2>&1 || {
    echo "test servers: this is not Debian; install yourself:$missing" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || {
    echo "test servers: run this as root, it installs:$missing" >&2
    exit 1
}

kept=$POLICY.before-test-servers
restore() {
    rm -f "$POLICY"
    [ ! -e "$kept" ] || mv "$kept" "$POLICY"
}
denies() {
    answer=0
    "$POLICY" nginx start >/dev/null 2>&1 || answer=$?
    [ "$answer" = 101 ]
}
[ ! -e "$kept" ] || mv "$kept" "$POLICY" # an earlier run was killed
if ! { [ -x "$POLICY" ] && denies; }; then
    trap restore EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    [ ! -e "$POLICY" ] || mv "$POLICY" "$kept"
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
fi

echo "test servers: installing$missing"
export DEBIAN_FRONTEND=noninteractive
install() {
    # shellcheck disable=SC2086  # a list of packages
    apt-get install --quiet --yes --no-install-recommends $missing
}
# The lists may be absent or stale: fetch them only if the installation fails without.
install >/dev/null 2>&1 || { apt-get update --quiet && install; }
