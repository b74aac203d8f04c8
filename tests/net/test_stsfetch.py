"""Fetching a policy of MTA-STS: what is asked for, what is accepted, who may answer (RFC 8461, 3.3)."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionLost
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from smtpproxy.config import MtaSts as Settings
from smtpproxy.net.stsfetch import HttpsTls, PolicyFetcher, agent
from smtpproxy.net.stspolicy import LONGEST_POLICY, StsError

from .fakedns import Answers
from .tlspeers import Report, now

DOMAIN, HOST = "example.org", "mta-sts.example.org"
POLICY = b"version: STSv1\nmode: none\nmax_age: 1\n"


class Outcome:
    """What a fetch comes to."""

    def __init__(self, fetching: Deferred[bytes]) -> None:
        self.content: bytes | None = None
        self.why = ""
        fetching.addCallbacks(self._got, self._failed)

    def _got(self, content: bytes) -> None:
        self.content = content

    def _failed(self, failure: Failure) -> None:
        assert failure.type is StsError
        self.why = str(failure.value)

    @property
    def done(self) -> bool:
        return self.content is not None or bool(self.why)


# --- without a network --------------------------------------------------------------------------------------------


class FakeAgent:
    """Writes down requests; the test answers them."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.waiting: list[Deferred[Any]] = []

    def request(self, method: bytes, url: bytes, headers: Headers, body: Any) -> Deferred[Any]:
        assert (headers.getRawHeaders("User-Agent"), body) == (["smtpproxy"], None)
        self.requests.append((method, url))
        self.waiting.append(Deferred())
        return self.waiting[-1]


class FakeResponse:
    """A response whose body the test sends; it is its own transport."""

    def __init__(self, code: int = 200, media: bytes = b"text/plain") -> None:
        self.code = code
        self.headers = Headers({b"Content-Type": [media]} if media else {})
        self.stopped = False
        self.body: Any = None

    def deliverBody(self, protocol: Any) -> None:  # noqa: N802  # Twisted's interface
        self.body = protocol
        protocol.makeConnection(self)

    def stopProducing(self) -> None:  # noqa: N802  # the same
        self.stopped = True

    def end(self, reason: Exception | None = None) -> None:
        self.body.connectionLost(Failure(reason or ResponseDone()))


class World:
    """An agent, a clock, and what fetches."""

    def __init__(self) -> None:
        self.agent, self.clock = FakeAgent(), Clock()
        self.fetch = PolicyFetcher(self.agent, self.clock, 10.0)

    def ask(self) -> Outcome:
        return Outcome(self.fetch(DOMAIN))


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("media", [b"text/plain", b"Text/Plain; charset=utf-8", b"text/plain ;x=y"])
@pytest.mark.parametrize("ending", [ResponseDone, PotentialDataLoss])
def test_what_is_asked_for_and_given(world: World, media: bytes, ending: type[Exception]) -> None:
    outcome = world.ask()
    assert world.agent.requests == [(b"GET", b"https://mta-sts.example.org/.well-known/mta-sts.txt")]
    response = FakeResponse(media=media)
    world.agent.waiting.pop().callback(response)
    for piece in (POLICY[:9], POLICY[9:]):
        response.body.dataReceived(piece)
    assert not outcome.done
    response.end(ending())
    assert outcome.content == POLICY
    assert world.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (FakeResponse(301), "HTTP status 301"),
        (FakeResponse(404), "HTTP status 404"),
        (FakeResponse(204), "HTTP status 204"),
        (FakeResponse(media=b"text/html"), "its media type is not text/plain"),
        (FakeResponse(media=b"text/plainly"), "its media type is not text/plain"),
        (FakeResponse(media=b""), "its media type is not text/plain"),
    ],
)
def test_what_is_not_even_read(world: World, response: FakeResponse, why: str) -> None:
    outcome = world.ask()
    world.agent.waiting.pop().callback(response)
    assert outcome.why == why
    assert response.stopped
    assert len(world.agent.requests) == 1  # a redirect is not followed
    response.body.dataReceived(POLICY)
    response.end()
    assert outcome.content is None


