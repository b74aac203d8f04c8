"""xtext: any octets as printable ASCII without spaces (RFC 3461, 4; XCLIENT and XFORWARD use it for their values).

An octet that is no plain one becomes a plus sign and its two hexadecimal digits.
"""

from __future__ import annotations

import re
from typing import Final

_NOT_PLAIN: Final = re.compile(rb"[^!-*,-<>-~]")
_TEXT: Final = re.compile(rb"[!-*,-~]*(?:\+[0-9A-Fa-f]{2}[!-*,-~]*)*")
_ENCODED: Final = re.compile(rb"\+(..)")


def encode(value: bytes) -> bytes:
    """Give ``value``, any octets, as xtext; CR, LF and spaces in it are harmless afterwards."""
    return _NOT_PLAIN.sub(lambda found: b"+%02X" % found[0][0], value)


def decode(text: bytes) -> bytes | None:
    """Give the octets that xtext stands for, control characters too if they are in it; None: ``text`` is no xtext.

    Two things that the RFC does not allow are taken, because senders write them and they have one meaning only:
    hexadecimal digits in lower case, and an equals sign that stands for itself (Postfix leaves it as it is).
    """
    if not _TEXT.fullmatch(text):
        return None
    return _ENCODED.sub(lambda found: bytes([int(found[1], 16)]), text)
