"""In front of a mail server that cannot be configured, with the very commands of docs/transparent.md."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from . import transparent_exim as exim
from .lab import wait_for
from .messages import assert_intact, sample
from .outbound_exim import pipelining
from .transparent_scene import (
    BY_USER,
    ELSEWHERE,
    GATEWAY,
    MAIL_SERVERS,
    NEIGHBOURS,
    ON_ITS_OWN,
    PARTNERS,
    ROUTERS,
    WORLD,
    Scene,
    block,
    scene,
)

pytestmark = pytest.mark.interop

Stage = Callable[..., Scene]

LEFT_OUT, UNDONE = "Leaving destinations out", "Undoing it"
NO_CONNECTION = 7  # an exit status of curl
DOMAINS = ("four.test", "six.test")
ON_THE_LOOPBACK = ("127.0.0.1:2525", "[::1]:2525")

# For IPv4 our own connections come from an address that may not relay.
SOURCES = (NEIGHBOURS[0], MAIL_SERVERS[1])
SETTINGS = f"""\
routes:
  - {{domain: lab.test, nexthops: ["203.0.113.9"], source: {{ipv4: 192.0.2.9}}}}
  - {{domain: "*", nexthops: ["203.0.113.9"], source: {{ipv4: {NEIGHBOURS[0]}}}, reuse: off}}
