"""PROXY headers of both versions, in any pieces, from anybody (H6; HAProxy's proxy-protocol.txt)."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpproxy.smtp.proxyheader import (
    Ends,
    ProxyHeaderReader,
    ProxyTls,
    _crc32c,
    looks_like_header,
    v1_header,
    v2_header,
)

from .pieces import every_cut, pieces_of

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
ENDS = Ends(("192.0.2.1", 49152), ("198.51.100.2", 25))
ENDS6 = Ends(("2001:db8::1", 49152), ("2001:db8::2", 25))
BLOCK = bytes.fromhex("c0000201 c6336402 c000 0019")
BLOCK6 = bytes.fromhex("20010db8000000000000000000000001 20010db8000000000000000000000002 c000 0019")

# What HAProxy 2.6 sent for a client and for a health check (crc32c, unique-id).
BY_HAPROXY = bytes.fromhex(
    "0d0a0d0a000d0a515549540a2111001f7f0000017f000001b02c99e903000486a389b50500096162632d3136393637"
)
CHECK_BY_HAPROXY = bytes.fromhex("0d0a0d0a000d0a515549540a20000007030004a9b87e8f")


class Outcome:
    """What a reader says of a stream, given in pieces until it has had enough."""

    def __init__(self, pieces: list[bytes]) -> None:
        reader = ProxyHeaderReader()
        behind = b""
        for piece in pieces:
            if reader.done:
                behind += piece
            else:
                reader.receive(piece)
        self.done = reader.done
        self.fault = reader.fault
        self.rest = reader.rest + behind
        self.ends = reader.ends
        self.local = reader.local
        self.version = reader.version

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcome) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # compared only

    def __repr__(self) -> str:
        return f"Outcome({vars(self)})"


def read(data: bytes) -> Outcome:
    """The outcome for a stream; the same however it is cut."""
    whole = Outcome([data])
    for pieces in every_cut(data):
        assert Outcome(pieces) == whole, pieces
    return whole


def is_good(data: bytes, ends: Ends | None, *, version: int, local: bool = False) -> None:
    for rest in (b"", b"EHLO x\r\n", data):
        outcome = read(data + rest)
        assert outcome.done, outcome
        assert outcome.fault == ""
        assert (outcome.rest, outcome.ends, outcome.version, outcome.local) == (rest, ends, version, local)
    for size in range(len(data)):
        outcome = Outcome([data[:size]])
        assert not outcome.done
        assert outcome.fault == ""


def is_refused(data: bytes, why: str) -> None:
    for rest in (b"", b"EHLO x\r\n"):
        outcome = read(data + rest)
        assert outcome.fault == why
        assert (outcome.done, outcome.rest, outcome.ends, outcome.local) == (False, b"", None, False)


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind, *divmod(len(value), 256)]) + value


def binary(rest: bytes, family: int = 0x11, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes([command, family, *divmod(len(rest), 256)]) + rest


# --- version 1 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "ends"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 49152 25\r\n", ENDS),
        (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", Ends(("0.0.0.0", 0), ("255.255.255.255", 65535))),
        (b"PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 49152 25\r\n", ENDS6),
        (b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n",
         Ends((":".join(["ffff"] * 8), 65535), (":".join(["ffff"] * 8), 65535))),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6402 49152 25\r\n", ENDS),
        (b"PROXY TCP6 ::FFFF:c000:201 2001:db8::2 49152 25\r\n", Ends(ENDS.source, ENDS6.destination)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN \r\n", None),
        (b"PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n", None),
        (b"PROXY UNKNOWN \0\xff whatever, PROXY TCP4\r\n", None),
        (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
    ],
)  # fmt: skip
def test_a_line(header: bytes, ends: Ends | None) -> None:
    assert len(header) <= 107
    is_good(header, ends, version=1)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY \r\n", b"PROXY TCP4\r\n", b"PROXY TCP4 192.0.2.1\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
        # spaces
        b"PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n", b"PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1  198.51.100.2 1 2\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2  1 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1  2\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
        b"PROXY TCP4\t192.0.2.1 198.51.100.2 1 2\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 1\t2\r\n",
        # line endings
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1\r2\r\n", b"PROXY TCP4 192.0.2.1\n198.51.100.2 1 2\r\n",
        b"PROXY UNKNOWN\n", b"PROXY UNKNOWN x\ry\r\n", b"PROXY UNKNOWN x\n\r\n", b"PROXY UNKNOWN\r\r\n",
        # the word for the family
        b"PROXY UNKNOWNX\r\n", b"PROXY unknown\r\n", b"PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n", b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP 192.0.2.1 198.51.100.2 1 2\r\n", b"PROXY UNIX /a /b\r\n", b"PROXY TCP46 ::1 ::1 1 2\r\n",
        # families that do not match
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", b"PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP6 2001:db8::1 198.51.100.2 1 2\r\n", b"PROXY TCP4 192.0.2.1 ::ffff:192.0.2.1 1 2\r\n",
        # addresses
        b"PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.256 1 2\r\n",
        b"PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n", b"PROXY TCP4 192.0.2.1.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 c0.0.2.1 198.51.100.2 1 2\r\n", b"PROXY TCP4 192.0.2.1. 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 192..2.1 198.51.100.2 1 2\r\n", b"PROXY TCP4 192.0.2.1/8 198.51.100.2 1 2\r\n",
        b"PROXY TCP4 mail.example.org 198.51.100.2 1 2\r\n", b"PROXY TCP4 +192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY TCP6 ::1::2 ::1 1 2\r\n", b"PROXY TCP6 ::1%lo ::1 1 2\r\n", b"PROXY TCP6 [::1] ::1 1 2\r\n",
        b"PROXY TCP6 2001:db8::12345 ::1 1 2\r\n", b"PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n",
        b"PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n", b"PROXY TCP6 : ::1 1 2\r\n", b"PROXY TCP6 ::g ::1 1 2\r\n",
        # ports
        b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 1 00\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1_0 2\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 1 100000\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 0x1 2\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2  2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 \u0661 2\r\n".encode(), b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\0\r\n",
    ],
    ids=repr,
)  # fmt: skip
def test_a_malformed_line(header: bytes) -> None:
    is_refused(header, "malformed line")


@pytest.mark.parametrize(
    "data",
    [b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", b"PROXY " + b"x" * 101, b"PROXY " + b" " * 5000, b"PROXY " + b"\r" * 101],
    ids=len,
)
def test_a_line_longer_than_107_octets(data: bytes) -> None:
    is_refused(data, "over-long line")
    assert not Outcome([data[:106]]).fault


@pytest.mark.parametrize(
    ("ends", "header"),
    [
        (None, b"PROXY UNKNOWN\r\n"),
        (ENDS, b"PROXY TCP4 192.0.2.1 198.51.100.2 49152 25\r\n"),
        (ENDS6, b"PROXY TCP6 2001:db8::1 2001:db8::2 49152 25\r\n"),
        (Ends(("::ffff:192.0.2.1", 1), ("192.0.2.2", 0)), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 0\r\n"),
        (Ends(("fe80::1%eth0", 1), ("fe80:0::2", 2)), b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n"),
        # one end of each family: the other is mapped
        (Ends(ENDS.source, ENDS6.destination), b"PROXY TCP6 ::ffff:c000:201 2001:db8::2 49152 25\r\n"),
        (Ends(ENDS6.source, ENDS.destination), b"PROXY TCP6 2001:db8::1 ::ffff:c633:6402 49152 25\r\n"),
        (Ends(("0.0.0.1", 1), ("::2", 2)), b"PROXY TCP6 ::ffff:0:1 ::2 1 2\r\n"),
    ],
)
def test_the_line_that_we_send(ends: Ends | None, header: bytes) -> None:
    assert v1_header(ends) == header
    assert read(header).done


# --- version 2 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "ends"),
    [
        (binary(BLOCK), ENDS),
        (binary(BLOCK6, 0x21), ENDS6),
        (binary(bytes(10) + b"\xff\xff" + BLOCK[:4] + bytes(10) + b"\xff\xff" + BLOCK[4:8] + BLOCK[8:], 0x21), ENDS),
        (binary(bytes(10) + b"\xff\xff" + BLOCK[:4] + BLOCK6[16:], 0x21), Ends(ENDS.source, ENDS6.destination)),
        (binary(b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0"), 0x31), None),
        (binary(b"", 0x00), None),
        (binary(b"", 0x01), None),
        (binary(b"\1\2\3", 0x00), None),
        (binary(BLOCK + tlv(4, b"")), ENDS),
        (binary(BLOCK + tlv(4, b"padding") + tlv(0xE0, b"x" * 300) + tlv(0xFF, b"")), ENDS),
        (binary(BLOCK + tlv(1, b"smtp") + tlv(2, b"mx.example.org") + tlv(5, b"u" * 128)), ENDS),
        (binary(BLOCK + tlv(0x20, b"\1\0\0\0\1")), ENDS),
        (binary(BLOCK + tlv(0x20, b"\5\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"") + tlv(0x29, b"?"))), ENDS),
        (binary(bytes(216) + tlv(5, b"id"), 0x31), None),
        (BY_HAPROXY, Ends(("127.0.0.1", 45100), ("127.0.0.1", 39401))),
    ],
)
def test_a_binary_header(header: bytes, ends: Ends | None) -> None:
    is_good(header, ends, version=2)


@pytest.mark.parametrize("family", [0x00, 0x11, 0x12, 0x21, 0x31, 0x99, 0xFF])
@pytest.mark.parametrize("rest", [b"", BLOCK, tlv(5, b"id"), b"\5\xff", b"no TLV at all"], ids=repr)
def test_a_health_check_is_passed_over_whatever_is_in_it(family: int, rest: bytes) -> None:
    is_good(binary(rest, family, 0x20), None, version=2, local=True)


def test_a_health_check_of_haproxy() -> None:
    is_good(CHECK_BY_HAPROXY, None, version=2, local=True)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        # version and command
        (binary(BLOCK, 0x11, 0x11), "unknown version or command"),
        (binary(BLOCK, 0x11, 0x31), "unknown version or command"),
        (binary(BLOCK, 0x11, 0x01), "unknown version or command"),
        (binary(BLOCK, 0x11, 0x22), "unknown version or command"),
        (binary(BLOCK, 0x11, 0x2F), "unknown version or command"),
        (binary(b"", 0x00, 0xA0), "unknown version or command"),
        # family and transport: datagrams, and what nobody has defined
        (binary(BLOCK, 0x12), "unknown address family or transport"),
        (binary(BLOCK6, 0x22), "unknown address family or transport"),
        (binary(bytes(216), 0x32), "unknown address family or transport"),
        (binary(b"", 0x02), "unknown address family or transport"),
        (binary(BLOCK, 0x10), "unknown address family or transport"),
        (binary(BLOCK6, 0x20), "unknown address family or transport"),
        (binary(BLOCK, 0x13), "unknown address family or transport"),
        (binary(BLOCK, 0x41), "unknown address family or transport"),
        (binary(BLOCK, 0xF1), "unknown address family or transport"),
        # lengths
        (binary(b""), "addresses cut short"),
        (binary(BLOCK[:-1]), "addresses cut short"),
        (binary(BLOCK, 0x21), "addresses cut short"),
        (binary(BLOCK6[:-1], 0x21), "addresses cut short"),
        (binary(bytes(215), 0x31), "addresses cut short"),
        (SIGNATURE + b"\x21\x11\xff\xff", "over-long header"),
        (SIGNATURE + b"\x20\x00\x10\x01", "over-long header"),
        # TLVs
        (binary(BLOCK + b"\0"), "malformed TLV"),
        (binary(BLOCK + b"\4\0"), "malformed TLV"),
        (binary(BLOCK + b"\4\0\1"), "malformed TLV"),
        (binary(BLOCK + b"\4\xff\xff"), "malformed TLV"),
        (binary(BLOCK + tlv(4, b"") + b"\4\0\2x"), "malformed TLV"),
        (binary(BLOCK6 + b"\4\0\1", 0x21), "malformed TLV"),
        (binary(bytes(216) + b"\4\0\1", 0x31), "malformed TLV"),
        (binary(BLOCK + tlv(5, b"u" * 129)), "malformed TLV"),
        (binary(BLOCK + tlv(0x20, b"")), "malformed TLV"),
        (binary(BLOCK + tlv(0x20, b"\1\0\0\0")), "malformed TLV"),
        (binary(BLOCK + tlv(0x20, b"\1\0\0\0\1\x21")), "malformed TLV"),
        (binary(BLOCK + tlv(0x20, b"\1\0\0\0\1\x21\0\x08TLSv1.3")), "malformed TLV"),
        # the checksum
        (binary(BLOCK + tlv(3, b"\0\0\0\0")), "wrong checksum"),
        (binary(BLOCK + tlv(3, b"")), "wrong checksum"),
        (binary(BLOCK + tlv(3, b"\0" * 5)), "wrong checksum"),
        (binary(BLOCK + tlv(3, b"\0" * 4) * 2), "malformed TLV"),
        (BY_HAPROXY.replace(b"\x7f\0\0\1\x7f", b"\x7f\0\0\2\x7f"), "wrong checksum"),
        (BY_HAPROXY.replace(b"abc-", b"abd-"), "wrong checksum"),
    ],
)
def test_a_malformed_binary_header(header: bytes, why: str) -> None:
    is_refused(header, why)


def test_a_binary_header_of_the_largest_size() -> None:
    header = binary(BLOCK + tlv(4, bytes(4096 - 15)))
    assert len(header) == 16 + 4096
    whole = Outcome([header + b"EHLO x\r\n"])
    assert (whole.done, whole.ends, whole.rest) == (True, ENDS, b"EHLO x\r\n")
    assert Outcome([header[at : at + 1] for at in range(len(header))] + [b"EHLO x\r\n"]) == whole
    assert not Outcome([header[:-1]]).done


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"a", 0xC1D04330),
        (b"123456789", 0xE3069283),  # the check value of the CRC catalogue
        (bytes(32), 0x8A9136AA),  # RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_the_checksum(data: bytes, checksum: int) -> None:
    assert _crc32c(data) == checksum


TLS = ProxyTls("TLSv1.3", "TLS_AES_128_GCM_SHA256", "client.example", verified=True, servername="mx.example", alpn="")


@pytest.mark.parametrize(
    ("header", "octets"),
    [
        (v2_header(None), "20 00 0000"),
        (v2_header(None, TLS, b"id"), "20 00 0000"),
        (v2_header(ENDS), "21 11 000c c0000201 c6336402 c000 0019"),
        (v2_header(Ends(("::ffff:192.0.2.1", 49152), ENDS.destination)), "21 11 000c c0000201 c6336402 c000 0019"),
        (v2_header(ENDS6), "21 21 0024" + BLOCK6.hex()),
        (v2_header(Ends(ENDS.source, ENDS6.destination)),
         "21 21 0024 00000000000000000000ffffc0000201" + BLOCK6[16:].hex()),
        (v2_header(Ends(("fe80::1%lo", 1), ("fe80::2", 2))),
         "21 21 0024 fe800000000000000000000000000001 fe800000000000000000000000000002 0001 0002"),
        (v2_header(ENDS, None, b"s1"), "21 11 0011" + BLOCK.hex() + "05 0002 7331"),
        (v2_header(ENDS, ProxyTls("TLSv1.2", "AES", "joe", verified=True, servername="mx", alpn="smtp"), b"s1"),
         "21 11 003b" + BLOCK.hex()
         + "01 0004 736d7470"
         + "02 0002 6d78"
         + "05 0002 7331"
         + "20 001b 05 00000000"
         + "21 0007 544c5376312e32" + "22 0003 6a6f65" + "23 0003 414553"),
        # an unverified certificate is as none, whatever is written in it
        (v2_header(ENDS, ProxyTls("TLSv1.2", "AES", "joe", verified=False, servername="", alpn="")),
         "21 11 0024" + BLOCK.hex() + "20 0015 01 00000001" + "21 0007 544c5376312e32" + "23 0003 414553"),
        # a verified one without a name
        (v2_header(ENDS, ProxyTls("TLSv1.2", "AES", "", verified=True, servername="", alpn="")),
         "21 11 0024" + BLOCK.hex() + "20 0015 05 00000000" + "21 0007 544c5376312e32" + "23 0003 414553"),
    ],
)  # fmt: skip
def test_the_binary_header_that_we_send(header: bytes, octets: str) -> None:
    assert header == SIGNATURE + bytes.fromhex(octets)
    assert read(header).done


def test_texts_of_a_hostile_client_do_no_harm() -> None:
    plain = v2_header(ENDS, TLS._replace(servername=""))
    assert v2_header(ENDS, TLS._replace(servername="x" * 256)) == plain
    assert v2_header(ENDS, TLS._replace(servername="ö" * 128)) == plain
    assert tlv(2, b"x" * 255) in v2_header(ENDS, TLS._replace(servername="x" * 255))
    assert tlv(2, b"a?b") in v2_header(ENDS, TLS._replace(servername="a\udcffb"))


def test_an_id_has_at_most_128_octets() -> None:
    assert v2_header(ENDS, None, b"u" * 128).endswith(tlv(5, b"u" * 128))
    with pytest.raises(ValueError, match="an id of 129 octets"):
        v2_header(ENDS, None, b"u" * 129)


@pytest.mark.parametrize("address", ["", "mail.example.org", "/run/socket", "192.0.2"])
def test_ends_that_are_no_addresses_are_a_fault_of_ours(address: str) -> None:
    for ends in (Ends((address, 1), ENDS.destination), Ends(ENDS.source, (address, 1))):
        with pytest.raises(ValueError, match="does not appear to be"):
            v1_header(ends)
        with pytest.raises(ValueError, match="does not appear to be"):
            v2_header(ends)


# --- either version ---------------------------------------------------------------------------------------------------

HEADERS = [v1_header(ENDS), v1_header(None), v2_header(ENDS), v2_header(ENDS6, TLS, b"id"), v2_header(None), BY_HAPROXY]


def test_what_begins_a_header() -> None:
    for header in HEADERS:
        sure = 6 if header.startswith(b"P") else 12
        for size in range(len(header) + 1):
            assert looks_like_header(header[:size]) is (None if size < sure else True)


@pytest.mark.parametrize(
    "data",
    [
        b"EHLO x\r\n", b"proxy ", b"PROXY\r\n", b"PROXYTCP4 ", b"PRO XY", b"PR\n", b" PROXY ", b"\0", b"\n",
        b"\r\nEHLO",
        b"\x16\x03\x01\x02\0", b"\r\n\r\n\0\r\nQUIT\r\n", b"\r\n\r\nEHLO x\r\n", b"GET / HTTP/1.0\r\n", SIGNATURE[1:],
    ],
    ids=repr,
)  # fmt: skip
def test_what_begins_none(data: bytes) -> None:
    assert looks_like_header(data) is False
    is_refused(data, "no PROXY header")


def test_the_version_is_known_with_the_first_octets_and_not_before() -> None:
    for header, version, sure in ((v1_header(ENDS), 1, 6), (v2_header(ENDS), 2, 12)):
        reader = ProxyHeaderReader()
        for size in range(1, sure):
            reader.receive(header[size - 1 : size])
            assert reader.version == 0
        reader.receive(header[sure - 1 : sure])
        assert reader.version == version


def test_nothing_is_read_after_a_fault() -> None:
    reader = ProxyHeaderReader()
    reader.receive(b"PROXY nonsense\r\n")
    reader.receive(v1_header(ENDS))
    assert (reader.done, reader.fault, reader.rest, reader.ends) == (False, "malformed line", b"", None)


ADDRESSES = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))
TEXTS = st.text(max_size=300)
CLIENT_TLS = st.none() | st.builds(ProxyTls, TEXTS, TEXTS, TEXTS, st.booleans(), TEXTS, TEXTS)


def plain(end: tuple[str, int]) -> tuple[str, int]:
    mapped = ipaddress.IPv6Address(end[0]).ipv4_mapped if ":" in end[0] else None
    return (str(mapped or end[0]), end[1])


@given(st.builds(Ends, ADDRESSES, ADDRESSES), st.binary(max_size=20), st.data())
def test_the_line_comes_back(ends: Ends, rest: bytes, data: st.DataObject) -> None:
    header = v1_header(ends)
    assert len(header) <= 107
    outcome = Outcome(data.draw(pieces_of(st.just(header + rest))))
    assert outcome.done
    assert (outcome.ends, outcome.rest) == (Ends(*map(plain, ends)), rest)


@given(
    st.builds(Ends, ADDRESSES, ADDRESSES),
    CLIENT_TLS,
    st.binary(max_size=128),
    st.binary(max_size=20),
    st.data(),
)
def test_the_binary_header_comes_back(
    ends: Ends, tls: ProxyTls | None, unique_id: bytes, rest: bytes, data: st.DataObject
) -> None:
    outcome = Outcome(data.draw(pieces_of(st.just(v2_header(ends, tls, unique_id) + rest))))
    assert outcome.done
    assert (outcome.ends, outcome.rest) == (Ends(*map(plain, ends)), rest)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A header with something wrong in it, perhaps, and something behind it."""
    header = bytearray(draw(st.sampled_from([*HEADERS, binary(BLOCK + tlv(0x20, b"\1\0\0\0\1" + tlv(0x21, b"x")))])))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(header) - 1))
        header[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from([b"", b" ", b"\r", b"\n", b"0", b"\0", b"\xff"])
        )
        if not header:
            break
    return bytes(header) + draw(st.sampled_from([b"", b"EHLO x\r\n", b"x" * 120, b"\r\n", b"PROXY UNKNOWN\r\n"]))


