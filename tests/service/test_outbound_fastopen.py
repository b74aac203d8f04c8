"""Outbound with TCP Fast Open (RFC 7413), in a network of its own: what rides on the SYN, and what must not (C10)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from net.networks import Network, networks

from .client import Client
from .outboundproxy import Smarthost, Town, deliver, envelope, route
from .outboundremote import EARLY
from .waiting import eventually

RIDING = {"speculate": {"confirmed": 0}}
TEXT = b"Subject: x\r\n\r\nhello\r\n"


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as made:
        yield made


@pytest.fixture
def network() -> Iterator[Network]:
    with networks(1) as [made]:
        made.sh("echo 3 > /proc/sys/net/ipv4/tcp_fastopen")
        yield made


class Place:
    """One smarthost and its servers in one network."""

    def __init__(self, town: Town, network: Network, how: Any = "on", **timeouts: str) -> None:
        self._network = network
        self.first, self.second = (network.run(lambda: town.remote(keywords=EARLY)) for _ in range(2))
        for remote in (self.first, self.second):
            remote.open_fast()
        routes = [route([self.first, self.second], fast_open=how, reuse=False, timeouts=timeouts)]
        self.proxy: Smarthost = network.run(lambda: town.smarthost(routes, listener=RIDING))

    def client(self) -> Client:
        """A client that has said EHLO."""
        return self._network.run(lambda: Client(self.proxy.address())).begin()

    def warm(self) -> None:
        """Deliver until the kernel has a cookie and the cache an entry; the next flight rides on its SYN."""
        for _ in range(2):
            with self.client() as client:
                assert deliver(client)[:3] == b"250"
        self.first.messages.clear()
        self.proxy.wait_for("delivery", 2)

    def delivery(self, number: int = 3) -> Any:
        """What was logged of a delivery, by default the first one behind ``warm``."""
        return self.proxy.wait_for("delivery", number)[number - 1]


def test_c10_the_flight_rides_on_the_syn_and_the_message_arrives_once(town: Town, network: Network) -> None:
    place = Place(town, network)
    place.warm()
    before = network.counter("TCPFastOpenActive")
    with place.client() as client:
        assert deliver(client, TEXT)[:3] == b"250"
    event = place.delivery()
    assert (event["fast_open"], event["early"], event["one_flight"]) == (True, True, True)
    assert place.first.texts == [TEXT]
    assert network.counter("TCPFastOpenActive") == before + 1
    place.proxy.stop()
    assert place.proxy.counters()["remote_fast_open"] >= 1


@pytest.mark.parametrize("how", ["on", "whole_message"])
def test_c10_the_syn_has_the_whole_message_only_where_the_route_says_so(town: Town, network: Network, how: str) -> None:
    place = Place(town, network, how)
    place.warm()
    place.first.behave(keywords=EARLY, waits=True)
    with place.client() as client:
        assert deliver(client, TEXT)[:3] == b"250"
    # The first read is what the SYN had, unless what followed it was faster than the server's thread.
    early = place.first.dialogue(-1, 3).early
    assert early.startswith(b"EHLO proxy.example.org\r\nMAIL ")
    if how == "whole_message":
        assert early.endswith(b"BDAT %d LAST\r\n%s" % (len(TEXT), TEXT))
    assert place.delivery()["fast_open"] is True
    assert place.first.texts == [TEXT]


def test_fast_open_off(town: Town, network: Network) -> None:
    place = Place(town, network, how=False)
    place.warm()
    with place.client() as client:
        assert deliver(client, TEXT)[:3] == b"250"
    assert network.counter("TCPFastOpenActive") == 0
    assert "fast_open" not in place.delivery()


def test_c7_a_refused_syn_with_commands_leads_to_the_next_server(town: Town, network: Network) -> None:
    place = Place(town, network, "on")
    place.warm()
    place.first.refuse()
    with place.client() as client:
        assert deliver(client, TEXT) == b"250 2.0.0 taken\r\n"
    assert place.delivery()["tries"] == 2
    assert place.second.texts == [TEXT]
    assert place.proxy.events("early_pipelining_failed") == []


def test_c7_a_refused_syn_with_the_message_in_it_may_have_been_taken(town: Town, network: Network) -> None:
    # Its answer may have got lost, and the server may be gone by the time that it comes again.
    place = Place(town, network, "whole_message")
    place.warm()
    place.first.refuse()
    with place.client() as client:
        assert deliver(client, TEXT) == b"451 4.4.2 Connection lost, fate of the message unknown\r\n"
        assert place.second.texts == []
        assert deliver(client, TEXT) == b"250 2.0.0 taken\r\n"
    assert place.second.texts == [TEXT]


def test_a_message_that_comes_slowly_does_not_count_as_time_to_connect(town: Town, network: Network) -> None:
    place = Place(town, network, connect="300 ms")
    place.warm()
    with place.client() as client:
        client.send(envelope() + b"DATA\r\n")
        assert client.codes(3) == [250, 250, 354]
        client.send(TEXT)
        assert not _hears(client, 1.5)
        client.send(b".\r\n")
        assert client.codes(1) == [250]
    assert place.delivery()["tries"] == 1
    assert place.first.texts == [TEXT]


def _hears(client: Client, seconds: float) -> bool:
    client.sock.settimeout(seconds)
    try:
        return bool(client.sock.recv(1))
    except TimeoutError:
        return False
    finally:
        client.sock.settimeout(20)


def test_a_connection_with_nothing_to_say_is_opened_all_the_same(town: Town, network: Network) -> None:
    place = Place(town, network)
    place.warm()
    place.proxy.stop()
    Path(place.proxy.store.removeprefix("sqlite:")).unlink()
    network.run(place.proxy.start)
    with place.client() as client:
        assert deliver(client, TEXT)[:3] == b"250"
    assert "early" not in place.proxy.wait_for("delivery")[0]
    assert eventually(lambda: place.first.texts == [TEXT], "the message")
