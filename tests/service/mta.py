"""A small scripted mail server in threads."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import Any

from .waiting import PATIENCE, eventually

END = b"\r\n.\r\n"
_REPLIES = {
    "DATA": b"354 go ahead\r\n",
    "AUTH": b"235 2.7.0 welcome\r\n",
    "STAR": b"220 2.0.0 go ahead\r\n",
    "XCLI": b"220 mta.example.org ESMTP\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}
"""By the first four letters of the verb, where it is not 250."""


@dataclass
class Message:
    """What was taken by one end of data."""

    sender: str
    recipients: list[str]
    data: bytes


@dataclass
class Script:
    """How the server behaves; a test may change it at any time."""

    greeting: bytes = b"220 mta.example.org ESMTP\r\n"
    extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME", "AUTH PLAIN LOGIN")
    replies: dict[str, bytes] = field(default_factory=dict)
    """Replies by verb in place of the usual ones; ``.`` is the end of data. Empty: close without a word."""
    tls: ssl.SSLContext | None = None
    """For STARTTLS, which is listed by itself then."""
    implicit: bool = False
    """Whether TLS begins at once."""
    headed: bool = False
    """Whether a PROXY header of version 1 comes first; it is noted as the first command."""


class Mta:
    """Listens, serves each connection in a thread, keeps what it was told."""

    def __init__(self, listening: socket.socket, script: Script | None = None) -> None:
        self.script = script or Script()
        self.messages: list[Message] = []
        self.commands: list[list[str]] = []
        """Of each connection, in the order in which they came."""
        self.reading = threading.Event()
        """While it is not set, no mail data is read."""
        self.reading.set()
        self._listening = listening
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def endpoint(self) -> str:
        """Its address as a configuration writes it."""
        name = self._listening.getsockname()
        if isinstance(name, str):
            return f"unix:{name}"
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    def close(self) -> None:
        """End everything."""
        self.reading.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)

    def message(self) -> Message:
        """The one message that comes next; it is forgotten."""
        eventually(lambda: self.messages, "a message at the server")
        return self.messages.pop(0)

    def watch(self, connection: socket.socket) -> None:
        """Note a connection that has to be closed in the end."""
        self._connections.append(connection)

    def drop(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.watch(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            dialogue = _Dialogue(self, connection)
            try:
                dialogue.run()
            finally:
                dialogue.close()


class _Dialogue:
    """One connection."""

    def __init__(self, mta: Mta, connection: socket.socket) -> None:
        self._mta = mta
        self._connection: Any = connection
        self._buffer = b""
        self._sender = ""
        self._recipients: list[str] = []
        self._chunks = b""
        self._commands: list[str] = []
        mta.commands.append(self._commands)

    def close(self) -> None:
        self._connection.close()

    def _begin_tls(self) -> None:
        tls = self._mta.script.tls
        assert tls is not None
        assert not self._buffer
        self._connection = tls.wrap_socket(self._connection, server_side=True, do_handshake_on_connect=False)
        self._mta.watch(self._connection)
        self._connection.do_handshake()

    def run(self) -> None:
        if self._mta.script.headed:
            self._commands.append(self._line() or "")
        if self._mta.script.implicit:
            self._begin_tls()
        self._connection.sendall(self._mta.script.greeting)
        while (line := self._line()) is not None:
            verb = line[:4].upper()
            self._commands.append(line)
            reply = self._mta.script.replies.get(verb)
            if reply is None:
                reply = self._usual(verb, line)
            if not reply:
                return
            self._connection.sendall(reply)
            if verb == "QUIT":
                return
            if verb == "STAR" and reply[:3] == b"220":
                self._begin_tls()
            if reply[:3] == b"354" and not self._mail_data():
                return
            if reply[:3] == b"334":
                self._commands.append(self._line() or "")
                self._connection.sendall(b"235 2.7.0 welcome\r\n")

    def _usual(self, verb: str, line: str) -> bytes:
        if verb == "EHLO":
            return self._extensions()
        if verb == "BDAT":
            return self._chunk(line)
        if verb == "AUTH" and len(line.split()) != 3:
            return b"334 VXNlcm5hbWU6\r\n"
        if verb == "MAIL":
            self._sender = line
        elif verb == "RCPT":
            self._recipients.append(line)
        elif verb == "RSET":
            self._recipients = []
        return _REPLIES.get(verb, b"250 2.0.0 ok\r\n")

    def _extensions(self) -> bytes:
        lines = ["mta.example.org", *self._mta.script.extensions]
        if self._mta.script.tls is not None and not isinstance(self._connection, ssl.SSLSocket):
            lines.append("STARTTLS")
        return "".join(f"250{' ' if text is lines[-1] else '-'}{text}\r\n" for text in lines).encode()

    def _line(self) -> str | None:
        while b"\r\n" not in self._buffer:
            if not self._read():
                return None
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode("utf-8", "replace")

    def _read(self) -> bool:
        data = self._connection.recv(1 << 18)
        self._buffer += data
        return bool(data)

    def _mail_data(self) -> bool:
        data = bytearray(b"\r\n" + self._buffer)
        self._buffer = b""
        searched = 0
        while (end := data.find(END, searched)) < 0:
            searched = max(0, len(data) - 4)
            self._mta.reading.wait()
            piece = self._connection.recv(1 << 18)
            if not piece:
                return False
            data += piece
        self._buffer = bytes(data[end + 5 :])
        lines = bytes(data[: end + 2]).replace(b"\r\n..", b"\r\n.")
        self._taken(lines[2:])
        reply = self._mta.script.replies.get(".", b"250 2.0.0 taken\r\n")
        self._connection.sendall(reply)
        return bool(reply)

    def _chunk(self, line: str) -> bytes:
        words = line.split()
        while len(self._buffer) < int(words[1]):
            if not self._read():
                return b""
        self._chunks += self._buffer[: int(words[1])]
        self._buffer = self._buffer[int(words[1]) :]
        if len(words) == 3:
            self._taken(self._chunks)
            self._chunks = b""
        return b"250 2.0.0 chunk taken\r\n"

    def _taken(self, data: bytes) -> None:
        self._mta.messages.append(Message(self._sender, self._recipients, data))
        self._recipients = []
