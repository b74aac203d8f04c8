"""How a message flows (inbound): by DATA, by BDAT to a backend that has CHUNKING, by BDAT turned into DATA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpproxy.smtp.chunks import ChunkStuffer
from smtpproxy.smtp.commands import (
    AUTH,
    BDAT,
    CHUNKS_AS_DATA,
    DATA,
    EHLO,
    END_OF_DATA,
    HELO,
    MAIL,
    NOOP,
    OWN_QUIT,
    QUIT,
    RCPT,
    RSET,
)
from smtpproxy.smtp.extensions import extensions_used
from smtpproxy.smtp.maildata import MailDataReader
from smtpproxy.smtp.paths import parameters

from . import ending, introduction, leaving, words
from .backend import Backend, ChunkSlot, Event, State
from .frontend import Event as ClientEvent
from .pipeline import Slot
from .refusals import refuse_data

if TYPE_CHECKING:
    from .core import RelayCore

# --- DATA ---------------------------------------------------------------------------------------------------------


def begin_data(relay: RelayCore) -> None:
    """Expect the client's mail data: the backend has said 354."""
    relay.turns += 1
    relay.reader = MailDataReader(relay.client.bare, pass_nul=relay.client.pass_nul)
    relay.verdict = b""
    if relay.stamp is not None:
        relay.backend_out.append(relay.stamp())


def read_data(relay: RelayCore) -> None:
    """Pass on what is here of the mail data (rules S10, S11, S15)."""
    reader = relay.reader
    if reader is None:
        return
    data = relay.frontend.take_mail_data()
    piece = reader.receive(data)
    came = len(data) if reader.rest is None else len(data) - len(reader.rest)
    relay.octets += came
    _trace_octets(relay, came)
    limit = relay.policy.limits.message_size
    if relay.verdict:
        pass
    elif reader.fault is not None:
        _refuse_message(relay, words.FAULTS[reader.fault])
    elif limit is not None and reader.octets > limit:
        _refuse_message(relay, words.TOO_BIG)
    elif piece:
        relay.backend_out.append(piece)
    if reader.rest is not None:
        _end_of_data(relay, reader, reader.rest)


def _trace_octets(relay: RelayCore, octets: int) -> None:
    if relay.trace is not None:
        relay.trace("C:", b"(%d octets of mail data)\r\n" % octets)


def _refuse_message(relay: RelayCore, verdict: bytes) -> None:
    """Take no more of a message: its rest is thrown away up to its true end, then the verdict is given (rule S15)."""
    relay.verdict = verdict
    leaving.abort_backend(relay)


def _end_of_data(relay: RelayCore, reader: MailDataReader, rest: bytes) -> None:
    relay.reader = None
    relay.frontend.end_mail_data(rest)
    relay.new_message()
    slot = Slot(END_OF_DATA)
    relay.pipeline.slots.append(slot)
    if relay.transaction is not None:
        relay.transaction.octets = reader.octets
        relay.transaction.verb = DATA
        relay.transaction.bare_seen = reader.bare_seen
    backend = relay.backend
    if relay.verdict or backend is None:
        slot.reply, relay.verdict = relay.verdict, b""
        relay.errors += 1
        ending.finish_transaction(relay, slot.reply)
        if slot.reply.startswith(b"421"):
            relay.frontend.close()
            relay.closing = True
    else:
        backend.move(Event.END_OF_DATA)
        backend.outstanding.append(slot)


def data_in_vain(relay: RelayCore, slot: Slot, *, waits: bool) -> None:
    """Refuse a DATA behind which the client has lost step (rule S5); ``waits``: the backend waits for mail data now."""
    slot.reply = ending.SYNCHRONISATION_LOST
    if waits:
        leaving.abort_backend(relay)


# --- BDAT ---------------------------------------------------------------------------------------------------------


