"""Fixtures for sessions, without sockets and with them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .stage import Stage, backend, listener
from .street import Street


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    """Make a stage from changes to the settings: ``stage(listener={...}, backend={...})``, and ``tls`` as Stage has it.

    H10: at the end no session may have met an exception of ours.
    """
    made: list[Stage] = []

    def make(**changes: Any) -> Stage:
        settings = {
            "listener_settings": listener(**changes.pop("listener", {})),
            "backend_settings": backend(**changes.pop("backend", {})),
        }
        made.append(Stage(**settings, **changes))
        return made[-1]

    yield make
    assert [trouble for each in made for trouble in each.journal.internal] == []


@pytest.fixture
def street() -> Iterator[Callable[..., Street]]:
    """The same on real sockets: ``street(listener={...}, backend={...}, tls=…, backend_tls=…)``."""
    made: list[Street] = []
    with contextlib.ExitStack() as stack:

        def make(**changes: Any) -> Street:
            made.append(Street(stack, **changes))
            return made[-1]

        yield make
    assert [trouble for each in made for trouble in each.journal.internal] == []
    assert [each.context.sessions for each in made] == [0] * len(made)
