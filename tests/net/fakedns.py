"""A resolver with answers by heart, for those who ask for TLSA and TXT records."""

from collections.abc import Callable
from typing import Any, NamedTuple

from smtpproxy.net.dane import Tlsa
from smtpproxy.net.resolver import Answer

NOTHING = Answer("nxdomain", secure=True)
TEMPFAIL = Answer("tempfail")


class TlsaRecord(NamedTuple):
    """As dnspython has it."""

    usage: int
    selector: int
    mtype: int
    cert: bytes


class TxtRecord(NamedTuple):
    """As dnspython has it."""

    strings: tuple[bytes, ...]


class Answers:
    """Answers at once, or when told to (``later``); writes down what it was asked."""

    def __init__(self, known: dict[str, Answer] | None = None, *, later: bool = False) -> None:
        self.known = known or {}
        self.asked: list[tuple[str, str]] = []
        self.waiting: list[Callable[[], None]] = []
        self._later = later

    def query(self, name: str, kind: str, found: Callable[[Answer], None]) -> None:
        self.asked.append((name, kind))
        answer = self.known.get(name, NOTHING)
        if self._later:
            self.waiting.append(lambda: found(answer))
        else:
            found(answer)


def tlsa_answer(*records: Tlsa, secure: bool = True) -> Answer:
    return Answer("ok", tuple(TlsaRecord(*record) for record in records), secure)


def txt_answer(*texts: bytes) -> Answer:
    return Answer("ok", tuple(TxtRecord((text,)) for text in texts))


def first(found: list[Any]) -> Any:
    """What was found; nothing is found twice."""
    assert len(found) == 1
    return found[0]
