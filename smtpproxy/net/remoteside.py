"""The side of an outbound session that is turned to one remote: finding targets, opening, time, the cache.

There is one for each delivery.  It owns the connection with the remote; what is said there is the delivery's business.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from smtpproxy.session.outbound.delivery import Delivery
from smtpproxy.session.outbound.notes import Finding
from smtpproxy.session.outbound.policy import Assumption
from smtpproxy.session.outbound.remote import Remote
from smtpproxy.session.outbound.stage import Errand, Stage
from smtpproxy.session.outbound.states import State as RemoteState
from smtpproxy.session.outbound.target import TlsWish
from smtpproxy.smtp.commands import Wait
from smtpproxy.smtp.offer import Offer
from smtpproxy.store.ehlo import Entry, Key

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.session.outbound.notes import Note
    from smtpproxy.session.outbound.target import Target, Unroutable

    from .leg import BackendLeg
    from .outbound import OutboundSession
    from .outboundcontext import OutboundContext
    from .remotes import RemoteLeg


class RemoteSide:
    """Carries out what one delivery wants (a LegOwner, and Swept)."""

    __slots__ = (
        "_context",
        "_heard",
        "_longest",
        "_mark",
        "_number",
        "_sent",
        "_session",
        "_silent_since",
        "_since",
        "_sweeping",
        "connects",
        "delivery",
        "fast_open",
        "leg",
        "reused",
        "reuses",
        "tls",
        "verdict",
    )

    def __init__(self, session: OutboundSession, delivery: Delivery) -> None:
        self._session = session
        self._context: OutboundContext = session.context
        self._number = session.number
        self.delivery = delivery
        self.leg: RemoteLeg | None = None
        self.reused = False
        """Whether the last session was a kept one."""
        self.connects = self.reuses = 0
        """Connections begun, and kept sessions lent, in all tries."""
        self.fast_open = False
        """Whether the SYN of the last connection carried data that the remote took."""
        self.tls = ""
        """Version and cipher of the last connection's TLS; empty: clear text."""
        self.verdict = ""
        """What the last handshake has shown of the remote."""
        self._heard = False
        """Whether the remote has said anything in this try."""
        self._mark = self._sent = 0
        self._longest = self._context.remote_route(delivery.route).settings.timeouts.delivery
        self._since = self._silent_since = self._context.clock()
        """When the remote last made progress, and when we last said something to it."""
        self._sweeping = True
        self._context.sweep.add(self, self._number)

    # --- finding a session ------------------------------------------------------------------------------------------

    def find_targets(self) -> None:
        """Find out where the message can go."""
        self._context.targets(self._session, self.delivery, self._targets_found)

    def _targets_found(self, found: list[Target] | Unroutable) -> None:
        if isinstance(found, list):
            found = self._context.remotes.rests.ordered(found)
        if self.delivery.stage is Stage.SEARCHING:
            self._tell(self._session.submission.targets_found, self.delivery, found, self._context.clock())

    def open(self) -> None:
        """Lend a kept session with the target, or open one."""
        delivery, target = self.delivery, self.delivery.target
        assert target is not None  # noqa: S101  # OPEN is about one; this tells the type checker
        self._since = self._silent_since = self._context.clock()
        self._sent = 0
        self.reused = self.fast_open = False
        self._heard = False
        self.tls = self.verdict = ""
        fresh = delivery.polite or delivery.in_clear or delivery.fresh
        route = self._context.remote_route(delivery.route)
        leg = None if fresh else self._context.remotes.borrow(self, target, route)
        if leg is not None and leg.remote is not None:
            self.leg, remote = leg, leg.remote
            leg.remote = None
            self.reused = True
            self.reuses += 1
            self._note_tls(leg)
            self._begin(remote, kept=True)
            return
        if target.tls is TlsWish.IMPLICIT:
            self._find_inside(target, None)
        else:
            self._find(target, secure=False, then=partial(self._find_inside, target))

    def _find(self, target: Target, *, secure: bool, then: Callable[[Entry | None], None]) -> None:
        self._context.cache.find(self._key(target, secure=secure), then)

    def _find_inside(self, target: Target, clear: Entry | None) -> None:
        if target.tls is TlsWish.NONE:
            self._dial(target, clear, None)
        else:
            self._find(target, secure=True, then=partial(self._dial, target, clear))

    def _key(self, target: Target, *, secure: bool) -> Key:
        return Key(target.address, target.port, secure, self._context.settings.hostname)

    def _dial(self, target: Target, clear: Entry | None, inside: Entry | None) -> None:
        delivery, context = self.delivery, self._context
        if delivery.stage is not Stage.OPENING or delivery.target is not target:
            return
        route = context.remote_route(delivery.route)
        remote = Remote(
            target,
            route.policy,
            _assumption(clear),
            _assumption(inside),
            polite=delivery.polite,
            in_clear=delivery.in_clear,
        )
        try:
            self.leg = context.remotes.dial(self, target, route, context.settings.mark)
        except OSError as problem:
            why = problem.strerror or str(problem)
            self._tell(self._session.submission.unreachable, delivery, why, context.clock())
            return
        self.connects += 1
        self._begin(remote, kept=False)
        leg = self.leg
        if leg is not None and leg.deferred and remote.assumption is None:
            # It will say nothing before the remote has: there is nothing to ride on the SYN.
            leg.open_now()

    def _begin(self, remote: Remote, *, kept: bool) -> None:
        self._tell(self._session.submission.session_found, self.delivery, remote, self._context.clock(), kept=kept)

    # --- the connection (LegOwner) ----------------------------------------------------------------------------------

    def leg_received(self, _leg: BackendLeg, data: bytes) -> None:
        """Take bytes of the remote."""
        if not self._heard and self.leg is not None:
            self._heard = True
            self._context.remotes.rests.woke(self.leg.target)
        self._tell(self._session.submission.remote_received, self.delivery, data, self._context.clock())

    def leg_lost(self, _leg: BackendLeg, why: str) -> None:
        """The remote has closed, or was never reached, or is not who it should be."""
        self._lost(why)

    def _lost(self, why: str) -> None:
        leg, remote = self.leg, self.delivery.remote
        if leg is None or remote is None:
            return
        self._note_tls(leg)
        tls = leg.tls_trouble or remote.state is RemoteState.TLS
        handed = leg.handed(remote.data_position)
        if not (self._heard or tls or self.reused):
            self._context.remotes.rests.rest(leg.target, leg.route.settings.rest)
        event = self._session.submission.remote_lost
        self._tell(event, self.delivery, why, self._context.clock(), reached=leg.reached, handed=handed, tls=tls)

    def leg_full(self, *, full: bool) -> None:
        """The remote does not read what we write, or reads again."""
        self._since = self._context.clock()
        self._tell(self._session.submission.remote_writable, self.delivery, self._since, full=full)

    def leg_secured(self, leg: BackendLeg) -> None:
        """The handshake with the remote is done, and it is the right one."""
        self._since = self._context.clock()
        if leg is self.leg:
            self._note_tls(self.leg)
        self._tell(self._session.submission.remote_secured, self.delivery, self._since)

    def _note_tls(self, leg: RemoteLeg) -> None:
        connection = leg.secure
        if connection is not None:
            self.verdict = leg.route.tls.verdict(connection).describe()
            if leg.connected:
                self.tls = f"{connection.get_protocol_version_name()} {connection.get_cipher_name() or ''}".strip()

    # --- carrying out -----------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write what the delivery wants to send."""
        remote, leg = self.delivery.remote, self.leg
        if remote is None or leg is None or not remote.out:
            return
        data = b"".join(remote.out)
        remote.out.clear()
        begins = None
        if remote.data_position is not None:
            begins = remote.data_position - (remote.sent - len(data))
        leg.send(data, begins)

    def start_tls(self) -> None:
        """Begin TLS with the remote."""
        leg = self.leg
        if leg is not None:
            self._since = self._context.clock()
            leg.start_tls(leg.route.tls)

    def keep(self) -> None:
        """Keep the session for another delivery."""
        leg = self._take_leg()
        if leg is not None:
            leg.remote = self.delivery.left
            if self.delivery.in_clear:
                self._context.remotes.leave(leg)
            else:
                self._context.remotes.keep(leg)

    def quit(self) -> None:
        """Take leave of the remote."""
        leg = self._take_leg()
        if leg is not None:
            self._context.remotes.leave(leg)

    def drop(self) -> None:
        """Reset the connection."""
        leg = self._take_leg()
        if leg is not None:
            leg.close(reset=True)

    def _take_leg(self) -> RemoteLeg | None:
        leg, self.leg = self.leg, None
        if leg is not None and leg.lean is not None:
            self.fast_open = leg.carried_data
        return leg

    def settle(self) -> bool:
        """Write, do what the delivery wants, pass on what it has found out; say whether there was anything."""
        delivery = self.delivery
        self.write()
        if delivery.notes:
            self._pass_on(delivery.notes)
        if not delivery.actions:
            return False
        errands, delivery.actions = delivery.actions, []
        for errand in errands:
            _ERRANDS[errand](self)
        return True

    def _pass_on(self, notes: list[tuple[Target, Note]]) -> None:
        cache = self._context.cache
        for target, note in notes:
            key = self._key(target, secure=note.secure)
            if note.finding is Finding.LEARNED:
                cache.learned(key, note.lines)
            elif note.finding is Finding.CONFIRMED:
                cache.confirmed(key, note.lines)
            elif note.finding is Finding.DOWNGRADED:
                self._context.journal.downgraded(self._session, target)
            else:
                held, refused = note.finding is Finding.HELD_BACK, note.finding is Finding.REFUSED
                cache.flush(key, hold_back=held, refused=refused)
                self._context.journal.flushed(self._session, target, note)
        notes.clear()

    def cut_off(self) -> None:
        """End the delivery now, and tell what is known of it (rule C7)."""
        leg, remote = self.leg, self.delivery.remote
        handed = leg is not None and remote is not None and leg.handed(remote.data_position)
        self.delivery.cut_off(handed=handed)
        self.settle()
        self.end()
        self._context.journal.delivery_ended(self._session, self)

    def end(self) -> None:
        """Be done: the delivery has its last word."""
        if self._sweeping:
            self._sweeping = False
            self._context.sweep.discard(self, self._number)

    # --- time -------------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """End what the remote has let wait too long (RFC 5321, 4.5.3.2)."""
        delivery = self.delivery
        if delivery.stage is Stage.DONE:
            self.end()
        elif self._overdue(now):
            self._lost("timed out")
        elif self._holds_up(now):
            if delivery.progress.by:
                self._lost("timed out, and others wait")
            else:
                self._tell(self._session.submission.delivery_overdue, delivery, now)
        elif self._silent_for(now) > _GATHERING and delivery.withholds:
            self._tell(self._session.submission.delivery_impatient, delivery, now)
        elif now - delivery.started > self._longest and self._is_ours(delivery):
            self._tell(self._session.submission.delivery_overdue, delivery, now)

    def _holds_up(self, now: float) -> bool:
        """Say whether it keeps the word on others' mail for so long that the client would send all of it again."""
        submission = self._session.submission
        patience = self._context.remote_route(self.delivery.route).settings.timeouts.others_done
        return submission.holds_up(self.delivery) and now - submission.whole_since > patience

    def _silent_for(self, now: float) -> float:
        remote = self.delivery.remote
        sent = 0 if remote is None else remote.sent
        if sent != self._sent:
            self._sent, self._silent_since = sent, now
        return now - self._silent_since

    @staticmethod
    def _is_ours(delivery: Delivery) -> bool:
        """Say whether it is we whom the client waits for, and no message is on its way, which has times of its own."""
        return not (delivery.progress.by or delivery.settled or delivery.holding)

    def _overdue(self, now: float) -> bool:
        leg, remote = self.leg, self.delivery.remote
        if leg is None or remote is None:
            return False
        waits, timeouts = leg.route.waits, leg.route.settings.timeouts
        wait = self.delivery.wait
        if not leg.established:
            # While the SYN waits for the first write, nobody is waited for but the client.
            patience = timeouts.delivery if leg.deferred else timeouts.connect
        elif remote.state is RemoteState.TLS:
            patience = timeouts.tls_handshake
        elif not leg.connected:
            patience = timeouts.connect + timeouts.tls_handshake
        else:
            # A reply that trickles in is no progress: a whole one is, or it could go on for ever.
            mark = leg.taken if remote.full else remote.replies + remote.sent
            if mark != self._mark or (wait is Wait.NOTHING and not remote.full):
                self._mark, self._since = mark, now
            patience = waits[Wait.DATA_BLOCK] if remote.full else waits[wait]
            if wait in _BEGINNING and self.delivery.targets:
                patience = min(patience, timeouts.others_left)
        return now - self._since > patience

    def _tell(self, event: Callable[..., None], *arguments: Any, **how: Any) -> None:
        self._session.tell_delivery(event, *arguments, **how)


def _assumption(entry: Entry | None) -> Assumption | None:
    return None if entry is None else Assumption(Offer.of(entry.lines), entry.confirmed, entry.early)


_GATHERING: Final = 5.0
"""Seconds after which what a slow client has sent of its message leaves, however little it is."""
_BEGINNING: Final = frozenset({Wait.GREETING, Wait.EHLO})
_ERRANDS: Final[dict[Errand, Callable[[RemoteSide], None]]] = {
    Errand.FIND_TARGETS: RemoteSide.find_targets,
    Errand.OPEN: RemoteSide.open,
    Errand.START_TLS: RemoteSide.start_tls,
    Errand.KEEP: RemoteSide.keep,
    Errand.QUIT: RemoteSide.quit,
    Errand.DROP: RemoteSide.drop,
}
