"""Memory: what an idle connection costs, and whether a huge message to a slow backend stays bounded."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from harness.cpu import MODERN, check_arrival
from harness.errors import BenchError, blaming
from harness.lab import Lab, read_json
from harness.peer import Peer, RunningPeer

WARM_UP_MESSAGES = 64
DESCRIPTORS_PER_CONNECTION = 2
SPARE_DESCRIPTORS = 200
HOLD_SECONDS = 60
SETTLE_SECONDS = 1.0


@dataclass
class MemoryResult:
    """Octets of memory per idle connection by peer, and the peak with a huge message."""

    connections: int = 0
    per_connection: dict[str, float] = field(default_factory=dict)
    slow: SlowResult | None = None


@dataclass(frozen=True)
class SlowResult:
    """A huge message to a slow backend; sizes in octets."""

    peer: str
    size: int
    seconds: float
    resident_before: int
    peak: int


def measure_idle(lab: Lab, peers: list[Peer], connections: int) -> MemoryResult:
    """Hold so many idle connections (fewer where descriptors are scarce) through each peer in turn."""
    allowed = (lab.descriptors - SPARE_DESCRIPTORS) // DESCRIPTORS_PER_CONNECTION
    if allowed < connections:
        print(f"only {allowed} idle connections: the limit of open descriptors is {lab.descriptors}")
    result = MemoryResult(min(connections, allowed))
    for peer in peers:
        with blaming(peer.title):
            result.per_connection[peer.key] = idle_cost(lab, peer, result.connections)
    return result


def idle_cost(lab: Lab, peer: Peer, connections: int) -> float:
    """Octets of resident memory that each idle connection (greeting and EHLO done) adds."""
    sink = lab.sink(*MODERN)
    running = peer.start(lab, sink.port)
    lab.load(running.port, "pipelined", messages=WARM_UP_MESSAGES, parallel=16, tls=running.tls)
    before = settled_memory(running)
    holder = lab.start_load(running.port, "idle", messages=connections, timeout=HOLD_SECONDS, tls=running.tls)
    held = read_json(holder, HOLD_SECONDS)["held"]
    after = settled_memory(running)
    holder.input.close()
    status = holder.wait(HOLD_SECONDS)
    if held != connections or status != 0:
        raise BenchError(f"held {held} of {connections} idle connections:\n{holder.tail()}")
    running.process.stop()
    sink.stop()
    return (after - before) / connections


def settled_memory(running: RunningPeer) -> int:
    """Resident memory after a moment of rest."""
    time.sleep(SETTLE_SECONDS)
    return running.process.resident()


def measure_slow(lab: Lab, peer: Peer, size: int, seconds: float) -> SlowResult:
    """Send one message of `size` octets to a backend that needs about so many seconds to take it."""
    sink = lab.sink(*MODERN, "--rate", str(int(size / seconds)))
    running = peer.start(lab, sink.port)
    counters = sink.counters()
    before = running.process.resident()
    started = time.monotonic()
    with blaming(f"{peer.label}, slow backend"):
        lab.load(running.port, "pipelined", messages=1, size=size, parallel=1, wait=seconds * 4 + 20)
        elapsed = time.monotonic() - started
        peak = running.process.peak()
        check_arrival(counters, sink.counters(), 1, size)
    running.process.stop()
    sink.stop()
    return SlowResult(peer.key, size, elapsed, before, peak)
