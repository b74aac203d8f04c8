"""What a delivery sends, and when: its envelope, and the message by BDAT or DATA (rules C2, C8, C14)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.session import words
from smtpproxy.session.pipeline import Slot
from smtpproxy.smtp.chunks import ChunkStuffer
from smtpproxy.smtp.commands import BDAT, DATA, END_OF_DATA, MAIL, RCPT
from smtpproxy.smtp.envelope import Refusal, extensions_needed, mail_line, rcpt_line

from .answers import NO_RECIPIENTS
from .fault import Fault, Kind

if TYPE_CHECKING:
    from smtpproxy.smtp.offer import Offer

    from .delivery import Delivery
    from .remote import Remote

CHUNK: Final = 64 * 1024
"""Octets that are gathered for a chunk of a message whose end has not come."""


def advance(delivery: Delivery) -> None:
    """Send what may be sent now."""
    remote = delivery.remote
    if remote is None:
        return
    if delivery.holding and remote.opens_with_transaction:
        # The first flight leaves in one piece, so that all of it can ride on the SYN.
        return
    if delivery.wanted and not delivery.progress.by and delivery.settled and not delivery.accepted:
        # The message comes, and nobody is left who could have it.
        delivery.leave(remote)
        delivery.finish(NO_RECIPIENTS)
        return
    remote.advance()
    while remote is delivery.remote and (offer := remote.ready()) is not None and remote.may_follow(offer):
        if not _send_next(delivery, remote, offer):
            break
    if remote is delivery.remote:
        _stream(delivery, remote)


def _send_next(delivery: Delivery, remote: Remote, offer: Offer) -> bool:
    """Send the next command; say whether another may follow."""
    progress = delivery.progress
    if not progress.mail_sent:
        return not delivery.holding and _send_mail(delivery, remote, offer)
    if progress.rcpts_sent < len(delivery.recipients):
        recipient = delivery.recipients[progress.rcpts_sent]
        progress.rcpts_sent += 1
        remote.send(Slot(RCPT, rcpt_line(recipient.rcpt, offer)))
        return True
    return _send_data(delivery, remote, offer)


def _send_mail(delivery: Delivery, remote: Remote, offer: Offer) -> bool:
    octets = delivery.message.octets if delivery.message.complete else None
    line = mail_line(delivery.mail, offer, octets)
    certain = remote.offer is not None
    if isinstance(line, Refusal):
        # On an assumption nothing is refused: the remote is asked first.
        if certain:
            delivery.leave(remote)
            delivery.finish(line.reply)
        return False
    if not certain:
        rcpts = [recipient.rcpt for recipient in delivery.recipients]
        remote.relied = extensions_needed(delivery.mail, rcpts, offer, octets)
        remote.relied_octets = octets or delivery.mail.size or 0
    delivery.progress.mail_sent = True
    remote.begin_transaction()
    delivery.was_early = remote.early
    remote.send(Slot(MAIL, line))
    return True


def _send_data(delivery: Delivery, remote: Remote, offer: Offer) -> bool:
    """Begin to send the message, if it is its turn."""
    progress = delivery.progress
    if progress.by or not delivery.wanted or (delivery.settled and not delivery.accepted):
        return False
    if not offer.chunking:
        progress.by = b"DATA"
        remote.send(Slot(DATA, b"DATA\r\n"))
        return False
    if not _may_ride(delivery, remote):
        return False
    progress.by = b"BDAT"
    delivery.rode = delivery.message.complete and not delivery.settled
    if remote.offer is None:
        remote.relied |= {b"CHUNKING"}
    delivery.owner.go_ahead(delivery, b"")
    return False


def _may_ride(delivery: Delivery, remote: Remote) -> bool:
    """Say whether chunks may leave now: behind accepted recipients, or in one flight with the envelope (C8)."""
    if delivery.progress.answered == len(delivery.recipients):
        return delivery.accepted
    speculation = delivery.speculation
    if not delivery.message.complete or speculation is None or delivery.message.octets > speculation.size:
        return False
    if remote.offer is not None:
        return True
    assumed = remote.assumption
    if assumed is None or assumed.confirmed < speculation.confirmed:
        return False
    return not delivery.message.dangerous


def _stream(delivery: Delivery, remote: Remote) -> None:
    """Send what is here of the message, as far as the remote reads it."""
    progress = delivery.progress
    if progress.finished or remote.full:
        return
    if progress.by == b"BDAT":
        _send_chunks(delivery, remote)
    elif progress.go_ahead:
        _send_stuffed(delivery, remote)


def _send_chunks(delivery: Delivery, remote: Remote) -> None:
    offer = remote.ready()
    if delivery.message.complete:
        if offer is None or not remote.may_follow(offer):
            return
        delivery.progress.finished = True
        slot = Slot(END_OF_DATA, b"BDAT %d LAST\r\n" % delivery.message.waiting)
    elif _is_worth_a_chunk(delivery) and offer is not None and remote.may_follow(offer):
        delivery.impatient = False
        slot = Slot(BDAT, b"BDAT %d\r\n" % delivery.message.waiting)
    else:
        return
    remote.mail_data_begins()
    remote.send(slot)
    for piece in delivery.message.take():
        remote.write(piece)


def _is_worth_a_chunk(delivery: Delivery) -> bool:
    """Say whether what is here leaves before the rest: of a slow client little comes, and the remote waits."""
    waiting = delivery.message.waiting
    return waiting >= CHUNK or (waiting > 0 and delivery.impatient)


def _send_stuffed(delivery: Delivery, remote: Remote) -> None:
    stuffer = delivery.progress.stuffer
    if stuffer is None:
        stuffer = delivery.progress.stuffer = ChunkStuffer(delivery.bare, pass_nul=delivery.pass_nul)
    for piece in delivery.message.take():
        remote.mail_data_begins()
        remote.write(stuffer.receive(piece))
    end = stuffer.finish() if delivery.message.complete and stuffer.fault is None else b""
    if stuffer.fault is not None:
        delivery.drop(Fault(Kind.LOST, stuffer.fault.value), blame=False)
        delivery.finish(words.FAULTS[stuffer.fault])
    elif end:
        remote.mail_data_begins()
        remote.write(end)
        delivery.progress.finished = True
        remote.outstanding.append(Slot(END_OF_DATA))
