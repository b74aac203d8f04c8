"""A client's session on the wire (inbound): feeds the relay from two connections and does what it says.

Here is all that the relay must not do: writing, connecting, failing over, pausing the side that reads while the side
that writes is full, and judging by the clock.  What it decides about the protocol is nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import implementer

from smtpproxy.session.actions import Action
from smtpproxy.session.relay import Relay
from smtpproxy.smtp.commands import Wait

from .leg import BackendLeg, part
from .linger import Linger
from .transport import LeanTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from .context import Context
    from .servers import Server

# Reasons not to read from the client; it is read while there is none.
_BACKEND_FULL: Final = 1
_CLIENT_FULL: Final = 2
_STUFFED: Final = 4

_CLEAN_ENDS: Final = frozenset({"quit", "client closed the connection"})


@implementer(IHalfCloseableProtocol)
class InboundSession:
    """The protocol of the client's connection, and the owner of the backend's."""

    __slots__ = (
        "_backend_mark",
        "_backend_since",
        "_client_mark",
        "_client_since",
        "_dismissed",
        "_held",
        "_paused",
        "_tried",
        "_window_octets",
        "_window_since",
        "address",
        "context",
        "factory",
        "leg",
        "number",
        "relay",
        "reused",
        "server",
        "started",
        "transport",
    )

    def __init__(self, context: Context, address: str) -> None:
        """``address``: the client's, as text; empty on a Unix socket."""
        self.context = context
        self.address = address
        self.number = context.next_number()
        self.relay = Relay(context.policy, context.client_policy(address), context.learned)
        self.relay.trace = context.journal.tracer(self)
        self.transport: Any = None
        self.leg: BackendLeg | None = None
        self.server: Server | None = None
        self.reused = False
        """Whether a kept backend session served it."""
        self.started = context.clock()
        self._tried: list[Server] | None = None
        self._paused = 0
        self._held = False
        self._dismissed = False
        self._client_mark = self._backend_mark = 0
        self._client_since = self._backend_since = self._window_since = self.started
        self._window_octets = 0

    # --- the client's connection (IProtocol, IHalfCloseableProtocol, IPushProducer) --------------------------------

    def makeConnection(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        transport.registerProducer(self, True)
        self.context.sweep.add(self, self.number)
        try:
            relay = self.relay
            relay.start(self.started)
            if relay.backend is None and isinstance(transport, LeanTransport):
                # The greeting can go at once; only a look before it tells if the client has spoken first (rule S2).
                data = transport.read_now()
                if data is not None:
                    relay.client_received(data, self.started)
            self._settle()
        except Exception:
            self._own_fault()

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
        self._pause(_CLIENT_FULL)
        if self.leg is not None:
            self.leg.pause_reading()

    def resumeProducing(self) -> None:
        """The client reads again."""
        self._client_since = self.context.clock()
        if self.leg is not None:
            self.leg.resume_reading()
        self._resume(_CLIENT_FULL)

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
            self._pause(_BACKEND_FULL)
        else:
            self._resume(_BACKEND_FULL)

    # --- time --------------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """End what has waited too long (RFC 5321, 4.5.3.2; rule H9)."""
        settings = self.context.settings
        relay = self.relay
        session = settings.timeouts.session
        if (session is not None and now - self.started > session) or self._client_overdue(now):
            self._tell(relay.client_timed_out)
        elif self._backend_overdue(now):
            self._tell(relay.backend_timed_out)

    def _client_overdue(self, now: float) -> bool:
        relay, waits = self.relay, self.context.waits
        if self._paused & _CLIENT_FULL:
            return now - self._client_since > self.context.settings.timeouts.write
        wait = relay.client_wait
        if wait is not Wait.DATA_BLOCK or self._paused:
            self._window_since = now
            self._window_octets = relay.octets
        if wait is Wait.NOTHING or self._paused:
            self._client_since = now
            return False
        mark = relay.command_count + relay.pipeline.replies + relay.octets
        if mark != self._client_mark:
            self._client_mark = mark
            self._client_since = now
        if now - self._client_since > waits[wait]:
            return True
        return wait is Wait.DATA_BLOCK and self._too_slow(now)

    def _too_slow(self, now: float) -> bool:
        """Judge mail data by how much of it came within a window of time (rule H9)."""
        settings = self.context.settings
        if now - self._window_since < settings.timeouts.minimum_progress:
            return False
        came, self._window_octets = self.relay.octets - self._window_octets, self.relay.octets
        self._window_since = now
        return came < settings.limits.minimum_progress

    def _backend_overdue(self, now: float) -> bool:
        relay, timeouts = self.relay, self.context.pool.settings.timeouts
        if self._paused & _BACKEND_FULL:
            return now - self._backend_since > timeouts.data_block
        wait = relay.backend_wait
        mark = relay.reply_count + relay.octets
        if wait is Wait.NOTHING or mark != self._backend_mark:
            self._backend_mark = mark
            self._backend_since = now
            return False
        waited = now - self._backend_since
        if wait is Wait.GREETING and waited > timeouts.connect and self.leg is not None and not self.leg.connected:
            return True
        return waited > self.context.waits[wait]

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
            self.transport.write(replies)
        out = relay.backend_out
        if out and self.leg is not None:
            self.leg.transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
        if relay.stuffed:
            self._pause(_STUFFED)
        elif self._paused & _STUFFED:
            self._resume(_STUFFED)
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
        leg = self.context.pool.dial(self, self._tried if self._tried is not None else [])
        if isinstance(leg, str):
            self.context.journal.backend_failed(self.context.pool.name, "", leg)
            self._tell(self.relay.backend_failed, leg)
            return
        self.leg = leg
        self.server = leg.server
        if self._paused & _CLIENT_FULL:
            leg.pause_reading()

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
            leg.close(reset=reset or bool(self._paused & _BACKEND_FULL))
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
        if self._paused & _BACKEND_FULL:
            self._resume(_BACKEND_FULL)

    def _probe_client(self) -> None:
        transport = self.transport
        data = transport.read_now() if isinstance(transport, LeanTransport) else None
        if data is None:
            self.relay.client_quiet(self.context.clock())
        else:
            self.relay.client_received(data, self.context.clock())
        self._settle()

    def _close_client(self) -> None:
        context = self.context
        self._report_transactions()
        relay = self.relay
        if relay.learned is not None and relay.learned is not context.learned:
            context.learn(relay.learned)
        self._dismiss()
        context.journal.session_ended(self)
        self._part()

    def _dismiss(self) -> None:
        """Count the session out, once."""
        if not self._dismissed:
            self._dismissed = True
            self.context.sweep.discard(self, self.number)
            self.context.dismiss(self.address)

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
    return isinstance(transport, LeanTransport) and not transport.is_quiet()


_ACTIONS: Final[dict[Action, Callable[[InboundSession], None]]] = {
    Action.CONNECT: InboundSession._connect,  # noqa: SLF001  # the table of this class
    Action.NEXT_SERVER: InboundSession._next_server,  # noqa: SLF001
    Action.ABORT_BACKEND: InboundSession._abort_backend,  # noqa: SLF001
    Action.DROP_BACKEND: InboundSession._drop_backend,  # noqa: SLF001
    Action.QUIT_BACKEND: InboundSession._quit_backend,  # noqa: SLF001
    Action.AWAIT_CLOSE: InboundSession._await_close,  # noqa: SLF001
    Action.RELEASE_BACKEND: InboundSession._release_backend,  # noqa: SLF001
    Action.PROBE_CLIENT: InboundSession._probe_client,  # noqa: SLF001
    Action.CLOSE_CLIENT: InboundSession._close_client,  # noqa: SLF001
}
