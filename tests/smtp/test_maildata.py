"""Mail data behind DATA: where it ends, and what of it goes on (S11, H2)."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpproxy.smtp.lineendings import BarePolicy, DataFault
from smtpproxy.smtp.maildata import MailDataReader

from .pieces import every_cut, every_partition, pieces_of, streams_of, words_over

FRAGMENTS = (
    b"\r",
    b"\n",
    b".",
    b"a",
    b"\r\n",
    b"\r\n.",
    b".\r\n",
    b"\n.",
    b"\r\r",
    b"\r\n.\r\r\n",
    b"word ",
    b"\xc3\xa9",
)
END = b"\r\n.\r\n"

# What some server or other takes for the end of data, and RFC 5321 does not; all of them were used to smuggle.
VECTORS = (
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r.\n", b"\n.\r", b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\r\n.\n", b"\n\n.\r\r\n", b"\r\n\r.\r\n", b"\n.\r\r\n", b"\r.\r\r\n",
)  # fmt: skip


# --- an independent model: slow, and in the order of the words of rule S11 ----------------------------------------


def until_the_end(stream: bytes) -> tuple[bytes, bytes] | None:
    """The mail data and the rest, read octet by octet; None if there is no end of data."""
    line_start = 0
    while (line_end := stream.find(b"\r\n", line_start)) >= 0:
        if stream[line_start:line_end] == b".":
            return stream[:line_start], stream[line_end + 2 :]
        line_start = line_end + 2
    return None


def unstuffed(data: bytes) -> bytes:
    return b"\r\n".join(line.removeprefix(b".") for line in data.split(b"\r\n"))


def normalized(text: bytes) -> bytes:
    out = bytearray()
    index = 0
    while index < len(text):
        octet = text[index : index + 1]
        if octet == b"\r" and text[index + 1 : index + 2] == b"\n":
            out += b"\r\n"
            index += 1
        elif octet == b"\r":
            out += b" "
        elif octet == b"\n":
            out += b"\r\n"
        else:
            out += octet
        index += 1
    return bytes(out)


def has_bare_model(text: bytes) -> bool:
    left = text.replace(b"\r\n", b"")
    return b"\r" in left or b"\n" in left


# --- readers of what goes on --------------------------------------------------------------------------------------


def strict_ends(wire: bytes) -> list[int]:
    """Where a server that goes by RFC 5321 sees ends of data (the offset behind them)."""
    found = re.finditer(rb"(?=\r\n\.\r\n)", b"\r\n" + wire)
    return [match.start() + len(END) - 2 for match in found]


def lax_ends(wire: bytes) -> list[int]:
    """Where a server might see one that takes CR, LF and whatever holds one for the end of a line."""
    found = re.finditer(rb"(?<=[\r\n])\.\r*\n|(?<=[\r\n])\.\r", b"\r\n" + wire)
    return [match.end() - 2 for match in found]


def read(
    pieces: list[bytes], policy: BarePolicy, *, pass_nul: bool = False
) -> tuple[bytes, MailDataReader, list[bytes]]:
    """Feed the pieces up to the end of data; give what went on, the reader, and the pieces left over."""
    reader = MailDataReader(policy, pass_nul=pass_nul)
    out = b""
    left = list(pieces)
    while left and reader.rest is None:
        out += reader.receive(left.pop(0))
    return out, reader, left


# --- clean mail ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", list(BarePolicy))
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b"one\r\n",
        b"one\r\n\r\ntwo\r\n",
        b"..\r\n",
        b"..stuffed\r\n..\r\n",
        b".also allowed\r\n",
        b"\xff\x80\x1a\x01\t\r\n",
    ],
)
def test_s11_clean_mail_goes_through_bit_for_bit(policy: BarePolicy, data: bytes) -> None:
    wire = data + b".\r\n"
    for pieces in every_cut(wire + b"QUIT\r\n"):
        out, reader, left = read(pieces, policy)
        assert out == wire
        assert reader.rest is not None
        assert reader.rest + b"".join(left) == b"QUIT\r\n"
        assert reader.fault is None
        assert not reader.bare_seen
        assert reader.octets == len(data)


@given(
    pieces_of(st.binary(max_size=400).map(lambda raw: normalized(raw.replace(b"\0", b"")).replace(b"\r\n.", b"\r\n..")))
)
def test_s11_random_clean_mail_goes_through_bit_for_bit(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    if whole.startswith(b"."):
        pieces = [b".", *pieces]
        whole = b"." + whole
    ending = b".\r\n" if whole.endswith(b"\r\n") or not whole else END
    out, reader, _ = read([*pieces, ending], BarePolicy.NORMALIZE)
    assert out == whole + ending
    assert not reader.bare_seen


def test_s11_without_an_end_of_data_there_is_no_rest() -> None:
    for pieces in every_cut(b"text\r\n.\r\r\n..\r\n. \r\n"):
        _, reader, left = read(pieces, BarePolicy.NORMALIZE)
        assert reader.rest is None
        assert left == []


def test_s10_what_may_begin_the_end_is_held_back() -> None:
    """A client that vanishes must not leave an end of data behind, nor the half of one that a server completes."""
    reader = MailDataReader(BarePolicy.PASS, pass_nul=False)
    assert reader.receive(b"text\r\n.\r") == b"text"
    assert reader.receive(b"\n") == END
    assert reader.rest == b""


# --- S11: normalize -----------------------------------------------------------------------------------------------


def check_against_the_model(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    expected = until_the_end(stream)
    out, reader, left = read(pieces, BarePolicy.NORMALIZE)
    if expected is None:
        assert reader.rest is None
        assert lax_ends(out) == []
        return
    data, rest = expected
    assert reader.rest is not None
    assert reader.rest + b"".join(left) == rest
    assert out.endswith(b".\r\n")
    content = out[:-3]
    assert not has_bare_model(content)
    assert unstuffed(content) == normalized(unstuffed(data))
    assert strict_ends(out) == [len(out)]
    assert lax_ends(out) == [len(out)]
    assert reader.bare_seen == has_bare_model(data)
    assert reader.octets == len(data)
    if not reader.bare_seen:
        assert out == data + b".\r\n"


def test_s11_normalize_every_short_stream_in_two_pieces() -> None:
    for stream in words_over((b"\r", b"\n", b".", b"a"), 6):
        for pieces in every_cut(stream + END):
            check_against_the_model(pieces)


def test_s11_normalize_every_short_stream_in_every_partition() -> None:
    for stream in words_over((b"\r", b"\n", b"."), 4):
        for pieces in every_partition(stream + END):
            check_against_the_model(pieces)


@given(pieces_of(streams_of(FRAGMENTS)))
@example([b"x\r\n.\r\r\n", b"more\r\n.\r\n"])
@example([b"a\r", b"\r", b"\r\n.\r\n"])
def test_s11_normalize_random_streams(pieces: list[bytes]) -> None:
    check_against_the_model([*pieces, END])


@given(pieces_of(streams_of(FRAGMENTS)))
@example([b"x\r\n.\r\r\n"])
def test_s11_normalize_what_has_gone_on_never_holds_an_end(pieces: list[bytes]) -> None:
    out, reader, _ = read(pieces, BarePolicy.NORMALIZE)
    if reader.rest is None:
        assert lax_ends(out) == []


@pytest.mark.parametrize("vector", VECTORS, ids=repr)
def test_s11_no_smuggling_vector_survives(vector: bytes) -> None:
    stream = b"first" + vector + b"MAIL FROM:<a@b.example>\r\n.\r\n"
    for pieces in every_cut(stream):
        out, reader, left = read(pieces, BarePolicy.NORMALIZE)
        assert strict_ends(out) == lax_ends(out) == [len(out)]
        assert reader.rest == b""
        assert left == []
        assert reader.bare_seen
    for pieces in every_partition(vector + b"\r\n.\r\n"):
        out, _, _ = read(pieces, BarePolicy.NORMALIZE)
        assert strict_ends(out)[-1:] == lax_ends(out) == [len(out)]


@pytest.mark.parametrize("dot", sorted({vector.lstrip(b"\r\n") for vector in VECTORS} - {b".\r\n"}), ids=repr)
def test_s11_no_smuggling_vector_survives_at_the_very_beginning(dot: bytes) -> None:
    """Behind the CR LF of the DATA line itself."""
    for pieces in every_cut(dot + b"MAIL\r\n.\r\n"):
        out, reader, _ = read(pieces, BarePolicy.NORMALIZE)
        assert strict_ends(out) == lax_ends(out) == [len(out)]
        assert reader.bare_seen


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"a\nb\r\n", b"a\r\nb\r\n"),
        (b"a\rb\r\n", b"a b\r\n"),
        (b"a\r\r\nb\r\n", b"a \r\nb\r\n"),
        (b"a\n.b\r\n", b"a\r\n..b\r\n"),
        (b"a\n.\nb\r\n", b"a\r\n..\r\nb\r\n"),
        (b"a\n..\nb\r\n", b"a\r\n...\r\nb\r\n"),
        (b"\n", b"\r\n"),
        (b"\n\r\n", b"\r\n\r\n"),
    ],
)
def test_s11_normalize_by_example(sent: bytes, expected: bytes) -> None:
    ending = b".\r\n" if sent.endswith(b"\r\n") else END
    tail = b".\r\n" if expected.endswith(b"\r\n") and sent.endswith(b"\r\n") else END
    for pieces in every_partition(sent + ending):
        out, _, _ = read(pieces, BarePolicy.NORMALIZE)
        assert out == expected + tail


def test_s11_one_session_leaves_nothing_behind_for_the_next() -> None:
    """A CR at the end of one client's piece must not make the next client's message a suspect, or clear its own."""
    left_alone = MailDataReader(BarePolicy.REJECT, pass_nul=False)
    left_alone.receive(b"gone\r\r")
    other = MailDataReader(BarePolicy.REJECT, pass_nul=False)
    assert other.receive(b"clean\r\n.\r\n") == b"clean\r\n.\r\n"
    assert other.fault is None
    third = MailDataReader(BarePolicy.REJECT, pass_nul=False)
    third.receive(b"\nbare\r\n.\r\n")
    assert third.fault is DataFault.BARE


# --- S11: reject and pass -----------------------------------------------------------------------------------------


def test_s11_reject_every_short_stream() -> None:
    for stream in words_over((b"\r", b"\n", b".", b"a"), 5):
        wire = stream + END
        expected = until_the_end(wire)
        assert expected is not None
        data, rest = expected
        for pieces in every_cut(wire):
            out, reader, left = read(pieces, BarePolicy.REJECT)
            assert reader.rest is not None
            assert reader.rest + b"".join(left) == rest
            if has_bare_model(data):
                assert reader.fault is DataFault.BARE
                assert reader.bare_seen
                assert lax_ends(out) == []
                assert not has_bare_model(out), "what went on before the fault was clean"
            else:
                assert reader.fault is None
                assert out == data + b".\r\n"


@given(pieces_of(streams_of(FRAGMENTS)))
def test_s11_pass_changes_nothing_and_ends_strictly(pieces: list[bytes]) -> None:
    pieces = [*pieces, END, b"tail"]
    expected = until_the_end(b"".join(pieces))
    assert expected is not None
    out, reader, left = read(pieces, BarePolicy.PASS)
    assert out == expected[0] + b".\r\n"
    assert reader.rest is not None
    assert reader.rest + b"".join(left) == expected[1]
    assert reader.fault is None


# --- H2: NUL ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", list(BarePolicy))
def test_h2_nul_is_refused_and_nothing_more_goes_on(policy: BarePolicy) -> None:
    for pieces in every_cut(b"good\r\nbad\0\r\nmore\r\n.\r\nQUIT"):
        out, reader, left = read(pieces, policy)
        assert reader.fault is DataFault.NUL
        assert b"good\r\nbad".startswith(out)
        assert reader.rest is not None
        assert reader.rest + b"".join(left) == b"QUIT", "the data is still read to its true end (S15)"


def test_h2_nul_passes_where_the_listener_says_so() -> None:
    for pieces in every_cut(b"a\0b\r\n.\r\n"):
        out, reader, _ = read(pieces, BarePolicy.NORMALIZE, pass_nul=True)
        assert out == b"a\0b\r\n.\r\n"
        assert reader.fault is None


@given(pieces_of(streams_of((*FRAGMENTS, b"\0"))), st.sampled_from(BarePolicy))
def test_h2_s11_a_fault_does_not_depend_on_the_pieces(pieces: list[bytes], policy: BarePolicy) -> None:
    pieces = [*pieces, END]
    _, whole, _ = read([b"".join(pieces)], policy)
    _, in_pieces, _ = read(pieces, policy)
    assert (whole.fault is None) == (in_pieces.fault is None)
    assert whole.octets == in_pieces.octets
