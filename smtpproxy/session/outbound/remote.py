"""A session with a remote: the SMTP client role, from the first octet to the transactions (rules C1 to C11).

Where the cache knows what the remote offers, commands leave before its greeting, and what it then says is compared
with what was assumed.  Else each step waits for the one before it: that is called polite.

    GREETING --220--> HELLO --EHLO reply--> READY
                      HELLO --STARTTLS--> STARTTLS --220--> TLS --handshake done--> HELLO, anew
                      HELLO --AUTH--> LOGIN --235--> READY
    any state --CLOSE--> CLOSED

The states say how far the remote's replies have come; what was sent may be far ahead of them.
"""

from __future__ import annotations

import base64
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from smtpproxy.session.pipeline import Slot
from smtpproxy.smtp.commands import AUTH, AUTH_RESPONSE, EHLO, GREETING, HELO, STARTTLS, Verb, Wait
from smtpproxy.smtp.offer import Offer
from smtpproxy.smtp.replies import ReplyReader

from .notes import Finding, Note
from .target import TlsWish

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.smtp.replies import Reply

    from .policy import Assumption, RemotePolicy
    from .target import Target


class State(IntEnum):
    """How far the remote has answered."""

    GREETING = 1
    HELLO = 2
    STARTTLS = 3
    TLS = 4
    LOGIN = 5
    READY = 6
    CLOSED = 7


class Event(IntEnum):
    """What moves the session on."""

    GREETED = 1
    UPGRADE = 2
    GO_AHEAD = 3
    SECURED = 4
    LOG_IN = 5
    SETTLED = 6
    CLOSE = 7


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.GREETING, Event.GREETED): State.HELLO,
    (State.HELLO, Event.UPGRADE): State.STARTTLS,
    (State.STARTTLS, Event.GO_AHEAD): State.TLS,
    (State.STARTTLS, Event.SETTLED): State.READY,
    (State.TLS, Event.SECURED): State.HELLO,
    (State.HELLO, Event.LOG_IN): State.LOGIN,
    (State.LOGIN, Event.SETTLED): State.READY,
    (State.HELLO, Event.SETTLED): State.READY,
    **{(state, Event.CLOSE): State.CLOSED for state in State},
}


class Kind(Enum):
    """What went wrong with a session."""

    LOST = "the connection was lost, or the remote was silent for too long"
    GREETING = "it does not want to talk to us"
    HELLO = "it refused EHLO"
    TLS = "there is no TLS, or not with the right server"
    LOGIN = "it did not let us log in"
    NONSENSE = "what it said is no reply, or one too many"
    CLOSING = "it closes (421)"


class Fault(NamedTuple):
    """Why a session with a remote is of no use any more."""

    kind: Kind
    why: str
    reply: bytes = b""
    """Its last word, if it had one."""