def read_chunk(relay: RelayCore) -> None:
    """Take what is here of a chunk; it goes straight on where its command has gone already (rule S9)."""
    data = relay.frontend.take_chunk()
    relay.octets += len(data)
    _trace_octets(relay, len(data))
    slot = relay.chunk
    if slot is None:
        return
    slot.left -= len(data)
    if slot.sent:
        relay.backend_out.append(data)
    elif not slot.refusal and relay.backend is not None:
        slot.pieces.append(data)
        relay.backend.waiting += len(data)
    if not slot.left:
        relay.chunk = None
        if slot.refusal:
            slot.reply = slot.refusal
        if slot.refusal.startswith(b"421"):
            relay.frontend.close()
            relay.closing = True


def refuse_chunk(relay: RelayCore, slot: ChunkSlot, reply: bytes) -> None:
    """Refuse a chunk; its octets are thrown away before the reply is given (rule S9)."""
    relay.errors += 1
    slot.refusal = reply
    slot.pieces.clear()
    if not slot.left:
        slot.reply = reply


def chunks_refused(relay: RelayCore, backend: Backend, reply: bytes) -> None:
    """Refuse the chunk that waits for the DATA which the backend has refused."""
    slot = backend.queue[0]
    _unqueue(backend, slot)
    if isinstance(slot, ChunkSlot):
        refuse_chunk(relay, slot, reply)
        backend.message_refused = not slot.last
        if relay.transaction is not None:
            relay.transaction.verb = BDAT


def decide(relay: RelayCore, backend: Backend, slot: Slot) -> bool:
    """Deal with the slot at the head of the queue, which the backend must not simply be asked.

    Gives False when it has to stay there for now.
    """
    if backend.state is State.MESSAGE:
        if isinstance(slot, ChunkSlot):
            return _send_as_data(relay, backend, slot)
        _amid_chunks(relay, backend, slot)
        return True
    if slot.verb is QUIT:
        return _quit(relay, backend, slot)
    return _meet(relay, backend, slot) if backend.stranger else _decide_command(relay, backend, slot)


def _decide_command(relay: RelayCore, backend: Backend, slot: Slot) -> bool:
    if not relay.ehlo and backend.ehlo:
        _unqueue(backend, slot)
        _answer_locally(relay, slot, words.SEND_EHLO_FIRST)
    elif isinstance(slot, ChunkSlot):
        return _begin_chunks(relay, backend, slot)
    elif _uses_missing(relay, slot):
        backend.drop(slot)
        _answer_locally(relay, slot, b"451 4.3.0 The mail server does not offer this any more, start again\r\n")
    elif introduction.may_not_relay(relay, backend, slot):
        relay.relay_refused += 1
        backend.drop(slot)
        _answer_locally(relay, slot, words.RELAYING_DENIED)
    elif introduction.wants_forward(relay, backend, slot):
        return introduction.forward(relay, backend, slot)
    else:
        backend.drop(slot)
        backend.send(slot, relay.backend_out)
    return True


def _meet(relay: RelayCore, backend: Backend, slot: Slot) -> bool:
    outcome = introduction.meet(relay, backend, slot)
    if isinstance(outcome, bool):
        return outcome
    _unqueue(backend, slot)
    _answer_locally(relay, slot, outcome)
    return True


def _uses_missing(relay: RelayCore, slot: Slot) -> bool:
    if not relay.missing:
        return False
    if slot.verb is not MAIL and slot.verb is not RCPT:
        return slot.verb.name in relay.missing
    used = extensions_used(parameters(slot.raw[5:].rstrip(b"\r\n")))
    return not relay.missing.isdisjoint(used)


def _quit(relay: RelayCore, backend: Backend, slot: Slot) -> bool:
    """Answer QUIT ourselves, at once with the replies before it: nothing depends on the backend any more (S17)."""
    if not backend.outstanding:
        backend.drop(slot)
        relay.say_goodbye(slot)
        return True
    if relay.policy.reuse:
        return False
    # In one write with what stands before it; the client's reply follows when that has been answered.
    backend.drop(slot)
    backend.send(Slot(OWN_QUIT, b"QUIT\r\n"), relay.backend_out)
    relay.quit_slot = slot
    return True


def _unqueue(backend: Backend, slot: Slot) -> None:
    backend.drop(slot)
    if isinstance(slot, ChunkSlot):
        backend.waiting -= sum(map(len, slot.pieces))


