"""The rows of the table: who sends, what is aimed at, and the measuring of one of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.errors import BenchError

from wan import exim, postfix, smtpproxy
from wan.exim import Remote
from wan.machines import FAR, Line, Machine, long_line
from wan.trace import Delivery

WARM_UP = 4
"""Messages that teach a client what the remote offers, a cookie of Fast Open and a ticket, and to trust in it."""
MOST_SECONDS = 30.0
LINE_LENGTH = 72


class Sender(Protocol):
    """A client, however it is made of."""

    def send(self, message: bytes) -> None:
        """Send a message, or begin to."""


@dataclass(frozen=True)
class Row:
    """A way to send; `fast_open` and `kept` say what it looks like on the line."""

    key: str
    label: str
    start: Callable[[Path, Machine], Sender]
    target: float | None = None
    fast_open: bool = False
    kept: bool = False


@dataclass
class Figures:
    """The round trips of each delivery, by octets of the message; and what was wrong about them."""

    row: Row
    round_trips: dict[int, list[float]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    milliseconds: int
    messages: int
    sizes: tuple[int, ...]
    quit_pause: bool
    """Whether Exim waits for the end of a client that sends QUIT with the message (exim.py)."""


def postfix_alone(*, starttls: bool) -> Callable[[Path, Machine], Sender]:
    """A Postfix that sends to the remote itself."""
    return lambda folder, machine: postfix.client(folder, machine, f"[{FAR}]:{exim.PORT}", starttls=starttls)


def exim_alone(*, starttls: bool, fast_open: bool) -> Callable[[Path, Machine], Sender]:
    """An Exim that sends to the remote itself, early."""
    return lambda folder, machine: exim.client(folder, machine, starttls=starttls, fast_open=fast_open)


def behind_smtpproxy(*, starttls: bool = False, fast_open: str = "off", reuse: bool = False) -> Callable[..., Sender]:
    """A Postfix that sends to smtpproxy."""
    return lambda folder, machine: smtpproxy.client(
        folder, machine, starttls=starttls, fast_open=fast_open, reuse=reuse
    )


OURS = "Postfix → smtpproxy → Exim"
ROWS = (
    Row("postfix", "Postfix alone", postfix_alone(starttls=False)),
    Row("exim", "Exim alone", exim_alone(starttls=False, fast_open=False)),
    Row("exim-tfo", "Exim alone, Fast Open", exim_alone(starttls=False, fast_open=True), fast_open=True),
    Row("smtpproxy", OURS, behind_smtpproxy(), 2),
    Row(
        "smtpproxy-tfo",
        f"{OURS}, Fast Open, `whole_message`",
        behind_smtpproxy(fast_open="whole_message"),
        1,
        fast_open=True,
    ),
    Row("postfix-tls", "Postfix alone, STARTTLS", postfix_alone(starttls=True)),
    Row("exim-tls", "Exim alone, STARTTLS", exim_alone(starttls=True, fast_open=False)),
    Row(
        "exim-tls-tfo",
        "Exim alone, STARTTLS, Fast Open",
        exim_alone(starttls=True, fast_open=True),
        fast_open=True,
    ),
    Row("smtpproxy-tls", f"{OURS}, STARTTLS", behind_smtpproxy(starttls=True), 4),
    Row(
        "smtpproxy-tls-tfo",
        f"{OURS}, STARTTLS, Fast Open, resumption",
        behind_smtpproxy(starttls=True, fast_open="on"),
        3,
        fast_open=True,
    ),
    Row("smtpproxy-kept", f"{OURS}, next message on a kept session", behind_smtpproxy(reuse=True), 1, kept=True),
)


def message(octets: int) -> bytes:
    """A message of that length."""
    head = b"From: a@near.test\nTo: b@lab.test\nSubject: a message of the benchmark\n\n"
    line = b"x" * (LINE_LENGTH - 1) + b"\n"
    text = (head + line * (octets // LINE_LENGTH))[: octets - 1]
    return text + b"\n"


def measure(row: Row, folder: Path, program: Path, plan: Plan) -> Figures:
    """Measure one row, on a new line. Raises BenchError if a message is not delivered."""
    figures = Figures(row)
    with long_line(folder, program, plan.milliseconds) as line:
        remote = Remote(folder / "remote", line.far, quit_pause=plan.quit_pause)
        sender = row.start(folder / "sender", line.near)
        for _ in range(WARM_UP):
            deliver(sender, message(plan.sizes[0]), line, remote, plan)
        for octets in plan.sizes:
            found = [deliver(sender, message(octets), line, remote, plan) for _ in range(plan.messages)]
            figures.round_trips[octets] = [delivery.seconds * 1000 / plan.milliseconds for delivery in found]
            figures.remarks += remarks(row, found)
    return figures


def deliver(sender: Sender, text: bytes, line: Line, remote: Remote, plan: Plan) -> Delivery:
    """Send one message, and wait until all is said about it."""
    begun, before = line.trace.count(), remote.accepted()
    sender.send(text)
    deadline = time.monotonic() + MOST_SECONDS
    while remote.accepted() == before:
        if time.monotonic() > deadline:
            raise BenchError(f"the remote has not accepted a message of {len(text)} octets ; --folder keeps the logs")
        time.sleep(0.01)
    line.trace.wait_for_silence(2 * plan.milliseconds / 1000, MOST_SECONDS)
    if remote.accepted() != before + 1:
        raise BenchError("a message came more than once; --folder keeps the logs")
    return line.trace.delivery(begun)


def remarks(row: Row, found: list[Delivery]) -> list[str]:
    """What the packets say against the name of the row."""
    said = []
    without = sum(delivery.octets_in_syn == 0 for delivery in found)
    if row.fast_open and without:
        said.append(f"{without} of {len(found)} without data in the SYN")
    several = sum(delivery.opened > 1 for delivery in found)
    if several:
        said.append(f"{several} of {len(found)} with more than one connection")
    anew = sum(not delivery.kept for delivery in found)
    if row.kept and anew:
        said.append(f"{anew} of {len(found)} on a new connection")
    return said
