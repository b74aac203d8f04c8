"""What takes messages on loopback and delivers them to the sink: smtpproxy, and mail servers for comparison."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from pathlib import Path

from harness import exim, postfix, tools
from harness.lab import HOST

POSTFIX = "smtp_tls_security_level = none"

# It delivers each message at once, in a process of its own, early and with BDAT.
EXIM = """\
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
tls_advertise_hosts =
smtp_accept_max = 200
smtp_connect_backlog = 200
acl_smtp_rcpt = recipients

begin acl
recipients:
  accept

begin routers
sink:
  driver = manualroute
  route_list = * 127.0.0.1
  transport = sink
  self = send

begin transports
sink:
  driver = smtp
  port = {sink}
  allow_localhost
  hosts_avoid_tls = *
  hosts_pipe_connect = *
  hosts_try_chunking = *
  hosts_try_dane =

begin retry
* * F,1h,1s
"""

SMTPPROXY = """\
listeners:
  - name: smarthost
    mode: outbound
    listen: ["127.0.0.1:{port}"]
    hostname: relay.test
    limits: {{sessions: 1000, sessions_per_client: 1000}}
routes:
  - domain: "*"
    nexthops: ["127.0.0.1:{sink}"]
    tls: {{mode: none}}
    reuse: {reuse}
cache: {{store: "sqlite:{folder}/cache.db"}}
log: {{format: json, to: "file:{folder}/sessions.log", level: info}}
"""


class Relay(ABC):
    """A relay that can be started in front of the sink."""

    key: str
    label: str
    effort: float = 1.0
    """Which part of the usual number of messages one measurement takes."""
    ours = False
    """Whether it is smtpproxy."""

    @abstractmethod
    def check(self) -> None:
        """Raise UnavailableError if it cannot run here."""

    @abstractmethod
    def version(self) -> str:
        """What is installed here."""

    @abstractmethod
    def command(self, folder: Path, port: int, sink: int) -> list[str]:
        """Write its configuration into the folder and give the command that runs it in the foreground."""


class Postfix(Relay):
    """Postfix: every message goes through its queue."""

    key = "postfix"
    label = "Postfix"

    def check(self) -> None:
        """See Relay."""
        postfix.check()

    def version(self) -> str:
        """See Relay."""
        return postfix.version()

    def command(self, folder: Path, port: int, sink: int) -> list[str]:
        """See Relay."""
        return postfix.configure(folder / "instance", f"[{HOST}]:{sink}", port=port, extra=POSTFIX)


class Exim(Relay):
    """Exim: every message goes through its spool."""

    key = "exim"
    label = "Exim"
    effort = 0.2

    def check(self) -> None:
        """See Relay."""
        exim.find()

    def version(self) -> str:
        """See Relay."""
        return exim.version()

    def command(self, folder: Path, port: int, sink: int) -> list[str]:
        """See Relay."""
        file = exim.configure(folder / "instance", "relay.test", EXIM.format(port=port, sink=sink))
        return [str(exim.find()), "-C", str(file), "-bdf"]


class SmtpProxy(Relay):
    """smtpproxy with its defaults, but for the limit of sessions from one client."""

    key = "smtpproxy"
    label = "smtpproxy"
    ours = True
    reuse = "on"

    def check(self) -> None:
        """See Relay."""

    def version(self) -> str:
        """See Relay."""
        return tools.version(sys.executable, "-m", "smtpproxy", "--version")

    def command(self, folder: Path, port: int, sink: int) -> list[str]:
        """See Relay."""
        file = folder / "smtpproxy.yaml"
        file.write_text(SMTPPROXY.format(port=port, sink=sink, folder=folder, reuse=self.reuse))
        return [sys.executable, "-m", "smtpproxy", "run", "-c", str(file)]


class SmtpProxyAnew(SmtpProxy):
    """The same with a new session with the sink for each message."""

    key = "smtpproxy-anew"
    label = "smtpproxy, `reuse: off`"
    reuse = "off"


RELAYS: tuple[Relay, ...] = (Postfix(), Exim(), SmtpProxy(), SmtpProxyAnew())
