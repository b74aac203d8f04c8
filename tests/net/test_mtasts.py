"""MTA-STS: when a policy is fetched, how long it holds, and what stays in force when nothing can be had (RFC 8461)."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from smtpproxy.net.mtasts import AGAIN_AFTER, MtaSts
from smtpproxy.net.stspolicy import StsError, StsPolicy

from .fakedns import NOTHING, TEMPFAIL, Answers, first, txt_answer

DOMAIN = "example.org"
TXT = f"_mta-sts.{DOMAIN}"


def policy(mode: str = "enforce", age: int = 1000) -> bytes:
    return f"version: STSv1\nmode: {mode}\nmx: mx.example.org\nmax_age: {age}\n".encode()


class World:
    """DNS, a web server and a clock."""

    def __init__(self, **settings: Any) -> None:
        self.dns = Answers({TXT: txt_answer(b"v=STSv1; id=1;")})
        self.fetches: list[tuple[str, Deferred[bytes]]] = []
        self.failures: list[tuple[str, str]] = []
        self.now = 0.0
        self.sts = MtaSts(
            self.dns,
            self._fetch,
            lambda: self.now,
            lambda domain, why: self.failures.append((domain, why)),
            **settings,
        )

    def _fetch(self, domain: str) -> Deferred[bytes]:
        fetch = Deferred[bytes]()
        self.fetches.append((domain, fetch))
        return fetch

    def ask(self, domain: str = DOMAIN) -> list[StsPolicy | None]:
        found: list[StsPolicy | None] = []
        self.sts.find(domain, found.append)
        return found

    def answer(self, content: bytes | Exception) -> None:
        _, fetch = self.fetches.pop()
        if isinstance(content, bytes):
            fetch.callback(content)
        else:
            fetch.errback(content)

    def know(self, content: bytes) -> None:
        found = self.ask()
        self.answer(content)
        assert first(found) is not None

    def identify(self, number: int) -> None:
        self.dns.known[TXT] = txt_answer(b"v=STSv1; id=%d;" % number)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("answer", [NOTHING, TEMPFAIL, txt_answer(b"v=spf1 -all"), txt_answer(b"v=STSv1; id=?")])
def test_without_a_record_nothing_is_fetched(world: World, answer: Any) -> None:
    world.dns.known[TXT] = answer
    assert first(world.ask()) is None
    assert (world.fetches, world.failures) == ([], [])
    assert world.dns.asked == [(TXT, "TXT")]


@pytest.mark.parametrize("domain", ["[192.0.2.1]", "a/b.example.org", "a b", "-", "", "x@y"])
def test_what_is_no_domain_becomes_no_url(world: World, domain: str) -> None:
    assert first(world.ask(domain)) is None
    assert world.dns.asked == []


def test_a_policy_is_fetched_once_for_all_who_wait(world: World) -> None:
    waiting = [world.ask() for _ in range(3)]
    assert [domain for domain, _ in world.fetches] == [DOMAIN]
    assert waiting == [[], [], []]
    world.answer(policy())
    assert {first(found) for found in waiting} == {StsPolicy("enforce", 1000, ("mx.example.org",))}
    assert first(world.ask()) == StsPolicy("enforce", 1000, ("mx.example.org",))
    assert world.fetches == []


def test_who_waits_cannot_keep_it_from_the_others(world: World) -> None:
    def broken(_policy: StsPolicy | None) -> None:
        raise RuntimeError

    world.sts.find(DOMAIN, broken)
    found = world.ask()
    world.answer(policy())
    assert first(found) is not None


def test_another_id_means_another_policy(world: World) -> None:
    world.know(policy())
    world.identify(2)
    found = world.ask()
    world.answer(policy("testing"))
    assert first(found).mode == "testing"
    assert first(world.ask()).mode == "testing"


def test_a_policy_ends(world: World) -> None:
    world.know(policy(age=1000))
    world.now = 999.0
    assert first(world.ask()) is not None
    world.now = 1000.0
    found = world.ask()
    assert found == []
    world.answer(policy("none"))
    assert first(found).mode == "none"


@pytest.mark.parametrize("answer", [NOTHING, TEMPFAIL, txt_answer(b"v=STSv1; id=?")])
def test_a_policy_stays_in_force_when_dns_says_nothing(world: World, answer: Any) -> None:
    """RFC 8461, 3.3: else whoever can take an answer away could take the policy away."""
    world.know(policy(age=1000))
    world.dns.known[TXT] = answer
    assert first(world.ask()).mode == "enforce"
    world.now = 1000.0
    assert first(world.ask()) is None
    assert world.fetches == []


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (StsError("HTTP status 404"), "HTTP status 404"),
        (b"<html>", "a line of it has no colon"),
        (OSError("odd"), "OSError: odd"),
    ],
)
def test_a_policy_stays_in_force_when_the_new_one_cannot_be_had(
    world: World, trouble: bytes | Exception, why: str
) -> None:
    world.know(policy(age=1000))
    world.identify(2)
    found = world.ask()
    world.answer(trouble)
    assert first(found).mode == "enforce"
    assert world.failures == [(DOMAIN, why)]
    assert first(world.ask()).mode == "enforce"  # and is not asked for at each message
    assert world.fetches == []
    world.now = AGAIN_AFTER
    found = world.ask()
    world.answer(policy("testing"))
    assert first(found).mode == "testing"


def test_a_policy_that_could_never_be_had(world: World) -> None:
    found = world.ask()
    world.answer(StsError("HTTP status 500"))
    assert first(found) is None
    assert first(world.ask()) is None
    world.now = AGAIN_AFTER
    found = world.ask()
    world.answer(StsError("HTTP status 500"))
    assert first(found) is None
    assert world.failures == [(DOMAIN, "HTTP status 500")] * 2


def test_a_policy_that_ends_while_nothing_can_be_had(world: World) -> None:
    world.know(policy(age=100))
    world.now = 99.0
    world.identify(2)
    found = world.ask()
    world.now = 100.0
    world.answer(StsError("no"))
    assert first(found) is None


def test_what_is_remembered_is_bounded() -> None:
    world = World(entries=2)
    for name in ("a.example", "b.example"):
        world.dns.known[f"_mta-sts.{name}"] = txt_answer(b"v=STSv1; id=1;")
    for name in (DOMAIN, "a.example", DOMAIN, "b.example"):  # the second is the one that was not used for longest
        found = world.ask(name)
        if not found:
            world.answer(policy())
        assert first(found) is not None
    assert first(world.ask()) is not None
    assert world.ask("a.example") == []


def test_fetches_at_a_time_are_bounded(world: World) -> None:
    names = [f"d{number}.example" for number in range(201)]
    world.dns.known |= {f"_mta-sts.{name}": txt_answer(b"v=STSv1; id=1;") for name in names}
    found = [world.ask(name) for name in names]
    assert found == [[]] * 200 + [[None]]
    assert world.failures == [(names[-1], "too many policies are being fetched")]
    assert found[0] == world.ask(names[0]) == []  # one under way is still joined
