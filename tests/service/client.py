"""An SMTP client that sends exactly what it is told to."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import Any, Self

from .waiting import PATIENCE


class Client:
    """One connection; every wait ends in TimeoutError after a while."""

    def __init__(self, address: Any, *, receive_buffer: int = 0) -> None:
        """``address``: a path, or a host and a port."""
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self.sock = socket.socket(family)
        self.sock.settimeout(PATIENCE)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.connect(address)
        if family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.sock.close()

    def secure(self, context: ssl.SSLContext, name: str = "mx.example.org", session: Any = None) -> Self:
        """Do a TLS handshake; ``session``: that of an earlier connection, to be resumed.

        From then on a close without a farewell (close_notify) is an ssl.SSLEOFError.
        """
        assert not self._buffer
        self.sock = context.wrap_socket(self.sock, server_hostname=name, session=session, suppress_ragged_eofs=False)
        return self

    def start_tls(self, context: ssl.SSLContext, name: str = "mx.example.org", session: Any = None) -> Self:
        """Be polite up to STARTTLS, and go on inside."""
        self.begin()
        assert self.code(b"STARTTLS") == 220
        return self.secure(context, name, session)

    @property
    def tls(self) -> ssl.SSLSocket:
        """Its socket, inside TLS."""
        assert isinstance(self.sock, ssl.SSLSocket)
        return self.sock

    def send(self, data: bytes) -> None:
        """Send these octets."""
        self.sock.sendall(data)

    def half_close(self) -> None:
        """Say that no more will come."""
        self.sock.shutdown(socket.SHUT_WR)

    def reply(self) -> bytes:
        """The next reply, all its lines; ConnectionError if the connection is closed instead."""
        lines = b""
        while True:
            line = self._line()
            lines += line
            if line[3:4] != b"-":
                return lines

    def ask(self, line: bytes) -> bytes:
        """Send one command, give its reply."""
        self.send(line + b"\r\n")
        return self.reply()

    def code(self, line: bytes) -> int:
        """Send one command, give the code of its reply."""
        return int(self.ask(line)[:3])

    def codes(self, count: int) -> list[int]:
        """The codes of the next replies."""
        return [int(self.reply()[:3]) for _ in range(count)]

    def to_the_end(self) -> list[bytes]:
        """All replies until the connection is closed in an orderly way."""
        replies = []
        with contextlib.suppress(EOFError):
            while True:
                replies.append(self.reply())
        return replies

    def begin(self) -> Self:
        """Be polite up to EHLO."""
        assert self.reply()[:3] == b"220"
        assert self.code(b"EHLO client.example") == 250
        return self

    def begin_data(self) -> Self:
        """Be polite up to the mail data."""
        assert self.code(b"MAIL FROM:<a@b.example>") == 250
        assert self.code(b"RCPT TO:<c@example.org>") == 250
        assert self.code(b"DATA") == 354
        return self

    def send_what_fits(self, data: bytes, patience: float = 0.5) -> int:
        """Send until nothing has gone for ``patience`` seconds; give how much went."""
        sent = 0
        self.sock.settimeout(patience)
        view = memoryview(data)
        last = time.monotonic()
        while sent < len(data) and time.monotonic() - last < patience:
            with contextlib.suppress(TimeoutError):
                sent += self.sock.send(view[sent : sent + (1 << 16)])
                last = time.monotonic()
        self.sock.settimeout(PATIENCE)
        return sent

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            data = self.sock.recv(1 << 16)
            if not data:
                assert not self._buffer, f"half a reply: {self._buffer!r}"
                raise EOFError
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line + b"\r\n"
