"""Postfix as the mail server that does not know of us, with the very commands of docs/transparent.md; out in the world
an Exim that offers early pipelining and STARTTLS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from . import transparent_exim as exim
from .lab import wait_for
from .machine_postfix import MachinePostfix, postfix_on
from .messages import assert_intact, sample
from .outbound_exim import pipelining
from .transparent_scene import BY_USER, ELSEWHERE, GATEWAY, MAIL_SERVERS, ON_ITS_OWN, ROUTERS, Scene, scene, section

pytestmark = pytest.mark.interop

# Each message has a session of its own; all else is as the page has it.
SETTINGS = 'routes:\n  - {domain: "*", reuse: off}\n'
DOMAINS = ("four.test", "six.test")
MORE_DOMAINS = ("also.four.test", "also.six.test")
DEMANDING = "demands-tls.test"  # at the first of the addresses

TRANSPORT = ", ".join(
    f"{{ {domain} = smtp:[{address}] }}"
    for domains in (DOMAINS, MORE_DOMAINS)
    for domain, address in zip(domains, ELSEWHERE, strict=True)
)
POSTFIX = {
    "transport_maps": f"inline:{{ {TRANSPORT}, {{ {DEMANDING} = smtp:[{ELSEWHERE[0]}]:25 }} }}",
    "smtp_tls_security_level": "may",
    "smtp_tls_policy_maps": f"inline:{{ {{ [{ELSEWHERE[0]}]:25 = encrypt }} }}",
    "smtp_tls_loglevel": "1",
}


@dataclass
class House:
    """Who is there."""

    scene: Scene
    postfix: MachinePostfix
    world: exim.EximThere

    def arrival(self, outcome: str) -> str:
        """The line in the log of the world's server about a message that Postfix has sent, as Postfix tells it."""
        told = re.fullmatch(r"status=sent \(250.* OK id=(\S+)\)", outcome)
        assert told is not None, outcome
        (line,) = [line for line in self.world.log() if f" {told[1]} <= " in line]
        return line

    def arrived(self) -> list[Any]:
        """All that the world's server has."""
        wait_for(lambda: not self.world.waits(), "an empty queue in the world")
        return self.world.box.messages()


@pytest.fixture(scope="module", params=[ON_ITS_OWN, BY_USER, GATEWAY])
def everybody(request: pytest.FixtureRequest, server_pair: Any) -> Iterator[House]:
    """The machines of a way, and the mail servers there."""
    with scene(request.param) as there, postfix_on(there.made.client, POSTFIX) as mail_server:
        world, process = exim.server(there.made.server, there.made.folder / "world", ELSEWHERE, server_pair)
        try:
            yield House(there, mail_server, world)
            there.stop()
        finally:
            process.stop()


@pytest.fixture
def house(everybody: House) -> Iterator[House]:
    """The same, with smtpproxy and the rules of the page."""
    with everybody.scene.used(everybody.scene.way) as there:
        there.start(SETTINGS)
        there.follow_the_page()
        yield everybody


def test_postfix_delivers_early_without_knowing(house: House) -> None:
    """Politely when we meet the server, early from then on; the message is there once, and Postfix has its words."""
    signs: list[str] = []
    for family, recipients in enumerate(zip(DOMAINS, MORE_DOMAINS, strict=True)):
        source = ROUTERS[family] if house.scene.way == GATEWAY else MAIL_SERVERS[family]
        for number in range(2):
            message, to = sample(), tuple(f"user@{domain}" for domain in recipients)
            house.postfix.take(message, *to)
            outcomes = {house.postfix.outcome(message, recipient) for recipient in to}
            assert len(outcomes) == 1, outcomes
            delivery = house.scene.event("delivery", 2 * family + number + 1)
            assert delivery.get("early", False) is bool(number)
            assert (delivery["accepted"], delivery["tries"]) == (2, 1)
            line = house.arrival(outcomes.pop())
            signs.append(pipelining(line))
            assert f" [{source}] " in line
            assert " P=esmtps " in line
            assert " X=TLS1.3:" in line
            assert_intact(house.arrived(), message, to)
            session = house.scene.event("session", 2 * family + number + 1)
            assert (session["client"], session["end"]) == (MAIL_SERVERS[family], "quit")
            assert "tls" not in session
    assert "TLS connection established" not in house.postfix.log()
    # "L*": early; "L.": only offered. What is not there by the time of its greeting is not early for Exim: with much
    # else to do we may be late once.
    assert (signs[0], signs[2]) == ("L.", "L.")
    assert "L*" in (signs[1], signs[3]), signs


def test_tls_that_postfix_demands_is_not_to_be_had(house: House) -> None:
    """It defers, in the words of the page; the message goes once that server is left out, as the page says."""
    message, to = sample(), f"user@{DEMANDING}"
    house.postfix.take(message, to)
    outcome = house.postfix.outcome(message, to)
    (words,) = set(re.findall(r"\(\*(TLS is required, .*?)\*\)", section("What is different for the mail server")))
    assert outcome.startswith(f"status=deferred ({words} by host {ELSEWHERE[0]}"), outcome
    assert not house.scene.events("delivery")
    chain = "prerouting" if house.scene.way == GATEWAY else "output"
    house.scene.machine.sh(f"nft insert rule inet smtpproxy {chain} ip daddr {ELSEWHERE[0]} accept")
    house.postfix.flush()
    wait_for(lambda: house.postfix.outcome(message, to).startswith("status=sent"), "the message to be sent")
    line = house.arrival(house.postfix.outcome(message, to))
    assert f" [{MAIL_SERVERS[0]}] " in line
    assert " X=TLS1.3:" in line
    assert_intact(house.arrived(), message, (to,))


@pytest.mark.parametrize("everybody", [ON_ITS_OWN, GATEWAY], indirect=True)
def test_while_we_do_not_run(house: House) -> None:
    """Postfix keeps its mail, which goes when we are back; a gateway lets it go straight to the world."""
    house.scene.stop()
    message, to = sample(), f"user@{DOMAINS[0]}"
    house.postfix.take(message, to)
    outcome = house.postfix.outcome(message, to)
    if house.scene.way != GATEWAY:
        assert outcome.endswith(f"(connect to {ELSEWHERE[0]}[{ELSEWHERE[0]}]:25: Connection refused)"), outcome
        house.scene.start(SETTINGS)
        house.postfix.flush()
        assert "250 OK id=" in house.scene.event("delivery")["reply"]
        wait_for(lambda: house.postfix.outcome(message, to).startswith("status=sent"), "the message to be sent")
    assert f" [{MAIL_SERVERS[0]}] " in house.arrival(house.postfix.outcome(message, to))
    assert_intact(house.arrived(), message, (to,))
