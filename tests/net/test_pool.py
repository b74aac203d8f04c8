"""Sessions that are kept for the next client, and those that take leave (S17, S18)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from smtpproxy.net.leg import BackendLeg
from smtpproxy.net.pool import Pool
from smtpproxy.net.servers import Servers
from smtpproxy.net.transport import LeanTransport
from smtpproxy.session.backend import Backend, Event

from .fakes import FakeReactor, reset, tcp_pair
from .stage import EHLO_REPLY, FakeDialler, FakeTransport, Stage, backend

REUSE = {"idle": 30.0, "uses": 3, "sessions": 2}


class Owner:
    """Whoever borrows."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: list[str] = []

    def leg_received(self, _leg: BackendLeg, data: bytes) -> None:
        self.received += data

    def leg_lost(self, _leg: BackendLeg, why: str) -> None:
        self.lost.append(why)

    def leg_full(self, *, full: bool) -> None:
        raise AssertionError(f"nobody fills it here: {full}")


class Shop:
    """A pool and what it needs."""

    def __init__(self, **changes: Any) -> None:
        settings = backend(**({"reuse": REUSE} | changes))
        self.reactor = FakeReactor()
        servers = Servers(settings.servers, settings.rest, self.reactor.seconds)
        servers.resolve()
        self.dialler = FakeDialler(self.reactor)
        self.pool = Pool("legacy", settings, servers, self.dialler, self.reactor.seconds)

    def used(self, uses: int = 1) -> BackendLeg:
        """A leg whose session has served a client."""
        leg = self.pool.dial(Owner(), [])
        assert isinstance(leg, BackendLeg)
        leg.backend = Backend(lockstep=False)
        leg.backend.move(Event.GREETED)
        leg.backend.uses = uses
        return leg


def test_nothing_is_kept_unless_asked_for() -> None:
    shop = Shop(reuse=False)
    leg = shop.used()
    shop.pool.keep(leg)
    assert shop.pool.borrow(Owner()) is None
    assert leg.transport.take() == b"QUIT\r\n"


def test_the_session_used_last_is_lent_first_and_once() -> None:
    shop = Shop()
    first, second = shop.used(), shop.used()
    shop.pool.keep(first)
    shop.pool.keep(second)
    owner = Owner()
    assert shop.pool.borrow(owner) is second
    assert second.owner is owner
    assert shop.pool.borrow(owner) is first
    assert shop.pool.borrow(owner) is None
    second.dataReceived(b"250 ok\r\n")
    assert owner.received == b"250 ok\r\n"


def test_no_more_are_kept_than_allowed() -> None:
    shop = Shop()
    legs = [shop.used() for _ in range(3)]
    for leg in legs:
        shop.pool.keep(leg)
    assert [leg.transport.take() for leg in legs] == [b"", b"", b"QUIT\r\n"]


def test_a_session_is_used_so_often_and_no_more() -> None:
    shop = Shop()
    fresh, worn = shop.used(uses=2), shop.used(uses=3)
    shop.pool.keep(fresh)
    shop.pool.keep(worn)
    assert worn.transport.take() == b"QUIT\r\n"
    assert shop.pool.borrow(Owner()) is fresh


def test_a_backend_that_takes_ehlo_once_keeps_nothing() -> None:
    shop = Shop()
    shop.pool.once_only = True
    leg = shop.used()
    shop.pool.keep(leg)
    assert leg.transport.take() == b"QUIT\r\n"
    assert shop.pool.borrow(Owner()) is None


def test_an_idle_session_takes_leave() -> None:
    shop = Shop()
    leg = shop.used()
    shop.pool.keep(leg)
    shop.reactor.advance(29.0)
    shop.pool.sweep(shop.reactor.seconds())
    assert leg.transport.take() == b""
    shop.reactor.advance(2.0)
    shop.pool.sweep(shop.reactor.seconds())
    assert leg.transport.take() == b"QUIT\r\n"
    assert shop.pool.borrow(Owner()) is None
    assert not leg.transport.ended
    leg.dataReceived(b"221 bye\r\n")
    assert leg.transport.ended == "closed"
    assert not shop.pool.busy


