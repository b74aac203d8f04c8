"""A client's session on the wire (inbound): feeds the relay from two connections and does what it says.

Here is all that the relay must not do: writing, connecting, failing over, pausing the side that reads while the side
that writes is full, and judging by the clock.  What it decides about the protocol is nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import implementer

from smtpproxy.session.actions import Action
from smtpproxy.session.relay import Relay
from smtpproxy.smtp.proxyheader import Ends, ProxyTls, v1_header, v2_header

from . import succession
from .leg import BackendLeg
from .linger import Linger
from .parting import part
from .stamp import received
from .timed import BACKEND_FULL, CLIENT_FULL, STUFFED, TimedSession
from .transport import OwnTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from smtpproxy.session.origin import Origin

    from .context import Context
    from .servers import Server
    from .tls import TlsLayer
    from .tlsfacts import TlsFacts
    from .vouched import Vouched

_CLEAN_ENDS: Final = frozenset({"quit", "client closed the connection"})


@implementer(IHalfCloseableProtocol)
class InboundSession(TimedSession):
    """The protocol of the client's connection, and the owner of the backend's."""

    __slots__ = (
        "_dismissed",
        "_held",
        "_tried",
        "address",
        "certified",
        "counted",
        "factory",
        "facts",
        "number",
        "reused",
        "server",
        "transport",
        "trusted",
        "vouched",
    )

    def __init__(self, context: Context, address: str, counted: str, vouched: Vouched | None = None) -> None:
        """``address``: the client's, as text; empty on a Unix socket. ``counted``: the one that limits count it by.

        ``vouched``: what somebody in front of us has said of it already.
        """
        super().__init__(context)
        self.address = address
        self.counted = counted
        self.vouched = vouched
        self.trusted = context.trusts(address)
        """Whether XCLIENT is believed here (rule H6)."""
        self.facts: TlsFacts | None = None
        """Of the TLS with the client."""
        self.certified = b""
        """The login name that the client's certificate stands for."""
        self.number = context.next_number()
        secure = context.settings.tls.mode == "implicit"
        policy = context.policy(address, secure=secure, trusted=self.trusted)
        self.relay = Relay(policy, context.client_policy(address, secure=secure), context.learned(policy, address))
        self.relay.trace = context.journal.tracer(self)
        if context.settings.trace_header:
            self.relay.stamp = self._stamp
        self.transport: Any = None
        self.leg: BackendLeg | None = None
        self.server: Server | None = None
        self.reused = False
        """Whether a kept backend session served it."""
        self._tried: list[Server] | None = None
        self._held = False
        self._dismissed = False

    # --- the client's connection (IProtocol, IHalfCloseableProtocol, IPushProducer) --------------------------------

    def makeConnection(self, transport: Any) -> None:
        """Begin."""
        self.begin(transport, b"")

    def begin(self, transport: Any, first: bytes) -> None:
        """Begin with a client of whom ``first`` has been read already."""
        self.transport = transport
        transport.registerProducer(self, True)
        self.context.sweep.add(self, self.number)
        try:
            if self.context.settings.tls.mode == "implicit":
                self.relay.await_tls()
                succession.begin_tls(self, first)
            else:
                self.greet(self.started, first)
            self._settle()
        except Exception:
            self._own_fault()

    def greet(self, now: float, first: bytes = b"") -> None:
        """Begin the dialogue; ``first`` has been read of the client before."""
        relay = self.relay
        relay.start(now)
        if relay.backend is None and not first and isinstance(self.transport, OwnTransport):
            # The greeting can go at once; only a look before it tells if the client has spoken first (rule S2).
            first = self.transport.read_now() or b""
        if first:
            relay.client_received(first, now)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of the client."""
        try:
            self.relay.client_received(data, self.context.clock())
            self._settle()
        except Exception:
            self._own_fault()

    def readConnectionLost(self) -> None:
        """The client has closed its writing side (rule S13)."""
        self._tell(self.relay.client_eof, self.context.clock())

    def writeConnectionLost(self) -> None:
        """Our own doing."""

    def connectionLost(self, reason: Failure) -> None:
        """The client's connection is gone."""
        self.transport = None
        self._tell(self.relay.client_lost, f"client connection lost: {reason.getErrorMessage()}")

    def pauseProducing(self) -> None:
        """The client does not read what we write (rule H9)."""
        self._client_since = self.context.clock()
        self._pause(CLIENT_FULL)
        if self.leg is not None:
            self.leg.pause_reading()

    def resumeProducing(self) -> None:
        """The client reads again."""
        self._client_since = self.context.clock()
        if self.leg is not None:
            self.leg.resume_reading()
        self._resume(CLIENT_FULL)

    def stopProducing(self) -> None:
        """The connection is gone, which connectionLost tells."""

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

    # --- TLS with the client (TlsOwner), and who it is ---------------------------------------------------------------

    def tls_secured(self, layer: TlsLayer) -> None:
        """Go on inside TLS."""
        try:
            succession.inside_tls(self, layer)
            self._settle()
        except Exception:
            self._own_fault()

    def tls_failed(self, _layer: TlsLayer, why: str) -> None:
        """End: there is nobody to talk to."""
        self.context.journal.tls_failed(self, why)
        self._tell(self.relay.client_lost, f"TLS handshake failed: {why}")

    def identified(self, origin: Origin) -> None:
        """Tell the relay who the client is."""
        self._tell(self.relay.client_identified, origin)

    def _stamp(self) -> bytes:
        return received(self, time.time())

    # --- time ------------------------------------------------------------------------------------------------------

    def stop_holding(self) -> None:
        """Write the replies that still wait for the rest of their group (rule S4)."""
        self._held = False
        self._tell(self._write_held)

    def _write_held(self) -> None:
        replies = self.relay.take_replies(hold=False)
        if replies and self.transport is not None:
            self.transport.write(replies)

    # --- the service -------------------------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """Go down at the next occasion."""
        self._tell(self.relay.shut_down)

    def cut_off(self) -> None:
        """Go down now."""
        relay = self.relay
        self._tell(relay.end_now)

    # --- carrying out ------------------------------------------------------------------------------------------------

    def _tell(self, event: Callable[..., None], *arguments: Any) -> None:
        if self.relay.over:
            return
        try:
            event(*arguments)
            self._settle()
        except Exception:
            self._own_fault()

    def _settle(self) -> None:
        """Write what the relay gives, and do what it says."""
        relay = self.relay
        replies = relay.take_replies()
        if replies and self.transport is not None:
            if relay.over and self.facts is not None:
                # One segment for the last reply and the end of TLS.
                self.transport.write_last(replies)
            else:
                self.transport.write(replies)
        out = relay.backend_out
        if out and self.leg is not None:
            self.leg.transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
        if relay.stuffed:
            self._pause(STUFFED)
        elif self._paused & STUFFED:
            self._resume(STUFFED)
        if relay.pipeline.ready and not self._held:
            self._held = True
            self.context.sweep.hold(self)
        if relay.ended:
            self._report_transactions()
        if relay.offered:
            relay.offered = False
            self.context.offered(self.address)
        if relay.actions:
            self._act()

    def _act(self) -> None:
        relay = self.relay
        if relay.once_only:
            self.context.pool.once_only = True
        while relay.actions:
            actions, relay.actions = relay.actions, []
            for action in actions:
                _ACTIONS[action](self)

    def _connect(self) -> None:
        self._tried = []
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
        tried = self._tried if self._tried is not None else []
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
        self.leg = leg
        self.server = leg.server
        if self._paused & CLIENT_FULL:
            leg.pause_reading()

    def _preamble(self) -> bytes:
        """Give the PROXY header for a connection with a server."""
        port, destination = succession.ends_of(self)
        ends = Ends((self.address, port), destination) if self.address and destination else None
        if self.context.pool.settings.identity == "proxy-v1":
            return v1_header(ends)
        facts = self.facts
        if facts is None:
            return v2_header(ends)
        common_name = succession.common_name(facts.subject)
        tls = ProxyTls(facts.version, facts.cipher, common_name, facts.verified, facts.servername, facts.alpn)
        return v2_header(ends, tls)

    def _next_server(self) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
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

    def _start_tls(self) -> None:
        self._client_since = self.context.clock()
        succession.begin_tls(self)

    def _change_client(self) -> None:
        succession.change_client(self)
        self._settle()

    def _identify_client(self) -> None:
        succession.identify(self)

    def _probe_client(self) -> None:
        transport = self.transport
        data = transport.read_now() if isinstance(transport, OwnTransport) else None
        if data is None:
            self.relay.client_quiet(self.context.clock())
        else:
            self.relay.client_received(data, self.context.clock())
        self._settle()

    def _close_client(self) -> None:
        context = self.context
        self._report_transactions()
        relay = self.relay
        learned, policy = relay.learned, relay.policy
        if learned is not None and learned is not context.learned(policy, self.address):
            context.learn(policy, self.address, learned, told=relay.told)
        self._dismiss()
        context.journal.session_ended(self)
        self._part()

    def _dismiss(self) -> None:
        """Count the session out, once."""
        if not self._dismissed:
            self._dismissed = True
            self.context.sweep.discard(self, self.number)
            self.context.dismiss(self.counted)

    def _part(self) -> None:
        """Close the client's connection so that the last reply arrives."""
        transport = self.transport
        if transport is None:
            return
        if self.relay.reason in _CLEAN_ENDS and (self.relay.eof or not _has_input(transport)):
            part(transport)
            return
        context = self.context
        linger = Linger(context.sweep, self.number, context.clock() + context.settings.timeouts.close)
        transport.protocol = linger
        linger.makeConnection(transport)

    def _report_transactions(self) -> None:
        ended, self.relay.ended = self.relay.ended, []
        for transaction in ended:
            self.context.journal.transaction_ended(self, transaction)

    def _own_fault(self) -> None:
        """End this session, and only this one, after an exception (rule H10)."""
        self.context.journal.internal_error(self)
        try:
            self.relay.internal_error()
            self._settle()
        except Exception:
            self.context.journal.internal_error(self)
            self._abandon()

    def _abandon(self) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
            leg.close(reset=True)
        self.relay.over = True
        self._dismiss()
        if self.transport is not None:
            part(self.transport, reset=True)

    def _pause(self, reason: int) -> None:
        if not self._paused and self.transport is not None:
            self.transport.pauseProducing()
        self._paused |= reason

    def _resume(self, reason: int) -> None:
        if not self._paused & reason:
            return
        self._paused &= ~reason
        if not self._paused and self.transport is not None:
            self._client_since = self.context.clock()
            self.transport.resumeProducing()


