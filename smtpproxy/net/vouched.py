"""What somebody in front of us says of a client: a PROXY header, or XCLIENT, from networks that we trust (rule H6)."""

from __future__ import annotations

from typing import NamedTuple


class Vouched(NamedTuple):
    """A client as it was named to us."""

    via: str
    """The address of whoever said so."""
    port: int = 0
    """The client's port; 0 if unknown."""
    destination: tuple[str, int] | None = None
    """Where the client connected to."""
    name: bytes = b""
    """Its host name or one of XCLIENT's words for none; empty if nothing was said of it."""
    login: bytes = b""
