"""How things end (inbound): sessions, backend sessions, messages that will not be finished.

The order of the day is: say what is owed, never more; leave nothing half done that a server could take for done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpproxy.smtp.commands import OWN_QUIT

from .actions import Action
from .backend import State as BackendState
from .frontend import State

if TYPE_CHECKING:
    from smtpproxy.smtp.commands import Verb

    from .backend import Backend
    from .core import RelayCore
    from .dialogue import Dialogue
    from .pipeline import Slot


def end(dialogue: Dialogue, verb: Verb, reply: bytes, reason: str) -> None:
    """Answer a command with ``reply``, after what is owed before it, and close."""
    dialogue.refuse(verb, reply)
    dialogue.frontend.close()
    dialogue.closing = True
    dialogue.reason = reason


def fail(dialogue: Dialogue, reply: bytes, reason: str) -> None:
    """Give up: ``reply`` takes the place of everything that is still unanswered, and the connection closes."""
    if dialogue.over:
        return
    dialogue.refused_data = None
    if dialogue.closing and all(slot.reply for slot in dialogue.pipeline.slots):
        # The last word has been said.
        dialogue.part()
        return
    dialogue.pipeline.cut(reply)
    dialogue.frontend.close()
    dialogue.closing = True
    dialogue.reason = reason
    finish_transaction(dialogue, reply)
    dialogue.part()


def out_of_step(dialogue: Dialogue, verb: Verb) -> None:
    """Refuse a command behind which more was sent than its reply allows, and close (rule S5)."""
    dialogue.violations += 1
    end(dialogue, verb, SYNCHRONISATION_LOST, "synchronisation violated")


SYNCHRONISATION_LOST = b"554 5.5.0 Input behind a command that must end a group\r\n"


def talked_behind_starttls(dialogue: Dialogue) -> None:
    """Refuse STARTTLS: the client has sent more before it was told to go ahead (rule S5)."""
    dialogue.violations += 1
    dialogue.reason = "synchronisation violated"
    dialogue.errors += 1
    dialogue.pipeline.slots[-1].reply = SYNCHRONISATION_LOST
    dialogue.frontend.close()
    dialogue.closing = True


def vanish(dialogue: Dialogue, why: str) -> None:
    """The client is gone: nothing that it has not finished may leave a message behind (rule S10)."""
    if dialogue.over:
        return
    dialogue.over = dialogue.closing = True
    dialogue.reason = why
    dialogue.pipeline.abandon()
    dialogue.refused_data = None
    dialogue.frontend.close()
    finish_transaction(dialogue, b"")
    dialogue.part()
    dialogue.actions.append(Action.CLOSE_CLIENT)


def no_more_input(dialogue: Dialogue) -> None:
    """Go on after the client has closed its writing side and everything that it sent has been read (rule S13)."""
    state = dialogue.frontend.state
    if state is State.COMMANDS or state is State.AWAIT_TLS:
        dialogue.frontend.close()
        dialogue.closing = True
        dialogue.reason = dialogue.reason or "client closed the connection"
    elif state is State.MAIL_DATA or state is State.AUTH_RESPONSE:
        # What is owed up to here, the 354 or 334, still leaves.
        dialogue.frontend.close()
        dialogue.closing = True
        dialogue.reason = _IN_THE_MIDDLE
        finish_transaction(dialogue, b"")
        dialogue.part()
    elif state is State.CHUNK:
        fail(dialogue, dialogue.text(b"421 4.4.2", b"Connection closed in the middle of a chunk"), _IN_THE_MIDDLE)


_IN_THE_MIDDLE = "client closed the connection in the middle"


def close(dialogue: Dialogue) -> None:
    """Close the client's connection: everything that was owed has been said."""
    if dialogue.over:
        return
    dialogue.over = True
    finish_transaction(dialogue, b"")
    dialogue.part()
    dialogue.actions.append(Action.CLOSE_CLIENT)


def leave_backend(relay: RelayCore) -> None:
    """Part from the backend in the way that its state asks for (rules S10, S15, S18)."""
    backend = relay.backend
    if backend is None:
        return
    _let_go(relay, backend)
    if backend.state is not BackendState.READY and backend.state is not BackendState.MESSAGE:
        action = Action.DROP_BACKEND
    elif backend.awaited is not None and backend.awaited.verb is OWN_QUIT:
        action = Action.AWAIT_CLOSE
    elif backend.state is BackendState.MESSAGE or backend.partial or not backend.idle:
        action = Action.ABORT_BACKEND
        relay.backend_out.clear()
    elif relay.policy.reuse and backend.reusable:
        relay.released = backend
        action = Action.RELEASE_BACKEND
    else:
        action = Action.QUIT_BACKEND
    relay.actions.append(action)


def abort_backend(relay: RelayCore) -> list[Slot]:
    """Reset the backend connection in the middle of a message; give the slots that were still to be asked (S15)."""
    backend = relay.backend
    if backend is None:
        return []
    _let_go(relay, backend)
    relay.backend_out.clear()
    relay.actions.append(Action.ABORT_BACKEND)
    return backend.queue


def backend_lost(relay: RelayCore, why: str, reply: bytes = b"") -> None:
    """Go on without the backend, as far as that is possible; ``reply`` is its last word, if it had one (421)."""
    backend = relay.backend
    if backend is None or relay.over:
        return
    if backend.state is BackendState.GREETING or backend.state is BackendState.TLS:
        relay.retry(why)
        return
    chunk = relay.chunk
    _let_go(relay, backend)
    relay.backend_out.clear()
    relay.actions.append(Action.DROP_BACKEND)
    last = reply or relay.text(b"421 4.4.2", b"Backend connection lost")
    if relay.frontend.state is State.MAIL_DATA:
        relay.verdict = reply or b"451 4.4.2 Backend connection lost, message not taken\r\n"
    elif chunk is not None and not chunk.reply and len(relay.pipeline.slots) == 1:
        chunk.refusal = reply or b"451 4.4.2 Backend connection lost, message not taken\r\n"
        chunk.pieces.clear()
        relay.message_failed = True
        finish_transaction(relay, chunk.refusal)
    elif relay.handed_over:
        # The relay that comes next opens a session of its own.
        return
    elif relay.pipeline.slots or relay.transaction is not None or relay.policy.eager or relay.spoiled:
        fail(relay, last, why)


def _let_go(relay: RelayCore, backend: Backend) -> None:
    """Forget the backend; nothing that was meant for it may reach the next one."""
    relay.backend = None
    relay.spoiled = relay.spoiled or backend.secret
    if relay.chunk is not None and relay.chunk.sent:
        relay.chunk.sent = False
        relay.chunk.refusal = relay.chunk.reply or b"451 4.4.2 Backend connection lost, message not taken\r\n"


def finish_transaction(dialogue: Dialogue, reply: bytes) -> None:
    """Note the end of the mail transaction that is open; ``reply`` is the last word on it, empty if there is none."""
    transaction = dialogue.transaction
    if transaction is not None:
        transaction.reply = reply
        dialogue.transaction = None
        dialogue.ended = (*dialogue.ended, transaction)
