"""Packets of remotes arrive in any pieces, and those of a client: what comes of them is the same (rules S3, C11, H1).

Where a packet's end decides (whether DATA is here when its RCPT is, rule C13), a client is not cut.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpproxy.session.frontend import State

from .dialogue import QUIET, Dialogue, Step, load, names
from .owner import Output, Owner

DIALOGUES = {dialogue.name: dialogue for dialogue in map(load, names()) if not dialogue.whole}


def total(dialogue: Dialogue, pieces: dict[int, list[bytes]]) -> Output:
    """Play a dialogue, some of its packets in pieces; give all that came of it, by whom it was for."""
    owner = Owner(dialogue.setup)
    whole = Output()
    for number, step in enumerate(dialogue.steps):
        for piece in pieces.get(number, [step.octets]):
            if owner.closed and step.event == "C:":
                break
            if step.event[2:] == "<" and not owner.remote(int(step.event[1])).open:
                break  # the remote that has sent the rest of it is left
            steps = [Step(step.line, step.event, piece)]
            while steps:
                output = steps.pop().play(owner)
                whole.client += output.client
                for remote, sent in output.remotes.items():
                    whole.remotes[remote] = whole.remotes.get(remote, b"") + sent
                whole.actions += [name for name in output.actions if name != "PROBE_CLIENT"]
                whole.notes += output.notes
                if owner.probing and len(pieces.get(number, [])) > 1 and piece is not pieces[number][-1]:
                    steps = [QUIET]
    whole.client += owner.settle(hold=False).client
    whole.actions.sort()
    return whole


def may_be_cut(dialogue: Dialogue, number: int) -> bool:
    """Whether the packet means the same in pieces."""
    step = dialogue.steps[number]
    if step.event[2:] == "<":
        return True
    if step.event != "C:":
        return False
    if dialogue.setup.clear is None and dialogue.setup.inside is None:
        return True
    owner = Owner(dialogue.setup)
    for before in dialogue.steps[:number]:
        before.play(owner)
    return owner.submission.frontend.state is State.MAIL_DATA


def places(octets: bytes) -> list[int]:
    """Give the places to cut at: all of them, but of long runs of the same only a few."""
    if len(octets) <= 1000:
        return list(range(1, len(octets)))
    return [*range(1, 60), *range(60, len(octets) - 60, len(octets) // 20), *range(len(octets) - 60, len(octets))]


@pytest.mark.parametrize("name", DIALOGUES)
def test_every_cut_of_every_packet_gives_the_same(name: str) -> None:
    dialogue = DIALOGUES[name]
    whole = total(dialogue, {})
    for number, step in enumerate(dialogue.steps):
        if may_be_cut(dialogue, number):
            for place in places(step.octets):
                pieces = {number: [step.octets[:place], step.octets[place:]]}
                assert total(dialogue, pieces) == whole, (number, step.octets[:place])


@pytest.mark.parametrize("name", DIALOGUES)
def test_octet_by_octet(name: str) -> None:
    dialogue = DIALOGUES[name]
    pieces = {
        number: [bytes([octet]) for octet in step.octets]
        for number, step in enumerate(dialogue.steps)
        if step.octets and may_be_cut(dialogue, number)
    }
    assert total(dialogue, pieces) == total(dialogue, {})


@given(st.data())
@settings(derandomize=True, max_examples=100)
def test_any_cuts_of_all_packets_give_the_same(data: st.DataObject) -> None:
    dialogue = DIALOGUES[data.draw(st.sampled_from(sorted(DIALOGUES)))]
    pieces = {}
    for number, step in enumerate(dialogue.steps):
        if len(step.octets) > 1 and may_be_cut(dialogue, number):
            cuts = data.draw(st.lists(st.integers(1, len(step.octets) - 1), unique=True, max_size=8).map(sorted))
            edges = [0, *cuts, len(step.octets)]
            pieces[number] = [step.octets[a:b] for a, b in itertools.pairwise(edges)]
    assert total(dialogue, pieces) == total(dialogue, {})
