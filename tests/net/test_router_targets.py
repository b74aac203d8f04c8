"""What a search gives: TLS as the policy decides, the key of a session, and an outcome whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from smtpproxy.config import Route
from smtpproxy.net import router
from smtpproxy.net.resolver import Answer
from smtpproxy.net.tlspolicy import Decision, MxHost, unroutable
from smtpproxy.session.outbound.target import Credentials, Target, TlsWish, Unroutable

from .routing import MX, TWO, World, Zones, answer, hops

# --- TLS ---------------------------------------------------------------------------------------------------------


class Policy:
    """Remembers what it was asked, and decides what the test says."""

    def __init__(self, decide: Callable[[Sequence[MxHost]], list[Decision] | Unroutable]) -> None:
        self._decide = decide
        self.asked: list[tuple[str, list[MxHost]]] = []
        self.prepared: list[str] = []

    def decide(self, route: Route, domain: str, hosts: Sequence[MxHost], found: Any) -> None:
        assert isinstance(route, Route)
        self.asked.append((domain, list(hosts)))
        found(self._decide(hosts))

    def prepare(self, route: Route, domain: str) -> None:
        assert isinstance(route, Route)
        self.prepared.append(domain)


class Security:
    def __init__(self, key: str) -> None:
        self.key = key


def opportunistic(hosts: Sequence[MxHost]) -> list[Decision]:
    return [(host, TlsWish.OPPORTUNISTIC, Security(host.name)) for host in hosts]


def test_the_policy_decides_on_each_host() -> None:
    policy = Policy(lambda hosts: [(hosts[1], TlsWish.VERIFIED, Security("dane"))])
    (target,) = World(TWO, policy=policy).targets("example.org")
    assert (target.host, target.tls, target.security.key) == ("b.example.org", TlsWish.VERIFIED, "dane")


def test_the_policy_may_ask_while_the_hosts_are_looked_for() -> None:
    policy = Policy(opportunistic)
    world = World(TWO, MX, hops("192.0.2.1") | {"domain": "example.net"}, policy=policy, waits=True)
    outcomes = world.start("EXAMPLE.org")
    assert (policy.prepared, policy.asked, outcomes) == (["example.org"], [], [])
    for domain in ("[192.0.2.1]", "example.net", "a..b"):
        world.start(domain)
    assert policy.prepared == ["example.org"]


def test_the_policy_is_not_asked_beforehand_where_all_is_known() -> None:
    policy = Policy(opportunistic)
    world = World(TWO, policy=policy)
    for domain in ("example.org", "gone.example"):
        world.start(domain)
    assert (policy.prepared, [domain for domain, _ in policy.asked]) == ([], ["example.org"])


def test_the_policy_may_find_nothing_good_enough() -> None:
    nothing = unroutable(b"451 4.7.5", "no host may be used")
    assert World(TWO, policy=Policy(lambda _: nothing)).outcome("example.org") == nothing


def test_what_the_policy_is_told() -> None:
    secure = answer("MX", "10 a.example.", name="target.example", secure=True, aliases=("example.org",))
    zones: Zones = {
        ("example.org", "MX"): secure,
        ("a.example", "A"): answer("A", "192.0.2.1", name="c.example", aliases=("a.example",), alias_secure=True),
        ("a.example", "AAAA"): Answer("nodata", secure=True, name="c.example", aliases=("a.example",)),
    }
    policy = Policy(opportunistic)
    World(zones, policy=policy).targets("example.org")
    ((domain, (host,)),) = policy.asked
    assert (domain, host.name, host.preference, host.source) == ("example.org", "a.example", 10, "mx")
    assert (host.mx_secure, host.domain, host.expanded) == (True, "example.org", "target.example")
    assert (host.secure, host.canonical, host.alias_secure) == (False, "c.example", True)


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "secure"),
    [
        (answer("A", "192.0.2.1", secure=True), Answer("nodata", secure=True), "yes"),
        (answer("A", "192.0.2.1", secure=True), Answer("tempfail"), "yes"),
        (answer("A", "192.0.2.1", secure=True), answer("AAAA", "2001:db8::1"), "no"),
        (answer("A", "192.0.2.1"), Answer("tempfail"), "no"),
    ],
)
def test_addresses_are_secure_if_every_answer_is(ipv4: Answer, ipv6: Answer, secure: str) -> None:
    policy = Policy(opportunistic)
    zones: Zones = {("example.org", "MX"): Answer("nodata"), ("example.org", "A"): ipv4, ("example.org", "AAAA"): ipv6}
    World(zones, policy=policy).targets("example.org")
    ((_, (host,)),) = policy.asked
    assert host.secure is (secure == "yes")
    assert (host.source, host.mx_secure) == ("implicit", False)


def test_an_insecure_alias_of_the_domain_is_nobodys_name() -> None:
    policy = Policy(opportunistic)
    zones = {
        **TWO,
        ("example.org", "MX"): answer("MX", "10 b.example.org.", name="x.example", aliases=("example.org",)),
    }
    World(zones, policy=policy).targets("example.org")
    assert [host.expanded for _, hosts in policy.asked for host in hosts] == ["example.org"]


def test_what_was_written_down_needs_nobody_to_vouch_for_it() -> None:
    policy = Policy(opportunistic)
    world = World(TWO, MX, hops("b.example.org") | {"domain": "example.net"}, policy=policy)
    world.targets("[192.0.2.1]")
    world.targets("example.net")
    assert [
        (domain, [(host.source, host.mx_secure, host.secure) for host in hosts]) for domain, hosts in policy.asked
    ] == [
        ("[192.0.2.1]", [("literal", True, False)]),
        ("", [("nexthop", True, False)]),
    ]


@pytest.mark.parametrize(
    ("mode", "wish"),
    [
        ("none", TlsWish.NONE),
        ("opportunistic", TlsWish.OPPORTUNISTIC),
        ("required", TlsWish.REQUIRED),
        ("verified", TlsWish.VERIFIED),
        ("implicit", TlsWish.IMPLICIT),
    ],
)
def test_the_plain_policy_is_what_the_route_says(mode: str, wish: TlsWish) -> None:
    targets = World(TWO, {**MX, "tls": {"mode": mode}}).targets("example.org")
    assert {(target.tls, target.security) for target in targets} == {(wish, None)}


def test_a_target_that_the_client_has_chosen() -> None:
    world = World({}, MX)
    outcomes: list[Any] = []
    world.router.targets_at(Route(domain="*"), "192.0.2.99", 2600, outcomes.append)
    ((target,),) = outcomes
    assert (target.host, target.address, target.port) == ("192.0.2.99", "192.0.2.99", 2600)


# --- the key of a session ----------------------------------------------------------------------------------------

HERE: Zones = {("a.example", "A"): ["192.0.2.1"], ("b.example", "A"): ["192.0.2.1"]}


def key(route: dict[str, Any], **more: Any) -> Any:
    (target,) = World(HERE, {"domain": "*", "nexthops": ["a.example"], **route}, **more).targets("example.net")
    hash(target.key)
    return target.key


def test_what_makes_no_difference_to_a_session() -> None:
    clear = {"tls": {"mode": "none"}}
    assert key({}) == key({"domain": "example.net", "most_addresses": 3})
    assert key(clear) == key({**clear, "nexthops": ["b.example"]}), "without TLS a server never learns its name"


def test_what_makes_a_session_another_one() -> None:
    keys = [
        key({}),
        key({"nexthops": ["192.0.2.2"]}),
        key({"nexthops": ["a.example:2600"]}),
        key({"nexthops": ["b.example"]}),
        key({"tls": {"mode": "none"}}),
        key({"tls": {"mode": "required"}}),
        *(key({}, credentials=lambda _, login=login: login) for login in LOGINS),
        key({}, policy=Policy(opportunistic)),
        key({}, policy=Policy(lambda hosts: [(hosts[0], TlsWish.OPPORTUNISTIC, Security("another"))])),
    ]
    assert len(set(keys)) == len(keys)
    assert not any(login.password in repr(keys) for login in LOGINS)


LOGINS = (Credentials("user", "secret"), Credentials("user", "wrong"), Credentials("another", "secret"))


def test_targets_are_made_only_for_those_that_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def target(host: str, address: str, port: int, **more: Any) -> Target:
        made.append(address)
        return Target(host, address, port, **more)

    monkeypatch.setattr(router, "Target", target)
    zones: Zones = {("example.org", "A"): [f"192.0.2.{number}" for number in range(1, 50)]}
    assert World(zones, {**MX, "most_addresses": 3}).addresses("example.org") == made
    assert len(made) == 3


def test_credentials_come_with_the_target() -> None:
    credentials = Credentials("user", "secret")
    (target,) = World({}, hops("192.0.2.1"), credentials=lambda _: credentials).targets("example.net")
    assert target.credentials is credentials


# --- bugs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """What is logged as failures."""
    events: list[str] = []

    def keep(event: dict[str, Any]) -> None:
        if "log_failure" in event:
            events.append(str(event["log_failure"].value))

    publisher: Any = globalLogPublisher  # any callable will do, its type says less
    publisher.addObserver(keep)
    yield events
    publisher.removeObserver(keep)


def boom(*_: object) -> Any:
    raise RuntimeError("boom")


@pytest.mark.parametrize("part", ["_policy", "_credentials", "_own_hosts"])
def test_h10_a_search_with_a_bug_has_an_outcome(part: str, errors: list[str]) -> None:
    world = World(TWO, waits=True)
    setattr(world.router, part, Policy(boom) if part == "_policy" else boom)
    outcomes = world.start("example.org")
    while world.names.waiting:
        world.names.waiting.pop()()
    (outcome,) = outcomes
    assert isinstance(outcome, Unroutable)
    assert outcome.reply.startswith(b"451 4.3.0 ")
    assert errors == ["boom"]


def test_h10_a_chosen_target_with_a_bug_has_an_outcome(errors: list[str]) -> None:
    outcomes: list[Any] = []
    World({}, policy=Policy(boom)).router.targets_at(Route(domain="*"), "192.0.2.1", 25, outcomes.append)
    assert [outcome.reply[:9] for outcome in outcomes] == [b"451 4.3.0"]
    assert errors == ["boom"]


def test_who_cannot_take_the_outcome_is_told_only_once() -> None:
    told: list[object] = []

    def cannot(outcome: object) -> None:
        told.append(outcome)
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        World(TWO).router.targets(Route(domain="*"), "example.org", cannot)
    assert len(told) == 1


def test_every_target_has_an_address() -> None:
    assert all(ip_address(target.address) for target in World(TWO).targets("example.org"))
