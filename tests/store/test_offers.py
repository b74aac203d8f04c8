"""Who was offered early pipelining, and when (S2)."""

from __future__ import annotations

from twisted.internet.task import Clock

from smtpproxy.store.offers import Offers


def test_s2_nobody_is_known_at_first() -> None:
    assert not Offers(60.0, Clock().seconds).known(b"network")


def test_s2_an_offer_is_remembered_for_its_time() -> None:
    clock = Clock()
    offers = Offers(60.0, clock.seconds)
    offers.remember(b"one")
    clock.advance(59.0)
    assert offers.known(b"one")
    assert offers.known(b"one"), "asking does not use it up"
    assert not offers.known(b"other")
    clock.advance(2.0)
    assert not offers.known(b"one")


def test_s2_each_offer_begins_the_time_anew() -> None:
    clock = Clock()
    offers = Offers(60.0, clock.seconds)
    offers.remember(b"one")
    clock.advance(50.0)
    offers.remember(b"one")
    clock.advance(50.0)
    assert offers.known(b"one")
    clock.advance(11.0)
    assert not offers.known(b"one")


def test_s2_an_offer_that_ran_out_can_be_made_again() -> None:
    clock = Clock()
    offers = Offers(10.0, clock.seconds)
    offers.remember(b"one")
    clock.advance(11.0)
    assert not offers.known(b"one")
    offers.remember(b"one")
    assert offers.known(b"one")


def test_s2_the_number_is_bounded_and_the_oldest_goes_first() -> None:
    clock = Clock()
    offers = Offers(1000.0, clock.seconds, most=3)
    for network in (b"1", b"2", b"3"):
        offers.remember(network)
        clock.advance(1.0)
    offers.remember(b"1")
    offers.remember(b"4")
    assert [offers.known(network) for network in (b"1", b"2", b"3", b"4")] == [True, False, True, True]


def test_s2_the_memory_stays_bounded_however_many_come() -> None:
    offers = Offers(1000.0, Clock().seconds, most=100)
    for number in range(10_000):
        offers.remember(number)
    assert sum(offers.known(number) for number in range(10_000)) == 100
    assert offers.known(9_999)
