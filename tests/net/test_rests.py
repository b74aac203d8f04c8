"""Addresses that could not be reached are tried last for a while."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from smtpproxy.net.rests import Rests
from smtpproxy.session.outbound.target import Target

MINUTE = 60.0


def targets(*addresses: str) -> list[Target]:
    return [Target("mx.example", address, 25) for address in addresses]


def names(found: list[Target]) -> list[str]:
    return [target.address for target in found]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_rests_at_first(clock: Clock) -> None:
    found = targets("192.0.2.2", "192.0.2.1")
    assert Rests(clock.seconds).ordered(found) == found


def test_what_rests_comes_last_and_keeps_its_order(clock: Clock) -> None:
    rests = Rests(clock.seconds)
    first, second, third, fourth = targets("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")
    rests.rest(third, MINUTE)
    rests.rest(first, MINUTE)
    assert names(rests.ordered([first, second, third, fourth])) == ["192.0.2.2", "192.0.2.4", "192.0.2.1", "192.0.2.3"]


def test_all_may_rest(clock: Clock) -> None:
    rests = Rests(clock.seconds)
    found = targets("192.0.2.1", "192.0.2.2")
    for target in found:
        rests.rest(target, MINUTE)
    assert rests.ordered(found) == found


def test_a_rest_ends(clock: Clock) -> None:
    rests = Rests(clock.seconds)
    first, second = targets("192.0.2.1", "192.0.2.2")
    rests.rest(first, MINUTE)
    clock.advance(MINUTE - 1)
    assert names(rests.ordered([first, second])) == ["192.0.2.2", "192.0.2.1"]
    clock.advance(1)
    assert names(rests.ordered([first, second])) == ["192.0.2.1", "192.0.2.2"]


def test_an_answer_ends_it_too(clock: Clock) -> None:
    rests = Rests(clock.seconds)
    first, second = targets("192.0.2.1", "192.0.2.2")
    rests.rest(first, MINUTE)
    rests.woke(first)
    rests.woke(second)
    assert names(rests.ordered([first, second])) == ["192.0.2.1", "192.0.2.2"]


def test_another_port_is_another_server(clock: Clock) -> None:
    rests = Rests(clock.seconds)
    rests.rest(Target("mx.example", "192.0.2.1", 26), MINUTE)
    first, second = targets("192.0.2.1", "192.0.2.2")
    assert names(rests.ordered([first, second])) == ["192.0.2.1", "192.0.2.2"]


def test_their_number_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpproxy.net.rests._MOST", 2)
    rests = Rests(clock.seconds)
    found = targets("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")
    for target in found[:3]:
        rests.rest(target, MINUTE)
    assert names(rests.ordered(found)) == ["192.0.2.1", "192.0.2.4", "192.0.2.2", "192.0.2.3"]
