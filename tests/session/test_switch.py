"""Octets round the switch from clear text to TLS, on both sides, in packets of any size (rules S5, S6, C11).

What stands behind STARTTLS, or behind the server's reply to ours, is never a command and never a reply.  Where it is
seen depends on the packets: here while the 220 has not left (554, the next server), or in the handshake, which fails.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpproxy.session.policy import BackendTls

from .listener import Setup
from .owner import Owner

EHLO = b"EHLO client.example\r\n"
STARTTLS = b"STARTTLS\r\n"
INJECTED = b"MAIL FROM:<evil@client.example>\r\nRCPT TO:<b@example.org>\r\nEHLO evil.example\r\n"
REFUSAL = b"554 5.5.0 Input behind a command that must end a group\r\n"
GO_AHEAD = b"220 2.0.0 Ready to start TLS\r\n"
GREETING = b"220 mail.example ESMTP\r\n"
READY = b"220 2.0.0 Ready\r\n"
FORGED = b"250-evil.example\r\n250 AUTH PLAIN\r\n"


def cuts(octets: bytes, *, most: int = 3) -> Iterator[list[bytes]]:
    """Cut octets in every way into two, and into single ones; and into three at the places that matter."""
    yield [octets]
    yield [octets[index : index + 1] for index in range(len(octets))]
    for place in range(1, len(octets)):
        yield [octets[:place], octets[place:]]
    if most > 2:
        edge = octets.index(b"\r\n") + 2
        for first, second in itertools.combinations(range(edge - 3, edge + 3), 2):
            yield [octets[:first], octets[first:second], octets[second:]]


def feed(owner: Owner, pieces: list[bytes], *, server: bool = False) -> tuple[bytes, bytes]:
    """Let packets arrive until the one who sent them is gone; give what came of it for the client and for servers."""
    client = said = b""
    servers = owner.servers
    for piece in pieces:
        if owner.closed or owner.servers != servers:
            break
        output = (owner.server_sends if server else owner.client_sends)(piece)
        client += output.client
        said += output.server
    return client, said


# --- the client's STARTTLS -------------------------------------------------------------------------------------------


def client_of_a_quick_server() -> Owner:
    """A client at rest: its 220 leaves at once."""
    owner = Owner(Setup(tls="starttls"))
    owner.start()
    owner.client_sends(EHLO)
    owner.server_sends(GREETING)
    owner.server_sends(b"250 mail.example\r\n")
    return owner


@pytest.mark.parametrize("pieces", list(cuts(STARTTLS + INJECTED)))
def test_s05_behind_starttls_the_handshake_or_554(pieces: list[bytes]) -> None:
    """The packet with the end of STARTTLS decides: with more in it 554, else what follows is a bad handshake."""
    owner = client_of_a_quick_server()
    client, said = feed(owner, pieces)
    before = len(STARTTLS)
    ends_there = any(len(b"".join(pieces[:count])) == before for count in range(1, len(pieces)))
    assert client == (GO_AHEAD if ends_there else REFUSAL)
    assert said == b""
    assert owner.closed
    assert owner.relay.reason == ("TLS handshake failed: garbage" if ends_there else "synchronisation violated")
    assert owner.relays == 1
    assert owner.relay.violations == (not ends_there)


@pytest.mark.parametrize("pieces", list(cuts(EHLO + STARTTLS + INJECTED, most=2)))
def test_s05_behind_starttls_while_the_220_waits(pieces: list[bytes]) -> None:
    """The server is slow: everything is here before the 220 could leave, and every split gives the same."""
    owner = Owner(Setup(tls="starttls"))
    owner.start()
    assert feed(owner, pieces) == (b"", b"")
    assert owner.server_sends(GREETING).server == EHLO
    output = owner.server_sends(b"250 mail.example\r\n")
    assert output.client.endswith(b"250 PIPE_CONNECT\r\n" + REFUSAL)
    assert GO_AHEAD not in output.client
    assert output.server == b""
    assert output.actions == ["QUIT_BACKEND", "CLOSE_CLIENT"]


@pytest.mark.parametrize("pieces", list(cuts(EHLO + STARTTLS, most=2)))
def test_s05_a_whole_burst_inside_tls_after_any_split(pieces: list[bytes]) -> None:
    """Nothing behind STARTTLS: inside TLS the session begins anew, and a burst is answered in one write."""
    owner = Owner(Setup(tls="starttls"))
    owner.start()
    feed(owner, pieces)
    owner.server_sends(GREETING)
    assert owner.server_sends(b"250 mail.example\r\n").actions == ["START_TLS"]
    owner.handshake_done()
    inside = b"EHLO inside.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\n"
    assert feed(owner, [bytes([octet]) for octet in inside]) == (b"", b"EHLO inside.example\r\n")
    assert owner.server_sends(b"250 mail.example\r\n").server == b"MAIL FROM:<a@client.example>\r\n"
    assert owner.server_sends(b"250 2.1.0 Sender ok\r\n").server == b"RCPT TO:<b@example.org>\r\n"
    assert owner.server_sends(b"250 2.1.5 Recipient ok\r\n").client.count(b"\r\n") == 7


@given(st.binary(min_size=1, max_size=60), st.data())
@settings(derandomize=True, max_examples=200)
def test_s05_whatever_stands_behind_starttls(behind: bytes, data: st.DataObject) -> None:
    owner = client_of_a_quick_server()
    burst = STARTTLS + behind
    places = sorted(data.draw(st.sets(st.integers(1, len(burst) - 1), max_size=5)))
    client, said = feed(owner, [burst[a:b] for a, b in itertools.pairwise([0, *places, len(burst)])])
    assert client in (GO_AHEAD, REFUSAL)
    assert said == b""
    assert owner.closed
    assert owner.relays == 1


# --- our STARTTLS ----------------------------------------------------------------------------------------------------


def server_that_was_sent_starttls() -> Owner:
    owner = Owner(Setup(backend_tls=BackendTls.IF_OFFERED))
    owner.start()
    owner.client_sends(EHLO)
    owner.server_sends(GREETING)
    assert owner.server_sends(b"250-mail.example\r\n250 STARTTLS\r\n").server == STARTTLS
    return owner


@pytest.mark.parametrize("behind", [FORGED, b"2", b"250 half", b"what?\r\n", b"\r\n", b"\x16\x03\x01"], ids=repr)
def test_c11_behind_the_servers_220(behind: bytes) -> None:
    """However it is cut, the server is left, and its forged lines never reach the client."""
    for pieces in cuts(READY + behind):
        owner = server_that_was_sent_starttls()
        assert feed(owner, pieces, server=True) == (b"", b"")
        assert owner.servers == 2, pieces
        assert not owner.server_handshaking
        why = owner.relay.backend_fault
        assert why.startswith("backend sent ") or why == "TLS handshake failed: garbage", pieces
        owner.server_sends(GREETING)
        answer = owner.server_sends(b"250 mail.example\r\n").client
        assert answer.startswith(GREETING + b"250-mail.example\r\n")
        assert b"AUTH" not in answer


@pytest.mark.parametrize("place", range(1, len(READY)))
def test_c11_the_servers_220_in_pieces(place: int) -> None:
    """A 220 that comes in pieces is one; the EHLO inside TLS is answered by what comes inside TLS."""
    owner = server_that_was_sent_starttls()
    assert owner.server_sends(READY[:place]).actions == []
    assert owner.server_sends(READY[place:]).actions == ["START_BACKEND_TLS"]
    assert owner.server_handshake_done().server == EHLO
    assert owner.server_sends(b"250 inside.example\r\n").client.startswith(GREETING + b"250-inside.example\r\n")
