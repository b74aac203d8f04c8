"""In front of a mail server that cannot be configured, with the very commands of docs/transparent.md."""

from __future__ import annotations

import subprocess

import pytest

from .lab import wait_for
from .transparent_scene import (
    BY_USER,
    GATEWAY,
    MAIL_SERVERS,
    NEIGHBOURS,
    ON_ITS_OWN,
    PARTNERS,
    ROUTERS,
    WORLD,
    block,
    scene,
)

pytestmark = pytest.mark.interop

LEFT_OUT, UNDONE = "Leaving destinations out", "Undoing it"
NO_CONNECTION = 7  # an exit status of curl

both_families = pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
each_way = pytest.mark.parametrize("way", [ON_ITS_OWN, BY_USER, GATEWAY])
either_way = pytest.mark.parametrize("way", [ON_ITS_OWN, GATEWAY])


@each_way
def test_mail_comes_by_way_of_us(way: str) -> None:
    with scene(way) as there:
        there.start_and_wait()
        there.follow_the_page()
        for family, server in enumerate(WORLD):
            there.delivers(server)
            assert there.log()[family] == [MAIL_SERVERS[family], server, "25"]
            assert there.made.seen(family) == [ROUTERS[family] if way == GATEWAY else MAIL_SERVERS[family]]
        assert sum(there.counted()) >= len(WORLD)


def test_other_hosts_behind_the_gateway_are_left_alone() -> None:
    with scene(GATEWAY) as there:
        there.start_and_wait()
        there.follow_the_page()
        for family, server in enumerate(WORLD):
            there.delivers(server, source=NEIGHBOURS[family])
            assert there.made.seen(family) == [NEIGHBOURS[family]]
        assert there.log() == []


def test_other_users_of_the_machine_are_left_alone() -> None:
    with scene(BY_USER) as there:
        there.start_and_wait()
        there.follow_the_page()
        there.user = ""
        for family, server in enumerate(WORLD):
            there.delivers(server)
            assert there.made.seen(family) == [MAIL_SERVERS[family]]
        assert there.log() == []


def test_what_the_machine_forwards_is_left_alone() -> None:
    """The rules for a mail server's own machine, on one that others send through."""
    with scene(GATEWAY) as there:
        there.way = ON_ITS_OWN
        there.start_and_wait()
        there.follow_the_page()
        for family, server in enumerate(WORLD):
            there.delivers(server)
            assert there.made.seen(family) == [MAIL_SERVERS[family]]
        assert there.log() == []


@either_way
@both_families
def test_who_comes_straight_to_us_is_turned_away(way: str, family: int) -> None:
    with scene(way) as there:
        there.start_and_wait()
        there.follow_the_page()
        loopback = ("127.0.0.1", "::1")[family]
        sent = there.send(loopback, port=2525, machine=there.machine)
        assert "421" in sent.stderr
        assert there.made.seen(family) == []


@both_families
def test_without_the_rule_for_the_mark_it_ends_with_421(family: int) -> None:
    """Our own connection comes back to us, and that is noticed at once."""
    with scene(ON_ITS_OWN) as there:
        there.start_and_wait()
        there.load(block(ON_ITS_OWN, "nft").replace("meta mark 25 accept\n", "\n"))
        assert "421" in there.send(WORLD[family]).stderr
        assert there.log() == [
            [MAIL_SERVERS[family], WORLD[family], "25"],
            [MAIL_SERVERS[family], WORLD[family], "25", "it", "would", "come", "back"],
        ]
        assert there.made.seen(family) == []


@either_way
def test_destinations_that_are_left_out(way: str) -> None:
    with scene(way) as there:
        there.start_and_wait()
        there.follow_the_page()
        commands = block(LEFT_OUT, "sh", "leaving destinations out")
        there.machine.sh(commands.replace(" output ", f" {there.chain} "))
        for family, partner in enumerate(PARTNERS):
            # The partner's server does not run; its machine says so, and nobody else was asked.
            assert there.send(partner).returncode == NO_CONNECTION
            assert there.log() == []
            assert there.made.seen(family) == []


@pytest.mark.parametrize("way", [ON_ITS_OWN, BY_USER])
def test_while_we_do_not_run_connections_are_refused(way: str) -> None:
    with scene(way) as there:
        there.follow_the_page()
        for family, server in enumerate(WORLD):
            assert there.send(server).returncode == NO_CONNECTION
            assert there.made.seen(family) == []


def test_while_we_do_not_run_a_gateway_forwards() -> None:
    with scene(GATEWAY) as there:
        there.follow_the_page()
        for family, server in enumerate(WORLD):
            there.delivers(server)
            assert there.made.seen(family) == [MAIL_SERVERS[family]]


@each_way
def test_it_can_be_undone(way: str) -> None:
    with scene(way) as there:
        there.start_and_wait()
        before = there.machine_rules()
        there.follow_the_page()
        assert there.machine_rules() != before
        there.machine.sh(block(UNDONE, "sh", "undoing it"))
        if way == GATEWAY:
            there.machine.sh(block(UNDONE, "sh", "undoing it on the gateway"))
        assert there.machine_rules() == before
        for family, server in enumerate(WORLD):
            there.delivers(server)
            assert there.made.seen(family) == [MAIL_SERVERS[family]]
        assert there.log() == []


@either_way
def test_the_smaller_capability_is_enough(way: str) -> None:
    with scene(way) as there:
        there.start_and_wait("-all,+net_bind_service,+net_raw")
        there.follow_the_page()
        for server in WORLD:
            there.delivers(server)


def test_a_rule_for_a_user_needs_none() -> None:
    with scene(BY_USER) as there:
        there.start_and_wait("-all")
        there.follow_the_page()
        for server in WORLD:
            there.delivers(server)


def test_without_a_capability_nobody_listens_for_foreign_addresses() -> None:
    with scene(GATEWAY) as there:
        process = there.start("-all,+net_bind_service")
        wait_for(lambda: process.popen.poll() is not None, "its end")
        assert "needs the capability CAP_NET_ADMIN or CAP_NET_RAW" in process.text()


def test_the_way_to_check_the_gateway() -> None:
    with scene(GATEWAY) as there:
        there.follow_the_page()
        command, answer = block("How to check", "").splitlines()
        shown = subprocess.run(there.machine.command(*command.split()), capture_output=True, text=True, check=True)
        assert " ".join(shown.stdout.split()).startswith(answer)
