"""Where mail to a domain goes: its route, and the addresses to try, in their order.

A search goes through these steps; each may end it with the reply to the recipient:

- the hosts: MX records (``mx``), the route's nexthops, or the address in the recipient's address itself;
- their addresses (``hosts``).  A host without usable ones does not hinder the others.  If no host has any: 451 4.4.3 if
  that may be different later, else 550 5.4.4 (550 5.1.2 where the domain itself was the host).  A next hop without
  address is the administrator's mistake, for which no mail should be returned: 451 4.3.5;
- loops: where one of the hosts is ourselves, it and all that are no better are left out (RFC 5321, 5.1).  That is a
  host with our own name, and one that DNS puts at an address of this machine where one of our listeners is, or at port
  25: there is the mail server whose mail this is.  If none is better: 554 5.4.6 (a next hop: 451 4.3.5);
- TLS (``tlspolicy``): what is wanted of each, which may also leave some out;
- the first ``most_addresses`` addresses.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from smtpproxy.config.domains import is_hostname
from smtpproxy.net.hosts import find_addresses
from smtpproxy.net.mx import find_mx
from smtpproxy.net.resolver import a_label
from smtpproxy.net.tlspolicy import MxHost, unroutable
from smtpproxy.session.outbound.target import Credentials, Target, TlsWish, Unroutable
from smtpproxy.smtp.paths import POSTMASTER
from smtpproxy.smtp.xclient import plain_address

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from random import Random

    from smtpproxy.config import Route
    from smtpproxy.net.resolver import Resolver
    from smtpproxy.net.tlspolicy import Decision, TlsPolicy

    Found = Callable[[list[Target] | Unroutable], None]

_SMTP_PORT: Final = 25

_log: Final = Logger()


class Router:
    """The routes of one listener."""

    def __init__(
        self,
        routes: Sequence[Route],
        resolver: Resolver,
        policy: TlsPolicy,
        *,
        hostname: str,
        own: Callable[[str, int], bool],
        own_hosts: Callable[[str, int], bool],
        random: Random,
        credentials: Callable[[Route], Credentials | None] = lambda _: None,
    ) -> None:
        """``hostname``: our name in EHLO; ``own``: whether an address and port end here, as OwnAddresses.

        ``own_hosts``: the same for what DNS names as a mail host, as OwnHosts.

        ``credentials``: what to log in with where a route says so; if it raises, there is no target.
        """
        self._routes = tuple(routes)
        self._by_domain: dict[str, int] = {}
        for number, route in enumerate(routes):
            for domain in route.domain:
                self._by_domain.setdefault(domain, number)
        self._resolver = resolver
        self._policy = policy
        self._own_name = a_label(hostname)
        self._own = own
        self._own_hosts = own_hosts
        self._random = random
        self._credentials = credentials

    @property
    def fallback(self) -> Route:
        """The route whose settings count where the client itself has chosen the server: ``*``."""
        return self._routes[self._by_domain["*"]]

    def route(self, domain: str) -> tuple[Route, Hashable] | None:
        """Give the route for a recipient's domain, and what tells its destination from others; None: there is no route.

        ``domain``: as ``recipient_domain`` gives it.  The most specific route counts: the exact name, then the longest
        ``.sub`` above it, then ``*``.  Recipients with equal keys can be in one transaction.  For ``<postmaster>``, who
        is nowhere, ``*`` counts if it has nexthops.
        """
        name = _as_known(domain)
        number = self._number(name, domain)
        if number is None:
            return None
        route = self._routes[number]
        if domain == POSTMASTER and not route.nexthops:
            return None
        return route, (number, "" if route.nexthops else name)

    def _number(self, name: str, domain: str) -> int | None:
        known = self._by_domain
        if domain != POSTMASTER:
            if name in known:
                return known[name]
            above = "" if name.startswith("[") else name
            while above:
                above = above.partition(".")[2]
                if f".{above}" in known:
                    return known[f".{above}"]
        return known.get("*")

    def targets(self, route: Route, domain: str, found: Found) -> None:
        """Find the addresses that mail to a domain can be given to, in the order in which they are to be tried.

        ``route``: one that ``route()`` gave for this domain.  ``found`` is called exactly once, in the reactor's
        thread, perhaps before this returns, with at least one target or the reason why there is none.
        """
        name = _as_known(domain)
        search = _Search(route, "" if route.nexthops else name, found)
        if route.nexthops:
            search.step(self._hosts_known, search)(self._nexthops(route))
        elif name.startswith("["):
            search.step(self._hosts_known, search)(_literal(name, route.port))
        elif not is_hostname(name):
            found(unroutable(b"550 5.1.2", "No such domain can exist"))
        else:
            search.step(self._look_up, search)()

    def targets_at(self, route: Route, address: str, port: int, found: Found) -> None:
        """Give the target at an address that the client itself has chosen, without asking DNS; else as ``targets``."""
        host = MxHost(address, port, source="literal", mx_secure=True)
        host.addresses = (address,)
        search = _Search(route, "", found)
        search.step(self._policy.decide)(route, "", [host], search.step(self._decided, search))

    def _look_up(self, search: _Search) -> None:
        known = search.step(self._hosts_known, search)
        find_mx(self._resolver, search.domain, search.route.port, self._random, known)
        if search.goes_on:
            self._policy.prepare(search.route, search.domain)

    def _nexthops(self, route: Route) -> list[MxHost]:
        order = list(route.nexthops)
        if route.order == "shuffle":
            self._random.shuffle(order)
        return [
            MxHost(hop.host, hop.port, preference=place, source="nexthop", mx_secure=True)
            for place, hop in enumerate(order)
        ]

    def _hosts_known(self, search: _Search, hosts: list[MxHost] | Unroutable) -> None:
        if isinstance(hosts, Unroutable):
            search.tell(hosts)
            return
        known = search.step(self._addresses_known, search, hosts)
        find_addresses(self._resolver, hosts, search.route.addresses, known)

    def _addresses_known(self, search: _Search, hosts: list[MxHost], unknown: list[MxHost]) -> None:
        better = self._without_us(hosts)
        usable = [host for host in better if host.addresses]
        if not better:
            search.tell(_loops(search.domain))
        elif not usable:
            search.tell(_nowhere(search.domain, better, temporary=any(host in unknown for host in better)))
        else:
            self._policy.decide(search.route, search.domain, usable, search.step(self._decided, search))

    def _without_us(self, hosts: list[MxHost]) -> list[MxHost]:
        """Leave out what would come back to us."""
        if hosts[0].source == "nexthop":  # they are the administrator's: each is what it is, wherever it stands
            return [host for host in hosts if not any(self._own(address, host.port) for address in host.addresses)]
        ours = [host.preference for host in hosts if self._is_us(host)]
        return [host for host in hosts if not ours or host.preference < min(ours)]

    def _is_us(self, host: MxHost) -> bool:
        if host.source == "literal":
            return any(
                self._own(address, host.port) or (host.port == _SMTP_PORT and plain_address(address).is_loopback)
                for address in host.addresses
            )
        return host.name == self._own_name or any(self._own_hosts(address, host.port) for address in host.addresses)

    def _decided(self, search: _Search, decisions: list[Decision] | Unroutable) -> None:
        if isinstance(decisions, Unroutable):
            search.tell(decisions)
            return
        targets = _targets(decisions, self._credentials(search.route))
        search.tell(list(islice(targets, search.route.most_addresses)))


class _Search:
    """One search, and whoever waits for its outcome."""

    __slots__ = ("_found", "domain", "route")

    def __init__(self, route: Route, domain: str, found: Found) -> None:
        """``domain``: "" for nexthops."""
        self.route = route
        self.domain = domain
        self._found: Found | None = found

    @property
    def goes_on(self) -> bool:
        """Whether the outcome has not been told yet."""
        return self._found is not None

    def tell(self, outcome: list[Target] | Unroutable) -> None:
        """Tell the outcome."""
        found, self._found = self._found, None
        if found is not None:
            found(outcome)

    def step(self, function: Callable[..., None], *arguments: object) -> Callable[..., None]:
        """Make a step that does not keep the outcome from whoever waits if there is a bug in it (rule H10)."""

        def guarded(*more: object) -> None:
            try:
                function(*arguments, *more)
            except Exception:
                if self._found is None:  # the bug is his
                    raise
                _log.failure("the way to a destination could not be found")
                self.tell(unroutable(b"451 4.3.0", "Internal error, please try again later"))

        return guarded


def _targets(decisions: list[Decision], credentials: Credentials | None) -> Iterator[Target]:
    """Make the targets; the key of each tells it from all others of its route that may not be used in its place."""
    for host, wish, security in decisions:
        tls = () if wish is TlsWish.NONE else (host.name, getattr(security, "key", None))
        for address in host.addresses:
            yield Target(
                host.name,
                address,
                host.port,
                tls=wish,
                security=security,
                key=(address, host.port, wish, tls, credentials),
                credentials=credentials,
            )


def _as_known(domain: str) -> str:
    """Write a recipient's domain as DNS and the routes know it; what is no domain stays as it is."""
    try:
        return a_label(domain)
    except ValueError:
        return domain


