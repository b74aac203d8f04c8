"""The last word on a message: one for all of it, or with LMTP one for each recipient (rule C13; RFC 2033, 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpproxy.smtp.commands import END_OF_DATA

from .answers import NO_RECIPIENTS
from .stage import Stage

if TYPE_CHECKING:
    from .submission import Submission


def tell_verdicts(submission: Submission) -> None:
    """Give the last word: one for the message, or with LMTP one for each recipient (RFC 2033, 4.2)."""
    slot = submission.last_slot
    if slot is None or not all(delivery.stage is Stage.DONE for delivery in submission.deliveries):
        return
    first, *others = _verdicts(submission) if submission.policy.lmtp else [submission.verdict or _verdict(submission)]
    slot.reply = first
    submission.told = True
    for reply in others:
        submission.answer(END_OF_DATA, reply)
    submission.end_transaction(first)


def _verdict(submission: Submission) -> bytes:
    """Give the one word on a message: the first refusal of anything that we had answered ourselves (rule C13)."""
    delivery = submission.deliveries[-1]
    if submission.speculated and (recipient := delivery.recipients[0]).reply[:1] != b"2":
        return recipient.reply
    return delivery.reply


def _verdicts(submission: Submission) -> list[bytes]:
    """Give the word for each recipient that was accepted, as far as the client knows, in order."""
    by_recipient = {id(recipient): d for d in submission.deliveries for recipient in d.recipients}
    replies = []
    for recipient in submission.recipients:
        if recipient.slot.reply[:1] == b"2":
            word = by_recipient[id(recipient)].reply
            replies.append(submission.verdict or (word if recipient.reply[:1] == b"2" else recipient.reply))
    return replies or [NO_RECIPIENTS]
