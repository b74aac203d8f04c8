"""How a message comes in from a client, by DATA or in chunks, and goes to its deliveries (outbound)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.session import words
from smtpproxy.session.frontend import Event
from smtpproxy.session.pipeline import Slot
from smtpproxy.session.refusals import refuse_data
from smtpproxy.smtp.commands import BDAT, DATA, END_OF_DATA
from smtpproxy.smtp.maildata import MailDataReader
from smtpproxy.smtp.unstuffing import Unstuffer

from .answers import NO_RECIPIENTS, NO_TRANSACTION
from .stage import Stage
from .verdicts import tell_verdicts

if TYPE_CHECKING:
    from .submission import Submission

GO_AHEAD: Final = b"354 End data with <CR><LF>.<CR><LF>\r\n"


def want_data(submission: Submission, slot: Slot) -> None:
    """Take the client's DATA: what answers it depends on the remote (rule C13)."""
    submission.data_slot = slot
    for delivery in submission.deliveries:
        delivery.wanted = True


def open_data(submission: Submission) -> None:
    """Answer DATA where that is ours to do: several destinations, or nobody left (RFC 2033, 4.2)."""
    if submission.data_slot is None or not submission.all_answered:
        return
    done = all(delivery.stage is Stage.DONE for delivery in submission.deliveries)
    if not any(recipient.slot.reply[:1] == b"2" for recipient in submission.recipients):
        # RFC 2033, 4.2, wants another code than RFC 5321, 3.3, allows.
        refuse_waiting_data(submission, NO_TRANSACTION if submission.policy.lmtp else NO_RECIPIENTS)
    elif submission.policy.lmtp:
        begin_data(submission, GO_AHEAD)
    elif done:
        refuse_waiting_data(submission, submission.deliveries[-1].reply)


def begin_data(submission: Submission, reply: bytes) -> None:
    """Answer DATA with ``reply``, a 354, and expect the mail data."""
    slot, submission.data_slot = submission.data_slot, None
    if slot is None:
        return
    slot.reply = reply
    submission.turns += 1
    submission.frontend.move(Event.GO_AHEAD)
    submission.reader = MailDataReader(submission.client.bare, pass_nul=submission.client.pass_nul)
    submission.unstuffer = Unstuffer()
    submission.verdict = b""
    _feed_stamp(submission)


def _feed_stamp(submission: Submission) -> None:
    """Put our trace header on top of the message, where that is wanted (RFC 5321, 4.4)."""
    if submission.stamp is not None:
        submission.feed(submission.stamp())


def refuse_waiting_data(submission: Submission, reply: bytes) -> None:
    """Refuse the DATA that waits for its reply, if there is one; the transaction is over."""
    slot, submission.data_slot = submission.data_slot, None
    if slot is not None:
        refuse_data(submission, slot, reply, blame=False)
        submission.end_transaction(reply)


def read_data(submission: Submission) -> None:
    """Take what is here of the mail data (rules S10, S11)."""
    reader, unstuffer = submission.reader, submission.unstuffer
    if reader is None or unstuffer is None:
        return
    data = submission.frontend.take_mail_data()
    piece = reader.receive(data)
    rest = reader.rest
    submission.count_octets(len(data) - len(rest or b""))
    octets = unstuffer.receive(piece, last=rest is not None and reader.fault is None)
    limit = submission.policy.limits.message_size
    if not submission.verdict and reader.fault is not None:
        _refuse_message(submission, words.FAULTS[reader.fault])
    elif not submission.verdict and limit is not None and reader.octets > limit:
        _refuse_message(submission, words.TOO_BIG)
    submission.feed(octets)
    if rest is not None:
        submission.reader = submission.unstuffer = None
        submission.frontend.end_mail_data(rest)
        if submission.transaction is not None:
            submission.transaction.verb = DATA
            submission.transaction.octets = reader.octets
            submission.transaction.bare_seen = reader.bare_seen
        message_is_whole(submission)


def _refuse_message(submission: Submission, verdict: bytes) -> None:
    """Take no more of a message: its rest is thrown away, and then the verdict is given (rule S15)."""
    submission.verdict = verdict
    submission.abandon()


def begin_chunk(submission: Submission, slot: Slot, size: int, *, last: bool, refusal: bytes) -> None:
    """Expect the octets of a chunk; ``refusal``: why they are thrown away, as the reply, if they are."""
    submission.pipeline.slots.append(slot)
    submission.chunk_slot = slot
    submission.chunk_left = size
    submission.last_chunk = last
    submission.chunk_refusal = refusal
    if refusal:
        # Whoever sends commands in groups did not know that every recipient was refused.
        submission.errors += not (refusal == NO_TRANSACTION and submission.recipients_asked)
        submission.reset()
        submission.chunk_slot = slot
        submission.message_failed = True
        return
    if submission.chunk_octets < 0:
        submission.chunk_octets = 0
        for delivery in submission.deliveries:
            delivery.wanted = True
        _feed_stamp(submission)
    submission.chunk_octets += size


def read_chunk(submission: Submission) -> None:
    """Take what is here of a chunk (rule S9)."""
    data = submission.frontend.take_chunk()
    submission.count_octets(len(data))
    submission.chunk_left -= len(data)
    if not submission.chunk_refusal:
        submission.feed(data)
    if not submission.chunk_left:
        chunk_is_whole(submission)


def chunk_is_whole(submission: Submission) -> None:
    """Answer a chunk all of whose octets have come, or await the verdict on the message."""
    slot, submission.chunk_slot = submission.chunk_slot, None
    if slot is None:
        return
    if submission.chunk_refusal:
        slot.reply = submission.chunk_refusal
    elif not submission.last_chunk:
        slot.reply = b"250 2.0.0 Chunk received\r\n"
    else:
        if submission.transaction is not None:
            submission.transaction.verb = BDAT
            submission.transaction.octets = submission.chunk_octets
        message_is_whole(submission, slot)


def message_is_whole(submission: Submission, slot: Slot | None = None) -> None:
    """Await the verdict; ``slot``: the BDAT that is owed it."""
    submission.whole = True
    submission.whole_since = submission.now
    if slot is None:
        slot = Slot(END_OF_DATA)
        submission.pipeline.slots.append(slot)
    submission.last_slot = slot
    for delivery in submission.deliveries:
        delivery.end_of_message()
    tell_verdicts(submission)
