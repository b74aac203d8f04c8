"""The last word on a message: one for all of it, or with LMTP one for each recipient (rule C13; RFC 2033, 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from smtpproxy.session.pipeline import Slot
from smtpproxy.smtp.commands import END_OF_DATA

from .answers import NO_RECIPIENTS
from .stage import Stage

if TYPE_CHECKING:
    from .delivery import Delivery
    from .recipient import Recipient
    from .submission import Submission


class Owed(NamedTuple):
    """The word on the message that one recipient's client is owed (LMTP)."""

    recipient: Recipient
    delivery: Delivery
    slot: Slot


def tell_verdicts(submission: Submission) -> None:
    """Give the words on the message that are known; the transaction ends with the last one."""
    slot = submission.last_slot
    if slot is None:
        return
    done = all(delivery.stage is Stage.DONE for delivery in submission.deliveries)
    if submission.policy.lmtp:
        # Whose recipients were all refused is waited for by nobody.
        done = _tell_each(submission, slot, done=done)
    elif done:
        slot.reply = submission.verdict or _verdict(submission)
        submission.told = True
    if done:
        submission.end_transaction(slot.reply)


def _verdict(submission: Submission) -> bytes:
    """Give the one word on a message: the first refusal of anything that we had answered ourselves (rule C13)."""
    delivery = submission.deliveries[-1]
    if submission.speculated and (recipient := delivery.recipients[0]).reply[:1] != b"2":
        return recipient.reply
    return delivery.reply


def _tell_each(submission: Submission, first: Slot, *, done: bool) -> bool:
    """Give each recipient's word as soon as it is known: nobody's mail waits for another one's server.

    Says whether that were all.
    """
    if submission.owed is None:
        if not (done or submission.all_answered):
            return False
        submission.owed = _who_is_owed(submission, first)
    for owed in submission.owed:
        if not owed.slot.reply and owed.delivery.stage is Stage.DONE:
            recipient = owed.recipient
            word = owed.delivery.reply if recipient.reply[:1] == b"2" else recipient.reply
            owed.slot.reply = submission.verdict or word
            submission.told = True
    if not submission.owed:
        first.reply = NO_RECIPIENTS
        submission.told = True
    return all(owed.slot.reply for owed in submission.owed)


def _who_is_owed(submission: Submission, first: Slot) -> list[Owed]:
    """Give a slot to each recipient that was accepted, as far as the client knows, in order."""
    by_recipient = {id(recipient): d for d in submission.deliveries for recipient in d.recipients}
    owed: list[Owed] = []
    for recipient in submission.recipients:
        if recipient.slot.reply[:1] == b"2":
            slot = Slot(END_OF_DATA) if owed else first
            if owed:
                submission.pipeline.slots.append(slot)
            owed.append(Owed(recipient, by_recipient[id(recipient)], slot))
    return owed
