"""What a generation has for mail to the world: routes made ready, DNS, the EHLO cache, connections with remotes."""

from __future__ import annotations

import os
import random
import socket
import time
from datetime import UTC, datetime
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from twisted.python.threadpool import ThreadPool

from smtpproxy.config import Route
from smtpproxy.net.dialling import may_mark
from smtpproxy.net.mtasts import MtaSts
from smtpproxy.net.outboundcontext import OutboundContext
from smtpproxy.net.ownaddresses import OwnAddresses, OwnHosts
from smtpproxy.net.remotepolicy import RemotePolicy
from smtpproxy.net.remoteroute import RemoteRoute, read_credentials
from smtpproxy.net.remotes import Remotes
from smtpproxy.net.remotetls import RemoteTls
from smtpproxy.net.resolver import Resolver
from smtpproxy.net.router import Router
from smtpproxy.store.ehlo import EhloCache
from smtpproxy.store.opening import make_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from smtpproxy.config import Config, ListenerBase, OutboundListener
    from smtpproxy.config import RemoteTls as RemoteTlsSettings
    from smtpproxy.net.stsfetch import HttpsTls
    from smtpproxy.net.sweep import Sweep
    from smtpproxy.net.tlsfiles import TlsReport
    from smtpproxy.net.tlsserver import ServerTls
    from smtpproxy.ops.journal import Journal

_THREADS: Final = 64
"""Look-ups at a time: a name server that is away holds each thread until its time is up."""


