"""Probing in a test: with a reactor of its own, a DNS server with invented names, and certificates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from dnsserver import DnsServer
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.python.failure import Failure

from smtpproxy.config import Dns, RemoteTls
from smtpproxy.net.resolver import Resolver
from smtpproxy.ops.probe.destination import Destination
from smtpproxy.ops.probe.facts import Found
from smtpproxy.ops.probe.run import Look, Probe, probe
from smtpproxy.ops.probe.tlsview import TlsView
from smtpproxy.ops.probe.trial import Envelope
from smtpproxy.ops.probe.visit import Tools

Do = Callable[..., Found]


@pytest.fixture
def reactor() -> Iterator[Any]:
    """A reactor of the test's own."""
    own = EPollReactor()
    own.startRunning(installSignalHandlers=False)
    yield own
    own.disconnectAll()
    own.fireSystemEvent("shutdown")
    own.iterate(0)


@pytest.fixture
def do(reactor: Any, pki: Any) -> Do:
    """Probe: ``do("example.org", zones, port=…, recipient=…, tls=False, fetch=…, look=…, patience=…)``."""

    def run(
        what: str,
        zones: Any = None,
        *,
        port: int | None = None,
        recipient: str = "",
        tls: bool = True,
        fetch: Any = None,
        look: Look | None = None,
        patience: float = 20.0,
    ) -> Found:
        settings = RemoteTls(ca=pki.root.path)
        view = TlsView(settings, lambda: datetime.now(UTC)) if tls else None
        envelope = Envelope("", recipient) if recipient else None
        with DnsServer(zones or {}) as dns:
            servers = [f"{dns.address}:{dns.port}"]
            resolver = Resolver(reactor, reactor, Dns.model_validate({"servers": servers, "trust_ad": "yes"}))
            order = Probe(Tools(reactor, "me.example.net", patience, view), resolver, fetch, envelope)
            outcome: list[Any] = []
            probing = Deferred.fromCoroutine(probe(Destination.parse(what, port), order, look, asked=what))
            probing.addBoth(outcome.append)
            while not outcome:
                reactor.iterate(0.05)
            for _ in range(5):  # connections that were closed are gone then
                reactor.iterate(0)
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        found: Found = outcome[0]
        return found

    return run
