"""The client's half of a session: what came of the client, what is owed to it, how its bytes become commands.

A relay (inbound) and a submission (outbound) are both a dialogue with a client; they differ in who answers.  What a
command does stands in each one's own table, ``commands``; here is what they have in common.  ``clientside.py`` has the
events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from smtpproxy.smtp.commands import AUTH, AUTH_RESPONSE, NO_COMMANDS, QUIT, Verb

from . import ending
from .frontend import Frontend, State
from .pipeline import ReplyPipeline, Slot
from .verbs import is_barred

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .actions import Action
    from .policy import ClientPolicy, DialoguePolicy
    from .transaction import Transaction


class Dialogue:
    """The facts of one client's session, and what both kinds of session do with them.

    ``now`` is always in seconds of a monotonic clock.
    """

    __slots__ = (
        "actions",
        "authenticated",
        "client",
        "closing",
        "command_count",
        "confidential",
        "draining",
        "early",
        "ehlo",
        "ended",
        "envelope",
        "eof",
        "errors",
        "frontend",
        "handed_over",
        "heard",
        "message_failed",
        "named",
        "now",
        "octets",
        "offered",
        "over",
        "pace",
        "pipeline",
        "policy",
        "reason",
        "recipients_accepted",
        "recipients_asked",
        "recipients_refused",
        "refused_data",
        "relay_refused",
        "reply_count",
        "stamp",
        "stuffed",
        "trace",
        "transaction",
        "turns",
        "verdict",
        "violations",
    )

    commands: ClassVar[Mapping[Verb, Callable[..., None]]]
    """What each command of a client does; every one leaves exactly one slot in the pipeline (rule S3)."""

    policy: DialoguePolicy

    def __init__(self, policy: DialoguePolicy, client: ClientPolicy) -> None:  # noqa: PLR0915  # so many facts
        limits = policy.limits
        self.policy = policy
        self.client = client
        self.frontend = Frontend(limits.line, limits.auth_line)
        self.pipeline = ReplyPipeline()
        self.actions: list[Action] = []
        self.trace: Callable[[str, bytes], None] | None = None
        """Told a direction (``C:``, ``S:`` towards the client, ``B>``, ``B<`` at the server) and what went there."""
        self.stamp: Callable[[], bytes] | None = None
        """Makes the trace header that goes on top of a message (RFC 5321, 4.4)."""
        self.now = 0.0

        self.heard = b""
        """The client's last EHLO or HELO line, accepted or not."""
        self.ehlo = b""
        """The client's EHLO or HELO line, once accepted."""
        self.named: dict[bytes, bytes] | None = None
        """Who the client is, as a trusted proxy says by XCLIENT."""
        self.offered = False
        """Whether the client is being sent the keyword of early pipelining (rule S1)."""
        self.confidential = False
        """Whether AUTH was seen, so that what is no command may be a secret (rule H11)."""
        self.authenticated = False
        self.early = False
        """Whether the client spoke before the greeting was written (rule S2)."""
        self.eof = False
        self.stuffed = False
        """Whether no more of the client should be read until servers have answered (bounded bursts)."""
        self.closing = False
        """Whether the session ends as soon as every owed reply has left."""
        self.handed_over = False
        """Whether another dialogue takes the place of this one, inside TLS or for another client."""
        self.over = False
        self.draining = False
        """Whether the service is going down."""
        self.reason = ""
        """Why the session ended."""

        self.transaction: Transaction | None = None
        self.ended: tuple[Transaction, ...] = ()
        """Transactions that have ended and were not fetched by the owner."""
        self.envelope = False
        """Whether a transaction may be open at the point up to which the client has been read."""
        self.recipients_asked = 0
        self.verdict = b""
        """Why the message that comes in by DATA will not be taken; its data is thrown away (rule S15)."""
        self.message_failed = False
        """Whether a chunk was refused, so that no other of this message may follow."""
        self.refused_data: tuple[Slot, bytes] | None = None
        """A refusal of DATA that waits for the last look at the client's input (rule H4)."""

        self.command_count = 0
        self.reply_count = 0
        self.octets = 0
        self.errors = 0
        self.turns = 1
        """Round trips that the client has waited: one for the greeting or the first flight, then one each time that
        it sent something while nothing was owed to it."""
        self.violations = 0
        """Times that the client was out of step (rule S5)."""
        self.relay_refused = 0
        """Recipients refused for their domain (rule S14)."""
        self.recipients_accepted = 0
        self.recipients_refused = 0
        self.pace = ""

    # --- what each kind of session has of its own ------------------------------------------------------------------

    def go_on(self) -> None:
        """Send on what may be sent now."""
        raise NotImplementedError  # Relay and Submission have it

    def part(self) -> None:
        """Part from every server in the way that its state asks for: nothing half done may count (rule S10)."""
        raise NotImplementedError  # the same

    @property
    def congested(self) -> bool:
        """Whether so much waits for servers that no more should be parsed (bounded bursts)."""
        raise NotImplementedError  # the same

    def read_data(self) -> None:
        """Take what is here of the mail data."""
        raise NotImplementedError  # the same

    def read_chunk(self) -> None:
        """Take what is here of a chunk."""
        raise NotImplementedError  # the same

    def withdraw_data(self) -> None:
        """Let the DATA that is not answered yet be refused for what came behind it (rule S5)."""
        raise NotImplementedError  # the same

    def new_message(self) -> None:
        """Count anew: at this point of the client's input no transaction can be open."""
        raise NotImplementedError  # the same

    # --- answering ---------------------------------------------------------------------------------------------------

    def text(self, code: bytes, words: bytes) -> bytes:
        """Make a reply of our own: codes, our name, words (RFC 5321, 4.2; RFC 3463)."""
        return code + b" " + self.policy.hostname + b" " + words + b"\r\n"

    def going_down(self) -> bytes:
        """Give the reply that says so."""
        return self.text(b"421 4.3.2", b"Service shutting down, closing connection")

    def goodbye(self) -> bytes:
        """Give our own reply to QUIT (rule S17)."""
        return self.text(b"221 2.0.0", b"Closing connection")

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

    # --- parsing -----------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Parse what is here of the client, as far as it may be understood, and send on, until nothing moves."""
        frontend = self.frontend
        while True:
            no_room = self._parse()
            state = frontend.state
            if self.eof and not no_room:
                ending.no_more_input(self)
            self.go_on()
            moved = frontend.state is not state or (no_room and self._has_room())
            if not (moved and (frontend.waiting or self.eof)):
                break
        self.stuffed = (no_room and not self._has_room()) or frontend.waiting >= self.policy.limits.burst_octets

    def _has_room(self) -> bool:
        if self.congested:
            return False
        return len(self.pipeline.slots) < self.policy.limits.burst_commands or self.frontend.state is not State.COMMANDS

    def _parse(self) -> bool:
        """Parse until input, understanding or room is missing; say whether it is room (bounded bursts)."""
        frontend, slots, commands = self.frontend, self.pipeline.slots, self.commands
        limits, guarded = self.policy.limits, self.policy.starttls_required
        while True:
            if self.congested:
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
                    commands[command.verb](self, command)
            elif not (frontend.waiting and self._parse_other(state)):
                return False

    def _parse_other(self, state: State) -> bool:
        """Take what is here and no command; say whether to go on."""
        if state is State.MAIL_DATA:
            self.read_data()
        elif state is State.CHUNK:
            self.read_chunk()
        elif state is State.AUTH_RESPONSE and (response := self.frontend.next_command()) is not None:
            self.command_count += 1
            self._special_command(response)
        else:
            return False
        return True

    def _special_command(self, command: Slot) -> None:
        """Deal with a command that is to be shown, or that may be one too many."""
        verb = command.verb
        if self.trace is not None:
            self.trace("C:", self.shown(verb, command.raw))
        if self.errors >= self.policy.limits.errors:
            reply = self.text(b"421 4.7.0", b"Too many errors, closing connection")
            ending.end(self, verb, reply, "too many errors")
        elif self.draining and not self.envelope and verb is not QUIT and verb is not AUTH_RESPONSE:
            ending.end(self, verb, self.going_down(), "shutdown")
        elif not (self.policy.starttls_required and is_barred(self, command)):
            self.commands[verb](self, command)

    def shown(self, verb: Verb, line: bytes) -> bytes:
        """Give a line as a transcript may show it (rule H11)."""
        if verb is AUTH or verb is AUTH_RESPONSE:
            return b"AUTH ****\r\n"
        if verb in NO_COMMANDS and (self.confidential or b"AUTH" in line.upper()):
            return b"(not shown)\r\n"
        return line
