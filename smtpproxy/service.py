"""The service: everything wired together, started, reloaded and drained.

SIGHUP reads the configuration again: all of it is taken, or the old one is kept.  Live sessions keep the
configuration that they began with.  SIGTERM stops to listen, lets transactions finish and says 421 between them.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import globalLogPublisher

from smtpproxy.config import Config, ConfigError, Endpoint, load
from smtpproxy.net.context import Context
from smtpproxy.net.inbound import InboundSession
from smtpproxy.net.inherited import Inherited
from smtpproxy.net.leg import Dialler
from smtpproxy.net.listener import LeanPort, StockPort, open_socket
from smtpproxy.net.names import Names
from smtpproxy.net.pool import Pool
from smtpproxy.net.servers import Servers
from smtpproxy.net.sweep import Sweep
from smtpproxy.net.tlsclient import ClientTls
from smtpproxy.net.tlsserver import ServerTls, TlsError
from smtpproxy.ops.certificates import CertificateLog
from smtpproxy.ops.counters import Counters
from smtpproxy.ops.journal import Journal
from smtpproxy.ops.log import make_log
from smtpproxy.ops.logsinks import FLUSH_DELAY
from smtpproxy.ops.logtwisted import TwistedLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.ops.log import EventLog

_DRAIN_STEP: Final = 0.1
_GC_THRESHOLD: Final = 20_000
_DAY: Final = 86400.0

Port = LeanPort | StockPort


def make_service(path: str, reactor: Any, *, verbose: bool = False) -> Service:
    """Give the service that a configuration file describes; nothing listens before it is started.

    ``verbose`` logs a transcript of every session, secrets masked.  Raises ConfigError, or OSError if the log cannot
    be opened.
    """
    return ProxyService(path, load(path), reactor, verbose=verbose)


class ProxyService(Service):
    """All listeners and backends of one configuration, and the one that a reload puts in its place."""

    def __init__(self, path: str, config: Config, reactor: Any, *, verbose: bool) -> None:
        """``path`` is read again on SIGHUP."""
        self._path = path
        self._config = config
        self._reactor = reactor
        self._verbose = verbose
        self._inherited = Inherited(os.environ, os.getpid())
        self._generations: list[Generation] = []
        self._ports: dict[Endpoint, Port] = {}
        self._signals: dict[int, Any] = {}
        self._deadline = 0.0
        self.counters = Counters()
        self._log: EventLog | None = None
        self._cut_off = False
        self._observer: Any = None

    def privilegedStartService(self) -> None:
        """Open log and listening sockets, which may need privileges that are given up later. Raises OSError."""
        if not self._generations:
            self._take(self._config)

    def startService(self) -> None:
        """Begin to serve. Raises OSError, naming the address, where one cannot be listened on."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's, untyped
        self.privilegedStartService()
        for port in self._ports.values():
            port.start()
        self._on_signal(signal.SIGHUP, self.reload)
        gc.collect()
        # What exists now stays: the collector need not look at it again, nor run for every few sessions.
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        self.log.info("started", {"listening": [str(endpoint) for endpoint in self._ports]})

    def stopService(self) -> Deferred[None]:
        """Stop to listen, let transactions finish, end the rest when the limit is reached; fires when all is over."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's, untyped
        # A log rotation must not end the process in the middle of a transaction; whoever asks twice is in a hurry.
        self._on_signal(signal.SIGHUP, self.log.reopen)
        self._on_signal(signal.SIGTERM, self._hurry)
        self._on_signal(signal.SIGINT, self._hurry)
        self.log.info("stopping", {"sessions": self._sessions})
        for endpoint, port in self._ports.items():
            _close(endpoint, port)
        self._ports.clear()
        for generation in self._generations:
            generation.drain()
        stopped: Deferred[None] = Deferred()
        self._deadline = self._reactor.seconds() + self._config.service.drain
        self._drained(stopped)
        return stopped

    def _hurry(self) -> None:
        self._deadline = 0.0

    def _on_signal(self, number: int, call: Callable[[], object]) -> None:
        """Call a function in a turn of the reactor when a signal comes."""
        old = signal.signal(number, lambda _number, _frame: self._reactor.callFromThread(call))
        self._signals.setdefault(number, old)

    def _restore_signals(self) -> None:
        for number, old in self._signals.items():
            signal.signal(number, old if old is not None else signal.SIG_DFL)
        self._signals.clear()

    def reload(self) -> bool:
        """Read the configuration again and take it, or say what is wrong with it and keep the old one."""
        self.log.reopen()
        try:
            config = load(self._path)
        except ConfigError as error:
            for problem in error.problems:
                self.log.error("configuration_mistake", {"problem": str(problem)})
            self.log.error("reload_refused", {"file": self._path, "why": "the old configuration stays in force"})
            return False
        try:
            self._take(config)
        except (OSError, TlsError) as problem:
            self.log.error("reload_refused", {"file": self._path, "why": str(problem)})
            return False
        self.log.info("reloaded", {"listening": [str(endpoint) for endpoint in self._ports]})
        return True

    @property
    def _sessions(self) -> int:
        return sum(context.sessions for generation in self._generations for context in generation.contexts.values())

    @property
    def log(self) -> EventLog:
        """The log, which is open from the start of the service to its end."""
        if self._log is None:
            raise RuntimeError("the service has not been started")
        return self._log

    def _open_log(self, config: Config) -> EventLog:
        """Give the log for a configuration: the one that is open, where its settings are the same. Raises OSError."""
        if self._log is not None and config.log == self._config.log:
            return self._log
        return make_log(config.log, lambda call: self._reactor.callLater(FLUSH_DELAY, call), time.time)

    def _use_log(self, log: EventLog) -> None:
        if log is self._log:
            return
        if self._log is not None:
            globalLogPublisher.removeObserver(self._observer)
            self._log.close()
        self._log = log
        for generation in self._generations:
            generation.journal.use(log)
        self._observer = TwistedLog(log, self._reactor.callFromThread)
        globalLogPublisher.addObserver(self._observer)

    def _take(self, config: Config) -> None:
        """Put a configuration in force; nothing has changed if it raises OSError or TlsError."""
        opened: dict[Endpoint, socket.socket] = {}
        try:
            for listener in config.listeners:
                for endpoint in listener.listen:
                    if endpoint not in self._ports:
                        opened[endpoint] = _open(endpoint, listener.backlog, self._inherited)
            log = self._open_log(config)
            if self._log is None:
                self._use_log(log)
            journal = Journal(log, self.counters, transcripts=self._verbose)
            before = self._generations[-1] if self._generations else None
            generation = Generation(config, self._reactor, journal, log, before)
        except (OSError, TlsError):
            for sock in opened.values():
                sock.close()
            raise
        self._use_log(log)
        self._config = config
        self._swap_ports(config, generation, opened)
        for old in self._generations:
            old.retire()
        self._generations = [old for old in self._generations if old.alive]
        self._generations.append(generation)
        generation.start(before)

    def _swap_ports(self, config: Config, generation: Generation, opened: dict[Endpoint, socket.socket]) -> None:
        lean = config.service.transport == "lean"
        old, self._ports = self._ports, {}
        for listener in config.listeners:
            context = generation.contexts[listener.name]
            for endpoint in listener.listen:
                port = old.pop(endpoint, None)
                if port is None:
                    kind = LeanPort if lean else StockPort
                    port = kind(self._reactor, opened[endpoint], context)
                    if self.running:
                        port.start()
                port.context = context
                self._ports[endpoint] = port
        for endpoint, gone in old.items():
            _close(endpoint, gone)

    def _drained(self, stopped: Deferred[None]) -> None:
        late = self._reactor.seconds() >= self._deadline
        if late and not self._cut_off:
            # One more step, so that the 421 of the sessions that end here can leave.
            self._cut_off = True
            for generation in self._generations:
                generation.cut_off()
        elif late or not any(generation.alive for generation in self._generations):
            for generation in self._generations:
                generation.stop()
            globalLogPublisher.removeObserver(self._observer)
            self.log.info("stopped", {"counters": [f"{k}={v}" for k, v in self.counters.as_dict().items()]})
            self.log.close()
            self._restore_signals()
            stopped.callback(None)
            return
        self._reactor.callLater(_DRAIN_STEP, self._drained, stopped)


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
        self._servers = {
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
            name: Pool(name, backend, self._servers[name], dialler, time.monotonic, tls=self._client_tls.get(name))
            for name, backend in config.backends.items()
        }
        for pool in self.pools.values():
            pool.report = journal.backend_failed
        names = Names(reactor, reactor)
        self.contexts = {
            listener.name: Context(
                listener,
                self.pools[listener.backend],
                self.sweep,
                journal,
                time.monotonic,
                tls=self.server_tls.get(listener.name),
                names=names,
            )
            for listener in config.listeners
        }
        self._chores = [
            (LoopingCall(self.server_tls[listener.name].reread), listener.tls.reread)
            for listener in config.listeners
            if listener.name in self.server_tls
        ]
        self._chores.append((LoopingCall(self._warn_of_expiry), _DAY))
        self._lookups = [
            (LoopingCall(self._look_up, name), config.backends[name].resolve)
            for name, servers in self._servers.items()
            if servers.has_names
        ]

    def start(self, before: Generation | None) -> None:
        """Look names up, begin to watch the time.

        At the start of the service that may take its time.  After a reload nobody must wait for it: what the generation
        ``before`` knew is good until the look-up has come back.
        """
        for name, servers in self._servers.items():
            if before is not None and name in before._servers:  # noqa: SLF001  # of this class
                servers.adopt(before._servers[name])  # noqa: SLF001
            self._tell(name, servers.resolve(names=before is None))
        for pool in self.pools.values():
            pool.watch(self.sweep)
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

    def retire(self) -> None:
        """Make room for the next generation: no new sessions, none kept; the live ones go on."""
        self._retired = True
        for pool in self.pools.values():
            pool.close()
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

    def stop(self) -> None:
        """Watch the time no more."""
        self.retire()
        self.sweep.stop()

    @property
    def alive(self) -> bool:
        """Whether any session lives here, or could begin."""
        # Sessions, and connections that are being closed; the pools are always there.
        busy = any(not isinstance(swept, Pool) for swept in self.sweep) or any(p.busy for p in self.pools.values())
        if self._retired and not busy:
            self.sweep.stop()
        return busy or not self._retired

    def _live(self) -> list[InboundSession]:
        return [swept for swept in self.sweep if isinstance(swept, InboundSession)]

    def _look_up(self, name: str) -> Deferred[None]:
        looking_up = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._servers[name].resolve)
        return looking_up.addCallback(lambda problems: self._tell(name, problems))

    def _tell(self, backend: str, problems: list[str]) -> None:
        for problem in problems:
            self._log.warning("backend_lookup_failed", {"backend": backend, "why": problem})


def _open(endpoint: Endpoint, backlog: int, inherited: Inherited) -> socket.socket:
    try:
        return open_socket(endpoint, backlog, inherited)
    except OSError as problem:
        raise OSError(problem.errno, f"cannot listen on {endpoint}: {problem.strerror or problem}") from problem


def _close(endpoint: Endpoint, port: Port) -> None:
    port.stop()
    if endpoint.kind == "unix":
        # Where the folder is not ours to write in, the file stays; whoever listens there next removes it.
        with contextlib.suppress(OSError):
            Path(endpoint.path).unlink()


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
    return min(values)