def test_the_idle_time_begins_anew_each_time() -> None:
    shop = Shop()
    leg = shop.used()
    for _ in range(3):
        shop.pool.keep(leg)
        shop.reactor.advance(20.0)
        shop.pool.sweep(shop.reactor.seconds())
        assert shop.pool.borrow(Owner()) is leg
    assert leg.transport.take() == b""


def test_s17_quit_is_given_a_while_to_be_answered() -> None:
    shop = Shop()
    leg = shop.used()
    shop.pool.leave(leg)
    assert leg.transport.take() == b"QUIT\r\n"
    assert shop.pool.busy
    shop.reactor.advance(5.0)
    shop.pool.sweep(shop.reactor.seconds())
    assert not leg.transport.ended
    shop.reactor.advance(60.0)
    shop.pool.sweep(shop.reactor.seconds())
    assert leg.transport.ended
    assert not shop.pool.busy


@pytest.mark.parametrize("end", ["speaks", "closes", "is lost"])
def test_a_kept_session_that_ends_is_forgotten(end: str) -> None:
    shop = Shop()
    leg = shop.used()
    shop.pool.keep(leg)
    assert shop.pool.busy
    if end == "speaks":
        leg.dataReceived(b"421 4.3.2 going down\r\n")
    elif end == "closes":
        leg.readConnectionLost()
    else:
        leg.owner.leg_lost(leg, "reset")
    assert shop.pool.borrow(Owner()) is None
    assert not shop.pool.busy
    assert leg.transport.ended == "closed"


def test_close_takes_leave_of_all_and_keeps_no_more() -> None:
    shop = Shop()
    kept, busy = shop.used(), shop.used()
    shop.pool.keep(kept)
    shop.pool.close()
    assert kept.transport.take() == b"QUIT\r\n"
    shop.pool.keep(busy)
    assert busy.transport.take() == b"QUIT\r\n"
    assert shop.pool.borrow(Owner()) is None


def test_h9_a_session_is_kept_and_left_with_its_reading_on() -> None:
    shop = Shop()
    kept, left = shop.used(), shop.used()
    kept.transport.pauseProducing()
    left.transport.pauseProducing()
    shop.pool.keep(kept)
    shop.pool.leave(left)
    assert not kept.transport.paused
    assert not left.transport.paused


def test_s18_a_421_that_waits_in_the_kernel_is_seen_before_the_session_is_lent() -> None:
    shop = Shop()
    for spoil in ("speaks", "closes", "resets"):
        with tcp_pair() as (ours, peer):
            leg = shop.used()
            transport = LeanTransport(shop.reactor, ours, ("192.0.2.25", 25))
            transport.start(leg)
            shop.pool.keep(leg)
            if spoil == "speaks":
                peer.sendall(b"421 4.3.2 going down\r\n")
            elif spoil == "closes":
                peer.close()
            else:
                reset(peer)
            assert shop.pool.borrow(Owner()) is None
            assert transport.fileno() == -1


def test_s18_a_quiet_session_is_lent_with_its_connection_untouched() -> None:
    shop = Shop()
    with tcp_pair() as (ours, peer):
        leg = shop.used()
        LeanTransport(shop.reactor, ours, ("192.0.2.25", 25)).start(leg)
        shop.pool.keep(leg)
        owner = Owner()
        assert shop.pool.borrow(owner) is leg
        leg.transport.write(b"NOOP\r\n")
        assert peer.recv(100) == b"NOOP\r\n"
        peer.sendall(b"250 ok\r\n")
        shop.reactor.until(lambda: owner.received == b"250 ok\r\n")


# --- dialling -------------------------------------------------------------------------------------------------------


