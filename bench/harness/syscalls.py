"""System calls per session, counted by strace in a run of its own: tracing spoils every other figure."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from signal import SIGINT

from harness import tools
from harness.cpu import MODERN, SETTLE_SECONDS
from harness.errors import BenchError, UnavailableError, blaming
from harness.lab import Lab
from harness.peer import Peer, RunningPeer
from harness.process import Process

SESSIONS = 400
PARALLEL = 16
ATTACH_SECONDS = 10.0
Counts = dict[str, float]  # system call: how often in one session


def measure(lab: Lab, peers: list[Peer]) -> dict[tuple[str, str], Counts]:
    """Count the calls of each peer in each mode. Raises UnavailableError without strace."""
    if tools.find("strace") is None:
        raise UnavailableError("strace is not installed")
    sink = lab.sink(*MODERN)
    counts = {}
    for peer in peers:
        running = peer.start(lab, sink.port)
        for mode in peer.modes:
            lab.load(running.port, mode, messages=PARALLEL * 2, parallel=PARALLEL, tls=running.tls)
            with blaming(peer.title):
                counts[peer.key, mode] = count(lab, running, mode)
        running.process.stop()
    return counts


def count(lab: Lab, running: RunningPeer, mode: str) -> Counts:
    """Trace a peer while it serves SESSIONS sessions."""
    table = lab.new_folder("strace") / "table"
    tracer = attach(lab, running.process, table)
    lab.load(running.port, mode, messages=SESSIONS, parallel=PARALLEL, tls=running.tls)
    time.sleep(SETTLE_SECONDS)
    tracer.send(SIGINT)
    tracer.wait(ATTACH_SECONDS)
    return parse_table(table.read_text(), SESSIONS)


def attach(lab: Lab, process: Process, table: Path) -> Process:
    """Start strace on all processes of a peer and wait until each is traced."""
    pids = process.pids()
    targets = [argument for pid in pids for argument in ("-p", str(pid))]
    arguments = [str(tools.find("strace")), "-c", "-f", "-o", str(table), *targets]
    tracer = lab.start("strace", arguments, core=lab.cores.others)
    deadline = time.monotonic() + ATTACH_SECONDS
    while not all(traced(pid) for pid in pids):
        if time.monotonic() > deadline or not tracer.running():
            raise BenchError(f"strace cannot attach:\n{tracer.tail()}")
        time.sleep(0.05)
    return tracer


def traced(pid: int) -> bool:
    """Tell whether somebody traces a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return "\nTracerPid:\t0\n" not in status


def parse_table(text: str, sessions: int) -> Counts:
    """Read the summary of strace -c: time, seconds, microseconds, calls, errors if any, name."""
    counts: Counter[str] = Counter()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            counts[fields[-1]] += int(fields[3])
    return {name: calls / sessions for name, calls in counts.most_common()}
