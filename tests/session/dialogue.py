r"""Dialogues: conversations with the relay as anybody can read them, and the one who plays them.

A dialogue is a text file in tests/dialogues.  Its lines are

    # ...           a remark
    set: NAME VALUE a setting, before all the rest (see ``Setup`` in listener.py, and ``_SETTINGS`` below)
    use: NAME       the lines of parts/NAME.txt, in this place
    C: ...          the client sends this line
    B< ...          the server sends this line
    * ...           something else happens: one of ``_EVENTS`` below
    S: ...          the client must get this line
    B> ...          the server must get this line
    ! A B           the owner must be told to do this, in this order (the names of ``Action``)
    = NAME VALUE    the relay's attribute has this value now

Lines of the same mark without anything between are one piece: C: and B< arrive in one packet, S: leaves in one write
(rule S4).  An empty line begins a new piece.  Behind each event stands everything that it leads to: what is
not written down must not happen.

Where one event makes several relays write one after another (XCLIENT), what leaves stands together all the same.

A line stands for itself and CR LF.  In it \r \n \t \0 \xNN are octets, \\ is a backslash, {x*5000} is x five
thousand times, and \c at the end means that no CR LF follows.  \_ is a space that would get lost at the end of a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from difflib import ndiff
from pathlib import Path
from typing import Any

from smtpproxy.session.policy import BackendTls
from smtpproxy.smtp.lineendings import BarePolicy

from .listener import Setup
from .owner import Output, Owner

FOLDER = Path(__file__).parent.parent / "dialogues"

_ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\", "_": " ", "c": ""}
_REPEAT = re.compile(r"\{([^{}*]+)\*(\d+)\}")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)")
_MARKS = ("C:", "B<", "S:", "B>", "* ", "! ", "= ")


def _yes(value: str) -> bool:
    return {"on": True, "off": False}[value]


def _one_of(*values: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        assert value in values, f"{value!r} is none of {values}"
        return value

    return check


def _keywords(value: str) -> tuple[str, ...]:
    return tuple(keyword.strip() for keyword in value.split(",") if keyword.strip())


_SETTINGS: dict[str, Callable[[str], dict[str, Any]]] = {
    "connect": lambda value: {"eager": {"eager": True, "lazy": False}[value]},
    "learned": lambda value: {"learned": _keywords(value)},
    "learned-tls": lambda value: {"learned_tls": _keywords(value)},
    "reuse": lambda value: {"reuse": _yes(value)},
    "pace": lambda value: {"lockstep": {"lockstep": True, "auto": False}[value]},
    "domains": lambda value: {"domains": () if value == "left out" else tuple(value.split())},
    "bare": lambda value: {"bare": BarePolicy(value)},
    "nul": lambda value: {"pass_nul": {"pass": True, "reject": False}[value]},
    "chunking": lambda value: {"chunking": _yes(value)},
    "early": lambda value: {"early": _yes(value)},
    "refusal": lambda value: {"refusal": value.encode() + b"\r\n"},
    "extensions": lambda value: {"extensions": value},
    "keywords": lambda value: {"keywords": value},
    "tls": lambda value: {"tls": _one_of("none", "starttls", "starttls-required", "implicit")(value)},
    "auth": lambda value: {"auth": _one_of("always", "tls", "never")(value)},
    "early-tls": lambda value: {"early_tls": _yes(value)},
    "trusted": lambda value: {"trusted": _yes(value)},
    "trace-header": lambda value: {"trace_header": _yes(value)},
    "identity": lambda value: {"identity": _one_of("none", "auto", "xclient", "xforward", "bound")(value)},
    "backend-tls": lambda value: {"backend_tls": _BACKEND_TLS[value]},
    "clients": lambda value: {"clients": tuple(value.split())},
    "lookup": lambda value: {"lookup": _one_of("at once", "later", "never")(value)},
    "login": lambda value: {"login": value.encode()},
    "room": lambda value: {"room": _yes(value)},
    **{
        name: lambda value, name=name: {name.replace("-", "_"): int(value)}  # type: ignore[misc]  # a default binds the name
        for name in ("size", "recipients", "errors", "line", "auth-line", "burst-commands", "burst-octets")
    },
}

_BACKEND_TLS = {
    "none": BackendTls.NONE,
    "starttls": BackendTls.IF_OFFERED,
    "starttls-required": BackendTls.REQUIRED,
}

_EVENTS: dict[str, Callable[[Owner], Output]] = {
    "client half-closes": lambda owner: owner.client_half_closes(),
    "client vanishes": lambda owner: owner.tell(owner.relay.client_lost, "connection reset"),
    "client times out": lambda owner: owner.tell(owner.relay.client_timed_out),
    "client is quiet": lambda owner: owner.tell(owner.relay.client_quiet, 0.0),
    "server vanishes": lambda owner: owner.tell(owner.relay.backend_lost, "connection reset"),
    "server times out": lambda owner: owner.tell(owner.relay.backend_timed_out),
    "no server is there": lambda owner: owner.no_server(),
    "the kept session is lent": lambda owner: owner.borrow(),
    "the client is inside TLS": lambda owner: owner.handshake_done(),
    "the client's handshake fails": lambda owner: owner.handshake_fails(),
    "the server is inside TLS": lambda owner: owner.server_handshake_done(),
    "the server's handshake fails": lambda owner: owner.server_handshake_fails(),
    "the client's name is found": lambda owner: owner.name_found(),
    "the clock ticks": lambda owner: owner.settle(hold=False),
    "the service goes down": lambda owner: owner.tell(owner.relay.shut_down),
    "the service goes down now": lambda owner: owner.tell(owner.relay.end_now),
    "we fail": lambda owner: owner.tell(owner.relay.internal_error),
    "next client": lambda owner: owner.start(),
    "the greeting leaves": lambda owner: owner.settle(),
}


@dataclass
class Step:
    """One event, and what must come of it."""

    line: int
    event: str
    """The mark of a piece (C: or B<), or the name of an event."""
    octets: bytes = b""
    expected: Output = field(default_factory=Output)
    values: list[tuple[int, str, str]] = field(default_factory=list)

    def play(self, owner: Owner) -> Output:
        """Let it happen."""
        if self.event == "C:":
            return owner.client_sends(self.octets)
        if self.event == "B<":
            return owner.server_sends(self.octets)
        return _EVENTS[self.event](owner)


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
    dialogue = Dialogue(name, Setup(), [Step(0, "next client")])
    mark = ""
    for number, line in _lines(text):
        if line.startswith("#") or not line.strip():
            mark = ""
            continue
        if line.startswith("set:"):
            assert len(dialogue.steps) == 1, f"{name}:{number}: settings come first"
            _set(dialogue, *line[4:].split(None, 1))
            continue
        before, mark = mark, line[:2]
        assert mark in _MARKS, f"{name}:{number}: {line!r} is no line of a dialogue"
        _add(dialogue.steps, number, mark, line[3:] if line[2:3] == " " else line[2:], same=mark == before)
    return dialogue


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("use:"):
            part = (FOLDER / "parts" / f"{line[4:].strip()}.txt").read_text(encoding="utf-8")
            yield from ((number, included) for included in part.split("\n"))
        else:
            yield number, line


def _set(dialogue: Dialogue, name: str, value: str) -> None:
    if name == "whole":
        dialogue.whole = value
    else:
        dialogue.setup = replace(dialogue.setup, **_SETTINGS[name](value.strip()))


def _add(steps: list[Step], number: int, mark: str, text: str, *, same: bool) -> None:
    expected = steps[-1].expected
    if mark in ("C:", "B<"):
        if not same:
            steps.append(Step(number, mark))
        steps[-1].octets += octets(text)
    elif mark == "* ":
        assert text in _EVENTS, f"line {number}: nobody knows the event {text!r}"
        steps.append(Step(number, text))
    elif mark == "S:":
        assert same or not expected.client, f"line {number}: one event, one write (rule S4)"
        expected.client += octets(text)
    elif mark == "B>":
        expected.server += octets(text)
    elif mark == "! ":
        expected.actions += text.split()
    else:
        attribute, _, value = text.partition(" ")
        steps[-1].values.append((number, attribute, value.strip()))


def octets(text: str) -> bytes:
    """Give what a line of a dialogue stands for."""
    text = _REPEAT.sub(lambda match: match[1] * int(match[2]), text)
    bare = text.endswith("\\c")
    parts = _ESCAPE.split(text)
    found = b""
    for index, part in enumerate(parts):
        if index % 2 == 0:
            found += part.encode()
        elif part.startswith("x") and len(part) == 3:
            found += bytes.fromhex(part[1:])
        else:
            found += _ESCAPES[part].encode()
    return found if bare else found + b"\r\n"


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
            found = getattr(owner.relay, name)
            shown = found.name if hasattr(found, "name") else str(found)
            assert shown == value, f"{dialogue.name}.txt line {number}: {name} is {shown!r}, not {value!r}"


def _place(dialogue: Dialogue, step: Step) -> str:
    return f"{dialogue.name}.txt, line {step.line} ({step.event} {step.octets!r})"


def show(output: Output) -> list[str]:
    """Give an output as the lines of a dialogue."""
    lines = [f"S: {line!r}" for line in output.client.splitlines(keepends=True)]
    lines += [f"B> {line!r}" for line in output.server.splitlines(keepends=True)]
    return lines + [f"! {name}" for name in output.actions]
