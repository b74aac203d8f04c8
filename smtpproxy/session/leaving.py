"""How a session parts from its backend (inbound): in good order, with a reset, or because the backend is gone.

Nothing may be left half done that a server could take for done; and what the client has not been told is still owed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.commands import OWN_QUIT

from . import ending
from .actions import Action
from .backend import State as BackendState
from .frontend import State

if TYPE_CHECKING:
    from .backend import Backend
    from .core import RelayCore
    from .pipeline import Slot

_NOT_TAKEN: Final = b"451 4.4.2 Backend connection lost, message not taken\r\n"


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
        relay.verdict = reply or _NOT_TAKEN
    elif chunk is not None and not chunk.reply and len(relay.pipeline.slots) == 1:
        chunk.refusal = reply or _NOT_TAKEN
        chunk.pieces.clear()
        relay.message_failed = True
        ending.finish_transaction(relay, chunk.refusal)
    elif relay.handed_over:
        # The relay that comes next opens a session of its own.
        return
    elif relay.pipeline.slots or relay.transaction is not None or relay.policy.eager or relay.spoiled:
        ending.fail(relay, last, why)


def _let_go(relay: RelayCore, backend: Backend) -> None:
    """Forget the backend; nothing that was meant for it may reach the next one."""
    relay.backend = None
    relay.spoiled = relay.spoiled or backend.secret
    if relay.chunk is not None and relay.chunk.sent:
        relay.chunk.sent = False
        relay.chunk.refusal = relay.chunk.reply or _NOT_TAKEN