class Remote:
    """One session with a remote, without its connection; it may serve several deliveries one after another."""

    __slots__ = (
        "_answers_left",
        "_assumptions",
        "_gave_up_tls",
        "_hello_sent",
        "_hold_back",
        "_may_be_early",
        "_step_sent",
        "borrowed",
        "data_position",
        "early",
        "failed",
        "fault",
        "full",
        "greeting",
        "handshake_due",
        "notes",
        "offer",
        "out",
        "outstanding",
        "policy",
        "reader",
        "relied",
        "relied_octets",
        "secure",
        "sent",
        "state",
        "tainted",
        "target",
        "trace",
        "used_early",
        "uses",
    )

    def __init__(
        self,
        target: Target,
        policy: RemotePolicy,
        clear: Assumption | None = None,
        inside: Assumption | None = None,
        *,
        polite: bool = False,
        in_clear: bool = False,
    ) -> None:
        """``clear`` and ``inside``: what the cache knows of it without and with TLS.

        ``polite``: nothing is sent before it may be; ``in_clear``: TLS was tried in vain (rule C16).
        """
        self.target = target
        self.policy = policy
        self.state = State.GREETING
        self.secure = target.tls is TlsWish.IMPLICIT
        self._assumptions = {False: clear, True: inside}
        self._may_be_early = policy.early and not (policy.lockstep or polite)
        self._gave_up_tls = in_clear
        self._hello_sent = False
        self._step_sent = False
        """Whether STARTTLS or AUTH has been sent in this state of TLS."""
        self._answers_left = 0
        """Questions of AUTH LOGIN that may still be answered."""
        self.reader = ReplyReader()
        self.outstanding: list[Slot] = [Slot(GREETING)]
        """What was asked and is not answered yet, in order (rule C11)."""
        self.out: list[bytes] = []
        """What is to be written."""
        self.sent = 0
        """Octets given to ``out`` so far in this state of TLS."""
        self.data_position: int | None = None
        """How many octets stood before the first one of mail data in it; None: there was none yet (rule C7)."""
        self.offer: Offer | None = None
        """What it offers, as it has said itself in this state of TLS."""
        self.relied: frozenset[bytes] = frozenset()
        """Extensions that commands sent on an assumption make use of."""
        self.relied_octets = 0
        self.early = False
        """Whether something was sent before it was allowed, in this state of TLS."""
        self.used_early: tuple[bool, ...] = ()
        """The states of TLS in which it was, in a transaction that is not over."""
        self.tainted = False
        """Whether what was sent early stood on an assumption that has turned out to be wrong (rule C3)."""
        self._hold_back = False
        self.handshake_due = False
        """Whether the owner has to begin TLS."""
        self.fault: Fault | None = None
        self.failed = False
        """Whether it ever refused anything (rule S18)."""
        self.full = False
        """Whether it does not read what we send."""
        self.greeting = b""
        self.notes: list[Note] = []
        self.trace: Callable[[str, bytes], None] | None = None
        self.uses = 0
        self.borrowed = False
        """Whether it was kept from an earlier delivery, and has not answered anything since."""

    def move(self, event: Event) -> None:
        """Change the state; a step that is not in the table raises KeyError."""
        self.state = TRANSITIONS[self.state, event]

    # --- what may be sent ----------------------------------------------------------------------------------------

    @property
    def assumption(self) -> Assumption | None:
        """What may be acted on before the remote has said it in this state of TLS (rules C2, C6)."""
        assumed = self._assumptions[self.secure]
        if assumed is None or not (self._may_be_early and assumed.early and assumed.offer.early):
            return None
        return assumed

    @property
    def rideable(self) -> Assumption | None:
        """What is assumed of the state in which a message would be sent, if that may be acted on (rule C8)."""
        wants_tls = self._wants_tls
        assumed = self._assumptions[self.secure or wants_tls]
        usable = assumed is not None and self._may_be_early and assumed.early and bool(assumed.offer.early)
        return assumed if usable and self.state is not State.READY else None

    @property
    def _wants_tls(self) -> bool:
        return not (self.secure or self._gave_up_tls or self.target.tls is TlsWish.NONE)

    @property
    def _next_step(self) -> Verb | None:
        """What has to come between EHLO and the transactions."""
        if self._wants_tls:
            return STARTTLS
        return AUTH if self.target.credentials is not None else None

    @property
    def opens_with_transaction(self) -> bool:
        """Whether EHLO, which has not left, and the commands of a transaction go in one flight."""
        return not self._hello_sent and self._next_step is None and self.assumption is not None

    def ready(self) -> Offer | None:
        """Give the offer by which the commands of a transaction may be sent now, if they may."""
        if self.state is State.READY:
            return self.offer
        if self.state in _BEGINNING and self._hello_sent and self._next_step is None:
            # MAIL never leaves in clear where TLS is wanted: STARTTLS would be the next step.
            assumed = self.assumption
            return None if assumed is None or self.offer is not None else assumed.offer
        return None

    def may_follow(self, offer: Offer) -> bool:
        """Say whether another command may be sent behind those that are not answered (RFC 2920, 3.1)."""
        if not self.outstanding:
            return True
        last = self.outstanding[-1].verb
        if last is GREETING or last is EHLO:
            return self.assumption is not None and self.offer is None
        return offer.pipelining and not self.policy.lockstep and not last.ends_group

    def send(self, slot: Slot) -> None:
        """Send a command."""
        if self.trace is not None:
            self.trace("B>", b"AUTH ****\r\n" if slot.verb is AUTH or slot.verb is AUTH_RESPONSE else slot.raw)
        self.outstanding.append(slot)
        self.write(slot.raw)

    def write(self, data: bytes) -> None:
        """Send octets."""
        self.out.append(data)
        self.sent += len(data)

    def mail_data_begins(self) -> None:
        """Note that a message, or the command that carries it, is next: its fate may be unknown then (rule C7)."""
        if self.data_position is None:
            self.data_position = self.sent

    def advance(self) -> None:
        """Send what opens the session, as far as that may be sent now."""
        if self.state not in _BEGINNING:
            return
        if not self._hello_sent and (self.state is State.HELLO or self.assumption is not None):
            if self.state is State.GREETING:
                self._be_early()
            self._hello_sent = True
            self.send(Slot(EHLO, b"EHLO " + self.policy.hostname + b"\r\n"))
        assumed = self.assumption
        if self._hello_sent and not self._step_sent and assumed is not None and self.offer is None:
            self._send_step(assumed.offer)

    def begin_transaction(self) -> None:
        """Note that a mail transaction begins."""
        self.uses += 1
        self.data_position = None
        if self.state is not State.READY:
            self._be_early()

    def end_transaction(self) -> None:
        """Note that it is over: what is refused from now on says nothing about early pipelining."""
        self.used_early = ()
        self.early = self.tainted = False
        self.data_position = None

    def _be_early(self) -> None:
        self.early = True
        if self.secure not in self.used_early:
            self.used_early = (*self.used_early, self.secure)

    def _send_step(self, offer: Offer) -> None:
        """Send STARTTLS or AUTH, if it is their turn and the remote has them."""
        step = self._next_step
        if step is STARTTLS and offer.starttls:
            self._step_sent = True
            self.send(Slot(STARTTLS, b"STARTTLS\r\n"))
        elif step is AUTH and self.secure and (line := _login_line(self.target, offer)):
            self._step_sent = True
            # LOGIN asks for user and password, PLAIN for nothing more.
            self._answers_left = 2 if line.startswith(b"AUTH LOGIN") else 0
            if self.offer is None:
                self._be_early()
            self.send(Slot(AUTH, line))

    # --- what comes back -----------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[tuple[Slot, Reply]]:
        """Take bytes of the remote; give the replies that are about a transaction. Look at ``fault`` afterwards."""
        answered: list[tuple[Slot, Reply]] = []
        replies = self.reader.receive(data)
        for index, reply in enumerate(replies):
            if self.trace is not None:
                self.trace("B<", reply.raw)
            slot = self._take(reply)
            if self.fault is not None:
                return answered
            if slot is not None:
                answered.append((slot, reply))
            if self.handshake_due and (index + 1 < len(replies) or self.reader.pending or self.reader.fault):
                self.fault = Fault(Kind.NONSENSE, "more than its reply to STARTTLS (rule C11)")
                return answered
        if self.reader.fault:
            self.fault = Fault(Kind.NONSENSE, f"sent garbage: {self.reader.fault}")
        return answered

    def _take(self, reply: Reply) -> Slot | None:
        """Deal with one reply; give its slot if it is about a transaction."""
        if not self.outstanding:
            kind = Kind.CLOSING if reply.code == 421 else Kind.NONSENSE
            self.fault = Fault(kind, f"spoke unasked: {reply.raw!r}", reply.raw if reply.code == 421 else b"")
            return None
        slot = self.outstanding.pop(0)
        if reply.code >= 400:
            self.failed = True
        opening = _OPENINGS.get(slot.verb)
        if opening is not None:
            opening(self, reply)
            return None
        if reply.code == 421:
            self.fault = Fault(Kind.CLOSING, "closed the session", reply.raw)
            return None
        self.borrowed = False
        return slot

    def _greeted(self, reply: Reply) -> None:
        if reply.code // 100 != 2:
            self._refused(Kind.GREETING, "greeting", reply)
            return
        self.greeting = reply.raw
        self.move(Event.GREETED)

    def _identified(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._learn(Offer.parse(reply.raw))
        elif reply.code // 100 == 5 and not self.early:
            self.send(Slot(HELO, b"HELO " + self.policy.hostname + b"\r\n"))
        else:
            self._refused(Kind.HELLO, "EHLO", reply)

    def _refused(self, kind: Kind, what: str, reply: Reply) -> None:
        """Deal with a reply by which the remote does not want to begin (rule C6)."""
        if reply.code >= 400:
            self._hold_back = self.early
            self.fault = Fault(kind, f"{what}: {reply.raw!r}", reply.raw)
        else:
            self.fault = Fault(Kind.NONSENSE, f"{what}: {reply.raw!r}")

    def _helo_answered(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._learn(Offer.NONE)
        else:
            self._refused(Kind.HELLO, "HELO", reply)

    def _learn(self, offer: Offer) -> None:
        """Compare what the remote offers with what was assumed of it (rule C3), and go on."""
        known = self._assumptions[self.secure]
        self.offer = offer
        if known is not None and known.offer == offer:
            self.notes.append(Note(Finding.CONFIRMED, self.secure, offer.lines))
        else:
            if known is not None and known.offer.early and not offer.early:
                self.notes.append(Note(Finding.FLUSHED, self.secure))
                self.used_early = tuple(secure for secure in self.used_early if secure != self.secure)
            self.notes.append(Note(Finding.LEARNED, self.secure, offer.lines))
        if self.early:
            too_big = bool(offer.size) and self.relied_octets > (offer.size or 0)
            self.tainted = not offer.early or not self.relied <= offer.keywords or too_big
        if not self.secure and known is not None and known.offer.starttls and not offer.starttls:
            self.notes.append(Note(Finding.DOWNGRADED, secure=False))
            if self.policy.refuse_downgrade:
                self.fault = Fault(Kind.TLS, "offered STARTTLS before, and does not now")
                return
        self._after_hello(offer)

    def _after_hello(self, offer: Offer) -> None:
        step = self._next_step
        if not self._step_sent:
            self._send_step(offer)
        if step is STARTTLS and self._step_sent:
            self.move(Event.UPGRADE)
        elif step is STARTTLS:
            self._without_tls("STARTTLS is not offered")
        elif step is AUTH and self._step_sent:
            self.move(Event.LOG_IN)
        elif step is AUTH:
            self.fault = Fault(Kind.LOGIN, "no TLS, or no way to log in that we know")
        else:
            self.move(Event.SETTLED)

    def _without_tls(self, why: str) -> None:
        downgraded = self._step_sent and self.policy.refuse_downgrade
        if self.target.tls.insists or self.target.credentials is not None or downgraded:
            self.fault = Fault(Kind.TLS, why)
        else:
            self._gave_up_tls = True
            self.move(Event.SETTLED)

    def _starttls_answered(self, reply: Reply) -> None:
        if reply.code == 220:
            self.move(Event.GO_AHEAD)
            self.handshake_due = True
        elif reply.code == 421:
            self.fault = Fault(Kind.CLOSING, "closed the session", reply.raw)
        elif reply.code >= 400:
            self._flush()
            self._without_tls(f"STARTTLS: {reply.raw!r}")
        else:
            self.fault = Fault(Kind.NONSENSE, f"STARTTLS: {reply.raw!r}")

    def secured(self) -> None:
        """Begin anew inside TLS: nothing from before counts (RFC 3207, 4.2)."""
        self.handshake_due = False
        if self.state is not State.TLS:
            return
        self.move(Event.SECURED)
        self.secure = True
        self.reader = ReplyReader()
        self.offer = None
        self.early = False
        self._hello_sent = self._step_sent = False
        self.sent = 0

    def _login_answered(self, reply: Reply) -> None:
        credentials = self.target.credentials
        if reply.code == 235:
            self.move(Event.SETTLED)
        elif reply.code == 421:
            self.fault = Fault(Kind.CLOSING, "closed the session", reply.raw)
        elif reply.code == 334 and credentials is not None and self._answers_left:
            self._answers_left -= 1
            answer = credentials.user if self._answers_left else credentials.password
            self.send(Slot(AUTH_RESPONSE, base64.b64encode(answer.encode()) + b"\r\n"))
        else:
            self.fault = Fault(Kind.LOGIN, f"AUTH: {reply.raw!r}", reply.raw)

    # --- how it ends ---------------------------------------------------------------------------------------------

    def refused_early(self) -> None:
        """Note that something of an early flight was refused (rule C4)."""
        if self.policy.flush_on_refusal:
            self._flush()

    def give_up(self, fault: Fault) -> None:
        """Note what its end says about early pipelining with it (rules C4, C6)."""
        self.fault = self.fault or fault
        silent = self.state is State.GREETING and self.fault.kind is not Kind.TLS
        if self.early and (self._hold_back or silent):
            self.notes.append(Note(Finding.HELD_BACK, self.secure))
            self.used_early = tuple(secure for secure in self.used_early if secure != self.secure)
        self._flush()
        self.move(Event.CLOSE)

    def _flush(self) -> None:
        self.notes += [Note(Finding.FLUSHED, secure) for secure in self.used_early]
        self.used_early = ()

    @property
    def refused_at_once(self) -> bool:
        """Whether it has definitely refused to begin, so that it cannot have taken anything (rule C7)."""
        return self.fault is not None and self.fault.kind in _AT_ONCE and bool(self.fault.reply)

    @property
    def at_rest(self) -> bool:
        """Whether it may be kept: ready, with nothing owed and nothing ever refused (rule S18)."""
        return self.state is State.READY and not (self.outstanding or self.reader.pending or self.failed or self.fault)

    @property
    def wait(self) -> Wait:
        """What we wait for."""
        if self.state is State.TLS:
            return Wait.BACKEND_TLS
        return self.outstanding[0].verb.wait if self.outstanding else Wait.NOTHING


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


_BEGINNING: Final = frozenset({State.GREETING, State.HELLO})
_AT_ONCE: Final = frozenset({Kind.GREETING, Kind.HELLO})
_OPENINGS: Final[dict[Verb, Callable[[Remote, Reply], None]]] = {
    GREETING: Remote._greeted,  # noqa: SLF001  # the table of this class
    EHLO: Remote._identified,  # noqa: SLF001  # the same
    HELO: Remote._helo_answered,  # noqa: SLF001  # the same
    STARTTLS: Remote._starttls_answered,  # noqa: SLF001  # the same
    AUTH: Remote._login_answered,  # noqa: SLF001  # the same
    AUTH_RESPONSE: Remote._login_answered,  # noqa: SLF001  # the same
}
