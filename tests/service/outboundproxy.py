"""smtpproxy as a smarthost, in a process of its own, and how its clients talk to it."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

from .client import Client
from .outboundremote import RemoteServer
from .process import Process, Settings
from .waiting import STARTING

NAME = "proxy.example.org"
EHLO = b"EHLO client.example\r\n"
QUICK = {"connect": "1 s", "greeting": "1 s", "ehlo": "1 s", "mail": "1 s", "rcpt": "1 s", "data": "1 s"}


def smarthost(port: int, name: str = "out", **more: Any) -> Settings:
    """The settings of an outbound listener."""
    return {"name": name, "mode": "outbound", "hostname": NAME, "listen": [f"127.0.0.1:{port}"]} | more


def route(nexthops: Iterable[Any], domain: str = "*", **more: Any) -> Settings:
    """The settings of a route to servers, in clear unless it says otherwise."""
    hops = [hop if isinstance(hop, str) else hop.nexthop for hop in nexthops]
    return {"domain": domain, "nexthops": hops, "tls": {"mode": "none"}} | more


class Smarthost(Process):
    """A running smtpproxy with outbound listeners; everything that it writes is kept."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.store = f"sqlite:{folder / 'cache.db'}"

    def outbound(self, routes: list[Settings], listeners: list[Settings] | None = None, **more: Any) -> Smarthost:
        """Write a configuration; ``listener`` changes the one that there is by default."""
        changes = more.pop("listener", {})
        self.configure(
            listeners or [smarthost(self.port, **changes)],
            more.pop("backends", {}),
            routes=json.loads(json.dumps(routes)),  # a file with aliases is refused
            **({"cache": {"store": self.store}} | more),
        )
        return self

    def client(self) -> Client:
        """A client that has been greeted and has said EHLO."""
        return Client(self.address()).begin()

    def counters(self) -> dict[str, int]:
        """What it has counted, after its end."""
        stopped = self.events("stopped")[-1]
        return {name: int(value) for name, _, value in (text.partition("=") for text in stopped["counters"])}

    def once(self) -> subprocess.CompletedProcess[str]:
        """Start it where it is to end at once, and give how it did."""
        command = [sys.executable, "-m", "smtpproxy", "run", "-c", str(self.file)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=STARTING)

    def threads(self) -> int:
        """How many it has."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def reload(self) -> None:
        """Let it read its configuration again."""
        self.signal(signal.SIGHUP)

    def cached(self) -> list[tuple[Any, ...]]:
        """What is in the file of the cache."""
        with closing(sqlite3.connect(self.store.removeprefix("sqlite:"))) as file:
            tables = [name for (name,) in file.execute("select name from sqlite_master where type = 'table'")]
            return [row for table in tables for row in file.execute(f"select * from {table}")]  # ours


def vanish(client: Client, how: str = "reset") -> None:
    """Let a client be gone: with a reset, or closed, behind which what it has asked for is still done (S13)."""
    if how == "reset":
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()


def envelope(*recipients: bytes, sender: bytes = b"a@client.example") -> bytes:
    """MAIL and RCPT."""
    lines = [b"MAIL FROM:<" + sender + b">\r\n"]
    return b"".join(lines + [b"RCPT TO:<" + each + b">\r\n" for each in recipients or (b"b@example.org",)])


def chunk(text: bytes) -> bytes:
    """The whole message as one chunk."""
    return b"BDAT %d LAST\r\n" % len(text) + text


def deliver(client: Client, text: bytes = b"Subject: x\r\n\r\nhello\r\n", *recipients: bytes) -> bytes:
    """Envelope and message in one burst by BDAT; give the last reply."""
    client.send(envelope(*recipients) + chunk(text))
    count = 2 + max(1, len(recipients))
    return [client.reply() for _ in range(count)][-1]


def deliver_by_data(client: Client, text: bytes = b"Subject: x\r\n\r\nhello\r\n", *recipients: bytes) -> bytes:
    """The same by DATA, the client in groups; give the last reply."""
    client.send(envelope(*recipients) + b"DATA\r\n")
    replies = [client.reply() for _ in range(2 + max(1, len(recipients)))]
    if replies[-1][:3] != b"354":
        return replies[-1]
    client.send(stuffed(text) + b".\r\n")
    return client.reply()


def stuffed(text: bytes) -> bytes:
    """A message as DATA has it, without its end (RFC 5321, 4.5.2)."""
    return (b"\r\n" + text).replace(b"\r\n.", b"\r\n..")[2:]


class Town:
    """Remotes and smarthosts for one test, all ended with it; none of them may have met an exception of ours (H10)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._smarthosts: list[Smarthost] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        with self._stack:
            for smarthost in self._smarthosts:
                smarthost.kill()
        if kind is None:
            assert [event for each in self._smarthosts for event in each.events() if event["event"] in _BUGS] == []

    def remote(self, **script: Any) -> RemoteServer:
        """A server."""
        server = RemoteServer(**script)
        self._stack.callback(server.close)
        return server

    def nobody(self) -> str:
        """A nexthop where nobody listens, and nobody begins to."""
        kept = self._stack.enter_context(socket.socket())
        kept.bind(("127.0.0.1", 0))
        return "{}:{}".format(*kept.getsockname())

    def smarthost(self, routes: list[Settings], listeners: list[Settings] | None = None, **more: Any) -> Smarthost:
        """A smarthost that runs; ``options`` are Smarthost's, all else is ``outbound``'s."""
        options = more.pop("options", {})
        smarthost = Smarthost(self._folder / f"smarthost{len(self._smarthosts)}", **options)
        self._smarthosts.append(smarthost)
        smarthost.outbound(routes, listeners, **more).start()
        return smarthost


_BUGS = ("internal_error", "twisted")
