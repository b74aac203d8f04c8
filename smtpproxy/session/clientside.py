"""The events that concern a client, whoever answers it, and what the owner of a session asks."""

from __future__ import annotations

from typing import Final

from smtpproxy.smtp.commands import Wait

from . import ending
from .actions import Action
from .dialogue import Dialogue
from .frontend import State
from .refusals import data_refused, look_before_refusal, talked_behind_data


class ClientSide(Dialogue):
    """A dialogue and its events. The owner feeds it and, after each event, writes and does what it says."""

    __slots__ = ()

    def start(self, now: float) -> None:
        """Begin, when the client's connection has been accepted, or when it is another client's from now on."""
        raise NotImplementedError  # Relay and Submission have it

    # --- events: the client ------------------------------------------------------------------------------------

    def await_tls(self) -> None:
        """Wait for the handshake of a connection that is TLS from its first octet on."""
        self.handed_over = True

    def tls_begun(self) -> None:
        """Learn that it is done; ``start`` is next."""
        self.handed_over = False

    def client_received(self, data: bytes, now: float) -> None:
        """Take bytes of the client."""
        self.now = now
        frontend = self.frontend
        state = frontend.state
        if not self.pipeline.slots:
            self.turns += state is not State.MAIL_DATA and not frontend.waiting
        elif not self.pipeline.groups and not self.early:
            self.early = True
            if self.client.early_refusal:
                self.pipeline.abandon()
                ending.fail(self, self.client.early_refusal, "pregreet")
                return
        if state is State.AWAIT_DATA:
            talked_behind_data(self)
            return
        if state is State.AWAIT_TLS:
            ending.talked_behind_starttls(self)
            return
        frontend.receive(data)
        self.advance()

    def client_quiet(self, now: float) -> None:
        """Learn that nothing more of the client was there to be read (the answer to PROBE_CLIENT)."""
        self.now = now
        data_refused(self)
        self.advance()

    def client_eof(self, now: float) -> None:
        """Learn that the client has closed its writing side: what it sent is still answered (rule S13)."""
        self.now = now
        self.eof = True
        self.advance()

    def client_lost(self, why: str) -> None:
        """Learn that the client's connection is gone."""
        ending.vanish(self, why)

    def client_refused(self, why: str) -> None:
        """Learn that there is no room for the client that XCLIENT has named."""
        ending.fail(self, self.text(b"421 4.3.2", why.capitalize().encode() + b", try again later"), why)

    def client_timed_out(self) -> None:
        """Learn that the client has let its time pass (RFC 5321, 4.5.3.2.7)."""
        why = "TLS handshake timed out" if self.handed_over else "client timed out"
        ending.fail(self, self.text(b"421 4.4.2", b"Timeout, closing connection"), why)

    # --- events: our own side ----------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """Learn that the service is going down: end between transactions, with 421 (RFC 5321, 3.8)."""
        self.draining = True
        if not self.closing and self.at_rest:
            ending.fail(self, self.going_down(), "shutdown")

    def end_now(self) -> None:
        """Learn that the service cannot wait any longer: the message that comes in is given up (rule S15)."""
        ending.fail(self, self.going_down(), "shutdown")

    def internal_error(self) -> None:
        """Learn that we have failed ourselves: this session ends, nothing else does (rule H10)."""
        ending.fail(self, self.text(b"421 4.3.0", b"Internal error, closing connection"), "internal error")

    def take_counts(self, old: ClientSide) -> None:
        """Go on counting where another dialogue with the same client has ended."""
        for name in _COUNTS:
            setattr(self, name, getattr(old, name))
        self.pipeline.replies, self.pipeline.groups = old.pipeline.replies, old.pipeline.groups

    # --- what the owner asks ------------------------------------------------------------------------------------

    def take_replies(self, *, hold: bool = True) -> bytes:
        """Give what is to be written to the client; without ``hold`` also part of a group (rule S4)."""
        slots = self.pipeline.slots
        replies = self._take(hold=hold) if slots and slots[0].reply else b""
        if self.stuffed and replies:
            replies += self._take_more(hold=hold)
        if self.refused_data is not None:
            look_before_refusal(self)
        if not slots:
            if self.closing:
                ending.close(self)
            elif not self.handed_over and (action := _HAND_OVER.get(self.frontend.state)) is not None:
                self.handed_over = True
                self.actions.append(action)
            elif self.draining and self.at_rest:
                ending.fail(self, self.going_down(), "shutdown")
                replies += self._take(hold=False)
                ending.close(self)
        return replies

    def _take(self, *, hold: bool) -> bytes:
        # Where the client's own bytes are missing, the replies before them must not wait for it.
        replies = self.pipeline.take(hold=hold and self.frontend.state not in _INPUT_IS_MISSING)
        if replies and self.trace is not None:
            self.trace("S:", replies)
        return replies

    def _take_more(self, *, hold: bool) -> bytes:
        """Read on where replies that have left made room for more commands of a burst."""
        taken = []
        while self.stuffed:
            self.advance()
            replies = self._take(hold=hold)
            if not replies:
                break
            taken.append(replies)
        return b"".join(taken)

    @property
    def at_rest(self) -> bool:
        """Whether the client is between transactions and owed nothing."""
        if self.handed_over or self.transaction is not None:
            return False
        return not self.pipeline.slots and self.frontend.state is State.COMMANDS

    @property
    def client_wait(self) -> Wait:
        """What we wait for from the client."""
        state = self.frontend.state
        if state is State.MAIL_DATA or state is State.CHUNK:
            return Wait.NOTHING if self.stuffed else Wait.DATA_BLOCK
        if self.handed_over:
            return Wait.CLIENT_TLS
        if self.closing or (self.pipeline.slots and not self.pipeline.ready):
            return Wait.NOTHING
        return Wait.COMMAND


_HAND_OVER: Final = {State.AWAIT_TLS: Action.START_TLS, State.AWAIT_CLIENT: Action.CHANGE_CLIENT}
_INPUT_IS_MISSING: Final = frozenset({State.CHUNK, State.MAIL_DATA, State.AUTH_RESPONSE})
_COUNTS: Final = (
    "command_count",
    "early",
    "errors",
    "octets",
    "recipients_accepted",
    "recipients_refused",
    "relay_refused",
    "reply_count",
    "turns",
    "violations",
)
