"""Where mail goes: routes, hosts, addresses, loops, what is told where there is nowhere to go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from random import Random
from typing import Any

import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import globalLogPublisher

from smtpproxy.config import Route
from smtpproxy.net.resolver import Answer
from smtpproxy.net.router import Router
from smtpproxy.net.security import WISHES
from smtpproxy.net.tlspolicy import Decision, MxHost, unroutable
from smtpproxy.session.outbound.target import Credentials, Target, TlsWish, Unroutable

MX: dict[str, Any] = {"domain": "*", "lookup": "mx"}
Zones = dict[tuple[str, str], list[str] | str | Answer]


class PlainPolicy:
    """What the route says; for routes without DANE and MTA-STS."""

    def decide(
        self,
        route: Route,
        domain: str,  # noqa: ARG002  # the interface's
        hosts: Sequence[MxHost],
        found: Callable[[list[Decision] | Unroutable], None],
    ) -> None:
        wish = WISHES[route.tls.mode]
        found([(host, wish, None) for host in hosts])


class Names:
    """A resolver with invented names; what it does not know does not exist.  Answers can wait for a word."""

    def __init__(self, zones: Zones, *, waits: bool = False) -> None:
        self.zones = zones
        self.asked: list[tuple[str, str]] = []
        self.waiting: list[Callable[[], None]] | None = [] if waits else None

    def query(self, name: str, kind: str, found: Callable[[Answer], None]) -> None:
        self.asked.append((name, kind))
        answer = self._answer(name, kind)
        if self.waiting is None:
            found(answer)
        else:
            self.waiting.append(lambda: found(answer))

    def _answer(self, name: str, kind: str) -> Answer:
        known = self.zones.get((name, kind))
        if isinstance(known, Answer):
            return known
        if known == "tempfail":
            return Answer("tempfail", name=name)
        if known is None:
            exists = any(other == name for other, _ in self.zones)
            return Answer("nodata" if exists else "nxdomain", name=name)
        return answer(kind, *known, name=name)


def answer(kind: str, *texts: str, name: str = "", **more: Any) -> Answer:
    return Answer("ok", tuple(dns.rdata.from_text("IN", kind, text) for text in texts), name=name, **more)


class World:
    def __init__(self, zones: Zones, *routes: dict[str, Any], waits: bool = False, seed: int = 1, **more: Any) -> None:
        self.names = Names(zones, waits=waits)
        own = {("192.0.2.99", 25), ("2001:db8::99", 25), ("127.0.0.1", 2525), *more.pop("own", ())}
        settings: dict[str, Any] = {"policy": PlainPolicy(), "hostname": "Proxy.example.org", **more}
        self.router = Router(
            [Route(**route) for route in routes or (MX,)],
            self.names,  # type: ignore[arg-type]  # all of a resolver that is asked for
            own=lambda address, port: (address, port) in own,
            random=Random(seed),
            **settings,
        )

    def start(self, domain: str) -> list[list[Target] | Unroutable]:
        """Ask; give the list into which the outcome goes."""
        route = self.router.route(domain)
        assert route is not None
        outcomes: list[list[Target] | Unroutable] = []
        self.router.targets(route[0], domain, outcomes.append)
        return outcomes

    def outcome(self, domain: str) -> list[Target] | Unroutable:
        (outcome,) = self.start(domain)
        return outcome

    def targets(self, domain: str) -> list[Target]:
        outcome = self.outcome(domain)
        assert isinstance(outcome, list), outcome
        return outcome

    def addresses(self, domain: str) -> list[str]:
        return [target.address for target in self.targets(domain)]

    def reply(self, domain: str) -> bytes:
        """The beginning of the reply to a recipient who cannot be reached."""
        outcome = self.outcome(domain)
        assert isinstance(outcome, Unroutable), outcome
        assert outcome.reply.endswith(b"\r\n")
        assert len(outcome.reply) <= 512
        assert outcome.why
        return b" ".join(outcome.reply.split()[:2])


TWO: Zones = {
    ("example.org", "MX"): ["20 b.example.org.", "10 a.example.org."],
    ("a.example.org", "A"): ["192.0.2.1", "192.0.2.2"],
    ("a.example.org", "AAAA"): ["2001:db8::1"],
    ("b.example.org", "A"): ["192.0.2.3"],
}

# --- which route -------------------------------------------------------------------------------------------------


def routes(*domains: Any) -> list[dict[str, Any]]:
    return [{"domain": domain, "nexthops": [f"192.0.2.{number}"]} for number, domain in enumerate(domains)]


@pytest.mark.parametrize(
    ("domain", "number"),
    [
        ("example.org", 2),
        ("example.org.", 2),
        ("mail.example.org", 1),
        ("a.mail.example.org", 3),
        ("b.a.mail.example.org", 3),
        ("example.net", 0),
        ("anexample.org", 0),
        ("org", 0),
        ("bücher.example", 4),
        ("xn--bcher-kva.example", 4),
        ("a.xn--bcher-kva.example", 5),
        ("[192.0.2.1]", 6),
        ("[192.0.2.2]", 0),
        ("postmaster", 0),
        ("", 0),
        ("a..example", 0),
    ],
)
def test_the_most_specific_route(domain: str, number: int) -> None:
    settings = routes(
        "*", ".example.org", "example.org", ".mail.example.org", "Bücher.example", ".bücher.example", "[192.0.2.1]"
    )
    found = World({}, *settings).router.route(domain)
    assert found is not None
    assert str(found[0].nexthops[0]) == f"192.0.2.{number}:25"


def test_the_first_of_equally_specific_routes() -> None:
    found = World({}, *routes(["a.example", "b.example"], "b.example")).router.route("b.example")
    assert found is not None
    assert str(found[0].nexthops[0]) == "192.0.2.0:25"


def test_no_route() -> None:
    router = World({}, {"domain": "example.org"}).router
    assert [router.route(domain) for domain in ("example.net", "a.example.org", "[192.0.2.1]", "postmaster")] == [
        None
    ] * 4


def test_postmaster_is_somewhere_only_where_there_are_next_hops() -> None:
    assert World({}).router.route("postmaster") is None
    assert World({}, *routes("*")).router.route("postmaster") is not None


def test_what_is_one_destination() -> None:
    router = World({}, MX, {"domain": ["a.example", ".a.example"], "nexthops": ["192.0.2.1"]}).router

    def key(domain: str) -> Any:
        found = router.route(domain)
        assert found is not None
        return found[1]

    assert key("a.example") == key("b.a.example"), "the same next hops"
    assert key("bücher.example") == key("xn--bcher-kva.example"), "two spellings"
    assert len({key(domain) for domain in ("a.example", "b.example", "c.example", "[192.0.2.1]", "[192.0.2.2]")}) == 5
    assert len({key(domain) for domain in ("b.example", "b.example.")}) == 1


# --- MX records --------------------------------------------------------------------------------------------------


def test_mx_hosts_in_the_order_of_their_preference() -> None:
    targets = World(TWO).targets("example.org")
    assert [(target.host, target.address, target.port) for target in targets] == [
        ("a.example.org", "2001:db8::1", 25),
        ("a.example.org", "192.0.2.1", 25),
        ("a.example.org", "192.0.2.2", 25),
        ("b.example.org", "192.0.2.3", 25),
    ]


def test_the_port_of_the_route() -> None:
    assert {target.port for target in World(TWO, {**MX, "port": 2600}).targets("example.org")} == {2600}


def test_spelling_makes_no_difference() -> None:
    zones: Zones = {("xn--bcher-kva.example", "MX"): ["10 MX.example.ORG."], ("mx.example.org", "A"): ["192.0.2.1"]}
    for domain in ("bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example."):
        assert [target.host for target in World(zones).targets(domain)] == ["mx.example.org"]


def test_equal_ones_are_shuffled() -> None:
    """Each comes first about as often as the others, and no worse one before a better one."""
    zones: Zones = {("example.org", "MX"): ["20 z.example.", *(f"10 {letter}.example." for letter in "abc")]}
    zones |= {(f"{letter}.example", "A"): [f"192.0.2.{number}"] for number, letter in enumerate("zabc")}
    world = World(zones)
    orders = [tuple(world.addresses("example.org")) for _ in range(300)]
    assert len(set(orders)) == 6, "every order of three"
    assert {order[-1] for order in orders} == {"192.0.2.0"}
    assert min(sum(order[0] == f"192.0.2.{number}" for order in orders) for number in (1, 2, 3)) > 60


PREFERENCES = st.lists(st.integers(min_value=0, max_value=3), min_size=1, max_size=12)


@given(PREFERENCES, st.integers())
def test_order_is_always_that_of_preference(preferences: list[int], seed: int) -> None:
    zones: Zones = {("example.org", "MX"): [f"{value} mx{place}.example." for place, value in enumerate(preferences)]}
    zones |= {(f"mx{place}.example", "A"): [f"192.0.2.{place}"] for place in range(len(preferences))}
    world = World(zones, {**MX, "most_addresses": 100}, seed=seed)
    places = [int(address.rpartition(".")[2]) for address in world.addresses("example.org")]
    assert sorted(places) == list(range(len(preferences))), "each once"
    assert [preferences[place] for place in places] == sorted(preferences)


@pytest.mark.parametrize("twice", [("30 b.example.", "10 B.example."), ("10 b.example.", "30 B.example.")])
def test_a_host_that_is_named_twice_counts_once_as_the_better(twice: tuple[str, str]) -> None:
    zones: Zones = {
        ("example.org", "MX"): [*twice, "20 a.example."],
        ("a.example", "A"): ["192.0.2.1"],
        ("b.example", "A"): ["192.0.2.2"],
    }
    assert World(zones).addresses("example.org") == ["192.0.2.2", "192.0.2.1"]


def test_a_domain_without_mx_is_its_own_host() -> None:
    zones: Zones = {("example.org", "A"): ["192.0.2.1"], ("example.org", "AAAA"): ["2001:db8::1"]}
    world = World(zones)
    assert world.addresses("example.org") == ["2001:db8::1", "192.0.2.1"]
    assert world.targets("example.org")[0].host == "example.org"


def test_a_domain_with_mx_is_not_its_own_host() -> None:
    """Not even where none of them can be used (RFC 5321, 5.1)."""
    zones: Zones = {("example.org", "MX"): ["10 gone.example."], ("example.org", "A"): ["192.0.2.1"]}
    assert World(zones).reply("example.org") == b"550 5.4.4"


def test_an_mx_that_is_an_alias_is_tolerated() -> None:
    alias = answer("A", "192.0.2.1", name="host.example.net", aliases=("mx.example.org",))
    zones: Zones = {("example.org", "MX"): ["10 mx.example.org."], ("mx.example.org", "A"): alias}
    (target,) = World(zones).targets("example.org")
    assert (target.host, target.address) == ("mx.example.org", "192.0.2.1")


def test_null_mx() -> None:
    zones: Zones = {("example.org", "MX"): ["0 ."], ("example.org", "A"): ["192.0.2.1"]}
    assert World(zones).reply("example.org") == b"556 5.1.10"


def test_null_mx_beside_others_is_ignored() -> None:
    zones: Zones = {("example.org", "MX"): ["0 .", "10 a.example."], ("a.example", "A"): ["192.0.2.1"]}
    assert World(zones).addresses("example.org") == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("zones", "reply"),
    [
        ({}, b"550 5.1.2"),
        ({("example.org", "TXT"): ["x"]}, b"550 5.1.2"),
        ({("example.org", "MX"): "tempfail"}, b"451 4.4.3"),
        ({("example.org", "TXT"): ["x"], ("example.org", "A"): "tempfail"}, b"451 4.4.3"),
        ({("example.org", "MX"): ["10 a.example.", "20 b.example."]}, b"550 5.4.4"),
        ({("example.org", "MX"): ["10 a.example.", "20 b.example."], ("b.example", "A"): "tempfail"}, b"451 4.4.3"),
        ({("example.org", "MX"): ["10 a.example."], ("a.example", "TXT"): ["x"]}, b"550 5.4.4"),
        ({("example.org", "MX"): ["10 a.example."], ("a.example", "A"): ["0.0.0.0"]}, b"550 5.4.4"),
    ],
)
def test_nowhere_to_go(zones: Zones, reply: bytes) -> None:
    assert World(zones).reply("example.org") == reply


@pytest.mark.parametrize("domain", ["a..b", "-a.example", "x" * 64 + ".org", "☃" * 70, "", "a." * 130 + "org"])
def test_what_cannot_be_a_domain_is_not_asked_for(domain: str) -> None:
    world = World({})
    assert world.reply(domain) == b"550 5.1.2"
    assert world.names.asked == []


@pytest.mark.parametrize("trouble", ["tempfail", ["0.0.0.0"], []])
def test_one_host_without_address_does_not_hinder_the_others(trouble: Any) -> None:
    zones = {
        **TWO,
        ("a.example.org", "A"): trouble,
        ("a.example.org", "AAAA"): trouble if trouble != ["0.0.0.0"] else [],
    }
    assert World(zones).addresses("example.org") == ["192.0.2.3"]


def test_one_family_without_answer_does_not_hinder_the_other() -> None:
    zones: Zones = {**TWO, ("a.example.org", "AAAA"): "tempfail"}
    assert World(zones).addresses("example.org") == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


@pytest.mark.parametrize(
    "useless", ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "fe80::1", "::ffff:192.0.2.9"]
)
def test_addresses_that_no_mail_server_has(useless: str) -> None:
    kind = "AAAA" if ":" in useless else "A"
    zones: Zones = {("example.org", "A"): ["192.0.2.1"]}
    zones[("example.org", kind)] = [useless, *(["192.0.2.1"] if kind == "A" else [])]
    assert World(zones).addresses("example.org") == ["192.0.2.1"]


def test_too_many_hosts_are_not_all_asked_for() -> None:
    zones: Zones = {("example.org", "MX"): [f"{number} mx{number}.example." for number in range(500)]}
    world = World(zones)
    assert world.reply("example.org") == b"550 5.4.4"
    assert len(world.names.asked) == 1 + 2 * 32


# --- addresses ---------------------------------------------------------------------------------------------------

MIXED: Zones = {
    ("example.org", "A"): ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
    ("example.org", "AAAA"): ["2001:db8::1", "2001:db8::2"],
}


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("any", ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"]),
        ("ipv4", ["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        ("ipv6", ["2001:db8::1", "2001:db8::2"]),
        ("prefer-ipv4", ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"]),
        ("prefer-ipv6", ["2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2", "192.0.2.3"]),
    ],
)
def test_families(which: str, expected: list[str]) -> None:
    world = World(MIXED, {**MX, "addresses": which})
    assert world.addresses("example.org") == expected
    kinds = {"AAAA" if ":" in address else "A" for address in expected}
    assert set(world.names.asked) == {("example.org", "MX"), *(("example.org", kind) for kind in kinds)}


def test_a_host_that_has_only_the_wrong_family() -> None:
    assert (
        World({("example.org", "A"): ["192.0.2.1"]}, {**MX, "addresses": "ipv6"}).reply("example.org") == b"550 5.1.2"
    )


def test_not_more_addresses_than_the_route_says() -> None:
    world = World(TWO, {**MX, "most_addresses": 2})
    assert world.addresses("example.org") == ["2001:db8::1", "192.0.2.1"]


# --- literals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("literal", "address"),
    [
        ("[192.0.2.7]", "192.0.2.7"),
        ("[ipv6:2001:db8::7]", "2001:db8::7"),
        ("[IPv6:2001:DB8:0::7]", "2001:db8::7"),
        ("[ipv6:::ffff:192.0.2.7]", "192.0.2.7"),
    ],
)
def test_address_literals(literal: str, address: str) -> None:
    world = World({}, {**MX, "port": 2600})
    (target,) = world.targets(literal)
    assert (target.host, target.address, target.port) == (address, address, 2600)
    assert world.names.asked == []


@pytest.mark.parametrize(
    "literal",
    ["[192.0.2.256]", "[2001:db8::7]", "[ipv6:192.0.2.1]", "[x]", "[]", "[0.0.0.0]", "[224.0.0.1]", "[ipv6:]"],
)
def test_literals_that_are_none(literal: str) -> None:
    assert World({}).reply(literal) == b"550 5.1.2"


def test_a_literal_of_ours_is_a_loop() -> None:
    for literal in ("[192.0.2.99]", "[ipv6:2001:db8::99]", "[127.0.0.1]", "[ipv6:::ffff:192.0.2.99]"):
        assert World({}).reply(literal) == b"554 5.4.6"


def test_a_literal_of_a_family_that_the_route_leaves_out() -> None:
    assert World({}, {**MX, "addresses": "ipv4"}).reply("[ipv6:2001:db8::7]") == b"550 5.4.4"


def test_literals_go_to_the_next_hops_where_there_are_some() -> None:
    assert World({}, *routes("*")).addresses("[192.0.2.7]") == ["192.0.2.0"]


# --- loops -------------------------------------------------------------------------------------------------------


def mx(*hosts: tuple[int, str, str]) -> Zones:
    zones: Zones = {("example.org", "MX"): [f"{preference} {name}." for preference, name, _ in hosts]}
    for _, name, address in hosts:
        if address:
            zones[(name, "AAAA" if ":" in address else "A")] = address if address == "tempfail" else [address]
    return zones


A, B = (10, "a.example", "192.0.2.1"), (20, "b.example", "192.0.2.2")
BY_ADDRESS, BY_NAME = (20, "us.example", "192.0.2.99"), (20, "proxy.example.org", "192.0.2.50")


@pytest.mark.parametrize(
    "us", [BY_ADDRESS, BY_NAME, (20, "us.example", "2001:db8::99"), (20, "us.example", "127.0.0.9")]
)
def test_we_and_all_that_are_no_better_are_left_out(us: tuple[int, str, str]) -> None:
    assert World(mx(A, B, us, (30, "c.example", "192.0.2.3"))).addresses("example.org") == ["192.0.2.1"]


@pytest.mark.parametrize("others", [(), ((30, "c.example", "192.0.2.3"),), (B,), ((20, "d.example", "tempfail"),)])
def test_mail_for_which_we_are_the_best_host_loops(others: Sequence[tuple[int, str, str]]) -> None:
    assert World(mx(BY_ADDRESS, *others)).reply("example.org") == b"554 5.4.6"


def test_a_domain_that_is_ourselves_loops() -> None:
    assert World({("proxy.example.org", "A"): ["192.0.2.50"]}).reply("proxy.example.org") == b"554 5.4.6"


def test_the_same_address_at_another_port_is_not_ours() -> None:
    assert World(mx(BY_ADDRESS), {**MX, "port": 2600}).addresses("example.org") == ["192.0.2.99"]
    assert World(mx((10, "a.example", "127.0.0.1")), {**MX, "port": 2600}).addresses("example.org") == ["127.0.0.1"]
    assert World(mx((10, "a.example", "127.0.0.1")), {**MX, "port": 2525}).reply("example.org") == b"554 5.4.6"


@pytest.mark.parametrize(("trouble", "reply"), [("tempfail", b"451 4.4.3"), ("", b"550 5.4.4")])
def test_better_hosts_without_address_are_not_a_loop(trouble: str, reply: bytes) -> None:
    assert World(mx((10, "a.example", trouble), BY_ADDRESS)).reply("example.org") == reply


def test_what_is_left_out_does_not_count() -> None:
    dead, unknown = (10, "a.example", ""), (30, "c.example", "tempfail")
    assert World(mx(dead, BY_ADDRESS, unknown)).reply("example.org") == b"550 5.4.4"


# --- next hops ---------------------------------------------------------------------------------------------------


def hops(*nexthops: str, **more: Any) -> dict[str, Any]:
    return {"domain": "*", "nexthops": list(nexthops), **more}


def test_next_hops_in_the_order_of_the_list() -> None:
    world = World(TWO, hops("b.example.org:2600", "192.0.2.9", "[2001:db8::9]:2600", "a.example.org"))
    assert [(target.host, target.address, target.port) for target in world.targets("example.net")] == [
        ("b.example.org", "192.0.2.3", 2600),
        ("192.0.2.9", "192.0.2.9", 25),
        ("2001:db8::9", "2001:db8::9", 2600),
        ("a.example.org", "2001:db8::1", 25),
        ("a.example.org", "192.0.2.1", 25),
        ("a.example.org", "192.0.2.2", 25),
    ]
    assert not [kind for _, kind in world.names.asked if kind == "MX"]


def test_next_hops_can_be_shuffled() -> None:
    world = World({}, hops("192.0.2.1", "192.0.2.2", "192.0.2.3", order="shuffle"))
    orders = {tuple(world.addresses("example.net")) for _ in range(100)}
    assert len(orders) == 6


@pytest.mark.parametrize("name", ["localhost", "localhost:25"])
def test_localhost_is_not_asked_for(name: str) -> None:
    world = World({}, hops(name, addresses="prefer-ipv4"))
    assert world.addresses("example.net") == ["127.0.0.1", "::1"]
    assert world.names.asked == []


@pytest.mark.parametrize(
    ("zones", "reply"),
    [
        ({}, b"451 4.3.5"),
        ({("a.example", "A"): "tempfail"}, b"451 4.4.3"),
        ({("b.example", "AAAA"): "tempfail"}, b"451 4.4.3"),
    ],
)
def test_next_hops_that_cannot_be_had_return_no_mail(zones: Zones, reply: bytes) -> None:
    assert World(zones, hops("a.example", "b.example")).reply("example.net") == reply


def test_a_next_hop_that_cannot_be_had_does_not_hinder_the_others() -> None:
    zones: Zones = {("a.example", "A"): "tempfail"}
    assert World(zones, hops("a.example", "gone.example", "192.0.2.1")).addresses("example.net") == ["192.0.2.1"]


def test_a_next_hop_that_is_ourselves_is_left_out() -> None:
    """The others are not, wherever they stand in the list: they are the administrator's choice."""
    world = World({("us.example", "A"): ["192.0.2.99"]}, hops("192.0.2.99", "us.example", "192.0.2.1", "127.0.0.1"))
    assert world.addresses("example.net") == ["192.0.2.1", "127.0.0.1"]
    assert World({}, hops("192.0.2.99")).reply("example.net") == b"451 4.3.5"


