"""The TLS layer between a transport and its protocol: handshake, reading, writing (S5, S6, H9)."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet import interfaces
from zope.interface import providedBy
from zope.interface.verify import verifyObject

from smtpproxy.net.records import RecordCounter

from .fakes import Producer
from .tlslayer import Joined
from .tlspeers import a_client, server_tls
from .tlsstage import CLOSE_NOTIFY, cut_up, shake_hands

BOTH = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])
ROLES = pytest.mark.parametrize("as_client", [False, True], ids=["server", "client"])
TEXT = b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\n"
BIG = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(40_000))


@pytest.fixture
def tls(pki: Any) -> Any:
    return server_tls(pki.pair())


def only(version: int) -> SSL.Context:
    """A client that speaks one version."""
    return a_client(versions=(version, version))


def test_it_is_a_transport_and_a_protocol(tls: Any) -> None:
    layer: Any = Joined(tls).layer
    said = list(providedBy(layer))
    assert {interfaces.ITransport, interfaces.IHalfCloseableProtocol, interfaces.IConsumer} <= set(said)
    assert [each for each in said if not verifyObject(each, layer)] == []


# --- the handshake --------------------------------------------------------------------------------------------------


@BOTH
@ROLES
def test_text_both_ways(tls: Any, version: int, *, as_client: bool) -> None:
    joined = Joined(tls, None if as_client else only(version), as_client=as_client).secure()
    joined.receive(joined.peer.say(TEXT))
    assert joined.protocol.received == TEXT
    joined.layer.write(b"250 ok\r\n")
    joined.layer.writeSequence([b"250 ", b"ok\r\n"])
    assert joined.heard() == b"250 ok\r\n" * 2
    assert joined.protocol.events == []


@BOTH
def test_every_split_of_what_the_client_sends(tls: Any, version: int) -> None:
    """Its flights come in any pieces, the last with a text and the farewell in the same packet."""
    context = only(version)
    pieces = st.lists(st.integers(1, 400), max_size=8)

    @given(pieces, pieces)
    @settings(max_examples=60)
    def check(of_hello: list[int], of_rest: list[int]) -> None:
        joined = Joined(tls, context).begin()
        for piece in cut_up(joined.peer.feed(), of_hello):
            joined.receive(piece)
        last = joined.peer.feed(joined.lower.take())
        if not joined.peer.secured:  # TLS 1.2: the server's Finished has still to come
            joined.receive(last)
            last = joined.peer.feed(joined.lower.take())
        for piece in cut_up(last + joined.peer.say(TEXT) + joined.peer.bye(), of_rest):
            joined.receive(piece)
        assert joined.protocol.received == TEXT
        assert joined.protocol.events == ["read lost"]
        assert (joined.owner.secured, joined.owner.failed) == (1, [])

    check()


@BOTH
def test_one_octet_at_a_time(tls: Any, version: int) -> None:
    joined = Joined(tls, only(version)).begin()
    shake_hands(joined.lower, joined.peer, octets)
    for octet in octets(joined.peer.say(TEXT)):
        joined.receive(octet)
    assert joined.protocol.received == TEXT


def octets(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def test_what_was_read_already_begins_the_handshake(tls: Any) -> None:
    joined = Joined(tls)
    hello = joined.peer.feed()
    joined.begin(hello[:40])
    joined.receive(hello[40:])
    shake_hands(joined.lower, joined.peer)
    assert joined.owner.secured == 1


def test_s6_a_text_in_the_packet_of_the_last_handshake_message_is_read_after_the_owner_knows(tls: Any) -> None:
    joined = Joined(tls).begin()
    order: list[str] = []
    joined.owner.tls_secured = lambda _layer: order.append("secured")  # type: ignore[method-assign]  # to see the order
    joined.protocol.dataReceived = lambda data: order.append(data.decode())  # type: ignore[method-assign]  # the same
    joined.receive(joined.peer.feed())
    finished = joined.peer.feed(joined.lower.take())
    joined.receive(finished + joined.peer.say(b"EHLO x\r\n") + joined.peer.say(b"NOOP\r\n"))
    assert order == ["secured", "EHLO x\r\nNOOP\r\n"], "and in one piece"


def test_before_the_handshake_is_done_nothing_leaves_but_the_handshake(tls: Any) -> None:
    """What is written waits for it."""
    joined = Joined(tls).begin()
    assert not joined.layer.is_connected()
    joined.layer.write(b"220 early\r\n")
    assert joined.lower.take() == b""
    joined.receive(joined.peer.feed())
    joined.layer.write(b"250 too\r\n")
    flight = joined.lower.take()
    assert b"220" not in flight
    joined.receive(joined.peer.feed(flight))
    assert joined.layer.is_connected()
    assert joined.heard() == b"220 early\r\n250 too\r\n"


def test_what_the_owner_writes_first_comes_first(tls: Any) -> None:
    joined = Joined(tls).begin()
    joined.owner.tls_secured = lambda layer: layer.write(b"first\r\n")  # type: ignore[method-assign]  # the owner's turn
    joined.layer.write(b"second\r\n")
    shake_hands(joined.lower, joined.peer)
    assert joined.peer.take() == b"first\r\nsecond\r\n"


# --- records ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 400), max_size=12), st.lists(st.integers(1, 30), max_size=60), st.integers(0, 404))
def test_records_are_counted_in_any_pieces(sizes: list[int], cuts: list[int], missing: int) -> None:
    """Each in the piece that its last octet comes with."""
    records = [b"\x17\x03\x03" + size.to_bytes(2) + bytes(size) for size in sizes]
    stream = b"".join(records)
    ends = set(itertools.accumulate(map(len, records)))
    stream = stream[: max(0, len(stream) - missing)]
    counter, position = RecordCounter(), 0
    for piece in cut_up(stream, cuts):
        before, position = position, position + len(piece)
        assert counter.count(piece) == sum(before < end <= position for end in ends)


# --- writing --------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 32768, 65536, len(BIG)])
def test_a_write_of_any_size_arrives_and_is_one_write_below(tls: Any, version: int, size: int) -> None:
    joined = Joined(tls, only(version)).secure()
    joined.lower.writes = 0
    joined.layer.write(BIG[:size])
    assert joined.lower.writes == 1
    assert joined.heard() == BIG[:size]


def test_much_is_read_in_one_piece_per_packet(tls: Any) -> None:
    joined = Joined(tls).secure()
    reads: list[int] = []
    joined.protocol.dataReceived = lambda data: reads.append(len(data))  # type: ignore[method-assign]  # to count
    joined.receive(joined.peer.say(BIG))
    assert reads == [len(BIG)]


def test_nothing_is_written_for_nothing(tls: Any) -> None:
    joined = Joined(tls).secure()
    joined.lower.writes = 0
    joined.layer.write(b"")
    joined.layer.writeSequence([])
    assert joined.lower.writes == 0


# --- back-pressure --------------------------------------------------------------------------------------------------


def test_h9_who_writes_too_much_is_told_to_stop(tls: Any) -> None:
    joined = Joined(tls).secure()
    producer = Producer()
    joined.layer.registerProducer(producer, streaming=True)
    joined.lower.full = True
    joined.layer.write(BIG)
    assert producer.calls == ["pause"]
    joined.lower.drain()
    assert producer.calls == ["pause", "resume"]
    joined.layer.unregisterProducer()
    joined.lower.full = True
    joined.layer.write(BIG)
    assert producer.calls == ["pause", "resume"]


def test_h9_who_does_not_want_to_read_stops_the_transport(tls: Any) -> None:
    joined = Joined(tls).secure()
    joined.layer.pauseProducing()
    assert joined.lower.paused
    joined.layer.resumeProducing()
    assert not joined.lower.paused


# --- looking ahead --------------------------------------------------------------------------------------------------


def test_h4_one_more_look(tls: Any) -> None:
    joined = Joined(tls, lean=True).begin()
    assert joined.layer.read_now() is None
    shake_hands(joined.lower, joined.peer)
    assert joined.layer.read_now() is None
    record = joined.peer.say(b"RCPT TO:<c@example.org>\r\n")
    joined.lower.kernel.append(record[:10])
    assert joined.layer.read_now() is None, "half a record is nothing yet"
    joined.lower.kernel.append(record[10:])
    assert joined.layer.read_now() == b"RCPT TO:<c@example.org>\r\n"
    assert joined.protocol.received == b""


def test_there_is_nothing_to_look_at_without_a_transport_of_ours(tls: Any) -> None:
    joined = Joined(tls).secure()
    assert joined.layer.read_now() is None
    assert joined.layer.is_quiet()


def test_h4_a_farewell_that_was_met_by_looking_is_not_forgotten(tls: Any) -> None:
    joined = Joined(tls, lean=True).secure()
    joined.lower.kernel.append(joined.peer.say(b"QUIT\r\n") + joined.peer.bye())
    assert joined.layer.read_now() == b"QUIT\r\n"
    joined.close()
    assert joined.protocol.events == ["read lost"]


def test_late_session_tickets_are_no_noise(tls: Any) -> None:
    """A kept connection with a server that has sent nothing but those is as good as new (RFC 8446, 4.6.1)."""
    joined = Joined(tls, lean=True, as_client=True).begin()
    joined.receive(joined.peer.feed(joined.lower.take()))
    tickets = joined.peer.feed(joined.lower.take())
    assert joined.owner.secured == 1
    assert tickets, "there are some"
    joined.lower.kernel += [tickets[:50], tickets[50:]]
    assert joined.layer.is_quiet()
    assert joined.lower.kernel == []


@pytest.mark.parametrize("noise", ["text", "farewell", "end", "garbage"])
def test_s18_a_peer_that_spoke_or_left_is_not_quiet(tls: Any, noise: str) -> None:
    joined = Joined(tls, lean=True, as_client=True).secure()
    assert joined.layer.is_quiet()
    if noise == "text":
        joined.lower.kernel.append(joined.peer.say(b"421 bye\r\n"))
    elif noise == "farewell":
        joined.lower.kernel.append(joined.peer.bye())
    elif noise == "end":
        joined.lower.half_open = True
    else:
        joined.lower.kernel.append(b"421 in clear\r\n")
    assert not joined.layer.is_quiet()


@pytest.mark.parametrize(
    ("waits", "input_waits"),
    [
        ("nothing", False),
        ("farewell", False),
        ("farewell and more", False),
        ("text", True),
        ("end", True),
        ("junk", True),
    ],
)
def test_whether_something_waits_that_a_close_would_turn_into_a_reset(
    tls: Any, waits: str, *, input_waits: bool
) -> None:
    """A farewell alone is read by looking, and nothing that follows it counts."""
    joined = Joined(tls, lean=True).secure()
    if waits == "text":
        joined.lower.kernel.append(joined.peer.say(b"NOOP\r\n"))
    elif waits.startswith("farewell"):
        joined.lower.kernel.append(joined.peer.bye())
        if waits.endswith("more"):
            joined.lower.kernel.append(b"in clear\r\n")
    elif waits == "junk":
        joined.lower.kernel.append(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    elif waits == "end":
        joined.lower.half_open = True
    assert joined.layer.has_input() is input_waits
    assert not Joined(tls).secure().layer.has_input(), "where nobody can look, nothing is seen"


def test_the_last_text_and_the_farewell_are_one_write(tls: Any) -> None:
    joined = Joined(tls).secure()
    joined.lower.writes = 0
    joined.layer.write_last(b"221 bye\r\n")
    joined.layer.write(b"never\r\n")
    joined.layer.write_last(b"never\r\n")
    joined.layer.loseWriteConnection()
    assert joined.lower.writes == 1
    assert joined.heard() == b"221 bye\r\n"
    assert joined.peer.ended == CLOSE_NOTIFY


def test_the_addresses_are_those_of_the_transport(tls: Any) -> None:
    joined = Joined(tls).secure()
    assert joined.layer.getPeer() == joined.lower.getPeer()
    assert joined.layer.getHost() == joined.lower.getHost()
    joined.layer.setTcpNoDelay(True)
    assert joined.lower.no_delay
