"""How a TLS connection ends, by the peer's will or by ours, and what is left of it then (H7)."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from smtpproxy.net.linger import Linger
from smtpproxy.net.sweep import Sweep
from smtpproxy.net.tls import TlsLayer

from .tlslayer import Joined
from .tlspeers import a_client, server_tls
from .tlsstage import CLOSE_NOTIFY

BOTH = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])
LOWERS = pytest.mark.parametrize("lean", [True, False], ids=["lean", "stock"])
HTTP = b"GET / HTTP/1.1\r\nHost: mx.example.org\r\n\r\n"


@pytest.fixture
def tls(pki: Any) -> Any:
    return server_tls(pki.pair())


def only(version: int) -> SSL.Context:
    return a_client(versions=(version, version))


# --- the peer ends it -----------------------------------------------------------------------------------------------


@BOTH
def test_h7_a_farewell_ends_the_input(tls: Any, version: int) -> None:
    joined = Joined(tls, only(version)).secure()
    joined.receive(joined.peer.say(b"QUIT\r\n") + joined.peer.bye())
    assert joined.protocol.received == b"QUIT\r\n"
    assert joined.protocol.events == ["read lost"]
    assert joined.lower.ended == "", "S13: what is owed can still be said"
    joined.layer.write(b"221 bye\r\n")
    joined.layer.detach()
    assert joined.heard() == b"221 bye\r\n"
    assert joined.peer.ended == CLOSE_NOTIFY
    assert joined.lower.ended == "closed"


@BOTH
@pytest.mark.parametrize("separate", [False, True])
def test_h7_what_follows_a_farewell_is_nothing(tls: Any, version: int, *, separate: bool) -> None:
    """Neither in clear nor in records."""
    joined = Joined(tls, only(version)).secure()
    records = joined.peer.say(b"RSET\r\n")
    for what in (b"MAIL FROM:<a@b.example>\r\n", b"\r\n.\r\n", records):
        joined = Joined(tls, only(version)).secure()
        for piece in [joined.peer.bye(), what] if separate else [joined.peer.bye() + what]:
            joined.receive(piece)
        assert joined.layer.read_now() is None
        joined.close()
        assert joined.protocol.received == b""
        assert set(joined.protocol.events) == {"read lost"}


@BOTH
def test_a_close_without_a_farewell_ends_the_input_too(tls: Any, version: int) -> None:
    joined = Joined(tls, only(version)).secure()
    joined.receive(joined.peer.say(b"DATA\r\n") + joined.peer.say(b"text\r\n.\r\n")[:-1])
    joined.close()
    assert joined.protocol.received == b"DATA\r\n", "half a record is nothing"
    assert joined.protocol.events == ["read lost"]


def test_a_lost_connection_is_told_once(tls: Any) -> None:
    joined = Joined(tls).secure()
    for _ in range(2):
        joined.layer.connectionLost(Failure(ConnectionLost()))
    assert joined.protocol.events == ["lost"]
    joined.layer.dataReceived(joined.peer.say(b"QUIT\r\n"))
    assert joined.protocol.received == b""


# --- we end it ------------------------------------------------------------------------------------------------------


@LOWERS
def test_closing_says_farewell(tls: Any, *, lean: bool) -> None:
    joined = Joined(tls, lean=lean).secure()
    joined.layer.write(b"221 bye\r\n")
    joined.layer.loseConnection()
    joined.layer.write(b"never\r\n")
    assert joined.lower.ended == "closed"
    assert joined.heard() == b"221 bye\r\n"
    assert joined.peer.ended == CLOSE_NOTIFY
    joined.layer.stopProducing()
    assert joined.lower.take() == b""


def test_closing_one_half_says_farewell_and_reads_on(tls: Any) -> None:
    joined = Joined(tls).secure()
    joined.layer.loseWriteConnection()
    assert joined.lower.half_closed
    joined.receive(joined.peer.say(b"more\r\n"))
    assert joined.protocol.received == b"more\r\n"
    assert joined.heard() == b""
    assert joined.peer.ended == CLOSE_NOTIFY


def test_a_reset_says_nothing(tls: Any) -> None:
    joined = Joined(tls).secure()
    joined.layer.abortConnection()
    assert joined.lower.ended == "reset"
    joined.layer.loseConnection()
    assert joined.lower.take() == b""


@LOWERS
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("stage", ["before", "after"])
def test_who_detaches_hears_nothing_more(tls: Any, stage: str, *, lean: bool, reset: bool) -> None:
    joined = Joined(tls, lean=lean)
    if stage == "after":
        joined.secure()
        late = joined.peer.say(b"text\r\n")
    else:
        joined.begin()
        late = joined.peer.feed()
    joined.layer.detach(reset=reset)
    assert joined.lower.ended == ("reset" if reset else "closed")
    said = joined.lower.take()
    assert bool(said) == (stage == "after" and not reset)
    joined.layer.dataReceived(late)
    joined.layer.readConnectionLost()
    joined.layer.connectionLost(Failure(ConnectionLost()))
    assert joined.protocol.events == []
    assert joined.protocol.received == b""
    assert joined.owner.failed == []


def lingering(joined: Joined) -> Sweep:
    """Let the layer's protocol be replaced by one that waits for the peer to close."""
    sweep = Sweep(joined.reactor, 8.0)
    linger = Linger(sweep, 1, 5.0)
    joined.layer.protocol = linger
    linger.makeConnection(joined.layer)
    return sweep


