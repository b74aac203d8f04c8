"""Fetching a policy of MTA-STS by HTTPS: no redirect, no more octets than it may have, and from the right server only.

Importing this takes a third of a second (``twisted.web``), so it is only imported where policies are wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol, connectionDone
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from smtpproxy.config import Protection

from .dnsnames import NamedReactor
from .servernames import ask_for, misnamed
from .stspolicy import LONGEST_POLICY, StsError
from .tls import words_for
from .tlsfacts import reason_of
from .tlsoutgoing import OutgoingTls

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from OpenSSL.crypto import X509
    from twisted.python.failure import Failure

    from smtpproxy.config import MtaSts as Settings

    from .resolver import Resolver
    from .tlsfiles import TlsReport

__all__ = ["HttpsTls", "PolicyFetcher", "agent"]

_AT_A_TIME: Final = 20
_MOST_OCTETS: Final = LONGEST_POLICY + 128 * 1024
"""Octets of a server in one connection: the policy with all that is round it, TLS and the header of HTTP."""
_HEADERS: Final = {"User-Agent": ["smtpproxy"]}


@implementer(IPolicyForHTTPS)
class HttpsTls(OutgoingTls):
    """TLS with the web servers of policies, which have to prove their names (RFC 8461, 3.3)."""

    def __init__(self, settings: Settings, report: TlsReport, now: Callable[[], datetime]) -> None:
        """Read the file of authorities. Raises TlsError if it cannot be used."""
        super().__init__(Protection(), "mta_sts", report, now, anchors=settings.ca, certificate=None)

    def creatorForNetloc(self, hostname: bytes, port: int) -> _Creator:  # noqa: ARG002  # of IPolicyForHTTPS
        """Give what makes connections with a web server."""
        return _Creator(self._context, hostname.decode("ascii"))


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """Makes connections with a web server."""

    __slots__ = ("_context", "_host")

    def __init__(self, context: SSL.Context, host: str) -> None:
        self._context = context
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: ARG002, N803  # Twisted's interface
        """Make one."""
        return _CheckedConnection(self._context, self._host)


class _CheckedConnection(SSL.Connection):
    """A connection whose handshake fails unless chain and name are right. Its app data is Twisted's.

    Nor does it read without end as Twisted's client for HTTP does, which keeps every line of a header.
    """

    def __init__(self, context: SSL.Context, host: str) -> None:
        super().__init__(context)
        self._host = host
        self._why = ""
        self._came = 0
        self.set_verify(SSL.VERIFY_PEER, self._check)
        ask_for(self, host)
        self.set_connect_state()

    def bio_write(self, buf: bytes | bytearray | memoryview) -> int:
        """Take octets of the server."""
        self._came += len(buf)
        return super().bio_write(buf)

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """Give plain text, unless the server has sent too much; Twisted calls it after each ``bio_write``."""
        if self._came > _MOST_OCTETS:
            raise SSL.Error([("", "", "it sends too much")])
        return super().recv(bufsiz, flags)

    def do_handshake(self) -> None:
        """As OpenSSL does it, but with the reason in its error."""
        try:
            super().do_handshake()
        except SSL.Error:
            if self._why:
                raise SSL.Error([("", "", f"the certificate is refused: {self._why}")]) from None
            raise

    def _check(self, _connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
        """For SSL.Connection.set_verify; never raises."""
        if not ok:
            self._why = self._why or reason_of(error)
        elif depth == 0:
            self._why = self._why or misnamed(certificate.to_cryptography(), self._host)
        return not self._why


def agent(reactor: Any, resolver: Resolver, tls: HttpsTls, timeout: float) -> Agent:
    """Make a client that keeps no connection; it follows no redirect. ``timeout``: seconds to connect."""
    reactor = NamedReactor(reactor, resolver)
    return Agent(reactor, tls, connectTimeout=timeout, pool=HTTPConnectionPool(reactor, persistent=False))


class PolicyFetcher:
    """Fetches policies, some at a time."""

    def __init__(self, agent: Any, clock: Any, timeout: float) -> None:
        """``agent``: IAgent; ``clock``: IReactorTime; ``timeout``: seconds for all of one fetch."""
        self._agent = agent
        self._clock = clock
        self._timeout = timeout
        self._turns = DeferredSemaphore(_AT_A_TIME)

    def __call__(self, domain: str) -> Deferred[bytes]:
        """Get the policy file of a domain (A-labels). Fails with StsError."""
        return self._turns.run(self._fetch, domain)

    def _fetch(self, domain: str) -> Deferred[bytes]:
        url = f"https://mta-sts.{domain}/.well-known/mta-sts.txt".encode("ascii")
        getting: Deferred[Any] = self._agent.request(b"GET", url, Headers(_HEADERS), None)
        getting.addCallback(_body_of)
        getting.addTimeout(self._timeout, self._clock, _too_late)
        return getting.addErrback(_explain)


def _body_of(response: Any) -> Deferred[bytes]:
    """Read the body, which also ends the connection; a response that is no policy is not read."""
    media = (response.headers.getRawHeaders(b"content-type") or [b""])[0].partition(b";")[0].strip().lower()
    why = ""
    if response.code != 200:
        why = f"HTTP status {response.code}"  # also for a redirect, which must not be followed (RFC 8461, 3.3)
    elif media != b"text/plain":
        why = "its media type is not text/plain"
    body = _Body(why)
    response.deliverBody(body)
    return body.whole


class _Body(Protocol):
    """Collects the body of a response."""

    def __init__(self, why: str) -> None:
        """``why``: why nothing of it is wanted; "" if it is."""
        self.whole: Deferred[bytes] = Deferred(lambda _: self._abort())
        self._pieces: list[bytes] = []
        self._size = 0
        self._why = why

    def connectionMade(self) -> None:
        if self._why:
            self._give_up()

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > LONGEST_POLICY:
            self._why = self._why or "it is too long"
            self._give_up()
        else:
            self._pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Without a length the end of the connection is the end of the body, and TLS vouches for it.
        if reason.check(ResponseDone, PotentialDataLoss) and not self._why:
            self._settle(b"".join(self._pieces))
        else:
            self._settle(StsError(self._why or "the connection broke"))

    def _give_up(self) -> None:
        self._abort()
        self._settle(StsError(self._why))

    def _abort(self) -> None:
        """Close at once: loseConnection would let a server of ill will keep the connection for ever, inside TLS."""
        transport: Any = self.transport
        transport.stopProducing()

    def _settle(self, result: bytes | StsError) -> None:
        if self.whole.called:
            return
        if isinstance(result, bytes):
            self.whole.callback(result)
        else:
            self.whole.errback(result)


def _too_late(_result: Any, timeout: float) -> None:
    raise StsError(f"nothing came within {timeout:g} s")


def _explain(failure: Failure) -> Failure:
    """Make a StsError of whatever has failed."""
    failure.trap(Exception)
    if failure.check(StsError):
        return failure
    problem: Any = failure.value
    reasons = getattr(problem, "reasons", None) or [failure]
    inner: Any = getattr(reasons[-1], "value", problem)
    if isinstance(inner, CancelledError):
        raise StsError("given up")
    raise StsError(words_for(inner) if isinstance(inner, SSL.Error) else f"{type(inner).__name__}: {inner}")
