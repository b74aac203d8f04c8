"""How DATA is refused, in both kinds of session: only once nothing can have been sent behind it (rules S5, H4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import ending
from .actions import Action
from .frontend import Event as ClientEvent
from .frontend import State as ClientState

if TYPE_CHECKING:
    from .dialogue import Dialogue
    from .pipeline import Slot


def talked_behind_data(dialogue: Dialogue) -> None:
    """Refuse DATA: the client has sent more before it was told to go ahead (rules S5, H4)."""
    dialogue.violations += 1
    dialogue.reason = "synchronisation violated"
    dialogue.frontend.close()
    dialogue.closing = True
    if dialogue.refused_data is not None:
        dialogue.refused_data[0].reply = ending.SYNCHRONISATION_LOST
        dialogue.refused_data = None
    else:
        dialogue.withdraw_data()


def refuse_data(dialogue: Dialogue, slot: Slot, reply: bytes, *, blame: bool = True) -> None:
    """Refuse DATA, once we are sure that nothing was sent behind it (rule H4); ``blame``: it is the client's error."""
    dialogue.errors += blame
    dialogue.refused_data = (slot, reply)


def look_before_refusal(dialogue: Dialogue) -> None:
    """Ask for the last look at the client's input, when the refusal of DATA that is held is the next reply to leave."""
    for slot in dialogue.pipeline.slots:
        if not slot.reply:
            if dialogue.refused_data is not None and slot is dialogue.refused_data[0]:
                dialogue.actions.append(Action.PROBE_CLIENT)
            return


def data_refused(dialogue: Dialogue) -> None:
    """Give the refusal of DATA that was held for the last look at the client's input."""
    if dialogue.refused_data is not None and dialogue.frontend.state is ClientState.AWAIT_DATA:
        slot, reply = dialogue.refused_data
        slot.reply = reply
        dialogue.refused_data = None
        dialogue.frontend.move(ClientEvent.REFUSED)
