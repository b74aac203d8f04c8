"""The command table: which verbs there are, and what the protocol engine must know of each.

A verb outside the table is refused by the proxy itself and never reaches a backend (rule S16): what we cannot
follow would put us out of step with it.  The facts of each verb stand in one place, here:

``ends_group``  the next command may only be sent when every reply up to this one has come (RFC 2920, 3.1)
``wait``        which time-out governs the wait for its reply (RFC 5321, 4.5.3.2)
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final, TypeVar


class Wait(IntEnum):
    """What one side is waiting for; it selects the time-out (RFC 5321, 4.5.3.2)."""

    NOTHING = 0
    GREETING = 1
    EHLO = 2
    MAIL = 3
    RCPT = 4
    DATA = 5
    DATA_BLOCK = 6
    END_OF_DATA = 7
    OTHER = 8
    COMMAND = 9
    CLIENT_TLS = 10
    BACKEND_TLS = 11


class Verb:
    """One verb of the table; there is exactly one object for each, so verbs are compared with ``is``."""

    __slots__ = ("ends_group", "name", "wait")

    def __init__(self, name: bytes, wait: Wait, *, ends_group: bool) -> None:
        self.name = name
        self.wait = wait
        self.ends_group = ends_group

    def __repr__(self) -> str:
        return f"<{self.name.decode()}>"


HELO: Final = Verb(b"HELO", Wait.EHLO, ends_group=True)  # RFC 5321, 4.1.1.1
EHLO: Final = Verb(b"EHLO", Wait.EHLO, ends_group=True)  # RFC 5321, 4.1.1.1; RFC 2920, 3.1
LHLO: Final = Verb(b"LHLO", Wait.EHLO, ends_group=True)  # RFC 2033, 4.1
MAIL: Final = Verb(b"MAIL", Wait.MAIL, ends_group=False)  # RFC 5321, 4.1.1.2
RCPT: Final = Verb(b"RCPT", Wait.RCPT, ends_group=False)  # RFC 5321, 4.1.1.3
DATA: Final = Verb(b"DATA", Wait.DATA, ends_group=True)  # RFC 5321, 4.1.1.4
BDAT: Final = Verb(b"BDAT", Wait.END_OF_DATA, ends_group=False)  # RFC 3030, 2
RSET: Final = Verb(b"RSET", Wait.OTHER, ends_group=False)  # RFC 5321, 4.1.1.5
VRFY: Final = Verb(b"VRFY", Wait.OTHER, ends_group=True)  # RFC 5321, 4.1.1.6
EXPN: Final = Verb(b"EXPN", Wait.OTHER, ends_group=True)  # RFC 5321, 4.1.1.7
HELP: Final = Verb(b"HELP", Wait.OTHER, ends_group=True)  # RFC 5321, 4.1.1.8
NOOP: Final = Verb(b"NOOP", Wait.OTHER, ends_group=True)  # RFC 5321, 4.1.1.9
QUIT: Final = Verb(b"QUIT", Wait.OTHER, ends_group=True)  # RFC 5321, 4.1.1.10
ETRN: Final = Verb(b"ETRN", Wait.OTHER, ends_group=True)  # RFC 1985, 5
AUTH: Final = Verb(b"AUTH", Wait.OTHER, ends_group=True)  # RFC 4954, 4
STARTTLS: Final = Verb(b"STARTTLS", Wait.OTHER, ends_group=True)  # RFC 3207, 4
XCLIENT: Final = Verb(b"XCLIENT", Wait.OTHER, ends_group=True)  # Postfix's extension: who the client is

# Owed replies that no command line of the client asks for.
GREETING: Final = Verb(b"greeting", Wait.GREETING, ends_group=True)  # RFC 5321, 3.1
END_OF_DATA: Final = Verb(b"end of data", Wait.END_OF_DATA, ends_group=False)  # RFC 2920, 3.1
AUTH_RESPONSE: Final = Verb(b"AUTH response", Wait.OTHER, ends_group=True)  # RFC 4954, 4
CHUNKS_AS_DATA: Final = Verb(b"DATA", Wait.DATA, ends_group=True)  # the DATA that carries the chunks of BDAT (rule S9)
CLOSING: Final = Verb(b"closing", Wait.OTHER, ends_group=True)  # a last 421 or 554 that no command asked for

# Commands that we give a backend for our own sake; their replies are for no client.
OWN_GREETING: Final = Verb(b"greeting", Wait.GREETING, ends_group=True)  # of a session opened later (rules S15, S18)
OWN_EHLO: Final = Verb(b"EHLO", Wait.EHLO, ends_group=True)
OWN_HELO: Final = Verb(b"HELO", Wait.EHLO, ends_group=True)
OWN_RSET: Final = Verb(b"RSET", Wait.OTHER, ends_group=False)
OWN_QUIT: Final = Verb(b"QUIT", Wait.OTHER, ends_group=True)
OWN_STARTTLS: Final = Verb(b"STARTTLS", Wait.OTHER, ends_group=True)
OWN_XCLIENT: Final = Verb(b"XCLIENT", Wait.OTHER, ends_group=True)
OWN_XFORWARD: Final = Verb(b"XFORWARD", Wait.OTHER, ends_group=False)
HELO_INSTEAD: Final = Verb(b"HELO", Wait.EHLO, ends_group=True)  # for a client's EHLO that was refused (RFC 5321, 3.2)

# What a line can be that is no command: the reply is always an error of our own.
UNKNOWN: Final = Verb(b"unknown", Wait.NOTHING, ends_group=False)  # rule S16
CONTROLS: Final = Verb(b"control characters", Wait.NOTHING, ends_group=False)  # rules H1, H5
OVERLONG: Final = Verb(b"over-long", Wait.NOTHING, ends_group=False)  # rule H3
ENDLESS: Final = Verb(b"endless", Wait.NOTHING, ends_group=False)  # rule H3

NO_COMMANDS: Final = frozenset({UNKNOWN, CONTROLS, OVERLONG, ENDLESS})

VERBS: Final[dict[bytes, Verb]] = {
    verb.name: verb
    for verb in (
        HELO,
        EHLO,
        LHLO,
        MAIL,
        RCPT,
        DATA,
        BDAT,
        RSET,
        VRFY,
        EXPN,
        HELP,
        NOOP,
        QUIT,
        ETRN,
        AUTH,
        STARTTLS,
        XCLIENT,
    )
}

# A browser or a scanner on the mail port: no mail client sends these (rule H5).
HTTP_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH")
)

_WHOLE_LINE: Final = re.compile(rb"([A-Za-z]{4})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_CONTROL_CHARACTERS: Final = bytes(c for c in range(32) if c != 9) + b"\x7f"
_EVERYTHING_ELSE: Final = bytes(c for c in range(256) if c not in _CONTROL_CHARACTERS)
LARGEST_CHUNK: Final = 2**31 - 1
"""Octets in a chunk of BDAT: servers are known that count in 32 bits, and lose step above."""


class Command:
    """One command line: its verb (UNKNOWN and its like where it has none), and the line as it came, with CR LF."""

    __slots__ = ("raw", "verb")

    def __init__(self, verb: Verb, raw: bytes) -> None:
        self.verb = verb
        self.raw = raw

    @property
    def argument(self) -> bytes:
        """What stands behind the verb, without the spaces around it."""
        return self.raw[:-2].partition(b" ")[2].strip()


_AnyCommand = TypeVar("_AnyCommand", bound=Command)


def parse_command(raw: bytes, kind: type[_AnyCommand] = Command) -> _AnyCommand:  # type: ignore[assignment]  # PEP 696
    """Take one line with its CR LF apart (RFC 5321, 4.1.1); the verb may be in any case.

    ``kind`` is the class of what is given: Command, or one that is made in the same way.
    """
    word = raw[: raw.find(b" ")] if b" " in raw else raw[:-2]
    return kind(VERBS.get(word) or VERBS.get(word.upper(), UNKNOWN), raw)


def match_command(
    buffer: bytes,
    start: int,
    kind: type[_AnyCommand] = Command,  # type: ignore[assignment]  # PEP 696
) -> _AnyCommand | None:
    """Give the command at ``start``, if a whole line is there with a verb of the table and no control characters."""
    match = _WHOLE_LINE.match(buffer, start)
    if match is None:
        return None
    verb = VERBS.get(match[1]) or VERBS.get(match[1].upper())
    return None if verb is None else kind(verb, match[0])


def has_controls(text: bytes) -> bool:
    """Say whether ``text`` holds a control character other than TAB: bare CR, bare LF and NUL too (rules H1, H5)."""
    return bool(text.translate(None, _EVERYTHING_ELSE))


def is_http(raw: bytes) -> bool:
    """Say whether a refused line opens an HTTP request (rule H5)."""
    return raw.split(b" ", 1)[0] in HTTP_METHODS


def is_tls(raw: bytes) -> bool:
    """Say whether a refused line is the beginning of a TLS ClientHello (RFC 8446, 5.1; rule H5)."""
    return raw[:1] == b"\x16"


def parse_chunk_size(argument: bytes) -> tuple[int, bool] | None:
    """Read the argument of BDAT (RFC 3030, 2): octets in the chunk, and whether it is the last one.

    None means that it is malformed or absurd: the octets behind it cannot be skipped (rule S9).
    """
    words = argument.split()
    if not 1 <= len(words) <= 2:
        return None
    if not words[0].isdigit() or len(words[0]) > 10 or int(words[0]) > LARGEST_CHUNK:
        return None
    if len(words) == 2 and words[1].upper() != b"LAST":
        return None
    return int(words[0]), len(words) == 2
