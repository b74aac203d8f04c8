"""What the configuration says to a session: immutable, shared by all sessions of a listener or of a client network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smtpproxy.smtp.extensions import ExtensionPolicy, Extensions
    from smtpproxy.smtp.lineendings import BarePolicy


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one session; octets and counts. ``message_size`` None means no limit of our own."""

    line: int
    auth_line: int
    burst_commands: int
    burst_octets: int
    recipients: int
    message_size: int | None
    errors: int


@dataclass(frozen=True, slots=True)
class RelayPolicy:
    """How a listener's sessions behave."""

    hostname: bytes
    limits: Limits
    extensions: ExtensionPolicy
    chunking: bool
    """Whether BDAT is offered (rule S9)."""
    recipient_domains: frozenset[str] | None
    """Domains whose recipients are passed on; None: any (rule S14)."""
    eager: bool
    """Whether the backend session is opened on accept, not at the first command that needs it."""
    reuse: bool
    """Whether a backend session outlives its client."""
    lockstep: bool
    """Whether the backend gets one command at a time even where it offers PIPELINING."""


@dataclass(frozen=True, slots=True)
class ClientPolicy:
    """How one client is treated, by its address."""

    early: bool
    """Whether early pipelining is advertised to it (rule S1)."""
    early_refusal: bytes
    """The reply to talk before the greeting, with CR LF; empty where it is welcome or tolerated (rule S2)."""
    bare: BarePolicy
    pass_nul: bool


@dataclass(frozen=True, slots=True)
class Learned:
    """What a backend said of itself when it was last asked, for sessions that begin without it (rule S18)."""

    host: bytes
    """Its name: the first word of its EHLO reply, nothing that it said about another client."""
    extensions: Extensions
