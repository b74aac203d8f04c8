"""What each reply of a backend does (inbound). One function for each kind of slot; ``TABLE`` has them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.commands import (
    AUTH,
    AUTH_RESPONSE,
    BDAT,
    CHUNKS_AS_DATA,
    DATA,
    END_OF_DATA,
    ETRN,
    EXPN,
    GREETING,
    HELP,
    MAIL,
    NOOP,
    OWN_GREETING,
    RCPT,
    RSET,
    VRFY,
    Verb,
)

from . import ending, leaving, message
from .backend import ChunkSlot, Event
from .frontend import Event as ClientEvent
from .openings import TABLE as OPENINGS
from .openings import nonsense, pass_back
from .pipeline import Slot
from .refusals import refuse_data
from .transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.smtp.replies import Reply

    from .backend import Backend
    from .core import RelayCore

_CLOSING: Final = 421
_GREETINGS: Final = frozenset({GREETING, OWN_GREETING})


def answer(relay: RelayCore, backend: Backend, reply: Reply) -> None:
    """Give one reply to the slot that it answers (rule H8)."""
    if not backend.outstanding:
        unasked = reply.raw if reply.code == _CLOSING else b""
        leaving.backend_lost(relay, "backend spoke unasked", unasked)
        return
    slot = backend.outstanding[0]
    code = reply.code
    if slot.verb is BDAT and code < 400 and isinstance(slot, ChunkSlot) and slot.left:
        leaving.backend_lost(relay, "backend answered before the end of a chunk")
        return
    del backend.outstanding[0]
    if code >= 400:
        backend.failed = True
        if code == _CLOSING and slot.verb not in _GREETINGS:
            leaving.backend_lost(relay, "backend closed the session", reply.raw)
            return
    TABLE[slot.verb](relay, backend, slot, reply)
    if relay.quit_slot is not None and len(backend.outstanding) == 1:
        # Only the reply to QUIT is missing now, and nothing depends on it (rule S17).
        relay.say_goodbye(relay.quit_slot)
        relay.quit_slot = None


def _mail(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        relay.transaction = Transaction(slot.raw, relay.now)
        backend.transaction = True
        backend.message_refused = False
        backend.uses += 1
    pass_back(relay, backend, slot, reply)


def _rcpt(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    transaction = relay.transaction
    if reply.code < 300:
        relay.recipients_accepted += 1
        if transaction is not None:
            transaction.accept(slot.raw)
    else:
        relay.recipients_refused += 1
        if transaction is not None:
            transaction.refused += 1
    pass_back(relay, backend, slot, reply)


def _data(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    if relay.out_of_step:
        message.data_in_vain(relay, slot, waits=reply.code < 400)
    elif 300 <= reply.code < 400:
        backend.move(Event.GO_AHEAD)
        relay.frontend.move(ClientEvent.GO_AHEAD)
        message.begin_data(relay)
        slot.reply = reply.raw
    elif reply.code >= 400:
        refuse_data(relay, slot, reply.raw)
    else:
        nonsense(relay, slot)


def _end_of_data(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    pass_back(relay, backend, slot, reply)
    if relay.backend is backend:
        backend.transaction = backend.partial = False
        if relay.transaction is not None and isinstance(slot, ChunkSlot):
            relay.transaction.octets += slot.size
            relay.transaction.verb = BDAT
        ending.finish_transaction(relay, reply.raw)


def _bdat(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    if not isinstance(slot, ChunkSlot) or slot.last:
        _end_of_data(relay, backend, slot, reply)
        return
    backend.partial = True
    if relay.transaction is not None:
        relay.transaction.octets += slot.size
    pass_back(relay, backend, slot, reply)


def _chunks_as_data(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    if 300 <= reply.code < 400:
        backend.move(Event.GO_AHEAD)
    elif reply.code >= 400:
        message.chunks_refused(relay, backend, reply.raw)
    else:
        nonsense(relay, slot)


def _rset(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        backend.transaction = backend.partial = backend.message_refused = False
        ending.finish_transaction(relay, b"")
    pass_back(relay, backend, slot, reply)


def _auth(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    backend.secret = True
    if reply.code == 334:
        backend.challenged = True
        if relay.frontend.waiting:
            relay.violations += 1
            ending.fail(relay, ending.SYNCHRONISATION_LOST, "synchronisation violated")
            return
        relay.frontend.move(ClientEvent.CHALLENGE)
        slot.reply = reply.raw
        return
    backend.challenged = False
    relay.frontend.move(ClientEvent.AUTH_DONE)
    if reply.code == 235:
        relay.authenticated = True
    pass_back(relay, backend, slot, reply)


TABLE: Final[dict[Verb, Callable[[RelayCore, Backend, Slot, Reply], None]]] = {
    **OPENINGS,
    MAIL: _mail,
    RCPT: _rcpt,
    DATA: _data,
    END_OF_DATA: _end_of_data,
    BDAT: _bdat,
    CHUNKS_AS_DATA: _chunks_as_data,
    RSET: _rset,
    VRFY: pass_back,
    EXPN: pass_back,
    HELP: pass_back,
    NOOP: pass_back,
    ETRN: pass_back,
    AUTH: _auth,
    AUTH_RESPONSE: _auth,
}