"""

each_way = pytest.mark.parametrize("way", [ON_ITS_OWN, BY_USER, GATEWAY])
either_way = pytest.mark.parametrize("way", [ON_ITS_OWN, GATEWAY])


@pytest.fixture(scope="module")
def scenes() -> Iterator[Callable[[str], Scene]]:
    """Gives the machines of a way; all tests share them, and the smtpproxy there."""
    with ExitStack() as stack:
        made: dict[str, Scene] = {}

        def give(way: str) -> Scene:
            if way not in made:
                made[way] = stack.enter_context(scene(way))
                stack.callback(made[way].stop)
            return made[way]

        yield give


@pytest.fixture
def stage(scenes: Callable[[str], Scene]) -> Iterator[Stage]:
    """Gives the machines of a way to a test, without the rules of the page; `machines`: of another way than that."""
    with ExitStack() as stack:
        yield lambda way, machines="": stack.enter_context(scenes(machines or way).used(way))


def named(family: int, servers: tuple[str, str] = WORLD) -> str:
    """A server of the world, as the log names it."""
    return f"[{servers[family]}]:25" if family else f"{servers[family]}:25"


@each_way
def test_mail_comes_by_way_of_us(stage: Stage, way: str) -> None:
    there = stage(way)
    there.start()
    there.follow_the_page()
    for family, server in enumerate(WORLD):
        there.delivers(server)
        assert there.event("delivery", family + 1)["remote"] == named(family)
        session = there.event("session", family + 1)
        assert (session["client"], session["end"]) == (MAIL_SERVERS[family], "quit")
        assert there.seen(family) == [ROUTERS[family] if way == GATEWAY else MAIL_SERVERS[family]]
    assert sum(there.counted()) >= len(WORLD)


def test_other_hosts_behind_the_gateway_are_left_alone(stage: Stage) -> None:
    there = stage(GATEWAY)
    there.start()
    there.follow_the_page()
    for family, server in enumerate(WORLD):
        there.delivers(server, source=NEIGHBOURS[family])
        assert there.seen(family) == [NEIGHBOURS[family]]
    assert there.untouched()


def test_other_users_of_the_machine_are_left_alone(stage: Stage) -> None:
    there = stage(BY_USER)
    there.start()
    there.follow_the_page()
    there.user = ""
    for family, server in enumerate(WORLD):
        there.delivers(server)
        assert there.seen(family) == [MAIL_SERVERS[family]]
    assert there.untouched()


@either_way
def test_who_comes_straight_to_us_is_turned_away(stage: Stage, way: str) -> None:
    there = stage(way)
    there.start()
    there.follow_the_page()
    for family, name in enumerate(ON_THE_LOOPBACK):
        sent = there.send(("127.0.0.1", "::1")[family], port=2525, machine=there.machine)
        why = f"the connection was meant for {name}, which is smtpproxy itself"
        assert "\n< 421 4.3.2 " in sent.stderr
        assert f" T{why[1:]}, try again later" in sent.stderr
        assert there.event("session_refused", family + 1)["why"] == why
        assert there.seen(family) == []
    assert not there.events("session", "delivery")


@either_way
def test_only_who_may_relay_is_served(stage: Stage, way: str) -> None:
    there = stage(way)
    there.start()
    there.follow_the_page()
    if way == GATEWAY:
        there.load(block(way, "nft").replace("ip saddr 192.0.2.20 ", "").replace("ip6 saddr 2001:db8:2::20 ", ""))
    for family, server in enumerate(WORLD):
        sent = there.send(server, source=NEIGHBOURS[family])
        assert "\n< 554 5.7.1 " in sent.stderr
        refused = there.event("session_refused", family + 1)
        assert (refused["client"], refused["why"]) == (NEIGHBOURS[family], "you may not relay here")
        assert there.seen(family) == []
    assert not there.events("session", "delivery")


def test_what_is_offered(stage: Stage) -> None:
    """No TLS, and as many domains in one transaction as the mail server likes: all go where it wanted."""
    there = stage(ON_ITS_OWN)
    there.start()
    there.follow_the_page()
    for family, server in enumerate(WORLD):
        sent = there.send(server, to="one@first.test,two@second.test,three@[192.0.2.99]")
        offered = [line[6:].split()[0] for line in sent.stderr.splitlines() if line.startswith(("< 250-", "< 250 "))]
        assert "PIPELINING" in offered
        assert "STARTTLS" not in offered
        assert "LIMITS" not in offered
        assert sent.returncode == 0, sent.stderr
        delivery = there.event("delivery", family + 1)
        assert (delivery["remote"], delivery["accepted"]) == (named(family), 3)


@either_way
def test_destinations_that_are_left_out(stage: Stage, way: str) -> None:
    there = stage(way)
    there.start()
    there.follow_the_page()
    commands = block(LEFT_OUT, "sh", "leaving destinations out")
    there.machine.sh(commands.replace(" output ", " prerouting ") if way == GATEWAY else commands)
    for partner in PARTNERS:
        # The partner's server does not run; its machine says so, and nobody else was asked.
        assert there.send(partner).returncode == NO_CONNECTION
    assert there.untouched()


@each_way
def test_it_can_be_undone(stage: Stage, way: str) -> None:
    there = stage(way)
    there.start()
    before = there.machine_rules()
    there.follow_the_page()
    assert there.machine_rules() != before
    there.machine.sh(block(UNDONE, "sh", "undoing it"))
    if way == GATEWAY:
        there.machine.sh(block(UNDONE, "sh", "undoing it on the gateway"))
    assert there.machine_rules() == before
    for family, server in enumerate(WORLD):
        there.delivers(server)
        assert there.seen(family) == [MAIL_SERVERS[family]]
    assert there.untouched()


def test_the_settings_of_the_route_for_all_domains_hold(stage: Stage) -> None:
    """But for where mail goes."""
    there = stage(ON_ITS_OWN)
    there.start(SETTINGS)
    there.follow_the_page()
    for family, server in enumerate(WORLD):
        there.delivers(server)
        assert there.event("delivery", family + 1)["remote"] == named(family)
        assert there.seen(family) == [SOURCES[family]]


def test_a_mail_server_delivers_early_without_knowing(stage: Stage) -> None:
    """Exim, to an Exim that offers early pipelining: politely when we meet it, early from then on."""
    there = stage(ON_ITS_OWN)
    there.start(SETTINGS)
    there.follow_the_page()
    # Both open fast: the mail server has our cookie for the world's address, and we the world's.
    for machine in (there.machine, there.made.server):
        machine.sh("sysctl -qw net.ipv4.tcp_fastopen=3")
    folder = there.made.folder
    world, process = exim.server(there.made.server, folder / "world", ELSEWHERE)
    try:
        signs: list[str] = []
        mail_server = exim.client(there.machine, folder / "mail", dict(zip(DOMAINS, ELSEWHERE, strict=True)))
        for family, domain in enumerate(DOMAINS):
            for number in range(2):
                message = sample()
                told = exim.send(mail_server, message, f"user@{domain}")
                delivery = there.event("delivery", 2 * family + number + 1)
                assert delivery["remote"] == named(family, ELSEWHERE)
                assert delivery.get("early", False) == bool(number)
                # The mail server believes to have been there: the message has this number there.
                assert f" H={ELSEWHERE[family]} [{ELSEWHERE[family]}] " in told
                identifier = delivery["reply"].rpartition(" id=")[2]
                assert f'250 OK id={identifier}"' in told
                arrived = next(line for line in world.log() if f" {identifier} <= " in line)
                signs.append(pipelining(arrived))
                assert f" [{SOURCES[family]}] " in arrived
                wait_for(lambda: not world.waits(), "the message in its box")
                assert_intact(world.box.messages(), message, (f"user@{domain}",))
        # "L*": early; "L.": only offered. With much else to do we may be later than its greeting, once.
        assert (signs[0], signs[2]) == ("L.", "L.")
        assert "L*" in (signs[1], signs[3]), signs
    finally:
        process.stop()


def test_without_the_rule_for_the_mark_it_ends_with_421(stage: Stage) -> None:
    """Our own connection comes back to us, and that is noticed at once; the mail server keeps the message."""
    there = stage(ON_ITS_OWN)
    there.start(SETTINGS)
    there.load(block(ON_ITS_OWN, "nft").replace("meta mark 25 accept\n", "\n"))
    for family, server in enumerate(WORLD):
        sent = there.send(server)
        why = f"our own connection to {named(family)} came back to us"
        refused = there.event("session_refused", family + 1)
        assert (refused["client"], refused["why"]) == (SOURCES[family], why)
        assert "\n< 451 4.3.2 " in sent.stderr
        assert f" O{why[1:]}, try again later" in sent.stderr
        assert there.seen(family) == []


def test_what_the_machine_forwards_is_left_alone(stage: Stage) -> None:
    """The rules for a mail server's own machine, on one that others send through."""
    there = stage(ON_ITS_OWN, GATEWAY)
    there.start()
    there.follow_the_page()
    for family, server in enumerate(WORLD):
        there.delivers(server)
        assert there.seen(family) == [MAIL_SERVERS[family]]
    assert there.untouched()


