"""A mail server for the tests of ``smtpproxy probe``: says what it is told to, and writes down what it got."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import Collection, Sequence
from typing import Any, Final, Self

_MOMENT: Final = 0.05
"""Seconds before the greeting in which somebody who is not polite is heard."""

REPLIES: Final = {
    b"HELO": b"250 mx.example.org\r\n",
    b"STARTTLS": b"220 2.0.0 go ahead\r\n",
    b"MAIL": b"250 2.1.0 fine\r\n",
    b"RCPT": b"250 2.1.5 fine\r\n",
    b"RSET": b"250 2.0.0 fine\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}


class Session:
    """What came in one connection."""

    def __init__(self) -> None:
        self.before_greeting = b""
        self.commands: list[str] = []
        """Those inside TLS begin with an asterisk."""


class MailServer:
    """Listens in ``with``; one connection at a time.

    ``clear`` and ``inside``: keyword lines; ``pair``: the certificate, for STARTTLS, which a server without one
    answers in clear.  ``early``: the numbers of the connections (the first is 1) in which it greets, and answers EHLO
    inside TLS, only when a whole flight has come, up to STARTTLS or RSET: a client that waits for a word would wait for
    ever.  ``replies``: by verb (``greeting`` and ``EHLO`` too), with an empty one it closes; ``early_replies``: those
    of these connections only.  ``most``: connections that it takes at all;
    ``reset``: it closes with a reset; ``mute``: without a certificate it does not answer a handshake.
    """

    def __init__(
        self,
        *,
        clear: Sequence[bytes] = (b"PIPELINING", b"CHUNKING", b"PIPECONNECT"),
        inside: Sequence[bytes] = (b"PIPELINING", b"CHUNKING", b"PIPECONNECT"),
        pair: Any = None,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        early: Collection[int] = (),
        early_replies: dict[bytes, bytes] | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        most: int = 0,
        reset: bool = False,
        mute: bool = False,
        **replies: bytes,
    ) -> None:
        self.sessions: list[Session] = []
        self._offers = {False: [*clear, *([b"STARTTLS"] if pair else [])], True: list(inside)}
        self._context = None
        if pair is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.maximum_version = version
            self._context.load_cert_chain(pair.cert, pair.key)
        self._early = early
        self._replies = {**REPLIES, **{verb.encode(): reply for verb, reply in replies.items()}}
        self._early_replies = {**self._replies, **(early_replies or {})}
        self._most = most
        self._reset = reset
        self._mute = mute
        self._listener = socket.create_server((address, port))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(30)
            session = Session()
            self.sessions.append(session)
            if len(self.sessions) == self._most:
                self._listener.close()
            with contextlib.suppress(OSError):
                _Talk(self, sock, session, early=len(self.sessions) in self._early).go()


class _Talk:
    """One connection."""

    def __init__(self, server: MailServer, sock: socket.socket, session: Session, *, early: bool) -> None:
        self._server = server
        self._sock = sock
        self._session = session
        self._early = early
        self._replies = server._early_replies if early else server._replies
        self._buffer = b""
        self._secure = False

    def go(self) -> None:
        try:
            if self._early:
                try:
                    self._await_flight()
                finally:
                    self._session.before_greeting = self._buffer
            elif select.select([self._sock], [], [], _MOMENT)[0]:
                self._buffer = self._sock.recv(65536)
            self._session.before_greeting = self._buffer
            self._say(b"greeting", b"220 mx.example.org ESMTP\r\n")
            while self._answer(self._line()):
                pass
        finally:
            self._sock.close()

    def _answer(self, line: bytes) -> bool:
        """Answer a command; say whether to go on."""
        verb = line.partition(b" ")[0].upper()
        self._session.commands.append("*" * self._secure + line.decode())
        if verb == b"EHLO":
            if self._secure and self._early:
                self._await_flight()
            self._say(b"EHLO", self._ehlo())
        else:
            self._say(verb, b"500 5.5.1 what?\r\n")
        context = self._server._context
        if verb == b"STARTTLS" and context is None:
            self._read()
            while self._server._mute:
                self._read()
            self._sock.sendall(b"250 still in clear\r\n")
        elif verb == b"STARTTLS" and context is not None:
            self._sock = context.wrap_socket(self._sock, server_side=True)
            self._secure = True
        return verb != b"QUIT"

    def _ehlo(self) -> bytes:
        lines = [b"mx.example.org", *self._server._offers[self._secure]]
        return b"".join(b"250%s%s\r\n" % (b"-" if line is not lines[-1] else b" ", line) for line in lines)

    def _say(self, verb: bytes, otherwise: bytes) -> None:
        reply = self._replies.get(verb, otherwise)
        if not reply:
            if self._server._reset:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise ConnectionError("told to close")
        self._sock.sendall(reply)

    def _await_flight(self) -> None:
        while not self._buffer.endswith((b"STARTTLS\r\n", b"RSET\r\n")):
            self._read()

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._read()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _read(self) -> None:
        data = self._sock.recv(65536)
        if not data:
            raise ConnectionError("the client has gone")
        self._buffer += data
