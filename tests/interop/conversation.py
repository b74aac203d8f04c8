"""An SMTP client that sends exactly the octets it is told to, when it is told to: bursts, halves of
messages, half-closes.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """A reply as it came: its code and all of its text."""

    code: int
    text: str


class Conversation:
    """One connection to a port of 127.0.0.1."""

    def __init__(self, port: int, *, source: str = "", patience: float = 15.0) -> None:
        """Connect, from the address `source` if there is one; no call waits longer than `patience` seconds for the
        server.
        """
        # Without an address it is not bound: the kernel would take a port that free_port may have given to a server.
        self.socket = socket.create_connection(("127.0.0.1", port), patience, (source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Go on inside TLS with the server of that name."""
        assert self.buffer == b""
        self.socket = context.wrap_socket(self.socket, server_hostname=name)

    def send(self, *lines: bytes) -> None:
        """Send the lines, each with CR LF, in one write."""
        self.send_octets(b"".join(line + b"\r\n" for line in lines))

    def send_octets(self, octets: bytes) -> None:
        """Send octets as they are."""
        self.socket.sendall(octets)

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def reply(self) -> Reply:
        """The next reply; ConnectionError if the server closes instead, TimeoutError if it says nothing."""
        lines = []
        while True:
            line = self._line()
            lines.append(line[4:])
            if line[3:4] != "-":
                return Reply(int(line[:3]), "\n".join(lines))

    def replies(self) -> list[Reply]:
        """All replies until the server closes."""
        found = []
        with contextlib.suppress(ConnectionError):
            while True:
                found.append(self.reply())
        return found

    def ask(self, *lines: bytes) -> Reply:
        """Send the lines and give the one reply."""
        self.send(*lines)
        return self.reply()

    def _line(self) -> str:
        while b"\r\n" not in self.buffer:
            octets = self.socket.recv(65536)
            if not octets:
                raise ConnectionResetError(f"closed by the server; left over: {self.buffer!r}")
            self.buffer += octets
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode("utf-8")


@contextlib.contextmanager
def conversation(port: int, *, source: str = "") -> Iterator[Conversation]:
    """A connection, closed at the end."""
    client = Conversation(port, source=source)
    try:
        yield client
    finally:
        client.socket.close()


def codes(replies: list[Reply]) -> list[int]:
    """The reply codes alone."""
    return [reply.code for reply in replies]


def dot_stuffed(octets: bytes) -> bytes:
    """A message with CR LF as DATA carries it, the end of data included (RFC 5321, 4.5.2)."""
    stuffed = octets.replace(b"\r\n.", b"\r\n..")
    return (b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n"
