"""A client's session on the wire, whoever answers it: its connection, its TLS, its end.

Here is all of that which a dialogue must not do: writing, pausing the side that reads while the side that writes is
full, and judging by the clock.  What it decides about the protocol is nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import implementer

from smtpproxy.session.actions import Action

from . import fastopen
from .linger import Linger
from .parting import part
from .timed import CLIENT_FULL, STUFFED, TimedSession
from .tls import TlsLayer
from .tlsfacts import facts_of, with_reason
from .transport import LeanTransport, OwnTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from .clientcontext import ClientContext
    from .tlsfacts import TlsFacts
    from .vouched import Vouched

_CLEAN_ENDS: Final = frozenset({"quit", "client closed the connection"})


@implementer(IHalfCloseableProtocol)
class ClientSession(TimedSession):
    """The protocol of a client's connection."""

    __slots__ = (
        "_dismissed",
        "_held",
        "address",
        "counted",
        "factory",
        "facts",
        "fast_open",
        "number",
        "transport",
        "vouched",
    )

    plenty: ClassVar[int] = 0
    """Octets that may wait of a client that is not to be read, before it really is not."""

    def __init__(self, context: ClientContext, address: str, counted: str, vouched: Vouched | None = None) -> None:
        """``address``: the client's, as text; empty on a Unix socket. ``counted``: the one that limits count it by.

        ``vouched``: what somebody in front of us has said of it already.
        """
        super().__init__(context)
        self.address = address
        self.counted = counted
        self.vouched = vouched
        self.number = context.next_number()
        self.facts: TlsFacts | None = None
        """Of the TLS with the client."""
        self.transport: Any = None
        """The client's connection, TLS included."""
        self.fast_open = False
        """Whether its first octets came with the SYN (clear text only)."""
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
                self.dialogue.await_tls()
                self._begin_tls(first)
            else:
                self.greet(self.started, first)
            self._settle()
        except Exception:
            self._own_fault()

    def greet(self, now: float, first: bytes = b"") -> None:
        """Begin the dialogue; ``first`` has been read of the client before."""
        dialogue = self.dialogue
        dialogue.start(now)
        if self._speaks_at_once and not first and isinstance(self.transport, OwnTransport):
            # The greeting can go at once; only a look before it tells if the client has spoken first (rule S2).
            first = self.transport.read_now() or b""
        if first:
            dialogue.client_received(first, now)

    @property
    def _speaks_at_once(self) -> bool:
        """Whether the greeting waits for no server."""
        return True

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of the client."""
        try:
            self.dialogue.client_received(data, self.context.clock())
            self._settle()
        except Exception:
            self._own_fault()

    def readConnectionLost(self) -> None:
        """The client has closed its writing side (rule S13)."""
        self._tell(self.dialogue.client_eof, self.context.clock())

    def writeConnectionLost(self) -> None:
        """Our own doing."""

    def connectionLost(self, reason: Failure) -> None:
        """The client's connection is gone."""
        self.transport = None
        self._tell(self.dialogue.client_lost, f"client connection lost: {reason.getErrorMessage()}")

    def pauseProducing(self) -> None:
        """The client does not read what we write (rule H9)."""
        self._client_since = self.context.clock()
        self._pause(CLIENT_FULL)
        self._pause_servers()

    def resumeProducing(self) -> None:
        """The client reads again."""
        self._client_since = self.context.clock()
        self._resume_servers()
        self._resume(CLIENT_FULL)

    def stopProducing(self) -> None:
        """The connection is gone, which connectionLost tells."""

    # --- TLS with the client (TlsOwner) ------------------------------------------------------------------------

    def tls_secured(self, layer: TlsLayer) -> None:
        """Go on inside TLS, unless it came too late."""
        if self.dialogue.over:
            return
        try:
            self._inside_tls(layer)
            self._settle()
        except Exception:
            self._own_fault()

    def tls_failed(self, layer: TlsLayer, why: str) -> None:
        """End: there is nobody to talk to."""
        if self.dialogue.over:
            return
        why = with_reason(why, layer.connection)
        self.context.journal.tls_failed(self, why)
        self._tell(self.dialogue.client_lost, f"TLS handshake failed: {why}")

    @property
    def certified_login(self) -> bytes:
        """The login name that the client's certificate stands for; empty if it stands for none."""
        tls, facts = self.context.tls, self.facts
        return b"" if tls is None or facts is None else tls.login(facts).encode()

    # --- time ------------------------------------------------------------------------------------------------------

    def stop_holding(self) -> None:
        """Write the replies that still wait for the rest of their group (rule S4)."""
        self._held = False
        self._tell(self._write_held)

    def _write_held(self) -> None:
        replies = self.dialogue.take_replies(hold=False)
        if replies and self.transport is not None:
            self.transport.write(replies)

    # --- the service -------------------------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """Go down at the next occasion."""
        self._tell(self.dialogue.shut_down)

    def cut_off(self) -> None:
        """Go down now."""
        dialogue = self.dialogue
        self._tell(dialogue.end_now)

    # --- carrying out ------------------------------------------------------------------------------------------------

    def _tell(self, event: Callable[..., None], *arguments: Any) -> None:
        if self.dialogue.over:
            return
        try:
            event(*arguments)
            self._settle()
        except Exception:
            self._own_fault()

    def _settle(self) -> None:
        """Write what the dialogue gives, and do what it says."""
        dialogue = self.dialogue
        self._write_replies()
        self._write_to_servers()
        if dialogue.stuffed and dialogue.frontend.waiting >= self.plenty:
            self._pause(STUFFED)
        elif self._paused & STUFFED:
            self._resume(STUFFED)
        if dialogue.pipeline.ready and not self._held:
            self._held = True
            self.context.sweep.hold(self)
        if dialogue.ended:
            self._report_transactions()
        if dialogue.offered:
            dialogue.offered = False
            self.context.offered(self.address)
        if dialogue.actions:
            self._act()

    def _write_replies(self) -> bool:
        """Write the replies that are to leave now; say whether there were any."""
        dialogue = self.dialogue
        replies = dialogue.take_replies()
        if replies and self.transport is not None:
            if dialogue.over and self.facts is not None:
                # One segment for the last reply and the end of TLS.
                self.transport.write_last(replies)
            else:
                self.transport.write(replies)
        return bool(replies)

    def _write_to_servers(self) -> None:
        """Write what servers are to be sent."""
        raise NotImplementedError  # InboundSession and OutboundSession have it

    def _act(self) -> None:
        """Do what the dialogue says."""
        raise NotImplementedError  # the same

    def _pause_servers(self) -> None:
        """Read nothing of servers: the client does not read our replies (rule H9)."""
        raise NotImplementedError  # the same

    def _resume_servers(self) -> None:
        """Read of servers again."""
        raise NotImplementedError  # the same

    def _begin_anew(self) -> None:
        """Go on with a new dialogue inside TLS: nothing that the client said before counts (RFC 3207, 4.2)."""
        raise NotImplementedError  # the same

    def _start_tls(self) -> None:
        self._client_since = self.context.clock()
        self._begin_tls()

    def _begin_tls(self, first: bytes = b"") -> None:
        """Put TLS between the client and its session; ``first`` has been read of its handshake already."""
        tls = self.context.tls
        if tls is None:
            raise RuntimeError("TLS is spoken by a listener without it")
        layer = TlsLayer(tls.connection(), self)
        lower, self.transport = self.transport, layer
        layer.start(lower, self, first=first)

    def _inside_tls(self, layer: TlsLayer) -> None:
        """Begin inside TLS: with a greeting where there was none yet, else anew, and the client speaks."""
        self.facts = facts_of(layer.connection)
        self.context.journal.tls_secured(self)
        if self.context.settings.tls.mode == "implicit":
            self.dialogue.tls_begun()
            self.greet(self.context.clock())
        else:
            self._begin_anew()

    def _probe_client(self) -> None:
        transport = self.transport
        data = transport.read_now() if isinstance(transport, OwnTransport) else None
        if data is None:
            self.dialogue.client_quiet(self.context.clock())
        else:
            self.dialogue.client_received(data, self.context.clock())
        self._settle()

    def _close_client(self) -> None:
        context = self.context
        self._report_transactions()
        transport = self.transport
        if self.dialogue.early and context.settings.fast_open and isinstance(transport, LeanTransport):
            self.fast_open = fastopen.carried_data(transport.socket)
        self._before_closing()
        self._dismiss()
        context.journal.session_ended(self)
        self._part()

    def _before_closing(self) -> None:
        """Keep what is worth it of a session that ends."""

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
        if self.dialogue.reason in _CLEAN_ENDS and (self.dialogue.eof or not _has_input(transport)):
            part(transport)
            return
        context = self.context
        linger = Linger(context.sweep, self.number, context.clock() + context.settings.timeouts.close)
        transport.protocol = linger
        linger.makeConnection(transport)

    def _report_transactions(self) -> None:
        ended, self.dialogue.ended = self.dialogue.ended, ()
        for transaction in ended:
            self.context.journal.transaction_ended(self, transaction)

    def _own_fault(self) -> None:
        """End this session, and only this one, after an exception (rule H10)."""
        self.context.journal.internal_error(self)
        try:
            self.dialogue.internal_error()
            self._settle()
        except Exception:
            self.context.journal.internal_error(self)
            self._abandon()

    def _abandon_servers(self) -> None:
        """Reset every connection with a server."""
        raise NotImplementedError  # InboundSession and OutboundSession have it

    def _abandon(self) -> None:
        self._abandon_servers()
        self.dialogue.over = True
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
    return isinstance(transport, OwnTransport) and transport.has_input()


CLIENT_ACTIONS: Final[dict[Action, Callable[[Any], None]]] = {
    Action.PROBE_CLIENT: ClientSession._probe_client,  # noqa: SLF001  # the table of this class
    Action.START_TLS: ClientSession._start_tls,  # noqa: SLF001  # the same
    Action.CLOSE_CLIENT: ClientSession._close_client,  # noqa: SLF001  # the same
}
"""What a dialogue asks for, of the client's side."""
