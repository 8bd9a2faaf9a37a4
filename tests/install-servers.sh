#!/bin/sh
# Installs the real servers and clients that the tests use, on Debian and its children, as root.
# No service is started: while packages are being installed, a policy-rc.d says no, and what stood
# there before is put back. No database cluster is made either. Returns at once when nothing is missing.
set -eu

# command:package, or file:package where the command is not on PATH, or another of its name (ours) may be
WANTED='
dnsmasq:dnsmasq-base
nginx:nginx-light
lighttpd:lighttpd
haproxy:haproxy
memcached:memcached
node:nodejs
redis-server:redis-server
redis-cli:redis-tools
postgres:postgresql
psql:postgresql-client
unbound:unbound
sshd:openssh-server
stunnel4:stunnel4
mariadbd:mariadb-server-core
mariadb:mariadb-client-core
ssh-keyscan:openssh-client
openssl:openssl
man:man-db
groff:groff-base
tmux:tmux
zsh:zsh
fish:fish
socat:socat
cc:gcc
/usr/include/stdio.h:libc6-dev
s6-supervise:s6
/usr/lib/postgresql/*/bin/postgres:postgresql
/usr/*bin/daemonize:daemonize
/lib/systemd/systemd:systemd
/lib/systemd/system/dbus.service:dbus
/usr/lib/systemd/user/dbus.service:dbus-user-session
'
PATH=$PATH:/usr/sbin:/sbin
for directory in /usr/lib/postgresql/*/bin; do PATH=$PATH:$directory; done
POLICY=/usr/sbin/policy-rc.d
CLUSTER_SETTINGS=/etc/postgresql-common/createcluster.d
NO_CLUSTER=$CLUSTER_SETTINGS/daemonize-tests.conf

installed() {
    for found in $1; do # a pattern, perhaps
        case $found in
        /*) [ ! -e "$found" ] || return 0 ;;
        *) command -v "$found" >/dev/null 2>&1 && return 0 ;;
        esac
    done
    return 1
}
missing=
for pair in $WANTED; do
    installed "${pair%%:*}" || missing="$missing ${pair#*:}"
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
replaced= made=
restore() {
    rm -f "$NO_CLUSTER"
    [ -z "$made" ] || rmdir "$CLUSTER_SETTINGS"
    [ -n "$replaced" ] || return 0
    rm -f "$POLICY"
    [ ! -e "$kept" ] || mv "$kept" "$POLICY"
}
denies() {
    answer=0
    "$POLICY" nginx start >/dev/null 2>&1 || answer=$?
    [ "$answer" = 101 ]
}
[ ! -e "$kept" ] || mv "$kept" "$POLICY" # an earlier run was killed
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if ! { [ -x "$POLICY" ] && denies; }; then
    replaced=yes
    [ ! -e "$POLICY" ] || mv "$POLICY" "$kept"
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
fi
# The administrator's own createcluster.conf reads this, too.
[ -d "$CLUSTER_SETTINGS" ] || { made=yes && mkdir -p "$CLUSTER_SETTINGS"; }
echo 'create_main_cluster = false' >"$NO_CLUSTER"

echo "test servers: installing$missing"
export DEBIAN_FRONTEND=noninteractive
install() {
    # shellcheck disable=SC2086  # a list of packages
    apt-get install --quiet --yes --no-install-recommends $missing
}
# The lists may be absent or stale: fetch them only if the installation fails without.
install >/dev/null 2>&1 || { apt-get update --quiet && install; }
