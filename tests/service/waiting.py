"""Waiting for what another process or thread will do: always by looking, never by guessing how long it takes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 20.0
"""Seconds after which a test gives up."""

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], what: str) -> Found:
    """Look until there is something; give it. AssertionError naming ``what`` after a while."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"never came about: {what}"
        time.sleep(0.005)
    return found


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
