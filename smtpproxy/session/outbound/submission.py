"""A client's session on an outbound listener: it submits messages, which deliveries carry on (outbound).

Theory of operation.  MAIL is answered by us; the first RCPT decides where the message goes, and the reply to it is the
remote's own.  A delivery takes the commands and the octets of the message and gives the remote's replies back; the
slots of the pipeline keep them in order.  There is no queue: the last word to the client is the remote's last word.

Where that loses no verdict, the client is told to go on before the remote has been asked (rule C13): then the message
is here in time to leave with its envelope in one flight, and a refusal of any part of it becomes the reply to the end
of data.  ``commands.py`` says what each command does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from smtpproxy.session import ending
from smtpproxy.session.clientside import ClientSide
from smtpproxy.session.pipeline import Slot
from smtpproxy.session.transaction import Transaction
from smtpproxy.smtp.commands import GREETING

from . import intake, speculating
from .commands import TABLE
from .delivery import Delivery
from .stage import Stage
from .verdicts import tell_verdicts

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from smtpproxy.session.policy import ClientPolicy
    from smtpproxy.smtp.envelope import Mail
    from smtpproxy.smtp.maildata import MailDataReader
    from smtpproxy.smtp.unstuffing import Unstuffer

    from .policy import SubmissionPolicy
    from .recipient import Recipient
    from .remote import Remote
    from .target import Target, Unroutable
    from .verdicts import Owed


class Submission(ClientSide):
    """One client's session: its facts, and the events of its deliveries."""

    __slots__ = (
        "chunk_left",
        "chunk_octets",
        "chunk_refusal",
        "chunk_slot",
        "data_slot",
        "deliveries",
        "finished",
        "last_chunk",
        "last_slot",
        "mail",
        "orphans",
        "owed",
        "patience_over",
        "postponed",
        "reader",
        "recipients",
        "route_of",
        "speculated",
        "told",
        "unstuffer",
        "whole",
        "whole_since",
    )

    commands = TABLE
    policy: SubmissionPolicy

    def __init__(
        self,
        policy: SubmissionPolicy,
        client: ClientPolicy,
        route_of: Callable[[str], tuple[object, Hashable] | None],
    ) -> None:
        """``route_of`` gives the route of a recipient's domain and what makes it a destination; None: there is none."""
        super().__init__(policy, client)
        self.route_of = route_of
        self.mail: Mail | None = None
        """The MAIL of the transaction that is open."""
        self.recipients: list[Recipient] = []
        """Those of the transaction for which a delivery was asked."""
        self.deliveries: list[Delivery] = []
        self.finished: list[Delivery] = []
        """Deliveries that have ended and were not fetched by the owner."""
        self.orphans: list[Delivery] = []
        """Those whose message was wholly sent when the client went; they are finished for the log."""
        self.data_slot: Slot | None = None
        """The client's DATA, while it waits for its reply."""
        self.speculated = False
        """Whether the client was told to go on before a remote was asked (rule C13)."""
        self.postponed: Slot | None = None
        """A command that ends the transaction, while the replies to its recipients are still to come."""
        self.whole = False
        """Whether the message is wholly here, and its verdict awaited."""
        self.whole_since = 0.0
        """Since when, in seconds of a monotonic clock."""
        self.owed: list[Owed] | None = None
        """The words on the message that the client is owed, by recipient (LMTP), once it is known for whom."""
        self.told = False
        """Whether the last word on a message was given, and has not left."""
        self.patience_over = False
        self.reader: MailDataReader | None = None
        self.unstuffer: Unstuffer | None = None
        self.chunk_octets = -1
        """Octets announced by BDAT for the message that comes in; -1 before its first chunk."""
        self.chunk_left = 0
        self.chunk_slot: Slot | None = None
        """The chunk whose octets are coming in."""
        self.chunk_refusal = b""
        self.last_chunk = False
        self.last_slot: Slot | None = None
        """The last chunk, which is owed the verdict."""

    # --- events ----------------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin, when the client's connection has been accepted."""
        self.now = now
        slot = Slot(GREETING)
        self.pipeline.slots.append(slot)
        if self.draining:
            ending.fail(self, self.going_down(), "shutdown")
            return
        slot.reply = b"220 " + self.policy.hostname + (b" LMTP\r\n" if self.policy.lmtp else b" ESMTP\r\n")
        if self.frontend.waiting or self.eof:
            self.advance()

    def succeed(self, old: Submission, now: float) -> None:
        """Take the place of another submission, inside TLS: of what the client said nothing is left (rule S6)."""
        self.now = now
        self.trace, self.stamp, self.draining = old.trace, old.stamp, old.draining
        self.take_counts(old)
        old.part()
        self.ended, old.ended = old.ended, ()
        self.finished, old.finished = old.finished, []

    def targets_found(self, delivery: Delivery, found: list[Target] | Unroutable, now: float) -> None:
        """Take where a delivery can go (the answer to FIND_TARGETS)."""
        self.now = now
        delivery.targets_found(found)
        self._resume()

    def session_found(self, delivery: Delivery, remote: Remote, now: float, *, kept: bool) -> None:
        """Take a session with the target of a delivery (the answer to OPEN)."""
        self.now = now
        remote.trace = self.trace
        if kept:
            delivery.borrow(remote)
        else:
            delivery.begin(remote)
        self._resume()

    def unreachable(self, delivery: Delivery, why: str, now: float) -> None:
        """Learn that no connection with the target of a delivery can even be begun (the other answer to OPEN)."""
        self.now = now
        delivery.unreachable(why)
        self._resume()

    def remote_received(self, delivery: Delivery, data: bytes, now: float) -> None:
        """Take bytes of a remote."""
        self.now = now
        delivery.remote_received(data)
        self._resume()

    def remote_secured(self, delivery: Delivery, now: float) -> None:
        """Learn that the TLS handshake with a remote is done."""
        self.now = now
        delivery.remote_secured()
        self._resume()

    def remote_lost(self, delivery: Delivery, why: str, now: float, **how: bool) -> None:
        """Learn that the connection with a remote is gone; ``how`` as ``Delivery.remote_lost`` takes it."""
        self.now = now
        delivery.remote_lost(why, **how)
        self._resume()

    def delivery_overdue(self, delivery: Delivery, now: float) -> None:
        """Learn that all tries of a delivery together have taken too long."""
        self.now = now
        delivery.overdue()
        self._resume()

    def remote_writable(self, delivery: Delivery, now: float, *, full: bool) -> None:
        """Learn that a remote does not read what we send, or reads it again."""
        self.now = now
        if delivery.remote is not None:
            delivery.remote.full = full
        self._resume()

    def patience_ended(self, now: float) -> None:
        """Learn that a flight has waited long enough for the rest of a chunk (rule C8)."""
        self.now = now
        self.patience_over = True
        self._resume()

    def delivery_impatient(self, delivery: Delivery, now: float) -> None:
        """Learn that what is here of a message has waited for the rest long enough: the remote would not for ever."""
        self.now = now
        delivery.impatient = True
        self._resume()

    def _resume(self) -> None:
        if self.frontend.waiting or self.eof or self.stuffed:
            self.advance()
        else:
            self.go_on()

    def take_replies(self, *, hold: bool = True) -> bytes:
        """Give what is to be written to the client: the word on a message waits for nothing behind it."""
        told, self.told = self.told, False
        return super().take_replies(hold=hold and not told)

    # --- going on (Dialogue) -----------------------------------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """Whether no more is to be parsed: a verdict is awaited, or a remote does not keep up (bounded bursts)."""
        if self.whole or self.postponed is not None:
            return True
        limit = self.policy.limits.burst_octets
        return any(d.message.waiting >= limit and not d.holding and d.stage is not Stage.DONE for d in self.deliveries)

    @property
    def all_answered(self) -> bool:
        """Whether every recipient of the transaction has its reply."""
        return all(recipient.slot.reply for recipient in self.recipients)

    @property
    def waits_for_chunk(self) -> bool:
        """Whether a flight is held for the rest of a chunk, so that the owner minds its patience."""
        return self.chunk_slot is not None and any(delivery.holding for delivery in self.deliveries)

    def go_on(self) -> None:
        """Let every delivery send what it may send now."""
        if self.postponed is not None and self.all_answered:
            command, self.postponed = self.postponed, None
            self.commands[command.verb](self, command)
        speculating.speculate(self)
        for delivery in tuple(self.deliveries):
            delivery.holding = speculating.awaits_message(self, delivery)
            delivery.advance()
        intake.open_data(self)
        if self.orphans:
            self.finished += [delivery for delivery in self.orphans if delivery.stage is Stage.DONE]
            self.orphans = [delivery for delivery in self.orphans if delivery.stage is not Stage.DONE]

    # --- what deliveries tell (DeliveryOwner) ----

    def recipient_answered(self, delivery: Delivery, recipient: Recipient) -> None:
        """Pass the remote's reply on, if the client is still owed one."""
        if not recipient.slot.reply:
            delivery.spoken = True
            recipient.slot.reply = recipient.reply
            if self.whole and self.policy.lmtp:
                tell_verdicts(self)

    def go_ahead(self, delivery: Delivery, reply: bytes) -> None:
        """Let the client send its message: this remote takes it now, or will."""
        if self.data_slot is not None and not self.policy.lmtp:
            delivery.spoken = True
            intake.begin_data(self, reply or intake.GO_AHEAD)

    def delivery_done(self, delivery: Delivery) -> None:
        """Take the last word of a remote."""
        for recipient in delivery.recipients:
            recipient.slot.reply = recipient.slot.reply or recipient.reply
        if self.whole:
            tell_verdicts(self)
        elif self.data_slot is not None and not self.policy.lmtp:
            intake.refuse_waiting_data(self, delivery.reply)

    def holds_up(self, delivery: Delivery) -> bool:
        """Say whether others, whose mail was taken, have their word or wait for it because of this one (LMTP)."""
        taken = any(other.stage is Stage.DONE and other.reply[:1] == b"2" for other in self.deliveries)
        return self.whole and taken and delivery.stage is not Stage.DONE

    # --- the message -----------------------------------------------------------------------------------------------

    def count_octets(self, octets: int) -> None:
        """Count mail data that has come."""
        self.octets += octets
        if self.trace is not None:
            self.trace("C:", b"(%d octets of mail data)\r\n" % octets)

    def feed(self, octets: bytes) -> None:
        """Give octets of the message to every delivery."""
        if not self.verdict:
            for delivery in self.deliveries:
                delivery.feed(octets)

    def read_data(self) -> None:
        """Take what is here of the mail data."""
        intake.read_data(self)

    def read_chunk(self) -> None:
        """Take what is here of a chunk."""
        intake.read_chunk(self)

    # --- ending ------------------------------------------------------------------------------------------------------

    def end_transaction(self, reply: bytes) -> None:
        """Forget the transaction; ``reply``: the last word on it, empty if there is none."""
        self.abandon()
        for recipient in self.recipients:
            recipient.slot.reply = recipient.slot.reply or _GIVEN_UP
        self._count()
        ending.finish_transaction(self, reply)
        self.finished += self.deliveries
        self.deliveries = []
        self.recipients = []
        self.mail = self.postponed = None
        self.data_slot = self.chunk_slot = self.last_slot = None
        self.owed = None
        self.whole = self.speculated = self.patience_over = False
        self.verdict = b""
        self.new_message()

    def _count(self) -> None:
        for recipient in self.recipients:
            if recipient.accepted:
                self.recipients_accepted += 1
                if self.transaction is not None:
                    self.transaction.accept(recipient.slot.raw)
            else:
                self.recipients_refused += 1
                if self.transaction is not None:
                    self.transaction.refused += 1

    def new_message(self) -> None:
        """Count anew: at this point of the client's input no transaction can be open."""
        self.envelope = False
        self.recipients_asked = 0
        self.chunk_octets = -1
        self.message_failed = False

    def abandon(self) -> None:
        """Give up every delivery that has not had its last word (rules S10, S15)."""
        for delivery in self.deliveries:
            if delivery.stage is not Stage.DONE:
                delivery.abandon()

    def reset(self) -> None:
        """Give the transaction up that is open (RSET, EHLO, the end of the session)."""
        self.end_transaction(b"")

    def part(self) -> None:
        """Let go of every delivery: what is wholly on its way stays so, nothing else may count (rule S10)."""
        for delivery in tuple(self.deliveries):
            if delivery.stage is not Stage.DONE and delivery.progress.finished:
                # Its fate is the remote's; the owner waits for the word, for the log.
                delivery.orphan()
                self.deliveries.remove(delivery)
                self.orphans.append(delivery)
        self.end_transaction(b"")

    def withdraw_data(self) -> None:
        """Let the DATA that is not answered yet be refused for what came behind it (rule S5)."""
        slot = self.data_slot
        self.end_transaction(b"")
        if slot is not None:
            slot.reply = ending.SYNCHRONISATION_LOST

    def new_delivery(self, route: object, destination: Any) -> Delivery:  # noqa: ANN401  # whatever can be compared
        """Begin a delivery of the transaction that is open."""
        assert self.mail is not None  # noqa: S101  # RCPT is refused without it; this tells the type checker
        delivery = Delivery(
            self,
            self.mail,
            destination,
            route,
            bare=self.client.bare,
            pass_nul=self.client.pass_nul,
            speculation=self.policy.speculation,
            now=self.now,
        )
        self.deliveries.append(delivery)
        return delivery

    def open_transaction(self, mail: Mail, raw: bytes) -> None:
        """Begin a transaction."""
        self.new_message()
        self.envelope = True
        self.mail = mail
        self.transaction = Transaction(raw, self.now)


_GIVEN_UP: Final = b"451 4.3.0 Transaction given up\r\n"
