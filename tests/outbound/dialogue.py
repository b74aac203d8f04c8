r"""Dialogues: conversations of a client, a submission and remotes as anybody can read them, and the one who plays them.

A dialogue is a text file in the folder ``dialogues``.  Its lines are

    # ...           a remark
    set: NAME VALUE a setting, before all the rest (see ``Setup`` in setup.py, and ``_SETTINGS`` below)
    C: ...          the client sends this line
    R1< ...         the first remote sends this line (the second one: R2<)
    * ...           something else happens: one of ``_EVENTS`` below
    S: ...          the client must get this line
    R1> ...         the first remote must get this line
    ! A B           the owner must be told to do this, in this order; the number is that of the connection
    note A, B       what must be noted about remotes for the cache and the log, in this order
    = NAME VALUE    the submission's attribute has this value now

Remotes are numbered by their connections, in the order in which they are opened; LEND1 is an OPEN for which the first
one is lent again.  For everything else see tests/session/dialogue.py, whose lines look the same: lines of the same
mark without anything between are one piece, an empty line begins a new piece, and behind each event stands everything
that it leads to.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from difflib import ndiff
from pathlib import Path
from typing import Any

from session.dialogue import octets

from smtpproxy.session.outbound.target import Credentials, TlsWish
from smtpproxy.smtp.lineendings import BarePolicy

from .owner import Output, Owner
from .setup import Setup

FOLDER = Path(__file__).parent / "dialogues"
_MARK = re.compile(r"(C:|S:|R\d[<>]|\*|!|=|note)(?: (.*)|$)")


def _yes(value: str) -> bool:
    return {"on": True, "off": False}[value]


def _one_of(name: str, *values: str) -> Callable[[str], dict[str, str]]:
    def check(value: str) -> dict[str, str]:
        assert value in values, f"{value!r} is none of {values}"
        return {name: value}

    return check


def _keywords(value: str) -> tuple[str, ...]:
    return tuple(keyword.strip() for keyword in value.split(",") if keyword.strip())


_NUMBERS = ("most", "needs", "size", "recipients", "errors", "burst-commands", "burst-octets", "targets", "confirmed")
_SETTINGS: dict[str, Callable[[str], dict[str, Any]]] = {
    "bare": lambda value: {"bare": BarePolicy(value)},
    "nul": lambda value: {"pass_nul": {"pass": True, "reject": False}[value]},
    "tls": lambda value: {"tls": TlsWish[value.upper()]},
    "clear": lambda value: {"clear": _keywords(value)},
    "inside": lambda value: {"inside": _keywords(value)},
    "held-back": lambda value: {"held_back": _yes(value)},
    "unroutable": lambda value: {"unroutable": value.encode() + b"\r\n"},
    "refusal": lambda value: {"refusal": value.encode() + b"\r\n"},
    "credentials": lambda value: {"credentials": Credentials(*value.split())},
    "stamp": lambda value: {"stamp": value.encode() + b"\r\n"},
    "client-tls": _one_of("client_tls", "none", "starttls", "starttls-required"),
    "found": _one_of("found", "at once", "later"),
    "connected": _one_of("connected", "at once", "later"),
    "flush": _one_of("flush", "any-error", "session-error"),
    "downgrade": _one_of("downgrade", "log", "refuse"),
    **{
        name: lambda value, name=name: {name: _yes(value)}  # type: ignore[misc]  # a default binds the name
        for name in ("lmtp", "split", "speculate", "chunking", "dsn", "early", "pipeline", "lockstep", "keeps")
    },
    **{
        name: lambda value, name=name: {name.replace("-", "_"): int(value)}  # type: ignore[misc]  # the same
        for name in _NUMBERS
    },
}

_EVENTS: dict[str, Callable[[Owner], Output]] = {
    "client half-closes": lambda owner: owner.tell(owner.submission.client_eof, 0.0),
    "client vanishes": lambda owner: owner.tell(owner.submission.client_lost, "connection reset"),
    "client times out": lambda owner: owner.tell(owner.submission.client_timed_out),
    "client is quiet": lambda owner: owner.tell(owner.submission.client_quiet, 0.0),
    "the client is inside TLS": lambda owner: owner.client_inside_tls(),
    "targets are found": lambda owner: owner.find_targets(),
    "a connection is there": lambda owner: owner.connect(),
    "no connection comes about": lambda owner: owner.no_connection(),
    "patience ends": lambda owner: owner.tell(owner.submission.patience_ended, 0.0),
    "the clock ticks": lambda owner: owner.settle(hold=False),
    "the service goes down": lambda owner: owner.tell(owner.submission.shut_down),
    "the service goes down now": lambda owner: owner.tell(owner.submission.end_now),
    "we fail": lambda owner: owner.tell(owner.submission.internal_error),
}

_REMOTE_EVENTS: dict[str, Callable[[Owner, int], Output]] = {
    "is lost": lambda owner, number: owner.remote_lost(number),
    "is lost with nothing of a message handed over": lambda owner, number: owner.remote_lost(number, handed=False),
    "is not there": lambda owner, number: owner.remote_lost(number, handed=False, reached=False),
    "is inside TLS": lambda owner, number: owner.remote_inside_tls(number),
    "has no TLS with us": lambda owner, number: owner.remote_lost(number, tls=True),
    "reads no more": lambda owner, number: owner.remote_reads(number, full=True),
    "reads again": lambda owner, number: owner.remote_reads(number, full=False),
    "has waited for the message": lambda owner, number: owner.impatient(number),
}


@dataclass
class Step:
    """One event, and what must come of it."""

    line: int
    event: str
    """The mark of a piece (C: or R1<), or the name of an event."""
    octets: bytes = b""
    expected: Output = field(default_factory=Output)
    values: list[tuple[int, str, str]] = field(default_factory=list)

    def play(self, owner: Owner) -> Output:
        """Let it happen."""
        if self.event == "the client is there":
            return owner.start()
        if self.event == "C:":
            return owner.client_sends(self.octets)
        if self.event[2:] == "<":
            return owner.remote_sends(int(self.event[1]), self.octets)
        if self.event in _EVENTS:
            return _EVENTS[self.event](owner)
        return _REMOTE_EVENTS[self.event[3:]](owner, int(self.event[1]))


QUIET = Step(0, "client is quiet")
LOST = Step(0, "client vanishes")


@dataclass
class Dialogue:
    """A file, read."""

    name: str
    setup: Setup
    steps: list[Step]
    whole: str = ""
    """Why it means something else when a packet arrives in pieces; empty if it does not."""


def names() -> list[str]:
    """Give the names of all dialogues."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def load(name: str) -> Dialogue:
    """Read a dialogue from its file."""
    return parse(name, (FOLDER / f"{name}.txt").read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Dialogue:
    """Read a dialogue."""
    dialogue = Dialogue(name, Setup(), [Step(0, "the client is there")])
    before = ""
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#") or not line.strip():
            before = ""
            continue
        if line.startswith("set:"):
            assert len(dialogue.steps) == 1, f"{name}:{number}: settings come first"
            _set(dialogue, *line[4:].split(None, 1))
            continue
        match = _MARK.match(line)
        assert match is not None, f"{name}:{number}: {line!r} is no line of a dialogue"
        _add(dialogue.steps, number, match[1], match[2] or "", same=match[1] == before)
        before = match[1]
    return dialogue


def _set(dialogue: Dialogue, name: str, value: str) -> None:
    if name == "whole":
        dialogue.whole = value
    else:
        dialogue.setup = replace(dialogue.setup, **_SETTINGS[name](value.strip()))


def _add(steps: list[Step], number: int, mark: str, text: str, *, same: bool) -> None:
    expected = steps[-1].expected
    if mark == "C:" or mark[2:] == "<":
        if not same:
            steps.append(Step(number, mark))
        steps[-1].octets += octets(text)
    elif mark == "*":
        known = text in _EVENTS or (re.match(r"R\d ", text) and text[3:] in _REMOTE_EVENTS)
        assert known, f"line {number}: nobody knows the event {text!r}"
        steps.append(Step(number, text))
    elif mark == "S:":
        assert same or not expected.client, f"line {number}: one event, one write (rule S4)"
        expected.client += octets(text)
    elif mark[2:] == ">":
        remote = int(mark[1])
        expected.remotes[remote] = expected.remotes.get(remote, b"") + octets(text)
    elif mark == "!":
        expected.actions += text.split()
    elif mark == "note":
        expected.notes += text.split(", ")
    else:
        attribute, _, value = text.partition(" ")
        steps[-1].values.append((number, attribute, value.strip()))


def play(dialogue: Dialogue) -> None:
    """Play a dialogue from beginning to end; fail where it goes another way."""
    owner = Owner(dialogue.setup)
    for step in dialogue.steps:
        try:
            output = step.play(owner)
        except Exception as problem:
            raise AssertionError(f"{_place(dialogue, step)}: {problem!r}") from problem
        came, expected = show(output), show(step.expected)
        if came != expected:
            difference = "\n".join(ndiff(expected, came))
            raise AssertionError(f"{_place(dialogue, step)}: not (-) what should come, but (+)\n{difference}")
        for number, name, value in step.values:
            shown = str(getattr(owner.submission, name))
            assert shown == value, f"{dialogue.name}.txt line {number}: {name} is {shown!r}, not {value!r}"


def _place(dialogue: Dialogue, step: Step) -> str:
    return f"{dialogue.name}.txt, line {step.line} ({step.event} {step.octets!r})"


def show(output: Output) -> list[str]:
    """Give an output as the lines of a dialogue."""
    lines = [f"S: {line!r}" for line in output.client.splitlines(keepends=True)]
    for number, sent in sorted(output.remotes.items()):
        lines += [f"R{number}> {line!r}" for line in sent.splitlines(keepends=True)]
    return lines + [f"! {name}" for name in output.actions] + [f"note {note}" for note in output.notes]
