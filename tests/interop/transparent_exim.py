"""Exim on a machine of its own: as a mail server that nobody configures, and as a server of the world that offers early
pipelining.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from .lab import STARTING, Process, need_user, unpacked, wait_for, whole_lines
from .messages import Maildir, Sample
from .namespaces import Machine

COMMON = """\
exim_path = {program}
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
qualify_domain = lab.test
keep_environment =
host_lookup =
rfc1413_hosts =
log_selector = +pipelining +smtp_confirmation
"""

CLIENT = """\
primary_hostname = mail.lab.test
local_from_check = false

begin routers
world:
  driver = manualroute
  route_list = {routes}
  transport = smtp

begin transports
smtp:
  driver = smtp
  hosts_try_dane =
"""

NO_TLS = "tls_advertise_hosts ="
TLS = "tls_certificate = {folder}/cert.pem\ntls_privatekey = {folder}/key.pem"

SERVER = """\
primary_hostname = mx.world.test
daemon_smtp_ports = 25
local_interfaces = <; {addresses}
acl_smtp_connect = pause
acl_smtp_rcpt = recipients
{tls}

begin acl
recipients:
  deny    local_parts = refused
          message = 5.1.1 no such user
  accept

# It knows that a client is early only if what that says is here when it greets.
pause:
  accept  condition = {early}
          set acl_c0 = ${{run{{/bin/sleep 0.3}}}}
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
  user = Debian-exim
"""


class EximThere:
    """An Exim of one machine, with a folder of its own."""

    def __init__(self, machine: Machine, folder: Path, text: str) -> None:
        need_user("Debian-exim")
        self.machine = machine
        self.folder = folder
        self.program = unpacked("exim/usr/sbin/exim4")
        self.box = Maildir(folder / "box")
        for name in ("", "spool", "log", "box"):
            (folder / name).mkdir(exist_ok=True)
            shutil.chown(folder / name, "Debian-exim", "Debian-exim")
        self._file = folder / "exim.conf"
        self._file.write_text(COMMON.format(program=self.program, folder=folder) + text, encoding="ascii")

    def command(self, *arguments: str) -> list[str]:
        """The command that runs it on its machine."""
        return self.machine.command(str(self.program), "-C", str(self._file), *arguments)

    def waits(self) -> bool:
        """Whether it has not delivered something yet."""
        return any(path.is_file() for path in (self.folder / "spool/input").rglob("*"))

    def log(self) -> list[str]:
        """Its main log."""
        path = self.folder / "log/mainlog"
        return whole_lines(path.read_text("utf-8")) if path.exists() else []


def client(machine: Machine, folder: Path, routes: dict[str, str]) -> EximThere:
    """One that sends mail for these domains straight to port 25 of these addresses."""
    listed = " ; ".join(f'{domain} "<+ {address}"' for domain, address in routes.items())
    return EximThere(machine, folder, CLIENT.format(routes=listed))


def send(exim: EximThere, message: Sample, recipient: str) -> str:
    """Hand a message to it, and let it try once to deliver it; gives the line of its log that says how that ended."""
    before = len(exim.log())
    command = exim.command("-odf", "-oi", "-f", "sender@lab.test", recipient)
    subprocess.run(command, input=message.text, capture_output=True, check=True)
    (told,) = [line for line in exim.log()[before:] if recipient in line and " <= " not in line]
    return told


def server(
    machine: Machine, folder: Path, addresses: tuple[str, ...], pair: Any = None, *, early: bool = True
) -> tuple[EximThere, Process]:
    """One that takes mail at these addresses, and its process; it offers STARTTLS if it has a certificate.

    With `early` it waits before it greets, so that its log can tell who is early.
    """
    tls = TLS.format(folder=folder) if pair else NO_TLS
    exim = EximThere(
        machine,
        folder,
        SERVER.format(addresses=" ; ".join(addresses), folder=folder, tls=tls, early=str(early).lower()),
    )
    for name, path in (("cert.pem", pair.cert), ("key.pem", pair.key)) if pair else ():
        shutil.copy(path, folder / name)
        shutil.chown(folder / name, "Debian-exim")
    process = Process(exim.command("-bdf"), folder / "start.log")

    def listens() -> bool:
        assert process.popen.poll() is None, process.text()
        shown = subprocess.run(machine.command("ss", "-Hltn"), capture_output=True, text=True, check=True).stdout
        return all(f"{address}:25 " in shown or f"[{address}]:25 " in shown for address in addresses)

    try:
        wait_for(listens, "Exim to listen", STARTING)
    except BaseException:
        process.stop()
        raise
    return exim, process
