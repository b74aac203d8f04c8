"""The names of clients: what counts as one, who waits for a look-up and how long, what is remembered."""

from __future__ import annotations

import queue
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from smtpproxy.net.names import Names, look_up
from smtpproxy.smtp.xclient import TEMPUNAVAIL, UNAVAILABLE

MAIL = b"mail.example.org"

# --- one look-up -------------------------------------------------------------------------------------------------


class Resolver:
    """Stands in for the C library; what it does not know has no name, and no address."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, str | Exception] = {}
        self.addresses: dict[bytes, list[str] | Exception] = {}
        self.families: list[int] = []
        monkeypatch.setattr(socket, "getnameinfo", self.getnameinfo)
        monkeypatch.setattr(socket, "getaddrinfo", self.getaddrinfo)

    def getnameinfo(self, sockaddr: tuple[str, int], flags: int) -> tuple[str, str]:
        assert flags == socket.NI_NAMEREQD
        return self._given(self.names.get(sockaddr[0])), "0"

    def getaddrinfo(self, host: bytes, port: None, family: int, kind: int) -> list[Any]:
        assert (port, kind) == (None, socket.SOCK_STREAM)
        self.families.append(family)
        return [(family, kind, 6, "", (address, 0)) for address in self._given(self.addresses.get(host))]

    @staticmethod
    def _given(answer: Any) -> Any:
        if answer is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    return Resolver(monkeypatch)


@pytest.mark.parametrize(
    ("address", "asked", "family"),
    [
        ("192.0.2.1", "192.0.2.1", socket.AF_INET),
        ("::ffff:192.0.2.1", "192.0.2.1", socket.AF_INET),
        ("2001:DB8:0::1", "2001:db8::1", socket.AF_INET6),
        ("fe80::1%eth0", "fe80::1", socket.AF_INET6),
    ],
)
def test_a_name_that_its_own_address_confirms(resolver: Resolver, address: str, asked: str, family: int) -> None:
    resolver.names[asked] = "mail.example.org"
    resolver.addresses[MAIL] = ["192.0.2.9", "2001:db8:0:0::9", asked]
    assert look_up(address) == MAIL
    assert resolver.families == [family]


def test_a_name_without_its_last_dot(resolver: Resolver) -> None:
    resolver.names["192.0.2.1"] = "mail.example.org."
    resolver.addresses[MAIL] = ["192.0.2.1"]
    assert look_up("192.0.2.1") == MAIL


def test_a_name_that_belongs_to_somebody_else(resolver: Resolver) -> None:
    resolver.names["192.0.2.1"] = "mail.example.org"
    resolver.addresses[MAIL] = ["192.0.2.2"]
    assert look_up("192.0.2.1") == UNAVAILABLE


def test_no_name(resolver: Resolver) -> None:
    assert look_up("192.0.2.1") == UNAVAILABLE
    assert resolver.families == [], "nothing to confirm"


def test_a_name_without_an_address(resolver: Resolver) -> None:
    resolver.names["192.0.2.1"] = "mail.example.org"
    assert look_up("192.0.2.1") == UNAVAILABLE


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), TEMPUNAVAIL),
        (socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure"), TEMPUNAVAIL),
        (OSError(23, "Too many open files in system"), TEMPUNAVAIL),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure in name resolution"), UNAVAILABLE),
        (socket.gaierror(socket.EAI_NODATA, "No address associated with hostname"), UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("step", ["backwards", "forwards"])
def test_what_may_change_and_what_will_not(resolver: Resolver, step: str, problem: Exception, answer: bytes) -> None:
    resolver.names["192.0.2.1"] = problem if step == "backwards" else "mail.example.org"
    resolver.addresses[MAIL] = problem
    assert look_up("192.0.2.1") == answer


LONG = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])


@pytest.mark.parametrize(
    "name",
    ["a", "localhost", "A-1.Example.ORG", "1.example.org", "a--b.example", "xn--bcher-kva.example", "_a.b_c.org", LONG],
)
def test_names_that_are_taken(resolver: Resolver, name: str) -> None:
    resolver.names["192.0.2.1"] = name
    resolver.addresses[name.encode()] = ["192.0.2.1"]
    assert look_up("192.0.2.1") == name.encode()


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "a..b",
            ".a",
            "a.b..",
            "-a.example.org",
            "a-.example.org",
            "a.example-",
            "a" * 64 + ".org",
            "x" + LONG,
        ),
        *(
            "a b.org",
            "a\r\nb.org",
            "a.org\n",
            "a.org\0",
            "a=b.org",
            "[a.org]",
            "a/b.org",
            "bücher.example",
            "\u212a.org",
        ),
        # getaddrinfo would take these for addresses, and find them confirmed.
        *("192.0.2.1", "3221225985", "0xc0000201", "192.0.513", "192.0.2.0x1", "2001:db8::1"),
    ],
)
def test_names_that_nobody_gets_to_see(resolver: Resolver, name: str) -> None:
    resolver.names["192.0.2.1"] = name
    resolver.addresses = {name.encode(): ["192.0.2.1"], name.removesuffix(".").encode(): ["192.0.2.1"]}
    assert look_up("192.0.2.1") == UNAVAILABLE
    assert resolver.families == [], "not even asked for"


# --- many --------------------------------------------------------------------------------------------------------


class Threads:
    """A reactor and its threads, in which a look-up lasts until the test gives its answer."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self._running: dict[str, Callable[[bool, Any], None]] = {}

    def getThreadPool(self) -> Threads:  # noqa: N802  # Twisted's name
        return self

    def callInThreadWithCallback(self, done: Any, function: Any, address: str) -> None:  # noqa: N802  # Twisted's name
        assert function is look_up
        assert address not in self._running, "one look-up for many"
        self.started.append(address)
        self._running[address] = done

    def callFromThread(self, function: Any, *arguments: Any) -> None:  # noqa: N802  # Twisted's name
        function(*arguments)

    def answer(self, address: str, answer: bytes) -> None:
        self._running.pop(address)(True, answer)  # noqa: FBT003  # Twisted's way to say that it went well

    def fail(self, address: str, problem: Exception) -> None:
        self._running.pop(address)(False, Failure(problem))  # noqa: FBT003  # and that it did not

    @property
    def running(self) -> list[str]:
        return list(self._running)


