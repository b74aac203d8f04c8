"""Text of others made fit to be shown: without anything that a terminal obeys (rules H8, H11)."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["escape"]

_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]|\\")


def escape(text: str) -> str:
    r"""Escape what is outside of ASCII, control characters, and backslashes.

    An octet becomes ``\x1b``, a character beyond them ``\u200f``.
    """
    return _UNPRINTABLE.sub(_code, text)


def _code(found: re.Match[str]) -> str:
    number = ord(found[0])
    if number < 256:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
