"""What a remote offers: its EHLO reply, read so that an assumption can be compared with it (rules C1 to C3).

An offer is the list of keyword lines, verbatim; everything else is read from them.  Two offers are equal if their
lines are: an entry of the cache that differs from the live reply in anything is out of date (rule C3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, Final

EARLY_KEYWORDS: Final = (b"PIPECONNECT", b"PIPE_CONNECT", b"X_PIPE_CONNECT")
"""The spellings of early pipelining, the current one first (docs/protocol.md)."""

MAX_LINES: Final = 200
"""Lines of an EHLO reply that are read; real ones have about twenty."""

MAX_LINE: Final = 1000
"""Octets in one of these lines; a longer one is left out."""

_REMEMBERED: Final = 256
_MEMORABLE: Final = 4096
# The keyword ends at a space; old servers write AUTH=LOGIN (a draft of RFC 2554), and = is in no keyword.
_LINE: Final = re.compile(rb"([A-Za-z0-9][A-Za-z0-9_-]*)(?:[ \t=][ \t]*([^\r\n]*?))?[ \t]*")
_MAILMAX: Final = re.compile(rb"MAILMAX=([1-9][0-9]{0,5})", re.IGNORECASE)  # RFC 9422, 4.1
_SIZE: Final = re.compile(rb"[0-9]{1,20}")  # RFC 1870, 3


@dataclass(frozen=True, slots=True)
class Offer:
    """An EHLO reply: ``lines`` are its lines but the first one, without code, separator and CR LF.

    Lines beyond ``MAX_LINES`` and above ``MAX_LINE`` octets are left out.  A line that does not begin with a keyword
    is kept, but offers nothing.
    """

    NONE: ClassVar[Offer]
    """What a server offers that only knows HELO."""

    lines: tuple[bytes, ...]

    keywords: frozenset[bytes] = field(init=False, repr=False, compare=False)
    """Every keyword, in upper case."""
    pipelining: bool = field(init=False, repr=False, compare=False)
    """Whether commands may be sent in groups (RFC 2920)."""
    chunking: bool = field(init=False, repr=False, compare=False)
    """Whether BDAT may be used (RFC 3030)."""
    binarymime: bool = field(init=False, repr=False, compare=False)
    """Whether BODY=BINARYMIME may be used (RFC 3030, 3): only where there is CHUNKING too."""
    starttls: bool = field(init=False, repr=False, compare=False)
    """Whether STARTTLS is offered (RFC 3207)."""
    early: bytes = field(init=False, repr=False, compare=False)
    """The keyword of early pipelining, in upper case; empty if there is none, or no PIPELINING beside it (rule C1)."""
    size: int | None = field(init=False, repr=False, compare=False)
    """Octets that a message may have (RFC 1870); 0: no limit is told; None: the parameter SIZE is not offered."""
    smtputf8: bool = field(init=False, repr=False, compare=False)
    """Whether addresses and header fields may be UTF-8 (RFC 6531)."""
    eightbitmime: bool = field(init=False, repr=False, compare=False)
    """Whether the parameter BODY may be used (RFC 6152)."""
    dsn: bool = field(init=False, repr=False, compare=False)
    """Whether delivery status notifications may be asked for (RFC 3461)."""
    mailmax: int = field(init=False, repr=False, compare=False)
    """Transactions that a session may have (MAILMAX of LIMITS, RFC 9422, 4.1); 0: no limit is told."""
    mechanisms: frozenset[bytes] = field(init=False, repr=False, compare=False)
    """The mechanisms of AUTH, in upper case, from all its lines (RFC 4954, 3)."""

    def __post_init__(self) -> None:
        lines = tuple(line for line in self.lines[:MAX_LINES] if len(line) <= MAX_LINE)
        values = _values(lines)
        pipelining, chunking = b"PIPELINING" in values, b"CHUNKING" in values
        early = next((keyword for keyword in EARLY_KEYWORDS if keyword in values), b"")
        facts: dict[str, object] = {
            "lines": lines,
            "keywords": frozenset(values),
            "pipelining": pipelining,
            "chunking": chunking,
            "binarymime": chunking and b"BINARYMIME" in values,
            "starttls": b"STARTTLS" in values,
            "early": early if pipelining else b"",
            "size": _size(values.get(b"SIZE")),
            "smtputf8": b"SMTPUTF8" in values,
            "eightbitmime": b"8BITMIME" in values,
            "dsn": b"DSN" in values,
            "mailmax": _mailmax(values.get(b"LIMITS", ())),
            "mechanisms": frozenset(word.upper() for value in values.get(b"AUTH", ()) for word in value.split()),
        }
        for name, value in facts.items():
            object.__setattr__(self, name, value)

    @classmethod
    def parse(cls, raw: bytes) -> Offer:
        """Take a whole positive EHLO reply as it came; equal replies mostly give the same object.

        One line is a server without extensions.  The form of the reply is not checked: ``ReplyReader`` did that.
        """
        tail = raw[raw.find(b"\r\n") + 2 :]
        return _remembered(tail) if len(tail) <= _MEMORABLE else _parse(tail)

    @classmethod
    def of(cls, lines: tuple[bytes, ...]) -> Offer:
        """Give the offer with these lines, as the constructor does; the latest ones are remembered."""
        return _remembered_lines(lines) if sum(map(len, lines)) <= _MEMORABLE else cls(lines)


def _parse(tail: bytes) -> Offer:
    return Offer(tuple(line[4:] for line in tail.split(b"\r\n")[:-1]))


_remembered = lru_cache(_REMEMBERED)(_parse)
_remembered_lines = lru_cache(_REMEMBERED)(Offer)


def _values(lines: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    """Give what stands behind each keyword, in every line of it."""
    values: dict[bytes, list[bytes]] = {}
    for line in lines:
        if (match := _LINE.fullmatch(line)) is not None:
            values.setdefault(match[1].upper(), []).append(match[2] or b"")
    return values


def _size(values: list[bytes] | None) -> int | None:
    """Read the value of SIZE; what is no number is no limit."""
    if values is None:
        return None
    return int(values[0]) if _SIZE.fullmatch(values[0]) else 0


def _mailmax(values: Iterable[bytes]) -> int:
    """Read how many transactions a session may have; what is no number is no limit."""
    found = [_MAILMAX.fullmatch(word) for value in values for word in value.split()]
    return min((int(match[1]) for match in found if match is not None), default=0)


Offer.NONE = Offer(())
