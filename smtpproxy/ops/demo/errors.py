"""What the demo says when it cannot go on."""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on; `str()` is one or more lines to be shown to the user as they are."""
