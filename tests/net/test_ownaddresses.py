"""Which addresses are our own."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from twisted.internet.task import Clock

from smtpproxy.net.ownaddresses import OwnAddresses, OwnHosts, is_local


def test_an_address_that_is_listened_on() -> None:
    own = OwnAddresses([("192.0.2.1", 25), ("2001:DB8::1", 2525)])
    assert own("192.0.2.1", 25)
    assert own("2001:db8:0::1", 2525)
    assert own("::ffff:192.0.2.1", 25)
    assert OwnAddresses([("fe80::1%eth0", 25)])("fe80::1", 25)
    assert not own("192.0.2.1", 2525)
    assert not own("192.0.2.2", 25)
    assert not own("127.0.0.1", 25), "it is not listened on"


def test_a_wildcard_is_every_address_of_this_machine_in_its_family() -> None:
    own = OwnAddresses([("0.0.0.0", 25)])
    assert own("127.0.0.1", 25)
    assert own("127.0.0.77", 25)
    assert own("0.0.0.0", 25), "a connection to it ends here"
    assert not own("127.0.0.1", 26)
    assert not own("::1", 25)
    assert OwnAddresses([("::", 25)])("::1", 25)
    assert OwnAddresses([("::", 25)])("127.0.0.1", 25), "it takes IPv4 too"
    assert not own("192.0.2.1", 25), "documentation's, no machine has it"


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "255.255.255.255", "ff02::1"])
def test_addresses_that_are_not_here(address: str) -> None:
    assert not is_local(address)


def test_a_machine_without_ipv6_has_no_such_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel (ipv6.disable=1) has not even sockets of that family."""

    def missing(*_: object) -> Any:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", missing)
    assert not is_local("2001:db8::1")


class Kernel:
    """Counts how often it is asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = set(addresses)
        self.asked: list[str] = []

    def __call__(self, address: str) -> bool:
        self.asked.append(address)
        return address in self.addresses


def test_a_mail_host_at_port_25_of_this_machine_is_ourselves() -> None:
    own = OwnHosts([("127.0.0.1", 2525)], Clock().seconds, is_local=Kernel("192.0.2.5", "2001:db8::5"))
    assert own("192.0.2.5", 25)
    assert own("2001:db8::5", 25)
    assert not own("192.0.2.5", 2525), "something else may listen there"
    assert not own("192.0.2.6", 25)


def test_a_mail_host_at_a_listener_is_ourselves() -> None:
    own = OwnHosts([("192.0.2.7", 2525), ("0.0.0.0", 2526)], Clock().seconds, is_local=Kernel("192.0.2.5"))
    assert own("192.0.2.7", 2525)
    assert own("192.0.2.5", 2526), "the listener is on every address"
    assert not own("192.0.2.7", 2526)
    assert not own("192.0.2.5", 2527)


def test_loopback_addresses_are_this_machine() -> None:
    own = OwnHosts([], Clock().seconds)
    assert own("127.0.0.9", 25)
    assert own("::1", 25)
    assert not own("127.0.0.9", 2525)


def test_addresses_that_nat_hides_are_this_machine() -> None:
    hidden = ("203.0.113.5", "2001:DB8:0::5", "::ffff:203.0.113.6")
    own = OwnHosts([("0.0.0.0", 2525)], Clock().seconds, hidden=hidden, is_local=Kernel())
    for address in ("203.0.113.5", "2001:db8::5", "203.0.113.6"):
        assert own(address, 25)
    assert own("203.0.113.5", 2525), "a listener is on every address"
    assert not own("203.0.113.5", 587)
    assert not own("203.0.113.7", 25)


def test_the_kernel_is_asked_once_a_minute() -> None:
    clock, kernel = Clock(), Kernel("192.0.2.5")
    own = OwnHosts([], clock.seconds, is_local=kernel)
    assert [own(address, 25) for address in ("192.0.2.5", "192.0.2.6") * 3] == [True, False] * 3
    assert kernel.asked == ["192.0.2.5", "192.0.2.6"]
    clock.advance(59)
    kernel.addresses = {"192.0.2.6"}
    assert own("192.0.2.5", 25)
    clock.advance(1)
    assert [own(address, 25) for address in ("192.0.2.5", "192.0.2.6")] == [False, True]
    assert len(kernel.asked) == 4
