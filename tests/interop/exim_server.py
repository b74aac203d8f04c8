"""A private Exim as a server: pipelines, takes BDAT, knows early pipelining itself, and has users (AUTH in clear text).

Delivery to a Maildir; recipients of foreign domains are accepted from users only.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from freeports import free_port

from .lab import Process, files_below, need_root, need_user, open_folder, unpacked, wait_for
from .messages import Maildir, Stored

USER = "somebody"
PASSWORD = "geheim"  # not in any other text of the tests

CONFIGURATION = """\
exim_path = {program}
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
primary_hostname = mx.lab.test
qualify_domain = lab.test
keep_environment =
host_lookup =
rfc1413_hosts =
disable_ipv6
tls_advertise_hosts =
log_selector = +pipelining +millisec +smtp_protocol_error +smtp_syntax_error
message_size_limit = 100M
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = recipients

begin acl
recipients:
  deny    local_parts = refused
          message = 5.1.1 no such user
  accept  domains = lab.test
  accept  authenticated = *
  deny    message = 5.7.1 relaying denied by the backend

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

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{ {{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}} }}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = <| Username: | Password:
  server_condition = ${{if and{{ {{eq{{$auth1}}{{{user}}}}}{{eq{{$auth2}}{{{password}}}}} }}}}
  server_set_id = $auth1
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{{user}}}{{{password}}}fail}}
  server_set_id = $auth1
"""


@dataclass
class EximServer:
    """One private instance."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: Process | None = None

    def __post_init__(self) -> None:
        """The Maildir that it delivers to."""
        self.box = Maildir(self.folder / "box")

    def start(self) -> None:
        """Write the configuration and start; returns when the port is listened on."""
        program = unpacked("exim/usr/sbin/exim4")
        for name in ("spool", "log", "box"):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, "Debian-exim", "Debian-exim")
        text = CONFIGURATION.format(program=program, folder=self.folder, port=self.port, user=USER, password=PASSWORD)
        file = self.folder / "exim.conf"
        file.write_text(text, encoding="ascii")
        self.process = Process([str(program), "-C", str(file), "-bdf"], self.folder / "start.log")
        self.process.wait_listening(self.port)

    def stop(self) -> None:
        """Stop all of its processes; harmless when it does not run."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def log(self) -> str:
        """Its main log."""
        path = self.folder / "log/mainlog"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def queued(self) -> list[Path]:
        """The spool files of messages not yet delivered, and of sessions in the middle of one."""
        return files_below(self.folder / "spool", "input")

    def delivered(self, seconds: float = 30.0) -> list[Stored]:
        """Wait until the queue is empty, and give everything ever delivered."""
        wait_for(lambda: not self.queued(), f"an empty queue of Exim\n{self.log()[-2000:]}", seconds)
        return self.box.messages()


@contextlib.contextmanager
def exim_server() -> Iterator[EximServer]:
    """A started Exim server; stopped and removed at the end."""
    need_root("start a private Exim")
    need_user("Debian-exim")
    with open_folder("exim-server") as folder:
        server = EximServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