class World:
    def __init__(self, **settings: Any) -> None:
        self.threads = Threads()
        self.clock = Clock()
        self.names = Names(self.threads, self.clock, **settings)

    def find(self, address: str) -> list[bytes]:
        """Ask; give the list into which the answer goes."""
        answers: list[bytes] = []
        self.names.find(address, answers.append)
        return answers


def test_one_look_up_for_all_who_ask() -> None:
    world = World()
    asked = [world.find("192.0.2.1") for _ in range(3)]
    other = world.find("192.0.2.2")
    assert world.threads.started == ["192.0.2.1", "192.0.2.2"]
    world.threads.answer("192.0.2.1", MAIL)
    assert asked == [[MAIL]] * 3
    assert other == []
    assert len(world.clock.getDelayedCalls()) == 1, "nobody waits for the first one any more"


@pytest.mark.parametrize("answer", [MAIL, UNAVAILABLE])
def test_an_answer_is_remembered_for_a_while(answer: bytes) -> None:
    world = World(ttl=300.0)
    world.find("192.0.2.1")
    world.clock.advance(1.0)
    world.threads.answer("192.0.2.1", answer)
    world.clock.advance(299.0)
    assert world.find("192.0.2.1") == [answer], "at once"
    world.clock.advance(1.0)
    assert world.find("192.0.2.1") == []
    assert world.threads.running == ["192.0.2.1"]


@pytest.mark.parametrize(("ttl", "expected"), [(300.0, 30.0), (10.0, 10.0)])
def test_trouble_is_remembered_for_a_shorter_while(ttl: float, expected: float) -> None:
    world = World(ttl=ttl, ttl_of_trouble=30.0)
    world.find("192.0.2.1")
    world.threads.answer("192.0.2.1", TEMPUNAVAIL)
    world.clock.advance(expected - 1.0)
    assert world.find("192.0.2.1") == [TEMPUNAVAIL]
    world.clock.advance(1.0)
    assert world.find("192.0.2.1") == []


def test_nobody_waits_longer_than_the_time_out() -> None:
    world = World(timeout=5.0)
    first = world.find("192.0.2.1")
    world.clock.advance(4.0)
    second = world.find("192.0.2.1")
    assert first == second == []
    world.clock.advance(1.0)
    assert first == second == [TEMPUNAVAIL]
    assert world.find("192.0.2.1") == [TEMPUNAVAIL], "at once, while the look-up goes on"
    assert world.threads.running == ["192.0.2.1"]


def test_a_late_answer_is_for_the_next_one() -> None:
    world = World(timeout=5.0)
    early = world.find("192.0.2.1")
    world.clock.advance(6.0)
    world.threads.answer("192.0.2.1", MAIL)
    assert early == [TEMPUNAVAIL], "nobody is told twice"
    assert world.find("192.0.2.1") == [MAIL]
    assert world.clock.getDelayedCalls() == []


def test_who_asks_while_a_late_look_up_goes_on_waits_for_it() -> None:
    """Once the first time-out is forgotten; and no longer than everybody else."""
    world = World(timeout=5.0, ttl_of_trouble=30.0)
    world.find("192.0.2.1")
    world.clock.advance(5.0)
    world.clock.advance(30.0)
    lucky = world.find("192.0.2.1")
    assert lucky == []
    world.clock.advance(4.9)
    assert lucky == []
    world.clock.advance(0.1)
    assert lucky == [TEMPUNAVAIL]
    assert world.threads.started == ["192.0.2.1"]
    world.clock.advance(30.0)
    lucky = world.find("192.0.2.1")
    world.threads.answer("192.0.2.1", MAIL)
    assert lucky == [MAIL]


