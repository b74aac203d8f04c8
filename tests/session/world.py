"""A client, a relay and its servers, joined: what the relay says arrives, what is said to it waits for delivery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from smtpproxy.session.actions import Action

from .dialogue import QUIET
from .listener import Setup
from .owner import LEAVING, Output, Owner
from .prepared import Now, Prepared
from .server import Message, ok

_LEAVING = {action.name for action in LEAVING}
_SERVERS = 4
"""As many servers are tried for one session."""


@dataclass
class World:
    """One listener: clients one after another, each with the servers that its relay asks for."""

    setup: Setup
    keywords: tuple[str, ...] = ()
    plan: Callable[[str, bytes], str] = ok
    guards_domains: bool = False
    others: tuple[tuple[str, ...], ...] = ()
    """The keywords of the other servers; each connection is with the next one."""
    once: bool = False
    """Whether the servers take EHLO only once."""
    forgetful: bool = False
    """Whether they list XCLIENT no more after it was taken."""

    owner: Owner = field(init=False)
    server: Prepared | None = None
    """The server that the relay is connected with."""
    kept: Prepared | None = None
    servers: list[Prepared] = field(default_factory=list)
    tried: int = 0
    to_client: bytes = b""
    unread: list[bytes] = field(default_factory=list)
    """Packets of the client that the relay does not want to read yet."""
    half_closed: bool = False

    def __post_init__(self) -> None:
        self.owner = Owner(self.setup)
        self.now = Now(self.setup, lambda: self.owner.address, lambda: self.owner.relays)

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

    def handshake(self, *, done: bool = True) -> None:
        """The client's handshake ends."""
        self._take(self.owner.handshake_done() if done else self.owner.handshake_fails())

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
        if self.closed:
            return False
        server, owner = self.server, self.owner
        return owner.looking_up or (
            server is not None and (bool(server.outbox) or server.hung_up or owner.server_handshaking)
        )

    def deliver(self, count: int = 1, *, cut: int = 0) -> None:
        """Let the first replies of the server arrive, in one packet, or in two where ``cut`` says so.

        Where there is none: let a handshake with it end, or a look-up of the client's name.
        """
        server = self.server
        if self.closed:
            return
        if server is None or not server.outbox:
            self._deliver_other()
            return
        leaving, server.outbox[:count] = server.outbox[:count], []
        data = b"".join(reply.raw for reply in leaving)
        for piece in (data[:cut], data[cut:]):
            if piece and self.server is server:
                self._take(self.owner.server_sends(piece))

    def _deliver_other(self) -> None:
        owner, server = self.owner, self.server
        if owner.looking_up:
            self._take(owner.name_found())
        elif server is None:
            return
        elif server.hung_up:
            self._take(owner.tell(owner.relay.backend_lost, "hung up"))
        elif owner.server_handshaking:
            if self.plan("handshake", b"") == "ok":
                server.secured()
                self._take(owner.server_handshake_done())
            else:
                server.hung_up = True
                self._take(owner.server_handshake_fails())

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
        self._take(self.owner.server_sends(octet))

    def fail(self, last: bytes) -> None:
        """The server says something last, if it does, and is gone."""
        server = self.server
        assert server is not None
        server.outbox.clear()
        server.hung_up = True
        if last:
            self._take(self.owner.server_sends(last))

    def run(self) -> None:
        """Let everything happen that nobody has to wait for."""
        for _ in range(10_000):
            if not self.waiting:
                return
            self.deliver()
        raise AssertionError("no end of it")

    # --- what comes of it --------------------------------------------------------------------------------------------

    def _read(self) -> None:
        while not self.closed and not self.owner.relay.stuffed:
            if self.unread:
                self._take(self.owner.client_sends(self.unread.pop(0)))
            elif self.half_closed and not self.owner.relay.eof:
                self._take(self.owner.client_half_closes())
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
            elif name == Action.CONNECT.name:
                self.tried = 0
                self._connect_server()
            elif name == Action.NEXT_SERVER.name:
                self._connect_server()
        if self.owner.probing and not self.closed:
            if self.unread:
                self._take(self.owner.client_sends(self.unread.pop(0)))
            else:
                self._take(QUIET.play(self.owner))
        self._read()

    def _connect_server(self) -> None:
        if self.owner.kept is not None and self.kept is not None:
            self.server, self.kept = self.kept, None
            self._take(self.owner.borrow())
            return
        self.tried += 1
        if self.tried > _SERVERS:
            self.server = None
            self._take(self.owner.no_server())
            return
        offers = (self.keywords, *self.others)
        self.server = Prepared(
            serial=len(self.servers) + 1,
            keywords=offers[len(self.servers) % len(offers)],
            plan=self.plan,
            guards_domains=self.guards_domains,
            now=self.now,
            once=self.once,
            forgetful=self.forgetful,
        )
        self.servers.append(self.server)
        self.server.greet()
