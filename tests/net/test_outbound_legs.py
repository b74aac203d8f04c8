"""Connections with remotes: what may have left of a message when one ends, and what must not leave any more (C7)."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from smtpproxy.config import Route
from smtpproxy.net.remoteroute import RemoteRoute
from smtpproxy.net.remotes import RemoteLeg, Remotes
from smtpproxy.net.transport import LeanTransport
from smtpproxy.session.outbound.target import Target

from .fakes import FakeReactor
from .stage import FakeTransport

FLIGHT = b"EHLO us.example\r\nMAIL FROM:<a@b.example>\r\nBDAT 3 LAST\r\nx\r\n"
POSITION = FLIGHT.index(b"BDAT")


class Owner:
    """Keeps why its connection was lost."""

    def __init__(self) -> None:
        self.lost: list[str] = []

    def leg_received(self, _leg: Any, _data: bytes) -> None:
        """Mind nothing."""

    def leg_lost(self, _leg: Any, why: str) -> None:
        self.lost.append(why)

    def leg_full(self, *, full: bool) -> None:
        """Mind nothing."""

    def leg_secured(self, _leg: Any) -> None:
        """Mind nothing."""


class Wire:
    """A socket of which the test says what it answers."""

    def __init__(self, *, connected: bool, takes: int = 1 << 30) -> None:
        self.connected = connected
        self.takes = takes
        self.trouble = 0
        self.sent = b""

    def fileno(self) -> int:
        return 99

    def getpeername(self) -> tuple[str, int]:
        if not self.connected:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return ("192.0.2.7", 25)

    def send(self, data: bytes) -> int:
        if not self.takes:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        taken = min(len(data), self.takes)
        self.sent += data[:taken]
        if not self.connected:
            # Behind its SYN nothing leaves (see ``fastopen``).
            self.takes = 0
        return taken

    def sendmsg(self, pieces: list[bytes]) -> int:
        return self.send(b"".join(pieces))

    def recv(self, _size: int) -> bytes:
        raise OSError(self.trouble, "so it is")

    def close(self) -> None:
        self.connected = False


class Reactor:
    """Watches nothing."""

    def __getattr__(self, _name: str) -> Any:
        return lambda _descriptor: None


def new_leg(**settings: Any) -> tuple[RemoteLeg, Owner]:
    route = Route.model_validate({"domain": "*", "tls": {"mode": "none"}, "nexthops": ["192.0.2.7"], **settings})
    owner = Owner()
    return RemoteLeg(owner, Target("mx", "192.0.2.7", 25), RemoteRoute(route, None, "us.example", None)), owner  # type: ignore[arg-type]  # TLS is never spoken here


def lean(wire: Wire, **settings: Any) -> tuple[RemoteLeg, Owner]:
    leg, owner = new_leg(**settings)
    leg.lean = LeanTransport(Reactor(), wire, ("192.0.2.7", 25))  # type: ignore[arg-type]  # all that it needs
    leg.lean.start(leg)
    return leg, owner


@pytest.mark.parametrize(
    "trouble", [errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPIPE]
)
def test_c7_what_left_on_a_connection_that_was_there_has_left_however_it_ends(trouble: int) -> None:
    # The kernel gives up an established connection with EHOSTUNREACH if a router said so last (tcp(7), RFC 1122).
    wire = Wire(connected=True)
    leg, owner = lean(wire)
    leg.send(FLIGHT, POSITION)
    assert leg.handed(POSITION)
    wire.trouble = trouble
    assert leg.lean is not None
    leg.lean.doRead()
    assert owner.lost == ["so it is"]
    assert leg.handed(POSITION)
    assert leg.reached


def test_c7_nothing_has_left_for_a_server_that_turned_out_to_be_the_wrong_one() -> None:
    # What was to be said inside TLS is kept until the certificate was judged.
    leg, _owner = lean(Wire(connected=True))
    leg.send(FLIGHT, POSITION)
    leg.tls_trouble = True
    assert not leg.handed(POSITION)


@pytest.mark.parametrize("trouble", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ETIMEDOUT])
def test_c7_nothing_has_left_where_no_connection_came_about(trouble: int) -> None:
    wire = Wire(connected=False, takes=0)
    leg, owner = lean(wire)
    leg.send(FLIGHT, POSITION)
    wire.trouble = trouble
    assert leg.lean is not None
    leg.lean.doRead()
    assert owner.lost == ["so it is"]
    assert not leg.handed(POSITION)
    assert not leg.reached


@pytest.mark.parametrize("how", ["on", "whole_message"])
def test_c10_a_refused_syn_has_reached_nobody_unless_it_had_a_message_in_it(how: str) -> None:
    # A server may have taken the message of a SYN whose answer got lost, and refuse the SYN when it comes again.
    wire = Wire(connected=False)
    leg, _owner = lean(wire, fast_open=how)
    leg.deferred = True
    leg.send(FLIGHT, POSITION)
    wire.trouble = errno.ECONNREFUSED
    assert leg.lean is not None
    assert wire.sent == (FLIGHT if how == "whole_message" else FLIGHT[:POSITION])
    leg.lean.doRead()
    assert leg.handed(POSITION) is (how == "whole_message")
    assert not leg.reached


@pytest.mark.parametrize("fast", [True, False])
def test_c7_a_connection_that_was_there_can_end_as_refused(fast: bool) -> None:  # noqa: FBT001  # pytest gives it
    # An ICMP error (a firewall that rejects) is what the kernel reports when it gives up sending again.
    wire = Wire(connected=not fast)
    leg, _owner = lean(wire)
    leg.deferred = fast
    leg.send(FLIGHT, POSITION)
    assert leg.lean is not None
    wire.connected, wire.takes = True, 1 << 30
    if fast:
        assert not leg.handed(POSITION)
        leg.lean.doWrite()
    assert wire.sent == FLIGHT
    wire.trouble = errno.ECONNREFUSED
    leg.lean.doRead()
    assert leg.handed(POSITION)
    assert leg.reached


@pytest.mark.parametrize("trouble", [errno.EHOSTUNREACH, errno.ETIMEDOUT])
def test_c7_a_syn_that_nobody_has_refused_may_have_been_taken(trouble: int) -> None:
    wire = Wire(connected=False)
    leg, _owner = lean(wire, fast_open="whole_message")
    leg.deferred = True
    leg.send(FLIGHT, POSITION)
    wire.trouble = trouble
    assert leg.lean is not None
    leg.lean.doRead()
    assert leg.handed(POSITION)


def test_c7_only_what_the_kernel_took_counts() -> None:
    wire = Wire(connected=True, takes=POSITION)
    leg, _owner = lean(wire)
    leg.send(FLIGHT, POSITION)
    assert not leg.handed(POSITION)
    assert leg.reached
    assert leg.lean is not None
    wire.takes = 1
    leg.lean.sent += 1
    assert leg.handed(POSITION)


def test_stock_what_was_given_to_a_connection_that_was_given_up_never_leaves() -> None:
    leg, _owner = new_leg()
    leg.send(FLIGHT, POSITION)
    assert not leg.handed(POSITION)
    leg.close(reset=True)
    late = FakeTransport(FakeReactor())
    leg.makeConnection(late)
    assert late.written == b""


def test_stock_what_waited_for_the_connection_leaves_with_it() -> None:
    leg, _owner = new_leg()
    leg.send(FLIGHT[:POSITION], None)
    leg.send(FLIGHT[POSITION:], 0)
    there = FakeTransport(FakeReactor())
    leg.makeConnection(there)
    assert there.written == FLIGHT
    assert leg.handed(POSITION)


def test_a_kept_session_that_has_ended_is_forgotten() -> None:
    remotes = Remotes(FakeReactor(), FakeReactor().seconds, lean=True)
    leg, _owner = new_leg()
    leg.makeConnection(FakeTransport(FakeReactor()))
    leg.remote = _Used()  # type: ignore[assignment]  # what is looked at
    remotes.keep(leg)
    assert remotes.busy
    leg.readConnectionLost()
    assert remotes.borrow(Owner(), leg.target, leg.route) is None


def test_s18_each_route_has_its_sessions_for_itself() -> None:
    remotes = Remotes(FakeReactor(), FakeReactor().seconds, lean=True)
    leg, _owner = new_leg()
    other, _owner = new_leg(pace="lockstep")
    leg.makeConnection(FakeTransport(FakeReactor()))
    leg.remote = _Used()  # type: ignore[assignment]  # what is looked at
    remotes.keep(leg)
    assert other.target.key == leg.target.key
    assert remotes.borrow(Owner(), other.target, other.route) is None
    assert remotes.borrow(Owner(), other.target, leg.route) is leg
    assert not remotes.busy


class _Used:
    uses = 1
