"""What a client's commands do in both kinds of session: TLS, and what is no command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.commands import (
    AUTH,
    BDAT,
    CONTROLS,
    DATA,
    EHLO,
    ENDLESS,
    HELO,
    LHLO,
    NO_COMMANDS,
    NOOP,
    OVERLONG,
    QUIT,
    STARTTLS,
    UNKNOWN,
    Verb,
    is_http,
    is_tls,
)

from . import ending, words
from .frontend import Event, State
from .refusals import refuse_data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .dialogue import Dialogue
    from .pipeline import Slot


def _starttls(dialogue: Dialogue, command: Slot) -> None:
    policy, frontend = dialogue.policy, dialogue.frontend
    if policy.secure:
        dialogue.refuse(STARTTLS, b"503 5.5.1 TLS is active already\r\n")
    elif not policy.starttls:
        dialogue.refuse(STARTTLS, b"502 5.5.1 STARTTLS not available\r\n")
    elif command.raw[8:] != b"\r\n":
        dialogue.refuse(STARTTLS, b"501 5.5.4 STARTTLS takes no parameter\r\n")
    elif dialogue.authenticated or may_be_in_transaction(dialogue):
        dialogue.refuse(STARTTLS, b"503 5.5.1 STARTTLS not possible now\r\n")
    elif frontend.waiting:
        ending.out_of_step(dialogue, STARTTLS)
    else:
        frontend.move(Event.STARTTLS)
        dialogue.answer(STARTTLS, b"220 2.0.0 Ready to start TLS\r\n")


def may_be_in_transaction(dialogue: Dialogue) -> bool:
    """Say whether a mail transaction may be open, as far as the client has been read."""
    return dialogue.envelope and (dialogue.transaction is not None or bool(dialogue.pipeline.slots))


def is_barred(dialogue: Dialogue, command: Slot) -> bool:
    """Refuse a command that has to wait for STARTTLS, where that is demanded (RFC 3207, 4); say whether it was one."""
    verb = command.verb
    if verb in _BEFORE_TLS:
        return False
    dialogue.confidential = dialogue.confidential or verb is AUTH
    if verb is not DATA:
        dialogue.refuse(verb, words.STARTTLS_FIRST)
    elif dialogue.frontend.waiting:
        ending.out_of_step(dialogue, DATA)
    else:
        dialogue.frontend.move(Event.DATA)
        dialogue.pipeline.slots.append(command)
        refuse_data(dialogue, command, words.STARTTLS_FIRST)
    return True


# BDAT brings octets that have to be thrown away: its own function refuses it. What is no command is refused anyway.
_BEFORE_TLS: Final = frozenset({EHLO, HELO, LHLO, NOOP, STARTTLS, QUIT, BDAT}) | NO_COMMANDS


def _unknown(dialogue: Dialogue, command: Slot) -> None:
    if is_http(command.raw):
        ending.end(dialogue, UNKNOWN, b"521 5.5.1 This is a mail server\r\n", "HTTP")
    else:
        dialogue.refuse(UNKNOWN, b"500 5.5.1 Command not recognized\r\n")


def _controls(dialogue: Dialogue, command: Slot) -> None:
    if dialogue.frontend.state is State.AUTH_RESPONSE:
        _broken_response(dialogue, command)
    elif is_tls(command.raw):
        ending.end(dialogue, CONTROLS, b"521 5.5.1 TLS is not spoken here\r\n", "TLS on a clear port")
    else:
        dialogue.refuse(CONTROLS, b"500 5.5.2 Control character in command; lines end with <CR><LF>\r\n")


def _overlong(dialogue: Dialogue, command: Slot) -> None:
    if dialogue.frontend.state is State.AUTH_RESPONSE:
        _broken_response(dialogue, command)
    else:
        dialogue.refuse(OVERLONG, b"500 5.5.2 Line too long\r\n")


def _broken_response(dialogue: Dialogue, command: Slot) -> None:
    """End the session: it is in the middle of an exchange that the client's line cannot continue."""
    ending.end(dialogue, command.verb, b"554 5.5.0 Bad response in AUTH exchange\r\n", "bad AUTH response")


def _endless(dialogue: Dialogue, _command: Slot) -> None:
    ending.end(dialogue, ENDLESS, b"521 5.5.2 Line without end\r\n", "line without end")


COMMON: Final[Mapping[Verb, Callable[[Dialogue, Slot], None]]] = {
    UNKNOWN: _unknown,
    CONTROLS: _controls,
    OVERLONG: _overlong,
    ENDLESS: _endless,
    STARTTLS: _starttls,
}
