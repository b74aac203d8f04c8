"""Dot-stuffed mail data as the octets of a message: the other direction of test_chunks.py."""

from __future__ import annotations

import pytest
from hypothesis import example, given

from smtpproxy.smtp.chunks import ChunkStuffer
from smtpproxy.smtp.lineendings import BarePolicy
from smtpproxy.smtp.maildata import MailDataReader
from smtpproxy.smtp.unstuffing import Unstuffer

from .pieces import every_cut, every_partition, pieces_of, streams_of, words_over

FRAGMENTS = (b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b".\r\n", b"\n.", b"..", b"\r\n..\r\n", b"word ", b"\xc3\xa9")
END = b"\r\n.\r\n"


def model(stuffed: bytes) -> bytes:
    """Line by line, in the words of RFC 5321, 4.5.2; ``stuffed`` without the end of data."""
    return b"\r\n".join(line[1:] if line[:1] == b"." else line for line in stuffed.split(b"\r\n"))


def unstuff(pieces: list[bytes]) -> bytes:
    """The message of pieces, the last of which has the end of data put behind it."""
    unstuffer = Unstuffer()
    out = [unstuffer.receive(piece, last=False) for piece in pieces[:-1]]
    return b"".join([*out, unstuffer.receive(pieces[-1] + b".\r\n", last=True)])


def through(pieces: list[bytes], policy: BarePolicy) -> tuple[bytes, bytes]:
    """What a client's octets become on the way: dot-stuffed, without the end of data, and as a message."""
    reader, unstuffer = MailDataReader(policy, pass_nul=True), Unstuffer()
    stuffed, message = b"", b""
    for piece in pieces:
        given_on = reader.receive(piece)
        stuffed += given_on
        message += unstuffer.receive(given_on, last=reader.rest is not None)
        if reader.rest is not None:
            break
    assert stuffed.endswith(b".\r\n")
    return stuffed[:-3], message


@pytest.mark.parametrize(
    ("stuffed", "message"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"...\r\n.\r\n", b"..\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),  # never stuffed by a client that knows the rule; the dot is taken off all the same
        (b"a\r\n..b\r\n..\r\n...\r\n.\r\n", b"a\r\n.b\r\n.\r\n..\r\n"),
        (b"a.\r\nb..\r\n.\r\n", b"a.\r\nb..\r\n"),
        (b"a\n.b\r.c\r\n.\r\n", b"a\n.b\r.c\r\n"),  # with bare line endings passed on, they begin no line
    ],
)
def test_rfc5321_4_5_2_dots_and_the_end_of_data_are_taken_off(stuffed: bytes, message: bytes) -> None:
    assert Unstuffer().receive(stuffed, last=True) == message
    assert unstuff([stuffed[:-3]]) == message


def test_every_short_message_in_two_pieces() -> None:
    for stuffed in words_over((b"\r", b"\n", b".", b"a"), 6):
        for pieces in every_cut(stuffed):
            assert unstuff(pieces) == model(stuffed)


def test_every_short_message_in_every_partition() -> None:
    for stuffed in words_over((b"\r", b"\n", b"."), 6):
        for pieces in every_partition(stuffed):
            assert unstuff(pieces) == model(stuffed)


@given(pieces_of(streams_of(FRAGMENTS)))
@example([b"a\r", b"\n.b"])
@example([b"a\r\n", b"", b".b"])
def test_random_messages(pieces: list[bytes]) -> None:
    assert unstuff(pieces) == model(b"".join(pieces))


@given(pieces_of(streams_of(FRAGMENTS).map(lambda data: data + END)))
@example([b"a\n", b".b\r\n.\r\n"])
@example([b".", b"\r\n", END])
def test_behind_the_reader_of_mail_data(pieces: list[bytes]) -> None:
    for policy in (BarePolicy.NORMALIZE, BarePolicy.PASS):
        stuffed, message = through(pieces, policy)
        assert message == model(stuffed)


def test_behind_the_reader_however_the_data_arrives() -> None:
    for data in words_over((b"\r", b"\n", b".", b"a"), 5):
        whole = {policy: through([data + END], policy)[1] for policy in BarePolicy if policy is not BarePolicy.REJECT}
        for pieces in every_cut(data + END):
            for policy, message in whole.items():
                assert through(pieces, policy)[1] == message


@given(pieces_of(streams_of(FRAGMENTS)), pieces_of(streams_of(FRAGMENTS)))
def test_back_from_stuffed_chunks(chunks: list[bytes], others: list[bytes]) -> None:
    """Stuffed for a server without CHUNKING, and made chunks again by the next one: nothing has changed."""
    stuffer, unstuffer = ChunkStuffer(BarePolicy.PASS, pass_nul=True), Unstuffer()
    pieces = [*chunks, *others]
    out = b"".join(unstuffer.receive(stuffer.receive(piece), last=False) for piece in pieces)
    out += unstuffer.receive(stuffer.finish(), last=True)
    message = b"".join(pieces)
    assert out == (message if message.endswith(b"\r\n") or not message else message + b"\r\n")


def test_a_refused_message_has_no_end_of_data() -> None:
    """Where the reader found a fault it gives nothing more, and so does this side."""
    unstuffer = Unstuffer()
    assert unstuffer.receive(b"a\r\n.b", last=False) == b"a\r\nb"
    assert unstuffer.receive(b"", last=False) == b""
    assert unstuffer.receive(b"", last=True) == b""
