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
from smtpproxy.session.frontend import Event, State
from smtpproxy.session.message import FAULTS, TOO_BIG
from smtpproxy.session.pipeline import Slot
from smtpproxy.session.refusals import refuse_data
from smtpproxy.session.transaction import Transaction
from smtpproxy.smtp.commands import BDAT, DATA, END_OF_DATA, GREETING
from smtpproxy.smtp.maildata import MailDataReader
from smtpproxy.smtp.unstuffing import Unstuffer

from .answers import NO_RECIPIENTS
from .commands import TABLE
from .delivery import Delivery, Stage
from .recipient import Recipient
from .target import Unroutable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from smtpproxy.session.policy import ClientPolicy
    from smtpproxy.smtp.envelope import Mail

    from .policy import SubmissionPolicy
    from .remote import Remote
    from .target import Target


class Submission(ClientSide):
    """One client's session: its facts, and the events of its deliveries."""

    __slots__ = (
        "_reader",
        "_unstuffer",
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
        "patience_over",
        "recipients",
        "route_of",
        "speculated",
        "split",
        "whole",
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
        self.split = 0
        """Recipients refused because they have another destination than the first one."""
        self.whole = False
        """Whether the message is wholly here, and its verdict awaited."""
        self.patience_over = False
        self._reader: MailDataReader | None = None
        self._unstuffer: Unstuffer | None = None
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

    def delivery_overdue(self, delivery: Delivery, now: float, *, handed: bool) -> None:
        """Learn that all tries of a delivery together have taken too long."""
        self.now = now
        delivery.overdue(handed=handed)
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

    def _resume(self) -> None:
        if self.frontend.waiting or self.eof or self.stuffed:
            self.advance()
        else:
            self.go_on()

    # --- going on (Dialogue) -----------------------------------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """Whether no more is to be parsed: a verdict is awaited, or a remote does not keep up (bounded bursts)."""
        if self.whole:
            return True
        limit = self.policy.limits.burst_octets
        return any(d.message.waiting >= limit and not d.holding and d.stage is not Stage.DONE for d in self.deliveries)

    @property
    def waits_for_chunk(self) -> bool:
        """Whether a flight is held for the rest of a chunk, so that the owner minds its patience."""
        return self.chunk_slot is not None and any(delivery.holding for delivery in self.deliveries)

    def go_on(self) -> None:
        """Let every delivery send what it may send now."""
        self._speculate()
        for delivery in tuple(self.deliveries):
            delivery.holding = self._awaits_message(delivery)
            delivery.advance()
        self._open_data()
        if self.orphans:
            self.finished += [delivery for delivery in self.orphans if delivery.stage is Stage.DONE]
            self.orphans = [delivery for delivery in self.orphans if delivery.stage is not Stage.DONE]

    def _speculate(self) -> None:
        """Tell the client to go on, where that loses no verdict (rule C13)."""
        if self.policy.speculation is None or self.mail is None or self.frontend.state is State.CHUNK:
            return
        if self.policy.lmtp:
            for recipient, delivery in self._unanswered():
                if delivery.rideable:
                    self.speculated = True
                    recipient.slot.reply = _RECIPIENT_OK
        elif self.frontend.state is State.AWAIT_DATA and len(self.recipients) == 1:
            for recipient, delivery in self._unanswered():
                if delivery.rideable:
                    self.speculated = True
                    recipient.slot.reply = _RECIPIENT_OK
                    self._begin_data(_GO_AHEAD)

    def _unanswered(self) -> list[tuple[Recipient, Delivery]]:
        return [(r, d) for d in self.deliveries for r in d.recipients if not r.slot.reply and d.stage is Stage.TALKING]

    def _awaits_message(self, delivery: Delivery) -> bool:
        """Say whether a flight is to wait for the message: it comes without any reply of the remote (rule C8)."""
        speculation = self.policy.speculation
        if (
            speculation is None
            or delivery.message.complete
            or delivery.message.octets > speculation.size
            or not delivery.rideable
        ):
            return False
        if self.frontend.state is State.CHUNK:
            return self.last_chunk and self.chunk_octets <= speculation.size and not self.patience_over
        # All recipients of this delivery were answered by us: the client sends DATA and the message next.
        return self.speculated and all(recipient.slot.reply for recipient in delivery.recipients)

    def _open_data(self) -> None:
        """Answer DATA where that is ours to do: several destinations, or nobody left (RFC 2033, 4.2)."""
        if self.data_slot is None or not all(recipient.slot.reply for recipient in self.recipients):
            return
        done = all(delivery.stage is Stage.DONE for delivery in self.deliveries)
        if not any(recipient.slot.reply[:1] == b"2" for recipient in self.recipients):
            self._refuse_data(NO_RECIPIENTS)
        elif self.policy.lmtp:
            self._begin_data(_GO_AHEAD)
        elif done:
            self._refuse_data(self.deliveries[-1].reply)

    # --- what deliveries tell (DeliveryOwner) ----

    def recipient_answered(self, delivery: Delivery, recipient: Recipient) -> None:
        """Pass the remote's reply on, if the client is still owed one."""
        if not recipient.slot.reply:
            delivery.spoken = True
            recipient.slot.reply = recipient.reply

    def go_ahead(self, delivery: Delivery, reply: bytes) -> None:
        """Let the client send its message: this remote takes it now, or will."""
        if self.data_slot is not None and not self.policy.lmtp:
            delivery.spoken = True
            self._begin_data(reply or _GO_AHEAD)

    def delivery_done(self, delivery: Delivery) -> None:
        """Take the last word of a remote."""
        for recipient in delivery.recipients:
            recipient.slot.reply = recipient.slot.reply or recipient.reply
        if self.whole:
            self._tell_verdicts()
        elif self.data_slot is not None and not self.policy.lmtp:
            self._refuse_data(delivery.reply)

    # --- the message -----------------------------------------------------------------------------------------------

    def _begin_data(self, reply: bytes) -> None:
        slot, self.data_slot = self.data_slot, None
        if slot is None:
            return
        slot.reply = reply
        self.turns += 1
        self.frontend.move(Event.GO_AHEAD)
        self._reader = MailDataReader(self.client.bare, pass_nul=self.client.pass_nul)
        self._unstuffer = Unstuffer()
        self.verdict = b""
        self._feed_stamp()

    def _feed_stamp(self) -> None:
        """Put our trace header on top of the message, where that is wanted (RFC 5321, 4.4)."""
        if self.stamp is not None:
            self.feed(self.stamp())

    def want_data(self, slot: Slot) -> None:
        """Take the client's DATA: what answers it depends on the remote (rule C13)."""
        self.data_slot = slot
        for delivery in self.deliveries:
            delivery.wanted = True

    def _refuse_data(self, reply: bytes) -> None:
        slot, self.data_slot = self.data_slot, None
        if slot is not None:
            refuse_data(self, slot, reply)
            self._end_transaction(reply)

    def read_data(self) -> None:
        """Take what is here of the mail data (rules S10, S11)."""
        reader, unstuffer = self._reader, self._unstuffer
        if reader is None or unstuffer is None:
            return
        data = self.frontend.take_mail_data()
        piece = reader.receive(data)
        rest = reader.rest
        self.count_octets(len(data) - len(rest or b""))
        octets = unstuffer.receive(piece, last=rest is not None and reader.fault is None)
        limit = self.policy.limits.message_size
        if not self.verdict and reader.fault is not None:
            self._refuse_message(FAULTS[reader.fault])
        elif not self.verdict and limit is not None and reader.octets > limit:
            self._refuse_message(TOO_BIG)
        self.feed(octets)
        if rest is not None:
            self._reader = self._unstuffer = None
            self.frontend.end_mail_data(rest)
            if self.transaction is not None:
                self.transaction.verb = DATA
                self.transaction.octets = reader.octets
                self.transaction.bare_seen = reader.bare_seen
            self.message_is_whole()

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

    def _refuse_message(self, verdict: bytes) -> None:
        """Take no more of a message: its rest is thrown away, and then the verdict is given (rule S15)."""
        self.verdict = verdict
        self._abandon()

    def begin_chunk(self, slot: Slot, size: int, *, last: bool, refusal: bytes) -> None:
        """Expect the octets of a chunk; ``refusal``: why they are thrown away, as the reply, if they are."""
        self.pipeline.slots.append(slot)
        self.chunk_slot = slot
        self.chunk_left = size
        self.last_chunk = last
        self.chunk_refusal = refusal
        if refusal:
            self.errors += 1
            self.reset()
            self.chunk_slot = slot
            self.message_failed = True
            return
        if self.chunk_octets < 0:
            self.chunk_octets = 0
            for delivery in self.deliveries:
                delivery.wanted = True
            self._feed_stamp()
        self.chunk_octets += size

    def read_chunk(self) -> None:
        """Take what is here of a chunk (rule S9)."""
        data = self.frontend.take_chunk()
        self.count_octets(len(data))
        self.chunk_left -= len(data)
        if not self.chunk_refusal:
            self.feed(data)
        if not self.chunk_left:
            self.chunk_is_whole()

    def chunk_is_whole(self) -> None:
        """Answer a chunk all of whose octets have come, or await the verdict on the message."""
        slot, self.chunk_slot = self.chunk_slot, None
        if slot is None:
            return
        if self.chunk_refusal:
            slot.reply = self.chunk_refusal
        elif not self.last_chunk:
            slot.reply = b"250 2.0.0 Chunk received\r\n"
        else:
            if self.transaction is not None:
                self.transaction.verb = BDAT
                self.transaction.octets = self.chunk_octets
            self.message_is_whole(slot)

    def message_is_whole(self, slot: Slot | None = None) -> None:
        """Await the verdict; ``slot``: the BDAT that is owed it."""
        self.whole = True
        if slot is None:
            slot = Slot(END_OF_DATA)
            self.pipeline.slots.append(slot)
        self.last_slot = slot
        for delivery in self.deliveries:
            delivery.end_of_message()
        self._tell_verdicts()

    def _tell_verdicts(self) -> None:
        """Give the last word: one for the message, or with LMTP one for each recipient (RFC 2033, 4.2)."""
        slot = self.last_slot
        if slot is None or not all(delivery.stage is Stage.DONE for delivery in self.deliveries):
            return
        first, *others = self._verdicts() if self.policy.lmtp else [self.verdict or self._verdict()]
        slot.reply = first
        for reply in others:
            self.answer(END_OF_DATA, reply)
        self._end_transaction(first)

    def _verdict(self) -> bytes:
        """Give the one word on a message: the first refusal of anything that we had answered ourselves (rule C13)."""
        delivery = self.deliveries[-1]
        if self.speculated and (recipient := delivery.recipients[0]).reply[:1] != b"2":
            return recipient.reply
        return delivery.reply

    def _verdicts(self) -> list[bytes]:
        """Give the word for each recipient that was accepted, as far as the client knows, in order."""
        by_recipient = {id(recipient): d for d in self.deliveries for recipient in d.recipients}
        replies = []
        for recipient in self.recipients:
            if recipient.slot.reply[:1] == b"2":
                word = by_recipient[id(recipient)].reply
                replies.append(self.verdict or (word if recipient.reply[:1] == b"2" else recipient.reply))
        return replies or [NO_RECIPIENTS]

    # --- ending ------------------------------------------------------------------------------------------------------

    def _end_transaction(self, reply: bytes) -> None:
        """Forget the transaction; ``reply``: the last word on it, empty if there is none."""
        self._abandon()
        self._count()
        ending.finish_transaction(self, reply)
        self.finished += self.deliveries
        self.deliveries = []
        self.recipients = []
        self.mail = None
        self.data_slot = self.chunk_slot = self.last_slot = None
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

    def _abandon(self) -> None:
        for delivery in self.deliveries:
            if delivery.stage is not Stage.DONE:
                delivery.abandon()

    def reset(self) -> None:
        """Give the transaction up that is open (RSET, EHLO, the end of the session)."""
        self._end_transaction(b"")

    def part(self) -> None:
        """Let go of every delivery: what is wholly on its way stays so, nothing else may count (rule S10)."""
        for delivery in tuple(self.deliveries):
            if delivery.stage is not Stage.DONE and delivery.progress.finished:
                # Its fate is the remote's; the owner waits for the word, for the log.
                delivery.orphan()
                self.deliveries.remove(delivery)
                self.orphans.append(delivery)
        self._end_transaction(b"")

    def withdraw_data(self) -> None:
        """Let the DATA that is not answered yet be refused for what came behind it (rule S5)."""
        slot = self.data_slot
        self._end_transaction(b"")
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


_RECIPIENT_OK: Final = b"250 2.1.5 Ok\r\n"
_GO_AHEAD: Final = b"354 End data with <CR><LF>.<CR><LF>\r\n"
