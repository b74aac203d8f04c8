"""The texts of MTA-STS (RFC 8461): the TXT record that says there is a policy, the policy itself, and its patterns."""

import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple, cast

from smtpproxy.config.domains import is_hostname

__all__ = ["LONGEST_AGE", "LONGEST_POLICY", "StsError", "StsPolicy", "parse_policy", "policy_id"]

LONGEST_POLICY: Final = 64 * 1024
"""Octets (RFC 8461, 3.3, advises this limit)."""

LONGEST_AGE: Final = 31_557_600
"""Seconds, a year: more does not count (RFC 8461, 3.2)."""

_MOST_PATTERNS: Final = 200
_VERSION: Final = b"v=STSv1;"
_ID: Final = re.compile(rb"[A-Za-z0-9]{1,32}")
_AGE: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_MODES: Final = frozenset({"enforce", "testing", "none"})

Mode = Literal["enforce", "testing", "none"]


class StsError(Exception):
    """A policy that cannot be used or had: the text is for the log."""


class StsPolicy(NamedTuple):
    """What a domain demands of those who deliver mail to it."""

    mode: Mode
    max_age: int
    """Seconds for which it is good."""
    mx: tuple[str, ...]
    """Patterns of its MX hosts, lower case: a name, or ``*.`` and a name for every name with one label more."""

    def allows(self, host: str) -> bool:
        """Whether a host is one of the MX hosts (RFC 8461, 4.1)."""
        name = host.lower().removesuffix(".")
        _, _, parent = name.partition(".")
        return name in self.mx or f"*.{parent}" in self.mx


def policy_id(records: Iterable[tuple[bytes, ...]]) -> str:
    """Give the id of the policy from the strings of the TXT records of ``_mta-sts.<domain>`` (RFC 8461, 3.1).

    Empty if they do not say that there is one.
    """
    ours = [text for text in (b"".join(strings) for strings in records) if text.startswith(_VERSION)]
    if len(ours) != 1:
        return ""
    for field in ours[0].split(b";")[1:]:
        key, _, value = field.strip(b" \t").partition(b"=")
        if key == b"id":
            return value.decode("ascii") if _ID.fullmatch(value) else ""
    return ""


def parse_policy(content: bytes) -> StsPolicy:
    """Read a policy file (RFC 8461, 3.2). Raises StsError if it is none.

    Keys that nobody knows are passed over, and so is a second value of a key that has one.
    """
    first: dict[str, str] = {}
    patterns: dict[str, None] = {}
    for key, value in _fields(content):
        if key == "mx":
            patterns[_pattern(value)] = None
        else:
            first.setdefault(key, value)
    if first.get("version") != "STSv1":
        raise StsError("its version is not STSv1")
    mode, age = first.get("mode", ""), first.get("max_age", "")
    if mode not in _MODES:
        raise StsError("it has none of the modes enforce, testing and none")
    if not _AGE.fullmatch(age):
        raise StsError("its max_age is no number of seconds")
    if not patterns and mode != "none":
        raise StsError("it names no MX host")
    if len(patterns) > _MOST_PATTERNS:
        raise StsError(f"it names more than {_MOST_PATTERNS} MX hosts")
    return StsPolicy(cast("Mode", mode), min(int(age), LONGEST_AGE), tuple(patterns))


def _fields(content: bytes) -> Iterator[tuple[str, str]]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise StsError("it is no text in UTF-8") from None
    for line in text.replace("\r\n", "\n").split("\n"):
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(" \t"), value.strip(" \t")
        elif line.strip(" \t"):
            raise StsError("a line of it has no colon")


def _pattern(value: str) -> str:
    name = value.lower().removesuffix(".")
    if not is_hostname(name.removeprefix("*.")):
        raise StsError("one of its MX hosts is no name of a host")
    return name
