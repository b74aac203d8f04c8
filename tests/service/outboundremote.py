"""Servers for outbound listeners to deliver to: each connection runs a script, and everything is kept in its order."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from freeports import free_port

from .waiting import PATIENCE, eventually

EARLY: Final = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 100000000", "CHUNKING", "PIPECONNECT")
"""What a server with early pipelining and chunks offers."""
PLAIN: Final = ("PIPELINING", "8BITMIME")

CLOSE: Final = b"close"
"""As a reply: close without a word."""
RESET: Final = b"reset"
"""As a reply: reset the connection."""
SILENCE: Final = b"silence"
"""As a reply: say nothing, read nothing, until the other side or the test ends it."""

_TCP_FASTOPEN: Final = 23
_USUAL: Final = {
    "DATA": b"354 go ahead\r\n",
    "AUTH": b"235 2.7.0 welcome\r\n",
    "STARTTLS": b"220 2.0.0 go ahead\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}

Reply = bytes | Callable[["Dialogue"], bytes]


@dataclass
class Script:
    """How the server behaves from the next connection on; a test may change it at any time."""

    greeting: Reply = b"220 remote.example ESMTP\r\n"
    waits: bool = False
    """Whether it greets only when the client has spoken: a polite one would wait for ever."""
    keywords: tuple[str, ...] = PLAIN
    inside: tuple[str, ...] | None = None
    """What it offers inside TLS, where that is something else."""
    replies: dict[str, Reply] = field(default_factory=dict)
    """By verb, in place of the usual reply; ``.`` is the end of data."""
    tls: ssl.SSLContext | None = None
    """For STARTTLS, which is offered by itself then."""
    implicit: bool = False


class Dialogue:
    """One connection: what it has heard, and which messages it has taken."""

    def __init__(self, owner: RemoteServer, connection: socket.socket) -> None:
        self.owner = owner
        self.script = owner.script
        self.sock: Any = connection
        self.heard: list[str] = []
        """Commands, in their order; ``tls`` for a handshake."""
        self.early = b""
        """What had come before the greeting was said."""
        self.resumed = False
        """Whether its TLS session was resumed."""
        self.turned_away = False
        """Whether its greeting was a refusal."""
        self.ended = threading.Event()
        self.recipients: list[str] = []
        self.sender = ""
        self._buffer = b""
        self._chunks: list[bytes] = []

    @property
    def verbs(self) -> list[str]:
        """The verbs of what it has heard."""
        return [line.split()[0].upper() for line in self.heard]

    @property
    def secure(self) -> bool:
        """Whether it is inside TLS."""
        return isinstance(self.sock, ssl.SSLSocket)

    def reset(self) -> None:
        """Reset the connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def end(self) -> None:
        """Close, while it waits for the next command; the other side knows when this comes back."""
        self.sock.shutdown(socket.SHUT_RDWR)
        assert self.ended.wait(PATIENCE)

    def run(self) -> None:
        """Serve it (its own thread)."""
        try:
            if self.script.implicit:
                self._secure()
            if self.script.waits or (not self.secure and select.select([self.sock], [], [], 0)[0]):
                self._read()
            self.early = self._buffer
            if self._say(self.script.greeting) and not self.turned_away:
                while (line := self._line()) is not None and self._obey(line):
                    pass
        except (OSError, EOFError):
            pass
        finally:
            with contextlib.suppress(OSError):
                self.sock.close()
            self.ended.set()

    def _secure(self) -> None:
        assert self.script.tls is not None
        self.sock = self.script.tls.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        self.owner.watch(self.sock)
        self.sock.do_handshake()
        self.resumed = self.sock.session_reused
        self.heard.append("tls")

    def _say(self, reply: Reply) -> bool:
        """Say it; give whether the session goes on."""
        text = reply(self) if callable(reply) else reply
        if text == RESET:
            self.reset()
            return False
        if text == SILENCE:
            self.owner.over.wait(PATIENCE)
            return False
        if text == CLOSE:
            return False
        self.sock.sendall(text)
        self.turned_away = not self.heard and text[:1] in b"45"
        return True

    def _obey(self, line: str) -> bool:
        verb = line.split(maxsplit=1)[0].upper() if line.split() else ""
        if verb == "BDAT":
            return self._chunk(line)
        self.heard.append(line)
        reply = self.script.replies.get(verb)
        if reply is None or (verb == "RCPT" and not self.sender):
            reply = self._usual(verb)
        said = reply(self) if callable(reply) else reply
        if said[:1] == b"2":
            self._note(verb, line)
        if not self._say(said) or verb == "QUIT":
            return False
        if verb == "STARTTLS" and said[:3] == b"220":
            assert not self._buffer
            self._secure()
        return self._data() if verb == "DATA" and said[:3] == b"354" else True

    def _note(self, verb: str, line: str) -> None:
        """Keep what was accepted of an envelope."""
        if verb in {"MAIL", "EHLO", "RSET"}:
            self.sender, self.recipients = line if verb == "MAIL" else "", []
        elif verb == "RCPT":
            self.recipients.append(line)

    def _usual(self, verb: str) -> bytes:
        if verb == "EHLO":
            return self._hello()
        if verb == "STARTTLS" and self.script.tls is None:
            return b"502 5.5.1 no such command\r\n"
        if verb == "RCPT" and not self.sender:
            return b"503 5.5.1 MAIL first\r\n"
        if verb == "DATA" and not self.recipients:
            return b"554 5.5.1 nobody\r\n"
        return _USUAL.get(verb, b"250 2.0.0 ok\r\n")

    def _hello(self) -> bytes:
        words = self.script.inside if self.secure and self.script.inside is not None else self.script.keywords
        lines = ["remote.example", *words]
        if self.script.tls is not None and not self.secure:
            lines.append("STARTTLS")
        return "".join(f"250{' ' if n == len(lines) else '-'}{text}\r\n" for n, text in enumerate(lines, 1)).encode()

    def _line(self) -> str | None:
        while b"\r\n" not in self._buffer:
            if not self._read():
                return None
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode("utf-8", "replace")

    def _read(self) -> bool:
        self.owner.reading.wait(PATIENCE)
        data = self.sock.recv(1 << 16)
        self._buffer += data
        return bool(data)

    def _data(self) -> bool:
        data = bytearray(b"\r\n" + self._buffer)
        self._buffer = b""
        searched = 0
        while (end := data.find(b"\r\n.\r\n", searched)) < 0:
            searched = max(0, len(data) - 4)
            if not self._read():
                return False
            data += self._buffer
            self._buffer = b""
        self._buffer = bytes(data[end + 5 :])
        text = bytes(data[: end + 2]).replace(b"\r\n..", b"\r\n.")[2:]
        self.heard.append(".")
        return self._verdict(text)

    def _chunk(self, line: str) -> bool:
        words = line.split()
        size = int(words[1])
        parts, have = [self._buffer], len(self._buffer)
        self._buffer = b""
        while have < size:
            if not self._read():
                return False
            parts.append(self._buffer)
            have += len(self._buffer)
            self._buffer = b""
        data = b"".join(parts)
        self._chunks.append(data[:size])
        self._buffer = data[size:]
        self.heard.append(line)
        if len(words) < 3:
            return self._say(self.script.replies.get("BDAT", b"250 2.0.0 chunk\r\n"))
        text, self._chunks = b"".join(self._chunks), []
        return self._verdict(text)

    def _verdict(self, text: bytes) -> bool:
        reply = self.script.replies.get(".", b"250 2.0.0 taken\r\n")
        said = reply(self) if callable(reply) else reply
        if not self.recipients:
            said = b"554 5.5.1 nobody\r\n"
        if said[:1] == b"2":
            self.owner.messages.append((self.sender, list(self.recipients), text))
        self.sender, self.recipients = "", []
        return self._say(said)


