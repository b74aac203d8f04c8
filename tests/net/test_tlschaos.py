"""Anything at any time, with TLS and identities on both sides: nobody is left behind, nothing fails (H8, H10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from smtpproxy.net.leg import BackendLeg
from smtpproxy.smtp.proxyheader import Ends, v1_header, v2_header

from .chaosserver import Server
from .stage import FakeTransport, Stage, backend, listener
from .test_chaos import BACKEND_KINDS, CLIENT_WAITS, SAID_BY_SERVERS, TIMES, WHAT_ELSE
from .tlspeers import a_client, client_tls, listener_tls, server_tls
from .tlsstage import ENVELOPE, SecureClient, shake_hands

MODES = ("none", "starttls", "starttls-required", "implicit")
HEADERS = ("off", "optional", "required")
IDENTITIES = ("auto", "xclient", "proxy-v1", "proxy-v2", "xforward", "none")
FOUR = Ends(("203.0.113.5", 51000), ("198.51.100.1", 25))
SIX = Ends(("2001:db8::5", 51000), ("2001:db8::1", 25))
SAID_BY_CLIENTS = (
    b"EHLO client.example\r\n", b"HELO x\r\n", ENVELOPE, b"EHLO client.example\r\n" + ENVELOPE + b"DATA\r\n",
    b"DATA\r\n", b"text\r\n.\r\n", b"BDAT 6\r\ntext\r\n", b"BDAT 6 LAST\r\ntext\r\n", b"RSET\r\n", b"NOOP\r\n",
    b"QUIT\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"AUTH LOGIN\r\n", b"STARTTLS\r\n", b"STARTTLS\r\nNOOP\r\n",
    b"EHLO client.example\r\nSTARTTLS\r\n", b"XCLIENT ADDR=203.0.113.5\r\n", b"XCLIENT ADDR=[UNAVAILABLE]\r\n",
    b"XCLIENT LOGIN=joe NAME=[TEMPUNAVAIL]\r\n", b"XCLIENT ADDR=203.0.113.6 PORT=1\r\nEHLO x\r\n" + ENVELOPE,
    v1_header(FOUR), v2_header(SIX), v2_header(None), b"PROXY T", b"\r", b"x" * 50,
)  # fmt: skip
ACTIONS = st.one_of(
    st.tuples(st.just("client"), st.sampled_from(SAID_BY_CLIENTS)),
    st.tuples(st.just("clear"), st.sampled_from(SAID_BY_CLIENTS)),
    st.tuples(st.sampled_from(["handshake", "step", "farewell", "names"]), st.just(b"")),
    st.tuples(st.just("server"), st.sampled_from(SAID_BY_SERVERS)),
    st.tuples(st.just("server obeys"), st.booleans()),
    st.tuples(st.just("server obeys"), st.booleans()),
    st.tuples(st.sampled_from(WHAT_ELSE), st.just(b"")),
    st.tuples(st.just("time"), st.sampled_from(TIMES)),
    st.tuples(st.just("go down"), st.just(b"")),
)
GOES_ON = st.tuples(st.just("go on"), st.just(b""))
HAPPENINGS = st.lists(st.tuples(st.integers(0, 1), st.one_of(GOES_ON, ACTIONS, ACTIONS)), min_size=8, max_size=40)
WAYS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(MODES),
        "proxy_protocol": st.sampled_from(HEADERS),
        "identity": st.sampled_from(IDENTITIES),
        "backend_mode": st.sampled_from(MODES),
        "connect": st.sampled_from(["eager", "lazy"]),
        "reuse": st.booleans(),
        "lean": st.booleans(),
        "stamp": st.booleans(),
        "named": st.booleans(),
        "chunks": st.booleans(),
        "version": st.sampled_from(["1.2", "1.3"]),
    }
)
MESSAGE = b"Subject: x\r\n\r\ntext\r\n"


def good_session(ways: dict[str, Any]) -> Iterator[bytes]:
    """What a client does one after the other where nothing comes in between; nothing is the handshake."""
    if ways["proxy_protocol"] != "off":
        yield v1_header(FOUR)
    if ways["mode"].startswith("starttls"):
        yield from (b"EHLO client.example\r\n", b"STARTTLS\r\n")
    if ways["mode"] != "none":
        yield b""
    if ways["named"]:
        yield b"XCLIENT ADDR=203.0.113.5 PORT=51000\r\n"
    yield b"EHLO client.example\r\n"
    while True:
        yield ENVELOPE
        if ways["chunks"]:
            yield b"BDAT %d LAST\r\n" % len(MESSAGE) + MESSAGE
        else:
            yield from (b"DATA\r\n", MESSAGE, b".\r\n")
        if ways["reuse"]:
            yield b"QUIT\r\n"
        yield from (b"RSET\r\n", b"AUTH PLAIN AGEAYg==\r\n", ENVELOPE + b"DATA\r\n", b"x\r\n.\r\nQUIT\r\n")


class SlowNames:
    """Finds names when it is told to."""

    def __init__(self) -> None:
        self._asked: list[Callable[[bytes], None]] = []

    def find(self, _address: str, found: Callable[[bytes], None]) -> None:
        self._asked.append(found)

    def answer(self) -> None:
        asked, self._asked = self._asked, []
        for found in asked:
            found(b"mail.client.example")


class Chaos:
    """A stage with two clients, to whom things happen."""

    def __init__(self, pair: Any, contexts: dict[str, Any], ways: dict[str, Any]) -> None:
        self._contexts = contexts
        self._ways = ways
        self._implicit = ways["backend_mode"] == "implicit"
        bound = ways["identity"].startswith("proxy")
        tls = {"mode": ways["backend_mode"], "verify": "none"}
        self.names = SlowNames()
        networks = ["192.0.2.0/24"]
        self.stage = Stage(
            listener_settings=listener(
                tls=listener_tls(pair, mode=ways["mode"]),
                proxy_protocol=ways["proxy_protocol"],
                trusted={"proxy_protocol": networks, "xclient": networks},
                trace_header=ways["stamp"],
                auth="always",
                limits={"errors": 5, "sessions_per_client": 2},
                timeouts={**CLIENT_WAITS, "tls_handshake": 15.0},
            ),
            backend_settings=backend(
                identity=ways["identity"],
                tls=tls,
                connect=ways["connect"],
                reuse=ways["reuse"] and not bound,
                servers=["192.0.2.1:25", "192.0.2.2:25"],
                rest=0.0,
                timeouts=dict.fromkeys((*BACKEND_KINDS, "tls_handshake"), 15.0),
            ),
            tls=contexts["server"],
            backend_tls=contexts["client"] if ways["backend_mode"] != "none" else None,
            names=self.names,
        )
        self.clients = [self._client(), self._client()]
        self._shaking: list[SecureClient] = []
        self._next = [good_session(ways) for _ in self.clients]
        self.servers: dict[FakeTransport, Server] = {}

    def _client(self) -> SecureClient:
        return SecureClient(self.stage, lean=self._ways["lean"], tls=self._contexts[self._ways["version"]])

    def act(self, who: int, action: str, argument: Any) -> None:
        client = self.clients[who]
        if action == "time":
            self.stage.pass_time(argument)
        elif action == "go on":
            self._go_on(who)
        elif action == "names":
            self.names.answer()
        elif action == "go down":
            for session in [each for each in self.stage.sweep if hasattr(each, "shut_down")]:
                session.shut_down()
        elif action in {"client", "clear", "handshake", "step", "farewell", "half-close", "vanish", "fill", "drain"}:
            self._client_does(client, action, argument)
        else:
            self._server_does(who, action, argument)
        self.stage.reactor.advance(0)
        self._tell_of_ends()

    def _go_on(self, who: int) -> None:
        """Let a client do the next good thing, and the servers and whoever finds names theirs.

        A client that has gone comes again.
        """
        if self.clients[who].transport.ended:
            self.clients[who], self._next[who] = self._client(), good_session(self._ways)
        text = next(self._next[who])
        self._client_does(self.clients[who], "client" if text else "handshake", text)
        for _ in range(6):
            self.stage.reactor.advance(0)
            self._tell_of_ends()
            self.names.answer()
            for number in range(len(self.stage.dialler.wires)):
                self._server_does(number, "server obeys", argument=False)

    def _client_does(self, client: SecureClient, action: str, argument: Any) -> None:  # noqa: C901  # so many things can happen
        transport, peer = client.transport, client.peer
        if transport.ended:
            return
        if action == "vanish":
            transport.ended = "reset"
            transport.protocol.connectionLost(Failure(ConnectionLost()))
        elif action == "fill":
            transport.full = True
        elif action == "drain":
            transport.drain()
        elif transport.paused:
            return
        elif action == "half-close":
            transport.protocol.readConnectionLost()
        elif action in {"handshake", "step"} and not peer.ended:
            self._shake(client, whole=action == "handshake")
        elif action == "farewell" and peer.secured and not peer.ended:
            client.receive(peer.bye())
            peer.ended = "by itself"
        elif action == "client" and not peer.ended:
            client.receive(peer.say(argument) if peer.secured else argument)
        elif action == "clear":
            client.receive(argument)

    def _shake(self, client: SecureClient, *, whole: bool) -> None:
        """Begin the handshake, behind all that was said in clear, or go on with it."""
        if client not in self._shaking:
            self._shaking.append(client)
            client.transport.take()
        if whole:
            shake_hands(client.transport, client.peer)
        elif back := client.peer.feed(client.transport.take()):
            client.receive(back)

    def _server_does(self, who: int, action: str, argument: Any) -> None:
        wires = [wire for wire in self.stage.dialler.wires if not wire.ended]
        if not wires:
            return
        wire = wires[who % len(wires)]
        server = self._server(wire)
        if action == "server is lost":
            wire.ended = "reset"
            wire.protocol.connectionLost(Failure(ConnectionLost()))
        elif action == "fill server":
            wire.full = True
        elif action == "drain server":
            wire.drain()
        elif wire.paused:
            return
        elif action == "server":
            server.babble(argument)
        elif action == "server obeys":
            server.obey(chunking=argument)
        elif action == "server closes":
            wire.protocol.readConnectionLost()

    def _server(self, wire: FakeTransport) -> Server:
        server = self.servers.get(wire)
        if server is None:
            connection = self._contexts["backend"].connection()
            leg = self.stage.dialler.legs[self.stage.dialler.wires.index(wire)]
            server = self.servers[wire] = Server(wire, leg, connection, implicit=self._implicit)
        return server

    def _tell_of_ends(self) -> None:
        """A stock transport tells its protocol in the end."""
        for transport in (*(client.transport for client in self.clients), *self.stage.dialler.wires):
            if transport.ended == "closed":
                transport.ended = "told"
                transport.protocol.connectionLost(Failure(ConnectionDone()))

    def end(self) -> None:
        """Everybody leaves; whatever was left to wait for has its time."""
        for client in self.clients:
            self._client_does(client, "vanish", None)
        self.names.answer()
        self.stage.pool.close()
        self.stage.pass_time(60.0)


OTHER_WAYS = {
    "connect": "lazy",
    "reuse": False,
    "lean": True,
    "stamp": True,
    "chunks": False,
    "version": "1.3",
}


class Setting(NamedTuple):
    """What all examples share."""

    pair: Any
    contexts: dict[str, Any]


@pytest.fixture
def setting(pki: Any) -> Setting:
    pair = pki.pair()
    contexts = {
        "server": server_tls(pair),
        "backend": server_tls(pair),
        "client": client_tls(mode="starttls", verify="none"),
        "1.2": a_client(versions=(SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)),
        "1.3": a_client(),
    }
    return Setting(pair, contexts)


@pytest.mark.parametrize("identity", IDENTITIES)
def test_s14_a_message_passes_in_every_combination(setting: Setting, identity: str) -> None:
    """Of TLS in front and behind, of a PROXY header and XCLIENT in front; the server knows who the client is."""
    for mode, header, behind, named in product(MODES, HEADERS, MODES, (False, True)):
        ways = {"mode": mode, "proxy_protocol": header, "identity": identity, "backend_mode": behind, "named": named}
        chaos = Chaos(*setting, {**OTHER_WAYS, **ways})
        for _ in range(10):
            chaos.act(0, "go on", b"")
        assert any(each.reply[:1] == b"2" for each in chaos.stage.journal.transactions), ways
        assert chaos.stage.journal.internal == []


def test_h10_whatever_happens(setting: Setting) -> None:
    @settings(max_examples=200)
    @given(st.integers(0, 16), HAPPENINGS, WAYS)
    def check(good: int, happenings: list[tuple[int, tuple[str, Any]]], ways: dict[str, Any]) -> None:
        chaos = Chaos(*setting, ways)
        for step in range(good):
            chaos.act(step % 2, "go on", b"")
        for who, (action, argument) in happenings:
            chaos.act(who, action, argument)
        chaos.end()
        stage = chaos.stage
        assert stage.journal.internal == []
        assert stage.context.sessions == 0
        assert stage.context._per_client == {}
        assert len(set(stage.journal.sessions)) == len(stage.journal.sessions), "each ends once"
        assert [swept for swept in stage.sweep if swept is not stage.pool] == []
        assert not stage.pool.busy
        wires: list[FakeTransport] = stage.dialler.wires
        assert [wire for wire in wires if not wire.ended] == []
        legs: list[BackendLeg] = stage.dialler.legs
        assert len(legs) == len(wires)

    check()
