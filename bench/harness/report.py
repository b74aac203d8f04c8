"""The tables: markdown on standard output, and everything that was measured as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from harness import tools
from harness.cpu import CpuResult
from harness.memory import MemoryResult, SlowResult
from harness.peer import ALL_MODES, POLITE_MODES
from harness.peers import PEERS
from harness.stream import COURSES, StreamResult

MODE_TITLES = {"lockstep": "lock-step", "pipelined": "pipelined", "early": "early", "bdat": "one-burst BDAT"}
# peer, the one it is measured against, the modes that count, at most so many times its CPU
TARGETS = (
    ("eager", "haproxy", ALL_MODES, 2.0),
    ("lazy", "haproxy", ALL_MODES, 1.3),
    ("eager", "nginx", POLITE_MODES, 1.0),
    ("lazy", "nginx", POLITE_MODES, 1.0),
)
STREAM_TARGET = 400.0
IDLE_TARGET = 3 * 1024
PEAK_TARGET = 64 << 20
TOP_CALLS = 12


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def section(title: str, *parts: str) -> None:
    """Print a heading and what belongs below it."""
    print(f"\n### {title}\n")
    print("\n\n".join(parts), flush=True)


def verdict(reached: bool) -> str:  # noqa: FBT001 -- a verdict is about one truth value
    """The last column of a table with targets."""
    return "yes" if reached else "NO"


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    return {
        **platform_facts(),
        "HAProxy": tools.version("haproxy", "-v"),
        "nginx": tools.version("nginx", "-v"),
        "stunnel": tools.version("stunnel4", "-version", having="stunnel "),
        "OpenSSL": f"{tools.version('openssl', 'version')}; that of smtpproxy: {tools.own_libssl()}",
    }


def platform_facts() -> dict[str, str]:
    """What every benchmark depends on."""
    return {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def processor() -> str:
    """The name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def show_machine(facts: dict[str, str]) -> None:
    """Print what the figures were measured on."""
    section("Machine", "\n".join(f"- {name}: {text}" for name, text in facts.items()))


# CPU


def show_cpu(result: CpuResult) -> None:
    """Print CPU per session and the ratios."""
    modes = [MODE_TITLES[mode] for mode in ALL_MODES]
    parts = [markdown(["CPU µs per session", *modes], cpu_rows(result, "modern"))]
    ratios = list(ratio_rows(result))
    if ratios:
        parts.append(markdown(["CPU, times that of the other", *modes, "target", "reached"], ratios))
    legacy = list(cpu_rows(result, "lock-step"))
    if legacy:
        parts.append(markdown(["CPU µs per session, lock-step backend", *modes], legacy))
    parts.append(f"Medians of {result.rounds} rounds; in brackets how far the rounds lie apart.")
    section("CPU per session of one message", *parts)


def cpu_rows(result: CpuResult, backend: str) -> Iterable[list[str]]:
    """One row for each peer before a backend."""
    for key in keys_of(peer for place, peer, _ in result.samples if place == backend):
        yield [PEERS[key].label, *(cpu_cell(result, backend, key, mode) for mode in ALL_MODES)]


def cpu_cell(result: CpuResult, backend: str, peer: str, mode: str) -> str:
    """A median with its spread; a dash where nothing was measured."""
    values = result.samples.get((backend, peer, mode))
    if not values:
        return "–"
    middle = median(values)
    spread = (max(values) - min(values)) / middle
    return f"{middle:.0f} ({spread:.0%})" if len(values) > 1 else f"{middle:.0f}"


def ratio_rows(result: CpuResult) -> Iterable[list[str]]:
    """One row for each target that both sides were measured for."""
    for peer, other, modes, target in TARGETS:
        ratios = {mode: ratio(result, peer, other, mode) for mode in modes}
        known = [value for value in ratios.values() if value is not None]
        if not known:
            continue
        cells = ["–" if (value := ratios.get(mode)) is None else f"{value:.2f}" for mode in ALL_MODES]
        reached = verdict(max(known) <= target)
        yield [f"{PEERS[peer].label} / {PEERS[other].label}", *cells, f"≤ {target:.1f}", reached]


def ratio(result: CpuResult, peer: str, other: str, mode: str) -> float | None:
    """The median of one peer divided by that of another, before the modern backend."""
    ours = result.samples.get(("modern", peer, mode))
    theirs = result.samples.get(("modern", other, mode))
    return median(ours) / median(theirs) if ours and theirs else None


# Streaming


def show_stream(result: StreamResult, size: int) -> None:
    """Print the megabytes per CPU second."""
    rows = []
    for key in keys_of(peer for _, peer in result.samples):
        values = [result.samples.get((course.name, key)) for course in COURSES]
        cells = [f"{median(value):.0f}" if value else "–" for value in values]
        aims = key in ("eager", "lazy") and values[0] is not None
        target = [f"≥ {STREAM_TARGET:.0f}", verdict(median(values[0] or [0]) >= STREAM_TARGET)] if aims else ["", ""]
        rows.append([PEERS[key].label, *cells, *target])
    header = ["MB per CPU second", *(course.name for course in COURSES), "target for DATA", "reached"]
    section(f"One message of {size >> 20} MiB", markdown(header, rows))


# Memory


def show_memory(result: MemoryResult) -> None:
    """Print the memory of idle connections."""
    rows = []
    for key, octets in result.per_connection.items():
        aims = key in ("eager", "lazy")
        target = ["≤ 3 KiB", verdict(octets <= IDLE_TARGET)] if aims else ["", ""]
        rows.append([PEERS[key].title, f"{octets / 1024:.2f}", *target])
    title = f"Memory of {result.connections} idle connections"
    section(title, markdown(["KiB per connection", "", "target", "reached"], rows))


def show_slow(result: SlowResult) -> None:
    """Print the peak memory of a huge message to a slow backend."""
    header = ["MiB of memory", "before", "peak", "target", "reached"]
    figures = [f"{result.resident_before / 2**20:.1f}", f"{result.peak / 2**20:.1f}", "< 64"]
    rows = [[PEERS[result.peer].label, *figures, verdict(result.peak < PEAK_TARGET)]]
    rate = result.size / 1e6 / result.seconds
    title = f"{result.size >> 20} MiB to a backend that takes {rate:.0f} MB a second"
    section(title, markdown(header, rows))


# System calls


def show_syscalls(counts: dict[tuple[str, str], dict[str, float]]) -> None:
    """Print how many system calls a session takes, in all and by name."""
    parts = []
    for key in keys_of(peer for peer, _ in counts):
        modes = [mode for mode in ALL_MODES if (key, mode) in counts]
        tables = [counts[key, mode] for mode in modes]
        names = sorted({name for table in tables for name in table}, key=lambda name: -weight(tables, name))
        rows = [["all", *(f"{sum(table.values()):.2f}" for table in tables)]]
        rows += [[name, *(f"{table.get(name, 0):.2f}" for table in tables)] for name in names[:TOP_CALLS]]
        parts.append(markdown([PEERS[key].title, *(MODE_TITLES[mode] for mode in modes)], rows))
    section("System calls per session", *parts)


def weight(tables: list[dict[str, float]], name: str) -> float:
    """How often a call occurs in all tables together."""
    return sum(table.get(name, 0) for table in tables)


def keys_of(keys: Iterable[str]) -> list[str]:
    """The peers that occur, each once, in the usual order."""
    present = set(keys)
    return [key for key in PEERS if key in present]
