"""Outbound on real sockets: mail that would come back to this machine is noticed, with names from a DNS server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dnsserver import DnsServer
from freeports import free_port

from .client import Client
from .outboundproxy import Town, envelope, smarthost
from .outboundremote import EARLY
from .process import Settings, listener

ZONES = {
    "looping.example": {"MX": ["10 mx.looping.example."]},
    "mx.looping.example": {"A": ["127.0.0.1"]},
    "hidden.example": {"MX": ["10 mx.hidden.example."]},
    "mx.hidden.example": {"A": ["203.0.113.5"]},
}
NOWHERE = ["127.0.0.1:9"]


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as made:
        yield made


@pytest.fixture
def dns() -> Iterator[Settings]:
    with DnsServer(ZONES) as server:
        yield {"servers": [f"{server.address}:{server.port}"]}


def by_dns(port: int) -> Settings:
    return {"domain": "*", "lookup": "mx", "port": port, "tls": {"mode": "none"}, "timeouts": {"connect": "1 s"}}


def test_an_inbound_listener_of_ours_as_the_best_mx_is_a_loop(town: Town, dns: Settings) -> None:
    out, port = free_port(), free_port()
    listeners = [smarthost(out), listener("mx", [f"0.0.0.0:{port}"])]
    town.smarthost([by_dns(port)], listeners, backends={"mta": {"servers": NOWHERE}}, dns=dns)
    with Client(("127.0.0.1", out)).begin() as client:
        client.send(envelope(b"b@looping.example"))
        assert client.codes(1) == [250]
        assert client.reply() == b"554 5.4.6 Mail for looping.example loops back to myself\r\n"


def test_a_server_of_this_machine_that_is_none_of_ours_is_no_loop(town: Town, dns: Settings) -> None:
    remote = town.remote(keywords=EARLY)
    with town.smarthost([by_dns(remote.address[1])], dns=dns).client() as client:
        client.send(envelope(b"b@looping.example"))
        assert client.codes(2) == [250, 250]


def test_an_mx_at_an_address_that_nat_hides_is_a_loop(town: Town, dns: Settings) -> None:
    proxy = town.smarthost([by_dns(25)], listener={"own_addresses": ["203.0.113.5"]}, dns=dns)
    with proxy.client() as client:
        client.send(envelope(b"b@hidden.example"))
        assert client.codes(1) == [250]
        assert client.reply() == b"554 5.4.6 Mail for hidden.example loops back to myself\r\n"
