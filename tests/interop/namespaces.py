"""Machines with networks of their own: network namespaces, and cables (veth pairs) between them.

A namespace lives as long as the processes in it.  The first one waits for the end of its input, so it goes also when
the test run is killed.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from .lab import missing, need_root, program


class Machine:
    """A network namespace, at first with a loopback interface only."""

    def __init__(self) -> None:
        """Skips where no namespace can be made."""
        need_root("make network namespaces")
        script = "ip link set lo up && echo ready && exec cat"
        arguments = [str(program("unshare")), "--net", "sh", "-c", script]
        self._popen = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._enter = [str(program("nsenter")), f"--target={self._popen.pid}", "--net", "--"]
        assert self._popen.stdout is not None
        if self._popen.stdout.readline() != b"ready\n":
            _, error = self._popen.communicate()
            missing(f"no network namespace can be made here: {error.decode().strip()}")

    def command(self, *arguments: str) -> list[str]:
        """The command that runs `arguments` on this machine."""
        return [*self._enter, *arguments]

    def sh(self, script: str) -> None:
        """Run shell commands on this machine; AssertionError at the first that fails."""
        done = subprocess.run(self.command("sh", "-e", "-c", script), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}\n{done.stderr}"

    def connect(self, interface: str, other: Machine, other_interface: str) -> None:
        """Lay a cable to another machine."""
        self.sh(
            f"ip link add {interface} type veth peer name {other_interface} netns {other._popen.pid}\n"
            f"ip link set {interface} up"
        )
        other.sh(f"ip link set {other_interface} up")

    def address(self, interface: str, *addresses: str) -> None:
        """Give an interface addresses with prefix lengths; they can be used at once."""
        for address in addresses:
            # An IPv6 address waits for a moment otherwise, in case that somebody else has it.
            self.sh(f"ip addr add {address} dev {interface} {'nodad' if ':' in address else ''}")

    def stop(self) -> None:
        """Let it go; what still runs on it keeps it alive."""
        self._popen.communicate()


@contextlib.contextmanager
def machines(number: int) -> Iterator[list[Machine]]:
    """So many machines, gone at the end."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(number):
            made.append(Machine())
            stack.callback(made[-1].stop)
        yield made
