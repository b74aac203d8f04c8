"""A delivery: one message on its way to one destination, over as many tries as rule C7 allows.

    SEARCHING --targets--> OPENING --session--> TALKING --the last word--> DONE
                           OPENING <--this server will not do--  TALKING

The message comes in here as its own octets, whatever command the client uses, and leaves by BDAT where the remote has
it, else by DATA.  Once an octet of it may have been handed to the kernel there is no second try, unless the remote has
refused to begin; an end without an answer is reported as unknown (rule C7).  So what was sent is not kept, but for a
small message that is wholly here, as long as another try is possible (``message.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.commands import Wait
from smtpproxy.smtp.envelope import Refusal, mail_line

from . import sending
from .answers import answered
from .failing import LOST, failed
from .fault import Fault, Kind, not_closing
from .message import Message
from .recipient import NOBODY
from .sending import CHUNK
from .stage import Errand, Progress, Stage
from .target import Unroutable

if TYPE_CHECKING:
    from collections.abc import Hashable

    from smtpproxy.smtp.envelope import Mail
    from smtpproxy.smtp.lineendings import BarePolicy
    from smtpproxy.smtp.offer import Offer

    from .notes import Note
    from .policy import Speculation
    from .recipient import DeliveryOwner, Recipient
    from .remote import Remote
    from .target import Target


class Delivery:
    """One message, one destination, one or more recipients."""

    __slots__ = (
        "actions",
        "bare",
        "best",
        "destination",
        "errors",
        "fresh",
        "holding",
        "impatient",
        "in_clear",
        "left",
        "mail",
        "message",
        "notes",
        "owner",
        "pass_nul",
        "polite",
        "progress",
        "recipients",
        "remote",
        "reply",
        "rode",
        "route",
        "speculation",
        "spoken",
        "stage",
        "started",
        "target",
        "targets",
        "tries",
        "unknown",
        "wanted",
        "was_early",
        "why",
    )

    def __init__(
        self,
        owner: DeliveryOwner,
        mail: Mail,
        destination: Hashable,
        route: object,
        *,
        bare: BarePolicy,
        pass_nul: bool,
        speculation: Speculation | None,
        now: float,
    ) -> None:
        """``destination``: what makes it another one than others of the same message; ``route``: opaque here.

        ``bare`` and ``pass_nul``: what is done about the line endings and NULs of a message that came in chunks and
        leaves by DATA (rules S11, H2); ``now`` in seconds of a monotonic clock.
        """
        self.owner: DeliveryOwner = owner
        self.mail = mail
        self.destination = destination
        self.route = route
        self.bare = bare
        self.pass_nul = pass_nul
        self.speculation = speculation
        self.started = now
        self.stage = Stage.SEARCHING
        self.recipients: list[Recipient] = []
        self.actions: list[Errand] = [Errand.FIND_TARGETS]
        self.targets: list[Target] = []
        self.target: Target | None = None
        """The one that is being tried, or was last."""
        self.tries = 0
        self.errors: list[str] = []
        """Why each try that failed did so, for the log."""
        self.remote: Remote | None = None
        self.left: Remote | None = None
        """The session that KEEP is about."""
        self.notes: list[tuple[Target, Note]] = []
        """What sessions have to tell the cache and the log, and about whom; the owner fetches it."""
        self.polite = False
        """Whether the next session with the same target must be polite (rule C6)."""
        self.in_clear = False
        """Whether it must do without TLS (rule C16)."""
        self.fresh = False
        """Whether it must not be a kept one."""
        self.progress = Progress()
        self.spoken = False
        """Whether the client was told something that a remote has said, which another try could contradict."""
        self.wanted = False
        """Whether the client has begun to send the message, or wants to."""
        self.holding = False
        """Whether commands wait for the message, which comes without any reply of the remote (rule C8)."""
        self.impatient = False
        """Whether what is here of the message has waited for the rest long enough."""
        self.message = Message(speculation.size if speculation is not None else CHUNK)
        self.best = b""
        self.reply = b""
        """The last word on the message, with CR LF."""
        self.was_early = False
        """Whether the last session's first flight was early."""
        self.rode = False
        """Whether the message went in one flight with its envelope."""
        self.unknown = False
        """Whether it may have been taken, but the answer never came (rule C7)."""
        self.why = ""
        """Why it failed, where that is our own finding."""

    # --- what the client's side tells ------------------------------------------------------------------------------

    def add(self, recipient: Recipient) -> None:
        """Take another recipient."""
        self.recipients.append(recipient)

    def feed(self, data: bytes) -> None:
        """Take octets of the message."""
        if self.stage is not Stage.DONE:
            self.message.feed(data)

    def end_of_message(self) -> None:
        """Learn that the message is wholly here."""
        self.message.complete = True

    def abandon(self) -> None:
        """Give the message up: the client will not finish it, or is gone (rules S10, S15)."""
        remote = self.remote
        if remote is not None and remote.at_rest and not self.progress.mail_sent:
            self.leave(remote)
        elif remote is not None and remote.idle and not self.progress.by:
            # With its transaction open it serves nobody else.
            remote.failed = True
            self.leave(remote)
        elif remote is not None:
            remote.end_transaction()
            self.drop(Fault(Kind.LOST, "given up by the client"), blame=False)
        self.stage = Stage.DONE
        self.owner = NOBODY
        self.message.forget()

    def orphan(self) -> None:
        """Go on without an owner: the client is gone, and the message wholly sent."""
        self.owner = NOBODY

    @property
    def rideable(self) -> bool:
        """Whether a message could go in one flight with its envelope, as far as is known of the remote (rule C8)."""
        remote, speculation = self.remote, self.speculation
        if remote is None or speculation is None or self.stage is not Stage.TALKING or self.progress.mail_sent:
            return False
        if remote.offer is not None:
            # A kept session, which has said itself what it offers.
            offer = remote.offer
            return (
                remote.uses > 0
                and remote.ready() is not None
                and bool(offer.early and offer.chunking)
                and self._suits(offer)
            )
        assumed = remote.rideable
        if assumed is None or assumed.confirmed < speculation.confirmed or not assumed.offer.chunking:
            return False
        return self._suits(assumed.offer)

    def _suits(self, offer: Offer) -> bool:
        return not isinstance(mail_line(self.mail, offer, None), Refusal)

    @property
    def withholds(self) -> bool:
        """Whether the remote waits for us, and we for more of the message, of which there is something."""
        remote = self.remote
        if remote is None or self.stage is not Stage.TALKING or self.impatient:
            return False
        gathers = self.progress.by == b"BDAT" and self.message.waiting > 0 and not remote.outstanding
        return self.holding or (gathers and not (self.progress.finished or remote.full))

    @property
    def settled(self) -> bool:
        """Whether every recipient has its reply."""
        return self.stage is Stage.DONE or self.progress.answered == len(self.recipients)

    @property
    def accepted(self) -> bool:
        """Whether the remote has accepted any recipient."""
        return any(recipient.accepted for recipient in self.recipients)

    # --- finding a session -----------------------------------------------------------------------------------------

    def targets_found(self, found: list[Target] | Unroutable) -> None:
        """Take the addresses to try, in their order (the answer to FIND_TARGETS)."""
        if self.stage is not Stage.SEARCHING:
            return
        if isinstance(found, Unroutable):
            self.why = found.why
            self.finish(found.reply)
            return
        self.targets = list(found)
        self.stage = Stage.OPENING
        self.next_target()

    def next_target(self) -> None:
        """Go on with the next address, or end where there is none."""
        self.polite = self.in_clear = self.fresh = False
        if not self.targets:
            self.finish(self.best or _UNREACHABLE)
            return
        self.target = self.targets.pop(0)
        self.open()

    def open(self) -> None:
        """Ask for a session with the target, and begin anew with it."""
        self.stage = Stage.OPENING
        self.remote = None
        self.progress = Progress()
        for recipient in self.recipients:
            recipient.reply = b""
            recipient.accepted = False
        self.message.restore()
        self.tries += 1
        self.actions.append(Errand.OPEN)

    def open_fresh(self) -> None:
        """Ask for a session with the same target that nobody has used: a kept one was no good."""
        self.fresh = True
        self.open()

    def begin(self, remote: Remote) -> None:
        """Take a session that is being opened (one answer to OPEN)."""
        if self.stage is not Stage.OPENING:
            # Given up in the meantime.
            self.left = remote
            self.actions.append(Errand.KEEP if remote.at_rest else Errand.DROP)
            return
        self.stage = Stage.TALKING
        self.remote = remote

    def borrow(self, remote: Remote) -> None:
        """Take a session that was kept (the other one)."""
        remote.borrowed = True
        self.begin(remote)

    def unreachable(self, why: str) -> None:
        """Learn that no connection with the target can even be begun (the third one)."""
        if self.stage is Stage.DONE:
            return
        self.note_failure(why)
        self.remember(_UNREACHABLE)
        self.next_target()

    # --- what the remote's connection tells ------------------------------------------------------------------------

    def remote_received(self, data: bytes) -> None:
        """Take bytes of the remote."""
        remote = self.remote
        if remote is None:
            return
        for slot, reply in remote.receive(data):
            answered(self, remote, slot, reply)
            if self.remote is not remote:
                return
        self._collect(remote)
        if remote.fault is not None:
            failed(self, remote.fault)
        elif remote.handshake_due:
            remote.handshake_due = False
            self.actions.append(Errand.START_TLS)

    def remote_secured(self) -> None:
        """Learn that the TLS handshake is done, with the right server (the answer to START_TLS)."""
        if self.remote is not None:
            self.remote.secured()

    def overdue(self) -> None:
        """Learn that all tries together have taken too long, and no message is on its way."""
        if self.progress.by:
            return
        if self.remote is not None:
            self.drop(Fault(Kind.LOST, "took too long"))
        self.finish(_OVERDUE)

    def cut_off(self, *, handed: bool) -> None:
        """End now, whatever is under way; ``handed`` as in ``remote_lost`` (rule C7)."""
        self.owner = NOBODY
        if self.stage is Stage.DONE:
            return
        if self.remote is None:
            self.finish(LOST)
        else:
            self.remote_lost("cut off", reached=True, handed=handed)

    def remote_lost(self, why: str, *, reached: bool, handed: bool, tls: bool = False) -> None:
        """Learn that the connection is gone, or of no use.

        ``reached``: whether it ever came about; ``handed``: whether an octet of mail data may have been given to the
        kernel (rule C7); ``tls``: whether it is the handshake, or who the server turned out to be.
        """
        remote = self.remote
        if remote is None:
            return
        if not handed:
            remote.data_position = None
        if reached or handed:
            failed(self, Fault(Kind.TLS if tls else Kind.LOST, why))
        else:
            # It says nothing about early pipelining that nobody is there.
            self.drop(Fault(Kind.LOST, why), blame=False)
            self.unreachable(why)

    def advance(self) -> None:
        """Send what may be sent now."""
        if self.stage is Stage.TALKING:
            sending.advance(self)

    # --- failing, and trying again ---------------------------------------------------------------------------------

    def again_politely(self) -> None:
        """Open another session with the same target, in which nothing is sent before it may be (rule C6)."""
        self.polite = True
        self.open()

    def remember(self, reply: bytes) -> None:
        """Keep a last word for when no server is left: rather a temporary one, as another time another may answer."""
        reply = not_closing(reply)
        if not self.best or self.best[:1] == b"5":
            self.best = reply

    def note_failure(self, why: str) -> None:
        """Write down why this try has failed, for the log."""
        name = self.target.name if self.target is not None else ""
        self.errors.append(f"{name}: {why}")

    def drop(self, fault: Fault, *, blame: bool = True) -> None:
        """Part from the remote with a reset, or with QUIT where it has only refused to begin and owes nothing.

        ``blame``: whether its end says something about early pipelining.
        """
        remote = self.remote
        if remote is None:
            return
        if blame:
            self.note_failure(fault.why)
            remote.give_up(fault)
        self._collect(remote)
        self.remote = None
        refused = remote.failed and fault.kind in _REFUSED_TO_BEGIN
        courteous = refused and not (remote.outstanding or remote.reader.pending)
        self.actions.append(Errand.QUIT if courteous else Errand.DROP)

    def _collect(self, remote: Remote) -> None:
        notes, remote.notes = remote.notes, []
        self.notes += [(remote.target, note) for note in notes]

    def leave(self, remote: Remote) -> None:
        """Part from the remote in good order: it may serve another delivery."""
        if remote.fault is not None:
            # More came than was owed: what was said before that stands.
            self.drop(remote.fault)
            return
        remote.end_transaction()
        self._collect(remote)
        self.remote, self.left = None, remote
        self.actions.append(Errand.KEEP if remote.at_rest else Errand.QUIT)

    def finish(self, reply: bytes) -> None:
        """Give the last word."""
        self.stage = Stage.DONE
        self.reply = reply
        self.message.forget()
        for recipient in self.recipients:
            recipient.reply = recipient.reply or reply
        self.owner.delivery_done(self)

    @property
    def wait(self) -> Wait:
        """What we wait for from the remote."""
        remote = self.remote
        if remote is None:
            return Wait.NOTHING
        return remote.wait


_REFUSED_TO_BEGIN: Final = frozenset({Kind.GREETING, Kind.HELLO, Kind.LOGIN})
_UNREACHABLE: Final = b"451 4.4.1 No server of the destination could be reached\r\n"
_OVERDUE: Final = b"451 4.4.7 Delivery took too long\r\n"
