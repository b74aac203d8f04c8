"""Durations and sizes as people write them: ``5 min``, ``256 KiB``."""

import re
from typing import Final

from smtpproxy.config.problem import quoted

__all__ = ["LONGEST", "parse_duration", "parse_size"]

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_OCTETS: Final = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_QUANTITY: Final = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)", re.ASCII)

LONGEST: Final = 366 * 86400.0
"""The longest duration accepted, in seconds: more is a slip of the pen."""

_DURATION_EXPECTED: Final = "a number with a unit is expected: ms, s, min, h or d, such as '30 s' or '5 min'"
_SIZE_EXPECTED: Final = (
    "a whole number of octets is expected, or one with a unit: KiB, MiB, GiB, kB, MB, GB, such as '256 KiB'"
)


def parse_duration(value: object) -> float:
    """Read a duration.

    Takes text such as ``"30 s"``; a ``float`` (which no configuration file yields) is seconds already.
    Gives seconds. Raises ValueError, in words for an administrator, for anything else: a bare number too,
    since a reader cannot tell its unit.
    """
    if isinstance(value, float):
        seconds = value
    else:
        match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None or match[2] not in _SECONDS:
            raise ValueError(f"{_DURATION_EXPECTED}, not {quoted(value)}")
        seconds = float(match[1]) * _SECONDS[match[2]]
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"at most 366 d is possible, not {quoted(value)}")
    return seconds


def parse_size(value: object) -> int:
    """Read a size.

    Takes text such as ``"256 KiB"`` or a plain number of octets. Gives octets. Raises ValueError, in words
    for an administrator, for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        octets = value
    else:
        match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None or match[2] not in _OCTETS:
            raise ValueError(f"{_SIZE_EXPECTED}, not {quoted(value)}")
        amount = float(match[1]) * _OCTETS[match[2]] if "." in match[1] else int(match[1]) * _OCTETS[match[2]]
        octets = int(amount)
        if octets != amount:
            raise ValueError(f"{_SIZE_EXPECTED}, not {quoted(value)}")
    if octets < 0:
        raise ValueError(f"{_SIZE_EXPECTED}, not {quoted(value)}")
    return octets
