"""How things end in both kinds of session: the session itself, a message that will not be finished.

The order of the day is: say what is owed, never more; leave nothing half done that a server could take for done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .actions import Action
from .frontend import State

if TYPE_CHECKING:
    from smtpproxy.smtp.commands import Verb

    from .dialogue import Dialogue


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


def finish_transaction(dialogue: Dialogue, reply: bytes) -> None:
    """Note the end of the mail transaction that is open; ``reply`` is the last word on it, empty if there is none."""
    transaction = dialogue.transaction
    if transaction is not None:
        transaction.reply = reply
        dialogue.transaction = None
        dialogue.ended = (*dialogue.ended, transaction)
