"""The PROXY protocol: a header in front of a connection that says who its client is (HAProxy's proxy-protocol.txt).

Version 1 is a line of text, version 2 is binary and can hold more (TLVs: type, length, value).  A reader for what a
load balancer sends us, and the headers that we send to a server.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

from .xclient import plain_address

_LONGEST_LINE: Final = 107  # version 1, 2.1 of the specification
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = 16  # octets of version 2 before the addresses
_LONGEST_REST: Final = 4096  # octets of version 2 after them; the specification wants all of it to fit into one segment

_PORT: Final = rb"(0|[1-9][0-9]{0,4})"
_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) " + _PORT + b" " + _PORT + rb")\r\n"
)

_TCP4: Final = 0x11
_TCP6: Final = 0x21
# Octets of addresses and ports by family and transport: none given (with and without "stream"), TCP, UNIX stream.
_ADDRESS_BLOCKS: Final = {0x00: 0, 0x01: 0, _TCP4: 12, _TCP6: 36, 0x31: 216}

_ALPN: Final = 0x01
_AUTHORITY: Final = 0x02
_CRC32C: Final = 0x03
_UNIQUE_ID: Final = 0x05
_TLS: Final = 0x20
_TLS_VERSION: Final = 0x21
_TLS_COMMON_NAME: Final = 0x22
_TLS_CIPHER: Final = 0x23
_CLIENT_HAS_TLS: Final = 0x01
_CLIENT_HAS_CERTIFICATE: Final = 0x04  # shown at least once in this TLS session, which may have been resumed
_LONGEST_UNIQUE_ID: Final = 128
_LONGEST_TEXT: Final = 255


class Ends(NamedTuple):
    """The two ends of a client's connection, each an address in text and a port."""

    source: tuple[str, int]
    destination: tuple[str, int]


class ProxyTls(NamedTuple):
    """What a server is told of a client's TLS; a text that is empty is not sent."""

    version: str
    cipher: str
    common_name: str
    """Of the client's certificate; told only if ``verified``."""
    verified: bool
    """Whether the client has shown a certificate and it is good."""
    servername: str
    alpn: str


def looks_like_header(data: bytes) -> bool | None:
    """Say whether a connection that begins with ``data`` begins with a PROXY header.

    True: it does, of either version, well-formed or not.  False: it does not.  None: more of it is needed.
    """
    if data.startswith((b"PROXY ", _SIGNATURE)):
        return True
    return None if b"PROXY ".startswith(data) or _SIGNATURE.startswith(data) else False


class ProxyHeaderReader:
    """Reads one header of either version, in whatever pieces it arrives, from the first octet of a connection."""

    __slots__ = ("_buffer", "done", "ends", "fault", "local", "rest", "version")

    def __init__(self) -> None:
        self._buffer = b""
        self.done = False
        """Whether the header is complete and good; nothing more is to be given to ``receive`` then."""
        self.fault = ""
        """Why this is no header, in words; empty while it may be one. Nothing is read after a fault."""
        self.rest = b""
        """The octets behind the header that came together with its end."""
        self.ends: Ends | None = None
        """Who the client is, IPv4 mapped into IPv6 as IPv4; None where the header does not say."""
        self.local = False
        """Whether the load balancer connects for its own sake (LOCAL of version 2): a health check."""
        self.version = 0
        """1 or 2, once it is known."""

    def receive(self, data: bytes) -> None:
        """Take octets; ``done`` or ``fault`` say afterwards whether they were enough.

        Between calls at most 107 octets are kept for version 1 and 16 + 4096 for version 2.
        """
        if self.fault:
            return
        self._buffer += data
        begins = looks_like_header(self._buffer)
        if begins is False:
            self._fail("no PROXY header")
        elif begins and self._buffer.startswith(b"P"):
            self.version = 1
            self._read_line()
        elif begins:
            self.version = 2
            self._read_binary()

    def _read_line(self) -> None:
        # A line feed ends the line in any case: what is wrong with it is seen then, not when more has come.
        size = self._buffer.find(b"\n", 0, _LONGEST_LINE) + 1
        if size == 0:
            if len(self._buffer) >= _LONGEST_LINE:
                self._fail("over-long line")
            return
        match = _LINE.fullmatch(self._buffer, 0, size)
        try:
            ends = _line_ends(match)
        except ValueError:
            self._fail("malformed line")
        else:
            self._finish(size, ends)

    def _read_binary(self) -> None:
        buffer = self._buffer
        if len(buffer) < _FIXED:
            return
        length = int.from_bytes(buffer[14:_FIXED])
        if fault := _fixed_fault(buffer[12], buffer[13], length):
            self._fail(fault)
        elif len(buffer) < _FIXED + length:
            return
        elif buffer[12] == 0x20:
            # All that follows the length is to be passed over, whatever the family says.
            self.local = True
            self._finish(_FIXED + length, None)
        elif fault := _tlv_fault(buffer[: _FIXED + length]):
            self._fail(fault)
        else:
            self._finish(_FIXED + length, _binary_ends(buffer))

    def _fail(self, why: str) -> None:
        self.fault = why
        self._buffer = b""

    def _finish(self, size: int, ends: Ends | None) -> None:
        self.done = True
        self.ends = ends
        self.rest = self._buffer[size:]
        self._buffer = b""


