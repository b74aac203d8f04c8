"""Small scripted mail servers, each in a thread."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

GREETING = b"220 legacy ESMTP\r\n"
REPLIES = {
    b"EHLO": b"250-legacy\r\n250 PIPELINING\r\n",
    b"MAIL": b"250 2.1.0 Ok\r\n",
    b"RCPT": b"250 2.1.5 Ok\r\n",
    b"RSET": b"250 2.0.0 Ok\r\n",
    b"NOOP": b"250 2.0.0 Ok\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}


class ScriptedServer:
    """Answers each verb with a fixed reply, one connection after the other; ``commands`` is what it got."""

    def __init__(self, listener: socket.socket, greeting: bytes, replies: dict[bytes, bytes]) -> None:
        self.commands: list[str] = []
        self._listener = listener
        self._greeting = greeting
        self._replies = replies
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """The address as a configuration says it."""
        name = self._listener.getsockname()
        return f"unix:{name}" if isinstance(name, str) else f"127.0.0.1:{name[1]}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                connection.settimeout(10)
                connection.sendall(self._greeting)
                for line in lines:
                    self.commands.append(line.decode().rstrip())
                    reply = self._replies.get(line[:4].upper(), b"500 5.5.1 what?\r\n")
                    if not reply:
                        break
                    connection.sendall(reply)
                    if line[:4] == b"QUIT":
                        break


Server = Callable[..., ScriptedServer]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Start a server: ``server(greeting=..., RCPT=b"554 no\\r\\n", unix=True)``; an empty reply closes."""
    with ExitStack() as stack:

        def start(*, greeting: bytes = GREETING, unix: bool = False, **replies: bytes) -> ScriptedServer:
            if unix:
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(str(tmp_path / "smtp:25"))
                listener.listen()
            else:
                listener = socket.create_server(("127.0.0.1", 0))
            script = {verb.encode(): reply for verb, reply in replies.items()}
            scripted = ScriptedServer(listener, greeting, {**REPLIES, **script})
            stack.callback(scripted.close)
            return scripted

        yield start


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """Write a configuration for some servers and give its path."""

    def write(*servers: str, domains: str = "[example.org]", listen: str = "127.0.0.1:0", more: str = "") -> str:
        file = tmp_path / "c.yaml"
        file.write_text(
            "listeners:\n"
            f"  - {{name: mx, hostname: mx.example.org, listen: ['{listen}'], "
            f"backend: legacy, recipient_domains: {domains}}}\n"
            f"backends: {{legacy: {{servers: {list(servers)!r}}}}}\n{more}"
        )
        return str(file)

    return write
