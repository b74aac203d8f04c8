"""A mail server from before ESMTP (RFC 821): HELO, MAIL, RCPT, DATA, one at a time, and 500 to EHLO."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from .messages import Stored


@dataclass
class OldServer:
    """A running one: what it has taken, for each recipient, and what clients said that they should not have."""

    port: int = 0
    messages: list[Stored] = field(default_factory=list)
    faults: list[bytes] = field(default_factory=list)


class _Session(socketserver.StreamRequestHandler):
    """One client."""

    rbufsize = 0  # what is here already must be seen

    def handle(self) -> None:
        server: OldServer = self.server.mailbox  # type: ignore[attr-defined]  # set below
        self.recipients: list[bytes] = []
        self._say(b"220 old.lab.test Simple Mail Transfer Service")
        while line := self._line():
            verb = line[:4].upper()
            if verb == b"QUIT":
                self._say(b"221 old.lab.test")
                return
            if verb == b"DATA" and self.recipients:
                self._say(b"354 go ahead")
                self._message(server)
            elif verb == b"RCPT" and b"refused@" in line:
                self._say(b"550 no such user")
            elif verb == b"RCPT":
                self.recipients.append(line.strip()[len(b"RCPT TO:<") : -1])
                self._say(b"250 ok")
            elif verb in {b"HELO", b"RSET", b"MAIL"} and b"> " not in line:
                self.recipients = []
                self._say(b"250 ok")
            else:
                self._say(b"500 what?")

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            octet = self.request.recv(1)
            if not octet:
                return b""
            line += octet
        return line

    def _say(self, reply: bytes) -> None:
        """Answer; whatever is here already was sent too early."""
        with contextlib.suppress(BlockingIOError):
            if waiting := self.request.recv(1000, socket.MSG_DONTWAIT):
                self.server.mailbox.faults.append(waiting)  # type: ignore[attr-defined]  # set below
        self.request.sendall(reply + b"\r\n")

    def _message(self, server: OldServer) -> None:
        lines = []
        while (line := self._line()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        if not line:
            return
        text = b"".join(lines).replace(b"\r\n", b"\n")
        server.messages += [Stored(b"Delivered-To: " + recipient + b"\n" + text) for recipient in self.recipients]
        self.recipients = []
        self._say(b"250 taken")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    mailbox: OldServer


@contextlib.contextmanager
def old_server() -> Iterator[OldServer]:
    """A listening one; ended at the end."""
    server = _Server(("127.0.0.1", 0), _Session)
    server.mailbox = OldServer(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.mailbox
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
