"""The names of clients, as servers want them in XCLIENT and XFORWARD: looked up backwards, and confirmed forwards.

The look-ups are the system's own (getnameinfo(3), getaddrinfo(3)), which block, and for long if a name server is away:
they run in threads.  Whoever asks waits no longer than our own time-out.  A look-up goes on after that, and what it
finds late is good for the next client from there.
"""

from __future__ import annotations

import re
import socket
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from smtpproxy.smtp.xclient import TEMPUNAVAIL, UNAVAILABLE, plain_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

_TEMPORARY: Final = frozenset({socket.EAI_AGAIN, socket.EAI_MEMORY})
_LONGEST_NAME: Final = 253

# RFC 1123 section 2.1, and the underscore, which some hosts have and Postfix takes.  The last label begins with a
# letter, as those of all hosts do: getaddrinfo takes "192.0.2.1", "0x7f.1" and "3221225985" for addresses, which would
# then confirm themselves.
_REST_OF_LABEL: Final = r"(?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"(?:[A-Za-z0-9_]{_REST_OF_LABEL}\.)*[A-Za-z]{_REST_OF_LABEL}")

_log: Final = Logger()


def look_up(address: str) -> bytes:
    """Find the name of an IPv4 or IPv6 address; blocks.

    Gives the name if it has the form of a host name and the address is among its own; UNAVAILABLE if there is no such
    name; TEMPUNAVAIL if that could not be found out now.  Raises ValueError where ``address`` is no address.
    """
    wanted = plain_address(address)
    family = socket.AF_INET if wanted.version == 4 else socket.AF_INET6
    try:
        name, _ = socket.getnameinfo((str(wanted), 0), socket.NI_NAMEREQD)
        name = name.removesuffix(".")
        if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
            return UNAVAILABLE
        found = socket.getaddrinfo(name.encode("ascii"), None, family, socket.SOCK_STREAM)
    except socket.gaierror as problem:
        return TEMPUNAVAIL if problem.errno in _TEMPORARY else UNAVAILABLE
    except OSError:  # EAI_SYSTEM, as Python reports it
        return TEMPUNAVAIL
    confirmed = any(plain_address(str(sockaddr[0])) == wanted for *_, sockaddr in found)
    return name.encode("ascii") if confirmed else UNAVAILABLE


class Names:
    """Finds the names of addresses, and remembers them for a while."""

    def __init__(
        self,
        reactor: Any,
        clock: Any,
        *,
        pool: Any = None,
        timeout: float = 5.0,
        ttl: float = 300.0,
        ttl_of_trouble: float = 30.0,
        most: int = 4096,
        most_under_way: int = 64,
        look_up: Callable[[str], bytes] = look_up,
    ) -> None:
        """Begin with nothing known.

        ``reactor``: IReactorFromThreads; ``pool``: twisted.python.threadpool.ThreadPool, the reactor's own by default;
        ``clock``: IReactorTime.  ``timeout``: seconds that anybody waits; ``ttl``: seconds for which an answer is good,
        ``ttl_of_trouble``: for which TEMPUNAVAIL is.  ``most``: addresses remembered; ``most_under_way``: look-ups at a
        time, those included that nobody waits for any more.  ``look_up``: what runs in a thread, see above.
        """
        self._reactor = reactor
        self._clock = clock
        self._pool = reactor.getThreadPool() if pool is None else pool
        self._timeout = timeout
        self._ttl = ttl
        self._ttl_of_trouble = min(ttl_of_trouble, ttl)
        self._most = most
        self._most_under_way = most_under_way
        self._look_up = look_up
        self._answers: OrderedDict[str, tuple[bytes, float]] = OrderedDict()  # those used last are last
        self._under_way: dict[str, _Question] = {}

    def find(self, address: str, found: Callable[[bytes], None]) -> None:
        """Find the name of an address (textual, IPv4 or IPv6; empty for a client on a Unix socket).

        ``found`` gets the name, UNAVAILABLE if there is none that its own address confirms, or TEMPUNAVAIL if a look-up
        failed, took too long, or there were too many.  It is called exactly once, in the reactor's thread: before this
        method returns if the answer is known or cannot be looked up.
        """
        answer = self._known(address)
        if answer is not None:
            found(answer)
            return
        question = self._under_way.get(address)
        if question is not None:
            self._wait(question, found)
        elif not _is_address(address):
            found(UNAVAILABLE)
        elif len(self._under_way) >= self._most_under_way:
            found(TEMPUNAVAIL)
        else:
            question = self._under_way[address] = _Question(address)
            self._wait(question, found)
            answering = deferToThreadPool(self._reactor, self._pool, self._look_up, address)
            answering.addErrback(_failed).addCallback(self._answered, question)

    def _known(self, address: str) -> bytes | None:
        known = self._answers.get(address)
        if known is None:
            return None
        answer, until = known
        if until <= self._clock.seconds():
            del self._answers[address]
            return None
        self._answers.move_to_end(address)
        return answer

    def _wait(self, question: _Question, found: Callable[[bytes], None]) -> None:
        question.askers.append(found)
        if question.end_of_patience is None:
            question.end_of_patience = self._clock.callLater(self._timeout, self._too_late, question)

    def _too_late(self, question: _Question) -> None:
        question.end_of_patience = None
        self._remember(question.address, TEMPUNAVAIL)
        question.tell(TEMPUNAVAIL)

    def _answered(self, answer: bytes, question: _Question) -> None:
        del self._under_way[question.address]
        if question.end_of_patience is not None:
            question.end_of_patience.cancel()
        self._remember(question.address, answer)
        question.tell(answer)

    def _remember(self, address: str, answer: bytes) -> None:
        ttl = self._ttl_of_trouble if answer == TEMPUNAVAIL else self._ttl
        self._answers[address] = (answer, self._clock.seconds() + ttl)
        self._answers.move_to_end(address)
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)


class _Question:
    """A look-up under way, and those who wait for it."""

    __slots__ = ("address", "askers", "end_of_patience")

    def __init__(self, address: str) -> None:
        self.address = address
        self.askers: list[Callable[[bytes], None]] = []
        self.end_of_patience: Any = None  # IDelayedCall while anybody waits

    def tell(self, answer: bytes) -> None:
        """Tell everybody; none of them can keep it from the others (rule H10)."""
        askers, self.askers = self.askers, []
        for found in askers:
            try:
                found(answer)
            except Exception:
                _log.failure("a client's name could not be passed on")


def _failed(failure: Failure) -> bytes:
    _log.failure("a look-up failed", failure)
    return TEMPUNAVAIL


def _is_address(text: str) -> bool:
    try:
        plain_address(text)
    except ValueError:
        return False
    return True
