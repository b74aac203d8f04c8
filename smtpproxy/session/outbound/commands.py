"""What each command of a client does (outbound). One function a verb; ``TABLE`` has them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.session import ending, words
from smtpproxy.session.frontend import Event, State
from smtpproxy.session.refusals import refuse_data
from smtpproxy.session.verbs import COMMON
from smtpproxy.smtp.commands import (
    AUTH,
    AUTH_RESPONSE,
    BDAT,
    DATA,
    EHLO,
    ETRN,
    EXPN,
    HELO,
    HELP,
    LHLO,
    MAIL,
    NOOP,
    QUIT,
    RCPT,
    RSET,
    UNKNOWN,
    VRFY,
    XCLIENT,
    Verb,
    parse_chunk_size,
)
from smtpproxy.smtp.envelope import parse_mail, parse_rcpt

from . import intake
from .answers import NO_TRANSACTION
from .delivery import Delivery
from .recipient import Recipient
from .stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.session.pipeline import Slot

    from .submission import Submission

_NOT_IMPLEMENTED: Final = b"502 5.5.1 Command not implemented\r\n"
_SAY_LHLO: Final = b"500 5.5.1 LMTP is spoken here, say LHLO\r\n"


def _ehlo(submission: Submission, command: Slot) -> None:
    if submission.policy.lmtp:
        submission.refuse(EHLO, _SAY_LHLO)
    else:
        _hello(submission, command, _keywords(submission))


def _lhlo(submission: Submission, command: Slot) -> None:
    if submission.policy.lmtp:
        _hello(submission, command, _keywords(submission))
    else:
        COMMON[UNKNOWN](submission, command)


def _helo(submission: Submission, command: Slot) -> None:
    if submission.policy.lmtp:
        submission.refuse(HELO, _SAY_LHLO)
    else:
        _hello(submission, command, [])


def _hello(submission: Submission, command: Slot, keywords: list[bytes]) -> None:
    if not submission.all_answered:
        submission.postponed = command
        return
    if not command.argument:
        submission.refuse(command.verb, b"501 5.5.4 A name is needed\r\n")
        return
    submission.reset()
    submission.heard = submission.ehlo = command.raw
    lines = [submission.policy.hostname, *keywords]
    reply = b"".join(b"250-" + line + b"\r\n" for line in lines[:-1]) + b"250 " + lines[-1] + b"\r\n"
    submission.answer(command.verb, reply)
    submission.offered = submission.client.early and bool(keywords)


def _keywords(submission: Submission) -> list[bytes]:
    """Give what we offer: only what we can do for every remote, or refuse where one cannot (docs/protocol.md)."""
    policy = submission.policy
    size = policy.limits.message_size
    return [
        b"PIPELINING",
        *([b"CHUNKING"] if policy.chunking else []),
        b"SIZE" if size is None else b"SIZE %d" % size,
        b"8BITMIME",
        b"SMTPUTF8",
        *([b"DSN"] if policy.dsn else []),
        *([b"LIMITS RCPTDOMAINMAX=1"] if policy.split else []),
        *([b"STARTTLS"] if policy.starttls else []),
        *(policy.early_keywords if submission.client.early else ()),
    ]


def _offered(submission: Submission) -> frozenset[bytes]:
    return _WITH_DSN if submission.policy.dsn else _WITHOUT_DSN


_WITHOUT_DSN: Final = frozenset({b"SIZE", b"8BITMIME", b"SMTPUTF8", b"CHUNKING"})
_WITH_DSN: Final = _WITHOUT_DSN | {b"DSN"}


def _mail(submission: Submission, command: Slot) -> None:
    if not submission.ehlo or submission.mail is not None:
        submission.refuse(MAIL, words.BAD_SEQUENCE if submission.ehlo else words.SEND_EHLO_FIRST)
        return
    mail = parse_mail(command.argument, _offered(submission))
    limit = submission.policy.limits.message_size
    if isinstance(mail, bytes):
        submission.refuse(MAIL, mail)
    elif limit is not None and (mail.size or 0) > limit:
        submission.refuse(MAIL, words.TOO_BIG)
    else:
        submission.open_transaction(mail, command.raw)
        submission.answer(MAIL, b"250 2.1.0 Ok\r\n")


def _rcpt(submission: Submission, command: Slot) -> None:
    mail = submission.mail
    submission.recipients_asked += 1
    if mail is None or submission.chunk_octets >= 0:
        submission.refuse(RCPT, words.BAD_SEQUENCE)
        return
    if submission.recipients_asked > submission.policy.limits.recipients:
        submission.answer(RCPT, words.TOO_MANY_RECIPIENTS)
        return
    rcpt = parse_rcpt(command.argument, _offered(submission), smtputf8=mail.smtputf8)
    if isinstance(rcpt, bytes):
        submission.refuse(RCPT, rcpt)
        return
    found = submission.route_of(rcpt.domain)
    if found is None:
        submission.refuse(RCPT, b"550 5.1.2 No route to this domain\r\n")
        return
    delivery = _delivery(submission, *found)
    if delivery is None:
        _put_off(submission)
        return
    recipient = Recipient(rcpt, command)
    submission.pipeline.slots.append(command)
    submission.recipients.append(recipient)
    delivery.add(recipient)


def _put_off(submission: Submission) -> None:
    """Let the client try a recipient in another transaction: no error of its own, or a message to many would end it."""
    if submission.policy.lmtp:
        submission.answer(RCPT, b"452 4.5.3 Too many destinations, try this recipient in another transaction\r\n")
        return
    if submission.transaction is not None:
        submission.transaction.split += 1
    submission.answer(RCPT, b"452 4.5.3 One destination at a time, try this recipient in another transaction\r\n")


def _delivery(submission: Submission, route: object, destination: object) -> Delivery | None:
    """Give the delivery that a recipient belongs to; None: there is another destination already."""
    for delivery in submission.deliveries:
        if delivery.destination == destination and delivery.stage is not Stage.DONE:
            return delivery
    if submission.policy.lmtp:
        full = len(submission.deliveries) >= submission.policy.destinations
        return None if full else submission.new_delivery(route, destination)
    for delivery in submission.deliveries:
        if delivery.settled and not delivery.accepted and delivery.stage is not Stage.DONE:
            delivery.abandon()
    if any(delivery.accepted or delivery.stage is not Stage.DONE for delivery in submission.deliveries):
        return None
    return submission.new_delivery(route, destination)


def _data(submission: Submission, command: Slot) -> None:
    if submission.frontend.waiting:
        ending.out_of_step(submission, DATA)
        return
    submission.frontend.move(Event.DATA)
    submission.pipeline.slots.append(command)
    if submission.mail is None or submission.chunk_octets >= 0 or not submission.recipients:
        # Whoever sends commands in groups did not know that every recipient was refused.
        refuse_data(submission, command, NO_TRANSACTION, blame=not submission.recipients_asked)
    else:
        intake.want_data(submission, command)


def _bdat(submission: Submission, command: Slot) -> None:
    chunk = parse_chunk_size(command.argument)
    if chunk is None:
        ending.end(submission, BDAT, words.BAD_CHUNK, "bad chunk size")
        return
    size, last = chunk
    refusal = _chunk_refusal(submission, size)
    intake.begin_chunk(submission, command, size, last=last, refusal=refusal)
    if submission.frontend.state is not State.CLOSED and size:
        submission.frontend.begin_chunk(size)
    else:
        intake.chunk_is_whole(submission)


def _chunk_refusal(submission: Submission, size: int) -> bytes:
    """Give the reply to a chunk that we refuse ourselves, or nothing (rule S9)."""
    limit = submission.policy.limits.message_size
    if submission.policy.starttls_required:
        return words.STARTTLS_FIRST
    if not submission.policy.chunking:
        return words.BDAT_NOT_OFFERED
    if submission.message_failed:
        return words.MESSAGE_FAILED
    if submission.mail is None or not submission.recipients:
        return NO_TRANSACTION
    if limit is not None and max(submission.chunk_octets, 0) + size > limit:
        return words.TOO_BIG
    return b""


def _rset(submission: Submission, command: Slot) -> None:
    if command.raw[4:] != b"\r\n":
        submission.refuse(RSET, b"501 5.5.4 RSET takes no parameter\r\n")
        return
    if not submission.all_answered:
        submission.postponed = command
        return
    submission.reset()
    submission.answer(RSET, words.OK)


def _noop(submission: Submission, _command: Slot) -> None:
    submission.answer(NOOP, words.OK)


def _vrfy(submission: Submission, _command: Slot) -> None:
    submission.answer(VRFY, b"252 2.5.0 Send some mail, and see\r\n")


def _quit(submission: Submission, _command: Slot) -> None:
    submission.frontend.close()
    submission.reason = "quit"
    submission.answer(QUIT, submission.goodbye())
    submission.closing = True


def _auth(submission: Submission, command: Slot) -> None:
    submission.confidential = True
    submission.refuse(command.verb, words.AUTH_NOT_AVAILABLE)


def _not_here(submission: Submission, command: Slot) -> None:
    submission.refuse(command.verb, _NOT_IMPLEMENTED)


TABLE: Final[dict[Verb, Callable[[Submission, Slot], None]]] = {
    **COMMON,
    EHLO: _ehlo,
    LHLO: _lhlo,
    HELO: _helo,
    MAIL: _mail,
    RCPT: _rcpt,
    DATA: _data,
    BDAT: _bdat,
    RSET: _rset,
    NOOP: _noop,
    VRFY: _vrfy,
    QUIT: _quit,
    AUTH: _auth,
    AUTH_RESPONSE: _auth,
    HELP: _not_here,
    EXPN: _not_here,
    ETRN: _not_here,
    XCLIENT: _not_here,
}
