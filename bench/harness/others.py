"""HAProxy and stunnel: what passes octets on unread."""

from __future__ import annotations

from pathlib import Path

from harness import tools
from harness.lab import HOST, Lab
from harness.peer import CONNECTIONS, POLITE_MODES, WITH_TLS, Peer, write


class HAProxy(Peer):
    """HAProxy in TCP mode, one thread, without a log: octets are passed on unread."""

    key = "haproxy"
    label = "HAProxy, mode tcp"
    program = "haproxy"

    def command(self, lab: Lab, folder: Path, ports: dict[str, int], backend: int) -> list[str]:
        """See Peer."""
        configuration = f"""\
global
    nbthread 1
    maxconn {min(CONNECTIONS, lab.descriptors // 2 - 100)}
defaults
    mode tcp
    timeout connect 10s
    timeout client 5m
    timeout server 5m
listen bench
    bind {HOST}:{ports["none"]}
    server sink {HOST}:{backend}
"""
        path = write(folder / "haproxy.cfg", configuration)
        return [str(tools.find("haproxy")), "-db", "-f", path]


class Stunnel(Peer):
    """stunnel: one thread for each connection, TLS on one side and the same octets without it on the other."""

    key = "stunnel"
    label = "stunnel"
    program = "stunnel4"
    wires = WITH_TLS
    modes = (*POLITE_MODES, "bdat")

    def command(self, lab: Lab, folder: Path, ports: dict[str, int], backend: int) -> list[str]:
        """See Peer."""
        certificate = lab.certificate
        common = f"""\
connect = {HOST}:{backend}
cert = {certificate.chain}
key = {certificate.key}
sslVersionMin = TLSv1.3
sessionCacheTimeout = {tools.TICKET_SECONDS}
"""
        configuration = f"""\
foreground = yes
pid =
debug = err
[starttls]
accept = {HOST}:{ports["starttls"]}
protocol = smtp
{common}
[implicit]
accept = {HOST}:{ports["implicit"]}
{common}"""
        return [str(tools.find("stunnel4")), write(folder / "stunnel.conf", configuration)]
