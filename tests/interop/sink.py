"""Postfix's test programs: smtp-sink, a fast server that dumps what it takes, and smtp-source, a load
generator.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from freeports import free_port

from .lab import Process, open_folder, program


@dataclass
class Sink:
    """A running smtp-sink."""

    port: int
    dump: Path
    process: Process

    def recipients(self) -> Counter[str]:
        """How often each recipient was in a transaction that came to its end of data."""
        text = self.dump.read_text(encoding="latin-1") if self.dump.exists() else ""
        return Counter(re.findall(r"^X-Rcpt-Args: <([^>]*)>", text, re.MULTILINE))


@contextlib.contextmanager
def smtp_sink(*options: str) -> Iterator[Sink]:
    """A started smtp-sink; stopped at the end.  `options` as its manual page says, for example -p to hide
    PIPELINING.
    """
    with open_folder("sink") as folder:
        folder.chmod(0o777)  # as root it wants to change to another user, who writes the dump
        port = free_port()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [str(program("smtp-sink")), *user, "-D", str(folder / "dump"), *options]
        command += [f"127.0.0.1:{port}", "1000"]
        process = Process(command, folder / "sink.log")
        try:
            process.wait_listening(port)
            yield Sink(port, folder / "dump", process)
        finally:
            process.stop()


def smtp_source(
    port: int, *, messages: int, sessions: int, to: str = "user@lab.test", options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Send `messages`, `sessions` at a time, to 1`to`, 2`to`, …"""
    size = ["-s", str(sessions), "-m", str(messages), "-l", "1024"]
    command = [str(program("smtp-source")), *size, "-N", "-f", "sender@lab.test", "-t", to, *options]
    return subprocess.run([*command, f"127.0.0.1:{port}"], capture_output=True, text=True, check=False, timeout=120)


def numbered(messages: int, to: str = "user@lab.test") -> Counter[str]:
    """What the recipients must be when each of so many messages of smtp_source has arrived exactly once."""
    return Counter(f"{number}{to}" for number in range(1, messages + 1))
