"""DNS for deliveries: who waits for an answer and how long, and for how long it is remembered."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dnsserver import DnsServer
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from smtpproxy.config import Dns, Endpoint
from smtpproxy.net.resolver import Answer, Resolver, a_label

FOUND = Answer("ok", ("192.0.2.1",), name="mx.example.org")
NOTHING = Answer("nodata", name="mx.example.org")
NOWHERE = Answer("nxdomain", name="mx.example.org")
TROUBLE = Answer("tempfail", name="mx.example.org")


class Threads:
    """A reactor and its threads, in which a look-up lasts until the test gives its answer."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str]] = []
        self._waiting: dict[tuple[str, str], Any] = {}
        self.answers: dict[tuple[str, str], Any] = {}

    def getThreadPool(self) -> Threads:  # noqa: N802  # Twisted's name
        return self

    def callInThreadWithCallback(self, done: Any, function: Any, look_up: Any) -> None:  # noqa: N802  # Twisted's name
        what = function.__self__.what
        assert what not in self._waiting, "one look-up for many"
        self._waiting[what] = (done, function, look_up)

    def callFromThread(self, function: Any, *arguments: Any) -> None:  # noqa: N802  # Twisted's name
        function(*arguments)

    def look_up(self, name: str, kind: str) -> tuple[Answer, float]:
        self.started.append((name, kind))
        answer = self.answers.pop((name, kind))
        if isinstance(answer, Exception):
            raise answer
        found: tuple[Answer, float] = answer
        return found

    def answer(self, name: str, kind: str, answer: Answer | Exception, ttl: float = 300.0) -> None:
        """A thread comes to the question, and has the answer at once."""
        done, function, look_up = self._waiting.pop((name, kind))
        self.answers[name, kind] = answer if isinstance(answer, Exception) else (answer, ttl)
        try:
            result = function(look_up)
        except RuntimeError:
            done(False, Failure())  # noqa: FBT003  # Twisted's way to say that it went wrong
        else:
            done(True, result)  # noqa: FBT003  # and that it did not

    @property
    def waiting(self) -> list[tuple[str, str]]:
        return list(self._waiting)


class World:
    def __init__(self, *, most_under_way: int = 500, **settings: Any) -> None:
        self.threads = Threads()
        self.clock = Clock()
        self.resolver = Resolver(
            self.threads,
            self.clock,
            Dns(**{"lifetime": "20 s", **settings}),
            look_up=self.threads.look_up,
            most_under_way=most_under_way,
        )

    def query(self, name: str = "mx.example.org", kind: Any = "A") -> list[Answer]:
        """Ask; give the list into which the answer goes."""
        answers: list[Answer] = []
        self.resolver.query(name, kind, answers.append)
        return answers

    def answer(self, answer: Answer | Exception, ttl: float = 300.0) -> None:
        self.threads.answer("mx.example.org", "A", answer, ttl)


def test_one_look_up_for_all_who_ask() -> None:
    world = World()
    asked = [world.query() for _ in range(3)]
    other = [world.query("mx2.example.org"), world.query(kind="AAAA")]
    assert len(world.threads.waiting) == 3
    world.answer(FOUND)
    assert asked == [[FOUND]] * 3
    assert other == [[], []]
    assert len(world.clock.getDelayedCalls()) == 2, "nobody waits for the first one any more"


@pytest.mark.parametrize("name", ["MX.Example.ORG", "mx.example.org.", "mx.example.org"])
def test_case_and_the_final_dot_make_no_difference(name: str) -> None:
    world = World()
    world.query()
    asked = world.query(name)
    world.answer(FOUND)
    assert asked == [FOUND]
    assert world.query(name) == [FOUND], "at once"


def test_names_are_a_labels_on_the_wire() -> None:
    world = World()
    world.query("Bücher.example")
    assert world.threads.waiting == [("xn--bcher-kva.example", "A")]
    assert a_label("BÜCHER.example.") == "xn--bcher-kva.example"


