"""Child processes: pinned to a core, ended by process id, measured by what the operating system counts."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from harness.errors import BenchError

STOP_SECONDS = 5.0
TAIL_LINES = 15
SCHEDULER_CLOCK = 2  # the kernel's CPUCLOCK_SCHED


def raise_descriptor_limit() -> int:
    """Raise the limit of open descriptors of this process and its children as far as allowed, and give it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextlib.contextmanager
def pinned_to(core: int | None) -> Iterator[None]:
    """Run the body, and so the children started in it, on one core; None leaves the choice to the kernel."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def dying_with_us(arguments: Sequence[str]) -> list[str]:
    """The command such that the kernel ends it when this process dies, even by SIGKILL."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", *arguments] if setpriv else list(arguments)


class Process:
    """A running child. Its standard error (and output, unless it is a pipe) goes to `log`."""

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, *, core: int | None = None, pipes: bool = False
    ) -> None:
        """Start it on a core; `pipes` gives access to its standard input and output."""
        self.name = name
        self.log = log
        with log.open("ab") as output, pinned_to(core):
            self._child = subprocess.Popen(
                dying_with_us(arguments),
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._child.pid

    @property
    def input(self) -> IO[bytes]:
        """The writing end of its standard input."""
        return _present(self._child.stdin)

    @property
    def output(self) -> IO[bytes]:
        """The reading end of its standard output."""
        return _present(self._child.stdout)

    def running(self) -> bool:
        """Tell whether it has not ended yet."""
        return self._child.poll() is None

    def wait(self, seconds: float) -> int:
        """Wait for its end and give the exit status. Raises BenchError when it takes longer."""
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{self.name} did not end within {seconds:.0f} s") from error

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it is still there."""
        if self.running():
            self._child.send_signal(number)

    def stop(self) -> None:
        """End it: politely, and after a while by force, with whatever it started. Safe to call twice."""
        if self.running():
            self._child.terminate()
            try:
                self._child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._child.pid, signal.SIGKILL)
                self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def tail(self) -> str:
        """The last lines of its log, for an error message."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(lines)

    def pids(self) -> list[int]:
        """Its process id and those of all its descendants."""
        return process_tree(self.pid)

    def cpu_ns(self) -> int:
        """CPU time used so far by all of its processes and threads, in nanoseconds."""
        return sum(cpu_ns(pid) for pid in self.pids())

    def resident(self) -> int:
        """Resident memory of all of its processes now, in octets."""
        return sum(_memory_field(pid, "smaps_rollup", "Rss") for pid in self.pids())

    def peak(self) -> int:
        """The largest resident memory so far, summed over its processes, in octets."""
        return sum(_memory_field(pid, "status", "VmHWM") for pid in self.pids())


def _present(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the process was started without pipes")
    return pipe


def process_tree(root: int) -> list[int]:
    """Give a process id and the ids of all descendants, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int(_stat_fields(entry)[1])
                children.setdefault(parent, []).append(int(entry.name))
    tree = [root]
    for pid in tree:
        tree.extend(children.get(pid, []))
    return tree


def cpu_ns(pid: int) -> int:
    """CPU time of a process and its threads, also those that have ended, by its clock (clock_getcpuclockid(3))."""
    return time.clock_gettime_ns(~pid << 3 | SCHEDULER_CLOCK)


def _stat_fields(folder: Path) -> list[str]:
    """The fields of a stat file from the third (the state) on; the second may contain spaces."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def _memory_field(pid: int, file: str, field: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"/proc/{pid}/{file} has no {field}")
