#!/usr/bin/env bash
# Installs the real mail software that the tests of this folder talk to, on Debian 12, as root.
#
#   tests/interop/install.sh [--check]
#
# Postfix, the clients, HAProxy, nginx, Dovecot and what routes packets come from Debian's packages in the ordinary way.  Debian
# lets only one mail server be installed, so Exim and OpenSMTPD are only unpacked (dpkg -x), into $SMTPPROXY_LAB (default
# /var/tmp/smtpproxy-lab); the libraries that they need are installed.  So are NSD, Unbound and what signs zones: the
# machine's own look-ups are none of our business.  No server is started, and an installed one is never removed.
#
# May be run again at any time; when all is there it returns at once.  --check only tells what is missing.
# Exit status: 0 all is there, 1 something cannot be installed (the last line says what and why).
set -euo pipefail

lab=${SMTPPROXY_LAB:-/var/tmp/smtpproxy-lab}
policy=/usr/sbin/policy-rc.d
our_policy=no
plain=(
    swaks msmtp libnet-ssleay-perl netcat-openbsd curl openssl # clients
    haproxy nginx libnginx-mod-mail libnginx-mod-stream        # what stands in front of us
    iproute2 procps nftables iptables                          # networks of their own
    redis-server                                               # a store for the EHLO cache
    dovecot-core                                               # whom Postfix asks about passwords
)
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

say()  { printf 'interop: %s\n' "$*" >&2; }
fail() { say "cannot install: $*"; exit 1; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" = 'ii ' ]; }

# What is unpacked counts only if its program can start: a library may have gone since.
exim_works()      { [ -x "$lab/exim/usr/sbin/exim4" ] && "$lab/exim/usr/sbin/exim4" -C /dev/null -bV >/dev/null 2>&1; }
opensmtpd_works() { [ -x "$lab/opensmtpd/usr/sbin/smtpd" ] && ! ldd "$lab/opensmtpd/usr/sbin/smtpd" 2>&1 | grep -q 'not found'; }

dnssec_works() {
    local command
    for command in 'sbin/nsd -v' 'sbin/unbound -V' 'bin/ldns-signzone -v' 'bin/ldns-dane -v'; do
        # shellcheck disable=SC2086 # a program and its option
        "$lab/dnssec/usr/"$command >/dev/null 2>&1 || return
    done
}

missing() {
    local package
    for package in postfix "${plain[@]}"; do
        installed "$package" || echo "$package"
    done
    exim_works && getent passwd Debian-exim >/dev/null || echo exim
    opensmtpd_works || echo opensmtpd
    dnssec_works || echo dnssec
}

# Packages start their services after installation unless policy-rc.d forbids it.
forbid_services() {
    [ -e "$policy" ] && return
    our_policy=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

clean_up() {
    [ "$our_policy" = no ] || rm -f "$policy"
    rm -rf "$lab"/.unpack-*
}

updated=no
update() {
    [ "$updated" = no ] || return 0
    updated=yes
    say 'apt-get update'
    apt-get -q update >&2 || fail 'apt-get update failed'
}

known() { apt-cache show "$@" >/dev/null 2>&1; }

apt_install() {
    [ $# -gt 0 ] || return 0
    known "$@" || update
    # --no-remove: the machine's own mail server, if it is another one, stays.
    local command=(apt-get -q -y --no-remove --no-install-recommends -o DPkg::Lock::Timeout=300 install "$@")
    "${command[@]}" >&2 && return 0
    update # the list of packages may be too old for the archive
    "${command[@]}" >&2 || fail "apt-get install $* failed (see above; another mail server installed here is not removed)"
}

install_postfix() {
    installed postfix && return
    # "No configuration": no /etc/postfix/main.cf, hence nothing that could be started by itself.
    # Without debconf-utils there is still debconf-set-selections: it belongs to debconf, which is essential in practice.
    echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
    apt_install postfix
}

# unpack NAME PACKAGE...: the packages' files to $lab/NAME, their library dependencies installed.
unpack() {
    local name=$1 package file scratch dependencies=()
    shift
    known "$@" || update
    scratch=$(mktemp -d "$lab/.unpack-XXXXXX")
    chmod 755 "$scratch"
    mkdir "$scratch/debs" "$scratch/tree"
    download "$scratch/debs" "$@"
    for file in "$scratch"/debs/*.deb; do
        dpkg -x "$file" "$scratch/tree" || fail "dpkg -x $file failed"
        # "a (>= 1), b | c" -> a b ; only libraries: the rest are the parts of a full mail server.
        while read -r package; do
            installed "$package" || dependencies+=("$package")
        done < <(dpkg-deb -f "$file" Depends | tr ',' '\n' | sed -E 's/^ *([^ |:(]+).*/\1/' | grep -E '^(lib|zlib)')
    done
    apt_install ${dependencies+"${dependencies[@]}"}
    rm -rf "${lab:?}/$name"
    mv "$scratch/tree" "$lab/$name"
    rm -rf "$scratch"
}

# download FOLDER PACKAGE...: as apt-get download does, with a second try after an update.
download() {
    local folder=$1
    shift
    chmod 777 "$folder" # apt fetches as its own user
    (cd "$folder" && apt-get -q download "$@" >&2) && return 0
    update
    (cd "$folder" && apt-get -q download "$@" >&2) || fail "apt-get download $* failed"
}

install_exim() {
    unpack exim exim4-daemon-heavy exim4-base
    getent passwd Debian-exim >/dev/null ||
        useradd --system --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin Debian-exim ||
        fail 'user Debian-exim could not be added'
    exim_works || fail "$lab/exim/usr/sbin/exim4 does not start: $("$lab/exim/usr/sbin/exim4" -C /dev/null -bV 2>&1 | tail -n 1)"
}

install_opensmtpd() {
    unpack opensmtpd opensmtpd
    opensmtpd_works || fail "$lab/opensmtpd/usr/sbin/smtpd lacks libraries: $(ldd "$lab/opensmtpd/usr/sbin/smtpd" | grep 'not found' | tr '\n' ' ')"
}

install_dnssec() {
    unpack dnssec nsd unbound ldnsutils
    dnssec_works || fail "a program in $lab/dnssec/usr does not start: $("$lab/dnssec/usr/sbin/unbound" -V 2>&1 | head -n 1)"
}

wanted=$(missing | tr '\n' ' ')
[ -n "$wanted" ] || { say "all is there ($lab)"; exit 0; }
if [ "${1:-}" = --check ]; then
    fail "$wanted(not there; --check installs nothing)"
fi
say "to install: $wanted"
[ "$(id -u)" = 0 ] || fail "$wanted: only root can"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "$wanted: no apt-get here; this script is for Debian 12"

trap clean_up EXIT
mkdir -p "$lab"
chmod 755 "$lab"
forbid_services

absent=()
for package in "${plain[@]}"; do
    installed "$package" || absent+=("$package")
done
apt_install ${absent+"${absent[@]}"}
install_postfix
exim_works && getent passwd Debian-exim >/dev/null || install_exim
opensmtpd_works || install_opensmtpd
dnssec_works || install_dnssec

left=$(missing | tr '\n' ' ')
[ -z "$left" ] || fail "$left"
say "done ($lab)"
