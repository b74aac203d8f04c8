"""What each reply of a backend does (inbound). One function for each kind of slot; ``TABLE`` has them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.commands import (
    AUTH,
    AUTH_RESPONSE,
    BDAT,
    CHUNKS_AS_DATA,
    DATA,
    EHLO,
    END_OF_DATA,
    ETRN,
    EXPN,
    GREETING,
    HELO,
    HELO_INSTEAD,
    HELP,
    MAIL,
    NOOP,
    OWN_EHLO,
    OWN_GREETING,
    OWN_HELO,
    OWN_QUIT,
    OWN_RSET,
    OWN_STARTTLS,
    OWN_XCLIENT,
    OWN_XFORWARD,
    RCPT,
    RSET,
    VRFY,
    Verb,
)

from . import ending, introduction, message
from .actions import Action
from .backend import ChunkSlot, Event
from .frontend import Event as ClientEvent
from .pipeline import Slot
from .policy import BackendTls, Learned
from .transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.smtp.extensions import Extensions
    from smtpproxy.smtp.replies import Reply

    from .backend import Backend
    from .relay import Relay

_CLOSING: Final = 421
_MAY_NEED_EXTENSIONS: Final = frozenset({MAIL, RCPT, AUTH, VRFY, EXPN, HELP, ETRN})
_GREETINGS: Final = frozenset({GREETING, OWN_GREETING})


def answer(relay: Relay, backend: Backend, reply: Reply) -> None:
    """Give one reply to the slot that it answers (rule H8)."""
    if not backend.outstanding:
        unasked = reply.raw if reply.code == _CLOSING else b""
        ending.backend_lost(relay, "backend spoke unasked", unasked)
        return
    slot = backend.outstanding[0]
    code = reply.code
    if slot.verb is BDAT and code < 400 and isinstance(slot, ChunkSlot) and slot.left:
        ending.backend_lost(relay, "backend answered before the end of a chunk")
        return
    del backend.outstanding[0]
    if code >= 400:
        backend.failed = True
        if code == _CLOSING and slot.verb not in _GREETINGS:
            ending.backend_lost(relay, "backend closed the session", reply.raw)
            return
    TABLE[slot.verb](relay, backend, slot, reply)
    if relay.quit_slot is not None and len(backend.outstanding) == 1:
        # Only the reply to QUIT is missing now, and nothing depends on it (rule S17).
        relay.say_goodbye(relay.quit_slot)
        relay.quit_slot = None


def _pass_back(relay: Relay, _backend: Backend, slot: Slot, reply: Reply) -> None:
    code = reply.code
    if code >= 400:
        relay.errors += 1
    elif code >= 300:
        _nonsense(relay, slot)
        return
    slot.reply = reply.raw


def _nonsense(relay: Relay, slot: Slot) -> None:
    ending.backend_lost(relay, f"backend gave {slot.verb.name.decode()} a reply that makes no sense")


def _greeting(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    if 200 <= reply.code < 300:
        backend.move(Event.GREETED)
        backend.greeting = reply.raw
        slot.reply = reply.raw
    elif reply.code == _CLOSING or reply.code < 400:
        backend.outstanding.insert(0, slot)
        relay.retry(f"greeting: {reply.raw!r}")
    else:
        ending.fail(relay, reply.raw, "refused by the backend's greeting")


def _own_greeting(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    if 200 <= reply.code < 300:
        backend.move(Event.GREETED)
        backend.greeting = reply.raw
        relay.resume_identity(backend)
    elif reply.code == _CLOSING or reply.code < 400:
        backend.outstanding.insert(0, slot)
        relay.retry(f"greeting: {reply.raw!r}")
    else:
        _turned_away(relay, backend, reply)


def greet_again(relay: Relay, kept: Backend, slot: Slot) -> None:
    """Answer for a kept session, which greeted us long ago."""
    if slot.verb is GREETING:
        slot.reply = b"220 " + kept.host + b" ESMTP\r\n" if kept.host else kept.greeting
    relay.missing = frozenset()
    if introduction.is_stranger(relay, kept):
        kept.estrange()
        return
    introduction.settled(relay, kept)
    if not relay.ehlo:
        # Not under the name of the client before: what needs an EHLO is refused until this one has said its own.
        kept.decisions |= introduction.NEED_EHLO
    elif kept.extensions is not None:
        _compare(relay, kept, kept.extensions)
    relay.resume_identity(kept)


def _turned_away(relay: Relay, backend: Backend, reply: Reply) -> None:
    """Let a refusal that came before the client's command be the reply to that command (rule S18)."""
    pending = backend.queue
    ending.leave_backend(relay)
    message.answer_without_backend(relay, pending, reply.raw)


