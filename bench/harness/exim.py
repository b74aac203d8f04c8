"""A private Exim: own configuration, spool and logs.

Debian lets only one mail server be installed, so the package is only unpacked, by tests/interop/install.sh.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from harness import tools
from harness.errors import UnavailableError

USER = "Debian-exim"
LAB = "/var/tmp/smtpproxy-lab"  # noqa: S108 -- where install.sh unpacks it, unless SMTPPROXY_LAB says otherwise

COMMON = """\
exim_path = {program}
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
primary_hostname = {name}
qualify_domain = lab.test
keep_environment =
host_lookup =
rfc1413_hosts =
disable_ipv6
smtp_accept_queue_per_connection = 0
message_size_limit = 100M
local_from_check = false
"""


def find() -> Path:
    """The program. Raises UnavailableError if it is not here, or was built without early pipelining."""
    path = Path(os.environ.get("SMTPPROXY_LAB", LAB)) / "exim/usr/sbin/exim4"
    if not path.exists():
        raise UnavailableError(f"{path} is not there: run tests/interop/install.sh as root")
    done = subprocess.run([path, "-C", "/dev/null", "-bV"], capture_output=True, text=True, timeout=60, check=False)
    if "PIPECONNECT" not in done.stdout:
        raise UnavailableError(f"{path} does not know early pipelining: {done.stderr.strip()[-200:]}")
    return path


def configure(folder: Path, name: str, text: str) -> Path:
    """Make a folder for an Exim of its own, with the configuration in it; gives that file."""
    folder.mkdir()
    for part in ("spool", "log"):
        (folder / part).mkdir()
        shutil.chown(folder / part, USER, USER)
    file = folder / "exim.conf"
    file.write_text(COMMON.format(program=find(), folder=folder, name=name) + text)
    return file


def version() -> str:
    """What is unpacked here."""
    return tools.version(str(find()), "-C", os.devnull, "-bV", having="Exim version")