def _begin_chunks(relay: RelayCore, backend: Backend, slot: ChunkSlot) -> bool:
    if backend.message_refused and backend.outstanding:
        # A MAIL that is under way may begin another message.
        return False
    if backend.message_refused:
        _unqueue(backend, slot)
        refuse_chunk(relay, slot, words.MESSAGE_FAILED)
        return True
    if slot.binary:
        # Never offered here, and what DATA would make of it is another message (rule S11).
        _unqueue(backend, slot)
        refuse_chunk(relay, slot, b"554 5.6.1 Binary message not possible here\r\n")
        backend.message_refused = True
        return True
    relay.stuffer = ChunkStuffer(relay.client.bare, pass_nul=relay.client.pass_nul)
    backend.send(Slot(CHUNKS_AS_DATA, b"DATA\r\n"), relay.backend_out)
    return False


def _send_as_data(relay: RelayCore, backend: Backend, slot: ChunkSlot) -> bool:
    """Send what is here of a chunk as mail data, and its end if that is here (rule S9)."""
    stuffer = relay.stuffer
    if stuffer is None:
        return False
    for piece in slot.pieces:
        backend.waiting -= len(piece)
        relay.backend_out.append(stuffer.receive(piece))
    slot.pieces.clear()
    done = not slot.left
    if done and slot.last:
        relay.backend_out.append(stuffer.finish())
    if stuffer.fault is not None:
        _break_off(relay, slot, words.FAULTS[stuffer.fault])
        return True
    if not done:
        return False
    backend.drop(slot)
    if relay.transaction is not None:
        relay.transaction.bare_seen = stuffer.bare_seen
    if slot.last:
        relay.stuffer = None
        backend.move(Event.END_OF_DATA)
        backend.outstanding.append(slot)
    else:
        if relay.transaction is not None:
            relay.transaction.octets += slot.size
        slot.reply = b"250 2.0.0 %d octets received\r\n" % slot.size
    return True


def _break_off(relay: RelayCore, slot: ChunkSlot, reply: bytes) -> None:
    """Give up a message of chunks half-way (rule S15); what else was sent for it is refused as well."""
    pending = leaving.abort_backend(relay)
    pending.remove(slot)
    refuse_chunk(relay, slot, reply)
    while pending and isinstance(pending[0], ChunkSlot):
        refuse_chunk(relay, pending[0], words.MESSAGE_FAILED)
        del pending[0]
    relay.message_failed = not pending
    ending.finish_transaction(relay, reply)
    relay.ask_again(pending)


def _amid_chunks(relay: RelayCore, backend: Backend, slot: Slot) -> None:
    """Deal with a command that is no chunk, while the backend waits for the rest of a message (rule S15)."""
    verb = slot.verb
    if verb in (RSET, EHLO, HELO, QUIT):
        pending = leaving.abort_backend(relay)
        ending.finish_transaction(relay, b"")
        relay.ask_again(pending)
        return
    backend.drop(slot)
    _answer_locally(relay, slot, words.OK if verb is NOOP else words.BAD_SEQUENCE)


def _answer_locally(relay: RelayCore, slot: Slot, reply: bytes) -> None:
    """Give a slot a reply of our own, whatever kind of command it stands for."""
    if isinstance(slot, ChunkSlot):
        refuse_chunk(relay, slot, reply)
    elif slot.verb is DATA:
        refuse_data(relay, slot, reply)
    else:
        relay.errors += not reply.startswith(b"2")
        slot.reply = reply
        if slot.verb is AUTH:
            relay.frontend.move(ClientEvent.AUTH_DONE)


def answer_without_backend(relay: RelayCore, slots: list[Slot], first: bytes) -> None:
    """Answer commands that have no backend to go to; ``first`` is the reply to the first one, if it is not empty."""
    for index, slot in enumerate(slots):
        if first and not index:
            _answer_locally(relay, slot, first)
        elif slot.verb is QUIT:
            relay.say_goodbye(slot)
        elif slot.verb is RSET or slot.verb is NOOP:
            slot.reply = words.OK
        elif slot.verb is EHLO or slot.verb is HELO:
            relay.ask_again(slots[index:])
            return
        else:
            _answer_locally(relay, slot, words.BAD_SEQUENCE)
