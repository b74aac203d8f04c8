"""The laboratory: a temporary folder, two cores, and every process that a benchmark has started."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGUSR1
from typing import Any, Self

from harness import tools
from harness.errors import BenchError
from harness.process import Process, raise_descriptor_limit

HOST = "127.0.0.1"
READY_SECONDS = 20.0
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Cores:
    """Which core runs the proxy under test and which one everything else; None where there is only one."""

    proxy: int | None
    others: int | None


def choose_cores() -> Cores:
    """Take the first two cores that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[1]) if len(usable) > 1 else Cores(None, None)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Lab:
    """Starts processes and ends them all when it is left, whatever happened. A context manager."""

    def __init__(self, folder: Path, programs: dict[str, Path]) -> None:
        """Work in a folder that exists, with the compiled programs."""
        self.folder = folder
        self.cores = choose_cores()
        self.descriptors = raise_descriptor_limit()
        self._programs = programs
        self._started = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Nothing is running yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every process that is still there."""
        self._stack.close()

    def new_folder(self, name: str) -> Path:
        """A folder of its own for the files of a process."""
        self._started += 1
        folder = self.folder / f"{self._started:02}-{name}"
        folder.mkdir()
        return folder

    def start(self, name: str, arguments: Sequence[str], *, core: int | None, pipes: bool = False) -> Process:
        """Start a process that ends with the laboratory at the latest."""
        log = self.new_folder(name) / "output"
        process = Process(name, arguments, log, core=core, pipes=pipes)
        self._stack.callback(process.stop)
        return process

    @functools.cached_property
    def certificate(self) -> tools.Certificate:
        """The certificate of all proxies here."""
        return tools.make_certificate(self.new_folder("certificate"))

    def sink(self, *options: str) -> Sink:
        """Start a sink with these options."""
        arguments = [str(self._programs["sink"]), *options, HOST, "0"]
        return Sink(self.start("sink", arguments, core=self.cores.others, pipes=True))

    def load(self, port: int, mode: str, *, wait: float = 60, **options: int | str) -> dict[str, Any]:
        """Run the load generator to its end and give its report. Raises BenchError upon any wrong reply."""
        process = self.start_load(port, mode, timeout=int(wait), **options)
        try:
            status = process.wait(wait + ANSWER_SECONDS)
            if status != 0:
                raise BenchError(f"the load generator failed in mode {mode}, status {status}:\n{process.tail()}")
            report: dict[str, Any] = json.loads(process.output.read())
            return report
        finally:
            process.stop()

    def start_load(self, port: int, mode: str, **options: int | str) -> Process:
        """Start the load generator: options are those of load.c, with underscores for hyphens."""
        arguments = [str(self._programs["load"]), "--mode", mode]
        for name, value in options.items():
            arguments += [f"--{name.replace('_', '-')}", str(value)]
        return self.start(f"load-{mode}", [*arguments, HOST, str(port)], core=self.cores.others, pipes=True)


class Sink:
    """A running sink."""

    def __init__(self, process: Process) -> None:
        """Wait until it listens."""
        self.process = process
        self.port: int = read_json(process)["port"]

    def counters(self) -> dict[str, int]:
        """What it has counted so far: connections, open, messages, octets, violations, errors."""
        self.process.send(SIGUSR1)
        counters: dict[str, int] = read_json(self.process)
        return counters

    def stop(self) -> None:
        """End it."""
        self.process.stop()


def read_json(process: Process, seconds: float = ANSWER_SECONDS) -> Any:  # noqa: ANN401 -- JSON has no narrower type
    """Read one line of JSON from the output of a process. Raises BenchError if none comes in time."""
    if not select.select([process.output], [], [], seconds)[0]:
        raise BenchError(f"no answer from {process.name} within {seconds:.0f} s")
    line = process.output.readline()
    if not line:
        raise BenchError(f"{process.name} ended:\n{process.tail()}")
    return json.loads(line)


def wait_for_greeting(process: Process, port: int) -> None:
    """Wait until a proxy greets with 220, and leave it with QUIT. Raises BenchError if it does not."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if not process.running():
            raise BenchError(f"{process.name} ended at once:\n{process.tail()}")
        if greets(port):
            return
        time.sleep(0.05)
    raise BenchError(f"{process.name} did not greet within {READY_SECONDS:.0f} s:\n{process.tail()}")


def greets(port: int) -> bool:
    """Tell whether an SMTP server answers on a port. What it makes of the QUIT does not matter: stunnel knows none."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as client, client.makefile("rb") as replies:
            greeting: bytes = replies.readline()
            with contextlib.suppress(OSError):
                client.sendall(b"QUIT\r\n")
                replies.read()
            return greeting.startswith(b"220")
    except OSError:
        return False
