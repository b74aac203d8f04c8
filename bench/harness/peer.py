"""What every proxy that is measured has in common: how it is started in front of a sink, and what it can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from harness import tools
from harness.errors import UnavailableError
from harness.lab import Lab, free_port, wait_for_greeting
from harness.process import Process

ALL_MODES = ("lockstep", "pipelined", "early", "bdat")
POLITE_MODES = ("lockstep", "pipelined")
CONNECTIONS = 20_000
PLAIN = ("none",)
WITH_TLS = ("starttls", "implicit")


@dataclass(frozen=True)
class RunningPeer:
    """A proxy that is up, and the ports it listens on: by what load.c calls --tls there."""

    peer: Peer
    process: Process
    ports: dict[str, int]

    @property
    def tls(self) -> str:
        """What is spoken on the port that is used where one is enough."""
        return self.peer.wires[-1]

    @property
    def port(self) -> int:
        """The port that is used where one is enough."""
        return self.ports[self.tls]


class Peer(ABC):
    """A proxy that can be started in front of a sink."""

    key: str
    label: str
    program: str
    """What must be installed, with what it needs beside it."""
    wires: tuple[str, ...] = PLAIN
    """For each of its listeners, what load.c calls --tls: either PLAIN or WITH_TLS."""
    modes: tuple[str, ...] = ALL_MODES
    """How a client may talk to it."""
    effort: float = 1.0
    """Which part of the usual number of messages one measurement takes."""
    crowd: int = 1
    """How many times the usual number of sessions run in parallel."""
    adapts: bool = False
    """Whether it serves an early client with a lock-step backend."""
    only_cpu: bool = False
    """Whether it differs from another peer in nothing but CPU per session."""

    @abstractmethod
    def command(self, lab: Lab, folder: Path, ports: dict[str, int], backend: int) -> list[str]:
        """Write the configuration into the folder and give the command that runs it in the foreground."""

    @property
    def with_tls(self) -> bool:
        """Whether its clients speak TLS."""
        return self.wires == WITH_TLS

    @property
    def title(self) -> str:
        """The label, where peers with TLS and without stand together."""
        return f"{self.label}, TLS" if self.with_tls else self.label

    def check(self) -> None:
        """Raise UnavailableError if it is not installed here."""
        if tools.find(self.program) is None:
            raise UnavailableError(f"{self.program} is not installed")
        if self.with_tls:
            tools.check_tls()

    def start(self, lab: Lab, backend: int) -> RunningPeer:
        """Start it on the core of the proxy under test and wait until it serves."""
        self.check()
        ports = {wire: free_port() for wire in self.wires}
        command = self.command(lab, lab.new_folder(f"{self.key}-files"), ports, backend)
        process = lab.start(self.key, command, core=lab.cores.proxy)
        wait_for_greeting(process, ports[self.wires[0]])
        return RunningPeer(self, process, ports)


def write(path: Path, text: str) -> str:
    """Write a configuration file and give its path."""
    path.write_text(text)
    return str(path)
