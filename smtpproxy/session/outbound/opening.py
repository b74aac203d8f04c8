"""How a session with a remote begins: greeting, EHLO, STARTTLS, AUTH (rules C1 to C3, C6, C15, C16).

What the remote says is compared with what was assumed of it; ``remote.py`` has what is sent before that.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final

from smtpproxy.session.pipeline import Slot
from smtpproxy.smtp.commands import AUTH, AUTH_RESPONSE, EHLO, GREETING, HELO, STARTTLS, Verb
from smtpproxy.smtp.offer import Offer

from .fault import Fault, Kind, quoted
from .notes import Finding, Note
from .states import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.smtp.replies import Reply

    from .remote import Remote
    from .target import Target


def send_step(remote: Remote, offer: Offer) -> None:
    """Send STARTTLS or AUTH, if it is their turn and the remote has them."""
    step = remote.next_step
    if step is STARTTLS and offer.starttls:
        remote.step_sent = True
        remote.send(Slot(STARTTLS, b"STARTTLS\r\n"))
    elif step is AUTH and remote.secure and (line := _login_line(remote.target, offer)):
        remote.step_sent = True
        # LOGIN asks for user and password, PLAIN for nothing more.
        remote.answers_left = 2 if line.startswith(b"AUTH LOGIN") else 0
        if remote.offer is None:
            remote.be_early()
        remote.send(Slot(AUTH, line))


def _greeted(remote: Remote, reply: Reply) -> None:
    if reply.code // 100 != 2:
        _refused(remote, Kind.GREETING, "greeting", reply)
        return
    remote.greeting = reply.raw
    remote.move(Event.GREETED)


def _identified(remote: Remote, reply: Reply) -> None:
    if reply.code // 100 == 2:
        _learn(remote, Offer.parse(reply.raw))
    elif reply.code // 100 == 5 and not remote.early:
        remote.send(Slot(HELO, b"HELO " + remote.policy.hostname + b"\r\n"))
    else:
        _refused(remote, Kind.HELLO, "EHLO", reply)


def _refused(remote: Remote, kind: Kind, what: str, reply: Reply) -> None:
    """Deal with a reply by which the remote does not want to begin (rule C6)."""
    if reply.code >= 400:
        remote.hold_back = remote.early
        remote.fault = Fault(kind, f"{what}: {quoted(reply.raw)}", reply.raw)
    else:
        remote.fault = Fault(Kind.NONSENSE, f"{what}: {quoted(reply.raw)}")


def _helo_answered(remote: Remote, reply: Reply) -> None:
    if reply.code // 100 == 2:
        # That it does not know EHLO was no refusal of anything.
        remote.failed = False
        _learn(remote, Offer.NONE)
    else:
        _refused(remote, Kind.HELLO, "HELO", reply)


def _learn(remote: Remote, offer: Offer) -> None:
    """Compare what the remote offers with what was assumed of it (rule C3), and go on."""
    known = remote.assumptions[remote.secure]
    remote.offer = offer
    if not remote.secure and known is not None and known.offer.starttls and not offer.starttls:
        remote.notes.append(Note(Finding.DOWNGRADED, secure=False))
        if remote.policy.refuse_downgrade:
            # What was known stays known, or the next session would find nothing wrong.
            remote.flush()
            remote.fault = Fault(Kind.TLS, "offered STARTTLS before, and does not now")
            return
    if known is not None and known.offer == offer:
        remote.notes.append(Note(Finding.CONFIRMED, remote.secure, offer.lines))
    else:
        if known is not None and known.early and known.offer.early and not offer.early:
            remote.notes.append(Note(Finding.FLUSHED, remote.secure))
            remote.used_early = tuple(secure for secure in remote.used_early if secure != remote.secure)
        remote.notes.append(Note(Finding.LEARNED, remote.secure, offer.lines))
    if remote.early:
        too_big = bool(offer.size) and remote.relied_octets > (offer.size or 0)
        remote.tainted = not offer.early or not remote.relied <= offer.keywords or too_big
    _after_hello(remote, offer)


def _after_hello(remote: Remote, offer: Offer) -> None:
    step = remote.next_step
    if not remote.step_sent:
        send_step(remote, offer)
    if step is STARTTLS and remote.step_sent:
        remote.move(Event.UPGRADE)
    elif step is STARTTLS:
        _without_tls(remote, "STARTTLS is not offered")
    elif step is AUTH and remote.step_sent:
        remote.move(Event.LOG_IN)
    elif step is AUTH:
        remote.fault = Fault(Kind.LOGIN, "no TLS, or no way to log in that we know")
    else:
        remote.move(Event.SETTLED)


def _without_tls(remote: Remote, why: str) -> None:
    downgraded = remote.step_sent and remote.policy.refuse_downgrade
    if remote.target.tls.insists or remote.target.credentials is not None or downgraded:
        remote.fault = Fault(Kind.TLS, why)
    else:
        remote.gave_up_tls = True
        remote.move(Event.SETTLED)


def _starttls_answered(remote: Remote, reply: Reply) -> None:
    if reply.code == 220:
        remote.move(Event.GO_AHEAD)
        remote.handshake_due = True
    elif reply.code == 421:
        remote.fault = Fault(Kind.CLOSING, "closed the session", reply.raw)
    elif reply.code >= 400:
        remote.flush()
        _without_tls(remote, f"STARTTLS: {quoted(reply.raw)}")
    else:
        remote.fault = Fault(Kind.NONSENSE, f"STARTTLS: {quoted(reply.raw)}")


def _login_answered(remote: Remote, reply: Reply) -> None:
    credentials = remote.target.credentials
    if reply.code == 235:
        remote.move(Event.SETTLED)
    elif reply.code == 421:
        remote.fault = Fault(Kind.CLOSING, "closed the session")
    elif reply.code == 334 and credentials is not None and remote.answers_left:
        remote.answers_left -= 1
        answer = credentials.user if remote.answers_left else credentials.password
        remote.send(Slot(AUTH_RESPONSE, base64.b64encode(answer.encode()) + b"\r\n"))
    else:
        # Its text stays here: some servers repeat what they do not understand, and that was a password.
        remote.fault = Fault(Kind.LOGIN, f"AUTH: {_status(reply)}")


def _status(reply: Reply) -> str:
    """Give the reply code, with the enhanced status code if there is one (RFC 3463)."""
    found = _STATUS.match(reply.raw)
    return found[0].decode() if found else str(reply.code)


def _login_line(target: Target, offer: Offer) -> bytes:
    """Give the AUTH command for a remote with this offer; empty if it has no mechanism of ours (RFC 4954, 4)."""
    credentials = target.credentials
    if credentials is None or not target.tls.verifies:
        # Rule C15.
        return b""
    if b"PLAIN" in offer.mechanisms:
        response = b"\0" + credentials.user.encode() + b"\0" + credentials.password.encode()
        return b"AUTH PLAIN " + base64.b64encode(response) + b"\r\n"
    return b"AUTH LOGIN\r\n" if b"LOGIN" in offer.mechanisms else b""


_STATUS: Final = re.compile(rb"\d{3}[ -][245]\.\d{1,3}\.\d{1,3}(?=\s)")

TABLE: Final[dict[Verb, Callable[[Remote, Reply], None]]] = {
    GREETING: _greeted,
    EHLO: _identified,
    HELO: _helo_answered,
    STARTTLS: _starttls_answered,
    AUTH: _login_answered,
    AUTH_RESPONSE: _login_answered,
}
"""What the replies do that are about no transaction."""
