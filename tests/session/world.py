"""A client, a relay and its servers, joined: what the relay says arrives, what is said to it waits for delivery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from smtpproxy.session.actions import Action

from .dialogue import QUIET
from .owner import LEAVING, Output, Owner, Setup
from .server import Message, Server, ok

_LEAVING = {action.name for action in LEAVING}


@dataclass
class World:
    """One listener: clients one after another, each with the servers that its relay asks for."""

    setup: Setup
    keywords: tuple[str, ...] = ()
    plan: Callable[[str, bytes], str] = ok
    guards_domains: bool = False

    owner: Owner = field(init=False)
    server: Server | None = None
    """The server that the relay is connected with."""
    kept: Server | None = None
    servers: list[Server] = field(default_factory=list)
    to_client: bytes = b""
    unread: list[bytes] = field(default_factory=list)
    """Packets of the client that the relay does not want to read yet."""
    half_closed: bool = False

    def __post_init__(self) -> None:
        self.owner = Owner(self.setup)

    @property
    def closed(self) -> bool:
        return self.owner.closed

    @property
    def messages(self) -> list[Message]:
        """All messages that servers have accepted."""
        return [message for server in self.servers for message in server.messages]

    # --- what the client does ----------------------------------------------------------------------------------------

    def connect(self) -> None:
        """A client comes."""
        self.to_client, self.unread, self.half_closed = b"", [], False
        self._take(self.owner.start())

    def wait(self) -> None:
        """The client waits for the greeting."""
        self._take(self.owner.settle())

    def send(self, data: bytes) -> None:
        """The client sends one packet."""
        self.unread.append(data)
        self._read()

    def half_close(self) -> None:
        """The client sends nothing more."""
        self.half_closed = True
        self._read()

    def vanish(self) -> None:
        """The client is gone."""
        self.unread.clear()
        self._take(self.owner.tell(self.owner.relay.client_lost, "reset"))

    def tick(self) -> None:
        """The clock ticks."""
        self._take(self.owner.settle(hold=False))

    def tell(self, event: Callable[..., None]) -> None:
        """Something happens to the relay."""
        self._take(self.owner.tell(event))

    # --- what the server does ----------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether a server has something to deliver."""
        server = self.server
        return server is not None and not self.closed and (bool(server.outbox) or server.hung_up)

    def deliver(self, count: int = 1, *, cut: int = 0) -> None:
        """Let the first replies of the server arrive, in one packet, or in two where ``cut`` says so."""
        server = self.server
        if server is None or self.closed:
            return
        if not server.outbox:
            if server.hung_up:
                self._take(self.owner.tell(self.owner.relay.backend_lost, "hung up"))
            return
        leaving, server.outbox[:count] = server.outbox[:count], []
        data = b"".join(reply.raw for reply in leaving)
        for piece in (data[:cut], data[cut:]):
            if piece and self.server is server:
                self._take(self.owner.tell(self.owner.relay.backend_received, piece, 0.0))

    def deliver_octet(self) -> None:
        """Let the next octet of the server arrive."""
        server = self.server
        if server is None or not server.outbox:
            self.deliver()
            return
        first = server.outbox[0]
        octet, first.raw = first.raw[:1], first.raw[1:]
        if not first.raw:
            del server.outbox[0]
        self._take(self.owner.tell(self.owner.relay.backend_received, octet, 0.0))

    def fail(self, last: bytes) -> None:
        """The server says something last, if it does, and is gone."""
        server = self.server
        assert server is not None
        server.outbox.clear()
        server.hung_up = True
        if last:
            self._take(self.owner.tell(self.owner.relay.backend_received, last, 0.0))

    def run(self) -> None:
        """Let everything happen that nobody has to wait for."""
        for _ in range(10_000):
            if not self.waiting:
                return
            self.deliver()
        raise AssertionError("no end of it")

    # --- what comes of it --------------------------------------------------------------------------------------------

    def _read(self) -> None:
        relay = self.owner.relay
        while not self.closed and not relay.stuffed:
            if self.unread:
                self._take(self.owner.tell(relay.client_received, self.unread.pop(0), 0.0))
            elif self.half_closed and not relay.eof:
                self._take(self.owner.tell(relay.client_eof, 0.0))
            else:
                return

    def _take(self, output: Output) -> None:
        self.to_client += output.client
        if output.server:
            assert self.server is not None
            self.server.receive(output.server)
        for name in output.actions:
            if name in _LEAVING:
                if name == Action.RELEASE_BACKEND.name:
                    self.kept = self.server
                self.server = None
            elif name in (Action.CONNECT.name, Action.NEXT_SERVER.name):
                self._connect_server()
        if self.owner.probing and not self.closed:
            if self.unread:
                self._take(self.owner.tell(self.owner.relay.client_received, self.unread.pop(0), 0.0))
            else:
                self._take(QUIET.play(self.owner))
        self._read()

    def _connect_server(self) -> None:
        if self.owner.kept is not None and self.kept is not None:
            self.server, self.kept = self.kept, None
            self._take(self.owner.borrow())
            return
        self.server = Server(
            serial=len(self.servers) + 1, keywords=self.keywords, plan=self.plan, guards_domains=self.guards_domains
        )
        self.servers.append(self.server)
        self.server.greet()
