"""Chunks of BDAT that become one DATA (S9, S11, H2)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpproxy.smtp.chunks import ChunkStuffer
from smtpproxy.smtp.lineendings import BarePolicy, DataFault

from .pieces import every_cut, every_partition, pieces_of, streams_of, words_over
from .test_maildata import FRAGMENTS, VECTORS, has_bare_model, lax_ends, normalized, strict_ends


def model(message: bytes, policy: BarePolicy) -> bytes:
    """The mail data of a DATA command for a message, end of data included."""
    text = normalized(message) if policy is BarePolicy.NORMALIZE else message
    if text and not text.endswith(b"\r\n"):
        text += b"\r\n"
    lines = text.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines) + b".\r\n"


def stuff(pieces: list[bytes], policy: BarePolicy, *, pass_nul: bool = False) -> tuple[bytes, ChunkStuffer]:
    stuffer = ChunkStuffer(policy, pass_nul=pass_nul)
    out = b"".join([stuffer.receive(piece) for piece in pieces])
    return out + stuffer.finish(), stuffer


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"", b".\r\n"),
        (b"\r\n", b"\r\n.\r\n"),
        (b"text", b"text\r\n.\r\n"),
        (b"text\r\n", b"text\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a\r\n.\r\nb", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"..\r\n", b"...\r\n.\r\n"),
        (b"a.b\r\n", b"a.b\r\n.\r\n"),
        (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\rb", b"a b\r\n.\r\n"),
        (b"a\r", b"a \r\n.\r\n"),
        (b"a\n", b"a\r\n.\r\n"),
        (b"a\n\r", b"a\r\n \r\n.\r\n"),
        (b"a\r\n\r", b"a\r\n \r\n.\r\n"),
        (b"\r", b" \r\n.\r\n"),
        (b"\n", b"\r\n.\r\n"),
        (b"\n\r\n", b"\r\n\r\n.\r\n"),
    ],
)
def test_s9_by_example(message: bytes, expected: bytes) -> None:
    assert model(message, BarePolicy.NORMALIZE) == expected, "the model itself"
    for pieces in every_partition(message) if message else [[], [b""]]:
        out, stuffer = stuff(pieces, BarePolicy.NORMALIZE)
        assert out == expected
        assert stuffer.fault is None
        assert stuffer.bare_seen == has_bare_model(message)


def check_against_the_model(pieces: list[bytes]) -> None:
    message = b"".join(pieces)
    out, stuffer = stuff(pieces, BarePolicy.NORMALIZE)
    assert out == model(message, BarePolicy.NORMALIZE)
    assert strict_ends(out) == lax_ends(out) == [len(out)]
    assert stuffer.bare_seen == has_bare_model(message)
    assert stuffer.fault is None


def test_s9_s11_every_short_message_in_two_pieces() -> None:
    for message in words_over((b"\r", b"\n", b".", b"a"), 6):
        for pieces in every_cut(message):
            check_against_the_model(pieces)


def test_s9_s11_every_short_message_in_every_partition() -> None:
    for message in words_over((b"\r", b"\n", b"."), 6):
        for pieces in every_partition(message):
            check_against_the_model(pieces)


@given(pieces_of(streams_of(FRAGMENTS)))
@example([b"a\n\r"])
@example([b"x\r\n.\r\r\n", b"more"])
def test_s9_s11_random_messages(pieces: list[bytes]) -> None:
    check_against_the_model(pieces)


@given(pieces_of(st.binary(max_size=300)))
def test_s9_any_octets_at_all(pieces: list[bytes]) -> None:
    out, _ = stuff(pieces, BarePolicy.NORMALIZE, pass_nul=True)
    assert out == model(b"".join(pieces), BarePolicy.NORMALIZE)


@pytest.mark.parametrize("vector", VECTORS, ids=repr)
def test_s11_no_smuggling_vector_survives(vector: bytes) -> None:
    for pieces in every_cut(b"first" + vector + b"MAIL FROM:<a@b.example>"):
        out, _ = stuff(pieces, BarePolicy.NORMALIZE)
        assert strict_ends(out) == lax_ends(out) == [len(out)]


@given(pieces_of(streams_of(FRAGMENTS)))
def test_s9_what_has_gone_on_before_the_end_never_holds_one(pieces: list[bytes]) -> None:
    """S15: a message that will not be finished is aborted, so none of its pieces may finish it."""
    stuffer = ChunkStuffer(BarePolicy.NORMALIZE, pass_nul=False)
    out = b"".join([stuffer.receive(piece) for piece in pieces])
    assert lax_ends(out) == []
    assert not out.endswith(b"\r")


def test_s11_pass_stuffs_by_cr_lf_alone() -> None:
    for message in words_over((b"\r", b"\n", b".", b"a"), 5):
        expected = model(message, BarePolicy.PASS)
        for pieces in every_cut(message):
            out, stuffer = stuff(pieces, BarePolicy.PASS)
            assert out == expected
            assert strict_ends(out) == [len(out)]
            assert stuffer.fault is None


def test_s11_reject() -> None:
    for message in words_over((b"\r", b"\n", b".", b"a"), 5):
        for pieces in every_cut(message):
            out, stuffer = stuff(pieces, BarePolicy.REJECT)
            if has_bare_model(message):
                assert stuffer.fault is DataFault.BARE
                assert stuffer.bare_seen
                assert lax_ends(out) == []
                assert not has_bare_model(out)
            else:
                assert stuffer.fault is None
                assert out == model(message, BarePolicy.REJECT)


def test_h2_nul_is_refused_and_nothing_more_is_given() -> None:
    for pieces in every_cut(b"good\r\nbad\0\r\nmore\r\n"):
        out, stuffer = stuff(pieces, BarePolicy.NORMALIZE)
        assert stuffer.fault is DataFault.NUL
        assert b"good\r\nbad".startswith(out)


def test_h2_nul_passes_where_the_listener_says_so() -> None:
    for pieces in every_cut(b"a\0b\r\n"):
        out, stuffer = stuff(pieces, BarePolicy.NORMALIZE, pass_nul=True)
        assert out == b"a\0b\r\n.\r\n"
        assert stuffer.fault is None


def test_s11_one_message_leaves_nothing_behind_for_the_next() -> None:
    gone = ChunkStuffer(BarePolicy.REJECT, pass_nul=False)
    gone.receive(b"text\r\r")
    out, stuffer = stuff([b"clean\r\n"], BarePolicy.REJECT)
    assert out == b"clean\r\n.\r\n"
    assert stuffer.fault is None
