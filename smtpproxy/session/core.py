"""What the rules of a relay are made of: parsing, asking the backend, answering ourselves (inbound).

``relay.py`` has the events that set it going, and the theory of operation; ``commands.py``, ``answers.py``,
``message.py``, ``introduction.py``, ``leaving.py`` and ``ending.py`` have the rules.
"""

from __future__ import annotations

from smtpproxy.smtp.commands import (
    DATA,
    NOOP,
    OWN_EHLO,
    OWN_GREETING,
    OWN_HELO,
    OWN_RSET,
    QUIT,
    RSET,
)

from . import ending, leaving, message
from .actions import Action
from .backend import Backend, ChunkSlot
from .backend import State as BackendState
from .commands import TABLE as COMMANDS
from .pipeline import Slot
from .state import RelayState


class RelayCore(RelayState):
    """One client's session, without its events."""

    __slots__ = ()

    commands = COMMANDS

    def new_message(self) -> None:
        """Count anew: at this point of the client's input no transaction can be open."""
        self.envelope = self.binary = False
        self.recipients_asked = 0
        self.chunk_octets = -1
        self.message_failed = False

    @property
    def congested(self) -> bool:
        """Whether the backend has more than enough to be asked (bounded bursts)."""
        backend = self.backend
        return backend is not None and backend.waiting >= self.policy.limits.burst_octets

    def read_data(self) -> None:
        """Take what is here of the mail data."""
        message.read_data(self)

    def read_chunk(self) -> None:
        """Take what is here of a chunk."""
        message.read_chunk(self)

    def withdraw_data(self) -> None:
        """Let the DATA that is not answered yet be refused for what came behind it (rule S5)."""
        backend = self.backend
        if backend is not None and backend.queue and backend.queue[-1].verb is DATA:
            backend.queue[-1].reply = ending.SYNCHRONISATION_LOST
            backend.drop(backend.queue[-1])
        else:
            self.out_of_step = True

    def part(self) -> None:
        """Part from the backend in the way that its state asks for."""
        leaving.leave_backend(self)

    def ask(self, slot: Slot) -> None:
        """Give the backend a slot that is in the pipeline already."""
        backend = self.backend
        if backend is None:
            if self.spoiled:
                ending.fail(self, self.text(b"421 4.3.0", b"Backend session lost, please start again"), "backend gone")
                return
            backend = self.open_backend(None)
        backend.ask(slot)

    def ask_again(self, slots: list[Slot]) -> None:
        """Give a fresh backend what a lost one was still to be asked, from the first command on that needs one."""
        for slot in slots:
            if self.backend is None and slot.verb is QUIT:
                self.say_goodbye(slot)
            elif self.backend is None and (slot.verb is RSET or slot.verb is NOOP):
                slot.reply = b"250 2.0.0 Ok\r\n"
            else:
                self.ask(slot)

    def send_now(self, backend: Backend, slot: Slot) -> None:
        """Ask the backend something before all that is queued."""
        if self.trace is not None:
            self.trace("B>", slot.raw)
        backend.send(slot, self.backend_out)

    def retry(self, why: str) -> None:
        """Let another server take the place of one that has done nothing for the client yet (rule S19)."""
        old = self.backend
        if old is None:
            return
        attempt = old.take_attempt()
        if attempt is not None:
            old.ask_again(attempt[0])
        self.backend = Backend(lockstep=self.policy.lockstep, stranger=self.policy.stranger)
        greeting = old.outstanding if old.state is BackendState.GREETING else [Slot(OWN_GREETING)]
        self.backend.outstanding = greeting
        self.backend.queue, self.backend.waiting = old.queue, old.waiting
        self.backend_fault = why
        self.actions.append(Action.NEXT_SERVER)

    def resume_identity(self, backend: Backend) -> None:
        """Bring a session that is new to this client to where the client believes it to be (rules S15, S18)."""
        if backend.stranger:
            return
        if self.ehlo and self.ehlo != backend.ehlo:
            backend.ask_first(Slot(OWN_EHLO if self.ehlo[:1] in b"Ee" else OWN_HELO, self.ehlo))
        elif backend.transaction:
            backend.ask_first(Slot(OWN_RSET, b"RSET\r\n"))

    def open_backend(self, greeting: Slot | None) -> Backend:
        """Ask for a session with a server; ``greeting`` is the slot of a client that waits for its greeting."""
        backend = Backend(lockstep=self.policy.lockstep, stranger=self.policy.stranger)
        backend.outstanding.append(greeting or Slot(OWN_GREETING))
        self.backend = backend
        self.backend_out.clear()
        self.actions.append(Action.CONNECT)
        return backend

    def go_on(self) -> None:
        """Send the backend what it may be sent now."""
        while (backend := self.backend) is not None:
            before = len(backend.outstanding)
            slot = backend.advance(self.backend_out)
            waits = slot is None or not message.decide(self, backend, slot)
            if self.trace is not None:
                for sent in backend.outstanding[before:]:
                    end = isinstance(sent, ChunkSlot) and not sent.sent
                    self.trace("B>", b".\r\n" if end else self.shown(sent.verb, sent.raw))
            if waits:
                return
