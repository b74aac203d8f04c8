"""What all sessions of one outbound listener share: policies, routes, the cache, connections with remotes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from smtpproxy.session.outbound.policy import Speculation, SubmissionPolicy

from .clientcontext import ClientContext, Journal
from .outbound import OutboundSession
from .policies import limits_of
from .transparent import meant_for

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from socket import socket

    from smtpproxy.config import OutboundListener, Route
    from smtpproxy.session.outbound.delivery import Delivery
    from smtpproxy.session.outbound.notes import Note
    from smtpproxy.session.outbound.target import Target, Unroutable
    from smtpproxy.store.ehlo import EhloCache

    from .clientsession import ClientSession
    from .remoteroute import RemoteRoute
    from .remotes import Remotes
    from .remoteside import RemoteSide
    from .router import Router
    from .sweep import Sweep
    from .tlsserver import ServerTls
    from .transparent import Destination
    from .vouched import Vouched


class OutboundJournal(Journal, Protocol):
    """Who is told what happened to deliveries, too."""

    def delivery_ended(self, session: ClientSession, side: RemoteSide) -> None:
        """Note the end of a delivery."""

    def downgraded(self, session: ClientSession, target: Target) -> None:
        """Note a remote that offered STARTTLS before, and does not now."""

    def flushed(self, session: ClientSession, target: Target, note: Note) -> None:
        """Note that early pipelining with a remote has failed."""


class OutboundContext(ClientContext):
    """One listener as its sessions see it."""

    settings: OutboundListener
    journal: OutboundJournal

    def __init__(
        self,
        settings: OutboundListener,
        sweep: Sweep,
        journal: OutboundJournal,
        clock: Callable[[], float],
        *,
        router: Router,
        routes: Mapping[int, RemoteRoute],
        remotes: Remotes,
        cache: EhloCache,
        own: Callable[[str, int], bool],
        call_later: Callable[..., Any],
        tls: ServerTls | None = None,
    ) -> None:
        """As ClientContext.  ``routes``: the routes of ``router`` made ready, by the identity of each.

        ``own``: whether an address and port end at a listener of ours.

        ``call_later``: IReactorTime.callLater, for the little time that a flight waits for a chunk.
        """
        super().__init__(settings, sweep, journal, clock, tls=tls)
        self.router = router
        self.remotes = remotes
        self.cache = cache
        self.call_later = call_later
        self._routes = routes
        self._own = own
        dsn = bool(routes) and all(route.settings.dsn for route in routes.values())
        self._policies = {secure: _submission_policy(settings, secure=secure, dsn=dsn) for secure in (False, True)}
        timeouts = settings.timeouts
        # A client is never waited for longer than its own command; remotes are minded by each delivery.
        self.waits = (
            0.0,
            *(timeouts.command for _ in range(5)),
            timeouts.data_block,
            timeouts.command,
            timeouts.command,
            timeouts.command,
            timeouts.tls_handshake,
            timeouts.tls_handshake,
        )

    def session(self, address: str, counted: str, vouched: Vouched | None = None) -> OutboundSession:
        """Give the session of a new client; the arguments are ClientSession's."""
        return OutboundSession(self, address, counted, vouched)

    def may_connect(self, address: str) -> str:
        """Let only those in who may relay: never an open relay. A client of a Unix socket has no address, and may.

        On a transparent listener that is looked at when it is known that we are not speaking with ourselves.
        """
        return self.may_relay(address) if self.settings.transparent == "off" else ""

    def may_relay(self, address: str) -> str:
        """Give "" for a client from ``relay_from``, or of a Unix socket, else why not."""
        return "" if not address or address in self.settings.relay_from else "you may not relay here"

    def trusts(self, _address: str) -> bool:
        """Give False: nobody speaks for others here but by a PROXY header."""
        return False

    def policy(self, *, secure: bool) -> SubmissionPolicy:
        """Give how a session behaves, inside TLS or not."""
        return self._policies[secure]

    def route(self, domain: str, destination: Destination | None) -> tuple[Route, Hashable] | None:
        """Give the route of a recipient's domain, and what tells its destination from others; None: there is none.

        ``destination``: where the client meant to connect to, on a transparent listener; then that is it.
        """
        if destination is not None:
            return self.router.fallback, destination
        return self.router.route(domain)

    def targets(
        self, session: OutboundSession, delivery: Delivery, found: Callable[[list[Target] | Unroutable], None]
    ) -> None:
        """Find where a delivery can go."""
        route: Any = delivery.route
        if session.destination is not None:
            self.router.targets_at(route, session.destination.address, session.destination.port, found)
        else:
            self.router.targets(route, delivery.recipients[0].rcpt.domain, found)

    def remote_route(self, route: object) -> RemoteRoute:
        """Give a route as its sessions see it."""
        return self._routes[id(route)]

    def meant_for(self, sock: socket) -> tuple[Destination | None, str]:
        """Give where an accepted connection was meant to go, as ``transparent.meant_for``."""
        how = self.settings.transparent
        return (None, "") if how == "off" else meant_for(sock, how, own=self._own, opened=self.remotes.opened)


def _submission_policy(settings: OutboundListener, *, secure: bool, dsn: bool) -> SubmissionPolicy:
    limits, mode, speculate = settings.limits, settings.tls.mode, settings.speculate
    speculation = None
    if speculate is not None:
        # What waits for its end must have room.
        size = min(speculate.size, limits.burst_octets)
        speculation = Speculation(size, speculate.confirmed, speculate.patience)
    return SubmissionPolicy(
        hostname=settings.hostname.encode(),
        limits=limits_of(limits),
        chunking=settings.chunking,
        secure=secure,
        starttls=mode in {"starttls", "starttls-required"} and not secure,
        starttls_required=mode == "starttls-required" and not secure,
        lmtp=settings.protocol == "lmtp",
        destinations=limits.destinations,
        split=settings.protocol == "smtp" and settings.transparent == "off",
        early_keywords=tuple(keyword.encode() for keyword in settings.early_pipelining.keywords),
        dsn=dsn,
        speculation=speculation,
    )
