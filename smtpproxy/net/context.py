"""What all sessions of one inbound listener share: policies made from its configuration, what was learned."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING

from .clientcontext import CLIENTS_REMEMBERED, ClientContext, Journal
from .inbound import InboundSession
from .policies import CONNECTION_BOUND, relay_policy, waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.config import Listener
    from smtpproxy.session.policy import Learned, RelayPolicy

    from .names import Names
    from .pool import Pool
    from .sweep import Sweep
    from .tlsserver import ServerTls
    from .vouched import Vouched

__all__ = ["Context", "Journal"]

_KEYWORDS_TOLD = 256


class Context(ClientContext):
    """One listener as its sessions see it."""

    settings: Listener

    def __init__(
        self,
        settings: Listener,
        pool: Pool,
        sweep: Sweep,
        journal: Journal,
        clock: Callable[[], float],
        *,
        tls: ServerTls | None = None,
        names: Names | None = None,
    ) -> None:
        """As ClientContext; ``names`` finds clients' names, where backends are to be told."""
        super().__init__(settings, sweep, journal, clock, tls=tls)
        self.pool = pool
        self.names = names
        self._learned: OrderedDict[tuple[RelayPolicy, str], Learned] = OrderedDict()
        self._learned_by_client = pool.settings.identity in CONNECTION_BOUND
        self._policies = {
            (secure, trusted, named): relay_policy(
                settings, pool.settings, secure=secure, trusted=trusted, with_address=named
            )
            for secure, trusted, named in itertools.product((False, True), repeat=3)
        }
        self.waits = waits(settings, pool.settings)
        self._told: set[bytes] = set()

    def session(self, address: str, counted: str, vouched: Vouched | None = None) -> InboundSession:
        """Give the session of a new client; the arguments are ClientSession's."""
        return InboundSession(self, address, counted, vouched)

    def may_connect(self, _address: str) -> str:
        """Let everybody in: what a client may do is the backend's to say."""
        return ""

    def policy(self, address: str, *, secure: bool = False, trusted: bool = False) -> RelayPolicy:
        """Give how a session behaves: inside TLS or not, with somebody whose XCLIENT is believed or not."""
        return self._policies[secure, trusted, bool(address)]

    def trusts(self, address: str) -> bool:
        """Say whether XCLIENT is believed of whoever connects from there (rule H6)."""
        trusted = self.settings.trusted.xclient
        return bool(trusted) and address in trusted

    def learned(self, policy: RelayPolicy, address: str) -> Learned | None:
        """Give what is known of the backend's EHLO reply to such a session (rule S18)."""
        return self._learned.get((policy, address if self._learned_by_client else ""))

    def learn(self, policy: RelayPolicy, address: str, learned: Learned, *, told: bool) -> None:
        """Keep what a backend said of itself, for sessions that begin without it (rule S18).

        ``told``: it knew who the client was, so another client may be told something else.
        """
        new = [keyword for keyword in learned.extensions.dropped if keyword not in self._told]
        if new and len(self._told) < _KEYWORDS_TOLD:
            self._told.update(new)
            self.journal.extensions_dropped(self.settings.name, new)
        if told and not self._learned_by_client:
            self._learned_by_client = True
            self._learned.clear()
        self._learned[policy, address if self._learned_by_client else ""] = learned
        if len(self._learned) > CLIENTS_REMEMBERED:
            self._learned.popitem(last=False)
