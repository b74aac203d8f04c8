"""Clients, servers and clocks that do anything at any time: nobody is left behind, nothing of ours fails (H8, H10)."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from smtpproxy.net.leg import BackendLeg

from .stage import Client, Stage, backend, listener

SAID_BY_CLIENTS = (
    b"EHLO client.example\r\n", b"HELO x\r\n", b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@example.org>\r\n",
    b"RCPT TO:<c@else.example>\r\n", b"DATA\r\n", b"text\r\n", b".\r\n", b"BDAT 6\r\ntext\r\n", b"BDAT 6 LAST\r\nte",
    b"xt\r\n",
    b"BDAT 0 LAST\r\n", b"RSET\r\n", b"NOOP\r\n", b"QUIT\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"AUTH LOGIN\r\n",
    b"HELP\r\n", b"XYZ\r\n",
    b"\r", b"\n", b"\0\r\n", b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\nDATA\r\n",
)  # fmt: skip
SAID_BY_SERVERS = (
    b"220 mx\r\n", b"250-mx\r\n250 PIPELINING\r\n", b"250-mx\r\n250 CHUNKING\r\n", b"250 ok\r\n",
    b"250 ok\r\n250 ok\r\n", b"354 go\r\n",
    b"334 \r\n", b"235 in\r\n", b"221 bye\r\n", b"421 out\r\n", b"450 later\r\n", b"500 what\r\n", b"503 no\r\n",
    b"554 no\r\n", b"25", b"garbage\r\n",
)  # fmt: skip
WHAT_ELSE = (
    "half-close",
    "vanish",
    "fill",
    "drain",
    "server closes",
    "server is lost",
    "fill server",
    "drain server",
    "connect",
)
TIMES = (0.5, 5.0, 20.0)
CLIENT_WAITS = dict.fromkeys(("command", "data_block", "minimum_progress", "write"), 15.0)
BACKEND_KINDS = ("connect", "greeting", "ehlo", "mail", "rcpt", "data", "data_block", "end_of_data", "other")

ACTIONS = st.one_of(
    st.tuples(st.just("client"), st.sampled_from(SAID_BY_CLIENTS)),
    st.tuples(st.just("server"), st.sampled_from(SAID_BY_SERVERS)),
    st.tuples(st.just("server obeys"), st.booleans()),
    st.tuples(st.sampled_from(WHAT_ELSE), st.just(b"")),
    st.tuples(st.just("time"), st.sampled_from(TIMES)),
    st.tuples(st.just("go down"), st.just(b"")),
)


def obedient(leg: BackendLeg, *, chunking: bool) -> bytes:
    """What a good server says to everything that it was sent since the last time."""
    said = b""
    sent = leg.transport.take()
    while sent:
        line, _, sent = sent.partition(b"\r\n")
        verb, _, argument = line.partition(b" ")
        if verb == b"EHLO":
            said += b"250-mx\r\n250-PIPELINING\r\n250 %s\r\n" % (b"CHUNKING" if chunking else b"DSN")
        elif verb == b"BDAT":
            sent = sent[int(argument.split()[0]) :]
            said += b"250 chunk\r\n"
        elif verb == b"DATA":
            said += b"354 go\r\n"
        elif verb in (b"HELO", b"MAIL", b"RCPT", b"RSET", b"NOOP", b".", b"HELP", b"QUIT"):
            said += b"250 ok\r\n"
    return said or b"220 mx\r\n"


class Chaos:
    """A stage with two clients, to whom things happen."""

    def __init__(self, connect: str, *, reuse: bool, slow: bool) -> None:
        self.stage = Stage(
            listener_settings=listener(limits={"errors": 5}, timeouts=CLIENT_WAITS),
            backend_settings=backend(
                connect=connect,
                reuse=reuse,
                servers=["192.0.2.1:25", "192.0.2.2:25"],
                rest=0.0,
                timeouts=dict.fromkeys(BACKEND_KINDS, 15.0),
            ),
        )
        self.stage.dialler.slow = slow
        self.clients = [self.stage.client("192.0.2.1"), self.stage.client("192.0.2.2")]

    def act(self, who: int, action: str, argument: Any) -> None:
        client = self.clients[who]
        leg = self._leg(who)
        if action == "time":
            self.stage.pass_time(argument)
        elif action == "go down":
            if client.session.relay.over is False:
                client.session.shut_down()
        elif action in ("client", "half-close", "vanish", "fill", "drain"):
            self._client_does(client, action, argument)
        elif leg is not None:
            self._server_does(leg, action, argument)
        self._tell_of_ends()

    def _leg(self, who: int) -> BackendLeg | None:
        """A connection with a server on which something can happen yet."""
        legs = [leg for leg in self.stage.dialler.legs if leg.transport is None or not leg.transport.ended]
        return legs[who % len(legs)] if legs else None

    def _client_does(self, client: Client, action: str, argument: Any) -> None:
        transport = client.transport
        if transport.ended:
            return
        if action == "client" and not transport.paused:
            transport.protocol.dataReceived(argument)
        elif action == "half-close" and not transport.paused:
            transport.protocol.readConnectionLost()
        elif action == "vanish":
            transport.ended = "reset"
            transport.protocol.connectionLost(Failure(ConnectionLost()))
        elif action == "fill":
            transport.full = True
        elif action == "drain":
            transport.drain()

    def _server_does(self, leg: BackendLeg, action: str, argument: Any) -> None:
        if leg.transport is None:
            if action == "connect":
                self.stage.dialler.connect(leg)
            elif action == "server is lost":
                leg.connectionLost(Failure(ConnectionLost()))
        elif action == "server" and not leg.transport.paused:
            leg.dataReceived(argument)
        elif action == "server obeys" and not leg.transport.paused:
            leg.dataReceived(obedient(leg, chunking=argument))
        elif action == "server closes" and not leg.transport.paused:
            leg.readConnectionLost()
        elif action == "server is lost":
            leg.transport.ended = "reset"
            leg.connectionLost(Failure(ConnectionLost()))
        elif action == "fill server":
            leg.transport.full = True
        elif action == "drain server":
            leg.transport.drain()

    def _tell_of_ends(self) -> None:
        """A stock transport tells its protocol in the end."""
        for client in self.clients:
            if client.transport.ended == "closed":
                client.transport.ended = "told"
                client.transport.protocol.connectionLost(Failure(ConnectionDone()))

    def end(self) -> None:
        """Everybody leaves; whatever was left to wait for has its time."""
        for client in self.clients:
            self._client_does(client, "vanish", None)
        self.stage.pool.close()
        self.stage.pass_time(60.0)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 1), ACTIONS), max_size=40),
    st.sampled_from(["eager", "lazy"]),
    st.booleans(),
    st.booleans(),
)
def test_h10_whatever_happens(
    happenings: list[tuple[int, tuple[str, Any]]],
    connect: str,
    reuse: bool,  # noqa: FBT001  # hypothesis passes them by name
    slow: bool,  # noqa: FBT001  # the same
) -> None:
    chaos = Chaos(connect, reuse=reuse, slow=slow)
    for who, (action, argument) in happenings:
        chaos.act(who, action, argument)
    chaos.end()
    stage = chaos.stage
    assert stage.journal.internal == []
    assert stage.context.sessions == 0
    assert len(stage.journal.sessions) == len(chaos.clients)
    assert [swept for swept in stage.sweep if swept is not stage.pool] == []
    assert not stage.pool.busy
    assert [leg for leg in stage.dialler.legs if leg.transport is not None and not leg.transport.ended] == []
