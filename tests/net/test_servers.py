"""The servers of a backend: order, rest, failover, names (S19)."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from smtpproxy.net.servers import Servers

from .fakes import FakeReactor
from .stage import endpoints


def made(*texts: str, rest: float = 30.0) -> tuple[Servers, FakeReactor]:
    clock = FakeReactor()
    servers = Servers(endpoints(*texts), rest, clock.seconds)
    return servers, clock


def order(servers: Servers) -> list[str]:
    """The names in the order in which one session would try them."""
    tried: list[Any] = []
    while (server := servers.next(tried)) is not None:
        assert server not in tried
        tried.append(server)
    return [server.name for server in tried]


THREE = ("192.0.2.1:25", "[2001:db8::2]:25", "unix:/run/mta")


def test_the_order_is_that_of_the_configuration() -> None:
    servers, _ = made(*THREE)
    assert servers.resolve() == []
    assert order(servers) == list(THREE)
    assert order(servers) == list(THREE), "nothing is remembered between sessions"


def test_what_the_socket_module_needs() -> None:
    servers, _ = made(*THREE)
    servers.resolve()
    tried: list[Any] = []
    found = []
    while (server := servers.next(tried)) is not None:
        tried.append(server)
        found.append((server.family, server.address))
    assert found[0] == (socket.AF_INET, ("192.0.2.1", 25))
    assert (found[1][0], found[1][1][:2]) == (socket.AF_INET6, ("2001:db8::2", 25))
    assert found[2] == (socket.AF_UNIX, "/run/mta")


def test_before_the_first_look_up_there_is_none() -> None:
    servers, _ = made(*THREE)
    assert servers.next([]) is None


def test_s19_a_failed_server_rests_and_is_tried_last() -> None:
    servers, clock = made(*THREE, rest=30.0)
    servers.resolve()
    first = servers.next([])
    assert first is not None
    servers.failed(first)
    assert order(servers) == [THREE[1], THREE[2], THREE[0]]
    clock.advance(29.0)
    assert order(servers)[0] == THREE[1]
    clock.advance(2.0)
    assert order(servers) == list(THREE)


def test_s19_when_all_rest_they_are_tried_all_the_same() -> None:
    servers, _ = made(*THREE)
    servers.resolve()
    tried: list[Any] = []
    while (server := servers.next(tried)) is not None:
        tried.append(server)
        servers.failed(server)
    assert order(servers) == list(THREE)


def test_one_server_that_rests_is_tried() -> None:
    servers, _ = made("192.0.2.1:25")
    servers.resolve()
    only = servers.next([])
    assert only is not None
    servers.failed(only)
    assert servers.next([]) is only


@pytest.mark.parametrize(
    ("text", "has_names"),
    [("192.0.2.1:25", False), ("[2001:db8::1]:25", False), ("unix:/run/mta", False), ("mx.example.org:25", True)],
)
def test_whether_addresses_can_change(text: str, has_names: bool) -> None:  # noqa: FBT001  # a parameter of the test
    servers, _ = made(text)
    assert servers.has_names == has_names


class Resolver:
    """Stands in for the C library: names have the addresses that the test gives them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, list[str]] = {}
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, *arguments: Any, **options: Any) -> Any:
        if host not in self.names:
            if not host.replace(".", "").replace(":", "").isalnum() or host[0].isalpha():
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return self._real(host, port, *arguments, **options)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.names[host]
        ]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    return Resolver(monkeypatch)


def test_a_name_is_all_its_addresses_in_order(resolver: Resolver) -> None:
    resolver.names["mx.example.org"] = ["192.0.2.7", "2001:db8::7", "192.0.2.7"]
    servers, _ = made("mx.example.org:25", "192.0.2.1:2525")
    assert servers.resolve() == []
    assert order(servers) == ["192.0.2.7:25", "[2001:db8::7]:25", "192.0.2.1:2525"]


def test_a_look_up_that_fails_keeps_the_old_addresses(resolver: Resolver) -> None:
    resolver.names["mx.example.org"] = ["192.0.2.7"]
    servers, _ = made("mx.example.org:25", "192.0.2.1:25")
    servers.resolve()
    del resolver.names["mx.example.org"]
    (problem,) = servers.resolve()
    assert problem.startswith("mx.example.org:25: ")
    assert "Temporary failure" in problem
    assert order(servers) == ["192.0.2.7:25", "192.0.2.1:25"]


def test_a_look_up_that_never_succeeded_leaves_the_others(resolver: Resolver) -> None:
    servers, _ = made("mx.example.org:25", "192.0.2.1:25")
    assert len(servers.resolve()) == 1
    assert order(servers) == ["192.0.2.1:25"]
    resolver.names["mx.example.org"] = ["192.0.2.7"]
    assert servers.resolve() == []
    assert order(servers) == ["192.0.2.7:25", "192.0.2.1:25"]


def test_a_look_up_that_finds_others_takes_them(resolver: Resolver) -> None:
    resolver.names["mx.example.org"] = ["192.0.2.7", "192.0.2.8"]
    servers, _ = made("mx.example.org:25")
    servers.resolve()
    resolver.names["mx.example.org"] = ["192.0.2.9", "192.0.2.8"]
    servers.resolve()
    assert order(servers) == ["192.0.2.9:25", "192.0.2.8:25"]


def test_s19_what_was_found_before_is_good_until_the_next_look_up(resolver: Resolver) -> None:
    """After a reload: names and rests are taken over, addresses that are written out are there at once."""
    resolver.names["mx.example.org"] = ["192.0.2.7", "192.0.2.8"]
    before, _ = made("mx.example.org:25", "192.0.2.1:25")
    before.resolve()
    first = before.next([])
    assert first is not None
    before.failed(first)
    del resolver.names["mx.example.org"]
    after, _ = made("192.0.2.2:25", "mx.example.org:25", "unknown.example.org:25")
    after.adopt(before)
    assert after.resolve(names=False) == []
    assert order(after) == ["192.0.2.2:25", "192.0.2.8:25", "192.0.2.7:25"]
    assert len(after.resolve()) == 2
    assert order(after) == ["192.0.2.2:25", "192.0.2.8:25", "192.0.2.7:25"]


def test_s19_a_server_rests_on_over_a_look_up(resolver: Resolver) -> None:
    resolver.names["mx.example.org"] = ["192.0.2.7", "192.0.2.8"]
    servers, _ = made("mx.example.org:25")
    servers.resolve()
    first = servers.next([])
    assert first is not None
    servers.failed(first)
    servers.resolve()
    assert order(servers) == ["192.0.2.8:25", "192.0.2.7:25"]
    resolver.names["mx.example.org"] = ["192.0.2.8", "192.0.2.7"]
    servers.resolve()
    assert order(servers) == ["192.0.2.8:25", "192.0.2.7:25"]
