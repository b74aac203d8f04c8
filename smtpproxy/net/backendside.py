"""The side of a client's session that is turned to the backend: dialling, failing over, parting, pausing.

It owns the connection with the server.  What is said there is the relay's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from smtpproxy.session.actions import Action
from smtpproxy.session.relay import Relay
from smtpproxy.smtp.commands import Wait
from smtpproxy.smtp.proxyheader import Ends, ProxyTls, v1_header, v2_header

from . import succession
from .clientsession import ClientSession
from .timed import BACKEND_FULL, CLIENT_FULL

if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import Context
    from .leg import BackendLeg
    from .servers import Server
    from .vouched import Vouched


class BackendSide(ClientSession):
    """The part of a client's session that deals with servers (a LegOwner)."""

    __slots__ = ("_backend_mark", "_backend_since", "_tried", "leg", "reused", "server")

    context: Context

    def __init__(self, context: Context, address: str, counted: str, vouched: Vouched | None) -> None:
        """As ClientSession."""
        super().__init__(context, address, counted, vouched)
        self.leg: BackendLeg | None = None
        self.server: Server | None = None
        self.reused = False
        """Whether a kept backend session served it."""
        self._tried: tuple[Server, ...] = ()
        """Servers that have failed since the relay asked for one."""
        self._backend_mark = 0
        self._backend_since = self.started

    @property
    def relay(self) -> Relay:
        """The dialogue with the client."""
        dialogue = self.dialogue
        assert isinstance(dialogue, Relay)  # noqa: S101  # it is made here; this tells the type checker
        return dialogue

    # --- the backend's connection (LegOwner) -----------------------------------------------------------------------

    def leg_received(self, _leg: BackendLeg, data: bytes) -> None:
        """Take bytes of the server."""
        try:
            self.relay.backend_received(data, self.context.clock())
            self._settle()
        except Exception:
            self._own_fault()

    def leg_lost(self, _leg: BackendLeg, why: str) -> None:
        """The server has closed, or was never reached."""
        self._tell(self.relay.backend_lost, why)

    def leg_full(self, *, full: bool) -> None:
        """The server does not read what we write, or reads again."""
        self._backend_since = self.context.clock()
        if full:
            self._pause(BACKEND_FULL)
        else:
            self._resume(BACKEND_FULL)

    def leg_secured(self, _leg: BackendLeg) -> None:
        """The handshake with the server is done."""
        self._tell(self.relay.backend_secured, self.context.clock())

    # --- carrying out ------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._tried = ()
        self._backend_since = self.context.clock()
        pool = self.context.pool
        if pool.settings.reuse is not None and (leg := pool.borrow(self)) is not None and leg.backend is not None:
            self.reused = True
            self.leg = leg
            self.server = leg.server
            kept, leg.backend = leg.backend, None
            self.relay.backend_borrowed(kept)
            self._settle()
        else:
            self._dial()

    def _dial(self) -> None:
        pool = self.context.pool
        tried = list(self._tried)
        identity = pool.settings.identity
        if identity == "source-address":
            leg = pool.dial(self, tried, source=self.address)
        elif identity in {"proxy-v1", "proxy-v2"}:
            leg = pool.dial(self, tried, preamble=self._preamble())
        else:
            leg = pool.dial(self, tried)
        if isinstance(leg, str):
            self.context.journal.backend_failed(self.context.pool.name, "", leg)
            self._tell(self.relay.backend_failed, leg)
            return
        self._tried = tuple(tried[:-1])
        self.leg = leg
        self.server = leg.server
        if self._paused & CLIENT_FULL:
            leg.pause_reading()

    def _preamble(self) -> bytes:
        """Give the PROXY header for a connection with a server."""
        port, destination = succession.ends_of(self)
        # On a Unix socket there is nowhere that the client connected to; the header has to say something.
        nowhere = "::" if ":" in self.address else "0.0.0.0"
        ends = Ends((self.address, port), destination or (nowhere, 0)) if self.address else None
        if self.context.pool.settings.identity == "proxy-v1":
            return v1_header(ends)
        facts = self.facts
        if facts is None or self.context.settings.tls.mode != "implicit":
            # With STARTTLS it would depend on when the connection is opened whether there is something to tell.
            return v2_header(ends)
        common_name = succession.common_name(facts.subject)
        tls = ProxyTls(facts.version, facts.cipher, common_name, facts.verified, facts.servername, facts.alpn)
        return v2_header(ends, tls)

    def _next_server(self) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
            self._tried = (*self._tried, leg.server)
            self.context.pool.failed(leg)
            self.context.journal.backend_failed(self.context.pool.name, leg.server.name, self.relay.backend_fault)
            leg.close()
        self._backend_since = self.context.clock()
        self._dial()

    def _abort_backend(self) -> None:
        self._drop_backend(reset=True)

    def _drop_backend(self, *, reset: bool = False) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
            # Where the server does not read, nothing that is still to be written would ever leave.
            leg.close(reset=reset or bool(self._paused & BACKEND_FULL))
        self._backend_writable()

    def _quit_backend(self) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
            self.context.pool.leave(leg)
        self._backend_writable()

    def _await_close(self) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
            self.context.pool.await_close(leg)
        self._backend_writable()

    def _release_backend(self) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
            leg.backend, self.relay.released = self.relay.released, None
            self.context.pool.keep(leg)
        self._backend_writable()

    def _backend_writable(self) -> None:
        if self._paused & BACKEND_FULL:
            self._resume(BACKEND_FULL)

    def _start_backend_tls(self) -> None:
        leg, tls = self.leg, self.context.pool.tls
        if leg is not None and tls is not None:
            self._backend_since = self.context.clock()
            leg.start_tls(tls)

    # --- time --------------------------------------------------------------------------------------------------------

    def _sweep_servers(self, now: float) -> None:
        """End what the backend has let wait too long."""
        if self._backend_overdue(now):
            self._tell(self.relay.backend_timed_out)

    def _backend_overdue(self, now: float) -> bool:
        relay, timeouts = self.relay, self.context.pool.settings.timeouts
        wait = relay.backend_wait
        unconnected = wait is Wait.GREETING and self.leg is not None and not self.leg.connected
        if self._paused & BACKEND_FULL and not unconnected:
            return now - self._backend_since > timeouts.data_block
        mark = relay.reply_count + relay.octets
        if wait is Wait.NOTHING or mark != self._backend_mark:
            self._backend_mark = mark
            self._backend_since = now
            return False
        waited = now - self._backend_since
        return (unconnected and waited > self._to_connect()) or waited > self.context.waits[wait]

    def _to_connect(self) -> float:
        """Give the seconds that a connection may take to come about, its handshake included where TLS comes first."""
        settings = self.context.pool.settings
        handshake = settings.timeouts.tls_handshake if settings.tls.mode == "implicit" else 0.0
        return settings.timeouts.connect + handshake


ACTIONS: Final[dict[Action, Callable[[Any], None]]] = {
    Action.CONNECT: BackendSide._connect,  # noqa: SLF001  # the table of this class
    Action.NEXT_SERVER: BackendSide._next_server,  # noqa: SLF001  # the same
    Action.ABORT_BACKEND: BackendSide._abort_backend,  # noqa: SLF001  # the same
    Action.DROP_BACKEND: BackendSide._drop_backend,  # noqa: SLF001  # the same
    Action.QUIT_BACKEND: BackendSide._quit_backend,  # noqa: SLF001  # the same
    Action.AWAIT_CLOSE: BackendSide._await_close,  # noqa: SLF001  # the same
    Action.RELEASE_BACKEND: BackendSide._release_backend,  # noqa: SLF001  # the same
    Action.START_BACKEND_TLS: BackendSide._start_backend_tls,  # noqa: SLF001  # the same
}
"""What the relay asks for, of this side."""
