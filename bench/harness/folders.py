"""The folder that a benchmark works in."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def working_folder(kept: Path | None) -> Iterator[Path]:
    """A new folder that is left behind where the user asked for it, else a temporary one."""
    if kept is not None:
        kept.mkdir(parents=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="smtpproxy-bench-") as name:
        yield Path(name)
