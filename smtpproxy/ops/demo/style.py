"""How the demo may draw: width, colours, and the characters that the terminal can show."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TextIO

_NARROWEST: Final = 80
_WIDEST: Final = 100

# The keys are what a text is, not what it looks like: one place decides about looks.
_SGR: Final = {
    "title": "1",
    "sent": "36",
    "received": "32",
    "faint": "2",
    "good": "1;32",
    "bad": "1;31",
}

_UNICODE: Final = "─│→←├┼┤·…⇄═"
_ASCII: Final = "-|><|||,~=="  # same places as in _UNICODE
_TO_ASCII: Final = str.maketrans(dict(zip(_UNICODE, _ASCII, strict=True)))


@dataclass(frozen=True, slots=True)
class Style:
    """What the output may use.

    Pictures are drawn with Unicode characters, each one column wide; `fit` turns a finished line into ASCII of
    the same width for a terminal that has no more, so that the drawing functions need not care.

    Attributes:
        width: columns that may be used.
        colour: whether SGR escape sequences may be sent.
        unicode: whether the stream can encode the drawing characters.
    """

    width: int = 80
    colour: bool = False
    unicode: bool = True

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str] = os.environ) -> Style:
        """Return the style for `stream`: colours only on a terminal and without NO_COLOR (no-color.org)."""
        columns = shutil.get_terminal_size().columns
        dumb = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
        return cls(
            width=max(_NARROWEST, min(columns, _WIDEST)),
            colour=stream.isatty() and not dumb,
            unicode=_can_encode(stream, _UNICODE),
        )

    def paint(self, role: str, text: str) -> str:
        """Return `text` in the colour of `role` (a key of the table above), or as it is without colours."""
        return f"\x1b[{_SGR[role]}m{text}\x1b[0m" if self.colour and text else text

    def fit(self, text: str) -> str:
        """Return `text` with characters that the stream can show; the number of columns stays the same."""
        return text if self.unicode else text.translate(_TO_ASCII)


def _can_encode(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
