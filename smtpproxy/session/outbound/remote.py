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

from typing import TYPE_CHECKING, Final

from smtpproxy.session.pipeline import Slot
from smtpproxy.smtp.commands import AUTH, AUTH_RESPONSE, BDAT, EHLO, END_OF_DATA, GREETING, MAIL, STARTTLS, Verb, Wait
from smtpproxy.smtp.replies import ReplyReader

from . import opening
from .fault import Fault, Kind, quoted
from .notes import Finding, Note
from .states import TRANSITIONS, Event, State
from .target import TlsWish

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.smtp.offer import Offer
    from smtpproxy.smtp.replies import Reply

    from .policy import Assumption, RemotePolicy
    from .target import Target


class Remote:
    """One session with a remote, without its connection; it may serve several deliveries one after another."""

    __slots__ = (
        "_hello_sent",
        "_may_be_early",
        "answers_left",
        "assumptions",
        "borrowed",
        "data_position",
        "early",
        "failed",
        "fault",
        "full",
        "gave_up_tls",
        "greeting",
        "handshake_due",
        "hold_back",
        "notes",
        "offer",
        "out",
        "outstanding",
        "policy",
        "reader",
        "relied",
        "relied_octets",
        "replies",
        "secure",
        "sent",
        "state",
        "step_sent",
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
        self.assumptions = {False: clear, True: inside}
        self._may_be_early = policy.early and not (policy.lockstep or polite)
        self.gave_up_tls = in_clear
        self._hello_sent = False
        self.step_sent = False
        """Whether STARTTLS or AUTH has been sent in this state of TLS."""
        self.answers_left = 0
        """Questions of AUTH LOGIN that may still be answered."""
        self.reader = ReplyReader()
        self.replies = 0
        """Replies that have come."""
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
        self.hold_back = False
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
        assumed = self.assumptions[self.secure]
        if assumed is None or not (self._may_be_early and assumed.early and assumed.offer.early):
            return None
        return assumed

    @property
    def rideable(self) -> Assumption | None:
        """What is assumed of the state in which a message would be sent, if that may be acted on (rule C8)."""
        wants_tls = self._wants_tls
        assumed = self.assumptions[self.secure or wants_tls]
        usable = assumed is not None and self._may_be_early and assumed.early and bool(assumed.offer.early)
        return assumed if usable and self.state is not State.READY else None

    @property
    def _wants_tls(self) -> bool:
        return not (self.secure or self.gave_up_tls or self.target.tls is TlsWish.NONE)

    @property
    def next_step(self) -> Verb | None:
        """What has to come between EHLO and the transactions."""
        if self._wants_tls:
            return STARTTLS
        return AUTH if self.target.credentials is not None else None

    @property
    def opens_with_transaction(self) -> bool:
        """Whether EHLO, which has not left, and the commands of a transaction go in one flight."""
        return not self._hello_sent and self.next_step is None and self.assumption is not None

    def ready(self) -> Offer | None:
        """Give the offer by which the commands of a transaction may be sent now, if they may."""
        if self.state is State.READY:
            return self.offer
        if self.state in _BEGINNING and self._hello_sent and self.next_step is None:
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
            self.trace("B>", b"AUTH ****\r\n" if slot.verb in _LOGIN else slot.raw)
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
                self.be_early()
            self._hello_sent = True
            self.send(Slot(EHLO, b"EHLO " + self.policy.hostname + b"\r\n"))
        assumed = self.assumption
        if self._hello_sent and not self.step_sent and assumed is not None and self.offer is None:
            opening.send_step(self, assumed.offer)

    def begin_transaction(self) -> None:
        """Note that a mail transaction begins."""
        self.uses += 1
        self.data_position = None
        if self.state is not State.READY:
            self.be_early()

    def end_transaction(self) -> None:
        """Note that it is over: what is refused from now on says nothing about early pipelining."""
        self.used_early = ()
        self.early = self.tainted = False
        self.data_position = None

    def be_early(self) -> None:
        """Note that something is sent before it is allowed (rule C2)."""
        self.early = True
        if self.secure not in self.used_early:
            self.used_early = (*self.used_early, self.secure)

    # --- what comes back -----------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[tuple[Slot, Reply]]:
        """Take bytes of the remote; give the replies that are about a transaction. Look at ``fault`` afterwards."""
        answered: list[tuple[Slot, Reply]] = []
        replies = self.reader.receive(data)
        for index, reply in enumerate(replies):
            if self.trace is not None:
                # What a server says to a password may be the password.
                masked = bool(self.outstanding) and self.outstanding[0].verb in _LOGIN
                self.trace("B<", b"%d ****\r\n" % reply.code if masked else reply.raw)
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
        self.replies += 1
        if not self.outstanding:
            kind = Kind.CLOSING if reply.code == 421 else Kind.NONSENSE
            self.fault = Fault(kind, f"spoke unasked: {quoted(reply.raw)}", reply.raw if reply.code == 421 else b"")
            return None
        slot = self.outstanding.pop(0)
        if reply.code >= 400:
            self.failed = True
        answer = opening.TABLE.get(slot.verb)
        if answer is not None:
            answer(self, reply)
            return None
        if reply.code == 421 and slot.verb is not END_OF_DATA and slot.verb is not BDAT:
            kind = Kind.CLOSING_AT_MAIL if slot.verb is MAIL else Kind.CLOSING
            self.fault = Fault(kind, "closed the session", reply.raw)
            return None
        self.borrowed = False
        return slot

    def secured(self) -> None:
        """Begin anew inside TLS: nothing from before counts (RFC 3207, 4.2)."""
        self.handshake_due = False
        if self.state is not State.TLS:
            return
        self.move(Event.SECURED)
        self.secure = True
        self.reader = ReplyReader()
        self.offer = None
        self.early = self.tainted = False
        self._hello_sent = self.step_sent = False
        self.sent = 0

    # --- how it ends ---------------------------------------------------------------------------------------------

    def refused_early(self) -> None:
        """Note that something of an early flight was refused (rule C4)."""
        if self.policy.flush_on_refusal:
            self.notes += [Note(Finding.REFUSED, secure) for secure in self.used_early]
            self.used_early = ()

    def give_up(self, fault: Fault) -> None:
        """Note what its end says about early pipelining with it (rules C4, C6)."""
        self.fault = self.fault or fault
        silent = self.state is State.GREETING and self.fault.kind is not Kind.TLS
        if self.early and (self.hold_back or silent):
            self.notes.append(Note(Finding.HELD_BACK, self.secure))
            self.used_early = tuple(secure for secure in self.used_early if secure != self.secure)
        self.flush()
        self.move(Event.CLOSE)

    def flush(self) -> None:
        """Note that early pipelining has failed, where it was used (rules C3, C4)."""
        self.notes += [Note(Finding.FLUSHED, secure) for secure in self.used_early]
        self.used_early = ()

    @property
    def refused_at_once(self) -> bool:
        """Whether it has definitely refused to begin, so that it cannot have taken anything (rule C7)."""
        return self.fault is not None and self.fault.kind in _AT_ONCE and bool(self.fault.reply)

    @property
    def idle(self) -> bool:
        """Whether it is ready and owes nothing."""
        return self.state is State.READY and not (self.outstanding or self.reader.pending or self.fault)

    @property
    def at_rest(self) -> bool:
        """Whether it may be kept: idle, it has never refused anything (rule S18), and takes another message."""
        if self.failed or not self.idle or self.offer is None:
            return False
        return not self.offer.mailmax or self.uses < self.offer.mailmax

    @property
    def wait(self) -> Wait:
        """What we wait for."""
        if self.state is State.TLS:
            return Wait.BACKEND_TLS
        return self.outstanding[0].verb.wait if self.outstanding else Wait.NOTHING


_BEGINNING: Final = frozenset({State.GREETING, State.HELLO})
_LOGIN: Final = frozenset({AUTH, AUTH_RESPONSE})
_AT_ONCE: Final = frozenset({Kind.GREETING, Kind.HELLO})
