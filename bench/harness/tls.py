"""TLS: what a session costs with a full and with a resumed handshake, and how fast mail data goes through it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from harness.cpu import MODERN, SETTLE_SECONDS, check_arrival
from harness.errors import BenchError, blaming
from harness.lab import Lab
from harness.peer import Peer, RunningPeer

WARM_UP_MESSAGES = 200
STREAM_PARALLEL = 4
PATIENT_SECONDS = 120
SESSION_MODES = ("pipelined", "early")
Key = tuple[str, str, str]  # course, peer, mode


@dataclass(frozen=True)
class Course:
    """How sessions begin, and what they carry."""

    name: str
    wire: str
    resumed: bool = False
    modes: tuple[str, ...] = SESSION_MODES
    streams: bool = False


SESSION_COURSES = (
    Course("STARTTLS, full", "starttls"),
    Course("STARTTLS, resumed", "starttls", resumed=True),
    Course("implicit, full", "implicit"),
    Course("implicit, resumed", "implicit", resumed=True),
)
STREAM_COURSES = (
    Course("DATA", "implicit", modes=("pipelined",), streams=True),
    Course("BDAT", "implicit", modes=("bdat",), streams=True),
)


@dataclass(frozen=True)
class Plan:
    """How much is measured; sizes in octets."""

    rounds: int
    messages: int
    size: int
    parallel: int
    stream_messages: int
    stream_size: int
    seconds: float
    """No new round begins when it would probably end later than this."""


@dataclass
class TlsResult:
    """CPU microseconds of one session, one value for each round."""

    samples: dict[Key, list[float]] = field(default_factory=dict)
    reports: dict[Key, dict[str, Any]] = field(default_factory=dict)
    rounds: int = 0


class Arena:
    """A sink and the peers in front of it, all running, with the newest ticket of each of their listeners."""

    def __init__(self, lab: Lab, peers: list[Peer], plan: Plan) -> None:
        """Start them all."""
        self._lab = lab
        self._plan = plan
        self._sink = lab.sink(*MODERN)
        self._tickets = lab.new_folder("tickets")
        self._peers = [peer.start(lab, self._sink.port) for peer in peers]

    def turns(self) -> Iterator[tuple[Course, str, RunningPeer]]:
        """Every course and mode with every peer that can run it, the peers right after each other."""
        for course in (*SESSION_COURSES, *STREAM_COURSES):
            for mode in course.modes:
                for running in self._peers:
                    if mode in running.peer.modes:
                        yield course, mode, running

    def run(self, course: Course, mode: str, running: RunningPeer, *, warm_up: bool) -> tuple[float, dict[str, Any]]:
        """Run sessions with one message each; gives the CPU microseconds of one, and the generator's report."""
        plan = self._plan
        if course.streams:
            messages, size, parallel = plan.stream_messages, plan.stream_size, STREAM_PARALLEL
        else:
            # Those that sleep in a session, nginx and stunnel, must have others to serve meanwhile; so all get many.
            messages, size, parallel = plan.messages, plan.size, plan.parallel
        messages = min(messages, WARM_UP_MESSAGES) if warm_up else messages
        ticket = {"ticket": str(self._tickets / f"{running.peer.key}-{course.wire}.pem")} if course.resumed else {}
        with blaming(f"{running.peer.title}, {course.name}"):
            before = self._sink.counters()
            cpu = running.process.cpu_ns()
            report = self._lab.load(
                running.ports[course.wire],
                mode,
                wait=PATIENT_SECONDS,
                messages=messages,
                size=size,
                parallel=parallel,
                tls=course.wire,
                **ticket,
            )
            time.sleep(SETTLE_SECONDS)
            cpu = running.process.cpu_ns() - cpu
            check_arrival(before, self._sink.counters(), messages, size)
            if not warm_up:
                check_handshakes(report, resumed=course.resumed)
        return cpu / 1000 / messages, report


def check_handshakes(report: dict[str, Any], *, resumed: bool) -> None:
    """Raise BenchError unless every handshake was of the kind that is measured."""
    due = report["sessions"] if resumed else 0
    if report["handshakes"] != report["sessions"] or report["resumed"] != due:
        raise BenchError(
            f"{report['sessions']} sessions, {report['handshakes']} handshakes, {report['resumed']} of them resumed "
            f"where {due} had to be"
        )


def measure(lab: Lab, peers: list[Peer], plan: Plan) -> TlsResult:
    """Measure all peers in alternating rounds, while there is time. The warm-up brings the first tickets."""
    started = time.monotonic()
    arena = Arena(lab, peers, plan)
    for course, mode, running in arena.turns():
        arena.run(course, mode, running, warm_up=True)
    result = TlsResult()
    longest = 0.0
    while result.rounds < plan.rounds:
        begun = time.monotonic()
        if result.rounds > 0 and begun - started + longest > plan.seconds:
            print(f"time is up after {result.rounds} of {plan.rounds} rounds")
            break
        one_round(arena, plan, result)
        longest = max(longest, time.monotonic() - begun)
    return result


def one_round(arena: Arena, plan: Plan, result: TlsResult) -> None:
    """Measure everything once."""
    for course, mode, running in arena.turns():
        value, report = arena.run(course, mode, running, warm_up=False)
        key = (course.name, running.peer.key, mode)
        result.samples.setdefault(key, []).append(value)
        result.reports[key] = report
    result.rounds += 1
    print(f"round {result.rounds} of {plan.rounds} done", flush=True)
