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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import globalLogPublisher

from smtpproxy.config import Config, ConfigError, Endpoint, OutboundListener, load
from smtpproxy.generation import Generation
from smtpproxy.net.inherited import Inherited
from smtpproxy.net.listener import LeanPort, StockPort, open_socket
from smtpproxy.net.tlsserver import TlsError
from smtpproxy.ops.counters import Counters
from smtpproxy.ops.journal import Journal
from smtpproxy.ops.log import make_log
from smtpproxy.ops.logsinks import FLUSH_DELAY
from smtpproxy.ops.logtwisted import TwistedLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.config import ListenerBase
    from smtpproxy.ops.log import EventLog

_DRAIN_STEP: Final = 0.1
_MINUTE: Final = 60.0
_GC_THRESHOLD: Final = 20_000

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
        self._chore = LoopingCall(self._let_go)
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
        self._chore.clock = self._reactor
        self._chore.start(_MINUTE, now=False)
        gc.collect()
        # What exists now stays: the collector need not look at it again, nor run for every few sessions.
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        self.log.info("started", {"listening": [str(endpoint) for endpoint in self._ports]})

    def stopService(self) -> Deferred[None]:
        """Stop to listen, let transactions finish, end the rest when the limit is reached; fires when all is over."""
        if self._chore.running:
            self._chore.stop()
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
                        opened[endpoint] = _open(endpoint, listener, self._inherited)
            log = self._open_log(config)
            generation = self._make_generation(config, log)
        except (OSError, TlsError):
            for sock in opened.values():
                sock.close()
            raise
        before = self._generations[-1] if self._generations else None
        self._use_log(log)
        self._config = config
        self._swap_ports(config, generation, opened)
        for old in self._generations:
            old.retire()
        self._generations.append(generation)
        self._let_go()
        generation.start(before)

    def _make_generation(self, config: Config, log: EventLog) -> Generation:
        journal = Journal(log, self.counters, transcripts=self._verbose)
        before = self._generations[-1] if self._generations else None
        try:
            return Generation(config, self._reactor, journal, log, before)
        except (OSError, TlsError):
            if log is not self._log:
                log.close()
            raise

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
                else:
                    self._adapt(port, endpoint, listener)
                port.context = context
                self._ports[endpoint] = port
        for endpoint, gone in old.items():
            _close(endpoint, gone)

    def _adapt(self, port: Port, endpoint: Endpoint, listener: ListenerBase) -> None:
        """Let a socket that goes on listening do so as the new configuration says."""
        try:
            port.adapt(fast_open=listener.fast_open, foreign=_is_foreign(listener))
        except OSError as problem:
            self.log.error("reload_incomplete", {"listening": str(endpoint), "why": problem.strerror or str(problem)})

    def _let_go(self) -> None:
        """Let go of generations whose last session has ended."""
        alive = [old for old in self._generations[:-1] if old.alive]
        ended = [old for old in self._generations[:-1] if old not in alive]
        for old in ended:
            old.stop([*alive, self._generations[-1]])
        self._generations = [*alive, *self._generations[-1:]]
        if ended:
            # They hold many megabytes (authorities, answers of the DNS), and the collector runs rarely by itself.
            self._reactor.callLater(0, gc.collect)

    def _drained(self, stopped: Deferred[None]) -> None:
        late = self._reactor.seconds() >= self._deadline
        if late and not self._cut_off:
            # One more step, so that the 421 of the sessions that end here can leave.
            self._cut_off = True
            for generation in self._generations:
                generation.cut_off()
        elif late or not any(generation.alive for generation in self._generations):
            while self._generations:
                self._generations.pop().stop(self._generations)
            globalLogPublisher.removeObserver(self._observer)
            self.log.info("stopped", {"counters": [f"{k}={v}" for k, v in self.counters.as_dict().items()]})
            self.log.close()
            self._restore_signals()
            stopped.callback(None)
            return
        self._reactor.callLater(_DRAIN_STEP, self._drained, stopped)


def _is_foreign(listener: ListenerBase) -> bool:
    """Say whether connections to addresses that are not ours are taken."""
    return isinstance(listener, OutboundListener) and listener.transparent == "tproxy"


def _open(endpoint: Endpoint, listener: ListenerBase, inherited: Inherited) -> socket.socket:
    try:
        foreign = _is_foreign(listener)
        return open_socket(endpoint, listener.backlog, inherited, fast_open=listener.fast_open, foreign=foreign)
    except OSError as problem:
        raise OSError(problem.errno, f"cannot listen on {endpoint}: {problem.strerror or problem}") from problem


def _close(endpoint: Endpoint, port: Port) -> None:
    port.stop()
    if endpoint.kind == "unix":
        # Where the folder is not ours to write in, the file stays; whoever listens there next removes it.
        with contextlib.suppress(OSError):
            Path(endpoint.path).unlink()
