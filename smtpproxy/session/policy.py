"""What the configuration says to a session: immutable, shared by all sessions of a listener or of a client network."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
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


class BackendTls(Enum):
    """Whether STARTTLS is used with the backend; TLS from the first octet on is the connection's own business."""

    NONE = "never"
    IF_OFFERED = "where the server offers it"
    REQUIRED = "or the server is of no use"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DialoguePolicy:
    """How a listener's sessions treat a client, in clear or inside TLS; there is one object for each way."""

    hostname: bytes
    limits: Limits
    chunking: bool
    """Whether BDAT is offered (rule S9)."""
    secure: bool = False
    """Whether this is for inside TLS."""
    starttls: bool = False
    """Whether STARTTLS is taken."""
    starttls_required: bool = False
    """Whether next to nothing else is taken (RFC 3207, 4)."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RelayPolicy(DialoguePolicy):
    """How the sessions of an inbound listener behave."""

    extensions: ExtensionPolicy
    recipient_domains: frozenset[str] | None
    """Domains whose recipients are passed on, whatever the backend knows; None: any (rule S14)."""
    eager: bool
    """Whether the backend session is opened on accept, not at the first command that needs it."""
    reuse: bool
    """Whether a backend session outlives its client."""
    lockstep: bool
    """Whether the backend gets one command at a time even where it offers PIPELINING."""
    auth: bool = True
    """Whether AUTH is taken."""
    auth_inside: bool = False
    """Whether it would be taken inside TLS."""
    trusts_xclient: bool = False
    """Whether the client may say with XCLIENT for whom it speaks (rule H6)."""
    backend_tls: BackendTls = BackendTls.NONE
    introduces: bool = False
    """Whether the backend is told who the client is by XCLIENT, where it takes that."""
    introduction_required: bool = False
    """Whether a client is refused where the backend does not take it."""
    fallback_domains: frozenset[str] | None = None
    """Domains whose recipients are passed on where the backend was not told; None: any (rule S14)."""
    forwards: bool = False
    """Whether the backend is told by XFORWARD, for its log."""

    @property
    def stranger(self) -> bool:
        """Whether a backend session has to be prepared before it gets the client's commands."""
        return self.introduces or self.backend_tls is not BackendTls.NONE


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
