"""All dialogues, word by word; and each of them broken off at every stage, by everybody who can.

The number in a dialogue's name is that of the rule it shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from smtpproxy.smtp.commands import Wait

from .dialogue import LOST, QUIET, Step, load, names, play
from .owner import Output, Owner

NAMES = names()


@pytest.mark.parametrize("name", NAMES)
def test_dialogue(name: str) -> None:
    play(load(name))


def stages(name: str) -> Iterator[Owner]:
    """Play a dialogue again and again, each time one step further, as long as somebody is there."""
    dialogue = load(name)
    for stage in range(1, len(dialogue.steps) + 1):
        owner = Owner(dialogue.setup)
        for step in dialogue.steps[:stage]:
            step.play(owner)
        if owner.probing:
            QUIET.play(owner)
        if not owner.closed:
            yield owner


def answered(owner: Owner) -> bytes:
    """Give the replies that are known, and wait only for the rest of their group."""
    replies = b""
    for slot in owner.submission.pipeline.slots:
        if not slot.reply:
            break
        replies += slot.reply
    return replies


def play_to_the_end(owner: Owner, answer: bytes) -> bytes:
    """Let every remote say the same until nobody has anything to say; give what the client gets."""
    given = b""
    for _ in range(300):
        output = _next(owner, answer)
        if output is None:
            return given
        given += output.client
    raise AssertionError("it never ends")


def _next(owner: Owner, answer: bytes) -> Output | None:
    if owner.probing or owner.searching or owner.opening:
        return (
            QUIET.play(owner) if owner.probing else owner.find_targets() if owner.searching else owner.no_connection()
        )
    for connection in owner.connections:
        if not (connection.open and connection.delivery is not None):
            continue
        if connection.handshaking:
            return owner.remote_lost(connection.number, tls=True)
        if connection.remote.full:
            return owner.remote_reads(connection.number, full=False)
        if connection.remote.wait is not Wait.NOTHING:
            return owner.remote_sends(connection.number, answer)
    return None


@pytest.mark.parametrize("name", NAMES)
def test_s10_client_vanishes_at_every_stage(name: str) -> None:
    """Nothing more is written to anybody, and only a message that is wholly on its way goes on."""
    for owner in stages(name):
        output = LOST.play(owner)
        assert owner.closed
        assert (output.client, output.remotes) == (b"", {})
        for connection in owner.connections:
            delivery = connection.delivery
            assert delivery is None or not connection.open or delivery.progress.finished
        play_to_the_end(owner, b"550 5.0.0 No\r\n")
        assert all(connection.delivery is None for connection in owner.connections)


@pytest.mark.parametrize("name", NAMES)
def test_s13_client_half_closes_at_every_stage(name: str) -> None:
    """The session ends when everything owed has been given."""
    for owner in stages(name):
        if owner.handshaking or owner.submission.eof:
            continue
        known = answered(owner)
        output = Step(0, "client half-closes").play(owner)
        given = output.client + play_to_the_end(owner, b"550 5.0.0 No\r\n")
        assert owner.closed
        assert given.startswith(known)


SUCCESS = re.compile(rb"^250 2\.1\.5|Taken|^354", re.MULTILINE)
"""What a remote says of a recipient or a message, in the words of the dialogues."""
FAILURES: dict[str, Callable[[Owner, int], Output]] = {
    "is lost": lambda owner, number: owner.remote_lost(number),
    "is lost, with nothing of a message handed over": lambda owner, number: owner.remote_lost(number, handed=False),
    "sends garbage": lambda owner, number: owner.remote_sends(number, b"what?\r\n"),
    "says 421": lambda owner, number: owner.remote_sends(number, b"421 4.3.2 Going down\r\n"),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("name", NAMES)
def test_h08_every_remote_fails_at_every_stage(name: str, failure: Callable[[Owner, int], Output]) -> None:
    """Whoever is tried next refuses everything: the client is answered, and gets no 2xx that nobody gave."""
    for number in range(1, 4):
        for owner in stages(name):
            if number > len(owner.connections):
                continue
            connection = owner.remote(number)
            if connection.delivery is None or not connection.open or connection.remote.reader.pending:
                continue  # nobody to fail, or what it says would become part of what it has begun to say
            own = owner.submission.policy.lmtp or owner.submission.speculated
            known = answered(owner)
            given = failure(owner, number).client + play_to_the_end(owner, b"550 5.0.0 No\r\n")
            assert own or not SUCCESS.search(given.removeprefix(known)), given
            if not owner.closed:
                LOST.play(owner)
            assert owner.closed


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("event", ["the service goes down now", "we fail", "client times out"])
def test_h10_the_session_ends_at_every_stage(name: str, event: str) -> None:
    """The client gets what was known and one 421, whatever it was about; nothing more goes to a remote."""
    for owner in stages(name):
        if owner.handshaking:
            continue
        known = answered(owner)
        output = Step(0, event).play(owner)
        assert owner.closed
        assert output.client.startswith(known)
        assert re.fullmatch(rb"(421 [^\r\n]*\r\n)?", output.client.removeprefix(known))
        assert output.remotes == {}


@pytest.mark.parametrize("name", NAMES)
def test_the_service_goes_down_at_every_stage(name: str) -> None:
    """Between messages it ends at once; else when the message is through, or the client has nothing more to say."""
    for owner in stages(name):
        if owner.handshaking:
            continue
        Step(0, "the service goes down").play(owner)
        play_to_the_end(owner, b"550 5.0.0 No\r\n")
        if not owner.closed:
            assert owner.submission.client_wait is not Wait.NOTHING
            LOST.play(owner)
        assert owner.closed
