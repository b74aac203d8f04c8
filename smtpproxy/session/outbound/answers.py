"""What the replies of a remote do to a delivery (rules C3, C4, C7, C14)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.commands import BDAT, DATA, END_OF_DATA, MAIL, RCPT
from smtpproxy.smtp.replies import Reply

from .failing import failed
from .fault import Fault, Kind, not_closing, quoted

if TYPE_CHECKING:
    from smtpproxy.session.pipeline import Slot

    from .delivery import Delivery
    from .remote import Remote

_CHANGED: Final = b"451 4.3.0 Remote server has changed, try again\r\n"
_CLOSING: Final = 421
NO_TRANSACTION: Final = b"503 5.5.1 No valid recipients\r\n"
"""To DATA or BDAT without MAIL, or without any RCPT that a remote was asked about (RFC 5321, 3.3)."""
NO_RECIPIENTS: Final = b"554 5.5.1 No valid recipients\r\n"
"""To a message all of whose recipients remotes have refused (rule C14; RFC 5321, 3.3)."""


def answered(delivery: Delivery, remote: Remote, slot: Slot, reply: Reply) -> None:
    """Deal with a reply about the transaction."""
    negative = reply.code >= 400
    if negative and remote.tainted:
        if not _misled(delivery, remote):
            return
        reply = Reply(451, _CHANGED)
    elif negative:
        remote.refused_early()
    verb = slot.verb
    if reply.code // 100 == 3 and verb is not DATA:
        failed(delivery, Fault(Kind.NONSENSE, f"{verb.name.decode()}: {quoted(reply.raw)}"))
    elif verb is MAIL:
        _mail_answered(delivery, remote, reply)
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


def _misled(delivery: Delivery, remote: Remote) -> bool:
    """Deal with a refusal that may come of our wrong assumption, so that it is no verdict (rules C3, C7).

    Gives whether this try goes on: where another is not allowed, what else is said to this message still counts.
    """
    goes_on = remote.data_position is not None or delivery.spoken
    remote.flush()
    if not goes_on:
        delivery.drop(Fault(Kind.HELLO, "offers less than was known of it"))
        delivery.again_politely()
    return goes_on


def _mail_answered(delivery: Delivery, remote: Remote, reply: Reply) -> None:
    may_begin_anew = remote.uses > 1 and remote.data_position is None and not delivery.spoken
    if reply.code // 100 == 4 and may_begin_anew:
        # Many servers take only so many messages in a session.
        delivery.note_failure(f"MAIL, on a kept session: {quoted(reply.raw)}")
        delivery.leave(remote)
        delivery.open_fresh()
    else:
        delivery.progress.mail_refusal = reply.raw if reply.code >= 400 else b""


def _recipient_answered(delivery: Delivery, remote: Remote, reply: Reply) -> None:
    progress = delivery.progress
    recipient = delivery.recipients[progress.answered]
    progress.answered += 1
    recipient.accepted = reply.code < 300 and not progress.mail_refusal
    recipient.reply = progress.mail_refusal or reply.raw
    delivery.owner.recipient_answered(delivery, recipient)
    if delivery.remote is not remote:
        # That was the last word that the client had waited for.
        return
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
        failed(delivery, Fault(Kind.NONSENSE, f"DATA: {quoted(reply.raw)}"))
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
