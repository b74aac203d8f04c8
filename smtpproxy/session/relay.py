"""The relay: one client's frontend and its backend joined (inbound).

Theory of operation.  Bytes of the client become commands; each command becomes a slot, an owed reply, at the end of
the reply pipeline.  A slot is answered by us, or goes to the backend, which asks it of the server at the pace that the
server can bear; the server's replies come back in order and fill their slots.  What is filled at the head of the
pipeline leaves, a whole group in one write.  So a burst sent before the greeting is nothing special: its slots wait.

The relay does no I/O.  Its owner feeds it (``client_received``, ``backend_received`` and the other events); after each
event it writes ``take_replies()`` to the client and ``backend_out`` to the server, and carries out ``actions`` in
their order.  ``commands.py`` says what a command does, ``answers.py`` what a server's reply does, ``message.py`` how
mail data flows, ``ending.py`` how all this ends, ``state.py`` has the facts that they share; here are the events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpproxy.smtp.commands import (
    AUTH,
    AUTH_RESPONSE,
    GREETING,
    NO_COMMANDS,
    NOOP,
    OWN_EHLO,
    OWN_GREETING,
    OWN_HELO,
    OWN_RSET,
    QUIT,
    RSET,
    Verb,
    Wait,
)

from . import ending, message
from .actions import Action
from .answers import answer, greet_again
from .backend import Backend, ChunkSlot
from .backend import State as BackendState
from .commands import TABLE as COMMANDS
from .commands import is_barred
from .frontend import State
from .introduction import NEED_EHLO
from .pipeline import Slot
from .state import RelayState

if TYPE_CHECKING:
    from .origin import Origin


class Relay(RelayState):
    """One client's session: its events, and the few primitives that the modules beside this one are made of."""

    __slots__ = ()

    # --- events: the client ------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin, when the client's connection has been accepted, or when it is another client's from now on."""
        self.now = now
        greeting = Slot(GREETING)
        self.pipeline.slots.append(greeting)
        if self.backend is not None:
            greet_again(self, self.backend, greeting)
        elif self.policy.eager or self.learned is None:
            self._open(greeting)
        else:
            greeting.reply = b"220 " + self.learned.host + b" ESMTP\r\n"
        if self.frontend.waiting:
            self.advance()

    def await_tls(self) -> None:
        """Wait for the handshake of a connection that is TLS from its first octet on."""
        self.handed_over = True

    def tls_begun(self) -> None:
        """Learn that it is done; ``start`` is next."""
        self.handed_over = False

    def succeed(self, old: Relay, now: float, *, same_client: bool, keep_backend: bool = True) -> None:
        """Take the place of another relay: inside TLS, or for the client that XCLIENT has named (rule S6).

        What it has counted goes on, and the backend stays if it is at rest and may hear another EHLO; of what the
        client said nothing is left.  ``same_client``: whether nothing new is known of who it is.
        ``keep_backend``: whether the backend can serve it.
        """
        self.now = now
        self.origin = old.origin if same_client else None
        self.told = old.told
        self.trace, self.stamp, self.draining = old.trace, old.stamp, old.draining
        self.once_only = old.once_only
        for name in _COUNTS:
            setattr(self, name, getattr(old, name))
        self.ended, old.ended = old.ended, []
        if old.frontend.state is State.AWAIT_CLIENT:
            # It is for the client that was named: whom we trust may send it in one burst.
            self.frontend.receive(old.frontend.take_mail_data())
        self.pipeline.replies, self.pipeline.groups = old.pipeline.replies, old.pipeline.groups
        backend = old.backend
        if backend is None:
            return
        if keep_backend and self._may_keep(backend):
            old.backend = None
            self.backend = backend
            self._meet_again(backend)
        else:
            ending.leave_backend(old)
            self.actions, self.released = old.actions, old.released

    def _may_keep(self, backend: Backend) -> bool:
        at_rest = backend.state is BackendState.READY and backend.idle and not backend.partial
        return at_rest and not backend.secret and not (self.once_only and backend.ehlo)

    def _meet_again(self, backend: Backend) -> None:
        if self.policy.introduces and backend.introduced is not None and self.origin is None:
            backend.estrange()
        elif backend.ehlo:
            backend.decisions |= NEED_EHLO

    def begin_secure(self) -> None:
        """Begin inside TLS, after the client's STARTTLS: there is no second greeting (RFC 3207, 4.2)."""
        if self.policy.eager and self.backend is None:
            self._open(None)

    def client_received(self, data: bytes, now: float) -> None:
        """Take bytes of the client."""
        self.now = now
        frontend = self.frontend
        state = frontend.state
        if not self.pipeline.slots:
            self.turns += state is not State.MAIL_DATA and not frontend.waiting
        elif not self.pipeline.groups and not self.early:
            self.early = True
            if self.client.early_refusal:
                self.pipeline.abandon()
                ending.fail(self, self.client.early_refusal, "pregreet")
                return
        if state is State.AWAIT_DATA:
            message.talked_behind_data(self)
            return
        if state is State.AWAIT_TLS:
            ending.talked_behind_starttls(self)
            return
        frontend.receive(data)
        self.advance()

    def client_quiet(self, now: float) -> None:
        """Learn that nothing more of the client was there to be read (the answer to PROBE_CLIENT)."""
        self.now = now
        message.data_refused(self)
        self.advance()

    def client_eof(self, now: float) -> None:
        """Learn that the client has closed its writing side: what it sent is still answered (rule S13)."""
        self.now = now
        self.eof = True
        self.advance()

    def client_lost(self, why: str) -> None:
        """Learn that the client's connection is gone."""
        ending.vanish(self, why)

    def client_identified(self, origin: Origin) -> None:
        """Learn who the client is (the answer to IDENTIFY_CLIENT)."""
        self.origin = origin
        self._advance_backend()

    def client_refused(self, why: str) -> None:
        """Learn that there is no room for the client that XCLIENT has named."""
        ending.fail(self, self.text(b"421 4.3.2", why.capitalize().encode() + b", try again later"), why)

    def client_timed_out(self) -> None:
        """Learn that the client has let its time pass (RFC 5321, 4.5.3.2.7)."""
        why = "TLS handshake timed out" if self.handed_over else "client timed out"
        ending.fail(self, self.text(b"421 4.4.2", b"Timeout, closing connection"), why)

    # --- events: the backend -----------------------------------------------------------------------------------

    def backend_received(self, data: bytes, now: float) -> None:
        """Take bytes of the server."""
        self.now = now
        backend = self.backend
        if backend is None:
            return
        replies = backend.reader.receive(data)
        if backend.state is BackendState.TLS and replies and (len(replies) > 1 or backend.reader.pending):
            # What came in clear must not count inside TLS (RFC 3207, 5).
            self.retry("backend sent more than its reply to STARTTLS")
            return
        for reply in replies:
            self.reply_count += 1
            if self.trace is not None:
                self.trace("B<", reply.raw)
            answer(self, backend, reply)
            if self.backend is not backend:
                break
        else:
            if backend.reader.fault:
                self.backend_lost(f"backend sent garbage: {backend.reader.fault}")
        if self.frontend.waiting or self.eof or self.stuffed:
            self.advance()
        else:
            self._advance_backend()

    def backend_borrowed(self, kept: Backend) -> None:
        """Take a kept session with a server as the answer to CONNECT (rule S18)."""
        fresh = self.backend
        if fresh is None:
            return
        greeting = fresh.outstanding.pop()
        kept.queue, kept.waiting = fresh.queue, fresh.waiting
        self.backend = kept
        greet_again(self, kept, greeting)
        self.advance()

    def backend_secured(self, now: float) -> None:
        """Learn that the TLS handshake with the server is done (the answer to START_BACKEND_TLS)."""
        self.now = now
        if self.backend is not None:
            self.backend.secured()
            self.advance()

    def backend_lost(self, why: str) -> None:
        """Learn that the connection with the server is gone, or of no use any more."""
        ending.backend_lost(self, why)

    def backend_failed(self, why: str) -> None:
        """Learn that no server could be reached (the other answer to CONNECT and NEXT_SERVER)."""
        self.backend = None
        ending.fail(self, self.text(b"421 4.3.2", b"Service not available, try again later"), why)

    def backend_timed_out(self) -> None:
        """Learn that the server has let its time pass (RFC 5321, 4.5.3.2)."""
        ending.backend_lost(self, "backend timed out")

    # --- events: our own side ----------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """Learn that the service is going down: end between transactions, with 421 (RFC 5321, 3.8)."""
        self.draining = True
        if not self.closing and self.at_rest:
            ending.fail(self, self.going_down(), "shutdown")

    def end_now(self) -> None:
        """Learn that the service cannot wait any longer: the message that comes in is given up (rule S15)."""
        ending.fail(self, self.going_down(), "shutdown")

    def internal_error(self) -> None:
        """Learn that we have failed ourselves: this session ends, nothing else does (rule H10)."""
        ending.fail(self, self.text(b"421 4.3.0", b"Internal error, closing connection"), "internal error")

    # --- what the owner asks ------------------------------------------------------------------------------------

    def take_replies(self, *, hold: bool = True) -> bytes:
        """Give what is to be written to the client; without ``hold`` also part of a group (rule S4)."""
        slots = self.pipeline.slots
        replies = self._take(hold=hold) if slots and slots[0].reply else b""
        if self.stuffed and replies:
            replies += self._take_more(hold=hold)
        if not slots:
            if self.closing:
                ending.close(self)
            elif not self.handed_over and (action := _HAND_OVER.get(self.frontend.state)) is not None:
                self.handed_over = True
                self.actions.append(action)
            elif self.draining and self.at_rest:
                ending.fail(self, self.going_down(), "shutdown")
                replies += self._take(hold=False)
                ending.close(self)
        return replies

    def _take(self, *, hold: bool) -> bytes:
        # Where the client's own bytes are missing, the replies before them must not wait for it.
        replies = self.pipeline.take(hold=hold and self.frontend.state not in _INPUT_IS_MISSING)
        if replies and self.trace is not None:
            self.trace("S:", replies)
        return replies

    def _take_more(self, *, hold: bool) -> bytes:
        """Read on where replies that have left made room for more commands of a burst."""
        taken = []
        while self.stuffed:
            self.advance()
            replies = self._take(hold=hold)
            if not replies:
                break
            taken.append(replies)
        return b"".join(taken)

    @property
    def at_rest(self) -> bool:
        """Whether the client is between transactions and owed nothing."""
        return self.transaction is None and not self.pipeline.slots and self.frontend.state is State.COMMANDS

    @property
    def client_wait(self) -> Wait:
        """What we wait for from the client."""
        state = self.frontend.state
        if state is State.MAIL_DATA or state is State.CHUNK:
            return Wait.NOTHING if self.stuffed else Wait.DATA_BLOCK
        if self.handed_over:
            return Wait.CLIENT_TLS
        if self.closing or (self.pipeline.slots and not self.pipeline.ready):
            return Wait.NOTHING
        return Wait.COMMAND

    @property
    def backend_wait(self) -> Wait:
        """What we wait for from the server."""
        slot = None if self.backend is None else self.backend.awaited
        if slot is None and self.backend is not None and self.backend.state is BackendState.TLS:
            return Wait.BACKEND_TLS
        if slot is None or (isinstance(slot, ChunkSlot) and slot.left):
            return Wait.NOTHING
        return slot.verb.wait

    # --- what the modules beside this one are made of -------------------------------------------------------------

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
        self.envelope = self.binary = self.chunks = False
        self.recipients_asked = 0
        self.chunk_octets = 0
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
            backend = self._open(None)
        backend.ask(slot)

    def advance(self) -> None:
        """Parse what is here of the client, as far as it may be understood, and send on, until nothing moves."""
        frontend = self.frontend
        while True:
            no_room = self._parse()
            state = frontend.state
            if self.eof and not no_room:
                ending.no_more_input(self)
            self._advance_backend()
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
            backend.queue.insert(0, Slot(OWN_EHLO if self.ehlo[:1] in b"Ee" else OWN_HELO, self.ehlo))
            backend.waiting += len(self.ehlo)
        elif backend.transaction:
            backend.queue.insert(0, Slot(OWN_RSET, b"RSET\r\n"))
            backend.waiting += 6

    def _open(self, greeting: Slot | None) -> Backend:
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

    def _advance_backend(self) -> None:
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


_HAND_OVER = {State.AWAIT_TLS: Action.START_TLS, State.AWAIT_CLIENT: Action.CHANGE_CLIENT}
_COUNTS = (
    "command_count",
    "early",
    "errors",
    "octets",
    "recipients_accepted",
    "recipients_refused",
    "relay_refused",
    "reply_count",
    "turns",
    "violations",
)
_INPUT_IS_MISSING = frozenset({State.CHUNK, State.MAIL_DATA, State.AUTH_RESPONSE})
