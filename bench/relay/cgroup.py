"""The CPU time of everything that a command starts: a control group of its own (cgroups v2)."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import BenchError, UnavailableError

EMPTY_SECONDS = 5.0


class Group:
    """A control group; what is started in it stays in it, with all children."""

    def __init__(self, folder: Path) -> None:
        """Make the group in this folder of the control file system."""
        self._folder = folder
        folder.mkdir()

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command that runs another one in the group."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self._folder / "cgroup.procs"), *command]

    def cpu_ns(self) -> int:
        """CPU time used so far by all that was ever in it, in nanoseconds."""
        for line in (self._folder / "cpu.stat").read_text().splitlines():
            if line.startswith("usage_usec "):
                return int(line.split()[1]) * 1000
        raise BenchError(f"{self._folder}/cpu.stat has no usage_usec")

    def end(self) -> None:
        """Kill whatever is still in it, and remove it. Raises BenchError if that takes too long."""
        deadline = time.monotonic() + EMPTY_SECONDS
        while not self._removed():
            if time.monotonic() > deadline:
                raise BenchError(f"processes of {self._folder} cannot be ended")
            time.sleep(0.01)

    def _removed(self) -> bool:
        for pid in (self._folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            self._folder.rmdir()
        except OSError as problem:
            # Threads may outlive the process that is named there.
            if problem.errno != errno.EBUSY:
                raise
            return False
        return True


@contextlib.contextmanager
def group(name: str) -> Iterator[Group]:
    """A new group, gone at the end with all that is in it."""
    made = Group(mount_point() / f"smtpproxy-bench-{os.getpid()}-{name}")
    try:
        yield made
    finally:
        made.end()


def mount_point() -> Path:
    """Where cgroups of version 2 are mounted. Raises UnavailableError if they are not, or cannot be made."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    for _, place, kind, *_ in mounts:
        if kind == "cgroup2" and os.access(place, os.W_OK):
            return Path(place)
    raise UnavailableError("no control groups (cgroup2) can be made here")
