"""When a client is told to go on before a remote was asked, and a flight waits for its message (rules C8, C13)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.session.frontend import State

from .delivery import Delivery
from .intake import GO_AHEAD, begin_data
from .recipient import Recipient
from .stage import Stage

if TYPE_CHECKING:
    from .submission import Submission

_RECIPIENT_OK: Final = b"250 2.1.5 Ok\r\n"


def speculate(submission: Submission) -> None:
    """Tell the client to go on, where that loses no verdict (rule C13)."""
    if submission.policy.speculation is None or submission.mail is None or submission.frontend.state is State.CHUNK:
        return
    if submission.policy.lmtp:
        for recipient, delivery in _unanswered(submission):
            if delivery.rideable:
                submission.speculated = True
                recipient.slot.reply = _RECIPIENT_OK
    elif submission.frontend.state is State.AWAIT_DATA and len(submission.recipients) == 1:
        for recipient, delivery in _unanswered(submission):
            if delivery.rideable:
                submission.speculated = True
                recipient.slot.reply = _RECIPIENT_OK
                begin_data(submission, GO_AHEAD)


def awaits_message(submission: Submission, delivery: Delivery) -> bool:
    """Say whether a flight is to wait for the message: it comes without any reply of the remote (rule C8)."""
    speculation = submission.policy.speculation
    if (
        speculation is None
        or delivery.message.complete
        or delivery.impatient
        or delivery.message.octets > speculation.size
        or not delivery.rideable
    ):
        return False
    if submission.frontend.state is State.CHUNK:
        return submission.last_chunk and submission.chunk_octets <= speculation.size and not submission.patience_over
    # All recipients of this delivery were answered by us: the client sends DATA and the message next.
    return submission.speculated and all(recipient.slot.reply for recipient in delivery.recipients)


def _unanswered(submission: Submission) -> list[tuple[Recipient, Delivery]]:
    return [
        (r, d) for d in submission.deliveries for r in d.recipients if not r.slot.reply and d.stage is Stage.TALKING
    ]
