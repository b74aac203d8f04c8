"""A TCP relay that writes down what passes, in order, to be put between two parties of a test.

It forwards half-closes as half-closes, can keep back what the server says until the client has said all
that it will say without having heard anything (so that what a client sends *before the greeting* is a fact
and not a matter of luck), and can lengthen the line.
"""

from __future__ import annotations

import contextlib
import heapq
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

# A client that has been silent for so long (seconds) waits for the server.
QUIET = 0.1

Side = Literal["client", "server"]


@dataclass
class Event:
    """Something that a side sent, as the relay read it: octets, or its end of file (b"")."""

    side: Side
    data: bytes


@dataclass
class Conversation:
    """One connection: what was read from each side, and in which order relative to what had been passed on
    to it.
    """

    events: list[Event] = field(default_factory=list)
    closed: bool = False

    def sent_by(self, side: Side) -> bytes:
        """Everything one side sent."""
        return b"".join(event.data for event in self.events if event.side == side)

    @property
    def before_greeting(self) -> bytes:
        """What the client sent before a single octet from the server could have reached it."""
        early = b""
        for event in self.events:
            if event.side == "server":
                break
            early += event.data
        return early

    @property
    def half_closed_by_client(self) -> bool:
        """Whether the client shut its writing side while the server still had something to say."""
        return Event("client", b"") in self.events and bool(self.after_client_end())

    def after_client_end(self) -> bytes:
        """What the server sent behind the client's end of file."""
        end = self.events.index(Event("client", b""))
        return b"".join(event.data for event in self.events[end:] if event.side == "server")


class RecordingRelay:
    """Listens on a port of 127.0.0.1 and relays to another one; every connection becomes a Conversation."""

    def __init__(self, target: int, *, hold: float = 0.0, delay: float = 0.0) -> None:
        """Start relaying to port `target`.

        `hold`: seconds for which the server's first octets wait for the client to speak first.  `delay`:
        seconds for which everything is under way, each way.  Both can be changed for the connections to
        come.
        """
        self.target = target
        self.hold = hold
        self.delay = delay
        self.conversations: list[Conversation] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="relay-accept", daemon=True)]
        self._threads[0].start()

    def stop(self) -> None:
        """End all connections and threads."""
        self._stopping.set()
        for thread in list(self._threads):
            thread.join(10.0)
        self._listener.close()

    def _accept(self) -> None:
        self._listener.settimeout(0.05)
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                conversation = Conversation()
                self.conversations.append(conversation)
                thread = threading.Thread(
                    target=self._run, args=(client, conversation), name="relay-connection", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _run(self, client: socket.socket, conversation: Conversation) -> None:
        try:
            with client:
                try:
                    server = socket.create_connection(("127.0.0.1", self.target), 10.0)
                except OSError:
                    return
                with server, contextlib.suppress(ConnectionError, BrokenPipeError):
                    _Line(client, server, conversation, self.hold, self.delay).run(self._stopping)
        finally:
            conversation.closed = True


class _Line:
    """The traffic of one connection, in one thread."""

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        conversation: Conversation,
        hold: float,
        delay: float,
    ) -> None:
        self.sockets: dict[Side, socket.socket] = {"client": client, "server": server}
        self.conversation = conversation
        self.delay = delay
        self.held = hold > 0
        self.hold_until = time.monotonic() + hold
        self.selector = selectors.DefaultSelector()
        self.under_way: list[tuple[float, int, Side, bytes]] = []
        self.serial = 0
        self.ended: set[Side] = set()
        for side, end in self.sockets.items():
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(30.0)
            if side == "client" or not self.held:
                self.selector.register(end, selectors.EVENT_READ, side)

    def run(self, stopping: threading.Event) -> None:
        """Relay until both sides have ended and everything has been passed on."""
        while not stopping.is_set() and (len(self.ended) < len(self.sockets) or self.under_way):
            self._release_server()
            for key, _ in self.selector.select(self._patience()):
                self._read(key.data)
            while self.under_way and self.under_way[0][0] <= time.monotonic():
                _, _, side, data = heapq.heappop(self.under_way)
                self._pass_on(side, data)

    def _patience(self) -> float:
        if not self.under_way:
            return 0.02
        return min(0.02, max(0.0, self.under_way[0][0] - time.monotonic()))

    def _release_server(self) -> None:
        """The server is not even read from while it is held back: so the order of the events is the order
        on the wire.
        """
        server = self.sockets["server"]
        if self.held and time.monotonic() >= self.hold_until:
            self.held = False
            self.selector.register(server, selectors.EVENT_READ, "server")

    def _read(self, side: Side) -> None:
        data = self.sockets[side].recv(1 << 16)
        self.conversation.events.append(Event(side, data))
        if self.held:
            self.hold_until = time.monotonic() + QUIET
        if not data:
            self.ended.add(side)
            self.selector.unregister(self.sockets[side])
        self.serial += 1
        heapq.heappush(self.under_way, (time.monotonic() + self.delay, self.serial, side, data))

    def _pass_on(self, side: Side, data: bytes) -> None:
        other = self.sockets["server" if side == "client" else "client"]
        if data:
            other.sendall(data)
        else:
            with contextlib.suppress(OSError):
                other.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def recording_relay(target: int, *, hold: float = 0.0, delay: float = 0.0) -> Iterator[RecordingRelay]:
    """A relay to port `target`, stopped at the end."""
    relay = RecordingRelay(target, hold=hold, delay=delay)
    try:
        yield relay
    finally:
        relay.stop()
