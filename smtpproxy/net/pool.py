"""The backend as a whole: its servers, the sessions that are kept for the next client, the ones that are taking leave.

A kept session is lent only to where it makes no difference to a fresh one (rule S18, and what ``Backend.reusable``
says); before that it is looked at once more, because a 421 may have come in the meantime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .leg import PLAINLY, Approach, BackendLeg
from .policies import CONNECTION_BOUND

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.config import Backend as BackendSettings

    from .leg import Dialler, LegOwner
    from .servers import Server, Servers
    from .sweep import Sweep
    from .tlsclient import ClientTls

_FAREWELL: float = 10.0
"""Seconds that a server has to answer QUIT."""


class Pool:
    """Lends connections with the servers of one backend; owns those that nobody uses."""

    def __init__(
        self,
        name: str,
        settings: BackendSettings,
        servers: Servers,
        dialler: Dialler,
        clock: Callable[[], float],
        *,
        tls: ClientTls | None = None,
    ) -> None:
        """``tls`` is needed where the backend's settings speak of TLS; ``clock`` is monotonic, in seconds."""
        self.name = name
        self.settings = settings
        self.tls = tls
        self.once_only = False
        """Whether the backend takes EHLO only once in a session, so that none can be kept."""
        self._servers = servers
        self._dialler = dialler
        self._clock = clock
        self._kept: list[BackendLeg] = []
        self._leaving: dict[BackendLeg, float] = {}
        self._closed = False
        self._implicit = settings.tls.mode == "implicit"
        self._bound = settings.identity in CONNECTION_BOUND
        self.report: Callable[[str, str, str], None] = lambda _backend, _server, _why: None
        """Told the backend, a server that could not be dialled, and why."""

    def borrow(self, owner: LegOwner) -> BackendLeg | None:
        """Lend a kept session that is still good, the one used last; None if there is none."""
        if self.once_only:
            self._leave_all()
        while self._kept:
            leg = self._kept.pop()
            if leg.quiet:
                leg.owner = owner
                return leg
            leg.close()
        return None

    def dial(
        self, owner: LegOwner, tried: list[Server], *, source: str = "", preamble: bytes = b""
    ) -> BackendLeg | str:
        """Begin to connect to the best server that is not in ``tried``; give the leg, or why there is none.

        ``source`` and ``preamble`` as in ``Approach``: they make the connection one client's own (rule S18).
        """
        approach = PLAINLY
        if source or preamble or self._implicit:
            approach = Approach(source, preamble, self.tls if self._implicit else None)
        why = "no server is left to try" if tried else "no server of the backend has an address"
        if source and not tried:
            why += " of the client's family"
        while (server := self._servers.next(tried, source)) is not None:
            tried.append(server)
            leg = self._dialler.dial(owner, server, self.settings.timeouts.connect, approach)
            if isinstance(leg, BackendLeg):
                return leg
            why = f"{server.name}: {leg.why}"
            self.report(self.name, server.name, leg.why)
            if leg.by_server:
                self._servers.failed(server)
        return why

    def failed(self, leg: BackendLeg) -> None:
        """Let the server at the other end rest (rule S19)."""
        self._servers.failed(leg.server)

    def keep(self, leg: BackendLeg) -> None:
        """Take back a session for another client, if it may serve one and there is room."""
        reuse, backend = self.settings.reuse, leg.backend
        if (
            reuse is None
            or backend is None
            or self._closed
            or self._bound
            or self.once_only
            or backend.uses >= reuse.uses
            or len(self._kept) >= reuse.sessions
        ):
            self.leave(leg)
            return
        leg.owner = self
        leg.resume_reading()
        leg.idle_since = self._clock()
        self._kept.append(leg)

    def leave(self, leg: BackendLeg) -> None:
        """Say QUIT, and close when the server has answered (rule S17)."""
        self.await_close(leg)
        leg.transport.write(b"QUIT\r\n")

    def await_close(self, leg: BackendLeg) -> None:
        """Close when the server has answered the QUIT that it was sent."""
        leg.owner = self
        leg.resume_reading()
        self._leaving[leg] = self._clock() + _FAREWELL

    def close(self) -> None:
        """Keep no session any more."""
        self._closed = True
        self._leave_all()

    def _leave_all(self) -> None:
        for leg in self._kept:
            self.leave(leg)
        self._kept.clear()

    @property
    def busy(self) -> bool:
        """Whether sessions are kept or taking leave."""
        return bool(self._kept or self._leaving)

    def sweep(self, now: float) -> None:
        """End what has been idle, or taking leave, for too long."""
        reuse = self.settings.reuse
        if reuse is not None:
            stale = [leg for leg in self._kept if now - leg.idle_since > reuse.idle]
            for leg in stale:
                self._kept.remove(leg)
                self.leave(leg)
        for leg in [leg for leg, deadline in self._leaving.items() if now > deadline]:
            self._forget(leg)

    def watch(self, sweep: Sweep) -> None:
        """Let ``sweep`` visit."""
        sweep.add(self, 0)

    def _forget(self, leg: BackendLeg) -> None:
        if leg in self._kept:
            self._kept.remove(leg)
        self._leaving.pop(leg, None)
        leg.close()

    def leg_received(self, leg: BackendLeg, _data: bytes) -> None:
        """A server that speaks to nobody closes (421), or has answered QUIT."""
        self._forget(leg)

    def leg_lost(self, leg: BackendLeg, _why: str) -> None:
        """A server has closed."""
        self._forget(leg)

    def leg_full(self, *, full: bool) -> None:
        """Mind nothing: nothing but QUIT is sent here."""

    def leg_secured(self, leg: BackendLeg) -> None:
        """Mind nothing: whoever begins TLS waits for it."""
