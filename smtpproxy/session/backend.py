"""The backend: the SMTP client role, from slots to flights and from the server's bytes to replies.

Replies are matched to what was sent by order alone.  How much may be under way is the pace: LOCKSTEP has one command
out at a time, PIPELINED sends groups as RFC 2920, 3.1 allows them, and nothing is ever sent before the greeting
(rule S8).

    GREETING --220--> READY --354--> MESSAGE --end of data--> READY
    READY --STARTTLS--> TLS --handshake done, or STARTTLS refused--> READY
    any state --CLOSE--> CLOSED
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.commands import BDAT, EHLO, QUIT, VERBS, Verb
from smtpproxy.smtp.replies import ReplyReader

from .pipeline import Slot

if TYPE_CHECKING:
    from collections.abc import Hashable

    from smtpproxy.smtp.extensions import Extensions
    from smtpproxy.smtp.replies import Reply


class State(IntEnum):
    """Where the session with the server stands."""

    GREETING = 1
    READY = 2
    MESSAGE = 3
    TLS = 4
    CLOSED = 5


class Event(IntEnum):
    """What moves the session with the server on."""

    GREETED = 1
    GO_AHEAD = 2
    END_OF_DATA = 3
    STARTTLS = 4
    TLS_ENDED = 5
    CLOSE = 6


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.GREETING, Event.GREETED): State.READY,
    (State.READY, Event.GO_AHEAD): State.MESSAGE,
    (State.MESSAGE, Event.END_OF_DATA): State.READY,
    (State.READY, Event.STARTTLS): State.TLS,
    (State.TLS, Event.TLS_ENDED): State.READY,
    **{(state, Event.CLOSE): State.CLOSED for state in State},
}

_WITH_CHUNKING: Final = frozenset({QUIT})
_WITHOUT_CHUNKING: Final = frozenset({QUIT, BDAT})
_ALL: Final = frozenset(VERBS.values())


class ChunkSlot(Slot):
    """The slot of a BDAT command, with the octets of its chunk that have come and not gone on yet (RFC 3030, 2)."""

    __slots__ = ("binary", "last", "left", "pieces", "refusal", "sent", "size")

    def __init__(self, line: bytes, size: int, *, last: bool) -> None:
        super().__init__(BDAT, line)
        self.size = size
        self.binary = False
        """Whether it belongs to a message that only BDAT can carry."""
        self.left = size
        """Octets that the client has still to send."""
        self.last = last
        self.pieces: list[bytes] = []
        self.sent = False
        """Whether the command has gone to the backend, so that octets may follow at once."""
        self.refusal = b""
        """The reply, if the chunk is refused: it is given when its octets have been thrown away."""


class Backend:
    """One SMTP session with a server, without its connection; it may serve several clients one after another."""

    __slots__ = (
        "attempt",
        "challenged",
        "decisions",
        "ehlo",
        "extensions",
        "failed",
        "greeting",
        "host",
        "introduced",
        "lockstep",
        "message_refused",
        "outstanding",
        "partial",
        "pipelining",
        "queue",
        "reader",
        "secret",
        "secure",
        "state",
        "transaction",
        "uses",
        "waiting",
    )

    def __init__(self, *, lockstep: bool, stranger: bool = False) -> None:
        """``lockstep`` keeps one command out at a time, whatever the server offers.

        ``stranger``: it has to be prepared, as ``introduction.py`` says, before it gets a client's commands.
        """
        self.reader = ReplyReader()
        """Cuts what the server sends into replies."""
        self.state = State.GREETING
        self.lockstep = lockstep
        self.pipelining = False
        self.queue: list[Slot] = []
        """What is to be asked, in order."""
        self.outstanding: list[Slot] = []
        """What was asked and is not answered yet, in order."""
        self.waiting = 0
        """Octets in the queue."""
        self.decisions: frozenset[Verb] = _ALL if stranger else _WITHOUT_CHUNKING
        """Verbs that ``advance`` does not send by itself."""
        self.introduced: Hashable = None
        """The client that it was told of by XCLIENT."""
        self.secure: bool | None = None
        """Whether STARTTLS was done; False: it is not offered, or was refused, and that is no reason to leave it."""
        self.attempt: tuple[Slot, Reply] | None = None
        """The EHLO that offered STARTTLS, and its reply, while STARTTLS is under way."""
        self.extensions: Extensions | None = None
        self.greeting = b""
        self.host = b""
        """The name by which the server called itself in its EHLO reply."""
        self.ehlo = b""
        """The EHLO or HELO line that it accepted last."""
        self.transaction = False
        """Whether it has a mail transaction open."""
        self.partial = False
        """Whether it has a part of a message, in chunks of BDAT."""
        self.message_refused = False
        """Whether it refused the DATA for chunks of which more may come."""
        self.challenged = False
        """Whether it waits for a response in an AUTH exchange."""
        self.secret = False
        """Whether it saw AUTH (rule S18)."""
        self.failed = False
        """Whether it ever gave an error (rule S18)."""
        self.uses = 0

    def move(self, event: Event) -> None:
        """Change the state; a step that is not in the table raises KeyError."""
        self.state = TRANSITIONS[self.state, event]

    @property
    def stranger(self) -> bool:
        """Whether it has to be prepared before it gets a client's commands."""
        return self.decisions is _ALL

    def estrange(self) -> None:
        """Let it be told who the client is before anything else."""
        self.decisions = _ALL

    def familiar(self) -> None:
        """Let it have the client's commands."""
        self.decisions = _WITHOUT_CHUNKING

    def secured(self) -> None:
        """Begin anew inside TLS: nothing from before counts (RFC 3207, 4.2)."""
        self.move(Event.TLS_ENDED)
        self.secure = True
        attempt = self.take_attempt()
        if attempt is not None:
            self.ask_again(attempt[0])
        self.reader = ReplyReader()
        self.extensions = None
        self.ehlo = b""

    def identified(self, ehlo: bytes, extensions: Extensions) -> None:
        """Note that the server accepted an EHLO or HELO line, and what it can do."""
        self.ehlo = ehlo
        self.extensions = extensions
        self.transaction = self.partial = self.message_refused = False
        self.pipelining = extensions.pipelining and not self.lockstep
        self.decisions = _WITH_CHUNKING if extensions.chunking else _WITHOUT_CHUNKING

    def ask(self, slot: Slot) -> None:
        """Put a command at the end of the queue."""
        self.queue.append(slot)
        self.waiting += len(slot.raw)
        if slot.verb is BDAT:
            self.waiting += sum(map(len, _chunk(slot).pieces))

    def ask_again(self, slot: Slot) -> None:
        """Put the client's EHLO, which was answered already, at the head; one of ours is made anew where needed."""
        if slot.verb is EHLO:
            self.ask_first(slot)

    def ask_first(self, slot: Slot) -> None:
        """Put a command of our own at the head of the queue."""
        self.queue.insert(0, slot)
        self.waiting += len(slot.raw)

    def take_attempt(self) -> tuple[Slot, Reply] | None:
        """Give the EHLO that offered STARTTLS, once."""
        attempt, self.attempt = self.attempt, None
        return attempt

    def drop(self, slot: Slot) -> None:
        """Take a slot out of the queue, answered otherwise."""
        self.queue.remove(slot)
        self.waiting -= len(slot.raw)

    def send(self, slot: Slot, out: list[bytes]) -> None:
        """Send a command that is not in the queue."""
        self.outstanding.append(slot)
        out.append(slot.raw)

    def advance(self, out: list[bytes]) -> Slot | None:
        """Add to ``out`` all that may be sent now (rule S8, RFC 2920, 3.1).

        Gives a slot at the head of the queue that could be sent but for a decision to be taken about it, or None.
        """
        if self.state is not State.READY and self.state is not State.MESSAGE:
            return None
        queue, outstanding = self.queue, self.outstanding
        while queue:
            if outstanding and not (self.pipelining and not outstanding[-1].verb.ends_group):
                return None
            slot = queue[0]
            if self.state is State.MESSAGE or slot.verb in self.decisions:
                return slot
            del queue[0]
            self.waiting -= len(slot.raw)
            outstanding.append(slot)
            out.append(slot.raw)
            if slot.verb is BDAT:
                self._send_chunk(slot, out)
        return None

    def _send_chunk(self, slot: Slot, out: list[bytes]) -> None:
        chunk = _chunk(slot)
        chunk.sent = True
        self.waiting -= sum(map(len, chunk.pieces))
        out += chunk.pieces
        chunk.pieces.clear()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way and nothing half received."""
        return not (self.outstanding or self.queue or self.reader.pending or self.challenged)

    @property
    def awaited(self) -> Slot | None:
        """The slot whose reply comes next, if any."""
        return self.outstanding[0] if self.outstanding else None

    @property
    def reusable(self) -> bool:
        """Whether another client may have it: at rest, after an EHLO, without AUTH and without errors (rule S18).

        And where it was told of a client, it must be ready to be told of the next.
        """
        if self.introduced is not None and (self.extensions is None or b"ADDR" not in self.extensions.xclient):
            return False
        return self.state is State.READY and self.idle and bool(self.ehlo) and not (self.secret or self.failed)


def _chunk(slot: Slot) -> ChunkSlot:
    assert isinstance(slot, ChunkSlot)  # noqa: S101  # BDAT always has one; this tells the type checker
    return slot