def test_look_ups_under_way_are_bounded_the_late_ones_too() -> None:
    world = World(most_under_way=2, timeout=5.0)
    waiting = [world.find("192.0.2.1"), world.find("192.0.2.2")]
    assert world.find("192.0.2.3") == [TEMPUNAVAIL]
    waiting.append(world.find("192.0.2.2"))
    assert waiting == [[], [], []], "to wait for one that is under way costs nothing"
    world.clock.advance(6.0)
    assert world.find("192.0.2.3") == [TEMPUNAVAIL]
    world.threads.answer("192.0.2.1", MAIL)
    third = world.find("192.0.2.3")
    assert third == [], "that there were too many is not remembered"
    world.threads.answer("192.0.2.3", MAIL)
    assert third == [MAIL]


def test_the_address_used_longest_ago_is_forgotten() -> None:
    world = World(most=2)
    for address in ("192.0.2.1", "192.0.2.2"):
        world.find(address)
        world.threads.answer(address, MAIL)
    assert world.find("192.0.2.1") == [MAIL]
    world.find("192.0.2.3")
    world.threads.answer("192.0.2.3", MAIL)
    assert [world.find(f"192.0.2.{number}") for number in (1, 3, 2)] == [[MAIL], [MAIL], []]


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


@pytest.mark.parametrize("text", ["", "unix", "client.example.org", "192.0.2.256", "192.0.2.1\n"])
def test_what_is_no_address_has_no_name(text: str) -> None:
    world = World()
    assert world.find(text) == [UNAVAILABLE]
    assert world.threads.started == []


def test_h10_a_look_up_with_a_bug_is_an_answer(errors: list[Any]) -> None:
    world = World()
    asked = world.find("192.0.2.1")
    world.threads.fail("192.0.2.1", RuntimeError("boom"))
    assert asked == [TEMPUNAVAIL]
    assert [str(problem) for problem in errors] == ["boom"]
    assert world.find("192.0.2.1") == [TEMPUNAVAIL]


def test_h10_who_cannot_take_the_answer_is_alone_with_that(errors: list[Any]) -> None:
    def cannot(_answer: bytes) -> None:
        raise RuntimeError("boom")

    world = World()
    world.names.find("192.0.2.1", cannot)
    asked = world.find("192.0.2.1")
    world.threads.answer("192.0.2.1", MAIL)
    assert asked == [MAIL]
    assert [str(problem) for problem in errors] == ["boom"]


def test_who_gets_an_answer_may_ask_again() -> None:
    world = World()
    answers: list[bytes] = []
    world.names.find("192.0.2.1", lambda _: world.names.find("192.0.2.1", answers.append))
    world.threads.answer("192.0.2.1", MAIL)
    assert answers == [MAIL]


ADDRESSES = st.sampled_from([f"192.0.2.{number}" for number in range(6)])
STEPS = st.one_of(
    st.tuples(st.just("find"), ADDRESSES),
    st.tuples(st.just("answer"), st.sampled_from([MAIL, UNAVAILABLE, TEMPUNAVAIL])),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 5.0, 31.0])),
)


@given(st.lists(STEPS, max_size=40))
def test_everybody_is_told_exactly_once_in_any_order(steps: list[tuple[str, Any]]) -> None:
    world = World(timeout=5.0, ttl=60.0, most=3, most_under_way=3)
    told: list[list[bytes]] = []
    for kind, value in steps:
        if kind == "find":
            told.append(world.find(value))
        elif kind == "wait":
            world.clock.advance(value)
        elif world.threads.running:
            world.threads.answer(world.threads.running[0], value)
        assert len(world.threads.running) <= 3
        assert len(world.names._answers) <= 3
    world.clock.advance(5.0)
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


def test_look_ups_run_in_the_given_threads_and_answers_come_in_ours() -> None:
    ours = threading.current_thread()
    looked_up_in: list[threading.Thread] = []
    told_in: list[threading.Thread] = []
    answers: list[bytes] = []

    def slow(address: str) -> bytes:
        looked_up_in.append(threading.current_thread())
        return address.encode()

    def found(answer: bytes) -> None:
        told_in.append(threading.current_thread())
        answers.append(answer)

    loop, pool = Loop(), ThreadPool(1, 1)
    pool.start()
    try:
        names = Names(loop, Clock(), pool=pool, look_up=slow)
        names.find("192.0.2.1", found)
        loop.turn()
    finally:
        pool.stop()
    assert answers == [b"192.0.2.1"]
    assert told_in == [ours]
    assert ours not in looked_up_in
    assert len(looked_up_in) == 1
