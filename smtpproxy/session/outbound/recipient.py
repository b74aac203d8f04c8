"""The recipients of a delivery, and who is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from smtpproxy.session.pipeline import Slot
    from smtpproxy.smtp.envelope import Rcpt

    from .delivery import Delivery


class Recipient:
    """One recipient: the client's RCPT, and what became of it."""

    __slots__ = ("accepted", "rcpt", "reply", "slot")

    def __init__(self, rcpt: Rcpt, slot: Slot) -> None:
        self.rcpt = rcpt
        self.slot = slot
        """The reply that the client is owed to its RCPT; it may have been given before the remote's was there."""
        self.reply = b""
        """The remote's own reply, with CR LF; empty: there is none."""
        self.accepted = False


class DeliveryOwner(Protocol):
    """Who wants the message delivered."""

    __slots__ = ()

    def recipient_answered(self, delivery: Delivery, recipient: Recipient) -> None:
        """Learn of the reply to a recipient."""

    def go_ahead(self, delivery: Delivery, reply: bytes) -> None:
        """Learn that the remote waits for the message; ``reply``: its 354, or empty where it has CHUNKING."""

    def delivery_done(self, delivery: Delivery) -> None:
        """Learn of the last word, ``delivery.reply``, with which every recipient has its own."""


class _Nobody:
    """Wants to hear nothing more."""

    __slots__ = ()

    def recipient_answered(self, delivery: Delivery, recipient: Recipient) -> None:
        """Mind nothing."""

    def go_ahead(self, delivery: Delivery, reply: bytes) -> None:
        """Mind nothing."""

    def delivery_done(self, delivery: Delivery) -> None:
        """Mind nothing."""


NOBODY: Final = _Nobody()
"""Owns deliveries whose client is gone."""
