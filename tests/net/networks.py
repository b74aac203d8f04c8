"""Networks of their own for tests of what the kernel does: network namespaces, each with a thread that lives in it.

A socket belongs to the network that it was made in, whoever uses it later; so only making sockets, reading the
system's settings and running commands have to happen inside.  The kernel removes a network when its thread, its sockets
and its processes are gone, after a failure too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

Result = TypeVar("Result")

CLONE_NEWNET = 0x40000000  # <linux/sched.h>


class Network:
    """A network, at first with a loopback interface only."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        """Take the thread that is to live in it. Skips where no network can be made."""
        self._thread = thread
        self.descriptor = self.run(_enter)
        self.sh("ip link set lo up")

    def run(self, function: Callable[[], Result]) -> Result:
        """Call a function inside and give what it gives."""
        return self._thread.submit(function).result()

    def sh(self, script: str) -> None:
        """Run shell commands inside; AssertionError at the first that fails."""
        done = self.run(lambda: subprocess.run(["sh", "-e", "-c", script], capture_output=True, text=True, check=False))
        assert done.returncode == 0, f"{script}\n{done.stderr}"

    def nft(self, rules: str) -> None:
        """Load rules of the firewall; skips where nft is not installed, or the kernel has no tables."""
        need("nft")
        probe = self.run(
            lambda: subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False)
        )
        if probe.returncode != 0:
            pytest.skip(f"nft does not work here: {probe.stderr.strip()}")
        load = ["nft", "-f", "-"]
        done = self.run(lambda: subprocess.run(load, input=rules, capture_output=True, text=True, check=False))
        assert done.returncode == 0, f"{rules}\n{done.stderr}"

    def cable(self, interface: str, other: Network, other_interface: str) -> None:
        """Lay a cable to another network, or to this one again."""
        end = f"/proc/{os.getpid()}/fd/{other.descriptor}"
        self.sh(f"ip link add {interface} type veth peer name {other_interface} netns {end}")
        self.sh(f"ip link set {interface} up")
        other.sh(f"ip link set {other_interface} up")

    def address(self, interface: str, *addresses: str) -> None:
        """Give an interface addresses with prefix lengths; they can be used at once."""
        for address in addresses:
            # An IPv6 address waits for a moment otherwise, in case that somebody else has it.
            self.sh(f"ip addr add {address} dev {interface} {'nodad' if ':' in address else ''}")

    def counter(self, name: str) -> int:
        """Give one of the kernel's counters (TcpExt of /proc/net/netstat)."""
        text = self.run(lambda: Path("/proc/thread-self/net/netstat").read_text(encoding="ascii"))
        names, values = (line.split() for line in text.splitlines() if line.startswith("TcpExt:"))
        return int(dict(zip(names, values, strict=True))[name])


def need(command: str) -> None:
    """Skip where a command is not installed."""
    if shutil.which(command) is None:
        pytest.skip(f"the command {command} is not installed")


@contextlib.contextmanager
def networks(number: int) -> Iterator[list[Network]]:
    """So many networks, gone at the end. Skips where none can be made."""
    need("ip")
    with contextlib.ExitStack() as stack:
        made: list[Network] = []
        for _ in range(number):
            made.append(Network(stack.enter_context(ThreadPoolExecutor(1))))
            stack.callback(os.close, made[-1].descriptor)
        yield made


def _enter() -> int:
    """Give the calling thread a network of its own, and the caller a descriptor of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        pytest.skip(f"no network namespace can be made here: {os.strerror(ctypes.get_errno())}")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)
