"""The relay: one client's frontend and its backend joined (inbound).

Theory of operation.  Bytes of the client become commands; each command becomes a slot, an owed reply, at the end of
the reply pipeline.  A slot is answered by us, or goes to the backend, which asks it of the server at the pace that the
server can bear; the server's replies come back in order and fill their slots.  What is filled at the head of the
pipeline leaves, a whole group in one write.  So a burst sent before the greeting is nothing special: its slots wait.

The relay does no I/O.  Its owner feeds it (``client_received``, ``backend_received`` and the other events); after each
event it writes ``take_replies()`` to the client and ``backend_out`` to the server, and carries out ``actions`` in
their order.  ``commands.py`` says what a command does, ``answers.py`` what a server's reply does, ``message.py`` how
mail data flows, ``introduction.py`` how a server is prepared, ``leaving.py`` how we part from it, ``ending.py`` how a
session ends; ``core.py`` is what those are made of, ``state.py`` has the facts that they share; here are the events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpproxy.smtp.commands import GREETING, Wait

from . import ending, leaving
from .answers import answer
from .backend import Backend, ChunkSlot
from .backend import State as BackendState
from .core import RelayCore
from .frontend import State
from .introduction import NEED_EHLO
from .openings import greet_again
from .pipeline import Slot

if TYPE_CHECKING:
    from smtpproxy.smtp.replies import Reply

    from .origin import Origin


class Relay(RelayCore):
    """One client's session: its events, and what its owner asks of it."""

    __slots__ = ()

    # --- events: the client ------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin, when the client's connection has been accepted, or when it is another client's from now on."""
        self.now = now
        greeting = Slot(GREETING)
        self.pipeline.slots.append(greeting)
        if self.draining:
            ending.fail(self, self.going_down(), "shutdown")
        elif self.backend is not None:
            greet_again(self, self.backend, greeting)
        elif self.policy.eager or self.learned is None:
            self.open_backend(greeting)
        else:
            greeting.reply = b"220 " + self.learned.host + b" ESMTP\r\n"
        if self.frontend.waiting or self.eof:
            self.advance()

    def succeed(self, old: Relay, now: float, *, same_client: bool, keep_backend: bool = True) -> None:
        """Take the place of another relay: inside TLS, or for the client that XCLIENT has named (rule S6).

        What it has counted goes on, and the backend stays if it is at rest and may hear another EHLO; of what the
        client said nothing is left.  ``same_client``: whether nothing new is known of who it is.
        ``keep_backend``: whether the backend can serve it.
        """
        self.now = now
        self.origin = old.origin if same_client else None
        self.trace, self.stamp, self.draining = old.trace, old.stamp, old.draining
        self.once_only = self.once_only or old.once_only
        self.take_counts(old)
        # One can be open only where the server has refused RSET.
        ending.finish_transaction(old, b"")
        self.ended, old.ended = old.ended, ()
        if old.frontend.state is State.AWAIT_CLIENT:
            # It is for the client that was named: whom we trust may send it in one burst.
            self.frontend.receive(old.frontend.take_mail_data())
            self.eof = old.eof
        backend = old.backend
        if backend is None:
            return
        if keep_backend and self._may_keep(backend):
            old.backend = None
            self.backend = backend
            self._meet_again(backend)
        else:
            leaving.leave_backend(old)
            self.actions, old.actions = old.actions, []
            self.released = old.released

    def _may_keep(self, backend: Backend) -> bool:
        at_rest = backend.state is BackendState.READY and backend.idle and not backend.partial
        return at_rest and not (backend.secret or backend.transaction) and not (self.once_only and backend.ehlo)

    def _meet_again(self, backend: Backend) -> None:
        if self.policy.introduces and backend.introduced is not None and self.origin is None:
            backend.estrange()
        elif backend.ehlo:
            backend.decisions |= NEED_EHLO

    def begin_secure(self) -> None:
        """Begin inside TLS, after the client's STARTTLS: there is no second greeting (RFC 3207, 4.2)."""
        if self.policy.eager and self.backend is None:
            self.open_backend(None)

    def client_identified(self, origin: Origin) -> None:
        """Learn who the client is (the answer to IDENTIFY_CLIENT)."""
        self.origin = origin
        self.go_on()

    # --- events: the backend -----------------------------------------------------------------------------------

    def backend_received(self, data: bytes, now: float) -> None:
        """Take bytes of the server."""
        self.now = now
        backend = self.backend
        if backend is None:
            return
        replies = backend.reader.receive(data)
        if backend.state is BackendState.TLS and replies and _goes_on(backend, replies, 0):
            self.retry(_SURPLUS)
            return
        for index, reply in enumerate(replies):
            self.reply_count += 1
            if self.trace is not None:
                self.trace("B<", reply.raw)
            answer(self, backend, reply)
            if self.backend is not backend:
                break
            if backend.attempt is not None and _goes_on(backend, replies, index):
                self.retry(_SURPLUS)
                return
        else:
            if backend.reader.fault:
                self.backend_lost(f"backend sent garbage: {backend.reader.fault}")
        if self.frontend.waiting or self.eof or self.stuffed:
            self.advance()
        else:
            self.go_on()

    def backend_borrowed(self, kept: Backend) -> None:
        """Take a kept session with a server as the answer to CONNECT (rule S18)."""
        fresh = self.backend
        if fresh is None:
            return
        greeting = fresh.outstanding.pop()
        kept.queue, kept.waiting = fresh.queue, fresh.waiting
        self.backend = kept
        greet_again(self, kept, greeting)
        self.advance()

    def backend_secured(self, now: float) -> None:
        """Learn that the TLS handshake with the server is done.

        It is the answer to START_BACKEND_TLS; where TLS is there from the first octet on, the greeting is next.
        """
        self.now = now
        if self.backend is not None and self.backend.state is BackendState.TLS:
            self.backend.secured()
            self.advance()

    def backend_lost(self, why: str) -> None:
        """Learn that the connection with the server is gone, or of no use any more."""
        leaving.backend_lost(self, why)

    def backend_failed(self, why: str) -> None:
        """Learn that no server could be reached (the other answer to CONNECT and NEXT_SERVER)."""
        self.backend = None
        ending.fail(self, self.text(b"421 4.3.2", b"Service not available, try again later"), why)

    def backend_timed_out(self) -> None:
        """Learn that the server has let its time pass (RFC 5321, 4.5.3.2)."""
        leaving.backend_lost(self, "backend timed out")

    # --- what the owner asks ------------------------------------------------------------------------------------

    @property
    def backend_wait(self) -> Wait:
        """What we wait for from the server."""
        slot = None if self.backend is None else self.backend.awaited
        if slot is None and self.backend is not None and self.backend.state is BackendState.TLS:
            return Wait.BACKEND_TLS
        if slot is None or (isinstance(slot, ChunkSlot) and slot.left):
            return Wait.NOTHING
        return slot.verb.wait


def _goes_on(backend: Backend, replies: list[Reply], index: int) -> bool:
    """Say whether the server has sent more behind a reply: in clear, it must not count inside TLS (RFC 3207, 5)."""
    return len(replies) > index + 1 or backend.reader.pending or bool(backend.reader.fault)


_SURPLUS = "backend sent more than its reply to STARTTLS"
