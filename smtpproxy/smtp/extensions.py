"""The EHLO reply of a backend, and the one that a client gets instead (RFC 5321, 4.1.1.1; rules S1, S7, S9).

The reply is the backend's own, line by line, less what the proxy does not know how to carry from end to end, plus
what it provides by itself.  As all sessions of a backend get the same keywords, the work is done once for each
distinct reply and remembered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

PIPELINING: Final = b"PIPELINING"
CHUNKING: Final = b"CHUNKING"
BINARYMIME: Final = b"BINARYMIME"
STARTTLS: Final = b"STARTTLS"
XCLIENT: Final = b"XCLIENT"
XFORWARD: Final = b"XFORWARD"
AUTH: Final = b"AUTH"
_REMEMBERED: Final = 64
_FOR_US: Final = frozenset({STARTTLS, XCLIENT, XFORWARD})

# Which extension a parameter of MAIL or RCPT belongs to (rule S18).
_PARAMETERS: Final[dict[bytes, bytes]] = {
    b"SIZE": b"SIZE",  # RFC 1870
    b"BODY": b"8BITMIME",  # RFC 6152
    b"SMTPUTF8": b"SMTPUTF8",  # RFC 6531
    b"RET": b"DSN",  # RFC 3461
    b"ENVID": b"DSN",
    b"NOTIFY": b"DSN",
    b"ORCPT": b"DSN",
    b"BY": b"DELIVERBY",  # RFC 2852
    b"MT-PRIORITY": b"MT-PRIORITY",  # RFC 6710
    b"AUTH": b"AUTH",  # RFC 4954
}


class Extensions:
    """What one EHLO reply says, and how it reads for a client once adapted."""

    __slots__ = ("_early", "_plain", "chunking", "dropped", "keywords", "pipelining", "starttls", "xclient", "xforward")

    def __init__(
        self, keywords: dict[bytes, bytes], plain: list[bytes], early: list[bytes], dropped: list[bytes]
    ) -> None:
        useless = _FOR_US if CHUNKING in keywords else _FOR_US | {BINARYMIME}
        self.keywords = frozenset(keywords) - useless
        """The keywords that the backend sent, in upper case, as far as a client can make use of them."""
        self.starttls = STARTTLS in keywords
        self.xclient = frozenset(keywords.get(XCLIENT, b"").upper().split())
        """The attributes that the backend takes from us with XCLIENT; none if it does not take it."""
        self.xforward = frozenset(keywords.get(XFORWARD, b"").upper().split())
        self.pipelining = PIPELINING in keywords
        self.chunking = CHUNKING in keywords
        self.dropped = dropped
        """Keywords that were not passed on."""
        self._plain = _tail(plain)
        self._early = _tail(plain + early)

    def reply(self, head: bytes, *, early: bool) -> bytes:
        """Give the whole EHLO reply, first line ``head`` (text without code); ``early`` adds early pipelining (S1)."""
        return b"250-" + head + (self._early if early else self._plain)

    def missing(self, promised: frozenset[bytes]) -> frozenset[bytes]:
        """Give the extensions that a client was told of and this server has not (rule S18)."""
        return promised - self.keywords


class ExtensionPolicy:
    """How the EHLO replies of one listener are made (rule S7)."""

    __slots__ = ("_allowed", "_chunking", "_early", "_memory", "_message_size", "_ours", "_recipients", "nothing")

    def __init__(
        self,
        allowed: Iterable[str],
        early_keywords: Iterable[str],
        *,
        chunking: bool,
        message_size: int | None,
        recipients: int,
        auth: bool = True,
        also: Iterable[bytes] = (),
    ) -> None:
        """Take the allow-list, the keywords of early pipelining (S1), whether BDAT is offered, and our own limits.

        ``auth``: whether AUTH may be passed on; ``also``: lines of our own, such as STARTTLS.
        """
        self._allowed = frozenset(keyword.upper().encode() for keyword in allowed) - (frozenset() if auth else {AUTH})
        self._early = [keyword.encode() for keyword in early_keywords]
        self._chunking = chunking
        self._ours = [PIPELINING, *([CHUNKING] if chunking else []), *also]
        self._message_size = message_size
        self._recipients = recipients
        self._memory: dict[bytes, Extensions] = {}
        self.nothing = self._adapt([])
        """The extensions for a backend that has none: it only knows HELO."""

    def adapt(self, raw: bytes) -> tuple[bytes, Extensions]:
        """Take a backend's positive EHLO reply; give the text of its first line, and its extensions."""
        end = raw.find(b"\r\n")
        head, tail = raw[4:end], raw[end + 2 :]
        extensions = self._memory.get(tail)
        if extensions is None:
            if len(self._memory) >= _REMEMBERED:
                self._memory.clear()
            extensions = self._memory[tail] = self._adapt([line[4:] for line in tail.split(b"\r\n")[:-1]])
        return head, extensions

    def _adapt(self, lines: list[bytes]) -> Extensions:
        keywords: dict[bytes, bytes] = {}
        for line in lines:
            keyword, _, value = line.strip().partition(b" ")
            if keyword:
                keywords.setdefault(keyword.upper(), value)
        passed: list[bytes] = []
        dropped: list[bytes] = []
        for keyword, value in keywords.items():
            if keyword in (PIPELINING, CHUNKING):
                continue
            if keyword not in self._allowed or (keyword == BINARYMIME and not self._binary(keywords)):
                dropped.append(keyword)
            else:
                passed.append(self._line(keyword, value))
        return Extensions(keywords, self._ours + passed, self._early, dropped)

    def _binary(self, keywords: dict[bytes, bytes]) -> bool:
        return self._chunking and CHUNKING in keywords

    def _line(self, keyword: bytes, value: bytes) -> bytes:
        if keyword == b"SIZE":
            value = self._size(value)
        elif keyword == b"LIMITS":
            value = b" ".join(self._limit(limit) for limit in value.split())
        return keyword + b" " + value if value else keyword

    def _size(self, value: bytes) -> bytes:
        """Give the smaller of two limits; none or 0 is no limit (RFC 1870, 3)."""
        if self._message_size is None:
            return value
        theirs = int(value) if value.isdigit() else 0
        return b"%d" % (min(theirs, self._message_size) if theirs else self._message_size)

    def _limit(self, limit: bytes) -> bytes:
        """Give one item of LIMITS (RFC 9422, 4), the number of recipients not above our own."""
        name, _, value = limit.partition(b"=")
        if name.upper() == b"RCPTMAX" and value.isdigit():
            return b"%s=%d" % (name, min(int(value), self._recipients))
        return limit


def extensions_used(parameters: list[tuple[bytes, bytes]]) -> set[bytes]:
    """Give the extensions that the parameters of a MAIL or RCPT command belong to."""
    used = {_PARAMETERS[keyword] for keyword, _ in parameters if keyword in _PARAMETERS}
    if any(keyword == b"BODY" and value.upper() == b"BINARYMIME" for keyword, value in parameters):
        used.add(BINARYMIME)
    return used


def _tail(lines: list[bytes]) -> bytes:
    middle = b"".join(b"\r\n250-" + line for line in lines[:-1])
    return middle + b"\r\n250 " + lines[-1] + b"\r\n"
