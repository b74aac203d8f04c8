"""The reply pipeline: replies leave in the order in which they are owed, whoever answers them (rules S3, S4).

A slot is an owed reply: to the connection itself (the greeting), to a command, to the end of data.  It enters the queue
the moment its command is known.  Filling it is the only way to answer, and only filled slots at the head leave; so no
reply can overtake another, and nothing has to be kept in step by hand.
"""

from __future__ import annotations

from typing import Final

from smtpproxy.smtp.commands import CLOSING, Command, Verb

HOLD_BACK: Final = 8192
"""Octets of replies that may wait for the rest of their group before they leave all the same."""


class Slot(Command):
    """An owed reply: the command that it answers, as it came or as a backend is asked it, and the answer.

    A slot that no command line stands for (the greeting, the end of data) has an empty ``raw``.
    """

    __slots__ = ("reply",)

    def __init__(self, verb: Verb, raw: bytes = b"") -> None:
        self.verb = verb
        self.raw = raw
        self.reply = b""
        """The answer as it goes on the wire; empty as long as there is none."""

    def __repr__(self) -> str:
        return f"Slot({self.verb.name!r}, {self.reply!r})"


class ReplyPipeline:
    """The queue of slots of one client."""

    __slots__ = ("_octets", "groups", "ready", "replies", "slots")

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        """What is owed, in order."""
        self.ready = 0
        """How many slots at the head are answered and wait for the rest of their group."""
        self._octets = 0
        self.replies = 0
        """Replies that have left."""
        self.groups = 0
        """In how many writes they left."""

    def take(self, *, hold: bool) -> bytes:
        """Give the replies that are to leave now, as one string.

        With ``hold``, replies wait for the rest of their group, those that were asked for together with them and are
        still unanswered, as long as they are few (rule S4).
        """
        slots = self.slots
        if len(slots) == 1:
            reply = slots[0].reply
            if reply:
                slots.clear()
                self.ready = self._octets = 0
                self.replies += 1
                self.groups += 1
            return reply
        return self._take_group(slots, hold=hold)

    def _take_group(self, slots: list[Slot], *, hold: bool) -> bytes:
        ready, total = self.ready, len(slots)
        while ready < total:
            reply = slots[ready].reply
            if not reply:
                break
            self._octets += len(reply)
            ready += 1
        if not ready or (hold and ready < total and self._octets < HOLD_BACK):
            self.ready = ready
            return b""
        leaving = [slot.reply for slot in slots[:ready]]
        del slots[:ready]
        self.ready = self._octets = 0
        self.replies += ready
        self.groups += 1
        return b"".join(leaving)

    def cut(self, last: bytes) -> None:
        """Answer the first unanswered slot with ``last`` and forget the ones behind it: the connection ends there.

        Where every slot is answered, ``last`` follows them unasked, as RFC 5321, 3.8 allows for 421.
        """
        for index, slot in enumerate(self.slots):
            if not slot.reply:
                slot.reply = last
                del self.slots[index + 1 :]
                return
        closing = Slot(CLOSING)
        closing.reply = last
        self.slots.append(closing)

    def abandon(self) -> None:
        """Forget everything: nobody is there any more to be answered."""
        self.slots.clear()
        self.ready = self._octets = 0
