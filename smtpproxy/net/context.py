"""What all sessions of one listener share: policies made from its configuration, counts, what was learned."""

from __future__ import annotations

import itertools
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from smtpproxy.session.policy import ClientPolicy, Limits, RelayPolicy
from smtpproxy.smtp.extensions import ExtensionPolicy
from smtpproxy.smtp.lineendings import BarePolicy
from smtpproxy.store.offers import Offers

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.config import Listener
    from smtpproxy.session.policy import Learned
    from smtpproxy.session.transaction import Transaction

    from .inbound import InboundSession
    from .pool import Pool
    from .sweep import Sweep

_CLIENTS_REMEMBERED = 4096
_KEYWORDS_TOLD = 256
_session_numbers = itertools.count(1)


class Journal(Protocol):
    """Who is told what happened, for logs and counters."""

    def transaction_ended(self, session: InboundSession, transaction: Transaction) -> None:
        """Note a mail transaction."""

    def session_ended(self, session: InboundSession) -> None:
        """Note a session."""

    def session_refused(self, listener: str, address: str | None, why: str) -> None:
        """Note a client that there was no room for; its address is None where it is not known."""

    def backend_failed(self, backend: str, server: str, why: str) -> None:
        """Note a server that could not serve."""

    def internal_error(self, session: InboundSession) -> None:
        """Note the exception being handled: a bug of ours."""

    def tracer(self, session: InboundSession) -> Callable[[str, bytes], None] | None:
        """Give what writes a transcript of this session, if one is wanted."""

    def extensions_dropped(self, listener: str, keywords: list[bytes]) -> None:
        """Note EHLO keywords that are not passed on (rule S7)."""


class Context:
    """One listener as its sessions see it."""

    def __init__(
        self, settings: Listener, pool: Pool, sweep: Sweep, journal: Journal, clock: Callable[[], float]
    ) -> None:
        """``clock`` is monotonic, in seconds."""
        self.settings = settings
        self.pool = pool
        self.sweep = sweep
        self.journal = journal
        self.clock = clock
        self.learned: Learned | None = None
        self.draining = False
        self.sessions = 0
        self.policy = _relay_policy(settings, pool)
        self.waits = _waits(settings, pool)
        prior_offer = settings.early_pipelining.prior_offer
        self.offers = None if prior_offer is None else Offers(prior_offer, clock)
        self._told: set[bytes] = set()
        self._per_client: dict[bytes | str, int] = {}
        self._network = lru_cache(_CLIENTS_REMEMBERED)(self._network_of)
        self._policy_for = lru_cache(_CLIENTS_REMEMBERED)(self._client_policy)

    def next_number(self) -> int:
        """Give a number that no other session of this process has."""
        return next(_session_numbers)

    def client_policy(self, address: str) -> ClientPolicy:
        """Give how a client is treated, by its address (rules S1, S2, S11)."""
        policy = self._policy_for(address)
        if self.offers is not None and policy.early and not self.offers.known(_host(address)):
            refusal = b"421 4.5.0 " + self.policy.hostname + b" No offer of early pipelining to you is known here\r\n"
            return ClientPolicy(policy.early, refusal, policy.bare, policy.pass_nul)
        return policy

    def offered(self, address: str) -> None:
        """Note that a client was sent the keyword of early pipelining (rule S2)."""
        if self.offers is not None:
            self.offers.remember(_host(address))

    def admit(self, address: str) -> str:
        """Count a new session in, or give why there is no room for it.

        The clients of a Unix socket have no address to be counted by.
        """
        limits = self.settings.limits
        if self.draining:
            return "shutting down"
        if self.sessions >= limits.sessions:
            return "too many sessions"
        if address:
            network = self._network(address)
            count = self._per_client.get(network, 0)
            if count >= limits.sessions_per_client:
                return "too many sessions from this client"
            self._per_client[network] = count + 1
        self.sessions += 1
        return ""

    def dismiss(self, address: str) -> None:
        """Count a session out."""
        self.sessions -= 1
        if not address:
            return
        network = self._network(address)
        count = self._per_client[network] - 1
        if count:
            self._per_client[network] = count
        else:
            del self._per_client[network]

    def learn(self, learned: Learned) -> None:
        """Keep what a backend said of itself, for sessions that begin without it (rule S18)."""
        new = [keyword for keyword in learned.extensions.dropped if keyword not in self._told]
        if new and len(self._told) < _KEYWORDS_TOLD:
            self._told.update(new)
            self.journal.extensions_dropped(self.settings.name, new)
        self.learned = learned

    def _network_of(self, address: str) -> bytes | str:
        """Give the client network that limits count by."""
        limits = self.settings.limits
        return _network(address, limits.client_prefix_ipv4, limits.client_prefix_ipv6)

    def _client_policy(self, address: str) -> ClientPolicy:
        settings = self.settings
        early = address in settings.early_pipelining.advertise_to
        bare = settings.bare_line_endings
        for exception in settings.bare_line_endings_exceptions:
            if address in exception.networks:
                bare = exception.policy
                break
        return ClientPolicy(early, b"" if early else self._unlicensed(), BarePolicy(bare), settings.nul == "pass")

    def _unlicensed(self) -> bytes:
        """Give the reply to talk before the greeting by those to whom it is not offered (rule S2)."""
        choice = self.settings.early_pipelining.unlicensed
        if choice == "accept":
            return b""
        code = b"421 4.5.0 " if choice == "tempfail" else b"554 5.5.0 "
        return code + self.policy.hostname + b" You spoke before the greeting\r\n"


def _network(address: str, prefix4: int, prefix6: int) -> bytes | str:
    """Give the network that an address is in, by the lengths of prefixes; what is no address is its own."""
    for family, prefix in ((socket.AF_INET, prefix4), (socket.AF_INET6, prefix6)):
        try:
            packed = socket.inet_pton(family, address.partition("%")[0])
        except OSError:
            continue
        host_bits = len(packed) * 8 - prefix
        return (int.from_bytes(packed, "big") >> host_bits << host_bits).to_bytes(len(packed), "big")
    return address


def _host(address: str) -> bytes | str:
    """Give what counts as one client where offers are remembered: an IPv4 host, an IPv6 /64 (rule S2)."""
    return _network(address, 32, 64)


def _relay_policy(settings: Listener, pool: Pool) -> RelayPolicy:
    limits, backend = settings.limits, pool.settings
    extensions = ExtensionPolicy(
        settings.extensions,
        settings.early_pipelining.keywords,
        chunking=settings.chunking,
        message_size=limits.message_size,
        recipients=limits.recipients,
    )
    domains = settings.recipient_domains
    return RelayPolicy(
        hostname=settings.hostname.encode("idna") if not settings.hostname.isascii() else settings.hostname.encode(),
        limits=Limits(
            limits.line,
            limits.auth_line,
            limits.burst_commands,
            limits.burst_octets,
            limits.recipients,
            limits.message_size,
            limits.errors,
        ),
        extensions=extensions,
        chunking=settings.chunking,
        recipient_domains=None if domains is None else frozenset(domains),
        eager=backend.connect == "eager",
        reuse=backend.reuse is not None,
        lockstep=backend.pace == "lockstep",
    )


def _waits(settings: Listener, pool: Pool) -> tuple[float, ...]:
    """Give the seconds of each kind of wait, by its number (RFC 5321, 4.5.3.2)."""
    client, backend = settings.timeouts, pool.settings.timeouts
    return (
        0.0,
        backend.greeting,
        backend.ehlo,
        backend.mail,
        backend.rcpt,
        backend.data,
        client.data_block,
        backend.end_of_data,
        backend.other,
        client.command,
    )
