"""XCLIENT and XFORWARD: the commands in which a mail proxy says who its client is.

They are Postfix's (its XCLIENT_README and XFORWARD_README are the specification): the verb, then attributes with
values in xtext.  XCLIENT changes who the server takes us for; XFORWARD changes no more than its log.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

from . import xtext

ATTRIBUTES: Final = (b"NAME", b"ADDR", b"PORT", b"PROTO", b"HELO", b"LOGIN", b"DESTADDR", b"DESTPORT")
"""The attributes of XCLIENT, in the order in which they are sent."""

UNAVAILABLE: Final = b"[UNAVAILABLE]"
"""The value of an attribute that nobody knows."""

TEMPUNAVAIL: Final = b"[TEMPUNAVAIL]"
"""The same for a name or an address where asking later may help."""

_XFORWARD_ATTRIBUTES: Final = (b"NAME", b"ADDR", b"PORT", b"PROTO", b"HELO", b"IDENT", b"SOURCE")
_LONGEST_VALUE: Final = 255
_LONGEST_LINE: Final = 512

# What Postfix takes for a host name; what it does not is refused by it together with the whole command.
_LABEL: Final = rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME: Final = re.compile(rb"(?![0-9.]+\Z)" + _LABEL + rb"(?:\." + _LABEL + rb")*")
_CONTROLS: Final = re.compile(rb"[\x00-\x1f\x7f]")


def plain_address(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Give the address that a text means to a peer: without a scope, and IPv4 where it is IPv4 mapped into IPv6.

    Raises ValueError where ``address`` is no address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return (parsed.version == 6 and parsed.ipv4_mapped) or parsed


def address_value(address: str) -> bytes:
    """Give the value of ADDR or DESTADDR for an IPv4 or IPv6 address; the empty string is an address nobody knows.

    Raises ValueError where ``address`` is something else.
    """
    if not address:
        return UNAVAILABLE
    plain = plain_address(address)
    return (b"IPV6:%s" if plain.version == 6 else b"%s") % str(plain).encode()


def xclient_command(values: Mapping[bytes, bytes], offered: Collection[bytes]) -> bytes:
    """Give the XCLIENT line, at most 512 octets with its CR LF, for attributes as they are (not yet xtext).

    ``offered`` is what the server listed behind the keyword in its EHLO reply; without ADDR, there or in ``values``,
    the command would be no use and none is given (b"").  Everything else on offer is sent, as ``[UNAVAILABLE]``
    where there is no value: Exim keeps, from one XCLIENT to the next, what the second one does not mention, and a
    kept session would lend one client's login to another (rule S18).  Only PROTO knows no such word.

    A NAME or HELO that would make a server refuse the whole command is ``[UNAVAILABLE]`` too.  So are HELO and then
    NAME in a line that would be too long: the server hears the client's EHLO afterwards, and can look up the name.
    """
    names = _on_offer(ATTRIBUTES, offered)
    if b"ADDR" not in names or not values.get(b"ADDR"):
        return b""
    sent = {name: _value(name, values.get(name, b"")) for name in names}
    if b"PROTO" in names and not values.get(b"PROTO"):
        del sent[b"PROTO"]
    for name in (b"HELO", b"NAME"):
        if len(_line(b"XCLIENT", sent)) > _LONGEST_LINE and name in sent:
            sent[name] = UNAVAILABLE
    return _line(b"XCLIENT", sent)


def xforward_commands(values: Mapping[bytes, bytes], offered: Collection[bytes]) -> list[bytes]:
    """Give XFORWARD lines of at most 512 octets each, for attributes as they are (not yet xtext).

    Only what is in ``values`` and in ``offered`` (the server's EHLO reply) is sent: the server forgets all of it
    with each transaction, and takes for unavailable what is missing.
    """
    lines: list[bytes] = []
    sent: dict[bytes, bytes] = {}
    for name in _on_offer(_XFORWARD_ATTRIBUTES, offered):
        if not values.get(name):
            continue
        value = _value(name, values[name])
        if len(_line(b"XFORWARD", {**sent, name: value})) > _LONGEST_LINE:
            lines.append(_line(b"XFORWARD", sent))
            sent = {}
        sent[name] = value
    return [*lines, _line(b"XFORWARD", sent)] if sent else lines


def parse_xclient(argument: bytes) -> dict[bytes, bytes] | str:
    """Give the attributes of an XCLIENT command: names in upper case, values decoded and within bounds.

    The words in brackets are in upper case as well; ports are without leading zeros; PROTO is SMTP or ESMTP; an
    address is as it was sent (see ``parse_address``).  HELO and LOGIN can hold any octets but control characters.
    A string is given instead where the command is malformed: why, in words that may stand in a reply.
    """
    found: dict[bytes, bytes] = {}
    for word in argument.split(b" "):
        name, equals, text = word.partition(b"=")
        if not equals or not text:
            return "attribute=value expected"
        name = name.upper()
        if name not in ATTRIBUTES:
            return "unknown attribute"
        if name in found:
            return f"{name.decode()} given twice"
        raw = xtext.decode(text)
        value = None if raw is None or len(raw) > _LONGEST_VALUE or _CONTROLS.search(raw) else _READ[name](raw)
        if value is None:
            return f"bad value of {name.decode()}"
        found[name] = value
    return found


def parse_address(value: bytes) -> str | None:
    """Give the address in a value of ADDR or DESTADDR, in its normal form; "" for a word in brackets.

    IPv4 mapped into IPv6 is given as IPv4.  None: ``value`` is malformed.
    """
    if value.upper() in (UNAVAILABLE, TEMPUNAVAIL):
        return ""
    text = value.decode("latin-1")
    try:
        if text[:5].upper() != "IPV6:":
            return str(ipaddress.IPv4Address(text))
        return None if "%" in text else str(plain_address(str(ipaddress.IPv6Address(text[5:]))))
    except ValueError:
        return None


def _on_offer(names: Collection[bytes], offered: Collection[bytes]) -> list[bytes]:
    theirs = {name.upper() for name in offered}
    return [name for name in names if name in theirs]


def _line(verb: bytes, sent: Mapping[bytes, bytes]) -> bytes:
    return verb + b"".join(b" %s=%s" % attribute for attribute in sent.items()) + b"\r\n"


def _value(name: bytes, raw: bytes) -> bytes:
    """Give a value in xtext, as servers will take it."""
    if (name == b"NAME" and raw != TEMPUNAVAIL and not _HOST_NAME.fullmatch(raw)) or (
        name == b"HELO" and not _HOST_NAME.fullmatch(raw) and not _is_literal(raw)
    ):
        return UNAVAILABLE
    text = xtext.encode(raw)
    # Postfix counts before it decodes.
    return text if 0 < len(text) <= _LONGEST_VALUE else UNAVAILABLE


def _is_literal(text: bytes) -> bool:
    """Say whether a HELO argument is an address in brackets (RFC 5321, 4.1.3)."""
    return text[:1] == b"[" and text[-1:] == b"]" and bool(parse_address(text[1:-1]))


def _read_name(value: bytes) -> bytes | None:
    if value.upper() in (UNAVAILABLE, TEMPUNAVAIL):
        return value.upper()
    return value if _HOST_NAME.fullmatch(value) else None


def _read_address(value: bytes) -> bytes | None:
    address = parse_address(value)
    if address is None:
        return None
    return value if address else value.upper()


def _read_port(value: bytes) -> bytes | None:
    if value.upper() == UNAVAILABLE:
        return UNAVAILABLE
    return b"%d" % int(value) if value.isdigit() and int(value) <= 65535 else None


def _read_protocol(value: bytes) -> bytes | None:
    return value.upper() if value.upper() in (b"SMTP", b"ESMTP") else None


def _read_text(value: bytes) -> bytes | None:
    # TEMPUNAVAIL is no word for these: who looks for UNAVAILABLE alone must not find a login of that name.
    if value.upper() in (UNAVAILABLE, TEMPUNAVAIL):
        return UNAVAILABLE if value.upper() == UNAVAILABLE else None
    return value


_READ: Final[dict[bytes, Callable[[bytes], bytes | None]]] = {
    b"NAME": _read_name,
    b"ADDR": _read_address,
    b"PORT": _read_port,
    b"PROTO": _read_protocol,
    b"HELO": _read_text,
    b"LOGIN": _read_text,
    b"DESTADDR": _read_address,
    b"DESTPORT": _read_port,
}
