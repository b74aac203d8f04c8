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

from . import succession
from .backendside import ACTIONS as BACKEND_ACTIONS
from .backendside import BackendSide
from .linger import Linger
from .parting import part
from .stamp import received
from .timed import CLIENT_FULL, STUFFED
from .tlsfacts import with_reason
from .transport import OwnTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from smtpproxy.session.origin import Origin

    from .context import Context
    from .tls import TlsLayer
    from .vouched import Vouched

_CLEAN_ENDS: Final = frozenset({"quit", "client closed the connection"})


@implementer(IHalfCloseableProtocol)
class InboundSession(BackendSide):
    """The protocol of the client's connection."""

    __slots__ = (
        "_dismissed",
        "_held",
        "counted",
        "factory",
        "number",
    )

    def __init__(self, context: Context, address: str, counted: str, vouched: Vouched | None = None) -> None:
        """``address``: the client's, as text; empty on a Unix socket. ``counted``: the one that limits count it by.

        ``vouched``: what somebody in front of us has said of it already.
        """
        super().__init__(context, address, vouched)
        self.counted = counted
        self.number = context.next_number()
        secure = context.settings.tls.mode == "implicit"
        policy = context.policy(address, secure=secure, trusted=context.trusts(address))
        self.relay = Relay(policy, context.client_policy(address, secure=secure), context.learned(policy, address))
        self.relay.once_only = context.pool.once_only
        self.relay.trace = context.journal.tracer(self)
        if context.settings.trace_header:
            self.relay.stamp = self._stamp
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

    # --- TLS with the client (TlsOwner), and who it is ---------------------------------------------------------------

    def tls_secured(self, layer: TlsLayer) -> None:
        """Go on inside TLS, unless it came too late."""
        if self.relay.over:
            return
        try:
            succession.inside_tls(self, layer)
            self._settle()
        except Exception:
            self._own_fault()

    def tls_failed(self, layer: TlsLayer, why: str) -> None:
        """End: there is nobody to talk to."""
        if self.relay.over:
            return
        why = with_reason(why, layer.connection)
        self.context.journal.tls_failed(self, why)
        self._tell(self.relay.client_lost, f"TLS handshake failed: {why}")

    @property
    def certified_login(self) -> bytes:
        """The login name that the client's certificate stands for; empty if it stands for none."""
        tls, facts = self.context.tls, self.facts
        return b"" if tls is None or facts is None else tls.login(facts).encode()

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
        self.store_learned()
        self._dismiss()
        context.journal.session_ended(self)
        self._part()

    def store_learned(self) -> None:
        """Keep what the backend has said of itself for other sessions (rule S18)."""
        relay, context = self.relay, self.context
        learned = relay.learned
        if learned is not None and learned is not context.learned(relay.policy, self.address):
            told = relay.policy.introduces and relay.origin is not None
            context.learn(relay.policy, self.address, learned, told=told)

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
        ended, self.relay.ended = self.relay.ended, ()
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


def _has_input(transport: Any) -> bool:
    """Say whether something of the client waits to be read; a close would be a reset, and replies lost."""
    return isinstance(transport, OwnTransport) and transport.has_input()


_ACTIONS: Final[dict[Action, Callable[[Any], None]]] = {
    **BACKEND_ACTIONS,
    Action.PROBE_CLIENT: InboundSession._probe_client,  # noqa: SLF001  # the same
    Action.START_TLS: InboundSession._start_tls,  # noqa: SLF001  # the same
    Action.CHANGE_CLIENT: InboundSession._change_client,  # noqa: SLF001  # the same
    Action.IDENTIFY_CLIENT: InboundSession._identify_client,  # noqa: SLF001  # the same
    Action.CLOSE_CLIENT: InboundSession._close_client,  # noqa: SLF001  # the same
}