def _ehlo(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        head, extensions = relay.policy.extensions.adapt(reply.raw)
        if backend.stranger and introduction.next_step(relay, backend, slot, extensions):
            return
        _identified(relay, backend, slot, extensions)
        backend.host = head.split(b" ", 1)[0] or relay.policy.hostname
        if relay.learned is None or relay.learned.extensions is not extensions:
            relay.learned = Learned(backend.host, extensions)
        slot.reply = extensions.reply(head or relay.policy.hostname, early=relay.client.early)
        relay.offered = relay.client.early
    elif reply.code == 503 and backend.ehlo:
        _second_refused(relay, backend, slot)
    elif relay.transaction is not None:
        _refused_amid(relay, reply)
    elif reply.code >= 500:
        relay.ehlo_slot = slot
        relay.send_now(backend, Slot(HELO_INSTEAD, b"HELO" + slot.raw[4:]))
    else:
        _pass_back(relay, backend, slot, reply)


def _refused_amid(relay: Relay, reply: Reply) -> None:
    """End: we took the EHLO for the end of the transaction, and for the backend it goes on."""
    ending.fail(relay, reply.raw, "EHLO refused amid a transaction")


def _second_refused(relay: Relay, backend: Backend, slot: Slot) -> None:
    """Ask a fresh session: this server takes EHLO only once (some do, against RFC 5321, 4.1.4)."""
    relay.ehlo = b""
    pending = backend.queue
    backend.queue = []
    ending.finish_transaction(relay, b"")
    relay.once_only = True
    relay.spoiled = relay.spoiled or backend.secret
    ending.leave_backend(relay)
    relay.ask_again([slot, *pending])


def _helo_instead(relay: Relay, backend: Backend, _slot: Slot, reply: Reply) -> None:
    slot, relay.ehlo_slot = relay.ehlo_slot, None
    if slot is None:
        return
    if reply.code >= 300:
        _pass_back(relay, backend, slot, reply)
        return
    nothing = relay.policy.extensions.nothing
    if backend.stranger and introduction.next_step(relay, backend, slot, nothing):
        return
    _identified(relay, backend, Slot(HELO, b"HELO" + slot.raw[4:]), nothing)
    relay.ehlo = slot.raw
    head = reply.lines[0].strip() or relay.policy.hostname
    backend.host = head.split(b" ", 1)[0]
    relay.learned = Learned(backend.host, nothing)
    slot.reply = nothing.reply(head, early=relay.client.early)
    relay.offered = relay.client.early


def _helo(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        _identified(relay, backend, slot, relay.policy.extensions.nothing)
        backend.host = reply.lines[0].split(b" ", 1)[0] or relay.policy.hostname
    elif reply.code == 503 and backend.ehlo and not relay.ehlo:
        _second_refused(relay, backend, slot)
        return
    elif relay.transaction is not None:
        _refused_amid(relay, reply)
        return
    _pass_back(relay, backend, slot, reply)


def _identified(relay: Relay, backend: Backend, slot: Slot, extensions: Extensions) -> None:
    relay.ehlo = slot.raw
    relay.promised = extensions.keywords
    relay.missing = frozenset()
    ending.finish_transaction(relay, b"")
    backend.identified(slot.raw, extensions)
    introduction.settled(relay, backend)
    relay.pace = "pipelined" if backend.pipelining else "lockstep"


def _own_ehlo(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        head, extensions = relay.policy.extensions.adapt(reply.raw)
        if backend.stranger and introduction.next_step(relay, backend, slot, extensions):
            return
        backend.identified(slot.raw, extensions)
        introduction.settled(relay, backend)
        backend.host = head.split(b" ", 1)[0] or relay.policy.hostname
        if relay.learned is None or relay.learned.extensions is not extensions:
            relay.learned = Learned(backend.host, extensions)
        _compare(relay, backend, extensions)
    elif reply.code == 503 and backend.ehlo:
        relay.once_only = True
        pending = backend.queue
        backend.queue = []
        ending.leave_backend(relay)
        relay.ask_again(pending)
    elif reply.code >= 500:
        relay.send_now(backend, Slot(OWN_HELO, b"HELO" + slot.raw[4:]))
    elif reply.code < 400:
        _nonsense(relay, slot)
    else:
        _turned_away(relay, backend, reply)


def _own_helo(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        nothing = relay.policy.extensions.nothing
        if backend.stranger and introduction.next_step(relay, backend, slot, nothing):
            return
        # Noted under the line that the client gave, so that it counts as said.
        backend.identified(relay.ehlo, nothing)
        introduction.settled(relay, backend)
        backend.host = reply.lines[0].split(b" ", 1)[0] or relay.policy.hostname
        _compare(relay, backend, nothing)
    elif reply.code >= 400:
        _turned_away(relay, backend, reply)
    else:
        _nonsense(relay, slot)


def _compare(relay: Relay, backend: Backend, extensions: Extensions) -> None:
    """See what the client was promised that this session cannot keep (rule S18)."""
    relay.missing = extensions.missing(relay.promised)
    relay.pace = "pipelined" if backend.pipelining else "lockstep"
    if relay.missing:
        backend.decisions |= _MAY_NEED_EXTENSIONS


def _own_rset(relay: Relay, backend: Backend, _slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        backend.transaction = backend.partial = backend.message_refused = False
    else:
        ending.backend_lost(relay, "backend refused RSET")


def _own_starttls(relay: Relay, backend: Backend, _slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        relay.actions.append(Action.START_BACKEND_TLS)
    elif relay.policy.backend_tls is BackendTls.REQUIRED:
        relay.retry(f"backend refused STARTTLS: {reply.raw!r}")
    else:
        backend.move(Event.TLS_ENDED)
        backend.tls_refused = True


def _own_xclient(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        introduction.introduced(relay, backend)
    elif reply.code >= 400:
        _turned_away(relay, backend, reply)
    else:
        _nonsense(relay, slot)


def _own_xforward(_relay: Relay, _backend: Backend, _slot: Slot, _reply: Reply) -> None:
    """Mind nothing: it only concerns the server's log."""


def _own_quit(_relay: Relay, backend: Backend, _slot: Slot, _reply: Reply) -> None:
    backend.move(Event.CLOSE)


def _mail(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        relay.transaction = Transaction(slot.raw, relay.now)
        backend.transaction = True
        backend.message_refused = False
        backend.uses += 1
    _pass_back(relay, backend, slot, reply)


def _rcpt(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    transaction = relay.transaction
    if reply.code < 300:
        relay.recipients_accepted += 1
        if transaction is not None:
            transaction.accept(slot.raw)
    else:
        relay.recipients_refused += 1
        if transaction is not None:
            transaction.refused += 1
    _pass_back(relay, backend, slot, reply)


def _data(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    if relay.out_of_step:
        message.data_in_vain(relay, slot, waits=reply.code < 400)
    elif 300 <= reply.code < 400:
        backend.move(Event.GO_AHEAD)
        relay.frontend.move(ClientEvent.GO_AHEAD)
        message.begin_data(relay)
        slot.reply = reply.raw
    elif reply.code >= 400:
        message.refuse_data(relay, slot, reply.raw)
    else:
        _nonsense(relay, slot)


def _end_of_data(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    _pass_back(relay, backend, slot, reply)
    if relay.backend is backend:
        backend.transaction = backend.partial = False
        if relay.transaction is not None and isinstance(slot, ChunkSlot):
            relay.transaction.octets += slot.size
            relay.transaction.verb = BDAT
        ending.finish_transaction(relay, reply.raw)


def _bdat(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    if not isinstance(slot, ChunkSlot) or slot.last:
        _end_of_data(relay, backend, slot, reply)
        return
    backend.partial = True
    if relay.transaction is not None:
        relay.transaction.octets += slot.size
    _pass_back(relay, backend, slot, reply)


def _chunks_as_data(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    if 300 <= reply.code < 400:
        backend.move(Event.GO_AHEAD)
    elif reply.code >= 400:
        message.chunks_refused(relay, backend, reply.raw)
    else:
        _nonsense(relay, slot)


def _rset(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        backend.transaction = backend.partial = backend.message_refused = False
        ending.finish_transaction(relay, b"")
    _pass_back(relay, backend, slot, reply)


def _auth(relay: Relay, backend: Backend, slot: Slot, reply: Reply) -> None:
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
    _pass_back(relay, backend, slot, reply)


TABLE: Final[dict[Verb, Callable[[Relay, Backend, Slot, Reply], None]]] = {
    GREETING: _greeting,
    OWN_GREETING: _own_greeting,
    EHLO: _ehlo,
    OWN_EHLO: _own_ehlo,
    HELO: _helo,
    HELO_INSTEAD: _helo_instead,
    OWN_HELO: _own_helo,
    OWN_RSET: _own_rset,
    OWN_QUIT: _own_quit,
    OWN_STARTTLS: _own_starttls,
    OWN_XCLIENT: _own_xclient,
    OWN_XFORWARD: _own_xforward,
    MAIL: _mail,
    RCPT: _rcpt,
    DATA: _data,
    END_OF_DATA: _end_of_data,
    BDAT: _bdat,
    CHUNKS_AS_DATA: _chunks_as_data,
    RSET: _rset,
    VRFY: _pass_back,
    EXPN: _pass_back,
    HELP: _pass_back,
    NOOP: _pass_back,
    ETRN: _pass_back,
    AUTH: _auth,
    AUTH_RESPONSE: _auth,
}
