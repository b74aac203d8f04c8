"""What all sessions of one listener share, whoever answers its clients: settings, counts, offers."""

from __future__ import annotations

import itertools
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from smtpproxy.session.policy import ClientPolicy
from smtpproxy.smtp.lineendings import BarePolicy
from smtpproxy.store.offers import Offers

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.config import ListenerBase
    from smtpproxy.session.transaction import Transaction

    from .clientsession import ClientSession
    from .sweep import Sweep
    from .tlsserver import ServerTls
    from .vouched import Vouched

CLIENTS_REMEMBERED: Final = 4096
_session_numbers = itertools.count(1)


class Journal(Protocol):
    """Who is told what happened, for logs and counters."""

    def transaction_ended(self, session: ClientSession, transaction: Transaction) -> None:
        """Note a mail transaction."""

    def session_ended(self, session: ClientSession) -> None:
        """Note a session."""

    def session_refused(self, listener: str, address: str | None, why: str) -> None:
        """Note a client that there was no room for; its address is None where it is not known."""

    def backend_failed(self, backend: str, server: str, why: str) -> None:
        """Note a server that could not serve."""

    def internal_error(self, session: ClientSession) -> None:
        """Note the exception being handled: a bug of ours."""

    def tls_failed(self, session: ClientSession, why: str) -> None:
        """Note a handshake with a client that failed."""

    def tls_secured(self, session: ClientSession) -> None:
        """Note a handshake with a client that is done."""

    def tracer(self, session: ClientSession) -> Callable[[str, bytes], None] | None:
        """Give what writes a transcript of this session, if one is wanted."""

    def extensions_dropped(self, listener: str, keywords: list[bytes]) -> None:
        """Note EHLO keywords that are not passed on (rule S7)."""


class ClientContext:
    """One listener as its clients meet it."""

    settings: ListenerBase
    journal: Journal
    waits: tuple[float, ...]
    """Seconds of each kind of wait, by its number."""

    def __init__(
        self,
        settings: ListenerBase,
        sweep: Sweep,
        journal: Journal,
        clock: Callable[[], float],
        *,
        tls: ServerTls | None = None,
    ) -> None:
        """``clock`` is monotonic, in seconds; ``tls`` is needed where the listener speaks TLS."""
        self.settings = settings
        self.sweep = sweep
        self.journal = journal
        self.clock = clock
        self.tls = tls
        self.hostname = settings.hostname.encode()
        """The name that we go by in replies of our own."""
        self.draining = False
        self.sessions = 0
        prior_offer = settings.early_pipelining.prior_offer
        self.offers = None if prior_offer is None else Offers(prior_offer, clock)
        self._per_client: dict[bytes | str, int] = {}
        self._network = lru_cache(CLIENTS_REMEMBERED)(self._network_of)
        self._policy_for = lru_cache(CLIENTS_REMEMBERED)(self._client_policy)

    def session(self, address: str, counted: str, vouched: Vouched | None = None) -> ClientSession:
        """Give the session of a new client; the arguments are ClientSession's."""
        raise NotImplementedError  # each kind of listener has its own

    def may_connect(self, address: str) -> str:
        """Give "" for a client that may be served here at all, else why not."""
        raise NotImplementedError  # the same

    def trusts(self, address: str) -> bool:
        """Say whether whoever connects from there speaks for many clients (rule H6)."""
        raise NotImplementedError  # the same

    def next_number(self) -> int:
        """Give a number that no other session of this process has."""
        return next(_session_numbers)

    def client_policy(self, address: str, *, secure: bool = False) -> ClientPolicy:
        """Give how a client is treated, by its address (rules S1, S2, S11)."""
        policy = self._policy_for(address, secure)
        if self.offers is not None and policy.early and not self.offers.known(_host(address)):
            refusal = b"421 4.5.0 " + self.hostname + b" No offer of early pipelining to you is known here\r\n"
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
        if self.draining:
            return "shutting down"
        if self.sessions >= self.settings.limits.sessions:
            return "too many sessions"
        if address and not self._count_in(address):
            return "too many sessions from this client"
        self.sessions += 1
        return ""

    def readmit(self, before: str, address: str) -> str:
        """Count a session under another address from now on, or give why there is no room for it there."""
        if before and address and self._network(before) == self._network(address):
            return ""
        if address and not self._count_in(address):
            return "too many sessions from this client"
        self._count_out(before)
        return ""

    def dismiss(self, address: str) -> None:
        """Count a session out."""
        self.sessions -= 1
        self._count_out(address)

    def _count_in(self, address: str) -> bool:
        network = self._network(address)
        count = self._per_client.get(network, 0)
        if count >= self.settings.limits.sessions_per_client:
            return False
        self._per_client[network] = count + 1
        return True

    def _count_out(self, address: str) -> None:
        if not address:
            return
        network = self._network(address)
        count = self._per_client[network] - 1
        if count:
            self._per_client[network] = count
        else:
            del self._per_client[network]

    def _network_of(self, address: str) -> bytes | str:
        """Give the client network that limits count by."""
        limits = self.settings.limits
        return _network(address, limits.client_prefix_ipv4, limits.client_prefix_ipv6)

    def _client_policy(self, address: str, secure: bool) -> ClientPolicy:  # lru_cache wants it so
        settings = self.settings
        offer = settings.early_pipelining
        networks = offer.advertise_to
        if secure and offer.advertise_to_tls is not None:
            networks = offer.advertise_to_tls
        early = address in networks
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
        return code + self.hostname + b" You spoke before the greeting\r\n"


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
