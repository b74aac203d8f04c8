"""What the rules of a relay are made of: parsing, asking the backend, answering ourselves (inbound).

``relay.py`` has the events that set it going, and the theory of operation; ``commands.py``, ``answers.py``,
``message.py``, ``introduction.py`` and ``ending.py`` have the rules.
"""

from __future__ import annotations

from smtpproxy.smtp.commands import (
    AUTH,
    AUTH_RESPONSE,
    NO_COMMANDS,
    NOOP,
    OWN_EHLO,
    OWN_GREETING,
    OWN_HELO,
    OWN_RSET,
    QUIT,
    RSET,
    Verb,
)

from . import ending, message
from .actions import Action
from .backend import Backend, ChunkSlot
from .backend import State as BackendState
from .commands import TABLE as COMMANDS
from .commands import is_barred
from .frontend import State
from .pipeline import Slot
from .state import RelayState


class RelayCore(RelayState):
    """One client's session, without its events."""

    __slots__ = ()

    def text(self, code: bytes, words: bytes) -> bytes:
        """Make a reply of our own: codes, our name, words (RFC 5321, 4.2; RFC 3463)."""
        return code + b" " + self.policy.hostname + b" " + words + b"\r\n"

    def going_down(self) -> bytes:
        """Give the reply that says so."""
        return self.text(b"421 4.3.2", b"Service shutting down, closing connection")

    def goodbye(self) -> bytes:
        """Give our own reply to QUIT (rule S17)."""
        return self.text(b"221 2.0.0", b"Closing connection")

    def new_message(self) -> None:
        """Count anew: at this point of the client's input no transaction can be open."""
        self.envelope = self.binary = False
        self.recipients_asked = 0
        self.chunk_octets = -1
        self.message_failed = False

    def say_goodbye(self, slot: Slot) -> None:
        """Answer QUIT ourselves."""
        slot.reply = self.goodbye()
        self.closing = True

    def answer(self, verb: Verb, reply: bytes) -> None:
        """Answer a command ourselves, in its turn."""
        slot = Slot(verb)
        slot.reply = reply
        self.pipeline.slots.append(slot)

    def refuse(self, verb: Verb, reply: bytes) -> None:
        """Answer a command ourselves with an error."""
        self.errors += 1
        self.answer(verb, reply)

    def ask(self, slot: Slot) -> None:
        """Give the backend a slot that is in the pipeline already."""
        backend = self.backend
        if backend is None:
            if self.spoiled:
                ending.fail(self, self.text(b"421 4.3.0", b"Backend session lost, please start again"), "backend gone")
                return
            backend = self.open_backend(None)
        backend.ask(slot)

    def advance(self) -> None:
        """Parse what is here of the client, as far as it may be understood, and send on, until nothing moves."""
        frontend = self.frontend
        while True:
            no_room = self._parse()
            state = frontend.state
            if self.eof and not no_room:
                ending.no_more_input(self)
            self.advance_backend()
            moved = frontend.state is not state or (no_room and self._has_room())
            if not (moved and (frontend.waiting or self.eof)):
                break
        self.stuffed = (no_room and not self._has_room()) or frontend.waiting >= self.policy.limits.burst_octets

    def _has_room(self) -> bool:
        limits, backend = self.policy.limits, self.backend
        if backend is not None and backend.waiting >= limits.burst_octets:
            return False
        return len(self.pipeline.slots) < limits.burst_commands or self.frontend.state is not State.COMMANDS

    def _parse(self) -> bool:
        """Parse until input, understanding or room is missing; say whether it is room (bounded bursts)."""
        frontend, slots = self.frontend, self.pipeline.slots
        limits, guarded = self.policy.limits, self.policy.starttls_required
        while True:
            backend = self.backend
            if backend is not None and backend.waiting >= limits.burst_octets:
                return True
            state = frontend.state
            if state is State.COMMANDS:
                if len(slots) >= limits.burst_commands:
                    return True
                command = frontend.next_command()
                if command is None:
                    return False
                self.command_count += 1
                if self.errors >= limits.errors or self.draining or guarded or self.trace is not None:
                    self._special_command(command)
                else:
                    COMMANDS[command.verb](self, command)
            elif not (frontend.waiting and self._parse_other(state)):
                return False

    def _parse_other(self, state: State) -> bool:
        """Take what is here and no command; say whether to go on."""
        if state is State.MAIL_DATA:
            message.read_data(self)
        elif state is State.CHUNK:
            message.read_chunk(self)
        elif state is State.AUTH_RESPONSE and (response := self.frontend.next_command()) is not None:
            self.command_count += 1
            self._special_command(response)
        else:
            return False
        return True

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

    def _special_command(self, command: Slot) -> None:
        """Deal with a command that is to be shown, or that may be one too many."""
        verb = command.verb
        if self.trace is not None:
            self.trace("C:", self._shown(verb, command.raw))
        if self.errors >= self.policy.limits.errors:
            reply = self.text(b"421 4.7.0", b"Too many errors, closing connection")
            ending.end(self, verb, reply, "too many errors")
        elif self.draining and not self.envelope and verb is not QUIT and verb is not AUTH_RESPONSE:
            ending.end(self, verb, self.going_down(), "shutdown")
        elif not (self.policy.starttls_required and is_barred(self, command)):
            COMMANDS[verb](self, command)

    def advance_backend(self) -> None:
        """Send the backend what it may be sent now."""
        while (backend := self.backend) is not None:
            before = len(backend.outstanding)
            slot = backend.advance(self.backend_out)
            waits = slot is None or not message.decide(self, backend, slot)
            if self.trace is not None:
                for sent in backend.outstanding[before:]:
                    end = isinstance(sent, ChunkSlot) and not sent.sent
                    self.trace("B>", b".\r\n" if end else self._shown(sent.verb, sent.raw))
            if waits:
                return

    def _shown(self, verb: Verb, line: bytes) -> bytes:
        """Give a line as a transcript may show it (rule H11)."""
        if verb is AUTH or verb is AUTH_RESPONSE:
            return b"AUTH ****\r\n"
        if verb in NO_COMMANDS and (self.confidential or b"AUTH" in line.upper()):
            return b"(not shown)\r\n"
        return line