def test_the_longest_policy(world: World) -> None:
    for more, why in ((0, ""), (1, "it is too long")):
        outcome, response = world.ask(), FakeResponse()
        world.agent.waiting.pop().callback(response)
        response.body.dataReceived(b"x" * LONGEST_POLICY)
        response.body.dataReceived(b"x" * more)
        assert response.stopped == bool(more)
        response.end()
        assert (outcome.why, outcome.content is None) == (why, bool(more))


def test_half_a_body_is_none(world: World) -> None:
    outcome, response = world.ask(), FakeResponse()
    world.agent.waiting.pop().callback(response)
    response.body.dataReceived(POLICY)
    response.end(ConnectionLost())
    assert outcome.why == "the connection broke"


@pytest.mark.parametrize(
    ("problem", "why"),
    [
        (ConnectTimeout("so"), "TimeoutError: User timeout caused connection failure: so."),
        (ResponseFailed([Failure(OSError("first")), Failure(OSError("last"))]), "OSError: last"),
        (StsError("said so"), "said so"),
    ],
)
def test_no_answer(world: World, problem: Exception, why: str) -> None:
    outcome = world.ask()
    world.agent.waiting.pop().errback(problem)
    assert outcome.why == why


def test_time_runs_out_before_the_answer_and_in_it(world: World) -> None:
    one, other = world.ask(), world.ask()
    response = FakeResponse()
    world.agent.waiting.pop().callback(response)
    response.body.dataReceived(POLICY)
    world.clock.advance(9.9)
    assert not one.done
    assert not other.done
    world.clock.advance(0.2)
    assert one.why == other.why == "nothing came within 10 s"
    assert response.stopped


def test_some_are_fetched_at_a_time(world: World) -> None:
    outcomes = [world.ask() for _ in range(25)]
    assert len(world.agent.requests) == 20
    world.clock.advance(11.0)  # nobody is kept out by servers that say nothing
    assert [outcome.done for outcome in outcomes] == [True] * 20 + [False] * 5
    assert len(world.agent.requests) == 25


# --- with a web server ----------------------------------------------------------------------------------------------


class WebServer:
    """Answers one request in a thread; ``ended`` says how its connection has ended."""

    def __init__(self, pair: Any, response: Iterable[bytes], *, endless: bool = False) -> None:
        """``response``: in pieces, each of which is a record or more."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.cert, pair.key)
        self._names: list[str | None] = []
        self._context.sni_callback = lambda _connection, name, _context: self._names.append(name)
        self._response = response
        self._endless = endless
        self.request = b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        raw, _ = self._listening.accept()
        with raw, contextlib.suppress(OSError), self._context.wrap_socket(raw, server_side=True) as connection:
            while b"\r\n\r\n" not in self.request:
                self.request += connection.recv(4096)
            for piece in self._response:
                connection.sendall(piece)
            while self._endless:
                connection.sendall(b"x" * 4096)

    @property
    def name(self) -> str | None:
        """The name that was asked for (SNI)."""
        return self._names[0]

    def close(self) -> None:
        """Wait until the connection has ended."""
        self._thread.join()
        self._listening.close()


@pytest.fixture
def reactor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A reactor of the test's own. Twisted's TLS would take its clock from the one of the process."""
    own = EPollReactor()
    monkeypatch.setattr("twisted.protocols.tls._get_default_clock", lambda: own)
    own.startRunning(installSignalHandlers=False)
    yield own
    own.disconnectAll()
    own.fireSystemEvent("shutdown")
    own.iterate(0)


def fetch(reactor: Any, server: WebServer, pki: Any) -> Outcome:
    """Fetch from a server that stands for all of the internet."""
    tls = HttpsTls(Settings(ca=pki.root.path), Report(), now)

    @implementer(IAgentEndpointFactory)
    class Everywhere:
        def endpointForURI(self, uri: Any) -> Any:  # noqa: N802  # Twisted's interface
            assert (uri.scheme, uri.port) == (b"https", 443)
            there = TCP4ClientEndpoint(reactor, "127.0.0.1", server.port)
            return wrapClientTLS(tls.creatorForNetloc(uri.host, uri.port), there)

    outcome = Outcome(PolicyFetcher(Agent.usingEndpointFactory(reactor, Everywhere()), reactor, 60.0)(DOMAIN))
    while not outcome.done:
        reactor.iterate(1)
    return outcome


