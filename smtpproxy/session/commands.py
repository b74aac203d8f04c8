"""What each command of a client does (inbound). One function a verb; ``TABLE`` has them all.

Every function leaves exactly one slot in the reply pipeline: one reply per command, in order (rule S3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.commands import (
    AUTH,
    AUTH_RESPONSE,
    BDAT,
    DATA,
    EHLO,
    ETRN,
    EXPN,
    HELO,
    HELP,
    LARGEST_CHUNK,
    LHLO,
    MAIL,
    NOOP,
    QUIT,
    RCPT,
    RSET,
    UNKNOWN,
    VRFY,
    XCLIENT,
    Verb,
    parse_chunk_size,
)
from smtpproxy.smtp.extensions import BINARYMIME, extensions_used
from smtpproxy.smtp.paths import parameters
from smtpproxy.smtp.xclient import parse_xclient

from . import ending, words
from .backend import ChunkSlot
from .frontend import Event, State
from .introduction import is_ours
from .pipeline import Slot
from .state import NOTHING
from .verbs import COMMON, may_be_in_transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from .core import RelayCore


def _pass_on(relay: RelayCore, command: Slot) -> None:
    """Let the backend answer, opening a session with it where there is none."""
    relay.pipeline.slots.append(command)
    backend = relay.backend
    if backend is None:
        relay.ask(command)
    else:
        backend.queue.append(command)
        backend.waiting += len(command.raw)


def _ehlo(relay: RelayCore, command: Slot) -> None:
    relay.new_message()
    relay.heard = command.raw
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


def _helo(relay: RelayCore, command: Slot) -> None:
    relay.new_message()
    relay.heard = command.raw
    if relay.backend is not None or relay.learned is None or relay.spoiled:
        _pass_on(relay, command)
    elif not command.argument:
        relay.refuse(HELO, b"501 5.5.4 HELO needs a name\r\n")
    else:
        relay.ehlo = command.raw
        relay.promised = NOTHING
        relay.answer(HELO, b"250 " + relay.learned.host + b"\r\n")


def _mail(relay: RelayCore, command: Slot) -> None:
    if not relay.envelope or (relay.transaction is None and not relay.pipeline.slots):
        relay.new_message()
    relay.envelope = True
    if b"=" in command.raw:
        relay.binary = BINARYMIME in extensions_used(parameters(command.argument))
    size = relay.policy.limits.message_size
    if size is not None and _declared_size(command.argument) > size:
        relay.refuse(MAIL, words.TOO_BIG)
    else:
        _pass_on(relay, command)


def _rcpt(relay: RelayCore, command: Slot) -> None:
    relay.recipients_asked += 1
    domains = relay.policy.recipient_domains
    if relay.recipients_asked > relay.policy.limits.recipients:
        relay.refuse(RCPT, words.TOO_MANY_RECIPIENTS)
    elif domains is not None and not relay.authenticated and not is_ours(command.argument, domains):
        relay.relay_refused += 1
        relay.refuse(RCPT, words.RELAYING_DENIED)
    else:
        _pass_on(relay, command)


def _data(relay: RelayCore, command: Slot) -> None:
    if relay.frontend.waiting:
        ending.out_of_step(relay, DATA)
        return
    relay.frontend.move(Event.DATA)
    _pass_on(relay, command)


def _bdat(relay: RelayCore, command: Slot) -> None:
    chunk = parse_chunk_size(command.argument)
    if chunk is None:
        ending.end(relay, BDAT, words.BAD_CHUNK, "bad chunk size")
        return
    size, last = chunk
    stamp = b""
    if relay.chunk_octets < 0:
        relay.chunk_octets = 0
        stamp = b"" if relay.stamp is None else relay.stamp()
    if size + len(stamp) > LARGEST_CHUNK:
        ending.end(relay, BDAT, words.BAD_CHUNK, "bad chunk size")
        return
    # Written anew, so that no server reads another number in it.
    slot = ChunkSlot((b"BDAT %d LAST\r\n" if last else b"BDAT %d\r\n") % (size + len(stamp)), size, last=last)
    if stamp:
        slot.pieces.append(stamp)
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


def _chunk_refusal(relay: RelayCore) -> bytes:
    """Give the reply to a chunk that we refuse ourselves, or nothing."""
    limit = relay.policy.limits.message_size
    if relay.policy.starttls_required:
        return words.STARTTLS_FIRST
    if not relay.policy.chunking:
        return words.BDAT_NOT_OFFERED
    if relay.message_failed:
        return words.MESSAGE_FAILED
    if limit is not None and relay.chunk_octets > limit:
        return words.TOO_BIG
    return b""


def _rset(relay: RelayCore, command: Slot) -> None:
    if command.raw[4:] == b"\r\n":
        # With an argument it is an error, after which the transaction goes on.
        relay.new_message()
    if relay.backend is None:
        relay.answer(RSET, words.OK)
    else:
        _pass_on(relay, command)


def _noop(relay: RelayCore, command: Slot) -> None:
    if relay.backend is None:
        relay.answer(NOOP, words.OK)
    else:
        _pass_on(relay, command)


def _quit(relay: RelayCore, command: Slot) -> None:
    relay.frontend.close()
    relay.reason = "quit"
    if relay.backend is None:
        relay.answer(QUIT, relay.goodbye())
        relay.closing = True
    else:
        _pass_on(relay, command)


def _auth(relay: RelayCore, command: Slot) -> None:
    relay.confidential = True
    if relay.policy.auth:
        relay.frontend.move(Event.AUTH)
        _pass_on(relay, command)
    elif relay.policy.auth_inside:
        relay.refuse(AUTH, b"538 5.7.11 Encryption required, STARTTLS first\r\n")  # RFC 4954, 6
    else:
        relay.refuse(AUTH, words.AUTH_NOT_AVAILABLE)


def _xclient(relay: RelayCore, command: Slot) -> None:
    """Take the word of a proxy in front of us, if it is one that we trust (rule H6)."""
    said = parse_xclient(command.argument)
    if not relay.policy.trusts_xclient:
        relay.refuse(XCLIENT, b"550 5.7.0 XCLIENT not allowed\r\n")
    elif may_be_in_transaction(relay):
        relay.refuse(XCLIENT, b"503 5.5.1 XCLIENT not possible now\r\n")
    elif isinstance(said, str):
        relay.refuse(XCLIENT, b"501 5.5.4 XCLIENT: " + said.encode() + b"\r\n")
    else:
        relay.frontend.move(Event.XCLIENT)
        relay.named = said


def _auth_response(relay: RelayCore, command: Slot) -> None:
    relay.frontend.move(Event.RESPONSE)
    _pass_on(relay, command)


def _declared_size(argument: bytes) -> int:
    """Give what SIZE declares (RFC 1870, 6); 0 where it declares nothing that we understand."""
    if b"=" not in argument:
        return 0
    for keyword, value in parameters(argument):
        if keyword == b"SIZE" and value.isdigit() and len(value) <= 20:
            return int(value)
    return 0


TABLE: Final[dict[Verb, Callable[[RelayCore, Slot], None]]] = {
    **COMMON,
    LHLO: COMMON[UNKNOWN],
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
    XCLIENT: _xclient,
}
