"""Sets of client networks."""

import ipaddress

import pytest

from smtpproxy.config.networks import Networks

LAN = Networks(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("2001:db8::1%eth0", True),
        ("", False),
        ("no address", False),
    ],
)
def test_membership(address: str, *, expected: bool) -> None:
    assert (address in LAN) is expected
    assert (address in LAN) is expected, "the remembered answer"


def test_everyone_is_everyone_even_on_a_unix_socket() -> None:
    everyone = Networks(["10.0.0.0/8", "all"])
    assert everyone.everyone
    assert "192.0.2.1" in everyone
    assert "" in everyone


def test_nobody() -> None:
    assert not Networks()
    assert "10.0.0.1" not in Networks()
    assert "" not in Networks()
    assert bool(LAN)
    assert not LAN.everyone


def test_networks_may_be_given_parsed() -> None:
    given = Networks([ipaddress.ip_network("10.0.0.0/8")])
    assert "10.0.0.1" in given
    assert given == Networks(["10.0.0.0/8"])
    assert hash(given) == hash(Networks(["10.0.0.0/8"]))
    assert given != LAN
    assert repr(given) == "Networks(['10.0.0.0/8'])"


def test_what_is_remembered_is_bounded() -> None:
    networks = Networks(["10.0.0.0/8"])
    for number in range(10_000):
        assert f"10.0.{number >> 8}.{number & 255}" in networks
    assert networks._lookup.cache_info().currsize < 10_000


@pytest.mark.parametrize("text", ["10.0.0.1/8", "2001:db8::1/32"])
def test_host_bits_behind_the_prefix_are_a_mistake(text: str) -> None:
    network = ipaddress.ip_network(text, strict=False)
    with pytest.raises(ValueError, match=f"the network is '{network}'"):
        Networks([text])


@pytest.mark.parametrize("text", ["10.0.0.0/33", "everyone", "", "ALL", "mail.example.org"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match=r"a network such as 192\.0\.2\.0/24 or 2001:db8::/32 is expected"):
        Networks([text])
