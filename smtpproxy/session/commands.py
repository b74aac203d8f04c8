"""What each command of a client does (inbound). One function a verb; ``TABLE`` has them all.

Every function leaves exactly one slot in the reply pipeline: one reply per command, in order (rule S3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.commands import (
    AUTH,
    AUTH_RESPONSE,
    BDAT,
    CONTROLS,
    DATA,
    EHLO,
    ENDLESS,
    ETRN,
    EXPN,
    HELO,
    HELP,
    MAIL,
    NOOP,
    OVERLONG,
    QUIT,
    RCPT,
    RSET,
    UNKNOWN,
    VRFY,
    Verb,
    is_http,
    is_tls,
    parse_chunk_size,
)
from smtpproxy.smtp.extensions import BINARYMIME, extensions_used
from smtpproxy.smtp.paths import POSTMASTER, parameters, recipient_domain

from . import ending
from .backend import ChunkSlot
from .frontend import Event, State
from .pipeline import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from .relay import Relay


def _pass_on(relay: Relay, command: Slot) -> None:
    """Let the backend answer, opening a session with it where there is none."""
    relay.pipeline.slots.append(command)
    backend = relay.backend
    if backend is None:
        relay.ask(command)
    else:
        backend.queue.append(command)
        backend.waiting += len(command.raw)


def _ehlo(relay: Relay, command: Slot) -> None:
    relay.new_message()
    learned = relay.learned
    if relay.backend is not None or learned is None or relay.spoiled:
        _pass_on(relay, command)
    elif not command.argument:
        relay.refuse(EHLO, b"501 5.5.4 EHLO needs a name\r\n")
    else:
        relay.ehlo = command.raw
        relay.promised = learned.extensions.keywords
        relay.answer(EHLO, learned.extensions.reply(learned.host, early=relay.client.early))
        relay.offered = relay.client.early


def _helo(relay: Relay, command: Slot) -> None:
    relay.new_message()
    if relay.backend is not None or relay.learned is None or relay.spoiled:
        _pass_on(relay, command)
    elif not command.argument:
        relay.refuse(HELO, b"501 5.5.4 HELO needs a name\r\n")
    else:
        relay.ehlo = command.raw
        relay.promised = frozenset()
        relay.answer(HELO, b"250 " + relay.learned.host + b"\r\n")


def _mail(relay: Relay, command: Slot) -> None:
    if not relay.envelope or (relay.transaction is None and not relay.pipeline.slots):
        relay.new_message()
    relay.envelope = True
    if b"=" in command.raw:
        relay.binary = BINARYMIME in extensions_used(parameters(command.argument))
    size = relay.policy.limits.message_size
    if size is not None and _declared_size(command.argument) > size:
        relay.refuse(MAIL, b"552 5.3.4 Message too big\r\n")
    else:
        _pass_on(relay, command)


def _rcpt(relay: Relay, command: Slot) -> None:
    relay.recipients_asked += 1
    domains = relay.policy.recipient_domains
    if relay.recipients_asked > relay.policy.limits.recipients:
        relay.refuse(RCPT, b"452 4.5.3 Too many recipients\r\n")
    elif domains is not None and not relay.authenticated and not _is_ours(command.argument, domains):
        relay.relay_refused += 1
        relay.refuse(RCPT, b"550 5.7.1 Relaying denied\r\n")
    else:
        _pass_on(relay, command)


def _is_ours(argument: bytes, domains: frozenset[str]) -> bool:
    domain = recipient_domain(argument)
    return domain is not None and (domain == POSTMASTER or domain in domains)


def _data(relay: Relay, command: Slot) -> None:
    if relay.frontend.waiting:
        ending.out_of_step(relay, DATA)
        return
    relay.frontend.move(Event.DATA)
    _pass_on(relay, command)


def _bdat(relay: Relay, command: Slot) -> None:
    chunk = parse_chunk_size(command.argument)
    if chunk is None:
        ending.end(relay, BDAT, b"521 5.5.4 Bad chunk size, cannot go on\r\n", "bad chunk size")
        return
    size, last = chunk
    # Written anew, so that no server reads another number in it.
    slot = ChunkSlot(b"BDAT %d LAST\r\n" % size if last else b"BDAT %d\r\n" % size, size, last=last)
    relay.pipeline.slots.append(slot)
    relay.chunk_octets += size
    slot.binary = relay.binary
    slot.refusal = _chunk_refusal(relay)
    if slot.refusal:
        relay.errors += 1
        relay.message_failed = True
    else:
        relay.ask(slot)
        if last:
            relay.new_message()
    if relay.frontend.state is State.CLOSED:
        return
    if size:
        relay.frontend.begin_chunk(size)
        relay.chunk = slot
    elif slot.refusal:
        slot.reply = slot.refusal


def _chunk_refusal(relay: Relay) -> bytes:
    """Give the reply to a chunk that we refuse ourselves, or nothing."""
    limit = relay.policy.limits.message_size
    if not relay.policy.chunking:
        return b"502 5.5.1 BDAT not offered\r\n"
    if relay.message_failed:
        return b"503 5.5.1 The message has failed, RSET first\r\n"
    if limit is not None and relay.chunk_octets > limit:
        return b"552 5.3.4 Message too big\r\n"
    return b""


def _rset(relay: Relay, command: Slot) -> None:
    if command.raw[4:] == b"\r\n":
        # With an argument it is an error, after which the transaction goes on.
        relay.new_message()
    if relay.backend is None:
        relay.answer(RSET, b"250 2.0.0 Ok\r\n")
    else:
        _pass_on(relay, command)


def _noop(relay: Relay, command: Slot) -> None:
    if relay.backend is None:
        relay.answer(NOOP, b"250 2.0.0 Ok\r\n")
    else:
        _pass_on(relay, command)


def _quit(relay: Relay, command: Slot) -> None:
    relay.frontend.close()
    relay.reason = "quit"
    if relay.backend is None:
        relay.answer(QUIT, relay.goodbye())
        relay.closing = True
    else:
        _pass_on(relay, command)


def _auth(relay: Relay, command: Slot) -> None:
    relay.frontend.move(Event.AUTH)
    relay.confidential = True
    _pass_on(relay, command)


def _auth_response(relay: Relay, command: Slot) -> None:
    relay.frontend.move(Event.RESPONSE)
    _pass_on(relay, command)


def _unknown(relay: Relay, command: Slot) -> None:
    if is_http(command.raw):
        ending.end(relay, UNKNOWN, b"521 5.5.1 This is a mail server\r\n", "HTTP")
    else:
        relay.refuse(UNKNOWN, b"500 5.5.1 Command not recognized\r\n")


def _controls(relay: Relay, command: Slot) -> None:
    if relay.frontend.state is State.AUTH_RESPONSE:
        _broken_response(relay, command)
    elif is_tls(command.raw):
        ending.end(relay, CONTROLS, b"521 5.5.1 TLS is not spoken here\r\n", "TLS on a clear port")
    else:
        relay.refuse(CONTROLS, b"500 5.5.2 Control character in command; lines end with <CR><LF>\r\n")


def _overlong(relay: Relay, command: Slot) -> None:
    if relay.frontend.state is State.AUTH_RESPONSE:
        _broken_response(relay, command)
    else:
        relay.refuse(OVERLONG, b"500 5.5.2 Line too long\r\n")


def _broken_response(relay: Relay, command: Slot) -> None:
    """End the session: the backend is in the middle of an exchange that the client's line cannot continue."""
    ending.end(relay, command.verb, b"554 5.5.0 Bad response in AUTH exchange\r\n", "bad AUTH response")


def _endless(relay: Relay, _command: Slot) -> None:
    ending.end(relay, ENDLESS, b"521 5.5.2 Line without end\r\n", "line without end")


def _declared_size(argument: bytes) -> int:
    """Give what SIZE declares (RFC 1870, 6); 0 where it declares nothing that we understand."""
    if b"=" not in argument:
        return 0
    for keyword, value in parameters(argument):
        if keyword == b"SIZE" and value.isdigit() and len(value) <= 20:
            return int(value)
    return 0


TABLE: Final[dict[Verb, Callable[[Relay, Slot], None]]] = {
    HELO: _helo,
    EHLO: _ehlo,
    MAIL: _mail,
    RCPT: _rcpt,
    DATA: _data,
    BDAT: _bdat,
    RSET: _rset,
    NOOP: _noop,
    VRFY: _pass_on,
    EXPN: _pass_on,
    HELP: _pass_on,
    ETRN: _pass_on,
    AUTH: _auth,
    AUTH_RESPONSE: _auth_response,
    QUIT: _quit,
    UNKNOWN: _unknown,
    CONTROLS: _controls,
    OVERLONG: _overlong,
    ENDLESS: _endless,
}
