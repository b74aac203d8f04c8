"""Fixtures for sessions without sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .stage import Stage, backend, listener


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    """Make a stage from changes to the settings: ``stage(listener={...}, backend={...})``.

    H10: at the end no session may have met an exception of ours.
    """
    made: list[Stage] = []

    def make(**changes: dict[str, Any]) -> Stage:
        made.append(
            Stage(
                listener_settings=listener(**changes.get("listener", {})),
                backend_settings=backend(**changes.get("backend", {})),
            )
        )
        return made[-1]

    yield make
    assert [trouble for each in made for trouble in each.journal.internal] == []
