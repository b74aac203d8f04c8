"""A stand-in for the owner of a submission: carries out its errands on connections that are only lists of bytes.

It does what the shell does, keeps the cache, and knows what must never happen, whatever the test is about; that is
checked after every event:

- octets go to a remote only while there is a connection with it, none before its greeting but where the cache allows
  it, and none amid a TLS handshake (C2, C6, C11);
- a connection is left exactly once; when the client's session is over only those stay whose message is wholly on its
  way (S10);
- after CLOSE_CLIENT nothing leaves any more;
- the session never waits for nobody, and never for the client while it is owed a verdict (S3, H9).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from smtpproxy.session.actions import Action
from smtpproxy.session.frontend import State as ClientState
from smtpproxy.session.outbound.delivery import Delivery
from smtpproxy.session.outbound.notes import Finding, Note
from smtpproxy.session.outbound.policy import Assumption
from smtpproxy.session.outbound.remote import Remote
from smtpproxy.session.outbound.stage import Errand, Stage
from smtpproxy.session.outbound.states import State
from smtpproxy.session.outbound.submission import Submission
from smtpproxy.session.outbound.target import Target, TlsWish, Unroutable
from smtpproxy.smtp.commands import Wait
from smtpproxy.smtp.offer import Offer
from smtpproxy.store.record import Record
from smtpproxy.store.rules import Event, Kind, Rules

from .setup import NOWHERE, Setup

RULES = Rules()
NOW = 1_000_000.0
"""Unix time, which stands still."""
ROUNDS = 200
"""Times that one event may lead to another."""


@dataclass
class Output:
    """What one event made the submission do."""

    client: bytes = b""
    remotes: dict[int, bytes] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Connection:
    """A connection with a remote."""

    __slots__ = (
        "delivery",
        "handshaking",
        "notes",
        "number",
        "open",
        "remote",
        "spoken",
        "stream",
        "target",
        "written",
    )

    def __init__(self, number: int, remote: Remote, delivery: Delivery) -> None:
        self.number = number
        self.remote = remote
        self.target: Target = remote.target
        self.delivery: Delivery | None = delivery
        self.open = True
        self.spoken = False
        """Whether the remote has said anything in this state of TLS."""
        self.handshaking = remote.secure
        self.written = 0
        """Octets that were written in this state of TLS."""
        self.stream: list[bytes] = []
        """What was written, for who takes it from here."""
        self.notes: list[Note] = []
        """What was noted about it."""


class Owner:
    """Owns one client's session, its deliveries, the connections with remotes, and the cache."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.remote_policy = setup.remote_policy()
        self.cache: dict[tuple[str, bool], Record | None] = {}
        self.connections: list[Connection] = []
        self.kept: list[Connection] = []
        self.by_delivery: dict[Delivery, Connection] = {}
        self.deliveries: list[Delivery] = []
        """All there ever were."""
        self.searching: list[Delivery] = []
        self.opening: list[Delivery] = []
        self.probing = self.handshaking = self.closed = False
        self.submission = self._new_submission(secure=False)

    def _new_submission(self, *, secure: bool) -> Submission:
        submission = Submission(self.setup.policy(secure=secure), self.setup.client(), self._route_of)
        if self.setup.stamp:
            submission.stamp = lambda: self.setup.stamp
        return submission

    @staticmethod
    def _route_of(domain: str) -> tuple[object, str] | None:
        return None if domain == NOWHERE else ("route", domain)

    # --- the client --------------------------------------------------------------------------------------------------

    def start(self) -> Output:
        """Accept a client."""
        return self.tell(self.submission.start, 0.0)

    def client_sends(self, data: bytes) -> Output:
        """Let octets of the client arrive."""
        if self.handshaking:
            return self.tell(self.submission.client_lost, "TLS handshake failed: garbage")
        return self.tell(self.submission.client_received, data, 0.0)

    def client_inside_tls(self) -> Output:
        """Let the handshake with the client be done."""
        assert self.handshaking, "there is no handshake with the client"
        self.handshaking = False
        old, self.submission = self.submission, self._new_submission(secure=True)
        self.submission.succeed(old, 0.0)
        return self.settle()

    # --- remotes -----------------------------------------------------------------------------------------------------

    def remote(self, number: int) -> Connection:
        """Give a connection by its number, from 1."""
        return self.connections[number - 1]

    def remote_sends(self, number: int, data: bytes) -> Output:
        """Let octets of a remote arrive."""
        connection = self.remote(number)
        assert connection.open, f"R{number} is not there any more"
        if connection.handshaking:
            return self.remote_lost(number, tls=True)
        connection.spoken = True
        delivery = connection.delivery
        if delivery is None:
            # The owner of kept sessions drops one that speaks.
            connection.open = False
            self.kept.remove(connection)
            return Output()
        return self.tell(self.submission.remote_received, delivery, data, 0.0)

    def remote_lost(self, number: int, *, handed: bool = True, reached: bool = True, tls: bool = False) -> Output:
        """Let a connection be lost, or time out."""
        connection = self.remote(number)
        assert connection.open, f"R{number} is not there any more"
        delivery = connection.delivery
        if delivery is None:
            connection.open = False
            self.kept.remove(connection)
            return Output()
        position = connection.remote.data_position
        handed = handed and position is not None and connection.written > position
        why = "TLS handshake failed" if tls else "connection lost"
        how = {"reached": reached, "handed": handed, **({"tls": True} if tls else {})}
        return self.tell(lambda: self.submission.remote_lost(delivery, why, 0.0, **how))

    def remote_inside_tls(self, number: int) -> Output:
        """Let the handshake with a remote be done."""
        connection = self.remote(number)
        assert connection.handshaking, f"there is no handshake with R{number}"
        connection.handshaking = connection.spoken = False
        connection.written = connection.written if connection.target.tls is TlsWish.IMPLICIT else 0
        delivery = connection.delivery
        assert delivery is not None
        return self.tell(self.submission.remote_secured, delivery, 0.0)

    def remote_reads(self, number: int, *, full: bool) -> Output:
        """Let a remote stop reading, or begin again."""
        delivery = self.remote(number).delivery
        assert delivery is not None
        return self.tell(lambda: self.submission.remote_writable(delivery, 0.0, full=full))

    def impatient(self, number: int) -> Output:
        """Let what is here of a message have waited for its rest long enough."""
        delivery = self.remote(number).delivery
        assert delivery is not None
        assert delivery.withholds
        return self.tell(lambda: self.submission.delivery_impatient(delivery, 0.0))

    def no_connection(self) -> Output:
        """Let the next connection that is to be opened come to nothing."""
        delivery = self.opening.pop(0)
        return self.tell(self.submission.unreachable, delivery, "no route to host", 0.0)

    def connect(self) -> Output:
        """Let the next connection that is to be opened be there."""
        output = Output()
        self._open(self.opening.pop(0), output)
        return self._settled(output)

    def find_targets(self, found: Unroutable | None = None) -> Output:
        """Let a look-up of targets end."""
        delivery = self.searching.pop(0)
        targets = self.setup.found_targets(str(delivery.destination)) if found is None else found
        return self.tell(self.submission.targets_found, delivery, targets, 0.0)

    # --- events ------------------------------------------------------------------------------------------------------

    def tell(self, event: Callable[..., None], *arguments: Any) -> Output:
        """Let something happen to the submission; say what it did about it."""
        self.probing = False
        event(*arguments)
        return self.settle()

    def settle(self, *, hold: bool = True) -> Output:
        """Fetch what is to be written and done."""
        return self._settled(Output(), hold=hold)

    def _settled(self, output: Output, *, hold: bool = True) -> Output:
        for _ in range(ROUNDS):
            if not self._settle_once(output, hold=hold):
                break
        else:
            raise AssertionError(f"it never comes to rest: {output.actions[-6:]}")
        check(self)
        return output

    def _settle_once(self, output: Output, *, hold: bool) -> bool:
        submission = self.submission
        replies = b"" if self.probing else submission.take_replies(hold=hold)
        assert not (self.closed and replies), f"a reply after the end: {replies!r}"
        output.client += replies
        moved = bool(replies)
        actions, submission.actions = submission.actions, []
        for action in actions:
            moved = True
            self._carry_out(action)
            output.actions.append(action.name)
        finished, submission.finished = submission.finished, []
        for delivery in dict.fromkeys([*submission.deliveries, *finished, *self.deliveries]):
            if delivery not in self.deliveries:
                self.deliveries.append(delivery)
            moved = self._errands(delivery, output) or moved
        for connection in self.connections:
            moved = self._write(connection, output) or moved
        return moved

    def _carry_out(self, action: Action) -> None:
        assert not self.closed, f"{action.name} after CLOSE_CLIENT"
        if action is Action.PROBE_CLIENT:
            self.probing = True
        elif action is Action.START_TLS:
            assert not self.submission.pipeline.slots, "S5: replies are owed, and another dialogue takes over"
            self.handshaking = True
        else:
            assert action is Action.CLOSE_CLIENT, action
            self.closed = True

    def _write(self, connection: Connection, output: Output) -> bool:
        remote = connection.remote
        data = b"".join(remote.out)
        remote.out.clear()
        if not data or not connection.open:
            return False
        number = connection.number
        assert not connection.handshaking or remote.state is State.GREETING, f"C11: R{number} amid its handshake"
        if not connection.spoken:
            assumed = remote.assumptions[remote.secure]
            usable = assumed is not None and assumed.early and self.setup.pipeline and not self.setup.lockstep
            assert usable or remote.state is State.HELLO, f"C2, C6: R{number} is no server for early talk: {data!r}"
        connection.written += len(data)
        connection.stream.append(data)
        output.remotes[number] = output.remotes.get(number, b"") + data
        return True

    def _errands(self, delivery: Delivery, output: Output) -> bool:
        actions, delivery.actions = delivery.actions, []
        notes, delivery.notes = delivery.notes, []
        if notes and delivery in self.by_delivery:
            connection = self.by_delivery[delivery]
            connection.notes += [note for _, note in notes]
            self._take_notes(notes, connection.number, output)
        for action in actions:
            if action is Errand.FIND_TARGETS:
                output.actions.append(action.name)
                self._find(delivery)
            elif action is Errand.OPEN:
                self._open_soon(delivery, output)
            elif action is Errand.START_TLS:
                connection = self.by_delivery[delivery]
                self._write(connection, output)
                assert connection.open
                assert not connection.handshaking
                connection.handshaking = True
                output.actions.append(f"{action.name}{connection.number}")
            else:
                self._leave(delivery, action, output)
        return bool(actions)

    def _find(self, delivery: Delivery) -> None:
        if self.setup.found == "later":
            self.searching.append(delivery)
        else:
            self.submission.targets_found(delivery, self.setup.found_targets(str(delivery.destination)), 0.0)

    def _open_soon(self, delivery: Delivery, output: Output) -> None:
        if self.setup.connected == "later":
            output.actions.append("OPEN")
            self.opening.append(delivery)
        else:
            self._open(delivery, output)

    def _open(self, delivery: Delivery, output: Output) -> None:
        assert delivery not in self.by_delivery, "two sessions for one delivery"
        target = delivery.target
        assert target is not None
        fresh = delivery.fresh or delivery.polite or delivery.in_clear
        for connection in self.kept if self.setup.keeps and not fresh else ():
            if connection.target.key == target.key:
                self.kept.remove(connection)
                connection.delivery = delivery
                self.by_delivery[delivery] = connection
                output.actions.append(f"LEND{connection.number}")
                self.submission.session_found(delivery, connection.remote, 0.0, kept=True)
                return
        clear, inside = (self.known(target.address, secure=secure) for secure in (False, True))
        remote = Remote(target, self.remote_policy, clear, inside, polite=delivery.polite, in_clear=delivery.in_clear)
        connection = Connection(len(self.connections) + 1, remote, delivery)
        self.connections.append(connection)
        self.by_delivery[delivery] = connection
        output.actions.append(f"OPEN{connection.number}")
        self.submission.session_found(delivery, remote, 0.0, kept=False)

    def _leave(self, delivery: Delivery, errand: Errand, output: Output) -> None:
        connection = self.by_delivery.pop(delivery)
        assert connection.open, f"R{connection.number} is left twice"
        if errand is not Errand.DROP:
            self._write(connection, output)
            assert not connection.handshaking, "C11: QUIT amid a handshake"
        connection.delivery = None
        if errand is Errand.KEEP:
            assert connection.remote.at_rest, "S18: a session is kept that is not at rest"
            self.kept.append(connection)
        else:
            connection.open = False
        output.actions.append(f"{errand.name}{connection.number}")

    # --- the cache ---------------------------------------------------------------------------------------------------

    def known(self, address: str, *, secure: bool) -> Assumption | None:
        """Give what the cache knows."""
        key = address, secure
        if key not in self.cache:
            self.cache[key] = self.setup.known(secure=secure)
        entry = RULES.entry(self.cache[key], NOW)
        return None if entry is None else Assumption(Offer(entry.lines), entry.confirmed, entry.early)

    def _take_notes(self, notes: list[tuple[Target, Note]], number: int, output: Output) -> None:
        for target, note in notes:
            output.notes.append(f"{note.finding.name}{number} {'tls' if note.secure else 'clear'}")
            kind = _EVENTS.get(note.finding)
            if kind is not None:
                lines = note.lines if kind in (Kind.LEARNED, Kind.CONFIRMED) else None
                self.known(target.address, secure=note.secure)
                key = target.address, note.secure
                self.cache[key] = RULES.after(self.cache[key], Event(kind, NOW, lines))


