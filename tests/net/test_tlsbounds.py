"""How much a peer may send inside TLS beside text: key updates, tickets, empty records (H9)."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any

import pytest

from smtpproxy.net.tls import _MOST_BESIDE as MOST

from .test_tlsfaults import HANDSHAKE, KEY_UPDATE, NOT_REQUESTED, REQUESTED, TEXT, Direction, by_hand, by_hand_as_client
from .tlsstage import cut_up

if TYPE_CHECKING:
    from collections.abc import Callable

LINE = b"250 ok\r\n"


def new_keys(peer: Direction, wanted: bytes = REQUESTED) -> bytes:
    """A record that says that the peer's next one has other keys, and whether it wants the same of us."""
    record = peer.seal(HANDSHAKE, KEY_UPDATE + wanted)
    peer.update()
    return record


def a_line(peer: Direction) -> bytes:
    """A record with text."""
    return peer.seal(TEXT, LINE)


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "stock"])
@pytest.mark.parametrize("together", [1, 7, MOST])
def test_h9_who_asks_for_new_keys_without_end_is_left(pki: Any, together: int, *, lean: bool) -> None:
    """It may read none of our answers, which wait for it then."""
    joined, _, server = by_hand_as_client(pki, lean=lean)
    for _ in range(0, MOST, together):
        joined.receive(b"".join(new_keys(server) for _ in range(together)))
    assert joined.lower.ended == "closed"
    assert joined.protocol.events == ["lost"]
    assert 0 < len(joined.lower.take()) <= 32 * MOST


@pytest.mark.parametrize("order", [(new_keys, a_line), (a_line, new_keys)])
def test_h9_nor_may_there_be_a_text_with_each(pki: Any, order: tuple[Callable[[Direction], bytes], ...]) -> None:
    """A reply in many pieces is nothing that we answer either."""
    joined, _, server = by_hand_as_client(pki)
    sent = 0
    while not joined.lower.ended and sent < 2 * MOST:
        sent += 1
        joined.receive(b"".join(seal(server) for seal in order))
    assert joined.lower.ended == "closed"
    assert joined.protocol.received == LINE * sent, "the last one counts as well"
    assert 0 < len(joined.lower.take()) <= 32 * MOST


def test_h9_records_that_want_no_answer_have_their_bounds_too(pki: Any) -> None:
    """They cost time."""
    joined, client, _ = by_hand(pki)
    for _ in range(MOST):
        joined.receive(new_keys(client, NOT_REQUESTED))
    joined.receive(a_line(client))
    assert (joined.lower.ended, joined.protocol.received) == ("", LINE)
    joined.receive(new_keys(client, NOT_REQUESTED))
    assert (joined.lower.ended, joined.protocol.events) == ("closed", ["lost"])
    assert joined.lower.take() == b""


def test_new_keys_now_and_then_are_taken_and_answered(pki: Any) -> None:
    joined, client, server = by_hand_as_client(pki)
    times = MOST // 3
    for _ in range(times):
        joined.receive(new_keys(server))
    joined.receive(a_line(server))
    assert joined.protocol.received == LINE
    joined.layer.write(LINE)
    said, size = joined.lower.take(), len(new_keys(server))
    for at in range(0, times * size, size):
        assert client.unseal(said[at : at + size]) == [(HANDSHAKE, KEY_UPDATE + NOT_REQUESTED)]
        client.update()
    assert client.unseal(said[times * size :]) == [(TEXT, LINE)]


def test_an_empty_record_before_each_text_is_what_old_clients_send(pki: Any) -> None:
    """Against a weakness of TLS 1.0 (CBC), however long the message is and wherever it is cut."""
    joined, client, _ = by_hand(pki)
    text = b"x" * 1000
    stream = b"".join(client.seal(TEXT, b"") + client.seal(TEXT, text) for _ in range(4 * MOST))
    for piece in cut_up(stream, repeat(4099, len(stream) // 4099)):
        joined.receive(piece)
    assert joined.protocol.received == text * 4 * MOST
    assert joined.protocol.events == []


# --- looking ahead --------------------------------------------------------------------------------------------------


def test_h9_one_more_look_counts_what_it_finds(pki: Any) -> None:
    """The end comes later: who looks is in the middle of something."""
    joined, client, _ = by_hand(pki, lean=True)
    for _ in range(MOST):
        joined.lower.kernel.append(new_keys(client, NOT_REQUESTED))
        assert joined.layer.read_now() is None
    joined.reactor.advance(0)
    assert joined.lower.ended == ""
    joined.lower.kernel.append(new_keys(client, NOT_REQUESTED))
    assert joined.layer.read_now() is None
    assert joined.lower.ended == ""
    joined.reactor.advance(0)
    assert (joined.lower.ended, joined.protocol.events) == ("closed", ["lost"])


@pytest.mark.parametrize("glances", [2, 100])
def test_h9_a_look_does_not_last_as_long_as_something_comes(pki: Any, glances: int) -> None:
    joined, client, _ = by_hand(pki, lean=True)
    joined.lower.kernel += [new_keys(client) for _ in range(glances)]
    assert joined.layer.is_quiet() is (glances == 2)
    assert bool(joined.lower.kernel) is (glances == 100)