def test_a_reload_makes_a_listener_transparent_in_another_way(stage: Stage) -> None:
    """The listening socket stays, and takes connections for foreign addresses from then on."""
    there = stage(ON_ITS_OWN, GATEWAY)
    there.start()
    there.way = GATEWAY
    there.reload()
    there.follow_the_page()
    for family, server in enumerate(WORLD):
        there.delivers(server)
        assert there.event("delivery", family + 1)["remote"] == named(family)
        assert there.seen(family) == [ROUTERS[family]]


@either_way
def test_the_smaller_capability_is_enough(stage: Stage, way: str) -> None:
    there = stage(way)
    there.start(capabilities="-all,+net_bind_service,+net_raw")
    there.follow_the_page()
    for family, server in enumerate(WORLD):
        there.delivers(server)
        assert there.event("delivery", family + 1)["remote"] == named(family)


def test_a_rule_for_a_user_needs_none(stage: Stage) -> None:
    there = stage(BY_USER)
    there.start(capabilities="-all")
    there.follow_the_page()
    for family, server in enumerate(WORLD):
        there.delivers(server)
        assert there.event("delivery", family + 1)["remote"] == named(family)


@pytest.mark.parametrize(
    ("way", "what"),
    [
        (ON_ITS_OWN, "marking connections (SO_MARK)"),
        (GATEWAY, "listening for foreign addresses (transparent: tproxy)"),
    ],
)
def test_without_a_capability_it_does_not_start(stage: Stage, way: str, what: str) -> None:
    there = stage(way)
    process = there.begin(capabilities="-all,+net_bind_service")
    assert wait_for(process.popen.poll, "its end") == 1
    assert process.text().endswith(f"{what} needs the capability CAP_NET_ADMIN or CAP_NET_RAW\n")


@pytest.mark.parametrize("way", [ON_ITS_OWN, BY_USER])
def test_while_we_do_not_run_connections_are_refused(stage: Stage, way: str) -> None:
    there = stage(way)
    there.stop()
    there.follow_the_page()
    for family, server in enumerate(WORLD):
        assert there.send(server).returncode == NO_CONNECTION
        assert there.seen(family) == []


def test_while_we_do_not_run_a_gateway_forwards(stage: Stage) -> None:
    there = stage(GATEWAY)
    there.stop()
    there.follow_the_page()
    for family, server in enumerate(WORLD):
        there.delivers(server)
        assert there.seen(family) == [MAIL_SERVERS[family]]


def test_the_way_to_check_the_gateway(stage: Stage) -> None:
    there = stage(GATEWAY)
    there.follow_the_page()
    command, answer = block("How to check", "").splitlines()
    shown = subprocess.run(there.machine.command(*command.split()), capture_output=True, text=True, check=True)
    assert " ".join(shown.stdout.split()).startswith(answer)
