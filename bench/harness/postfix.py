"""A private Postfix: own configuration, queue and data folders; it takes mail on loopback and sends it on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from harness import tools
from harness.errors import BenchError, UnavailableError

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file_prefixes = {folder}
maillog_file = {folder}/mail.log
myhostname = near.test
mydestination =
alias_maps =
alias_database =
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
relayhost = {relayhost}
message_size_limit = 104857600
in_flow_delay = 0
smtpd_client_connection_count_limit = 0
{extra}
"""

MASTER_CF = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
tlsmgr    unix  - - n 1000? 1 tlsmgr
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
scache    unix  - - n - 1 scache
error     unix  - - n - - error
retry     unix  - - n - - error
proxymap  unix  - - n - - proxymap
anvil     unix  - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
"""


def check() -> None:
    """Raise UnavailableError if Postfix is not installed."""
    for name in ("postfix", "postconf", "smtp-source"):
        if tools.find(name) is None:
            raise UnavailableError(f"{name} is not installed: run tests/interop/install.sh as root")


def configure(folder: Path, relayhost: str, *, port: int, extra: str = "") -> list[str]:
    """Make an instance in a new folder that sends everything to `relayhost`; gives the command that runs it."""
    for path in (folder, *(folder / name for name in ("etc", "queue", "data"))):
        path.mkdir()
    shutil.chown(folder / "data", "postfix")
    main = MAIN_CF.format(folder=folder, relayhost=relayhost, extra=extra)
    for name, text in (("main.cf", main), ("master.cf", MASTER_CF.format(port=port))):
        (folder / "etc" / name).write_text(text)
        # It does not believe for two seconds in a file that has just been changed.
        os.utime(folder / "etc" / name, (0, 0))
    prepare = [str(tools.find("postfix")), "-c", str(folder / "etc"), "check"]
    done = subprocess.run(prepare, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise BenchError(f"Postfix's queue cannot be made:\n{done.stderr}")
    shown = subprocess.run(
        [str(tools.find("postconf")), "-dh", "daemon_directory"], capture_output=True, text=True, timeout=60, check=True
    )
    return [f"{shown.stdout.strip()}/master", "-c", str(folder / "etc"), "-d"]


def version() -> str:
    """What is installed here."""
    return tools.version("postconf", "-d", "mail_version").rpartition(" ")[2]
