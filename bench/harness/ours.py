"""smtpproxy itself, in the variants that are measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import tools
from harness.errors import UnavailableError
from harness.lab import HOST, Lab
from harness.peer import CONNECTIONS, PLAIN, Peer, write


class SmtpProxy(Peer):
    """smtpproxy with its defaults, but for the settings that make the variant, the limits of sessions and the log.

    HAProxy and nginx write no log here, so that the variants beside them write no line per session either; what the log
    costs is seen in the variants that have it.
    """

    adapts = True

    def __init__(
        self,
        key: str,
        label: str,
        *,
        connect: str,
        reuse: str,
        transport: str = "lean",
        log: bool = False,
        wires: tuple[str, ...] = PLAIN,
    ) -> None:
        """`connect`, `reuse` and `transport` are the settings of these names; `log` writes a line per session."""
        self.key = key
        self.label = label
        self._connect = connect
        self._reuse = reuse
        self._transport = transport
        self._level = "info" if log else "warning"
        self.only_cpu = log
        self.wires = wires

    def check(self) -> None:
        """Raise UnavailableError if this Python cannot run it."""
        probe = [sys.executable, "-m", "smtpproxy", "run", "--help"]
        done = subprocess.run(probe, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            reason = next(iter(done.stderr.strip().splitlines()[-1:]), "no reason given")
            raise UnavailableError(f"this Python cannot run smtpproxy ({reason})")
        if self.with_tls:
            tools.check_tls()

    def command(self, lab: Lab, folder: Path, ports: dict[str, int], backend: int) -> list[str]:
        """See Peer."""
        listeners = "".join(smtpproxy_listener(lab, wire, port) for wire, port in ports.items())
        configuration = f"""\
listeners:
{listeners}backends:
  sink: {{servers: ["{HOST}:{backend}"], connect: {self._connect}, reuse: {self._reuse}}}
log: {{format: json, to: "file:{folder}/sessions.log", level: {self._level}}}
service: {{transport: {self._transport}}}
"""
        path = write(folder / "smtpproxy.yaml", configuration)
        return [sys.executable, "-m", "smtpproxy", "run", "-c", path]


def smtpproxy_listener(lab: Lab, wire: str, port: int) -> str:
    """The settings of one listener."""
    settings = f"""\
  - name: bench-{wire}
    mode: inbound
    listen: ["{HOST}:{port}"]
    backend: sink
    recipient_domains: [example.org]
    hostname: proxy.example.org
    limits: {{sessions: {CONNECTIONS}, sessions_per_client: {CONNECTIONS}}}
"""
    if wire == "none":
        return settings
    certificate = lab.certificate
    pair = f'{{cert: "{certificate.chain}", key: "{certificate.key}"}}'
    return f"{settings}    tls: {{mode: {wire}, certificates: [{pair}]}}\n"
