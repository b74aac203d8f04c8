"""What the configuration says to an outbound session: immutable, shared by all sessions of a listener or route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from smtpproxy.session.policy import DialoguePolicy

if TYPE_CHECKING:
    from smtpproxy.smtp.offer import Offer


class Speculation(NamedTuple):
    """When a message may be taken before its recipients are known to be accepted (rules C8, C13)."""

    size: int
    """Octets of the largest message that rides in a first flight."""
    confirmed: int
    """Times that a remote must have been seen to offer the same before it gets one."""
    patience: float
    """Seconds for which a flight waits for the rest of a chunk that its client is sending."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SubmissionPolicy(DialoguePolicy):
    """How the sessions of an outbound listener behave."""

    lmtp: bool = False
    """Whether LMTP is spoken with the clients (RFC 2033)."""
    split: bool = True
    """Whether a transaction has one destination (an SMTP listener whose clients name the recipients' domains)."""
    destinations: int = 100
    """Destinations of one transaction, where it may have several (LMTP)."""
    early_keywords: tuple[bytes, ...] = ()
    dsn: bool = False
    """Whether every route promises DSN, so that it may be offered (RFC 3461)."""
    speculation: Speculation | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RemotePolicy:
    """How a route's remotes are spoken to."""

    hostname: bytes
    """What we call ourselves in EHLO (rule C1)."""
    early: bool = True
    """Whether early pipelining is used where it was seen (rule C2)."""
    lockstep: bool = False
    """Whether a remote gets one command at a time even where it offers PIPELINING."""
    flush_on_refusal: bool = True
    """Whether a refusal of a command or message that went in an early flight flushes the cache's entry (rule C4)."""
    refuse_downgrade: bool = False
    """Whether a remote that offered STARTTLS before, and does not now, is of no use."""


class Assumption(NamedTuple):
    """What a remote was seen to offer, in clear or inside TLS (rule C1)."""

    offer: Offer
    confirmed: int
    """Times that it was seen again."""
    early: bool
    """Whether it may be acted on before it is confirmed: False while it is held back (rule C6)."""