def test_what_cannot_be_a_name_is_nowhere() -> None:
    world = World()
    assert [answer.status for answer in world.query("☃☃" * 40)] == ["nxdomain"]
    assert world.threads.waiting == []


@pytest.mark.parametrize(
    ("answer", "ttl", "kept"),
    [
        (FOUND, 300.0, 300.0),
        (FOUND, 1e9, 86400.0),
        (NOTHING, 60.0, 60.0),
        (NOTHING, 86400.0, 900.0),
        (NOWHERE, 60.0, 60.0),
        (NOWHERE, 86400.0, 900.0),
        (TROUBLE, 0.0, 5.0),
    ],
)
def test_an_answer_is_remembered_for_its_time_but_not_for_ever(answer: Answer, ttl: float, kept: float) -> None:
    world = World()
    world.query()
    world.clock.advance(1.0)
    world.answer(answer, ttl)
    world.clock.advance(kept - 1.0)
    assert world.query() == [answer], "at once"
    world.clock.advance(1.0)
    assert world.query() == []


@pytest.mark.parametrize("answer", [FOUND, NOTHING])
def test_an_answer_that_may_not_be_remembered_is_for_those_who_wait(answer: Answer) -> None:
    world = World()
    asked = [world.query(), world.query()]
    world.answer(answer, 0.0)
    assert asked == [[answer]] * 2
    assert world.resolver._known == {}, "nor is it kept for nothing"
    assert world.query() == []


def test_the_settings_bound_the_time() -> None:
    world = World(ttl_most="10 s", ttl_negative_most="3 s")
    for answer, kept in ((FOUND, 10.0), (NOTHING, 3.0)):
        world.query()
        world.answer(answer, 1000.0)
        world.clock.advance(kept - 0.5)
        assert world.query() == [answer]
        world.clock.advance(0.5)


def test_nobody_waits_for_ever() -> None:
    """lifetime, and some time more for a thread to be free."""
    world = World(lifetime="20 s")
    first = world.query()
    world.clock.advance(24.0)
    second = world.query()
    assert first == second == []
    world.clock.advance(1.0)
    assert [first, second] == [[TROUBLE], [TROUBLE]]
    assert world.query() == [TROUBLE], "at once"


def test_a_question_that_nobody_waits_for_is_not_asked() -> None:
    world = World()
    world.query()
    world.clock.pump([25.0, 5.0])
    world.answer(FOUND)
    assert world.threads.started == []
    asked = world.query()
    assert asked == []
    world.answer(FOUND)
    assert asked == [FOUND]


def test_who_joins_a_question_that_was_given_up_is_told() -> None:
    world = World()
    world.query()
    world.clock.pump([25.0, 5.0])
    asked = world.query()
    assert world.threads.waiting == [("mx.example.org", "A")], "still the same"
    world.answer(FOUND)
    assert asked == [FOUND]
    assert world.clock.getDelayedCalls() == []


def test_a_late_answer_is_for_the_next_one() -> None:
    """The thread had begun in time; here it ends late."""
    world = World()
    early = world.query()
    question = next(iter(world.resolver._under_way.values()))
    world.clock.advance(25.0)
    question.abandoned = False
    world.answer(FOUND)
    assert early == [TROUBLE], "nobody is told twice"
    assert world.query() == [FOUND]


def test_questions_under_way_are_bounded() -> None:
    world = World(most_under_way=2)
    waiting = [world.query(), world.query("mx2.example.org")]
    assert [answer.status for answer in world.query("mx3.example.org")] == ["tempfail"]
    waiting.append(world.query())
    assert waiting == [[], [], []], "to wait for one that is under way costs nothing"
    world.answer(FOUND)
    assert world.query("mx3.example.org") == [], "that there were too many is not remembered"


