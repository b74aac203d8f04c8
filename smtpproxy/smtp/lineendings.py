"""Bare CR, bare LF and NUL in mail data: how they are found, and what may be done about them (rules S11, H2).

Servers disagree on what a bare line ending means, and a message that ends at different places for two servers
smuggles a second one past the first.  So there is one strict reading, and one policy for the whole stream.
"""

from __future__ import annotations

import io
from enum import Enum
from typing import Final


class BarePolicy(Enum):
    """What to do with a CR or LF that stands alone (rule S11)."""

    NORMALIZE = "normalize"
    REJECT = "reject"
    PASS = "pass"  # noqa: S105  # a policy, no password


class DataFault(Enum):
    """Why mail data is refused; the value is the reply text behind 550/554 5.6.11."""

    BARE = "bare <CR> or <LF> in mail data"
    NUL = "NUL in mail data"


# In C, at 1.5 GB/s, where three counts would take three times as long. One for the process: it is never fed text that
# ends in CR, so it carries nothing from one call to the next.
_newlines: Final = io.IncrementalNewlineDecoder(None, translate=False)


def has_bare(text: bytes) -> bool:
    """Say whether CR or LF stands alone anywhere in ``text``; a CR at its end does: LF is not what follows."""
    if text.endswith(b"\r"):
        return True
    _newlines.decode(text.decode("latin-1"))
    seen = _newlines.newlines
    if seen is None or seen == "\r\n":
        return False
    _newlines.reset()
    return True
