"""MTA-STS (RFC 8461): which policy a domain has, asked of DNS and HTTPS, and remembered.

Policies are kept in memory only: after a restart each is fetched anew at the first message to its domain.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

from smtpproxy.config.domains import is_hostname

from .stspolicy import StsError, StsPolicy, parse_policy, policy_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from .resolver import Answer, Resolver

__all__ = ["AGAIN_AFTER", "MtaSts"]

AGAIN_AFTER: Final = 300.0
"""Seconds after which a policy that could not be fetched is tried again (RFC 8461, 3.3, advises it)."""

_MOST_FETCHES: Final = 200
"""Policies that are fetched or waited for at the same time; beyond that a fetch has failed."""


_log: Final = Logger()


class _Known:
    """What is known of a domain."""

    __slots__ = ("again", "id", "policy", "until")

    def __init__(self, policy_id: str, policy: StsPolicy | None, until: float, again: float = 0.0) -> None:
        self.id = policy_id
        """The id that the policy was found under."""
        self.policy = policy
        self.until = until
        """When the policy ends."""
        self.again = again
        """Before then nothing is fetched, since the last try has failed."""


class MtaSts:
    """Finds the policies of domains."""

    def __init__(
        self,
        resolver: Resolver,
        fetch: Callable[[str], Deferred[bytes]],
        clock: Callable[[], float],
        failed: Callable[[str, str], None],
        *,
        entries: int = 10_000,
    ) -> None:
        """Begin with nothing known.

        ``fetch`` gets the policy file of a domain, and fails with StsError; ``clock``: seconds that only go forward.
        ``failed(domain, why)`` is told for the log; ``entries``: domains that are remembered.
        """
        self._resolver = resolver
        self._fetch = fetch
        self._clock = clock
        self._failed = failed
        self._entries = entries
        self._known: OrderedDict[str, _Known] = OrderedDict()  # those used last are last
        self._under_way: dict[str, list[Callable[[StsPolicy | None], None]]] = {}

    def find(self, domain: str, found: Callable[[StsPolicy | None], None]) -> None:
        """Look for the policy of a domain (A-labels); None if it has none, or none that can be had.

        ``found`` is called exactly once, perhaps before this method returns. A policy that is still good stays in
        force where DNS or the web server say nothing, or nothing that can be understood (RFC 8461, 3.3).
        """
        if not is_hostname(domain):  # it would become part of a URL
            found(None)
            return

        def answered(answer: Answer) -> None:
            texts = (record.strings for record in answer.records) if answer.status == "ok" else ()
            self._identified(domain, policy_id(texts), found)

        self._resolver.query(f"_mta-sts.{domain}", "TXT", answered)

    def _identified(self, domain: str, new: str, found: Callable[[StsPolicy | None], None]) -> None:
        known, now = self._known.get(domain), self._clock()
        policy = None if known is None or known.until <= now else known.policy
        if known is not None:
            self._known.move_to_end(domain)
        waiting = self._under_way.get(domain)
        if not new or (known is not None and ((policy is not None and known.id == new) or now < known.again)):
            found(policy)
        elif waiting is not None:
            waiting.append(found)
        elif len(self._under_way) >= _MOST_FETCHES:
            self._failed(domain, "too many policies are being fetched")
            found(policy)
        else:
            self._under_way[domain] = [found]
            fetching = self._fetch(domain)
            fetching.addCallback(parse_policy)
            fetching.addCallbacks(self._fetched, self._not_fetched, (domain, new), errbackArgs=(domain,))

    def _fetched(self, policy: StsPolicy, domain: str, new: str) -> None:
        self._remember(domain, _Known(new, policy, self._clock() + policy.max_age))
        self._tell(domain, policy)

    def _not_fetched(self, failure: Failure, domain: str) -> None:
        problem: Any = failure.value
        why = str(problem) if isinstance(problem, StsError) else f"{type(problem).__name__}: {problem}"
        self._failed(domain, why)
        now = self._clock()
        known = self._known.get(domain) or _Known("", None, 0.0)
        known.again = now + AGAIN_AFTER
        self._remember(domain, known)
        self._tell(domain, known.policy if now < known.until else None)

    def _remember(self, domain: str, known: _Known) -> None:
        self._known[domain] = known
        self._known.move_to_end(domain)
        if len(self._known) > self._entries:
            self._known.popitem(last=False)

    def _tell(self, domain: str, policy: StsPolicy | None) -> None:
        """Tell everybody who waits; none of them can keep it from the others (rule H10)."""
        for found in self._under_way.pop(domain):
            try:
                found(policy)
            except Exception:
                _log.failure("a policy of MTA-STS could not be passed on")
