"""Where mail goes by DNS: MX records, addresses, literals, loops, what is told where there is nowhere to go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .routing import MX, TWO, World, Zones, answer, hops, routes

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


def test_another_server_of_this_machine_may_be_named_by_its_address() -> None:
    """Only what DNS names as a mail host is taken for ourselves wherever it is on this machine."""
    assert World({}).addresses("[192.0.2.98]") == ["192.0.2.98"]
    assert World({}, hops("192.0.2.98", "127.0.0.1:2526")).addresses("example.net") == ["192.0.2.98", "127.0.0.1"]


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
    "us",
    [
        *(BY_ADDRESS, BY_NAME, (20, "us.example", "2001:db8::99")),
        *((20, "us.example", "127.0.0.9"), (20, "us.example", "192.0.2.98")),
    ],
)
def test_we_and_all_that_are_no_better_are_left_out(us: tuple[int, str, str]) -> None:
    assert World(mx(A, B, us, (30, "c.example", "192.0.2.3"))).addresses("example.org") == ["192.0.2.1"]


@pytest.mark.parametrize("others", [(), ((30, "c.example", "192.0.2.3"),), (B,), ((20, "d.example", "tempfail"),)])
def test_mail_for_which_we_are_the_best_host_loops(others: Sequence[tuple[int, str, str]]) -> None:
    assert World(mx(BY_ADDRESS, *others)).reply("example.org") == b"554 5.4.6"


def test_a_domain_that_is_ourselves_loops() -> None:
    assert World({("example.org", "A"): ["192.0.2.98"]}).reply("example.org") == b"554 5.4.6"
    assert World({("proxy.example.org", "A"): ["192.0.2.50"]}).reply("proxy.example.org") == b"554 5.4.6"


def test_the_same_address_at_another_port_is_not_ours() -> None:
    assert World(mx(BY_ADDRESS), {**MX, "port": 2600}).addresses("example.org") == ["192.0.2.99"]
    assert World(mx((10, "a.example", "127.0.0.1")), {**MX, "port": 2600}).addresses("example.org") == ["127.0.0.1"]
    for port in (2525, 2526):
        assert World(mx((10, "a.example", "127.0.0.1")), {**MX, "port": port}).reply("example.org") == b"554 5.4.6"


@pytest.mark.parametrize(("trouble", "reply"), [("tempfail", b"451 4.4.3"), ("", b"550 5.4.4")])
def test_better_hosts_without_address_are_not_a_loop(trouble: str, reply: bytes) -> None:
    assert World(mx((10, "a.example", trouble), BY_ADDRESS)).reply("example.org") == reply


def test_what_is_left_out_does_not_count() -> None:
    dead, unknown = (10, "a.example", ""), (30, "c.example", "tempfail")
    assert World(mx(dead, BY_ADDRESS, unknown)).reply("example.org") == b"550 5.4.4"
