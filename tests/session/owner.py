"""A stand-in for the owner of a relay: carries out its actions on connections that are only lists of bytes.

It does what net/inbound.py and net/succession.py do, and knows what must never happen, whatever the test is about;
that is checked after every event:

- octets go to a server only while there is a connection with it, never before it has spoken, and never while it is in
  a TLS handshake (S8, S10, C11);
- a connection with a server is left exactly once, and before the client's (S10, S15);
- after CLOSE_CLIENT nothing leaves any more, and from the 220 to STARTTLS on nothing leaves in clear;
- a relay whose place another takes has nothing left: no reply owed, no input unread, nothing for a server (S6);
- the session never waits for nobody: somebody's time-out is always running (S3, H9).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from smtpproxy.session.actions import Action
from smtpproxy.session.backend import Backend
from smtpproxy.session.frontend import State
from smtpproxy.session.origin import Origin
from smtpproxy.session.policy import Learned
from smtpproxy.session.relay import Relay
from smtpproxy.smtp.commands import Wait
from smtpproxy.smtp.xclient import UNAVAILABLE, parse_address

from .listener import Setup

LEAVING = frozenset(
    {
        Action.ABORT_BACKEND,
        Action.DROP_BACKEND,
        Action.QUIT_BACKEND,
        Action.AWAIT_CLOSE,
        Action.RELEASE_BACKEND,
    }
)
NAME = b"client.example"
DESTINATION = ("192.0.2.1", 25)
FIRST_PORT = 40025


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
        self.policies = {secure: setup.policy(secure=secure) for secure in (False, True)}
        self.learned: dict[tuple[bool, str], Learned | None] = {
            (secure, ""): setup.knowledge(policy) for secure, policy in self.policies.items()
        }
        """What is known of the backend, by the state of TLS, and by client where it knew the client (S18)."""
        self.learned_by_client = False
        self.kept: Backend | None = None
        self.clients = 0
        """How many there were, counting those that XCLIENT has named."""
        self.relays = 0
        """How many relays there were: none knows what was said to the one before."""
        self.servers = 0
        """How many connections with servers there were."""
        self.connected = False
        self.spoken = False
        """Whether the server at the other end has said anything."""
        self.server_handshaking = False
        self.probing = False
        self.handshaking = False
        """Whether what the client sends is the handshake's now."""
        self.secure = False
        self.looking_up = False
        self.closed = False
        self.address = ""
        self.origin: Origin
        """Who the client is, as the relay is told when it asks."""
        self.relay: Relay

    # --- the client --------------------------------------------------------------------------------------------------

    def start(self) -> Output:
        """Accept a client."""
        self.clients += 1
        addresses = self.setup.clients
        self.address = addresses[min(self.clients, len(addresses)) - 1]
        self.origin = self._somebody(self.address, NAME if self.setup.lookup != "never" else UNAVAILABLE)
        implicit = self.setup.tls == "implicit"
        self.secure = implicit
        self.relay = self._new_relay()
        if self.setup.trace_header:
            self.relay.stamp = self._stamp
        self.connected = self.spoken = self.server_handshaking = False
        self.probing = self.looking_up = self.closed = False
        self.handshaking = implicit
        if implicit:
            self.relay.await_tls()
            return self.settle()
        return self._greet()

    def _greet(self) -> Output:
        self.relay.start(0.0)
        # Where no server is needed for the greeting, there is a look at the client's input before it leaves (S2).
        return Output() if self.relay.backend is None else self.settle()

    def client_sends(self, data: bytes) -> Output:
        """Let octets of the client arrive."""
        if self.handshaking:
            return self.handshake_fails("garbage")
        return self.tell(self.relay.client_received, data, 0.0)

    def client_half_closes(self) -> Output:
        """Let the client close its writing side."""
        if self.handshaking:
            return self.handshake_fails("connection closed in the handshake")
        return self.tell(self.relay.client_eof, 0.0)

    def handshake_fails(self, why: str = "no shared cipher") -> Output:
        """Let the handshake with the client come to nothing."""
        assert self.handshaking, "there is no handshake with the client"
        return self.tell(self.relay.client_lost, f"TLS handshake failed: {why}")

    def handshake_done(self) -> Output:
        """Let the client be inside TLS."""
        assert self.handshaking, "there is no handshake with the client"
        self.handshaking = False
        self.secure = True
        if self.setup.login:
            self.origin = self._somebody(self.address, self.origin.name, self.setup.login)
        if self.setup.tls == "implicit":
            self.relay.tls_begun()
            return self._greet()
        old = self.relay
        assert not old.frontend.waiting, "S5: octets of before the handshake are still here"
        self._learn()
        self._succeed(old, same_client=not self.setup.login)
        self.relay.begin_secure()
        return self.settle()

    # --- the server --------------------------------------------------------------------------------------------------

    def server_sends(self, data: bytes) -> Output:
        """Let octets of the server arrive."""
        if self.server_handshaking:
            return self.tell(self.relay.backend_lost, "TLS handshake failed: garbage")
        self.spoken = True
        return self.tell(self.relay.backend_received, data, 0.0)

    def server_handshake_done(self) -> Output:
        """Let the server be inside TLS with us."""
        assert self.server_handshaking, "there is no handshake with the server"
        self.server_handshaking = False
        return self.tell(self.relay.backend_secured, 0.0)

    def server_handshake_fails(self) -> Output:
        """Let the handshake with the server come to nothing."""
        assert self.server_handshaking, "there is no handshake with the server"
        return self.tell(self.relay.backend_lost, "TLS handshake failed: certificate verify failed")

    def no_server(self) -> Output:
        """Let there be no server, or no other."""
        self.connected = False
        return self.tell(self.relay.backend_failed, "no server")

    def borrow(self) -> Output:
        """Answer CONNECT with the session that the last client has left."""
        assert self.kept is not None, "no session was kept"
        kept, self.kept = self.kept, None
        self.spoken = True
        return self.tell(self.relay.backend_borrowed, kept)

    # --- other events ------------------------------------------------------------------------------------------------

    def name_found(self) -> Output:
        """Let a look-up of the client's name end."""
        assert self.looking_up, "nobody looks up a name"
        self.looking_up = False
        return Output() if self.relay.over else self.tell(self.relay.client_identified, self.origin)

    def tell(self, event: Callable[..., None], *arguments: Any) -> Output:
        """Let something happen to the relay; say what it did about it."""
        self.probing = False
        event(*arguments)
        return self.settle()

    def settle(self, *, hold: bool = True) -> Output:
        """Fetch what is to be written and done."""
        output = Output()
        self._settle(output, hold=hold)
        check(self)
        return output

    def _settle(self, output: Output, *, hold: bool = True) -> None:
        relay = self.relay
        replies, server = relay.take_replies(hold=hold), b"".join(relay.backend_out)
        relay.backend_out.clear()
        if server:
            assert self.connected, f"S10: octets for a server, but no connection with one: {server!r}"
            assert self.spoken, f"S8: octets for a server that has not greeted: {server!r}"
            assert not self.server_handshaking, f"C11: octets for a server amid its handshake: {server!r}"
        assert not (self.closed and replies), f"a reply after the end: {replies!r}"
        if self.handshaking:
            # What is written now waits for the end of the handshake, which never comes: a last word only.
            assert not replies or relay.over, f"S5: a reply amid the handshake: {replies!r}"
            replies = b""
        output.client += replies
        output.server += server
        actions, relay.actions = relay.actions, []
        for action in actions:
            output.actions.append(action.name)
            self._carry_out(action, output)

    # --- carrying out ------------------------------------------------------------------------------------------------

    def _carry_out(self, action: Action, output: Output) -> None:
        assert not self.closed, f"{action.name} after CLOSE_CLIENT"
        if action in LEAVING:
            self._leave(action)
        elif action is Action.CONNECT:
            assert not self.connected, "a second connection with a server"
            self.servers += 1
            self.connected, self.spoken = True, False
        elif action is Action.NEXT_SERVER:
            assert self.connected, "no server was tried"
            self.servers += 1
            self.spoken = self.server_handshaking = False
        elif action is Action.START_BACKEND_TLS:
            assert self.connected
            assert not self.server_handshaking
            self.server_handshaking = True
        elif action is Action.PROBE_CLIENT:
            self.probing = True
        elif action is Action.START_TLS:
            assert not self.relay.pipeline.slots, "S5: replies are owed, and another relay takes over"
            self.handshaking = True
        elif action is Action.CHANGE_CLIENT:
            assert not self.relay.pipeline.slots, "S5: replies are owed, and another relay takes over"
            self._change_client(output)
        elif action is Action.IDENTIFY_CLIENT:
            self._identify(output)
        else:
            assert action is Action.CLOSE_CLIENT
            assert not self.connected, "S10: the client's connection is closed, the server's is forgotten"
            self.closed = True
            self._learn()

    def _leave(self, action: Action) -> None:
        assert self.connected, f"{action.name} without a connection"
        self.connected = self.server_handshaking = False
        if action is Action.RELEASE_BACKEND:
            self.kept, self.relay.released = self.relay.released, None
            assert self.kept is not None, "nothing was released"

    def _identify(self, output: Output) -> None:
        if self.setup.lookup == "later" and self.origin.name == NAME:
            self.looking_up = True
        else:
            self.relay.client_identified(self.origin)
            self._settle(output)

    def _change_client(self, output: Output) -> None:
        """Go on with the client that XCLIENT has named."""
        old = self.relay
        said = old.named or {}
        if not self.setup.room:
            old.client_refused("too many sessions from this client")
        else:
            self._learn()
            self.clients += 1
            if b"ADDR" in said:
                self.address = parse_address(said[b"ADDR"]) or ""
            login, port = said.get(b"LOGIN", b""), said.get(b"PORT", b"")
            self.origin = Origin(
                self.address,
                int(port) if port.isdigit() else 0,
                DESTINATION if b"DESTADDR" in said else None,
                said.get(b"NAME", NAME if self.setup.lookup != "never" else UNAVAILABLE),
                b"" if login == UNAVAILABLE else login,
            )
            self._succeed(old, same_client=False, keep_backend=self.setup.identity != "bound")
            self.relay.start(0.0)
        self._settle(output)
        assert not old.actions, "an action is done twice"

    def _somebody(self, address: str, name: bytes, login: bytes = b"") -> Origin:
        return Origin(address, FIRST_PORT - 1 + self.clients, DESTINATION, name, login)

    def _stamp(self) -> bytes:
        return b"Received: from " + self.relay.heard[5:].strip() + b" by proxy.example\r\n"

    # --- one relay after another -------------------------------------------------------------------------------------

    def _new_relay(self) -> Relay:
        self.relays += 1
        address = self.address if self.learned_by_client else ""
        policy = self.policies[self.secure]
        return Relay(policy, self.setup.client(secure=self.secure), self.learned.get((self.secure, address)))

    def _succeed(self, old: Relay, *, same_client: bool, keep_backend: bool = True) -> None:
        relay = self._new_relay()
        relay.succeed(old, 0.0, same_client=same_client, keep_backend=keep_backend)
        assert old.backend is None, "S10: two relays with one server"
        assert old.transaction is None, "a transaction that nobody hears of again"
        assert not old.ended, "transactions that are told twice"
        assert not old.backend_out, f"S6: {old.backend_out!r} is lost"
        self.relay = relay

    def _learn(self) -> None:
        relay = self.relay
        if relay.origin is not None and relay.policy.introduces and not self.learned_by_client:
            self.learned_by_client = True
            self.learned.clear()
        if relay.learned is not None:
            self.learned[relay.policy.secure, self.address if self.learned_by_client else ""] = relay.learned


