"""Which addresses are our own."""

from __future__ import annotations

import pytest

from smtpproxy.net.ownaddresses import OwnAddresses, is_local


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
