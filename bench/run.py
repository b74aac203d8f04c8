"""The command line of the benchmark: which parts run, with how much, and where the figures go."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import cpu, memory, peers, report, stream, syscalls, tls, tlsreport, tools
from harness.errors import BenchError, UnavailableError
from harness.folders import working_folder
from harness.lab import Lab
from harness.peer import Peer

PARTS = ("cpu", "stream", "tls", "memory")
MIB = 1 << 20


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure smtpproxy beside HAProxy, nginx and stunnel.")
    parser.add_argument("--only", choices=PARTS, help="run one part instead of all four")
    parser.add_argument("--peers", default=",".join(peers.DEFAULT_PEERS), help="which of %(default)s,stock")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is repeated (%(default)s)")
    parser.add_argument("--messages", type=int, default=2000, help="sessions of one measurement (%(default)s)")
    parser.add_argument("--size", type=int, default=4096, help="octets of a message (%(default)s)")
    parser.add_argument("--parallel", type=int, default=16, help="sessions at the same time (%(default)s)")
    parser.add_argument("--stream-size", type=int, default=512, help="MiB of a streamed message (%(default)s)")
    parser.add_argument("--tls-messages", type=int, default=500, help="TLS sessions of one measurement (%(default)s)")
    parser.add_argument("--tls-size", type=int, default=1024, help="octets of a message in those (%(default)s)")
    parser.add_argument("--tls-parallel", type=int, default=128, help="sessions at the same time (%(default)s)")
    parser.add_argument("--tls-stream-messages", type=int, default=40, help="large messages through TLS (%(default)s)")
    parser.add_argument("--tls-stream-size", type=int, default=5, help="MiB of one of them (%(default)s)")
    parser.add_argument("--connections", type=int, default=5000, help="idle connections (%(default)s)")
    parser.add_argument("--slow-size", type=int, default=1024, help="MiB sent to a slow backend (%(default)s)")
    parser.add_argument("--slow-seconds", type=float, default=16, help="how long it takes (%(default)s)")
    parser.add_argument("--seconds", type=float, default=200, help="time for the CPU part, and for TLS (%(default)s)")
    parser.add_argument("--syscalls", action="store_true", help="count system calls instead (strace)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures into a file as well")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="work in this new folder and keep all logs in it")
    parser.add_argument("--no-install", action="store_true", help="never install missing peers with apt-get")
    arguments = parser.parse_args()
    arguments.peers = arguments.peers.split(",")
    unknown = [key for key in arguments.peers if key not in peers.PEERS]
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)} (there are {', '.join(peers.PEERS)})")
    return arguments


class Bench:
    """One run of the benchmark: measures the parts asked for and prints each table when it is there."""

    def __init__(self, arguments: argparse.Namespace, programs: dict[str, Path], folder: Path) -> None:
        """Work in a temporary folder with the compiled programs."""
        self._arguments = arguments
        self._programs = programs
        self._folder = folder
        self._peers = peers.installed(arguments.peers)
        self.failed = False
        self.figures: dict[str, Any] = {"machine": report.machine()}

    def run(self) -> None:
        """Measure and print everything."""
        report.show_machine(self.figures["machine"])
        if self._arguments.syscalls:
            self._syscalls()
            return
        parts = {"cpu": self._cpu, "stream": self._stream, "tls": self._tls, "memory": self._memory}
        for name, part in parts.items():
            if self._arguments.only in (None, name):
                self._attempt(name, part)

    def _attempt(self, name: str, part: Callable[[], None]) -> None:
        """Run a part; if it fails, the others are still worth having."""
        try:
            part()
        except BenchError as error:
            self.failed = True
            print(f"\nThe part {name} failed: {error}", flush=True)

    def _lab(self, name: str) -> Lab:
        folder = self._folder / name
        folder.mkdir()
        return Lab(folder, self._programs)

    def _cpu(self) -> None:
        options = self._arguments
        plan = cpu.Plan(options.rounds, options.messages, options.size, options.parallel, options.seconds)
        with self._lab("cpu") as lab:
            result = cpu.measure(lab, self._plain, plan)
        report.show_cpu(result)
        self.figures["cpu"] = [
            {
                "backend": key[0],
                "peer": key[1],
                "mode": key[2],
                "microseconds": values,
                "last": result.reports[key],
            }
            for key, values in result.samples.items()
        ]

    @property
    def _plain(self) -> list[Peer]:
        return [peer for peer in self._peers if not peer.with_tls]

    @property
    def _all_round(self) -> list[Peer]:
        return [peer for peer in self._peers if not peer.only_cpu]

    def _stream(self) -> None:
        options = self._arguments
        size = options.stream_size * MIB
        plain = [peer for peer in self._plain if not peer.only_cpu]
        with self._lab("stream") as lab:
            result = stream.measure(lab, plain, size, min(options.rounds, 3), options.seconds / 4)
        report.show_stream(result, size)
        self.figures["stream"] = [
            {"course": key[0], "peer": key[1], "megabytes_per_cpu_second": values}
            for key, values in result.samples.items()
        ]

    def _tls(self) -> None:
        options = self._arguments
        secure = [peer for peer in self._peers if peer.with_tls]
        if not secure:
            print("\nThe part tls was left out: none of its proxies can run here")
            return
        plan = tls.Plan(
            rounds=options.rounds,
            messages=options.tls_messages,
            size=options.tls_size,
            parallel=options.tls_parallel,
            stream_messages=options.tls_stream_messages,
            stream_size=options.tls_stream_size * MIB,
            seconds=options.seconds,
        )
        with self._lab("tls") as lab:
            result = tls.measure(lab, secure, plan)
        tlsreport.show(result, plan)
        self.figures["tls"] = [
            {
                "course": key[0],
                "peer": key[1],
                "mode": key[2],
                "microseconds": values,
                "last": result.reports[key],
            }
            for key, values in result.samples.items()
        ]

    def _memory(self) -> None:
        options = self._arguments
        with self._lab("memory") as lab:
            result = memory.measure_idle(lab, self._all_round, options.connections)
            report.show_memory(result)
            if peers.EAGER in self._peers:
                size = options.slow_size * MIB
                result.slow = memory.measure_slow(lab, peers.EAGER, size, options.slow_seconds)
                report.show_slow(result.slow)
        self.figures["memory"] = asdict(result)

    def _syscalls(self) -> None:
        with self._lab("syscalls") as lab:
            counts = syscalls.measure(lab, self._peers)
        report.show_syscalls(counts)
        self.figures["syscalls"] = [{"peer": key[0], "mode": key[1], "calls": table} for key, table in counts.items()]


def run(arguments: argparse.Namespace) -> bool:
    """Build, measure, print; tell whether all went well."""
    if not arguments.no_install:
        tools.install_missing()
    with working_folder(arguments.folder) as folder:
        bench = Bench(arguments, tools.build(folder), folder)
        bench.run()
    if arguments.json:
        arguments.json.write_text(json.dumps(bench.figures, indent=2) + "\n")
    return not bench.failed


def main() -> int:
    """Run it all. Gives the exit status: 0, also where something is missing; 1 if a message went wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return 0 if run(parse_arguments()) else 1
    except UnavailableError as error:
        print(f"benchmark skipped: {error}")
        return 0
    except BenchError as error:
        print(f"benchmark failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