def _has_input(transport: Any) -> bool:
    """Say whether something of the client waits to be read; a close would be a reset, and replies lost."""
    return isinstance(transport, OwnTransport) and not transport.is_quiet()


_ACTIONS: Final[dict[Action, Callable[[InboundSession], None]]] = {
    Action.CONNECT: InboundSession._connect,  # noqa: SLF001  # the table of this class
    Action.NEXT_SERVER: InboundSession._next_server,  # noqa: SLF001
    Action.ABORT_BACKEND: InboundSession._abort_backend,  # noqa: SLF001
    Action.DROP_BACKEND: InboundSession._drop_backend,  # noqa: SLF001
    Action.QUIT_BACKEND: InboundSession._quit_backend,  # noqa: SLF001
    Action.AWAIT_CLOSE: InboundSession._await_close,  # noqa: SLF001
    Action.RELEASE_BACKEND: InboundSession._release_backend,  # noqa: SLF001
    Action.PROBE_CLIENT: InboundSession._probe_client,  # noqa: SLF001
    Action.START_TLS: InboundSession._start_tls,  # noqa: SLF001
    Action.START_BACKEND_TLS: InboundSession._start_backend_tls,  # noqa: SLF001
    Action.CHANGE_CLIENT: InboundSession._change_client,  # noqa: SLF001
    Action.IDENTIFY_CLIENT: InboundSession._identify_client,  # noqa: SLF001
    Action.CLOSE_CLIENT: InboundSession._close_client,  # noqa: SLF001
}
