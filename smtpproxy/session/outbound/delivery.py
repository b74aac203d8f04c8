"""A delivery: one message on its way to one destination, over as many tries as rule C7 allows.

    SEARCHING --targets--> OPENING --session--> TALKING --the last word--> DONE
                           OPENING <--this server will not do--  TALKING

The message comes in here as its own octets, whatever command the client uses, and leaves by BDAT where the remote has
it, else by DATA.  What was handed to a connection is not kept: once an octet of the message may have left, there is no
second try, and an end without an answer is reported as unknown (rule C7).
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Final, Protocol

from smtpproxy.session.pipeline import Slot
from smtpproxy.smtp.chunks import ChunkStuffer
from smtpproxy.smtp.commands import BDAT, DATA, END_OF_DATA, MAIL, RCPT, Wait
from smtpproxy.smtp.envelope import Refusal, extensions_needed, mail_line, rcpt_line
from smtpproxy.smtp.lookalikes import holds_commands

from .remote import Fault, Kind, Remote
from .target import TlsWish, Unroutable

if TYPE_CHECKING:
    from collections.abc import Hashable

    from smtpproxy.smtp.envelope import Mail, Rcpt
    from smtpproxy.smtp.lineendings import BarePolicy
    from smtpproxy.smtp.offer import Offer
    from smtpproxy.smtp.replies import Reply

    from .notes import Note
    from .policy import Speculation
    from .target import Target

CHUNK: Final = 64 * 1024
"""Octets that are gathered for a chunk of a message whose end has not come."""


class Stage(IntEnum):
    """Where a delivery stands."""

    SEARCHING = 1
    OPENING = 2
    TALKING = 3
    DONE = 4


class Errand(Enum):
    """One thing that a delivery wants its owner to do besides writing."""

    FIND_TARGETS = "find out where the message can go, and report by targets_found"
    OPEN = "lend a kept session with the target, or open one; report by begin or borrow"
    START_TLS = "begin TLS with the remote, and report by remote_secured"
    KEEP = "keep the session for another delivery"
    QUIT = "take leave of the remote, and close without waiting (rule C9)"
    DROP = "reset the connection: nothing that the remote has half of may count"


class Recipient:
    """One recipient: the client's RCPT, and what became of it."""

    __slots__ = ("accepted", "rcpt", "reply", "slot")

    def __init__(self, rcpt: Rcpt, slot: Slot) -> None:
        self.rcpt = rcpt
        self.slot = slot
        """The reply that the client is owed to its RCPT; it may have been given before the remote's was there."""
        self.reply = b""
        """The remote's own reply, with CR LF; empty: there is none."""
        self.accepted = False


class DeliveryOwner(Protocol):
    """Who wants the message delivered."""

    __slots__ = ()

    def recipient_answered(self, delivery: Delivery, recipient: Recipient) -> None:
        """Learn of the reply to a recipient."""

    def go_ahead(self, delivery: Delivery, reply: bytes) -> None:
        """Learn that the remote waits for the message; ``reply``: its 354, or empty where it has CHUNKING."""

    def delivery_done(self, delivery: Delivery) -> None:
        """Learn of the last word, ``delivery.reply``, with which every recipient has its own."""


class Progress:
    """How far one try has come."""

    __slots__ = (
        "answered",
        "any_reply",
        "by",
        "finished",
        "go_ahead",
        "mail_refusal",
        "mail_sent",
        "message_refusal",
        "rcpts_sent",
        "stuffer",
    )

    def __init__(self) -> None:
        self.mail_sent = False
        self.rcpts_sent = 0
        self.answered = 0
        """Recipients that the remote has answered."""
        self.any_reply = False
        """Whether it has answered anything of the transaction."""
        self.mail_refusal = b""
        self.message_refusal = b""
        self.by = b""
        """How the message leaves: BDAT, DATA, or empty as long as it does not."""
        self.go_ahead = False
        self.finished = False
        """Whether its last octet has been sent."""
        self.stuffer: ChunkStuffer | None = None