_EVENTS = {
    Finding.LEARNED: Kind.LEARNED,
    Finding.CONFIRMED: Kind.CONFIRMED,
    Finding.FLUSHED: Kind.FLUSHED,
    Finding.REFUSED: Kind.REFUSED,
    Finding.HELD_BACK: Kind.HELD,
}


def check(owner: Owner) -> None:
    """See that what must hold after every event does."""
    submission = owner.submission
    assert submission.over == owner.closed, "S3: the session is over, but nobody closes the connection (or too early)"
    for connection in owner.connections:
        delivery = connection.delivery
        if delivery is not None and connection.open:
            assert delivery.remote is connection.remote, f"R{connection.number} is forgotten"
            assert delivery.stage is not Stage.DONE, f"R{connection.number} is not left"
            assert connection.handshaking == (
                connection.remote.wait is Wait.BACKEND_TLS or (connection.remote.secure and connection.handshaking)
            ), "H9: whose handshake is it?"
            if owner.closed:
                assert delivery.progress.finished, f"S10: the client is gone, and R{connection.number} goes on"
    if owner.closed or owner.probing:
        return
    servers = any(
        connection.delivery is not None and (connection.handshaking or connection.remote.wait is not Wait.NOTHING)
        for connection in owner.connections
        if connection.open
    )
    flowing = any(delivery.progress.go_ahead for delivery in submission.deliveries)
    waits = submission.client_wait
    unanswered = any(not slot.reply for slot in submission.pipeline.slots)
    # A reply that waits for the rest of its group only keeps the clock of the client going for a moment.
    for_client = waits is Wait.DATA_BLOCK or (waits is not Wait.NOTHING and not unanswered)
    remotes = servers or flowing or owner.searching or owner.opening or any(c.remote.full for c in owner.connections)
    assert for_client or remotes, "H9: nobody is waited for"
    assert not submission.stuffed or remotes, "H9: the client is not read, and no remote will change that"
    if submission.whole:
        assert not for_client, "H9: the client's clock runs while it is owed a verdict"
    if submission.frontend.state is ClientState.AWAIT_DATA and not any(not s.reply for s in submission.pipeline.slots):
        raise AssertionError("S3: nobody is owed the reply to DATA")