def test_the_answer_used_longest_ago_is_forgotten() -> None:
    world = World(entries=2)
    for name in ("a.example", "b.example"):
        world.query(name)
        world.threads.answer(name, "A", FOUND)
    assert world.query("a.example") == [FOUND]
    world.query("c.example")
    world.threads.answer("c.example", "A", FOUND)
    assert [world.query(f"{letter}.example") for letter in "acb"] == [[FOUND], [FOUND], []]


@pytest.fixture
def errors() -> Iterator[list[Any]]:
    """What is logged as failures."""
    events: list[Any] = []

    def keep(event: dict[str, Any]) -> None:
        if "log_failure" in event:
            events.append(event["log_failure"].value)

    publisher: Any = globalLogPublisher  # any callable will do, its type says less
    publisher.addObserver(keep)
    yield events
    publisher.removeObserver(keep)


def test_h10_a_look_up_with_a_bug_is_an_answer(errors: list[Any]) -> None:
    world = World()
    asked = world.query()
    world.answer(RuntimeError("boom"))
    assert asked == [TROUBLE]
    assert [str(problem) for problem in errors] == ["boom"]


def test_h10_who_cannot_take_the_answer_is_alone_with_that(errors: list[Any]) -> None:
    def cannot(_answer: Answer) -> None:
        raise RuntimeError("boom")

    world = World()
    world.resolver.query("mx.example.org", "A", cannot)
    asked = world.query()
    world.answer(FOUND)
    assert asked == [FOUND]
    assert [str(problem) for problem in errors] == ["boom"]


def test_who_gets_an_answer_may_ask_again() -> None:
    world = World()
    answers: list[Answer] = []
    world.resolver.query("mx.example.org", "A", lambda _: world.resolver.query("mx.example.org", "A", answers.append))
    world.answer(FOUND)
    assert answers == [FOUND]


STEPS = st.one_of(
    st.tuples(st.just("query"), st.sampled_from([f"{letter}.example" for letter in "abcdef"])),
    st.tuples(st.just("answer"), st.sampled_from([FOUND, NOTHING, NOWHERE, TROUBLE])),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 5.0, 26.0])),
)


@given(st.lists(STEPS, max_size=40))
def test_everybody_is_told_exactly_once_in_any_order(steps: list[tuple[str, Any]]) -> None:
    world = World(entries=3, most_under_way=3)
    told: list[list[Answer]] = []
    for kind, value in steps:
        if kind == "query":
            told.append(world.query(value))
        elif kind == "wait":
            world.clock.advance(value)
        elif world.threads.waiting:
            world.threads.answer(*world.threads.waiting[0], value, 3.0)
        assert len(world.threads.waiting) <= 3
        assert len(world.resolver._known) <= 3
    world.clock.advance(25.0)
    assert Counter(map(len, told)) == Counter({1: len(told)})
    assert world.clock.getDelayedCalls() == []


# --- threads -----------------------------------------------------------------------------------------------------


class Loop:
    """The part of a reactor that threads speak to."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def callFromThread(self, function: Any, *arguments: Any) -> None:  # noqa: N802  # Twisted's name
        self._calls.put(lambda: function(*arguments))

    def turn(self) -> None:
        self._calls.get(timeout=10.0)()


def test_a_server_is_asked_in_a_thread_and_the_answer_comes_in_ours() -> None:
    told: list[tuple[Answer, threading.Thread]] = []
    loop, pool = Loop(), ThreadPool(1, 1)
    with DnsServer({"mx.example.org": {"A": ["192.0.2.1"]}}) as server:
        pool.start()
        try:
            settings = Dns(servers=(Endpoint("tcp", server.address, server.port),))
            resolver = Resolver(loop, Clock(), settings, pool=pool)
            resolver.query("mx.example.org", "A", lambda answer: told.append((answer, threading.current_thread())))
            loop.turn()
        finally:
            pool.stop()
    assert [([str(record) for record in answer.records], thread) for answer, thread in told] == [
        (["192.0.2.1"], threading.current_thread())
    ]
