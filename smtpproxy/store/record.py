"""What is remembered of one remote: the types, and their form in a file or in Redis.

The form is JSON with a number for its version.  Whatever cannot be read is as good as nothing: the remote is then met
politely and learned anew.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, NamedTuple

from smtpproxy.smtp.offer import MAX_LINE

__all__ = ["Entry", "Key", "Record", "acceptable", "dumped", "loaded"]

_VERSION: Final = 1
# Real replies have about twenty lines and below 1 KiB; there are 100,000 entries by default.
_MOST_LINES: Final = 64
_MOST_OCTETS: Final = 4 * 1024
_MOST_CHARACTERS: Final = 8 * 1024  # of a stored record: base64 and the JSON around it have room
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Key(NamedTuple):
    """Whose EHLO reply it is (rule C1)."""

    address: str
    """The remote's IP address, as text."""
    port: int
    tls: bool
    """Whether it was given inside TLS; clear text and TLS never speak for each other (C2)."""
    ehlo: str
    """The name that we gave with EHLO."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a session may go by (rules C1 and C2)."""

    lines: tuple[bytes, ...]
    """The keyword lines as they came, without code and CR LF, and without the first line, the name."""
    learned: float
    """Unix time at which these lines were first seen."""
    confirmed: int
    """How often they were seen again since."""
    early: bool
    """False: held back or flushed, the flights must be polite.  It does not say whether the lines offer anything."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a store keeps under a key: the lines, and the history of trouble.  Times are Unix times."""

    lines: tuple[bytes, ...] | None = None
    """None where only trouble is known; empty if the remote offered nothing at all."""
    learned: float = 0.0
    confirmed: int = 0
    touched: float = 0.0
    """When they were last learned or confirmed."""
    usable: bool = False
    """Whether they were learned since the last flush."""
    flushed: float = 0.0
    """The last flush; 0 if there was none."""
    flaps: int = 0
    """Flushes in quick succession."""
    holds: int = 0
    """How many times in a row it was held back."""
    held: float = 0.0
    """The end of the last hold-back; 0 if there was none."""


def acceptable(lines: tuple[bytes, ...]) -> bool:
    """Say whether an EHLO reply is fit to be remembered, by its size and form (rule H8).

    At most 64 lines, none longer than those of an ``Offer``, 4 KiB in all, and no control characters.
    """
    return (
        len(lines) <= _MOST_LINES
        and sum(map(len, lines)) <= _MOST_OCTETS
        and all(len(line) <= MAX_LINE and not _CONTROL.search(line) for line in lines)
    )


def dumped(record: Record) -> str:
    """Give a record's form for a store: ASCII."""
    data = {
        "v": _VERSION,
        "lines": None if record.lines is None else [base64.b64encode(line).decode("ascii") for line in record.lines],
        "seen": (record.learned, record.confirmed, record.touched, record.usable),
        "trouble": (record.flushed, record.flaps, record.holds, record.held),
    }
    return json.dumps(data, separators=(",", ":"))


def loaded(text: object) -> Record | None:
    """Give the record that a store kept; None if it is none that we could have written."""
    if not isinstance(text, str) or len(text) > _MOST_CHARACTERS:
        return None
    try:
        return _record(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _record(data: Any) -> Record | None:  # noqa: ANN401  (whatever was there)
    if data["v"] != _VERSION:
        return None
    texts = data["lines"]
    lines = None if texts is None else tuple(base64.b64decode(text, validate=True) for text in texts)
    learned, confirmed, touched, usable = data["seen"]
    flushed, flaps, holds, held = data["trouble"]
    fine = (
        (lines is None or acceptable(lines))
        and all(_is_time(moment) for moment in (learned, touched, flushed, held))
        and all(_is_count(count) for count in (confirmed, flaps, holds))
        and isinstance(usable, bool)
    )
    return Record(lines, learned, confirmed, touched, usable, flushed, flaps, holds, held) if fine else None


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) and value >= 0


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
