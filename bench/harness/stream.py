"""Streaming: how many megabytes of mail data a proxy carries in one second of CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.cpu import LEGACY, MODERN, SETTLE_SECONDS, Offer, check_arrival
from harness.errors import blaming
from harness.lab import Lab, Sink
from harness.peer import Peer, RunningPeer

WARM_UP_SIZE = 16 << 20
Key = tuple[str, str]  # column, peer


@dataclass(frozen=True)
class Course:
    """One way to send a large message."""

    name: str
    mode: str
    offer: Offer


COURSES = (
    Course("DATA", "pipelined", MODERN),
    Course("BDAT", "bdat", MODERN),
    Course("DATA, lock-step backend", "early", LEGACY),
    Course("BDAT becomes DATA", "bdat", LEGACY),
)


@dataclass
class StreamResult:
    """Megabytes (10^6 octets) per CPU second, one value for each round, by course and peer."""

    samples: dict[Key, list[float]] = field(default_factory=dict)


def measure(lab: Lab, peers: list[Peer], size: int, rounds: int, seconds: float) -> StreamResult:
    """Send one message of `size` octets in turn through each peer, while there are rounds and time."""
    deadline = time.monotonic() + seconds
    lanes = {MODERN: Lane(lab, MODERN, peers), LEGACY: Lane(lab, LEGACY, [peer for peer in peers if peer.adapts])}
    for course, lane, running in turns(lanes):
        run(lab, lane.sink, running, course.mode, min(WARM_UP_SIZE, size))
    result = StreamResult()
    for number in range(rounds):
        if number > 0 and time.monotonic() > deadline:
            break
        for course, lane, running in turns(lanes):
            value = run(lab, lane.sink, running, course.mode, size)
            result.samples.setdefault((course.name, running.peer.key), []).append(value)
    return result


class Lane:
    """A sink and the peers in front of it, all running."""

    def __init__(self, lab: Lab, offer: Offer, peers: list[Peer]) -> None:
        """Start the sink with what it offers, and the peers."""
        self.sink = lab.sink(*offer)
        self.peers = [peer.start(lab, self.sink.port) for peer in peers]


def turns(lanes: dict[Offer, Lane]) -> Iterator[tuple[Course, Lane, RunningPeer]]:
    """Every course with every peer that can run it."""
    for course in COURSES:
        lane = lanes[course.offer]
        for running in lane.peers:
            if course.mode in running.peer.modes:
                yield course, lane, running


def run(lab: Lab, sink: Sink, running: RunningPeer, mode: str, size: int) -> float:
    """Send one message and give the megabytes per CPU second."""
    with blaming(f"{running.peer.label}, {size >> 20} MiB"):
        before = sink.counters()
        cpu = running.process.cpu_ns()
        lab.load(running.port, mode, messages=1, size=size, parallel=1)
        time.sleep(SETTLE_SECONDS)
        cpu = running.process.cpu_ns() - cpu
        check_arrival(before, sink.counters(), 1, size)
    return size / 1e6 / (cpu / 1e9)
