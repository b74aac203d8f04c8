"""Exim as the server of a destination, the only other implementation of early pipelining; and as a client by LMTP."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from freeports import free_port

from .exim import Exim
from .lab import Process, files_below, need_root, need_user, open_folder, unpacked, wait_for
from .messages import Maildir, Sample, Stored

# Every domain is its own. `queue`: messages stay in the spool, until somebody counts them.
SERVER = """\
exim_path = {program}
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
daemon_smtp_ports = {port} : {polite} : {data}
local_interfaces = 127.0.0.1
primary_hostname = exim.lab.test
qualify_domain = lab.test
keep_environment =
host_lookup =
rfc1413_hosts =
disable_ipv6
pipelining_connect_advertise_hosts = ${{if eq{{$received_port}}{{{polite}}}{{}}{{*}}}}
chunking_advertise_hosts = ${{if eq{{$received_port}}{{{data}}}{{}}{{*}}}}
tls_advertise_hosts = *
tls_certificate = {folder}/cert.pem
tls_privatekey = {folder}/key.pem
tls_resumption_hosts = *
log_selector = +pipelining +millisec +smtp_protocol_error +smtp_syntax_error +received_recipients
message_size_limit = 100M
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
queue_only = {queue}
split_spool_directory = {queue}
acl_smtp_connect = pause
acl_smtp_rcpt = recipients

begin acl
pause:
  accept condition = ${{if eq{{{pause}}}{{0}}{{yes}}}}
  accept set acl_c0 = ${{run{{/bin/sleep {pause}}}}}
recipients:
  deny    local_parts = refused
          message = 5.1.1 no such user
  defer   local_parts = later
          message = 4.2.0 come back later
  accept

begin routers
everybody:
  driver = accept
  transport = box

begin transports
box:
  driver = appendfile
  maildir_format
  directory = {folder}/box
  envelope_to_add
  return_path_add
  user = Debian-exim

begin retry
* * F,1h,1s
"""


@dataclass
class EximRemote:
    """One private instance; `start` and `stop` as often as a test wants, always on the same ports.

    On `polite` it does not offer early pipelining, on `data` no CHUNKING. `pause`: seconds before it greets, in which
    what a client says early can come, even if there is a recorder on the way: only then it knows that it is early.
    """

    folder: Path
    pair: Any
    queue: bool = False
    pause: float = 0.0
    port: int = field(default_factory=free_port)
    polite: int = field(default_factory=free_port)
    data: int = field(default_factory=free_port)
    process: Process | None = None

    def __post_init__(self) -> None:
        """The Maildir that it delivers to, and its configuration."""
        self.box = Maildir(self.folder / "box")
        self.configuration = self.folder / "exim.conf"
        self.program = unpacked("exim/usr/sbin/exim4")
        for name in ("spool", "log", "box"):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, "Debian-exim", "Debian-exim")
        for name, path in (("cert.pem", self.pair.cert), ("key.pem", self.pair.key)):
            shutil.copy(path, self.folder / name)
            shutil.chown(self.folder / name, "Debian-exim", "Debian-exim")
        text = SERVER.format(
            program=self.program,
            folder=self.folder,
            port=self.port,
            polite=self.polite,
            data=self.data,
            queue="yes" if self.queue else "no",
            pause=f"{self.pause:g}",
        )
        self.configuration.write_text(text, encoding="ascii")

    def start(self) -> None:
        """Start; returns when the ports are listened on."""
        command = [str(self.program), "-C", str(self.configuration), "-bdf"]
        self.process = Process(command, self.folder / "start.log")
        for port in (self.port, self.polite, self.data):
            self.process.wait_listening(port)

    def stop(self) -> None:
        """Stop all of its processes; harmless when it does not run."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def kill(self) -> None:
        """Kill it and all of its sessions, wherever they are."""
        assert self.process is not None
        process, self.process = self.process, None
        process.stop(first=signal.SIGKILL)

    def log(self) -> str:
        """Its main log."""
        path = self.folder / "log/mainlog"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def arrival(self, message: Sample) -> str:
        """The line of its log by which it took a message."""

        def look() -> str:
            found = re.findall(rf"^.* <= .* id={message.token}@.*$", self.log(), re.MULTILINE)
            assert len(found) <= 1, f"{message.token} came more than once"
            return found[0] if found else ""

        return wait_for(look, f"{message.token} in Exim's log")

    def queued(self) -> list[Path]:
        """The spool files of messages not yet delivered, and of sessions in the middle of one."""
        return files_below(self.folder / "spool", "input")

    def delivered(self, seconds: float = 30.0) -> list[Stored]:
        """Wait until the queue is empty, and give everything ever delivered."""
        wait_for(lambda: not self.queued(), f"an empty queue of Exim\n{self.log()[-2000:]}", seconds)
        return self.box.messages()


@contextlib.contextmanager
def exim_remote(pair: Any, *, queue: bool = False, pause: float = 0.0) -> Iterator[EximRemote]:
    """A started Exim server with that certificate; stopped and removed at the end."""
    need_root("start a private Exim")
    need_user("Debian-exim")
    with open_folder("exim-remote") as folder:
        server = EximRemote(folder, pair, queue, pause)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def pipelining(line: str) -> str:
    """How a line of Exim's log shows a session: L* early, L. not early though it was offered, L- lock-step, or L."""
    found = re.search(r" (L[*.-]?) ", line)
    return found[1] if found else ""


class LmtpExim(Exim):
    """An Exim that sends everything to an LMTP server."""

    def __init__(self, folder: Path, port: int) -> None:
        """As `Exim`; LMTP is never spoken early by it."""
        super().__init__(folder, port)
        text = self.configuration.read_text(encoding="ascii")
        changed = text.replace("  driver = smtp\n", "  driver = smtp\n  protocol = lmtp\n")
        assert changed != text
        self.configuration.write_text(changed, encoding="ascii")
