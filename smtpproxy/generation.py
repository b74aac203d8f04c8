"""A generation: everything that is made from one reading of the configuration (``service.py`` puts it in force)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool

from smtpproxy.net.clientsession import ClientSession
from smtpproxy.net.context import Context
from smtpproxy.net.leg import Dialler
from smtpproxy.net.names import Names
from smtpproxy.net.pool import Pool
from smtpproxy.net.remotes import Remotes
from smtpproxy.net.remoteside import RemoteSide
from smtpproxy.net.servers import Servers
from smtpproxy.net.sweep import Sweep
from smtpproxy.net.tlsclient import ClientTls
from smtpproxy.net.tlsserver import ServerTls
from smtpproxy.ops.certificates import CertificateLog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.defer import Deferred

    from smtpproxy.config import Config
    from smtpproxy.net.clientcontext import ClientContext
    from smtpproxy.ops.journal import Journal
    from smtpproxy.ops.log import EventLog
    from smtpproxy.outbound import Outbound

_DAY: Final = 86400.0
_REREAD: Final = 10.0
"""Seconds between looks at the files of a backend's TLS, whose settings do not say."""


class Generation:
    """Everything made from one reading of the configuration."""

    def __init__(
        self, config: Config, reactor: Any, journal: Journal, log: EventLog, before: Generation | None
    ) -> None:
        """Make pools and contexts; nothing begins before ``start``.

        A certificate that cannot be used is replaced by what the generation ``before`` has in use. Raises TlsError.
        """
        self._reactor = reactor
        self._log = log
        self.journal = journal
        self._retired = False
        dialler = Dialler(reactor, lean=config.service.transport == "lean")
        self.sweep = Sweep(reactor, _shortest_timeout(config), time.monotonic)
        self.servers = {
            name: Servers(backend.servers, backend.rest, time.monotonic) for name, backend in config.backends.items()
        }
        report = CertificateLog(lambda: self._log)
        self._client_tls = {
            name: ClientTls(backend.tls, f"backend {name}", report, _now)
            for name, backend in config.backends.items()
            if backend.tls.mode != "none"
        }
        known: dict[str, ServerTls] = before.server_tls if before is not None else {}
        self.server_tls: dict[str, ServerTls] = {
            listener.name: ServerTls(listener.tls, f"listener {listener.name}", report, _now, known.get(listener.name))
            for listener in config.listeners
            if listener.tls.mode != "none"
        }
        self.pools = {
            name: Pool(name, backend, self.servers[name], dialler, time.monotonic, tls=self._client_tls.get(name))
            for name, backend in config.backends.items()
        }
        for pool in self.pools.values():
            pool.report = journal.backend_failed
        names = Names(reactor, reactor)
        self.contexts: dict[str, ClientContext] = {
            listener.name: Context(
                listener,
                self.pools[listener.backend],
                self.sweep,
                journal,
                time.monotonic,
                tls=self.server_tls.get(listener.name),
                names=names,
            )
            for listener in config.inbound
        }
        self.outbound: Outbound | None = None
        if config.outbound:
            # DNS and all that take 10 MiB, which nobody has to pay for who does not want them.
            from smtpproxy.outbound import Outbound  # noqa: PLC0415  # as said

            known_outbound = before.outbound if before is not None else None
            self.outbound = Outbound(
                config, reactor, journal, self.sweep, report=report, server_tls=self.server_tls, before=known_outbound
            )
            self.contexts.update(self.outbound.contexts)
        self._chores = [
            (LoopingCall(self.server_tls[listener.name].reread), listener.tls.reread)
            for listener in config.listeners
            if listener.name in self.server_tls
        ]
        self._chores += [(LoopingCall(tls.reread), _REREAD) for tls in self._client_tls.values()]
        if self.outbound is not None:
            self._chores += [(LoopingCall(files.reread), _REREAD) for files in self.outbound.files()]
        self._chores.append((LoopingCall(self._warn_of_expiry), _DAY))
        self._lookups = [
            (LoopingCall(self._look_up, name), config.backends[name].resolve)
            for name, servers in self.servers.items()
            if servers.has_names
        ]

    def start(self, before: Generation | None) -> None:
        """Look names up, begin to watch the time.

        At the start of the service that may take its time.  After a reload nobody must wait for it: what the generation
        ``before`` knew is good until the look-up has come back.
        """
        for name, servers in self.servers.items():
            if before is not None and name in before.servers:
                servers.adopt(before.servers[name])
            self._tell(name, servers.resolve(names=before is None))
        for pool in self.pools.values():
            pool.watch(self.sweep)
        if self.outbound is not None:
            self.outbound.remotes.watch(self.sweep)
        for call, interval in self._lookups:
            call.clock = self._reactor
            call.start(interval, now=before is not None)
        for call, interval in self._chores:
            call.clock = self._reactor
            call.start(interval, now=interval == _DAY)
        self.sweep.start()

    def _warn_of_expiry(self) -> None:
        for server_tls in self.server_tls.values():
            server_tls.warn_of_expiry()
        for client_tls in self._client_tls.values():
            client_tls.warn_of_expiry()
        if self.outbound is not None:
            self.outbound.warn_of_expiry()

    def retire(self) -> None:
        """Make room for the next generation: no new sessions, none kept; the live ones go on."""
        self._retired = True
        for pool in self.pools.values():
            pool.close()
        if self.outbound is not None:
            self.outbound.retire()
        for call, _ in (*self._lookups, *self._chores):
            if call.running:
                call.stop()

    def drain(self) -> None:
        """Let every session end between transactions."""
        self.retire()
        for context in self.contexts.values():
            context.draining = True
        for session in self._live():
            session.shut_down()

    def cut_off(self) -> None:
        """End every session now, with 421."""
        for session in self._live():
            session.cut_off()

    def stop(self, others: Iterable[Generation] = ()) -> None:
        """Watch the time no more, let go of everything that is not shared with other generations."""
        self.retire()
        self.sweep.stop()
        for swept in list(self.sweep):
            if isinstance(swept, RemoteSide):
                swept.cut_off()
        outbound, self.outbound = self.outbound, None
        if outbound is not None:
            outbound.stop([other.outbound for other in others if other.outbound is not None])

    @property
    def alive(self) -> bool:
        """Whether any session lives here, or could begin."""
        # Sessions, and connections that are being closed; the pools are always there.
        sessions = any(not isinstance(swept, (Pool, Remotes)) for swept in self.sweep)
        busy = sessions or any(pool.busy for pool in self.pools.values())
        return busy or not self._retired

    def _live(self) -> list[ClientSession]:
        return [swept for swept in self.sweep if isinstance(swept, ClientSession)]

    def _look_up(self, name: str) -> Deferred[None]:
        looking_up = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self.servers[name].resolve)
        return looking_up.addCallback(lambda problems: self._tell(name, problems))

    def _tell(self, backend: str, problems: list[str]) -> None:
        for problem in problems:
            self._log.warning("backend_lookup_failed", {"backend": backend, "why": problem})


def _now() -> datetime:
    return datetime.now(UTC)


def _shortest_timeout(config: Config) -> float:
    values: list[float] = []
    for listener in config.listeners:
        timeouts = listener.timeouts
        values += [timeouts.command, timeouts.data_block, timeouts.minimum_progress, timeouts.write, timeouts.close]
        values += [timeouts.tls_handshake, timeouts.proxy_header]
        values += [] if timeouts.session is None else [timeouts.session]
    for backend in config.backends.values():
        values += backend.timeouts.model_dump().values()
        values += [] if backend.reuse is None else [backend.reuse.idle]
    for route in config.routes if config.outbound else ():
        values += route.timeouts.model_dump().values()
        values += [] if route.reuse is None else [route.reuse.idle]
    return min(values)
