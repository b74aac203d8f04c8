"""Packets arrive in any pieces: what comes of them is the same, whole or cut, on both sides (rules S3, S11, H1, H3).

The dialogues are the recorded conversations.  One that is about a single packet says so (``set: whole``).
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .dialogue import QUIET, Dialogue, Step, load, names
from .owner import Output, Owner
from .test_paces import CONVERSATION, SERVERS, gist, hold, replies_of, world

CUT = ("C:", "B<")
DIALOGUES = {dialogue.name: dialogue for dialogue in map(load, names()) if not dialogue.whole}


def total(dialogue: Dialogue, pieces: dict[int, list[bytes]]) -> Output:
    """Play a dialogue, some of its packets in pieces; give all that came of it, by whom it was for."""
    owner = Owner(dialogue.setup)
    whole = Output()
    following = [step.event for step in dialogue.steps[1:]] + [""]
    for number, step in enumerate(dialogue.steps):
        servers = owner.servers
        for piece in pieces.get(number, [step.octets]):
            if owner.closed and step.event != "next client":
                break
            if step.event == "B<" and owner.servers != servers:
                break  # the server that has sent the rest of it is left
            steps = [Step(step.line, step.event, piece)]
            while steps:
                output = steps.pop().play(owner)
                whole.client += output.client
                whole.server += output.server
                whole.actions += output.actions
                if owner.probing and following[number] != "C:":
                    steps = [QUIET]
    if "ABORT_BACKEND" in whole.actions:
        # How much of a message has gone on when it turns out to be a bad one depends on the packets.
        whole.server = b""
    return whole


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
        if step.event in CUT:
            for place in places(step.octets):
                pieces = {number: [step.octets[:place], step.octets[place:]]}
                assert total(dialogue, pieces) == whole, (number, step.octets[:place])


@given(st.data())
@settings(derandomize=True, max_examples=120)
def test_any_cuts_of_all_packets_give_the_same(data: st.DataObject) -> None:
    dialogue = DIALOGUES[data.draw(st.sampled_from(sorted(DIALOGUES)))]
    pieces = {}
    for number, step in enumerate(dialogue.steps):
        if step.event in CUT and len(step.octets) > 1:
            cuts = data.draw(st.lists(st.integers(1, len(step.octets) - 1), unique=True, max_size=8).map(sorted))
            edges = [0, *cuts, len(step.octets)]
            pieces[number] = [step.octets[start:end] for start, end in itertools.pairwise(edges)]
    assert total(dialogue, pieces) == total(dialogue, {})


@pytest.mark.parametrize("keywords", SERVERS.values(), ids=SERVERS)
def test_octet_by_octet_both_ways(keywords: tuple[str, ...]) -> None:
    """A long conversation, in packets of one octet, with replies in packets of one octet."""
    whole, messages = hold(world(keywords, lazy=False), [b"".join(CONVERSATION)], wait=False)
    made = world(keywords, lazy=False)
    for octet in b"".join(CONVERSATION):
        made.send(bytes([octet]))
    while made.waiting:
        made.deliver_octet()
    assert made.closed
    assert replies_of(made) == whole
    assert gist(made.messages) == gist(messages)


@pytest.mark.parametrize("keywords", SERVERS.values(), ids=SERVERS)
@given(data=st.data())
@settings(derandomize=True, max_examples=25)
def test_any_packets_in_any_order_give_the_same(keywords: tuple[str, ...], data: st.DataObject) -> None:
    """The client's packets and the server's come as they like, several replies in one or one reply in several."""
    whole, messages = hold(world(keywords, lazy=False), [b"".join(CONVERSATION)], wait=False)
    made = world(keywords, lazy=False)
    left = b"".join(CONVERSATION)
    while left or made.waiting:
        if left and (not made.waiting or data.draw(st.booleans())):
            size = data.draw(st.integers(1, len(left)))
            made.send(left[:size])
            left = left[size:]
        else:
            made.deliver(data.draw(st.integers(1, 5)), cut=data.draw(st.integers(0, 12)))
    assert made.closed
    assert replies_of(made) == whole
    assert gist(made.messages) == gist(messages)
