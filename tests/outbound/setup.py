"""What the tests configure: a listener's policies, what is known of the remotes, and where messages go."""

from __future__ import annotations

from dataclasses import dataclass

from smtpproxy.session.outbound.policy import RemotePolicy, Speculation, SubmissionPolicy
from smtpproxy.session.outbound.target import Credentials, Target, TlsWish, Unroutable
from smtpproxy.session.policy import ClientPolicy, Limits
from smtpproxy.smtp.lineendings import BarePolicy
from smtpproxy.store.record import Record

HOSTNAME = b"proxy.example"
NOWHERE = "nowhere.example"
"""A domain without a route."""
USUAL = ("PIPELINING", "CHUNKING", "SIZE 1000000", "8BITMIME", "PIPECONNECT")


@dataclass(frozen=True)
class Setup:
    """A listener, one route for everything, and its remotes."""

    lmtp: bool = False
    split: bool = True
    speculate: bool = True
    most: int = 256 * 1024
    """Octets of a message that may ride."""
    needs: int = 2
    """Times that a remote must have been confirmed before a message rides."""
    chunking: bool = True
    dsn: bool = False
    size: int | None = None
    recipients: int = 1000
    errors: int = 20
    burst_commands: int = 1000
    burst_octets: int = 256 * 1024
    early: bool = True
    refusal: bytes = b""
    bare: BarePolicy = BarePolicy.NORMALIZE
    pass_nul: bool = False
    client_tls: str = "none"
    """Whether STARTTLS is there for the clients: none, starttls, starttls-required."""
    stamp: bytes = b""
    """The trace header."""

    tls: TlsWish = TlsWish.NONE
    targets: int = 2
    """Addresses of a destination."""
    unroutable: bytes = b""
    """The reply where there is nowhere to go."""
    found: str = "at once"
    """When the targets are known: at once, later."""
    connected: str = "at once"
    """When a session with a remote is there: at once, later."""
    credentials: Credentials | None = None
    pipeline: bool = True
    """Whether early pipelining is used with remotes."""
    lockstep: bool = False
    flush: str = "any-error"
    downgrade: str = "log"
    clear: tuple[str, ...] | None = None
    """The keyword lines of a remote in clear, as they are known; None: they are not."""
    inside: tuple[str, ...] | None = None
    """The same inside TLS."""
    confirmed: int = 3
    held_back: bool = False
    keeps: bool = True
    """Whether kept sessions are lent again."""

    def policy(self, *, secure: bool = False) -> SubmissionPolicy:
        """Give how a client's sessions behave."""
        return SubmissionPolicy(
            hostname=HOSTNAME,
            limits=Limits(4096, 12288, self.burst_commands, self.burst_octets, self.recipients, self.size, self.errors),
            chunking=self.chunking,
            secure=secure,
            starttls=self.client_tls != "none" and not secure,
            starttls_required=self.client_tls == "starttls-required" and not secure,
            lmtp=self.lmtp,
            split=self.split and not self.lmtp,
            early_keywords=(b"PIPECONNECT",),
            dsn=self.dsn,
            speculation=Speculation(self.most, self.needs, 0.05) if self.speculate else None,
        )

    def client(self) -> ClientPolicy:
        """Give how a client is treated."""
        return ClientPolicy(self.early, self.refusal, self.bare, self.pass_nul)

    def remote_policy(self) -> RemotePolicy:
        """Give how remotes are spoken to."""
        return RemotePolicy(
            hostname=HOSTNAME,
            early=self.pipeline,
            lockstep=self.lockstep,
            flush_on_refusal=self.flush == "any-error",
            refuse_downgrade=self.downgrade == "refuse",
        )

    def found_targets(self, domain: str) -> list[Target] | Unroutable:
        """Give where messages to a domain can go: addresses that no other domain has."""
        if self.unroutable:
            return Unroutable(self.unroutable, "no such domain")
        net = sum(domain.encode()) % 200
        return [
            Target(f"mx{number}.{domain}", f"192.0.{net}.{number}", 25, tls=self.tls, credentials=self.credentials)
            for number in range(1, self.targets + 1)
        ]

    def known(self, *, secure: bool) -> Record | None:
        """Give what the cache knows of every remote at first."""
        lines = self.inside if secure else self.clear
        if lines is None:
            return None
        known = tuple(line.encode() for line in lines)
        return Record(known, confirmed=self.confirmed, touched=1_000_000.0, usable=not self.held_back)
