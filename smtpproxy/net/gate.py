"""Where a load balancer says first, by a PROXY header, for whom it connects.

Only those get here whom the configuration trusts (rule H6).  The header comes before anything else, TLS included; the
session begins behind it, with the client's own address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import implementer

from smtpproxy.smtp.proxyheader import ProxyHeaderReader, looks_like_header

from .parting import part
from .refusal import refusal
from .vouched import Vouched

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from .clientcontext import ClientContext

_NOBODY: Final = "nobody"
"""What is asked about in place of the address of a client that has none: it is in no network, not even our own."""


@implementer(IHalfCloseableProtocol)
class ProxyGate:
    """Reads the header and gives the connection to a session."""

    __slots__ = (
        "_address",
        "_context",
        "_deadline",
        "_doubtful",
        "_key",
        "_left",
        "_reader",
        "_seen",
        "factory",
        "transport",
    )

    def __init__(self, context: ClientContext, address: str) -> None:
        """``address``: the load balancer's. The connection is counted in already, by no address."""
        self._context = context
        self._address = address
        self._key = context.next_number()
        self._deadline = context.clock() + context.settings.timeouts.proxy_header
        self._reader = ProxyHeaderReader()
        self._doubtful = context.settings.proxy_protocol == "optional"
        """Whether it may still turn out that no header comes."""
        self._seen = b""
        self._left = False
        self.transport: Any = None

    def makeConnection(self, transport: Any) -> None:
        """Wait for the header."""
        self.transport = transport
        self._context.sweep.add(self, self._key)

    def dataReceived(self, data: bytes) -> None:
        """Read on."""
        if self._doubtful:
            self._seen += data
            verdict = looks_like_header(self._seen)
            if verdict is False:
                self._begin(self._address, None, self._seen)
            if not verdict:
                return
            self._doubtful = False
            data = self._seen
        reader = self._reader
        reader.receive(data)
        if reader.fault:
            self._turn_away(f"bad PROXY header: {reader.fault}")
        elif reader.done:
            self._let_in(reader)

    def _let_in(self, reader: ProxyHeaderReader) -> None:
        ends = reader.ends
        if ends is None:
            # The load balancer itself (LOCAL: a health check), or somebody that it cannot name: they cannot always be
            # told apart. They may do what anybody may, not what the load balancer may by its address: to relay.
            self._begin(self._address, None, reader.rest, asked_for=_NOBODY)
            return
        vouched = Vouched(self._address, ends.source[1], ends.destination)
        self._begin(ends.source[0], vouched, reader.rest)

    def _begin(self, address: str, vouched: Vouched | None, first: bytes, *, asked_for: str = "") -> None:
        """Go on to a session, if there may be one. ``asked_for``: who has to be allowed, by default the address."""
        context = self._context
        context.sweep.discard(self, self._key)
        counted = address if vouched is not None else ""
        denied = context.may_connect(asked_for or address)
        full = "shutting down" if context.draining else denied or context.readmit("", counted)
        if full:
            self._turn_away(full, address, for_good=bool(denied))
            return
        session = context.session(address, counted, vouched)
        self.transport.protocol = session
        session.begin(self.transport, first)

    def _turn_away(self, why: str, address: str = "", *, for_good: bool = False) -> None:
        self._leave()
        protocol = refusal(self._context, address or self._address, why, for_good=for_good)
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)

    def _leave(self) -> None:
        """Count the connection out, once."""
        if not self._left:
            self._left = True
            self._context.sweep.discard(self, self._key)
            self._context.dismiss("")

    def readConnectionLost(self) -> None:
        """The load balancer has closed without a word, as a health check does: nothing to tell."""
        self._leave()
        part(self.transport)

    def writeConnectionLost(self) -> None:
        """Our own doing."""

    def connectionLost(self, _reason: Failure) -> None:
        """The same."""
        self._leave()

    def sweep(self, now: float) -> None:
        """Go on without a header, or end, when the time is up."""
        if now <= self._deadline:
            return
        if self._doubtful:
            self._begin(self._address, None, self._seen)
        else:
            self._turn_away("no PROXY header in time")