def http(head: bytes, body: bytes = POLICY, media: bytes = b"text/plain") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (head, media, len(body), body)


def test_a_policy_over_https(reactor: Any, pki: Any) -> None:
    server = WebServer(pki.pair([HOST]), [http(b"200 OK")])
    outcome = fetch(reactor, server, pki)
    server.close()
    assert (outcome.content, outcome.why) == (POLICY, "")
    assert server.name == HOST
    assert server.request.startswith(b"GET /.well-known/mta-sts.txt HTTP/1.1\r\n")
    assert b"\r\nHost: mta-sts.example.org\r\n" in server.request
    assert b"\r\nConnection: close\r\n" in server.request


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        (lambda pki: pki.pair(["example.org", "www.example.org"]), f"the certificate is not for {HOST}"),
        (lambda pki: pki.pair([], common_name=HOST), "the certificate has no name that could be compared"),
        (lambda pki: pki.pair([HOST], ca=pki.ca("Somebody")), "unable to get issuer cert locally"),
        (lambda pki: pki.pair([HOST], days=-1), "cert has expired"),
        (lambda pki: pki.pair([HOST], client=True), "invalid purpose"),
    ],
)
def test_only_the_right_server_is_asked(reactor: Any, pki: Any, pair: Callable[[Any], Any], why: str) -> None:
    server = WebServer(pair(pki), [http(b"200 OK")])
    outcome = fetch(reactor, server, pki)
    server.close()
    assert outcome.content is None
    assert outcome.why.startswith(f"the certificate is refused: {why}")
    assert server.request == b""


def test_a_redirect_is_not_followed(reactor: Any, pki: Any) -> None:
    moved = b"301 Moved\r\nLocation: https://mta-sts.example.org/elsewhere"
    server = WebServer(pki.pair([HOST]), [http(moved)])
    assert fetch(reactor, server, pki).why == "HTTP status 301"
    server.close()


@pytest.mark.parametrize("head", [b"200 OK", b"404 Not Found"])
def test_a_server_that_never_ends_is_left(reactor: Any, pki: Any, head: bytes) -> None:
    """Its thread ends only when it cannot send any more."""
    endless = b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\n\r\n" % head
    server = WebServer(pki.pair([HOST]), [endless], endless=True)
    assert fetch(reactor, server, pki).why == ("it is too long" if head == b"200 OK" else "HTTP status 404")
    closing = threading.Thread(target=server.close)
    closing.start()
    while closing.is_alive():
        reactor.iterate(0.01)


LINE = b"X-Line: " + b"x" * 1014 + b"\r\n"


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(("lines", "why"), [(60, ""), (2000, "it sends too much")])
def test_a_header_has_its_bounds(reactor: Any, pki: Any, lines: int, why: str, *, early: bool) -> None:
    """Twisted's client would keep all of it, and wait for more; ``early``: that of a response before the response."""
    body = POLICY + b"x" * (LONGEST_POLICY - len(POLICY))
    response = http(b"200 OK", body)
    if early:
        response = b"HTTP/1.1 103 Early Hints\r\n" + LINE * lines + b"\r\n" + response
    else:
        response = response.replace(b"\r\n", b"\r\n" + LINE * lines, 1)
    server = WebServer(pki.pair([HOST]), [response])
    outcome = fetch(reactor, server, pki)
    server.close()
    assert (outcome.why, outcome.content) == (why, None if why else body)


def test_records_count_with_all_that_is_in_them(reactor: Any, pki: Any) -> None:
    """Of 23 octets 22 are no text (RFC 8446, 5.2), and others have none at all."""
    response = http(b"200 OK").replace(b"\r\n", b"\r\n" + LINE * 10, 1)
    server = WebServer(pki.pair([HOST]), [bytes([octet]) for octet in response])
    outcome = fetch(reactor, server, pki)
    server.close()
    assert (outcome.why, outcome.content) == ("it sends too much", None)


def test_the_client_that_is_used(pki: Any) -> None:
    """Twisted's own, without its handling of redirects, cookies and kept connections."""
    clock = Clock()
    client = agent(clock, Answers(), HttpsTls(Settings(ca=pki.root.path), Report(), now), 10.0)
    assert type(client) is Agent
    assert not client._pool.persistent
