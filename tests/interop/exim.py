"""Exim 4.96 as a client, the only widely deployed mail server that can pipeline early.

Its own spool, so that what it has learned about servers (spool/db/misc) is forgotten with the test.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .lab import missing, need_root, need_user, unpacked
from .messages import Sample

CONFIGURATION = """\
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
smtp_accept_queue_per_connection = 0
log_selector = +pipelining +millisec +smtp_confirmation +tls_resumption
message_size_limit = 100M
local_from_check = false
disable_ipv6

begin routers
bounces:
  driver = redirect
  senders = :
  data = :blackhole:

proxy:
  driver = manualroute
  route_list = * 127.0.0.1
  transport = to_proxy
  self = send

begin transports
to_proxy:
  driver = smtp
  port = {port}
  allow_localhost
  hosts_pipe_connect = *
  hosts_try_chunking = {chunking}
  hosts_try_fastopen =
  hosts_try_dane =
{tls}
  hosts_try_prdr =
  command_timeout = 20s
  data_timeout = 20s
  final_timeout = 40s

begin retry
* * F,1h,1s
"""

_serial = itertools.count(1)
_NO_TLS = "  hosts_avoid_tls = *"
_STARTTLS = """\
  hosts_require_tls = *
  tls_verify_certificates = {anchor}
  tls_verify_hosts = *
  tls_resumption_hosts = *
  tls_sni = mx.lab.test"""
# The port is that of a server which speaks TLS from the first octet on.
_IMPLICIT = "  protocol = smtps\n" + _STARTTLS
Tls = Literal["", "starttls", "implicit"]
TLS = {"": _NO_TLS, "starttls": _STARTTLS, "implicit": _IMPLICIT}


@dataclass(frozen=True)
class Delivery:
    """What one run of Exim did: its main log lines of the run, and its debug output."""

    log: str
    debug: str

    @property
    def early(self) -> bool:
        """Whether Exim logged an accepted recipient as sent by early pipelining (`L*`)."""
        return any(re.search(r" L\* ", line) for line in self.accepted)

    @property
    def accepted(self) -> list[str]:
        """The log lines of recipients that the server accepted (`=>` and, in the same transaction, `->`)."""
        return [line for line in self.log.splitlines() if re.search(r" [=-]> .* T=to_proxy ", line)]

    @property
    def deferred(self) -> list[str]:
        """The log lines of recipients left for later (`==`)."""
        return [line for line in self.log.splitlines() if " == " in line]

    @property
    def refused(self) -> list[str]:
        """The log lines of recipients refused for good (`**`)."""
        return [line for line in self.log.splitlines() if " ** " in line]


class Exim:
    """An Exim that sends everything to one port of 127.0.0.1."""

    def __init__(
        self, folder: Path, port: int, *, chunking: bool = True, tls: Tls = "", anchor: Path | None = None
    ) -> None:
        """`folder` must be open to other users; `chunking` turns on hosts_try_chunking: BDAT where offered.

        With `tls` every server must have a certificate of the authority `anchor`.
        """
        need_root("run Exim with a configuration of its own")
        need_user("Debian-exim")
        self.program = unpacked("exim/usr/sbin/exim4")
        self.folder = folder
        self.name = f"exim{next(_serial)}.lab.test"
        for name in ("spool", "log"):
            (folder / name).mkdir()
            shutil.chown(folder / name, "Debian-exim", "Debian-exim")
        self.configuration = folder / "exim.conf"
        if anchor is not None:
            shutil.copy(anchor, folder / "anchor.pem")  # where Exim's user can read it
        text = CONFIGURATION.format(
            program=self.program,
            folder=folder,
            name=self.name,
            port=port,
            chunking="*" if chunking else "",
            tls=TLS[tls].format(anchor=folder / "anchor.pem"),
        )
        self.configuration.write_text(text, encoding="ascii")
        version = self._run("-bV").stdout
        if b"PIPECONNECT" not in version:
            missing(f"{self.program} is not built with early pipelining (PIPECONNECT)")

    def send(self, message: Sample, *recipients: str) -> Delivery:
        """Hand a message to Exim and let it try one delivery at once, in the foreground."""
        to = recipients or ("recipient@lab.test",)
        return self._delivery("-odf", "-oi", "-f", "sender@lab.test", *to, data=message.text)

    def enqueue(self, message: Sample) -> None:
        """Hand a message to Exim that it only puts into its queue."""
        self._delivery("-odq", "-oi", "-f", "sender@lab.test", "recipient@lab.test", data=message.text)

    def run_queue_by_host(self) -> Delivery:
        """Deliver the queue sorted by server: messages to the same one share a connection."""
        return self._delivery("-qqff")

    def retry(self) -> Delivery:
        """Try everything in the queue once more, now."""
        return self._delivery("-qff")

    def queue(self) -> list[str]:
        """The identifiers of the messages in the queue."""
        return sorted({path.name.removesuffix("-H") for path in (self.folder / "spool/input").rglob("*-H")})

    def _delivery(self, *arguments: str, data: bytes = b"") -> Delivery:
        before = len(self._log())
        done = self._run("-d-all+transport", *arguments, data=data)
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
        return Delivery(self._log()[before:], done.stderr.decode("utf-8", "replace"))

    def _log(self) -> str:
        path = self.folder / "log/mainlog"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def _run(self, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [str(self.program), "-C", str(self.configuration), *arguments]
        return subprocess.run(command, input=data, capture_output=True, check=False, timeout=120)
