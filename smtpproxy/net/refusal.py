"""Turning a client away before there is a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .linger import Linger

if TYPE_CHECKING:
    from .clientcontext import ClientContext


class Refusal(Linger):
    """Says one reply and closes."""

    __slots__ = ("_reply",)

    def __init__(self, context: ClientContext, reply: bytes) -> None:
        super().__init__(context.sweep, context.next_number(), context.clock() + context.settings.timeouts.close)
        self._reply = reply

    def makeConnection(self, transport: Any) -> None:
        """Say it."""
        transport.write(self._reply)
        super().makeConnection(transport)


def refusal(context: ClientContext, address: str, why: str, *, for_good: bool = False) -> Refusal:
    """Give the protocol for a client that is turned away, and note why; ``for_good``: with 554, not 421.

    Where the client expects TLS from the first octet on it is only closed: it could not read the reply.
    """
    context.journal.session_refused(context.settings.name, address, why)
    if context.settings.tls.mode == "implicit":
        return Refusal(context, b"")
    if for_good:
        return Refusal(context, b"554 5.7.1 " + context.hostname + b" " + why.capitalize().encode() + b"\r\n")
    reply = b"421 4.3.2 " + context.hostname + b" " + (why[:1].upper() + why[1:]).encode() + b", try again later\r\n"
    return Refusal(context, reply)
