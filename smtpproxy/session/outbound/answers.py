"""What the replies of a remote do to a delivery (rules C3, C4, C7, C14)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.commands import BDAT, DATA, END_OF_DATA, MAIL, RCPT
from smtpproxy.smtp.replies import Reply

from .fault import Fault, Kind

if TYPE_CHECKING:
    from smtpproxy.session.pipeline import Slot

    from .delivery import Delivery
    from .remote import Remote

_CHANGED: Final = b"451 4.3.0 Remote server has changed, try again\r\n"
_CLOSING: Final = 421
NOBODY: Final = b"503 5.5.1 No valid recipients\r\n"
NO_RECIPIENTS: Final = b"554 5.5.1 No valid recipients\r\n"


def answered(delivery: Delivery, remote: Remote, slot: Slot, reply: Reply) -> None:
    """Deal with a reply about the transaction."""
    negative = reply.code >= 400
    if negative and (remote.used_early or remote.early):
        remote.refused_early()
        if remote.tainted and remote.data_position is None and not delivery.spoken:
            delivery.drop(Fault(Kind.HELLO, "offers less than was known of it"))
            delivery.again_politely()
            return
        if remote.tainted:
            # It may come of our wrong assumption, so it is no verdict; what else is said to this message still counts.
            reply = Reply(451, _CHANGED)
    verb = slot.verb
    if reply.code // 100 == 3 and verb is not DATA:
        delivery.failed(Fault(Kind.NONSENSE, f"{verb.name.decode()}: {reply.raw!r}"))
    elif verb is MAIL:
        delivery.progress.mail_refusal = reply.raw if negative else b""
    elif verb is RCPT:
        _recipient_answered(delivery, remote, reply)
    elif verb is DATA:
        _data_answered(delivery, remote, reply)
    elif verb is END_OF_DATA:
        _message_answered(delivery, remote, reply)
    elif verb is BDAT and negative:
        # A message that will not be finished (rule S15).
        delivery.drop(Fault(Kind.LOST, "refused a chunk"), blame=False)
        delivery.finish(not_closing(reply.raw))


def _recipient_answered(delivery: Delivery, remote: Remote, reply: Reply) -> None:
    progress = delivery.progress
    recipient = delivery.recipients[progress.answered]
    progress.answered += 1
    recipient.accepted = reply.code < 300 and not progress.mail_refusal
    recipient.reply = progress.mail_refusal or reply.raw
    delivery.owner.recipient_answered(delivery, recipient)
    if progress.answered < len(delivery.recipients) or delivery.accepted:
        return
    if delivery.wanted and progress.by != b"DATA" and not progress.finished:
        delivery.leave(remote)
        delivery.finish(NO_RECIPIENTS)


def _data_answered(delivery: Delivery, remote: Remote, reply: Reply) -> None:
    if reply.code >= 400:
        delivery.leave(remote)
        delivery.finish(reply.raw)
    elif reply.code < 300:
        delivery.failed(Fault(Kind.NONSENSE, f"DATA: {reply.raw!r}"))
    elif not delivery.accepted:
        # Every recipient was refused, and it waits for a message all the same: it gets none (rule C14).
        delivery.drop(Fault(Kind.LOST, "354 without a recipient"), blame=False)
        delivery.finish(NO_RECIPIENTS)
    else:
        delivery.progress.go_ahead = True
        delivery.owner.go_ahead(delivery, reply.raw)


def _message_answered(delivery: Delivery, remote: Remote, reply: Reply) -> None:
    if not delivery.accepted and reply.code < 300:
        # A message without a recipient is no success, whatever it says (rule C14).
        delivery.drop(Fault(Kind.NONSENSE, "took a message for nobody"))
        delivery.finish(NO_RECIPIENTS)
        return
    if reply.code == _CLOSING:
        delivery.drop(Fault(Kind.CLOSING, "closed the session", reply.raw))
    else:
        delivery.leave(remote)
    delivery.finish(not_closing(reply.raw))


def not_closing(reply: bytes) -> bytes:
    """Give a reply with 451 for 421: that the remote closes is no reason to close the client's connection."""
    if reply[:3] != b"421":
        return reply
    return b"451" + reply.replace(b"\r\n421", b"\r\n451")[3:]