# --- many answers, in any order ----------------------------------------------------------------------------------


@given(st.randoms(use_true_random=False), st.booleans())
def test_answers_may_come_in_any_order(chance: Any, best_is_lost: bool) -> None:  # noqa: FBT001  # hypothesis gives it
    zones: Zones = {**TWO, ("a.example.org", "AAAA"): "tempfail"} if best_is_lost else TWO
    world = World(zones, waits=True)
    outcomes = world.start("example.org")
    waiting = world.names.waiting
    assert waiting is not None
    while waiting:
        assert outcomes == []
        waiting.pop(chance.randrange(len(waiting)))()
    (outcome,) = outcomes
    assert isinstance(outcome, list)
    expected = ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"][best_is_lost:]
    assert [target.address for target in outcome] == expected


# --- TLS ---------------------------------------------------------------------------------------------------------


class Policy:
    """Remembers what it was asked, and decides what the test says."""

    def __init__(self, decide: Callable[[Sequence[MxHost]], list[Decision] | Unroutable]) -> None:
        self._decide = decide
        self.asked: list[tuple[str, list[MxHost]]] = []

    def decide(self, route: Route, domain: str, hosts: Sequence[MxHost], found: Any) -> None:
        assert isinstance(route, Route)
        self.asked.append((domain, list(hosts)))
        found(self._decide(hosts))


