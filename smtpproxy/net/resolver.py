"""DNS for deliveries: answers are remembered for as long as they are good, and nobody waits too long.

The questions themselves (``dnslookup``) block and run in threads.  A question that is asked while it is under way is
not asked again; whoever asks joins those who wait.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from smtpproxy.config.domains import domain_spellings
from smtpproxy.net.dnslookup import Answer, Kind, Lookup

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from smtpproxy.config import Dns

__all__ = ["Answer", "Kind", "Lookup", "Resolver", "a_label"]

# How long trouble is remembered: only that the many who ask at the same time do not each wait for it.
_TROUBLE: Final = 5.0
# How much longer than a look-up takes at most anybody waits.
_WAITING_FOR_A_THREAD: Final = 5.0

_log: Final = Logger()


class Resolver:
    """Answers questions about names."""

    def __init__(
        self,
        reactor: Any,
        clock: Any,
        settings: Dns,
        *,
        look_up: Callable[[str, Kind], tuple[Answer, float]] | None = None,
        pool: Any = None,
        most_under_way: int = 10_000,
    ) -> None:
        """Begin with nothing known.

        ``reactor``: IReactorFromThreads; ``pool``: twisted.python.threadpool.ThreadPool, the reactor's own by default;
        ``clock``: IReactorTime.  ``look_up``: what runs in a thread, by default a Lookup.  ``most_under_way``:
        questions at a time.
        """
        self._reactor = reactor
        self._clock = clock
        self._pool = reactor.getThreadPool() if pool is None else pool
        self._settings = settings
        self._look_up = Lookup(settings) if look_up is None else look_up
        self._patience = settings.lifetime + _WAITING_FOR_A_THREAD
        self._most_under_way = most_under_way
        self._known: OrderedDict[tuple[str, Kind], tuple[Answer, float]] = OrderedDict()  # those used last are last
        self._under_way: dict[tuple[str, Kind], _Question] = {}

    def query(self, name: str, kind: Kind, found: Callable[[Answer], None]) -> None:
        """Ask for the records of a name, in any case and spelling, with or without final dot.

        ``found`` is called exactly once, in the reactor's thread: before this method returns if the answer is known.
        "tempfail" also means: it took too long, or there are too many questions.
        """
        try:
            what = (a_label(name), kind)
        except ValueError:
            found(Answer("nxdomain", name=name))
            return
        answer = self._remembered(what)
        if answer is not None:
            found(answer)
            return
        question = self._under_way.get(what)
        if question is None:
            if len(self._under_way) >= self._most_under_way:
                found(Answer("tempfail", name=what[0]))
                return
            question = self._ask(what)
        question.askers.append(found)
        question.abandoned = False
        if question.end_of_patience is None:
            question.end_of_patience = self._clock.callLater(self._patience, self._too_late, question)

    def _ask(self, what: tuple[str, Kind]) -> _Question:
        question = self._under_way[what] = _Question(what)
        answering = deferToThreadPool(self._reactor, self._pool, question.ask, self._look_up)
        answering.addErrback(_failed).addCallback(self._answered, question)
        return question

    def _remembered(self, what: tuple[str, Kind]) -> Answer | None:
        known = self._known.get(what)
        if known is None:
            return None
        answer, until = known
        if until <= self._clock.seconds():
            del self._known[what]
            return None
        self._known.move_to_end(what)
        return answer

    def _too_late(self, question: _Question) -> None:
        question.end_of_patience = None
        question.abandoned = True
        question.tell(self._remember(question, Answer("tempfail", name=question.what[0]), _TROUBLE))

    def _answered(self, result: tuple[Answer, float] | None, question: _Question) -> None:
        del self._under_way[question.what]
        if question.end_of_patience is not None:
            question.end_of_patience.cancel()
            question.end_of_patience = None
        question.tell(
            Answer("tempfail", name=question.what[0]) if result is None else self._remember(question, *result)
        )

    def _remember(self, question: _Question, answer: Answer, ttl: float) -> Answer:
        if answer.status == "tempfail":
            ttl = _TROUBLE
        found = answer.status in {"ok", "tempfail"}
        if ttl <= 0:
            return answer
        most = self._settings.ttl_most if found else self._settings.ttl_negative_most
        self._known[question.what] = (answer, self._clock.seconds() + min(ttl, most))
        self._known.move_to_end(question.what)
        if len(self._known) > self._settings.entries:
            self._known.popitem(last=False)
        return answer


class _Question:
    """A question under way, and those who wait for the answer."""

    __slots__ = ("abandoned", "askers", "end_of_patience", "what")

    def __init__(self, what: tuple[str, Kind]) -> None:
        self.what = what
        self.askers: list[Callable[[Answer], None]] = []
        self.abandoned = False  # nobody waits any more; read in another thread, too
        self.end_of_patience: Any = None  # IDelayedCall while anybody waits

    def ask(self, look_up: Callable[[str, Kind], tuple[Answer, float]]) -> tuple[Answer, float] | None:
        """Ask, in a thread; None if nobody waits any more when the thread comes to it.

        Where DNS is down the questions of a busy hour would otherwise keep the threads from those of today.
        """
        return None if self.abandoned else look_up(*self.what)

    def tell(self, answer: Answer) -> None:
        """Tell everybody; none of them can keep it from the others (rule H10)."""
        askers, self.askers = self.askers, []
        for found in askers:
            try:
                found(answer)
            except Exception:
                _log.failure("an answer of DNS could not be passed on")


def _failed(failure: Failure) -> None:
    _log.failure("a question to DNS failed", failure)


def a_label(name: str) -> str:
    """Write a name as DNS knows it: A-labels in lower case (RFC 5890), without final dot.

    Raises ValueError if it is not in ASCII and no domain either.  What is in ASCII is not judged.
    """
    if name.isascii():
        return name.lower().removesuffix(".")
    return domain_spellings(name.removesuffix("."))[0]
