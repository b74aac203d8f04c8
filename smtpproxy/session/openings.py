"""How a session with a server begins: greeting, EHLO, and what we say to it for our own sake (inbound).

The replies of a backend that concern the session as a whole; ``answers.py`` has those of a mail transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.commands import (
    AUTH,
    EHLO,
    ETRN,
    EXPN,
    GREETING,
    HELO,
    HELO_INSTEAD,
    HELP,
    MAIL,
    OWN_EHLO,
    OWN_GREETING,
    OWN_HELO,
    OWN_QUIT,
    OWN_RSET,
    OWN_STARTTLS,
    OWN_XCLIENT,
    OWN_XFORWARD,
    RCPT,
    VRFY,
    Verb,
)

from . import ending, introduction, leaving, message
from .actions import Action
from .backend import Event
from .pipeline import Slot
from .policy import BackendTls, Learned
from .state import NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.smtp.extensions import Extensions
    from smtpproxy.smtp.replies import Reply

    from .backend import Backend
    from .core import RelayCore

_CLOSING: Final = 421
_MAY_NEED_EXTENSIONS: Final = frozenset({MAIL, RCPT, AUTH, VRFY, EXPN, HELP, ETRN})


def pass_back(relay: RelayCore, _backend: Backend, slot: Slot, reply: Reply) -> None:
    """Let the server's reply be ours."""
    code = reply.code
    if code >= 400:
        relay.errors += 1
    elif code >= 300:
        nonsense(relay, slot)
        return
    slot.reply = reply.raw


def nonsense(relay: RelayCore, slot: Slot) -> None:
    """Give up a server whose reply has no meaning there (rule H8)."""
    leaving.backend_lost(relay, f"backend gave {slot.verb.name.decode()} a reply that makes no sense")


