"""CPU time per session: rounds in which the peers take turns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from harness.errors import BenchError, blaming
from harness.lab import Lab
from harness.peer import Peer, RunningPeer

Offer = tuple[str, ...]  # the options of a sink
MODERN: Offer = ("--pipelining", "--chunking")
LEGACY: Offer = ()
SETTLE_SECONDS = 0.05
WARM_UP_MESSAGES = 400
Key = tuple[str, str, str]  # backend, peer, mode


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    messages: int
    size: int
    parallel: int
    seconds: float
    """No new round begins when it would probably end later than this."""


@dataclass
class CpuResult:
    """Microseconds of CPU per session, one value for each round, by backend, peer and mode."""

    samples: dict[Key, list[float]] = field(default_factory=dict)
    reports: dict[Key, dict[str, Any]] = field(default_factory=dict)
    rounds: int = 0


class Bout:
    """A sink and the peers in front of it, all running."""

    def __init__(self, lab: Lab, name: str, offer: Offer, peers: list[Peer]) -> None:
        """Start the sink with what it offers, and the peers."""
        self.name = name
        self._lab = lab
        self._sink = lab.sink(*offer)
        self.peers = [peer.start(lab, self._sink.port) for peer in peers]

    def run(self, running: RunningPeer, mode: str, messages: int, plan: Plan) -> tuple[float, dict[str, Any]]:
        """Send messages, one in a session; gives the CPU microseconds of each and the generator's report."""
        parallel = plan.parallel * running.peer.crowd
        with blaming(running.peer.label):
            before = self._sink.counters()
            cpu = running.process.cpu_ns()
            report = self._lab.load(running.port, mode, messages=messages, size=plan.size, parallel=parallel)
            time.sleep(SETTLE_SECONDS)
            cpu = running.process.cpu_ns() - cpu
            check_arrival(before, self._sink.counters(), messages, plan.size)
        return cpu / 1000 / messages, report


def check_arrival(before: dict[str, int], after: dict[str, int], messages: int, size: int) -> None:
    """Raise BenchError unless exactly these messages have arrived, whole, and nobody broke a rule."""
    grown = {name: after[name] - before[name] for name in after}
    if grown["messages"] != messages or grown["octets"] != messages * size:
        raise BenchError(f"{messages} messages of {size} octets were sent, but the backend saw {grown}")
    if grown["violations"] or grown["errors"]:
        raise BenchError(f"the proxy broke the backend's rules: {grown}")


def measure(lab: Lab, peers: list[Peer], plan: Plan) -> CpuResult:
    """Measure all peers before a modern backend, and those that can adapt before a lock-step one."""
    started = time.monotonic()
    bouts = [Bout(lab, "modern", MODERN, peers)]
    adapting = [peer for peer in peers if peer.adapts]
    if adapting:
        bouts.append(Bout(lab, "lock-step", LEGACY, adapting))
    for bout, running, mode in turns(bouts):
        bout.run(running, mode, warm_up(running, plan), plan)
    result = CpuResult()
    longest = 0.0
    while result.rounds < plan.rounds:
        begun = time.monotonic()
        if result.rounds > 0 and begun - started + longest > plan.seconds:
            print(f"time is up after {result.rounds} of {plan.rounds} rounds")
            break
        one_round(bouts, plan, result)
        longest = max(longest, time.monotonic() - begun)
    return result


def warm_up(running: RunningPeer, plan: Plan) -> int:
    """How many messages make a peer warm."""
    return max(1, int(min(WARM_UP_MESSAGES, plan.messages) * running.peer.effort))


def one_round(bouts: list[Bout], plan: Plan, result: CpuResult) -> None:
    """Measure everything once."""
    for bout, running, mode in turns(bouts):
        messages = max(1, int(plan.messages * running.peer.effort))
        value, report = bout.run(running, mode, messages, plan)
        key = (bout.name, running.peer.key, mode)
        result.samples.setdefault(key, []).append(value)
        result.reports[key] = report
    result.rounds += 1
    print(f"round {result.rounds} of {plan.rounds} done", flush=True)


def turns(bouts: list[Bout]) -> Iterator[tuple[Bout, RunningPeer, str]]:
    """Every backend, mode and peer, such that the peers of one mode come right after each other."""
    for bout in bouts:
        modes = {mode: None for running in bout.peers for mode in running.peer.modes}
        for mode in modes:
            for running in bout.peers:
                if mode in running.peer.modes:
                    yield bout, running, mode
