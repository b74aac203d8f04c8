"""Whatever the server has to be prepared with, the client is served the same (rules S3, S5, S8, S9, S18, H6).

The long conversation of test_paces.py, behind TLS with the server, XCLIENT, XFORWARD, and all of them; inside TLS with
the client; for a client that XCLIENT names: at once, step by step, octet by octet, in packets of any size.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpproxy.session.policy import BackendTls

from .listener import Setup
from .server import Message, by_content
from .test_paces import CONVERSATION, SERVERS, gist, hold, replies_of
from .world import World

EHLO = b"EHLO client.example\r\n"
XCLIENT = b"XCLIENT ADDR=198.51.100.9\r\n"
LADDERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "tls": ({"backend_tls": BackendTls.REQUIRED}, ("STARTTLS",)),
    "tls not offered": ({"backend_tls": BackendTls.IF_OFFERED}, ()),
    "xclient": ({"identity": "xclient"}, ("XCLIENT ADDR HELO",)),
    "xclient and a look-up": ({"identity": "auto", "lookup": "later"}, ("XCLIENT NAME ADDR",)),
    "xforward": ({"identity": "xforward"}, ("XFORWARD ADDR",)),
    "tls and xclient": ({"backend_tls": BackendTls.IF_OFFERED, "identity": "auto"}, ("STARTTLS", "XCLIENT ADDR")),
    "xclient without tls": ({"backend_tls": BackendTls.IF_OFFERED, "identity": "xclient"}, ("XCLIENT ADDR",)),
    "tls and xforward": ({"backend_tls": BackendTls.REQUIRED, "identity": "xforward"}, ("STARTTLS", "XFORWARD ADDR")),
}
each_ladder = pytest.mark.parametrize("ladder", LADDERS.values(), ids=LADDERS)
each_server = pytest.mark.parametrize("keywords", SERVERS.values(), ids=SERVERS)
each_begin = pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])


def world(keywords: tuple[str, ...], *, lazy: bool = False, offers: tuple[str, ...] = (), **changes: Any) -> World:
    """Make a listener for any recipient, with a client that has just come."""
    setup = Setup(eager=not lazy, learned=keywords if lazy else None, learned_tls=keywords, errors=1000, **changes)
    made = World(setup, (*keywords, *offers), plan=by_content)
    made.connect()
    return made


def plainly(keywords: tuple[str, ...]) -> tuple[list[bytes], list[Any]]:
    """Hold the conversation with a server that needs no preparation; give the codes, and what arrived."""
    replies, messages = hold(world(keywords), [b"".join(CONVERSATION)], wait=False)
    return replies, gist(messages)


def outcome(made: World) -> tuple[list[bytes], list[Any]]:
    assert made.closed
    return replies_of(made), gist(made.messages)


def octet_by_octet(made: World, octets: bytes) -> None:
    """Let everything arrive in packets of one octet, on both sides."""
    for octet in octets:
        made.send(bytes([octet]))
    while made.waiting:
        made.deliver_octet()


def any_packets(made: World, octets: bytes, data: st.DataObject) -> None:
    """Let the client's packets and the servers' come as they like."""
    left = octets
    while left or made.waiting:
        if left and (not made.waiting or data.draw(st.booleans())):
            size = data.draw(st.integers(1, len(left)))
            made.send(left[:size])
            left = left[size:]
        else:
            made.deliver(data.draw(st.integers(1, 5)), cut=data.draw(st.integers(0, 12)))


# --- towards the server ----------------------------------------------------------------------------------------------


@each_begin
@each_server
@each_ladder
def test_the_client_notices_nothing(
    ladder: tuple[dict[str, Any], tuple[str, ...]], keywords: tuple[str, ...], *, lazy: bool
) -> None:
    """At once, and step by step; and only what is needed was said to the server."""
    changes, offers = ladder
    for packets, wait in (([b"".join(CONVERSATION)], False), (CONVERSATION, True)):
        made = world(keywords, lazy=lazy, offers=offers, **changes)
        hold(made, packets, wait=wait)
        assert outcome(made) == plainly(keywords)
        said = b" ".join(command.split(b" ")[0] for server in made.servers for command in server.commands)
        assert (b"STARTTLS" in said) == ("STARTTLS" in offers)
        assert (b"XCLIENT" in said) == any(offer.startswith("XCLIENT") for offer in offers)
        assert (b"XFORWARD" in said) == any(offer.startswith("XFORWARD") for offer in offers)


@each_server
@each_ladder
def test_octet_by_octet(ladder: tuple[dict[str, Any], tuple[str, ...]], keywords: tuple[str, ...]) -> None:
    changes, offers = ladder
    made = world(keywords, offers=offers, **changes)
    octet_by_octet(made, b"".join(CONVERSATION))
    assert outcome(made) == plainly(keywords)


@each_ladder
@given(data=st.data())
@settings(derandomize=True, max_examples=25)
def test_any_packets(ladder: tuple[dict[str, Any], tuple[str, ...]], data: st.DataObject) -> None:
    changes, offers = ladder
    keywords = data.draw(st.sampled_from(sorted(SERVERS.values())))
    made = world(keywords, offers=offers, **changes)
    any_packets(made, b"".join(CONVERSATION), data)
    assert outcome(made) == plainly(keywords)


# --- towards the client ----------------------------------------------------------------------------------------------


@each_begin
@each_server
def test_inside_tls_in_any_packets(keywords: tuple[str, ...], *, lazy: bool) -> None:
    """EHLO and STARTTLS in clear, then the whole conversation, as one burst or octet by octet."""
    replies, messages = plainly(keywords)
    # The greeting, EHLO and STARTTLS have their replies in clear.
    expected = ([b"220", b"250", b"220", *replies[1:]], messages)
    begin, burst = EHLO + b"STARTTLS\r\n", b"".join(CONVERSATION)
    for single in (False, True):
        made = world(keywords, lazy=lazy, tls="starttls")
        for octets in (begin, burst):
            if single:
                octet_by_octet(made, octets)
            else:
                made.send(octets)
                made.run()
            if octets is begin:
                made.handshake()
        assert outcome(made) == expected


@each_server
def test_implicit_tls_in_any_packets(keywords: tuple[str, ...]) -> None:
    for single in (False, True):
        made = world(keywords, tls="implicit")
        made.handshake()
        if single:
            octet_by_octet(made, b"".join(CONVERSATION))
        else:
            hold(made, [b"".join(CONVERSATION)], wait=False)
        assert outcome(made) == plainly(keywords)


IN_FRONT: dict[str, tuple[list[bytes], list[bytes]]] = {
    "xclient": ([XCLIENT], [b"220"]),
    "ehlo, xclient": ([EHLO, XCLIENT], [b"220", b"250"]),
    "twice": ([EHLO, XCLIENT, EHLO, b"RSET\r\n", XCLIENT], [b"220", b"250", b"220", b"250", b"250"]),
}


@each_begin
@each_server
@pytest.mark.parametrize("front", IN_FRONT.values(), ids=IN_FRONT)
@pytest.mark.parametrize("identity", ["none", "xclient", "bound"])
def test_a_client_that_is_named_in_any_packets(
    identity: str, front: tuple[list[bytes], list[bytes]], keywords: tuple[str, ...], *, lazy: bool
) -> None:
    """A trusted proxy sends XCLIENT and the whole conversation of its client in one burst, octet by octet, or waits."""
    packets, before = front
    replies, messages = plainly(keywords)
    offers = ("XCLIENT ADDR",) if identity == "xclient" else ()
    for way in ("burst", "octets", "steps"):
        made = world(keywords, lazy=lazy, offers=offers, identity=identity, trusted=True)
        everything = [*packets, *CONVERSATION]
        if way == "octets":
            octet_by_octet(made, b"".join(everything))
        else:
            hold(made, everything if way == "steps" else [b"".join(everything)], wait=way == "steps")
        assert outcome(made) == ([*before, *replies], messages)
        assert {_knows(made, message) for message in made.messages} == {identity == "xclient"}


def _knows(made: World, message: Message) -> bool:
    (server,) = [server for server in made.servers if message in server.messages]
    return server.known == "198.51.100.9"


@given(data=st.data())
@settings(derandomize=True, max_examples=60)
def test_a_client_that_is_named_in_packets_of_any_size(data: st.DataObject) -> None:
    packets, before = data.draw(st.sampled_from(list(IN_FRONT.values())))
    keywords = data.draw(st.sampled_from(sorted(SERVERS.values())))
    replies, messages = plainly(keywords)
    made = world(
        keywords, offers=("STARTTLS", "XCLIENT ADDR"), identity="auto", backend_tls=BackendTls.IF_OFFERED, trusted=True
    )
    any_packets(made, b"".join([*packets, *CONVERSATION]), data)
    assert outcome(made) == ([*before, *replies], messages)