class Delivery:
    """One message, one destination, one or more recipients."""

    __slots__ = (
        "_best",
        "_dangerous",
        "_gone",
        "_riding",
        "actions",
        "bare",
        "complete",
        "destination",
        "errors",
        "holding",
        "in_clear",
        "left",
        "mail",
        "notes",
        "octets",
        "owner",
        "pass_nul",
        "pieces",
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
        "waiting",
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
        self.progress = Progress()
        self.spoken = False
        """Whether the client was told something that a remote has said, which another try could contradict."""
        self.wanted = False
        """Whether the client has begun to send the message, or wants to."""
        self.holding = False
        """Whether commands wait for the message, which comes without any reply of the remote (rule C8)."""
        self.pieces: list[bytes] = []
        self.waiting = 0
        """Octets of the message that are here and have not left."""
        self.octets = 0
        """Octets of the message that have come."""
        self.complete = False
        self._dangerous: bool | None = None
        self._best = b""
        self._riding: list[bytes] = []
        """The whole message, after it was sent, as long as another try may be possible (rule C7)."""
        self._gone = False
        """Whether octets have been sent that are not kept, so that no other try is possible."""
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
        if self.stage is not Stage.DONE and data:
            self.pieces.append(data)
            self.waiting += len(data)
        self.octets += len(data)

    def end_of_message(self) -> None:
        """Learn that the message is wholly here."""
        self.complete = True

    def abandon(self) -> None:
        """Give the message up: the client will not finish it, or is gone (rules S10, S15)."""
        remote = self.remote
        if remote is not None and not (remote.at_rest and not self.progress.mail_sent):
            remote.end_transaction()
            self._drop(Fault(Kind.LOST, "given up by the client"), blame=False)
        elif remote is not None:
            self._leave(remote)
        self.stage = Stage.DONE
        self.owner = NOBODY
        self._forget_message()

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
            return remote.ready() is not None and bool(offer.early and offer.chunking) and self._suits(offer)
        assumed = remote.rideable
        if assumed is None or assumed.confirmed < speculation.confirmed or not assumed.offer.chunking:
            return False
        return self._suits(assumed.offer)

    def _suits(self, offer: Offer) -> bool:
        return not isinstance(mail_line(self.mail, offer, None), Refusal)

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
            self._finish(found.reply)
            return
        self.targets = list(found)
        self.stage = Stage.OPENING
        self._next_target()

    def _next_target(self) -> None:
        self.polite = self.in_clear = False
        if not self.targets:
            self._finish(self._best or _UNREACHABLE)
            return
        self.target = self.targets.pop(0)
        self._open()

    def _open(self) -> None:
        self.stage = Stage.OPENING
        self.remote = None
        self.progress = Progress()
        for recipient in self.recipients:
            recipient.reply = b""
            recipient.accepted = False
        if self._riding:
            self.pieces, self._riding = self._riding, []
            self.waiting = sum(map(len, self.pieces))
        self.tries += 1
        self.actions.append(Errand.OPEN)

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
        self._note_failure(why)
        self._remember(_UNREACHABLE)
        self._next_target()

    # --- what the remote's connection tells ------------------------------------------------------------------------

    def remote_received(self, data: bytes) -> None:
        """Take bytes of the remote."""
        remote = self.remote
        if remote is None:
            return
        for slot, reply in remote.receive(data):
            self.progress.any_reply = True
            self._answered(remote, slot, reply)
            if self.remote is not remote:
                return
        self._collect(remote)
        if remote.fault is not None:
            self._failed(remote.fault)
        elif remote.handshake_due:
            remote.handshake_due = False
            self.actions.append(Errand.START_TLS)

    def remote_secured(self) -> None:
        """Learn that the TLS handshake is done, with the right server (the answer to START_TLS)."""
        if self.remote is not None:
            self.remote.secured()

    def overdue(self, *, handed: bool) -> None:
        """Learn that all tries together have taken too long; ``handed`` as in ``remote_lost`` (rule C7)."""
        self.targets.clear()
        if self.remote is None:
            self._finish(_OVERDUE)
        else:
            self.polite = self.in_clear = True
            self._remember(_OVERDUE)
            self.remote_lost("took too long", reached=True, handed=handed)

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
            self._failed(Fault(Kind.TLS if tls else Kind.LOST, why))
        else:
            # It says nothing about early pipelining that nobody is there.
            self._drop(Fault(Kind.LOST, why), blame=False)
            self.unreachable(why)

    # --- sending ---------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Send what may be sent now."""
        remote = self.remote
        if remote is None or self.stage is not Stage.TALKING:
            return
        if self.holding and remote.opens_with_transaction:
            # The first flight leaves in one piece, so that all of it can ride on the SYN.
            return
        remote.advance()
        while remote is self.remote and (offer := remote.ready()) is not None and remote.may_follow(offer):
            if not self._send_next(remote, offer):
                break
        if remote is self.remote:
            self._stream(remote)

    def _send_next(self, remote: Remote, offer: Offer) -> bool:
        """Send the next command; say whether another may follow."""
        progress = self.progress
        if not progress.mail_sent:
            return not self.holding and self._send_mail(remote, offer)
        if progress.rcpts_sent < len(self.recipients):
            recipient = self.recipients[progress.rcpts_sent]
            progress.rcpts_sent += 1
            remote.send(Slot(RCPT, rcpt_line(recipient.rcpt, offer)))
            return True
        return self._send_data(remote, offer)

    def _send_mail(self, remote: Remote, offer: Offer) -> bool:
        octets = self.octets if self.complete else None
        line = mail_line(self.mail, offer, octets)
        certain = remote.offer is not None
        if isinstance(line, Refusal):
            # On an assumption nothing is refused: the remote is asked first.
            if certain:
                self._refuse(line.reply)
            return False
        if not certain:
            rcpts = [recipient.rcpt for recipient in self.recipients]
            remote.relied = extensions_needed(self.mail, rcpts, offer, octets)
            remote.relied_octets = octets or self.mail.size or 0
        self.progress.mail_sent = True
        remote.begin_transaction()
        self.was_early = remote.early
        remote.send(Slot(MAIL, line))
        return True

    def _send_data(self, remote: Remote, offer: Offer) -> bool:
        """Begin to send the message, if it is its turn."""
        progress = self.progress
        if progress.by or not self.wanted or (self.settled and not self.accepted):
            return False
        if not offer.chunking:
            progress.by = b"DATA"
            remote.send(Slot(DATA, b"DATA\r\n"))
            return False
        if not self._may_ride(remote):
            return False
        progress.by = b"BDAT"
        self.rode = self.complete and not self.settled
        if remote.offer is None:
            remote.relied |= {b"CHUNKING"}
        self.owner.go_ahead(self, b"")
        return False

    def _may_ride(self, remote: Remote) -> bool:
        """Say whether chunks may leave now: behind accepted recipients, or in one flight with the envelope (C8)."""
        if self.progress.answered == len(self.recipients):
            return self.accepted
        speculation = self.speculation
        if not self.complete or speculation is None or self.octets > speculation.size:
            return False
        if remote.offer is not None:
            return True
        assumed = remote.assumption
        if assumed is None or assumed.confirmed < speculation.confirmed:
            return False
        if self._dangerous is None:
            self._dangerous = holds_commands(b"".join(self.pieces))
        return not self._dangerous

    def _stream(self, remote: Remote) -> None:
        """Send what is here of the message, as far as the remote reads it."""
        progress = self.progress
        if progress.finished or remote.full:
            return
        if progress.by == b"BDAT":
            self._send_chunks(remote)
        elif progress.go_ahead:
            self._send_stuffed(remote)

    def _send_chunks(self, remote: Remote) -> None:
        offer = remote.ready()
        if self.complete:
            if offer is None or not remote.may_follow(offer):
                return
            self.progress.finished = True
            slot = Slot(END_OF_DATA, b"BDAT %d LAST\r\n" % self.waiting)
        elif self.waiting >= CHUNK and offer is not None and remote.may_follow(offer):
            slot = Slot(BDAT, b"BDAT %d\r\n" % self.waiting)
        else:
            return
        self._keep_riding()
        remote.mail_data_begins()
        remote.send(slot)
        for piece in self.pieces:
            remote.write(piece)
        self._forget_message()

    def _send_stuffed(self, remote: Remote) -> None:
        stuffer = self.progress.stuffer
        if stuffer is None:
            stuffer = self.progress.stuffer = ChunkStuffer(self.bare, pass_nul=self.pass_nul)
        if self.pieces:
            self._keep_riding()
        for piece in self.pieces:
            remote.mail_data_begins()
            remote.write(stuffer.receive(piece))
        self._forget_message()
        end = stuffer.finish() if self.complete and stuffer.fault is None else b""
        if stuffer.fault is not None:
            fault = stuffer.fault
            self._drop(Fault(Kind.LOST, f"message refused: {fault.value}"), blame=False)
            self._finish(b"554 5.6.11 " + fault.value.capitalize().encode() + b"\r\n")
        elif end:
            remote.mail_data_begins()
            remote.write(end)
            self.progress.finished = True
            remote.outstanding.append(Slot(END_OF_DATA))

    def _keep_riding(self) -> None:
        """Keep what is being sent, if it is a whole message and small."""
        limit = self.speculation.size if self.speculation is not None else CHUNK
        if self.complete and not self._gone and self.octets <= limit:
            self._riding = list(self.pieces)
        else:
            self._gone = True

    def _forget_message(self) -> None:
        self.pieces.clear()
        self.waiting = 0

    # --- the remote's replies --------------------------------------------------------------------------------------

    def _answered(self, remote: Remote, slot: Slot, reply: Reply) -> None:
        """Deal with a reply about the transaction."""
        negative = reply.code >= 400
        if negative and remote.early:
            if remote.tainted:
                self._misled(remote)
                return
            remote.refused_early()
        verb = slot.verb
        if reply.code // 100 == 3 and verb is not DATA:
            self._failed(Fault(Kind.NONSENSE, f"{verb.name.decode()}: {reply.raw!r}"))
        elif verb is MAIL:
            self.progress.mail_refusal = reply.raw if negative else b""
        elif verb is RCPT:
            self._recipient_answered(remote, reply)
        elif verb is DATA:
            self._data_answered(remote, reply)
        elif verb is END_OF_DATA:
            self._message_answered(remote, reply)
        elif verb is BDAT and negative:
            # A message that will not be finished (rule S15).
            self._drop(Fault(Kind.LOST, "refused a chunk"), blame=False)
            self._finish(reply.raw)

    def _recipient_answered(self, remote: Remote, reply: Reply) -> None:
        progress = self.progress
        recipient = self.recipients[progress.answered]
        progress.answered += 1
        recipient.accepted = reply.code < 300 and not progress.mail_refusal
        recipient.reply = progress.mail_refusal or reply.raw
        self.owner.recipient_answered(self, recipient)
        if progress.answered < len(self.recipients) or self.accepted:
            return
        if self.wanted and progress.by != b"DATA" and not progress.finished:
            self._leave(remote)
            self._finish(b"554 5.5.1 No valid recipients\r\n")

    def _data_answered(self, remote: Remote, reply: Reply) -> None:
        if reply.code >= 400:
            self._leave(remote)
            self._finish(reply.raw)
        elif reply.code < 300:
            self._failed(Fault(Kind.NONSENSE, f"DATA: {reply.raw!r}"))
        elif not self.accepted:
            # Every recipient was refused, and it waits for a message all the same: it gets none (rule C14).
            self._drop(Fault(Kind.LOST, "354 without a recipient"), blame=False)
            self._finish(b"554 5.5.1 No valid recipients\r\n")
        else:
            self.progress.go_ahead = True
            self.owner.go_ahead(self, reply.raw)

    def _message_answered(self, remote: Remote, reply: Reply) -> None:
        if not self.accepted and reply.code < 300:
            # A message without a recipient is no success, whatever it says (rule C14).
            self._drop(Fault(Kind.NONSENSE, "took a message for nobody"))
            self._finish(b"554 5.5.1 No valid recipients\r\n")
            return
        self._leave(remote)
        self._finish(reply.raw)

    def _misled(self, remote: Remote) -> None:
        """Deal with a refusal that comes of a wrong assumption: it is no verdict on the message (rules C3, C7)."""
        sent = remote.data_position is not None
        remote.refused_early()
        self._drop(Fault(Kind.HELLO, "offers less than was known of it"), blame=True)
        if sent or self.spoken:
            self._finish(b"451 4.3.0 Remote server has changed, try again\r\n")
        else:
            self._again_politely()

    def _refuse(self, reply: bytes) -> None:
        """Refuse every recipient ourselves: what this remote offers is not enough for the message."""
        if self.remote is not None:
            self._leave(self.remote)
        self._finish(reply)

    # --- failing, and trying again ---------------------------------------------------------------------------------

    def _failed(self, fault: Fault) -> None:
        """Deal with a session that is of no use any more."""
        remote = self.remote
        if remote is None:
            return
        early, borrowed = remote.early or bool(remote.used_early), remote.borrowed
        remote.fault = fault
        unknown = remote.data_position is not None and not remote.refused_at_once
        finished = self.progress.finished
        self._drop(fault)
        self._remember(_WORDS.get(fault.kind) or fault.reply or _LOST)
        if unknown:
            # With all of the message sent it may have been taken; else it was certainly not (RFC 1047).
            self.unknown = finished
            what = b"Connection lost, fate of the message unknown" if finished else b"Connection lost in the message"
            self._finish(b"451 4.4.2 " + what + b"\r\n")
        elif self._gone or self.spoken or self.owner is NOBODY:
            self._finish(self._best)
        elif borrowed:
            self._open()
        elif fault.kind is Kind.TLS and self._may_do_without_tls(remote):
            # Politely: MAIL never leaves early in clear where TLS is wanted.
            self.in_clear = self.polite = True
            self._open()
        elif early and not self.polite and fault.kind is not Kind.TLS:
            self._again_politely()
        else:
            self._next_target()

    def _may_do_without_tls(self, remote: Remote) -> bool:
        tls = remote.target.tls
        return tls is TlsWish.OPPORTUNISTIC and not (self.in_clear or remote.policy.refuse_downgrade)

    def _again_politely(self) -> None:
        self.polite = True
        self._open()

    def _remember(self, reply: bytes) -> None:
        """Keep a last word for when no server is left: rather a temporary one, as another time another may answer."""
        if reply[:3] == b"421":
            # It says that the connection closes, which ours with the client does not.
            reply = b"451" + reply.replace(b"\r\n421", b"\r\n451")[3:]
        if not self._best or self._best[:1] == b"5":
            self._best = reply

    def _note_failure(self, why: str) -> None:
        name = self.target.name if self.target is not None else ""
        self.errors.append(f"{name}: {why}")

    def _drop(self, fault: Fault, *, blame: bool = True) -> None:
        """Part from the remote with a reset; ``blame``: whether its end says something about early pipelining."""
        remote = self.remote
        if remote is None:
            return
        if blame:
            self._note_failure(f"{fault.why}")
            remote.give_up(fault)
        self._collect(remote)
        self.remote = None
        self.actions.append(Errand.DROP)

    def _collect(self, remote: Remote) -> None:
        notes, remote.notes = remote.notes, []
        self.notes += [(remote.target, note) for note in notes]

    def _leave(self, remote: Remote) -> None:
        """Part from the remote in good order: it may serve another delivery."""
        if remote.fault is not None:
            # More came than was owed: what was said before that stands.
            self._drop(remote.fault)
            return
        remote.end_transaction()
        self._collect(remote)
        self.remote, self.left = None, remote
        self.actions.append(Errand.KEEP if remote.at_rest else Errand.QUIT)

    def _finish(self, reply: bytes) -> None:
        """Give the last word."""
        self.stage = Stage.DONE
        self.reply = reply
        self._forget_message()
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


class _Nobody:
    """Wants to hear nothing more."""

    __slots__ = ()

    def recipient_answered(self, delivery: Delivery, recipient: Recipient) -> None:
        """Mind nothing."""

    def go_ahead(self, delivery: Delivery, reply: bytes) -> None:
        """Mind nothing."""

    def delivery_done(self, delivery: Delivery) -> None:
        """Mind nothing."""


NOBODY: Final = _Nobody()

_UNREACHABLE: Final = b"451 4.4.1 No server of the destination could be reached\r\n"
_OVERDUE: Final = b"451 4.4.7 Delivery took too long\r\n"
_LOST: Final = b"451 4.4.2 Connection with the remote server lost\r\n"
_WORDS: Final = {
    Kind.TLS: b"451 4.7.5 No TLS with the remote server as it has to be\r\n",
    Kind.LOGIN: b"451 4.7.8 The remote server did not let us log in\r\n",
    Kind.NONSENSE: b"451 4.5.0 The remote server broke the protocol\r\n",
}
