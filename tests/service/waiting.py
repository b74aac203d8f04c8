"""Waiting for what another process or thread will do: always by looking, never by guessing how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 20.0
"""Seconds after which a test gives up."""
STARTING = 120.0
"""The same for a program that has to start, which takes a busy machine longer than all that it does then."""

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], what: str, patience: float = PATIENCE) -> Found:
    """Look until there is something; give it. AssertionError naming ``what`` after a while."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < deadline, f"never came about: {what}"
        time.sleep(0.005)
    return found
