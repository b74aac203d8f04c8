#!/bin/sh
# Runs OpenSMTPD in the foreground with private folders where its compiled-in ones are.
#
#   unshare -m sh opensmtpd_namespace.sh LAB FOLDER
#
# LAB/opensmtpd is Debian's package, unpacked; FOLDER has smtpd.conf and is kept by the caller.  OpenSMTPD has its paths
# (/run/smtpd.sock, /var/spool/smtpd, /var/lib/opensmtpd/empty, /usr/libexec/opensmtpd) and users compiled in: in a mount
# namespace of its own it gets them without the system seeing any of it.
set -eu
lab=$1/opensmtpd
folder=$2

mount --make-rprivate /
mkdir -p "$folder/run" "$folder/spool/smtpd" "$folder/lib/opensmtpd/empty" "$folder/box"
chmod 711 "$folder/spool/smtpd"

{ cat /etc/passwd; printf '%s\n' 'opensmtpd:x:64001:64001::/var/lib/opensmtpd/empty:/usr/sbin/nologin' \
    'opensmtpq:x:64002:64002::/var/lib/opensmtpd/empty:/usr/sbin/nologin' "box:x:64003:64003::$folder/box:/bin/sh"; } >"$folder/passwd"
{ cat /etc/group; printf '%s\n' 'opensmtpd:x:64001:' 'opensmtpq:x:64002:' 'box:x:64003:'; } >"$folder/group"
chown 64003:64003 "$folder/box"
echo '127.0.0.1 localhost' >"$folder/hosts"
echo 'lookup file' >"$folder/resolv.conf" # no DNS: its resolver (asr) would wait for answers about 127.0.0.1

mount --bind "$folder/passwd" /etc/passwd
mount --bind "$folder/group" /etc/group
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/resolv.conf" /etc/resolv.conf
mount --bind "$lab/usr/libexec" /usr/libexec
mount --bind "$folder/run" /run
mount --bind "$folder/spool" /var/spool
mount --bind "$folder/lib" /var/lib
exec "$lab/usr/sbin/smtpd" -d -f "$folder/smtpd.conf"
