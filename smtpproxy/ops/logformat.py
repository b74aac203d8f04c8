"""How an event becomes a line of the log: JSON or key=value, always one line and safe on a terminal (H11).

What a client sends ends up in the log (its EHLO name, addresses, the text of replies), so nothing of it may
begin a new line, forge a field or drive the terminal of whoever reads: control characters of all kinds (C0,
DEL, C1, line and paragraph separators, bidirectional controls) leave escaped.

Two lines are written for each session, thousands of them a second, so this is written for speed: keys and the
whole seconds of the time are rendered once, the writer for a value is found by one look into a dict.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Protocol

Scalar = str | bytes | int | float | None
"""A value (bool is an int). Bytes are shown as UTF-8, those that are not as \\xNN. A None is left out."""
Fields = Mapping[str, Scalar | Sequence[Scalar]]
"""What is told about an event, in the order of the line."""
Writer = Callable[..., str]
"""Renders a value of one type."""

OWN_KEYS = frozenset({"time", "level", "event"})
"""Begin each line; a field of such a name gets an underscore behind it, so that no key comes twice."""
KEYS_KEPT = 1024
"""Keys whose rendering is remembered. They come from our own code and are few; the limit is for mistakes."""
_odd = re.compile(r"[^!#-<>-\[\]-~]")
"""What may not stand in a bare word of key=value: all but visible ASCII, of that ", = and the backslash."""
_find_odd = _odd.search


class LineFormat(Protocol):
    """Makes a line, without its end, of one event."""

    def line(self, now: float, level: str, event: str, fields: Fields) -> str:
        """Render an event that happened at `now` (seconds since 1970); `level` is a word of our own."""


class _Format:
    """What the formats share: all but a few words, the quoting of texts and how sequences are written."""

    _begin: str  # before the time
    _level: str  # between time and level
    _event: str  # between level and event
    _end: str
    _quote: Callable[[str], str]  # set on the object, so that it is no method

    def __init__(self) -> None:
        self._second = -1
        self._until_second = ""
        self._keys: dict[str, str] = {}
        # Order matters to types that are not listed themselves: bool is an int, str and bytes are sequences.
        self._writers: dict[type, Writer] = {
            bool: _flag,
            int: int.__repr__,
            float: self._number,
            str: self._quote,
            bytes: self._octets,
            bytearray: self._octets,
            Sequence: self._series,
            object: self._other,
        }
        self._kinds = tuple(self._writers.items())
        self._writers[int] = repr  # quicker; for subclasses (an IntEnum) it would give something else

    def line(self, now: float, level: str, event: str, fields: Fields) -> str:
        """Render an event (see LineFormat)."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._until_second = self._begin + time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        try:
            rest = self._render(fields)
        except KeyError:
            self._learn(fields)
            rest = self._render(fields)
        return (
            f"{self._until_second}{int((now - second) * 1000):03d}Z{self._level}{level}"
            f"{self._event}{self._quote(event)}{rest}{self._end}"
        )

    def _render(self, fields: Fields) -> str:
        # Plain dicts, no methods of ours: this is where the time of a line goes.
        keys, writers = self._keys, self._writers
        return "".join(
            [f"{keys[key]}{writers[type(value)](value)}" for key, value in fields.items() if value is not None]
        )

    def _learn(self, fields: Fields) -> None:
        """Remember how the keys and types of these fields are rendered."""
        if len(self._keys) >= KEYS_KEPT:
            self._keys.clear()
        for key, value in fields.items():
            self._keys[key] = self._key(f"{key}_" if key in OWN_KEYS else key)
            self._writer(value)

    def _writer(self, value: object) -> Writer:
        kind = type(value)
        if kind not in self._writers:
            self._writers[kind] = next(writer for known, writer in self._kinds if issubclass(kind, known))
        return self._writers[kind]

    def _number(self, value: float) -> str:
        if -1e15 < value < 1e15:  # beyond, a float has no three decimals
            return f"{value:.3f}"
        text = repr(value)
        return text if text[-1].isdigit() else self._quote(text)  # JSON has no infinity and no not-a-number

    def _octets(self, value: bytes) -> str:
        return self._quote(value.decode("utf-8", "backslashreplace"))

    def _other(self, value: object) -> str:
        return self._quote(str(value))

    def _key(self, key: str) -> str:
        raise NotImplementedError

    def _series(self, values: Sequence[Scalar]) -> str:
        raise NotImplementedError


def _flag(value: object) -> str:
    return "true" if value else "false"


class JsonFormat(_Format):
    """One JSON object a line, ASCII only: all else is escaped, every control character with it."""

    _begin = '{"time":"'
    _level = '","level":"'
    _event = '","event":'
    _end = "}"

    def __init__(self) -> None:
        """Begin with nothing remembered."""
        self._quote = encode_basestring_ascii
        super().__init__()

    def _key(self, key: str) -> str:
        return f",{encode_basestring_ascii(key)}:"

    def _series(self, values: Sequence[Scalar]) -> str:
        # None keeps its place in a sequence.
        return f"[{','.join(['null' if value is None else self._writer(value)(value) for value in values])}]"


class KeyValueFormat(_Format):
    """Fields as key=value with a space between them, values quoted when needed (known as logfmt)."""

    _begin = "time="
    _level = " level="
    _event = " event="
    _end = ""

    def __init__(self) -> None:
        """Begin with nothing remembered."""
        self._quote = quote_text
        super().__init__()

    def _key(self, key: str) -> str:
        return f" {_odd.sub('_', key) or '_'}="

    def _series(self, values: Sequence[Scalar]) -> str:
        # A comma between the elements and one pair of quotes around all: easy to read and to search for.
        return quote_text(",".join(["" if value is None else self._bare(value) for value in values]))

    def _bare(self, value: str | bytes | float) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, bytes | bytearray):
            return value.decode("utf-8", "backslashreplace")
        return self._writer(value)(value)


def quote_text(text: str) -> str:
    """Give a text as a value of key=value: bare if nothing in it can be misread, otherwise as a JSON string.

    Printable characters beyond ASCII stay readable within the quotes. str.isprintable() is False for all of
    Unicode's categories "other" and "separator" but the space, which takes in C0, DEL, C1, U+2028, U+2029,
    bidirectional controls and lone surrogates.
    """
    if text and not _find_odd(text):
        return text
    if text.isprintable():
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return encode_basestring_ascii(text)


FORMATS: dict[str, Callable[[], LineFormat]] = {"json": JsonFormat, "keyvalue": KeyValueFormat}
"""The formats by the name they have in the configuration."""