class Security:
    def __init__(self, key: str) -> None:
        self.key = key


def opportunistic(hosts: Sequence[MxHost]) -> list[Decision]:
    return [(host, TlsWish.OPPORTUNISTIC, Security(host.name)) for host in hosts]


def test_the_policy_decides_on_each_host() -> None:
    policy = Policy(lambda hosts: [(hosts[1], TlsWish.VERIFIED, Security("dane"))])
    (target,) = World(TWO, policy=policy).targets("example.org")
    assert (target.host, target.tls, target.security.key) == ("b.example.org", TlsWish.VERIFIED, "dane")


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
    logged_in = {"credentials": lambda _: Credentials("user", "secret")}
    keys = [
        key({}),
        key({"nexthops": ["192.0.2.2"]}),
        key({"nexthops": ["a.example:2600"]}),
        key({"nexthops": ["b.example"]}),
        key({"tls": {"mode": "none"}}),
        key({"tls": {"mode": "required"}}),
        key({"tls": {"mode": "required", "profile": "modern"}}),
        key({"tls": {"mode": "required", "pins": ["A" * 43 + "="]}}),
        key({"source": {"ipv4": "192.0.2.5"}}),
        key({"mark": 7}),
        key({}, mark=7),
        key({}, hostname="other.example.org"),
        key({}, **logged_in),
        key({}, policy=Policy(opportunistic)),
        key({}, policy=Policy(lambda hosts: [(hosts[0], TlsWish.OPPORTUNISTIC, Security("another"))])),
    ]
    assert len(set(keys)) == len(keys)
    assert key({"source": {"ipv6": "2001:db8::5"}}) == keys[0], "of the other family"
    assert "secret" not in repr(keys)
    ipv6 = {"nexthops": ["[2001:db8::1]"]}
    assert key(ipv6) != key({**ipv6, "source": {"ipv6": "2001:db8::5"}})


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


@pytest.mark.parametrize("part", ["_policy", "_credentials", "_own"])
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
