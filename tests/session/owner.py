"""A stand-in for the owner of a relay: carries out its actions on connections that are only lists of bytes.

It knows what must never happen, whatever the test is about, and checks it after every event:

- octets go to a server only while there is a connection with it, and never before it has spoken (S8, S10);
- a connection with a server is left exactly once, and before the client's (S10, S15);
- after CLOSE_CLIENT nothing leaves any more;
- the session never waits for nobody: somebody's time-out is always running (S3, H9).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from smtpproxy.session.actions import Action
from smtpproxy.session.backend import Backend
from smtpproxy.session.frontend import State
from smtpproxy.session.policy import ClientPolicy, Learned, Limits, RelayPolicy
from smtpproxy.session.relay import Relay
from smtpproxy.smtp.commands import Wait
from smtpproxy.smtp.extensions import ExtensionPolicy
from smtpproxy.smtp.lineendings import BarePolicy

HOSTNAME = b"proxy.example"
SERVER = b"mail.example"
EXTENSIONS = (
    "SIZE 8BITMIME SMTPUTF8 DSN ENHANCEDSTATUSCODES DELIVERBY LIMITS MT-PRIORITY VRFY EXPN HELP ETRN AUTH BINARYMIME"
)
LEAVING = frozenset(
    {
        Action.ABORT_BACKEND,
        Action.DROP_BACKEND,
        Action.QUIT_BACKEND,
        Action.AWAIT_CLOSE,
        Action.RELEASE_BACKEND,
    }
)


@dataclass(frozen=True)
class Setup:
    """What a test may set; the defaults are those of the configuration, as far as it has them."""

    eager: bool = True
    learned: tuple[str, ...] | None = None
    """The keywords of the backend, for a session that begins without it."""
    reuse: bool = False
    lockstep: bool = False
    domains: tuple[str, ...] | None = None
    size: int | None = None
    recipients: int = 1000
    errors: int = 20
    line: int = 4096
    auth_line: int = 12288
    burst_commands: int = 1000
    burst_octets: int = 262144
    bare: BarePolicy = BarePolicy.NORMALIZE
    pass_nul: bool = False
    chunking: bool = True
    early: bool = True
    refusal: bytes = b""
    extensions: str = EXTENSIONS
    keywords: str = "PIPECONNECT PIPE_CONNECT"

    def policy(self) -> RelayPolicy:
        extensions = ExtensionPolicy(
            self.extensions.split(),
            self.keywords.split(),
            chunking=self.chunking,
            message_size=self.size,
            recipients=self.recipients,
        )
        limits = Limits(
            self.line, self.auth_line, self.burst_commands, self.burst_octets, self.recipients, self.size, self.errors
        )
        domains = None if self.domains is None else frozenset(self.domains)
        return RelayPolicy(HOSTNAME, limits, extensions, self.chunking, domains, self.eager, self.reuse, self.lockstep)

    def client(self) -> ClientPolicy:
        return ClientPolicy(self.early, self.refusal, self.bare, self.pass_nul)

    def knowledge(self, policy: RelayPolicy) -> Learned | None:
        if self.learned is None:
            return None
        lines = [SERVER, *(keyword.encode() for keyword in self.learned)]
        raw = b"".join(b"250-" + line + b"\r\n" for line in lines[:-1]) + b"250 " + lines[-1] + b"\r\n"
        return Learned(SERVER, policy.extensions.adapt(raw)[1])


@dataclass
class Output:
    """What one event made the relay do."""

    client: bytes = b""
    server: bytes = b""
    actions: list[str] = field(default_factory=list)


class Owner:
    """Owns one relay after another, with one backend session that may be kept between them."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.policy = setup.policy()
        self.learned = setup.knowledge(self.policy)
        self.kept: Backend | None = None
        self.connected = False
        self.spoken = False
        """Whether the server at the other end has said anything."""
        self.probing = False
        self.closed = False
        self.relay: Relay

    def start(self) -> Output:
        """Accept a client."""
        self.relay = Relay(self.policy, self.setup.client(), self.learned)
        self.connected = self.spoken = self.probing = self.closed = False
        self.relay.start(0.0)
        # Where no server is needed for the greeting, there is a look at the client's input before it leaves (S2).
        return Output() if self.relay.backend is None else self.settle()

    def tell(self, event: Callable[..., None], *arguments: Any) -> Output:
        """Let something happen to the relay; say what it did about it."""
        if event.__name__ == "backend_received":
            self.spoken = True
        elif event.__name__ == "backend_failed":
            self.connected = False
        self.probing = False
        event(*arguments)
        return self.settle()

    def borrow(self) -> Output:
        """Answer CONNECT with the session that the last client has left."""
        assert self.kept is not None, "no session was kept"
        kept, self.kept = self.kept, None
        self.spoken = True
        self.relay.backend_borrowed(kept)
        return self.settle()

    def settle(self, *, hold: bool = True) -> Output:
        """Fetch what is to be written and done."""
        relay = self.relay
        output = Output(relay.take_replies(hold=hold), b"".join(relay.backend_out))
        relay.backend_out.clear()
        if output.server:
            assert self.connected, f"S10: octets for a server, but no connection with one: {output.server!r}"
            assert self.spoken, f"S8: octets for a server that has not greeted: {output.server!r}"
        assert not (self.closed and output.client), f"a reply after the end: {output.client!r}"
        actions, relay.actions = relay.actions, []
        for action in actions:
            output.actions.append(action.name)
            self._carry_out(action)
        self._check()
        return output

    def _carry_out(self, action: Action) -> None:
        assert not self.closed, f"{action.name} after CLOSE_CLIENT"
        if action is Action.CONNECT:
            assert not self.connected, "a second connection with a server"
            self.connected, self.spoken = True, False
        elif action is Action.NEXT_SERVER:
            assert self.connected, "no server was tried"
            self.spoken = False
        elif action in LEAVING:
            assert self.connected, f"{action.name} without a connection"
            self.connected = False
            if action is Action.RELEASE_BACKEND:
                self.kept, self.relay.released = self.relay.released, None
        elif action is Action.PROBE_CLIENT:
            self.probing = True
        else:
            assert not self.connected, "S10: the client's connection is closed, the server's is forgotten"
            self.closed = True
            self.learned = self.relay.learned or self.learned

    def _check(self) -> None:
        relay = self.relay
        assert relay.over == self.closed, "S3: the session is over, but nobody closes the connection (or too early)"
        if relay.over or self.probing:
            return
        waits_for_server = relay.backend_wait is not Wait.NOTHING
        state = relay.frontend.state
        assert not relay.stuffed or waits_for_server, "H9: the client is not read, and no server will change that"
        assert waits_for_server or relay.client_wait is not Wait.NOTHING, "S3: the session waits for nobody"
        assert relay.stuffed or not _readable(relay), "S3: what the client has sent could be read, and is not"
        if state is State.AWAIT_DATA or state is State.AWAIT_AUTH:
            assert relay.pipeline.slots, f"S3: {state.name} with nothing owed: the client is never read again"


def _readable(relay: Relay) -> bool:
    frontend = relay.frontend
    if frontend.state is State.COMMANDS or frontend.state is State.AUTH_RESPONSE:
        return frontend._buffer.find(b"\r\n", frontend._position) >= 0
    return bool(frontend.waiting) and frontend.state in (State.MAIL_DATA, State.CHUNK)
