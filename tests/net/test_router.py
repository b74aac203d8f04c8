"""Where mail goes by configuration: routes, next hops; and answers in any order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .routing import MX, TWO, World, Zones, hops, routes

# --- which route -------------------------------------------------------------------------------------------------


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


# --- next hops ---------------------------------------------------------------------------------------------------


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
