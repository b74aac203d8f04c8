"""The client's own address as the source, with the very commands of docs/source-address.md: three machines (client,
proxy, server), each with a network of its own; curl as the client, smtp-sink or Postfix as the server.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import Process, wait_for
from .messages import assert_intact, sample
from .namespaces import ANOTHER, CLIENTS, CONTAINER, PROXIES, SAME, Lab, lab
from .postfix import Postfix, master_program, postfix

pytestmark = pytest.mark.interop

PAGE = Path(__file__).resolve().parents[2] / "docs/source-address.md"
MARKS = "If others reach the server through the proxy's machine"
ON_PROXY, ON_SERVER = "on the proxy's machine", "on the server's machine"

both_families = pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])


def section(heading: str) -> str:
    """What the page says below a heading."""
    text = PAGE.read_text(encoding="utf-8")
    begin = text.index(f"\n### {heading}\n")
    return text[begin : text.index("\n##", begin + 1)]


def blocks(heading: str) -> dict[str, str]:
    """The commands below a heading, by the comments that they begin with."""
    found = re.findall(r"^```sh\n# ([^\n]+)\n(.*?)^```$", section(heading), re.MULTILINE | re.DOTALL)
    assert len(dict(found)) == len(found)
    return dict(found)


def nft_file(heading: str) -> str:
    """The rules for nftables below a heading."""
    (found,) = re.findall(r"^```nft\n(.*?)^```$", section(heading), re.MULTILINE | re.DOTALL)
    return str(found)


def follow_the_page(made: Lab, layout: str) -> None:
    commands = blocks(layout)
    if layout == SAME:
        made.proxy.sh(commands.pop("on the machine"))
    else:
        made.proxy.sh(commands.pop(ON_PROXY))
    if layout == ANOTHER:
        made.server.sh(commands.pop(ON_SERVER) + commands.pop(f"{ON_SERVER}, if rp_filter is strict"))
    assert commands == {}, "every command of the page is tried"


@contextlib.contextmanager
def lab_with_sinks(layout: str) -> Iterator[Lab]:
    """The machines of a layout; the server is smtp-sink."""
    with lab(layout) as made:
        made.start_sinks()
        yield made


@contextlib.contextmanager
def lab_with_postfix(layout: str) -> Iterator[tuple[Lab, Postfix]]:
    """The machines of a layout; the server is a Postfix."""
    with lab(layout) as made, postfix({"inet_protocols": "all"}) as server:
        # Its first start, on our own loopback, has made its folders; the second one is on the server's machine.
        server.stop()
        etc = server.folder / "etc"
        with (etc / "master.cf").open("a", encoding="ascii") as file:
            file.writelines(f"[{address}]:{made.port} inet n - n - 100 smtpd\n" for address in made.servers)
        os.utime(etc / "master.cf", (0, 0))  # as `Postfix.start` does
        command = made.server.command(str(master_program()), "-c", str(etc), "-d")
        server.process = Process(command, server.folder / "start.log")
        made.wait_for_server()
        yield made, server


@pytest.mark.parametrize("layout", [SAME, CONTAINER, ANOTHER])
def test_the_server_sees_the_client(layout: str) -> None:
    with lab_with_sinks(layout) as made:
        follow_the_page(made, layout)
        made.start_proxy()
        for family, address in enumerate(CLIENTS):
            sent = made.send(PROXIES[family])
            assert sent.returncode == 0, f"{sent.stderr}{made.failures()}"
            assert made.seen(family) == [address]


@pytest.mark.parametrize("way", ["nft", "iptables"])
def test_with_marks_others_reach_the_server_too(way: str) -> None:
    for name in ("nft",) if way == "nft" else ("iptables", "ip6tables"):
        if shutil.which(name) is None:
            pytest.skip(f"the command {name} is not installed")
    with lab_with_sinks(ANOTHER) as made:
        routing = blocks(ANOTHER)
        made.server.sh(routing[ON_SERVER] + routing[f"{ON_SERVER}, if rp_filter is strict"])
        commands = blocks(MARKS)
        made.proxy.sh(commands[ON_PROXY])
        if way == "nft":
            (made.folder / "nft").write_text(nft_file(MARKS), encoding="ascii")
            made.proxy.sh(f"nft -f {made.folder / 'nft'}")
        else:
            made.proxy.sh(commands["with iptables"])
        made.proxy.sh("sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        made.start_proxy()
        for family, address in enumerate(CLIENTS):
            for server in (PROXIES[family], made.servers[family]):
                sent = made.send(server)
                assert sent.returncode == 0, f"{server}: {sent.stderr}{made.failures()}"
            assert made.seen(family) == [address, address]


@both_families
def test_without_the_rules_no_connection_comes_about(family: int) -> None:
    with lab_with_sinks(CONTAINER) as made:
        made.start_proxy(connect="1 s")
        assert "421" in made.send(PROXIES[family]).stderr
        assert made.seen(family) == []


@both_families
def test_without_the_capability_the_log_says_so(family: int) -> None:
    with lab_with_sinks(SAME) as made:
        follow_the_page(made, SAME)
        made.start_proxy(bounding_set="-all,+net_bind_service")
        assert "421" in made.send(PROXIES[family]).stderr
        why = "connecting from the client's address needs the capability CAP_NET_ADMIN or CAP_NET_RAW"
        wait_for(lambda: why in made.failures(), "the complaint")
        assert made.seen(family) == []


def test_the_smaller_capability_is_enough() -> None:
    with lab_with_sinks(SAME) as made:
        follow_the_page(made, SAME)
        made.start_proxy(bounding_set="-all,+net_bind_service,+net_raw")
        for family, address in enumerate(CLIENTS):
            assert made.send(PROXIES[family]).returncode == 0
            assert made.seen(family) == [address]


@pytest.mark.parametrize("layout", [CONTAINER, ANOTHER])
def test_postfix_logs_the_client(layout: str) -> None:
    with lab_with_postfix(layout) as (made, server):
        follow_the_page(made, layout)
        made.start_proxy()
        for family, address in enumerate(CLIENTS):
            message = sample()
            sent = made.send(PROXIES[family], message=message.wire)
            assert sent.returncode == 0, f"{sent.stderr}{made.failures()}"
            assert server.arrival(message) == f"unknown[{address}]"
            assert_intact(server.delivered(), message)


@both_families
def test_postfix_hears_of_no_client_before_the_rules_are_there(family: int) -> None:
    with lab_with_postfix(CONTAINER) as (made, server):
        made.start_proxy(connect="1 s")
        assert "421" in made.send(PROXIES[family], message=sample().wire).stderr
        follow_the_page(made, CONTAINER)
        message = sample()
        sent = made.send(PROXIES[family], message=message.wire)
        assert sent.returncode == 0, f"{sent.stderr}{made.failures()}"
        assert server.arrival(message) == f"unknown[{CLIENTS[family]}]"
        assert re.findall(r": connect from (.*)", server.log()) == [f"unknown[{CLIENTS[family]}]"]
        (copy,) = server.delivered()
        assert_intact([copy], message)


def test_postfix_logs_the_proxy_where_it_is_not_asked_to_show_the_client() -> None:
    """The rules of the routing alone show nobody."""
    with lab_with_postfix(CONTAINER) as (made, server):
        follow_the_page(made, CONTAINER)
        made.start_proxy(identity="none")
        for address in PROXIES:
            message = sample()
            sent = made.send(address, message=message.wire)
            assert sent.returncode == 0, f"{sent.stderr}{made.failures()}"
            assert server.arrival(message) == "unknown[172.18.0.1]"  # the first of the servers is asked by IPv4
            assert_intact(server.delivered(), message)