def v1_header(ends: Ends | None) -> bytes:
    """Give the header of version 1; None: the client is not known.

    Where only one end is IPv6, the other is mapped into it.  Raises ValueError for what is no address.
    """
    if ends is None:
        return b"PROXY UNKNOWN\r\n"
    family, addresses = _same_family(ends)
    source, destination = (_mapped_text(address) for address in addresses)
    return b"PROXY TCP%d %s %s %d %d\r\n" % (family, source, destination, ends.source[1], ends.destination[1])


def v2_header(ends: Ends | None, tls: ProxyTls | None = None, unique_id: bytes = b"") -> bytes:
    """Give the header of version 2; None: the connection is our own (LOCAL), and nothing else is told.

    ``unique_id`` names the connection, in at most 128 octets.  A text about TLS that is longer than 255 octets in
    UTF-8 is left out.  Raises ValueError for what is no address, and for too long an id.
    """
    if ends is None:
        return _SIGNATURE + b"\x20\x00\x00\x00"
    if len(unique_id) > _LONGEST_UNIQUE_ID:
        raise ValueError(f"an id of {len(unique_id)} octets, not at most {_LONGEST_UNIQUE_ID}")
    family, addresses = _same_family(ends)
    block = b"".join(address.packed for address in addresses)
    block += ends.source[1].to_bytes(2) + ends.destination[1].to_bytes(2)
    if tls is not None:
        block += _text_tlv(_ALPN, tls.alpn) + _text_tlv(_AUTHORITY, tls.servername)
    if unique_id:
        block += _tlv(_UNIQUE_ID, unique_id)
    if tls is not None:
        block += _tls_tlv(tls)
    return _SIGNATURE + bytes([0x21, _TCP4 if family == 4 else _TCP6]) + len(block).to_bytes(2) + block


def _crc32c(data: bytes) -> int:
    """Give the checksum that a header of version 2 can hold (RFC 9260, appendix A)."""
    remainder = 0xFFFFFFFF
    for octet in data:
        remainder = _CRC_TABLE[(remainder ^ octet) & 0xFF] ^ (remainder >> 8)
    return remainder ^ 0xFFFFFFFF


def _crc_of_octet(octet: int) -> int:
    for _ in range(8):
        octet = octet >> 1 ^ (octet & 1) * 0x82F63B78
    return octet


_CRC_TABLE: Final = tuple(_crc_of_octet(octet) for octet in range(256))


def _line_ends(match: re.Match[bytes] | None) -> Ends | None:
    """Give what a line of version 1 says, None for UNKNOWN; raises ValueError where it is malformed."""
    if match is None:
        raise ValueError
    if match[1] is None:
        return None
    kind = ipaddress.IPv4Address if match[1] == b"4" else ipaddress.IPv6Address
    source, destination = (str(plain_address(str(kind(match[group].decode())))) for group in (2, 3))
    ports = int(match[4]), int(match[5])
    if max(ports) > 65535:
        raise ValueError
    return Ends((source, ports[0]), (destination, ports[1]))