def _greeting(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    if 200 <= reply.code < 300:
        backend.move(Event.GREETED)
        backend.greeting = reply.raw
        slot.reply = reply.raw
    elif reply.code == _CLOSING or reply.code < 400:
        backend.outstanding.insert(0, slot)
        relay.retry(f"greeting: {reply.raw!r}")
    else:
        ending.fail(relay, reply.raw, "refused by the backend's greeting")


def _own_greeting(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    if 200 <= reply.code < 300:
        backend.move(Event.GREETED)
        backend.greeting = reply.raw
        relay.resume_identity(backend)
    elif reply.code == _CLOSING or reply.code < 400:
        backend.outstanding.insert(0, slot)
        relay.retry(f"greeting: {reply.raw!r}")
    else:
        _turned_away(relay, backend, reply)


def greet_again(relay: RelayCore, kept: Backend, slot: Slot) -> None:
    """Answer for a kept session, which greeted us long ago."""
    if slot.verb is GREETING:
        slot.reply = b"220 " + kept.host + b" ESMTP\r\n" if kept.host else kept.greeting
    relay.missing = NOTHING
    if introduction.is_stranger(relay, kept):
        kept.estrange()
        if kept.transaction:
            kept.ask_first(Slot(OWN_RSET, b"RSET\r\n"))
        return
    introduction.settled(relay, kept)
    if not relay.ehlo:
        # Not under the name of the client before: what needs an EHLO is refused until this one has said its own.
        kept.decisions |= introduction.NEED_EHLO
    elif kept.extensions is not None:
        _compare(relay, kept, kept.extensions)
    relay.resume_identity(kept)


def _turned_away(relay: RelayCore, backend: Backend, reply: Reply) -> None:
    """Let a refusal that came before the client's command be the reply to that command (rule S18)."""
    pending, backend.queue = backend.queue, []
    leaving.leave_backend(relay)
    message.answer_without_backend(relay, pending, reply.raw)


def _ehlo(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        head, extensions = relay.policy.extensions.adapt(reply.raw)
        if _is_not_done(relay, backend, slot, extensions, reply):
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
        pass_back(relay, backend, slot, reply)


def _is_not_done(relay: RelayCore, backend: Backend, slot: Slot, extensions: Extensions, reply: Reply) -> bool:
    """Say whether EHLO is asked once more, after STARTTLS or XCLIENT, or not answered at all."""
    if not introduction.has_more_to_do(relay, backend, extensions):
        return False
    return introduction.next_step(relay, backend, slot, extensions, reply)


def _refused_amid(relay: RelayCore, reply: Reply) -> None:
    """End: we took the EHLO for the end of the transaction, and for the backend it goes on."""
    ending.fail(relay, reply.raw, "EHLO refused amid a transaction")


def _second_refused(relay: RelayCore, backend: Backend, slot: Slot) -> None:
    """Ask a fresh session: this server takes EHLO only once (some do, against RFC 5321, 4.1.4)."""
    relay.ehlo = b""
    pending = backend.queue
    backend.queue = []
    ending.finish_transaction(relay, b"")
    relay.once_only = True
    relay.spoiled = relay.spoiled or backend.secret
    leaving.leave_backend(relay)
    relay.ask_again([slot, *pending])


def _helo_instead(relay: RelayCore, backend: Backend, _slot: Slot, reply: Reply) -> None:
    slot, relay.ehlo_slot = relay.ehlo_slot, None
    if slot is None:
        return
    if reply.code >= 300:
        pass_back(relay, backend, slot, reply)
        return
    nothing = relay.policy.extensions.nothing
    if backend.stranger and introduction.next_step(relay, backend, slot, nothing, reply):
        return
    _identified(relay, backend, Slot(HELO, b"HELO" + slot.raw[4:]), nothing)
    relay.ehlo = slot.raw
    head = reply.lines[0].strip() or relay.policy.hostname
    backend.host = head.split(b" ", 1)[0]
    relay.learned = Learned(backend.host, nothing)
    slot.reply = nothing.reply(head, early=relay.client.early)
    relay.offered = relay.client.early


def _helo(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        _identified(relay, backend, slot, relay.policy.extensions.nothing)
        backend.host = reply.lines[0].split(b" ", 1)[0] or relay.policy.hostname
    elif reply.code == 503 and backend.ehlo and not relay.ehlo:
        _second_refused(relay, backend, slot)
        return
    elif relay.transaction is not None:
        _refused_amid(relay, reply)
        return
    pass_back(relay, backend, slot, reply)


def _identified(relay: RelayCore, backend: Backend, slot: Slot, extensions: Extensions) -> None:
    relay.ehlo = slot.raw
    relay.promised = extensions.keywords
    relay.missing = NOTHING
    ending.finish_transaction(relay, b"")
    backend.identified(slot.raw, extensions)
    introduction.settled(relay, backend)
    relay.pace = "pipelined" if backend.pipelining else "lockstep"


def _own_ehlo(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        head, extensions = relay.policy.extensions.adapt(reply.raw)
        if _is_not_done(relay, backend, slot, extensions, reply):
            return
        backend.identified(slot.raw, extensions)
        introduction.settled(relay, backend)
        backend.host = head.split(b" ", 1)[0] or relay.policy.hostname
        if relay.learned is None or relay.learned.extensions is not extensions:
            relay.learned = Learned(backend.host, extensions)
        _compare(relay, backend, extensions)
    elif reply.code == 503 and backend.ehlo:
        _only_once(relay, backend)
    elif reply.code >= 500:
        relay.send_now(backend, Slot(OWN_HELO, b"HELO" + slot.raw[4:]))
    elif reply.code < 400:
        nonsense(relay, slot)
    else:
        _turned_away(relay, backend, reply)


def _only_once(relay: RelayCore, backend: Backend) -> None:
    """Ask a fresh session what this one, which takes EHLO only once, was to be asked."""
    relay.once_only = True
    pending, backend.queue = backend.queue, []
    leaving.leave_backend(relay)
    relay.ask_again(pending)


def _own_helo(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        nothing = relay.policy.extensions.nothing
        if backend.stranger and introduction.next_step(relay, backend, slot, nothing, reply):
            return
        # Noted under the line that the client gave, so that it counts as said.
        backend.identified(relay.ehlo, nothing)
        introduction.settled(relay, backend)
        backend.host = reply.lines[0].split(b" ", 1)[0] or relay.policy.hostname
        _compare(relay, backend, nothing)
    elif reply.code == 503 and backend.ehlo:
        _only_once(relay, backend)
    elif reply.code >= 400:
        _turned_away(relay, backend, reply)
    else:
        nonsense(relay, slot)


def _compare(relay: RelayCore, backend: Backend, extensions: Extensions) -> None:
    """See what the client was promised that this session cannot keep (rule S18)."""
    relay.missing = extensions.missing(relay.promised)
    relay.pace = "pipelined" if backend.pipelining else "lockstep"
    if relay.missing:
        backend.decisions |= _MAY_NEED_EXTENSIONS


def _own_rset(relay: RelayCore, backend: Backend, _slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        backend.transaction = backend.partial = backend.message_refused = False
    else:
        leaving.backend_lost(relay, "backend refused RSET")


def _own_starttls(relay: RelayCore, backend: Backend, _slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        relay.actions.append(Action.START_BACKEND_TLS)
    elif relay.policy.backend_tls is BackendTls.REQUIRED:
        relay.retry(f"backend refused STARTTLS: {reply.raw!r}")
    else:
        backend.move(Event.TLS_ENDED)
        backend.secure = False
        attempt = backend.take_attempt()
        if attempt is not None:
            # What EHLO said holds.
            TABLE[attempt[0].verb](relay, backend, *attempt)


def _own_xclient(relay: RelayCore, backend: Backend, slot: Slot, reply: Reply) -> None:
    if reply.code < 300:
        introduction.introduced(relay, backend)
    elif reply.code >= 400:
        _turned_away(relay, backend, reply)
    else:
        nonsense(relay, slot)


def _own_xforward(_relay: RelayCore, _backend: Backend, _slot: Slot, _reply: Reply) -> None:
    """Mind nothing: it only concerns the server's log."""


def _own_quit(_relay: RelayCore, backend: Backend, _slot: Slot, _reply: Reply) -> None:
    backend.move(Event.CLOSE)


TABLE: Final[dict[Verb, Callable[[RelayCore, Backend, Slot, Reply], None]]] = {
    GREETING: _greeting,
    OWN_GREETING: _own_greeting,
    EHLO: _ehlo,
    OWN_EHLO: _own_ehlo,
    HELO: _helo,
    HELO_INSTEAD: _helo_instead,
    OWN_HELO: _own_helo,
    OWN_RSET: _own_rset,
    OWN_STARTTLS: _own_starttls,
    OWN_XCLIENT: _own_xclient,
    OWN_XFORWARD: _own_xforward,
    OWN_QUIT: _own_quit,
}
