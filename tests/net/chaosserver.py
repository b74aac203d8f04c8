"""A server that does what a good one does, or babbles, and minds for whom it is asked what (S18)."""

from __future__ import annotations

import re

from OpenSSL import SSL

from smtpproxy.net.inbound import InboundSession
from smtpproxy.net.leg import BackendLeg
from smtpproxy.smtp.proxyheader import ProxyHeaderReader
from smtpproxy.smtp.xclient import parse_address

from .stage import FakeTransport
from .tlsstage import TlsPeer

OFFER = b"250-mx\r\n250-PIPELINING\r\n250-XCLIENT NAME ADDR PORT HELO LOGIN\r\n250-XFORWARD NAME ADDR\r\n"
_CHUNK = re.compile(rb"BDAT ([0-9]+)")
LAST = b"250 DSN\r\n"
ANSWERS = {
    b"XCLIENT": b"220 mx\r\n",
    b"DATA": b"354 go\r\n",
    b"AUTH": b"235 in\r\n",
    b"QUIT": b"221 bye\r\n",
}


class Server:
    """A server at the other end of a wire, which minds for whom it is asked what."""

    def __init__(self, wire: FakeTransport, leg: BackendLeg, connection: SSL.Connection, *, implicit: bool) -> None:
        self._wire = wire
        self._leg = leg
        self.peer = TlsPeer(connection)
        self._told: str | None = None
        """The client's address, as far as it was told; empty if that is all that was said of it."""
        self._tls = implicit
        self._greeted = False
        self._rest = b""
        self._in_data = False
        self._sane = True

    def babble(self, text: bytes) -> None:
        """Say anything; what it is sent from then on may be anything too."""
        self._sane = False
        self._say(text)

    def _say(self, text: bytes) -> None:
        self._wire.protocol.dataReceived(self.peer.say(text) if self.peer.secured else text)

    def obey(self, *, chunking: bool) -> None:
        """Do what a good server does with everything that it was sent since the last time."""
        sent = self._read()
        if self._tls and not self.peer.secured:
            return
        said = b""
        if not self._greeted:
            self._greeted = True
            said = b"220 mx\r\n"
        self._rest += sent
        while self._whole():
            line, _, self._rest = self._rest.partition(b"\r\n")
            if self._in_data:
                self._in_data = line != b"."
                said += b"" if self._in_data else b"250 taken\r\n"
            elif line == b"STARTTLS" and not self._tls:
                self._tls = True
                self._wire.protocol.dataReceived(said + b"220 go\r\n")
                return
            else:
                said += self._answer(*line.partition(b" ")[::2], chunking=chunking)
        if said:
            self._say(said)

    def _whole(self) -> bool:
        """Whether the next thing that was said has come to its end."""
        line, end, rest = self._rest.partition(b"\r\n")
        chunk = _CHUNK.match(line) if not self._in_data else None
        return bool(end) and (chunk is None or len(rest) >= int(chunk[1]))

    def _answer(self, verb: bytes, argument: bytes, *, chunking: bool) -> bytes:
        if verb == b"EHLO":
            return OFFER + (b"" if self._tls else b"250-STARTTLS\r\n") + (b"250 CHUNKING\r\n" if chunking else LAST)
        if verb == b"XCLIENT" and self._sane:
            (address,) = [part[5:] for part in argument.split() if part.startswith(b"ADDR=")]
            self._told = parse_address(address)
        elif chunk := _CHUNK.match(verb + b" " + argument):
            self._rest = self._rest[int(chunk[1]) :]
        elif verb == b"MAIL" and self._sane:
            self._mind_the_client()
        elif verb == b"DATA":
            self._in_data = True
        return ANSWERS.get(verb, b"250 ok\r\n")

    def _mind_the_client(self) -> None:
        """S18: a transaction is the client's that the server was told of."""
        owner = self._leg.owner
        if isinstance(owner, InboundSession) and owner.context.pool.settings.identity not in {"none", "xforward"}:
            assert self._told == owner.address

    def _read(self) -> bytes:
        sent = self._wire.take()
        if sent.startswith(b"PROXY "):
            line, _, sent = sent.partition(b"\r\n")
            self._told = line.split()[2].decode() if line.startswith(b"PROXY TCP") else ""
        elif sent.startswith(b"\r\n\r\n\0"):
            reader = ProxyHeaderReader()
            reader.receive(sent)
            self._told = reader.ends.source[0] if reader.ends is not None else ""
            sent = reader.rest
        if not self._tls:
            return sent
        back = self.peer.feed(sent)
        if back and not self._wire.ended:
            self._wire.protocol.dataReceived(back)
        return self.peer.take()