def _literal(text: str, port: int) -> list[MxHost] | Unroutable:
    """Read an address literal (RFC 5321, 4.1.3)."""
    address = text[1:-1].removeprefix("ipv6:")
    try:
        ip = plain_address(address)
    except ValueError:
        return unroutable(b"550 5.1.2", "No such address can exist")
    if (":" in address) is not text.startswith("[ipv6:") or ip.is_unspecified or ip.is_multicast:
        return unroutable(b"550 5.1.2", "No such address can exist")
    return [MxHost(str(ip), port, source="literal", mx_secure=True, domain=text)]


def _loops(domain: str) -> Unroutable:
    if not domain:
        return unroutable(b"451 4.3.5", "The next hop is this server itself")
    return unroutable(b"554 5.4.6", f"Mail for {domain} loops back to myself")


def _nowhere(domain: str, hosts: list[MxHost], *, temporary: bool) -> Unroutable:
    """Say why no host has an address."""
    if temporary:
        return unroutable(b"451 4.4.3", f"{domain or 'next hop'}: DNS gives no address now")
    if not domain:
        return unroutable(b"451 4.3.5", "No next hop has an address")
    if hosts[0].source == "implicit":
        return unroutable(b"550 5.1.2", f"{domain}: no mail server, neither MX nor address")
    return unroutable(b"550 5.4.4", f"{domain}: no mail server has an address")
