"""A client's session on an outbound listener: feeds the submission from one client and any number of remotes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from smtpproxy.session.outbound.submission import Submission

from .clientsession import CLIENT_ACTIONS, ClientSession
from .refusal import refusal
from .remoteside import RemoteSide
from .stamp import received

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.session.outbound.delivery import Delivery

    from .outboundcontext import OutboundContext
    from .transparent import Destination
    from .vouched import Vouched


class OutboundSession(ClientSession):
    """The protocol of the client's connection."""

    __slots__ = ("_patience", "_settling", "destination", "sides")

    # While a verdict is awaited, the QUIT behind the message is not worth the system calls.
    plenty = 4096
    context: OutboundContext

    def __init__(self, context: OutboundContext, address: str, counted: str, vouched: Vouched | None = None) -> None:
        """As ClientSession."""
        super().__init__(context, address, counted, vouched)
        self.sides: dict[Delivery, RemoteSide] = {}
        self.destination: Destination | None = None
        """Where the client believes to be connected to, on a transparent listener."""
        self._patience: Any = None
        self._settling = False
        self.dialogue = self._new_submission(secure=context.settings.tls.mode == "implicit")
        self.dialogue.trace = context.journal.tracer(self)
        if context.settings.trace_header:
            self.dialogue.stamp = self._stamp

    @property
    def submission(self) -> Submission:
        """The dialogue with the client."""
        dialogue = self.dialogue
        assert isinstance(dialogue, Submission)  # noqa: S101  # it is made here; this tells the type checker
        return dialogue

    def _new_submission(self, *, secure: bool) -> Submission:
        context = self.context
        policy = context.policy(secure=secure)
        return Submission(policy, context.client_policy(self.address, secure=secure), self._route_of)

    def _route_of(self, domain: str) -> tuple[object, object] | None:
        return self.context.route(domain, self.destination)

    def _stamp(self) -> bytes:
        return received(self, time.time())

    def begin(self, transport: Any, first: bytes) -> None:
        """Begin with a client of whom ``first`` has been read already."""
        context = self.context
        if context.settings.transparent != "off":
            self.destination, why = context.meant_for(transport.socket)
            denied = "" if why else context.may_relay(self.address)
            if why or denied:
                self._turn_away(transport, why or denied, for_good=bool(denied))
                return
        super().begin(transport, first)

    def _turn_away(self, transport: Any, why: str, *, for_good: bool) -> None:
        self.dialogue.over = True
        self._dismiss()
        transport.protocol = refusal(self.context, self.address, why, for_good=for_good)
        transport.protocol.makeConnection(transport)

    # --- what ClientSession leaves open -----------------------------------------------------------------------------

    def _begin_anew(self) -> None:
        old = self.submission
        submission = self._new_submission(secure=True)
        self.dialogue = submission
        submission.succeed(old, self.context.clock())

    def _write_to_servers(self) -> None:
        if self._settling:
            # What is done here leads back here: the outermost goes on until there is nothing to do.
            return
        self._settling = True
        try:
            while self._settle_deliveries() or self._write_replies():
                pass
        finally:
            self._settling = False
        self._mind_patience()

    def _settle_deliveries(self) -> bool:
        submission = self.submission
        moved = False
        for delivery in (*submission.deliveries, *submission.orphans, *submission.finished):
            side = self.sides.get(delivery)
            if side is None:
                side = self.sides[delivery] = RemoteSide(self, delivery)
            moved = side.settle() or moved
        finished, submission.finished = submission.finished, []
        for delivery in finished:
            side = self.sides.pop(delivery)
            side.settle()
            side.end()
            self.context.journal.delivery_ended(self, side)
        return moved

    def _mind_patience(self) -> None:
        submission = self.submission
        if submission.waits_for_chunk and self._patience is None and submission.policy.speculation is not None:
            seconds = submission.policy.speculation.patience
            self._patience = self.context.call_later(seconds, self._patience_ended, submission)

    def _patience_ended(self, submission: Submission) -> None:
        self._patience = None
        if submission is self.dialogue and submission.waits_for_chunk:
            self._tell(submission.patience_ended, self.context.clock())

    def tell_delivery(self, event: Callable[..., None], *arguments: Any, **how: Any) -> None:
        """Let the submission know what has happened to one of its deliveries, and do what comes of it."""
        try:
            event(*arguments, **how)
            if not self._settling:
                self._settle()
        except Exception:
            self._own_fault()

    def _act(self) -> None:
        while self.dialogue.actions:
            actions, self.dialogue.actions = self.dialogue.actions, []
            for action in actions:
                CLIENT_ACTIONS[action](self)

    def _pause_servers(self) -> None:
        """Mind nothing: what remotes say is little, and bounded."""

    def _resume_servers(self) -> None:
        """The same."""

    def _sweep_servers(self, now: float) -> None:
        """Mind nothing: each delivery minds its own time."""

    def _abandon_servers(self) -> None:
        for side in self.sides.values():
            side.cut_off()
        self.sides.clear()
