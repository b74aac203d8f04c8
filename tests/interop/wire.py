"""What a recorded conversation must look like."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .relay import Conversation

END_OF_DATA = b"\r\n.\r\n"


class _Client:
    """Reads what a client sends: each command, and the message that a 354 or BDAT calls for as part of it."""

    def __init__(self) -> None:
        self.buffer = b""
        self.chunk = 0

    def commands(self, data: bytes) -> Iterator[bytes]:
        """The commands that are complete with these octets; the octets of chunks are left out."""
        self.buffer += data
        while True:
            skipped = min(self.chunk, len(self.buffer))
            self.chunk -= skipped
            self.buffer = self.buffer[skipped:]
            if b"\r\n" not in self.buffer:
                return
            line, self.buffer = self.buffer.split(b"\r\n", 1)
            chunk = re.match(rb"BDAT (\d+)", line)
            self.chunk = int(chunk[1]) if chunk else 0
            yield line

    def end_of_data(self, data: bytes) -> bool:
        """Whether these octets, sent behind a 354, bring the end of data; what follows it is kept."""
        self.buffer += data
        place = (b"\r\n" + self.buffer).find(END_OF_DATA)
        if place >= 0:
            self.buffer = self.buffer[place + len(END_OF_DATA) - 2 :]
        return place >= 0


def assert_lockstep(seen: Conversation) -> None:
    """AssertionError if the client ever sent a command before the server had answered the one before (or had
    greeted).  A chunk may follow its BDAT at once: it belongs to the command.
    """
    owed, replies, in_data, client = 1, b"", False, _Client()
    for event in seen.events:
        if event.side == "server":
            *lines, replies = (replies + event.data).split(b"\r\n")
            for line in lines:
                if line[3:4] != b"-":
                    owed -= 1
                    in_data = line.startswith(b"354")
            continue
        data = event.data
        if in_data:
            if not client.end_of_data(data):
                continue
            owed, in_data, data = owed + 1, False, b""
        for command in client.commands(data):
            assert owed == 0, f"sent while {owed} replies were owed: {command!r}"
            owed += 1
