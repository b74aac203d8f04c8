"""All dialogues, word by word; and each of them broken off at every stage, by everybody who can.

The number in a dialogue's name is that of the rule it shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from smtpproxy.session.backend import State as BackendState
from smtpproxy.session.frontend import State

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
    """Give the replies that are known, and wait only for the ones before them or for the rest of their group."""
    replies = b""
    for slot in owner.relay.pipeline.slots:
        if not slot.reply:
            break
        replies += slot.reply
    return replies


def is_last_word(owner: Owner, output: Output, known: bytes) -> bool:
    """Say whether a session has ended with what was known, and with one 421; amid a handshake nothing can be said."""
    if owner.handshaking:
        return not output.client
    *_, last, rest = output.client.split(b"\r\n")
    more = output.client.removeprefix(known)
    return last[:4] == b"421 " and not rest and more in (b"", last + b"\r\n")


def message_is_unfinished(owner: Owner) -> bool:
    """Say whether the server has part of a message."""
    backend = owner.relay.backend
    return backend is not None and (backend.state is BackendState.MESSAGE or backend.partial)


@pytest.mark.parametrize("name", NAMES)
def test_s10_client_vanishes_at_every_stage(name: str) -> None:
    """Nothing more is written to anybody; a message that is not finished is reset, not ended."""
    for owner in stages(name):
        unfinished, connected = message_is_unfinished(owner), owner.connected
        output = LOST.play(owner)
        assert owner.closed
        assert (output.client, output.server) == (b"", b"")
        assert len(output.actions) == 1 + connected
        assert not unfinished or output.actions[0] == "ABORT_BACKEND"


@pytest.mark.parametrize("name", NAMES)
def test_s13_client_half_closes_at_every_stage(name: str) -> None:
    """The session ends when everything owed has been given; an unfinished message gets no end."""
    for owner in stages(name):
        unfinished = owner.relay.frontend.state in (State.MAIL_DATA, State.CHUNK)
        known = answered(owner)
        output = Step(0, "client half-closes").play(owner)
        given = output.client + refuse_everything(owner)
        assert owner.closed
        assert given.startswith(known)
        assert not (unfinished and output.server)


def refuse_everything(owner: Owner) -> bytes:
    """Play the server to the end of a session: it says no to everything. Give what the client gets."""
    given = b""
    for _ in range(100):
        if owner.closed:
            break
        if owner.probing:
            step = QUIET
        elif owner.looking_up:
            step = Step(0, "the client's name is found")
        elif owner.kept is not None and not owner.spoken:
            step = Step(0, "the kept session is lent")
        elif owner.server_handshaking:
            step = Step(0, "the server's handshake fails")
        else:
            step = Step(0, "B<", b"550 5.0.0 No\r\n")
        given += step.play(owner).client
    return given


@pytest.mark.parametrize(
    "step",
    [
        Step(0, "server vanishes"),
        Step(0, "server times out"),
        Step(0, "B<", b"what?\r\n"),
        Step(0, "B<", b"421 4.3.2 Shutting down\r\n"),
    ],
    ids=["vanishes", "times out", "sends garbage", "says 421"],
)
@pytest.mark.parametrize("name", NAMES)
def test_h08_server_fails_at_every_stage(name: str, step: Step) -> None:
    """The client gets what was known, at most one 4xx, and no 2xx that nobody gave."""
    for owner in stages(name):
        backend = owner.relay.backend
        if backend is None or (step.octets and backend.reader.pending):
            continue  # nobody to fail, or what it says would become part of what it has begun to say
        known = answered(owner)
        output = step.play(owner)
        assert output.client.startswith(known) or not output.client
        assert re.fullmatch(rb"(4\d\d [^\r\n]*\r\n)?", output.client.removeprefix(known))
        assert output.server == b""
        if not owner.closed:
            LOST.play(owner)
        assert owner.closed


@pytest.mark.parametrize("name", NAMES)
def test_shutdown_at_every_stage(name: str) -> None:
    """Going down, and then at once: the client gets what was known and one 421, whatever it was about."""
    for owner in stages(name):
        known = answered(owner)
        output = Step(0, "the service goes down").play(owner)
        if not owner.closed:
            assert output == Output()
            output = Step(0, "the service goes down now").play(owner)
        assert owner.closed
        assert is_last_word(owner, output, known)
        assert output.server == b""


@pytest.mark.parametrize("name", NAMES)
def test_h10_our_own_failure_at_every_stage(name: str) -> None:
    """The session ends with 421, and with nothing that looks like success."""
    for owner in stages(name):
        known = answered(owner)
        output = Step(0, "we fail").play(owner)
        assert owner.closed
        assert is_last_word(owner, output, known)
        assert output.server == b""
