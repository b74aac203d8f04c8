"""Forward paths: the domain that a recipient will really go to, read so that no backend can read another one.

A listener may be the only thing between the world and a backend that relays for anybody who comes from our address
(rule S14).  So the reading is not the widest but the narrowest: old address forms by which a server can be talked
into relaying (source routes, the percent hack, bang paths, quoted local parts that hold a second address) have no
domain here, and what has no domain is not passed on.
"""

from __future__ import annotations

import re
from typing import Final

# local part: an RFC 5321 dot-string with UTF-8 (RFC 6531), less % and !, by which routes are written
_ATEXT: Final = rb"[A-Za-z0-9#$&'*+\-/=?^_`{|}~.\x80-\xff]"
# quoted: without the characters that could begin another address inside, and without quoted pairs
_QUOTED: Final = rb'"[^"\\@%!<>:\x00-\x1f\x7f]*"'
_DOMAIN: Final = rb"[A-Za-z0-9\-_.\x80-\xff]+|\[[A-Za-z0-9:.\-]+\]"
_FORWARD_PATH: Final = re.compile(
    rb"TO:[ \t]*<(?:(?:" + _ATEXT + rb"+|" + _QUOTED + rb")@(" + _DOMAIN + rb")|(postmaster))>(?:[ \t][^<>]*)?\Z",
    re.IGNORECASE,
)

POSTMASTER: Final = "postmaster"
"""What ``recipient_domain`` gives for ``<postmaster>``, which every server must accept (RFC 5321, 4.5.1)."""


def recipient_domain(argument: bytes) -> str | None:
    """Give the domain of RCPT's argument in lower case, or ``postmaster`` for the path without one.

    None: the path is malformed, or in a form that different servers read differently; nobody can tell where it
    leads, so it is in no domain (rule S14).
    """
    match = _FORWARD_PATH.match(argument)
    if match is None:
        return None
    if match.group(2) is not None:
        return POSTMASTER
    try:
        match.group().decode("utf-8")
        domain: str = match.group(1).decode("utf-8")
    except UnicodeDecodeError:
        return None
    if not domain.isascii() and any(not c.isascii() and c.lower().isascii() for c in domain):
        # KELVIN SIGN and its like are another letter for one server and the same for the next.
        return None
    return domain.lower()


def parameters(argument: bytes) -> list[tuple[bytes, bytes]]:
    """Give the ESMTP parameters behind the path of MAIL or RCPT as (keyword in upper case, value) (RFC 5321, 4.1.2).

    The path is only skipped, not judged: its angle brackets may hold quoted spaces and brackets.
    """
    words = argument[_path_end(argument) :].split()
    return [(keyword.upper(), value) for keyword, _, value in (word.partition(b"=") for word in words)]


def _path_end(argument: bytes) -> int:
    """Give where the path ends: behind its closing bracket, or before the first space where it has none."""
    if b'"' not in argument and b"\\" not in argument and b">" in argument:
        return argument.index(b">") + 1
    quoted = False
    escaped = False
    for index, octet in enumerate(argument):
        if escaped:
            escaped = False
        elif octet == 0x5C:
            escaped = True
        elif octet == 0x22:
            quoted = not quoted
        elif octet == 0x3E and not quoted:
            return index + 1
    start = argument.find(b":") + 1
    path = argument[start:].lstrip()
    space = path.find(b" ")
    return len(argument) if space < 0 else len(argument) - len(path) + space


def path_of(raw: bytes) -> bytes:
    """Give the path in a MAIL or RCPT line, without its brackets, for a log."""
    argument = raw[5:].rstrip(b"\r\n")
    path = argument[: _path_end(argument)].partition(b":")[2].strip()
    return path[1:-1] if path[:1] == b"<" and path[-1:] == b">" else path