def check(owner: Owner) -> None:
    """See that what must hold after every event does."""
    relay = owner.relay
    assert relay.over == owner.closed, "S3: the session is over, but nobody closes the connection (or too early)"
    if relay.over or owner.probing:
        return
    waits_for_server = relay.backend_wait is not Wait.NOTHING
    state = relay.frontend.state
    somebody = waits_for_server or owner.looking_up
    assert owner.server_handshaking == (relay.backend_wait is Wait.BACKEND_TLS), "H9: whose handshake is it?"
    assert owner.handshaking == (relay.client_wait is Wait.CLIENT_TLS), "H9: whose handshake is it?"
    assert not relay.stuffed or somebody, "H9: the client is not read, and no server will change that"
    assert somebody or relay.client_wait is not Wait.NOTHING, "S3: the session waits for nobody"
    assert relay.stuffed or not _readable(relay), "S3: what the client has sent could be read, and is not"
    if state is State.AWAIT_DATA or state is State.AWAIT_AUTH:
        assert relay.pipeline.slots, f"S3: {state.name} with nothing owed: the client is never read again"


def _readable(relay: Relay) -> bool:
    frontend = relay.frontend
    if frontend.state is State.COMMANDS or frontend.state is State.AUTH_RESPONSE:
        return frontend._buffer.find(b"\r\n", frontend._position) >= 0
    return bool(frontend.waiting) and frontend.state in (State.MAIL_DATA, State.CHUNK)
