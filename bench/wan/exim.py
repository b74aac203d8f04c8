"""Exim: as the remote server, which offers early pipelining, and as a client that knows it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import exim, tools
from harness.process import Process

from wan.machines import FAR, Machine
from wan.trace import REPLY_OCTETS

PORT = 25

# Everything is accepted, with a long reply, and thrown away.
#
# Where a client sends QUIT together with the message and does not close, Exim keeps all replies for 200 ms, in the hope
# that it will. That is no matter of round trips, so a "delay" that is none makes it send what it has first.
SERVER = """\
daemon_smtp_ports = {port}
local_interfaces = 0.0.0.0
pipelining_connect_advertise_hosts = *
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}
tls_resumption_hosts = *
acl_smtp_rcpt = recipients
acl_smtp_data = message
{quit}

begin acl
recipients:
  accept
message:
  accept message = 2.0.0 OK {padding}
quit:
  accept delay = 0s

begin routers
all:
  driver = redirect
  data = :blackhole:
"""

CLIENT = """\
begin routers
remote:
  driver = manualroute
  route_list = * {remote}
  transport = line
  self = send

begin transports
line:
  driver = smtp
  port = {port}
  hosts_pipe_connect = *
  hosts_try_chunking = *
  hosts_try_fastopen = {fast_open}
  hosts_try_dane =
  hosts_try_prdr =
{tls}

begin retry
* * F,1h,1s
"""

CLEAR = "  hosts_avoid_tls = *"
# The certificate is not looked at: nothing of that takes a round trip.
STARTTLS = """\
  hosts_require_tls = *
  tls_try_verify_hosts =
  tls_verify_certificates =
  tls_resumption_hosts = *"""


class Remote:
    """The server at the far end."""

    def __init__(self, folder: Path, machine: Machine, *, quit_pause: bool) -> None:
        """Start it; with or without its pause before the replies to a message that came with QUIT."""
        folder.mkdir()
        pair = tools.make_certificate(folder)
        shutil.chown(pair.key, exim.USER)
        text = SERVER.format(
            port=PORT,
            certificate=pair.chain,
            key=pair.key,
            padding="." * REPLY_OCTETS,
            quit="" if quit_pause else "acl_smtp_quit = quit",
        )
        file = exim.configure(folder / "exim", "mx.lab.test", text)
        self._log = folder / "exim/log/mainlog"
        self.process: Process = machine.start("exim", [str(exim.find()), "-C", str(file), "-bdf"], PORT)

    def accepted(self) -> int:
        """How many messages it has accepted so far."""
        return self._log.read_text().count(" <= ") if self._log.exists() else 0


@dataclass(frozen=True)
class Client:
    """An Exim at the near end that sends everything to the remote."""

    machine: Machine
    configuration: Path

    def send(self, message: bytes) -> None:
        """Send a message, and wait for it to be sent. Raises BenchError if it cannot."""
        command = [str(exim.find()), "-C", str(self.configuration), "-odf", "-oi", "-f", "a@near.test", "b@lab.test"]
        self.machine.run(command, data=message)


def client(folder: Path, machine: Machine, *, starttls: bool, fast_open: bool) -> Client:
    """Configure a client in a new folder."""
    tls = STARTTLS if starttls else CLEAR
    text = CLIENT.format(remote=FAR, port=PORT, fast_open="*" if fast_open else "", tls=tls)
    return Client(machine, exim.configure(folder, "near.test", text))