@given(pieces_of(streams()))
@example([b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r", b"\n"])
@example([SIGNATURE, b"\x20\0\0\0", b"more"])
def test_the_outcome_does_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    outcome = Outcome(pieces)
    assert outcome == Outcome([data])
    assert not (outcome.done and outcome.fault)
    assert data.endswith(outcome.rest)
    if not outcome.done:
        assert (outcome.rest, outcome.ends, outcome.local) == (b"", None, False)
    if outcome.fault:
        assert outcome.fault.isascii()


@given(pieces_of(st.binary(max_size=40) | st.binary(max_size=300).map(SIGNATURE.__add__)))
def test_any_octets_at_all(pieces: list[bytes]) -> None:
    assert Outcome(pieces) == Outcome([b"".join(pieces)])


@given(st.sampled_from([b"PROXY " + b"x" * 100, binary(BLOCK + tlv(4, bytes(4000)))]), st.integers(1, 200))
def test_no_more_is_kept_than_a_header_can_have(data: bytes, size: int) -> None:
    reader = ProxyHeaderReader()
    for at in range(0, len(data) * 3, size):
        reader.receive((data * 3)[at : at + size])
        if reader.done:
            break
        assert len(reader._buffer) < (107 if reader.version == 1 else 16 + 4096)
    assert reader.done or reader.fault
    assert reader._buffer == b""
