"""Two machines at the ends of a long line: network namespaces, and line.c between them.

Each machine is a process namespace as well. Its first process waits for the end of its input, and takes every other one
along when it ends: so nothing is left behind, whatever happens to the benchmark, SIGKILL included.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.errors import BenchError, UnavailableError
from harness.process import Process

from wan.trace import Trace

TOOLS = ("ip", "nsenter", "setpriv", "sysctl", "unshare")
NEAR, FAR = "192.0.2.1", "192.0.2.2"
READY_SECONDS = 10.0
# No address of IPv6 looks for neighbours on the line; the window begins anew with each connection, and Fast Open is
# allowed on both sides, whatever happened before.
SETTINGS = (
    "net.ipv6.conf.all.disable_ipv6=1",
    "net.ipv6.conf.default.disable_ipv6=1",
    "net.ipv4.tcp_no_metrics_save=1",
    "net.ipv4.tcp_fastopen=3",
    "net.ipv4.tcp_fastopen_blackhole_timeout_sec=0",
)


def check() -> None:
    """Raise UnavailableError where no line can be laid."""
    if os.geteuid() != 0:
        raise UnavailableError("only root can make network namespaces")
    for name in TOOLS:
        if shutil.which(name) is None:
            raise UnavailableError(f"the command {name} is not installed")
    if not Path("/dev/net/tun").exists():
        raise UnavailableError("there is no /dev/net/tun here (modprobe tun)")


class Machine:
    """Namespaces of processes and of the network, at first with a loopback interface only."""

    def __init__(self, name: str, folder: Path) -> None:
        """Make it; output of its processes goes to files in `folder`. UnavailableError where the kernel refuses."""
        self.name = name
        self._folder = folder
        script = f"ip link set lo up && sysctl --quiet --write {' '.join(SETTINGS)} && echo ready && exec cat"
        command = ["unshare", "--net", "--pid", "--fork", "sh", "-c", script]
        self._first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if present(self._first.stdout).readline() != b"ready\n":
            _, error = self._first.communicate()
            raise UnavailableError(f"no network namespace can be made here: {error.decode().strip()}")
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children")
        self._pid = int(children.read_text())

    @property
    def namespace(self) -> str:
        """The file of its network namespace."""
        return f"/proc/{self._pid}/ns/net"

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command that runs another one on this machine."""
        return ["nsenter", f"--target={self._pid}", "--net", "--pid", "--", *command]

    def run(self, command: Sequence[str], *, data: bytes = b"", seconds: float = 20) -> None:
        """Run a command here to its end. Raises BenchError if it fails."""
        try:
            done = subprocess.run(self.inside(command), input=data, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{command[0]} on the {self.name} machine does not end") from error
        if done.returncode != 0:
            raise BenchError(f"{command[0]} on the {self.name} machine failed:\n{done.stderr.decode(errors='replace')}")

    def start(self, name: str, command: Sequence[str], port: int) -> Process:
        """Start a server here and wait until it listens. It ends with the machine."""
        process = Process(name, self.inside(command), self._folder / f"{name}.output")
        deadline = time.monotonic() + READY_SECONDS
        while not self._listens(port):
            if not process.running() or time.monotonic() > deadline:
                process.stop()
                raise BenchError(f"{name} does not listen on port {port}:\n{process.tail()}")
            time.sleep(0.02)
        return process

    def _listens(self, port: int) -> bool:
        """Whether somebody listens on the port, told by the kernel: a connection would be seen on the line."""
        rows = Path(f"/proc/{self._pid}/net/tcp").read_text().splitlines()[1:]
        return any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "0A" for row in rows)

    def stop(self) -> None:
        """End everything on it."""
        self._first.communicate()


def present(pipe: IO[bytes] | None) -> IO[bytes]:
    """A pipe that was asked for."""
    if pipe is None:
        raise ValueError("the process was started without pipes")
    return pipe


@dataclass(frozen=True)
class Line:
    """Two machines, and what passes between them."""

    folder: Path
    near: Machine
    far: Machine
    trace: Trace


@contextlib.contextmanager
def long_line(folder: Path, program: Path, milliseconds: int) -> Iterator[Line]:
    """Two new machines, connected, in a new folder; all of it is gone at the end."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        near, far = (Machine(name, folder) for name in ("near", "far"))
        stack.callback(far.stop)
        stack.callback(near.stop)
        log = folder / "packets"
        carrier = Process("line", [str(program), near.namespace, far.namespace, str(milliseconds)], log)
        stack.callback(carrier.stop)
        wait_for_text(carrier, "ready")
        for machine, own, other in ((near, NEAR, FAR), (far, FAR, NEAR)):
            machine.run(["ip", "address", "add", own, "peer", other, "dev", "line"])
            machine.run(["ip", "link", "set", "line", "up"])
        yield Line(folder, near, far, Trace(log))


def wait_for_text(process: Process, text: str) -> None:
    """Wait until a process has written something. Raises BenchError if it ends, or takes too long."""
    deadline = time.monotonic() + READY_SECONDS
    while text not in process.log.read_text():
        if not process.running() or time.monotonic() > deadline:
            raise BenchError(f"{process.name} is not ready:\n{process.tail()}")
        time.sleep(0.01)