class RemoteServer:
    """Listens, serves each connection in a thread, keeps what it was told and what it took."""

    def __init__(self, address: Any = ("127.0.0.1", 0), *, receive_buffer: int = 0, **script: Any) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listening = socket.socket(family)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        # Of these ports nobody takes one either when this server listens no more.
        self._listening.bind((address[0], address[1] or free_port(address[0])))
        self._listening.listen(64)
        self.address = self._listening.getsockname()[:2]
        self.script = Script(**script)
        self.messages: list[tuple[str, list[str], bytes]] = []
        """MAIL, each RCPT, and the text of what was answered 2xx, whether or not anybody has read that."""
        self.dialogues: list[Dialogue] = []
        self.reading = threading.Event()
        """While it is not set, nothing is read."""
        self.reading.set()
        self.over = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def nexthop(self) -> str:
        """Its address as a route writes it."""
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def texts(self) -> list[bytes]:
        """The messages that it took."""
        return [text for _, _, text in self.messages]

    def behave(self, **script: Any) -> None:
        """Behave so from the next connection on."""
        self.script = Script(**script)

    def dialogue(self, number: int = -1, count: int = 1) -> Dialogue:
        """One of its connections, when it has had so many."""
        eventually(lambda: len(self.dialogues) >= count, f"{count} connections")
        return self.dialogues[number]

    def watch(self, sock: socket.socket) -> None:
        """Note a socket that has to be closed in the end."""
        self._sockets.append(sock)

    def open_fast(self) -> None:
        """Let clients open fast (RFC 7413), where the kernel does."""
        self._listening.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN, 64)

    def refuse(self) -> None:
        """Listen no more; the port stays known."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def close(self) -> None:
        """End everything."""
        self.over.set()
        self.reading.set()
        self.refuse()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.watch(connection)
            self.dialogues.append(dialogue := Dialogue(self, connection))
            thread = threading.Thread(target=dialogue.run, daemon=True)
            self._threads.append(thread)
            thread.start()