def test_s19_servers_that_refuse_at_once_are_passed_over_and_rest() -> None:
    shop = Shop(servers=["192.0.2.1:25", "192.0.2.2:25", "192.0.2.3:25"])
    shop.dialler.down = {"192.0.2.1:25", "192.0.2.2:25"}
    leg = shop.pool.dial(Owner(), [])
    assert isinstance(leg, BackendLeg)
    assert leg.server.name == "192.0.2.3:25"
    shop.dialler.down = set()
    again = shop.pool.dial(Owner(), [])
    assert isinstance(again, BackendLeg)
    assert again.server.name == "192.0.2.3:25", "the others rest"


def test_s19_our_own_trouble_does_not_count_against_a_server() -> None:
    shop = Shop(servers=["192.0.2.1:25", "192.0.2.2:25"])
    shop.dialler.exhausted = True
    why = shop.pool.dial(Owner(), [])
    assert isinstance(why, str)
    assert "Too many open files" in why
    shop.dialler.exhausted = False
    leg = shop.pool.dial(Owner(), [])
    assert isinstance(leg, BackendLeg)
    assert leg.server.name == "192.0.2.1:25"


def test_s19_when_all_have_been_tried_there_is_a_reason() -> None:
    shop = Shop(servers=["192.0.2.1:25", "192.0.2.2:25"])
    shop.dialler.down = {"192.0.2.1:25", "192.0.2.2:25"}
    why = shop.pool.dial(Owner(), [])
    assert isinstance(why, str)
    assert "192.0.2.2:25" in why
    assert "Connection refused" in why


def test_s19_a_session_tries_each_server_once() -> None:
    shop = Shop(servers=["192.0.2.1:25", "192.0.2.2:25"])
    tried: list[Any] = []
    names = []
    while isinstance(leg := shop.pool.dial(Owner(), tried), BackendLeg):
        names.append(leg.server.name)
        shop.pool.failed(leg)
    assert names == ["192.0.2.1:25", "192.0.2.2:25"]
    assert isinstance(leg, str)


# --- with sessions --------------------------------------------------------------------------------------------------


def test_s18_the_next_client_gets_the_kept_session(stage: Callable[..., Stage]) -> None:
    play = stage(backend={"reuse": REUSE})
    first = play.ready(lines=b"MAIL FROM:<a@b.example>\r\nRSET\r\n")
    first.send(b"QUIT\r\n")
    assert play.asked() == b""
    second = play.client()
    assert second.take().startswith(b"220 mx.example.org ")
    assert len(play.dialler.legs) == 1
    assert second.session.reused
    second.send(b"EHLO other.example\r\n")
    assert play.asked() == b"EHLO other.example\r\n", "the backend learns the new client's name"


def test_s18_a_backend_that_takes_ehlo_once_is_found_out(stage: Callable[..., Stage]) -> None:
    play = stage(backend={"reuse": REUSE})
    play.ready(lines=b"NOOP\r\n").send(b"QUIT\r\n")
    second = play.client()
    second.send(b"EHLO other.example\r\n")
    play.answer(b"503 already identified\r\n")
    assert len(play.dialler.legs) == 2
    play.answer(b"220 mx.example.org ESMTP\r\n")
    assert play.asked() == b"EHLO other.example\r\n"
    play.answer(EHLO_REPLY)
    assert b"\r\n250-8BITMIME\r\n" in second.take()
    second.send(b"QUIT\r\n")
    third = play.client()
    assert not third.session.reused
    assert len(play.dialler.legs) == 3


def test_h9_s18_a_client_that_did_not_read_leaves_no_deaf_session_behind(stage: Callable[..., Stage]) -> None:
    play = stage(backend={"reuse": REUSE})
    first = play.ready()
    first.send(b"HELP\r\nQUIT\r\n")
    first.transport.full = True
    play.answer(b"214 so much\r\n")
    assert len(play.journal.sessions) == 1
    transport: FakeTransport = play.leg.transport
    second = play.client()
    assert second.session.reused
    assert not transport.paused