@LOWERS
def test_a_linger_says_farewell_reads_on_and_closes_when_the_peer_does(tls: Any, *, lean: bool) -> None:
    joined = Joined(tls, lean=lean).secure()
    joined.layer.write(b"421 going down\r\n")
    sweep = lingering(joined)
    assert joined.heard() == b"421 going down\r\n"
    assert joined.peer.ended == CLOSE_NOTIFY
    joined.receive(joined.peer.say(b"NOOP\r\n"))
    assert (joined.lower.half_closed, joined.lower.ended) == (True, "")
    joined.receive(joined.peer.bye())
    assert joined.lower.ended == "closed"
    assert list(sweep) == []
    assert joined.protocol.received == b""


@pytest.mark.parametrize("moment", ["before the hello", "behind the hello", "after a failure"])
def test_a_linger_in_the_handshake_closes_when_the_peer_does(tls: Any, moment: str) -> None:
    joined = Joined(tls).begin()
    if moment == "behind the hello":
        joined.receive(joined.peer.feed())
    elif moment == "after a failure":
        joined.receive(HTTP)
    sweep = lingering(joined)
    joined.close()
    assert joined.lower.ended == "closed"
    assert list(sweep) == []


# --- memory ---------------------------------------------------------------------------------------------------------


def after_a_reset(joined: Joined) -> None:
    joined.layer.connectionLost(Failure(ConnectionLost()))


def after_a_detach(joined: Joined) -> None:
    joined.layer.detach()


def after_broken_records(joined: Joined) -> None:
    joined.receive(b"\x17\x03\x03\x00\x20" + b"x" * 32)


def after_a_linger(joined: Joined) -> None:
    lingering(joined)
    joined.close()


def after_a_linger_and_a_reset(joined: Joined) -> None:
    lingering(joined)
    joined.layer.connectionLost(Failure(ConnectionLost()))


@pytest.mark.parametrize(
    "end", [after_a_reset, after_a_detach, after_broken_records, after_a_linger, after_a_linger_and_a_reset]
)
@LOWERS
def test_no_cycle_keeps_an_ended_connection_alive(tls: Any, end: Callable[[Joined], None], *, lean: bool) -> None:
    """OpenSSL's memory is freed when the last reference goes, not when the collector next comes by."""

    class Owner:
        """Holds what it owns, as a session does."""

        layer: TlsLayer

        def tls_secured(self, _layer: TlsLayer) -> None:
            pass

        def tls_failed(self, _layer: TlsLayer, _why: str) -> None:
            pass

    gc.collect()
    gc.disable()
    try:
        joined = Joined(tls, lean=lean).secure()
        owner = Owner()
        owner.layer = joined.layer
        joined.layer._owner = owner
        connection = weakref.ref(joined.layer.connection)
        end(joined)
        joined.lower.protocol = None
        del joined, owner
        assert connection() is None
    finally:
        gc.enable()