class Outbound:
    """Everything that outbound listeners need beside their sockets."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        journal: Journal,
        sweep: Sweep,
        *,
        report: TlsReport,
        server_tls: Mapping[str, ServerTls],
        before: Outbound | None,
    ) -> None:
        """Make everything ready; nothing is asked of anybody yet.

        The cache of the generation ``before`` goes on where its settings are the same.  Raises TlsError, SecretError,
        and OSError where connections cannot be marked as the configuration says.
        """
        _try_marks(config)
        self._config = config
        self.cache_settings = config.cache
        self._reactor = reactor
        self._report = report
        self._threads = ThreadPool(0, _THREADS, "dns")
        # The end of the process waits for no name server.
        self._threads.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]  # any callable will do
        self._threads.start()
        self.remotes = Remotes(reactor, time.monotonic, lean=config.service.transport == "lean")
        self._https: HttpsTls | None = None
        self._tls: dict[RemoteTlsSettings, RemoteTls] = {}
        self._routes = {listener.name: _routes_of(listener, config.routes) for listener in config.outbound}
        self._resolver = Resolver(reactor, reactor, config.dns, pool=self._threads)
        self._policy = RemotePolicy(self._resolver, self._mta_sts(journal), journal)
        ready = {listener.name: self._make_ready(listener) for listener in config.outbound}
        own = OwnAddresses(_listening(config.outbound))
        self._listening = tuple(_listening(config.listeners))
        self.cache = self._make_cache(journal, before)
        self.contexts = {
            listener.name: OutboundContext(
                listener,
                sweep,
                journal,
                time.monotonic,
                router=self._router(listener, own, ready[listener.name]),
                routes=ready[listener.name],
                remotes=self.remotes,
                cache=self.cache,
                own=own,
                call_later=reactor.callLater,
                tls=server_tls.get(listener.name),
            )
            for listener in config.outbound
        }

    def _make_ready(self, listener: OutboundListener) -> dict[int, RemoteRoute]:
        return {
            id(route): RemoteRoute(route, self._tls_of(route), listener.hostname, read_credentials(route))
            for route in self._routes[listener.name]
        }

    def _tls_of(self, route: Route) -> RemoteTls:
        """Give the TLS of a route, which is that of every route with the same settings: each has all authorities."""
        tls = self._tls.get(route.tls)
        if tls is None:
            tls = self._tls[route.tls] = RemoteTls(route.tls, f"route {route.domain[0]}", self._report, _now)
        return tls

    def _router(self, listener: OutboundListener, own: OwnAddresses, ready: dict[int, RemoteRoute]) -> Router:
        transparent = listener.transparent != "off"
        return Router(
            self._routes[listener.name],
            self._resolver,
            self._policy,
            hostname=listener.hostname,
            own=own,
            own_hosts=OwnHosts(self._listening, time.monotonic, hidden=listener.own_addresses),
            random=random.SystemRandom(),
            # They are for the route's own next hops, and nobody's whom the client names.
            credentials=lambda route: None if transparent else ready[id(route)].credentials,
        )

    def _mta_sts(self, journal: Journal) -> MtaSts | None:
        wanted = any(r.lookup == "mx" and r.tls.mta_sts and r.tls.mode != "none" for r in self._config.routes)
        if not wanted:
            return None
        # It takes a third of a second to import, which nobody has to wait for who does not want it.
        from smtpproxy.net.stsfetch import HttpsTls, PolicyFetcher, agent  # noqa: PLC0415  # as said

        settings = self._config.mta_sts
        self._https = HttpsTls(settings, self._report, _now)
        client = agent(self._reactor, self._resolver, self._https, settings.timeout)
        fetch = PolicyFetcher(client, self._reactor, settings.timeout)
        return MtaSts(
            self._resolver, fetch, self._reactor.seconds, journal.policy_fetch_failed, entries=settings.entries
        )

    def _make_cache(self, journal: Journal, before: Outbound | None) -> EhloCache:
        settings = self._config.cache
        if before is not None and before.cache_settings == settings:
            return before.cache
        password = os.environ.get(settings.password_env) if settings.password_env is not None else None
        report = journal.cache_trouble

        def trouble(what: str) -> None:
            self._reactor.callFromThread(report, what)

        return EhloCache(
            make_store(settings.store, self._reactor, trouble, password=password),
            ttl=settings.ttl,
            entries=settings.entries,
            hold_back=settings.hold_back,
            hold_back_most=settings.hold_back_most,
            clock=time.time,
        )

    def files(self) -> Iterator[RemoteTls | HttpsTls]:
        """Give everything that has files to be read again when they change."""
        yield from self._tls.values()
        if self._https is not None:
            yield self._https

    def warn_of_expiry(self) -> None:
        """Report certificates that have less than 14 days left, or have ended."""
        for tls in self._tls.values():
            tls.warn_of_expiry()

    def retire(self) -> None:
        """Keep no session with a remote any more."""
        self.remotes.close()

    def stop(self, others: list[Outbound]) -> None:
        """Let go of everything but of a cache that others have, too."""
        shared = any(other.cache is self.cache for other in others)
        # Both wait, for questions that are under way and for a file; the reactor must not, unless this is the end.
        Thread(target=self._threads.stop, daemon=True).start()
        if shared:
            return
        if others:
            Thread(target=self.cache.close, daemon=True).start()
        else:
            self.cache.close()


def _routes_of(listener: OutboundListener, routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """Give the routes of a listener: a transparent one needs the settings of the route for all domains, if any."""
    if listener.transparent == "off":
        return routes
    fallback = [route for route in routes if "*" in route.domain] or [Route.model_validate({"domain": "*"})]
    return tuple(fallback[:1])


def _listening(listeners: Iterable[ListenerBase]) -> Iterator[tuple[str, int]]:
    """Give the addresses and ports of listeners; names count with all their addresses. Raises OSError."""
    for listener in listeners:
        for endpoint in listener.listen:
            if endpoint.kind == "tcp":
                found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
                yield from ((str(address[0]), endpoint.port) for *_, address in found)


def _try_marks(config: Config) -> None:
    """Mark a socket as connections will be marked. Raises OSError, its text for the administrator."""
    for listener in config.outbound:
        if listener.mark is not None:
            may_mark(listener.mark)
    for route in config.routes if config.outbound else ():
        if route.mark is not None:
            may_mark(route.mark)


def _now() -> datetime:
    return datetime.now(UTC)