def _fixed_fault(version_and_command: int, family: int, length: int) -> str:
    """Give what is wrong with the last four of the first 16 octets; "" if nothing is."""
    if version_and_command not in (0x20, 0x21):
        return "unknown version or command"
    if length > _LONGEST_REST:
        return "over-long header"
    if version_and_command == 0x21:
        if family not in _ADDRESS_BLOCKS:
            return "unknown address family or transport"
        if length < _ADDRESS_BLOCKS[family]:
            return "addresses cut short"
    return ""


def _tlv_fault(header: bytes) -> str:
    """Give what is wrong with what stands behind the addresses; "" if nothing is."""
    start = _ADDRESS_BLOCKS[header[13]]
    if start == 0:  # addresses of some unknown family may stand there, so nobody can tell where TLVs begin
        return ""
    tlvs = _split_tlvs(header, _FIXED + start)
    if tlvs is None:
        return "malformed TLV"
    for kind, _, value in tlvs:
        if kind == _TLS and (len(value) < 5 or _split_tlvs(value, 5) is None):
            return "malformed TLV"
        if kind == _UNIQUE_ID and len(value) > _LONGEST_UNIQUE_ID:
            return "malformed TLV"
    sums = [(at, value) for kind, at, value in tlvs if kind == _CRC32C]
    if len(sums) > 1:  # each would have to be worked out with all the others in it
        return "malformed TLV"
    right = all(value == _crc32c(header[:at] + bytes(4) + header[at + 4 :]).to_bytes(4) for at, value in sums)
    return "" if right else "wrong checksum"


def _split_tlvs(block: bytes, at: int) -> list[tuple[int, int, bytes]] | None:
    """Give the TLVs from an offset on as (type, offset of the value, value); None if they do not end with the block."""
    found = []
    while at < len(block):
        start = at + 3
        end = start + int.from_bytes(block[at + 1 : start])
        if end > len(block):
            return None
        found.append((block[at], start, block[start:end]))
        at = end
    return found


def _binary_ends(header: bytes) -> Ends | None:
    if header[13] not in (_TCP4, _TCP6):
        return None
    size = 4 if header[13] == _TCP4 else 16
    at = _FIXED + 2 * size
    source, destination = header[_FIXED : _FIXED + size], header[_FIXED + size : at]
    ports = int.from_bytes(header[at : at + 2]), int.from_bytes(header[at + 2 : at + 4])
    return Ends((_text_of(source), ports[0]), (_text_of(destination), ports[1]))


def _text_of(packed: bytes) -> str:
    return str(plain_address(str(ipaddress.ip_address(packed))))


def _same_family(ends: Ends) -> tuple[int, list[ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    """Give 4 or 6, and source and destination in that family."""
    addresses = [plain_address(end[0]) for end in ends]
    if any(address.version == 6 for address in addresses):
        return 6, [
            ipaddress.IPv6Address(bytes(10) + b"\xff\xff" + address.packed) if address.version == 4 else address
            for address in addresses
        ]
    return 4, addresses


def _mapped_text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """Give an address in text; hexadecimal where it is mapped, in every version of Python, as 2.1 knows no other."""
    if address.version == 6 and address.ipv4_mapped is not None:
        return b"::ffff:%x:%x" % (int.from_bytes(address.packed[12:14]), int.from_bytes(address.packed[14:]))
    return str(address).encode()


def _tls_tlv(tls: ProxyTls) -> bytes:
    # The name of a certificate that nobody vouched for is kept from servers that would not look at the flag.
    client = _CLIENT_HAS_TLS | _CLIENT_HAS_CERTIFICATE if tls.verified else _CLIENT_HAS_TLS
    value = bytes([client]) + (0 if tls.verified else 1).to_bytes(4) + _text_tlv(_TLS_VERSION, tls.version)
    if tls.verified:
        value += _text_tlv(_TLS_COMMON_NAME, tls.common_name)
    return _tlv(_TLS, value + _text_tlv(_TLS_CIPHER, tls.cipher))


def _text_tlv(kind: int, text: str) -> bytes:
    # A name may come from a hostile client: what is no text in UTF-8 must not raise here.
    value = text.encode("utf-8", "replace")
    return _tlv(kind, value) if 0 < len(value) <= _LONGEST_TEXT else b""


def _tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2) + value
