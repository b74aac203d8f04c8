"""What a probe finds: plain data, all times in seconds.

Texts that came from a server or from DNS are kept as they came, octets as Latin-1: ``document.escaped`` makes them
fit for a terminal (rule H8).
"""

from __future__ import annotations

from dataclasses import dataclass

from smtpproxy.smtp.offer import EARLY_KEYWORDS, Offer

__all__ = [
    "Answer",
    "Certificate",
    "Dane",
    "Found",
    "Hello",
    "Host",
    "Phase",
    "Saving",
    "Server",
    "Sts",
    "Tls",
    "Trial",
]


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of a session, and how long it took; the steps follow one another."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Hello:
    """What a server says to EHLO, in clear or inside TLS."""

    lines: tuple[str, ...]
    """The keyword lines, verbatim."""
    keywords: tuple[str, ...]
    """The keywords of early pipelining among them."""
    usable: bool
    """Whether early pipelining may be used: a keyword, and PIPELINING beside it (rule C1)."""
    pipelining: bool
    chunking: bool
    starttls: bool
    helo_only: bool = False
    """Whether EHLO was refused and HELO was not."""

    @classmethod
    def of(cls, offer: Offer, *, helo_only: bool = False) -> Hello:
        """Read an offer."""
        return cls(
            tuple(line.decode("latin-1") for line in offer.lines),
            tuple(keyword.decode("ascii") for keyword in EARLY_KEYWORDS if keyword in offer.keywords),
            bool(offer.early),
            offer.pipelining,
            offer.chunking,
            offer.starttls,
            helo_only,
        )


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate; the texts are as in RFC 4514, the times in ISO 8601."""

    subject: str
    names: tuple[str, ...]
    """The names and addresses that it is for (subjectAltName)."""
    issuer: str
    not_before: str
    not_after: str
    days_left: int
    """Whole days, negative if it has ended."""
    sha256: str


@dataclass(frozen=True, slots=True)
class Tls:
    """What a handshake has come to."""

    version: str
    cipher: str
    servername: str
    """The name that we asked for (SNI)."""
    certificate: Certificate | None
    chain_error: str
    """Why the chain does not lead to an authority that is believed; empty if it does."""
    name_error: str
    """Why the certificate is not for the host; empty if it is."""


@dataclass(frozen=True, slots=True)
class Dane:
    """What DANE (RFC 7672) says of a server."""

    status: str
    """``not asked``, ``insecure`` (DNSSEC does not vouch for the host), ``none``, ``found``, or ``failed``."""
    base: str = ""
    """The name that the TLSA records belong to."""
    records: tuple[str, ...] = ()
    """Those that can be used, in the form of a zone file."""
    why: str = ""
    """What failed, or why the certificate does not match; with records and no reason, it does."""
    matches: bool | None = None
    """Whether the certificate matches the records; None where there was nothing to compare."""


@dataclass(frozen=True, slots=True)
class Sts:
    """What MTA-STS (RFC 8461) says of a domain."""

    status: str
    """``not asked``, ``none``, ``found``, or ``failed``."""
    mode: str = ""
    """``enforce``, ``testing`` or ``none``, if there is a policy."""
    mx: tuple[str, ...] = ()
    max_age: int = 0
    why: str = ""
    """What failed."""


@dataclass(frozen=True, slots=True)
class Saving:
    """How long a message would take in one way, QUIT left out."""

    way: str
    clear: int | None
    """Round trips; None where there is no such session."""
    starttls: int | None
    clear_missing: str = ""
    """Why that way is not open here; empty if it is."""
    starttls_missing: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A command that was sent, or the greeting, and the reply to it."""

    command: str
    code: int
    """0: none came."""
    text: str


@dataclass(frozen=True, slots=True)
class Trial:
    """An early flight that was really sent, and the same commands sent politely."""

    early_clear: bool
    """Whether commands were sent before the greeting."""
    early_inside: bool
    """Whether commands were sent before EHLO was answered inside TLS."""
    answers: tuple[Answer, ...]
    seconds: float | None
    """From the beginning of the connection to the reply to RSET; None: it did not get that far."""
    polite: tuple[Answer, ...]
    polite_seconds: float | None
    problems: tuple[str, ...]
    """What was not as it must be."""
    skipped: str = ""
    """Why no early flight was sent."""


@dataclass(frozen=True, slots=True)
class Server:
    """One address of a host."""

    address: str
    port: int
    trouble: str = ""
    """Why the visit ended before its end; empty if it did not."""
    unreachable: bool = False
    """Whether it cannot be reached from this machine at all, such as an IPv6 address where there is no IPv6."""
    phases: tuple[Phase, ...] = ()
    greeting: str = ""
    clear: Hello | None = None
    tls: Tls | None = None
    inside: Hello | None = None
    dane: Dane | None = None
    """With the verdict on this server's certificate."""
    round_trip: float | None = None
    savings: tuple[Saving, ...] = ()
    trial: Trial | None = None

    @property
    def usable(self) -> bool:
        """Whether early pipelining is offered so that it can be used, in clear or inside TLS."""
        return any(hello is not None and hello.usable for hello in (self.clear, self.inside))


@dataclass(frozen=True, slots=True)
class Host:
    """A mail host, with the addresses that were visited."""

    name: str
    preference: int | None
    """Of its MX record; None if it has none."""
    secure: bool
    """Whether DNSSEC vouches for its MX record and its addresses."""
    sts_allows: bool | None
    """Whether the MTA-STS policy names it; None: there is no policy."""
    servers: tuple[Server, ...] = ()
    trouble: str = ""
    """Why it has no addresses."""
    left_out: int = 0
    """Addresses that were not visited, as there are too many."""


@dataclass(frozen=True, slots=True)
class Found:
    """All that a probe has found."""

    asked: str
    """What was to be probed."""
    kind: str
    """``domain`` or ``host``."""
    ehlo: str
    """Our own name."""
    dns_seconds: float
    sts: Sts
    hosts: tuple[Host, ...] = ()
    trouble: str = ""
    """Why there is no host; empty if there is one."""
