"""Random clients against random servers, for as long as it takes.

What must hold, whatever happens (rules S3, S5, S6, S8, S10, S14, S15, S18, H6, H8, H9, H10):

- one reply per command, in order; a reply too few only where the last one is a refusal and the connection closes;
- a 2xx for a message only where a server has given it, and for the very text that the client has sent;
- nothing of a message's text reaches a server as a command, no foreign recipient before a 235 or an XCLIENT;
- nothing said before TLS, or before another client was named, reaches a server after it (S5, S6);
- the servers' own view (``server.py``, ``prepared.py``): paces, groups, nothing before the greeting, nothing of a
  client whom the server should know and does not;
- every message reaches a server at most once;
- somebody is always waited for, connections are left once (``owner.py``); no exception, ever;
- after the client has closed its side the session ends.
"""

from __future__ import annotations

import re
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from .client import Client
from .prepared import marked
from .server import MARK
from .strategies import ENVELOPE, LINES_OF_COMMANDS, MOSTLY, OUTCOMES, TEXTS, XCLIENTS, normal, worlds
from .world import World

LATE = {"drain": "shut_down", "end": "end_now", "late": "client_timed_out", "later": "backend_timed_out"}
TRACE = re.compile(rb"Received: from [^\r\n]* by proxy\.example\r\n")


class Sessions(RuleBasedStateMachine):
    """One listener; clients come one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: list[str] = []
        self.mails = 0

    @initialize(drawn=worlds(), polite=st.booleans())
    def begin(self, drawn: dict[str, Any], *, polite: bool) -> None:
        self.world = World(plan=self.plan, **drawn)
        self.setup = self.world.setup
        self.arrive(polite=polite)

    def plan(self, _kind: str, _line: bytes) -> str:
        return self.outcomes.pop(0) if self.outcomes else "ok"

    def arrive(self, *, polite: bool) -> None:
        self.client = Client()
        self.heard = 0
        self.world.connect()
        if self.setup.tls == "implicit":
            self.world.handshake()
        if polite:
            self.world.wait()
            self.world.run()
        if not self.world.closed:
            self.world.send(self.says("EHLO", b"EHLO client.example"))

    def says(self, kind: str, line: bytes) -> bytes:
        """Give a command with its line end, marked so that everybody can tell when it was said."""
        self.replies_are_in_order()
        named = sum(kind == "XCLIENT" for kind, _ in self.client.owed) if self.setup.trusted else 0
        self.client.says(kind)
        if kind == "MAIL":
            self.mails += 1
            line = line.replace(b"<a@", b"<a%d@" % self.mails)
        return marked(line, self.world.owner.relays + named) + b"\r\n"

    def packets(self, data: st.DataObject, octets: bytes) -> None:
        """Send octets in packets of any size."""
        cuts = data.draw(st.lists(st.integers(0, len(octets)), max_size=4).map(sorted))
        for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
            if octets[start:end] and not self.world.closed:
                self.world.send(octets[start:end])

    @property
    def free(self) -> bool:
        """Whether the client may send commands."""
        client = self.client
        return not (self.world.closed or self.world.half_closed or client.awaits or client.violated)

    def at(self, *what: str) -> bool:
        """Whether the client is in the middle of something, and there to go on with it."""
        return self.client.awaits in what and not (self.world.closed or self.world.half_closed)

    # --- the client --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.free)
    @rule(data=st.data(), commands=st.lists(LINES_OF_COMMANDS, min_size=1, max_size=6))
    def commands(self, data: st.DataObject, commands: list[tuple[str, bytes]]) -> None:
        self.send_commands(data, commands)

    def send_commands(self, data: st.DataObject, commands: list[tuple[str, bytes]], behind: bytes = b"") -> None:
        self.packets(data, b"".join(self.says(kind, line) for kind, line in commands) + behind)

    @precondition(lambda self: self.free)
    @rule(data=st.data(), text=TEXTS, envelope=MOSTLY, more=st.lists(LINES_OF_COMMANDS, max_size=2))
    def chunks(self, data: st.DataObject, text: bytes, *, envelope: bool, more: list[tuple[str, bytes]]) -> None:
        burst = b""
        if envelope:
            burst = b"".join(self.says(kind, line) for kind, line in ENVELOPE)
        cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=3).map(sorted))
        finished = not more or data.draw(st.booleans())
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        for index, piece in enumerate(pieces):
            last = finished and index == len(pieces) - 1
            self.client.says("BDAT LAST" if last else "BDAT", piece)
            burst += b"BDAT %d%s\r\n" % (len(piece), b" LAST" if last else b"") + piece
        burst += b"".join(self.says(kind, line) for kind, line in more)
        self.packets(data, burst)
        if data.draw(MOSTLY):
            self.world.run()

    @precondition(lambda self: self.free)
    @rule(data=st.data(), text=TEXTS, commands=st.lists(LINES_OF_COMMANDS, max_size=1), envelope=MOSTLY)
    def data(self, data: st.DataObject, text: bytes, commands: list[tuple[str, bytes]], *, envelope: bool) -> None:
        burst = b"".join(self.says(kind, line) for kind, line in commands + ENVELOPE * envelope)
        self.client.says("DATA", text)
        self.packets(data, burst + b"DATA\r\n")
        if data.draw(MOSTLY):
            self.world.run()
            self.replies_are_in_order()
            if self.at("may send data"):
                self.message(data, [])

    @precondition(lambda self: self.at("may send data"))
    @rule(data=st.data(), more=st.lists(LINES_OF_COMMANDS, max_size=2))
    def send_message(self, data: st.DataObject, more: list[tuple[str, bytes]]) -> None:
        self.message(data, more)

    def message(self, data: st.DataObject, more: list[tuple[str, bytes]]) -> None:
        client = self.client
        text, client.awaits = client.text, ""
        if not text.endswith(b"\r\n"):
            text += b"\r\n"
        client.says("message", text)
        stuffed = (b"\r\n" + text).replace(b"\r\n.", b"\r\n..")[2:]
        self.packets(data, stuffed + b".\r\n" + b"".join(self.says(kind, line) for kind, line in more))

    @precondition(lambda self: self.at("may send data"))
    @rule(data=st.data())
    def half_a_message(self, data: st.DataObject) -> None:
        self.packets(data, b"Subject: %s\r\n.\r" % MARK)
        self.client.violated = True
        self.leave(gently=data.draw(st.booleans()))

    @precondition(lambda self: self.at("DATA", "AUTH", "STARTTLS") and not self.client.violated)
    @rule(data=st.data())
    def more_than_allowed(self, data: st.DataObject) -> None:
        """What stands behind AUTH or STARTTLS may be commands after all, behind DATA it never is."""
        self.client.violated = True
        if self.client.awaits == "DATA":
            self.packets(data, b"NOOP\r\n")
        else:
            self.packets(data, self.says("EHLO", b"EHLO other.example"))

    # --- TLS, and another client -------------------------------------------------------------------------------------

    @precondition(lambda self: self.free)
    @rule(data=st.data(), commands=st.lists(LINES_OF_COMMANDS, max_size=2))
    def starttls(self, data: st.DataObject, commands: list[tuple[str, bytes]]) -> None:
        burst = b"".join(self.says(kind, line) for kind, line in commands)
        self.client.says("STARTTLS")
        self.packets(data, burst + b"STARTTLS\r\n")
        if data.draw(MOSTLY):
            self.world.run()
            self.replies_are_in_order()
            if self.at("may shake hands"):
                self.shake_hands()

    @precondition(lambda self: self.at("may shake hands"))
    @rule()
    def shake_hands(self) -> None:
        self.client.awaits = ""
        self.world.handshake()

    @precondition(lambda self: self.at("may shake hands"))
    @rule(data=st.data(), clear=st.booleans())
    def no_handshake(self, data: st.DataObject, *, clear: bool) -> None:
        """What comes in clear behind the 220 is never a command."""
        if clear:
            self.packets(data, self.says("EHLO", b"EHLO client.example"))
        else:
            self.world.handshake(done=False)
        assert self.world.closed

    @precondition(lambda self: self.free)
    @rule(data=st.data(), line=XCLIENTS, more=st.lists(LINES_OF_COMMANDS, max_size=3))
    def xclient(self, data: st.DataObject, line: bytes, more: list[tuple[str, bytes]]) -> None:
        """Whoever is believed may send the rest in the same burst."""
        self.send_commands(data, [("XCLIENT", line), *more])

    @precondition(lambda self: self.free)
    @rule(data=st.data(), plain=st.booleans())
    def auth(self, data: st.DataObject, *, plain: bool) -> None:
        self.client.says("AUTH")
        self.packets(data, b"AUTH PLAIN abcd\r\n" if plain else b"AUTH LOGIN\r\n")

    @precondition(lambda self: self.at("may respond"))
    @rule(data=st.data(), cancel=st.booleans())
    def response(self, data: st.DataObject, *, cancel: bool) -> None:
        self.client.says("AUTH")
        self.packets(data, b"*\r\n" if cancel else b"abcd\r\n")

    @precondition(lambda self: self.free)
    @rule(data=st.data())
    def quit(self, data: st.DataObject) -> None:
        self.client.says("QUIT")
        self.client.violated = True
        self.packets(data, b"QUIT\r\nNOOP\r\n")

    def leave(self, *, gently: bool) -> None:
        if self.world.closed:
            return
        if gently:
            self.world.half_close()
        else:
            self.world.vanish()
            assert self.world.closed
            self.client.owed.clear()

    @precondition(lambda self: not self.world.closed)
    @rule()
    def tick(self) -> None:
        self.world.tick()

    @precondition(lambda self: self.world.closed)
    @rule(polite=st.booleans())
    def next_client(self, *, polite: bool) -> None:
        self.check_the_end()
        self.arrive(polite=polite)

    # --- the servers -------------------------------------------------------------------------------------------------

    @rule(outcomes=st.lists(OUTCOMES, max_size=4))
    def moods(self, outcomes: list[str]) -> None:
        self.outcomes = outcomes

    @precondition(lambda self: self.world.waiting)
    @rule(count=st.integers(1, 4), cut=st.integers(0, 10))
    def deliver(self, count: int, cut: int) -> None:
        self.world.deliver(count, cut=cut)

    @precondition(lambda self: self.world.waiting)
    @rule()
    def deliver_all(self) -> None:
        self.world.run()

    # --- disasters ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.world.closed)
    @rule(data=st.data())
    def disaster(self, data: st.DataObject) -> None:
        """Something that ends most sessions; so it must not happen too often."""
        relay = self.world.owner.relay
        what = data.draw(st.sampled_from([*[""] * 8, "leave", "half-close", "fail", "drain", "end", "late", "later"]))
        if what == "leave" or (what == "half-close" and not self.world.half_closed):
            self.leave(gently=what == "half-close")
        elif what == "fail" and self.world.server is not None:
            self.world.fail(data.draw(st.sampled_from([b"421 Bye\r\n", b"450 Unasked\r\n", b"garbage\r\n", b"5", b""])))
        elif what in LATE:
            self.world.tell(getattr(relay, LATE[what]))

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def replies_are_in_order(self) -> None:
        if not hasattr(self, "world"):
            return
        came = self.world.to_client
        self.client.hears(came[self.heard :])
        self.heard = len(came)

    def check_the_end(self) -> None:
        self.replies_are_in_order()
        client = self.client
        if not client.violated and not self.world.half_closed:
            client.check_the_end()
        accepted = {message.reply.rstrip(): message for message in self.world.messages}
        for text, line in client.taken:
            assert line in accepted, f"S10: {line!r} was said by no server"
            came = accepted[line].text
            if self.setup.trace_header:
                trace = TRACE.match(came)
                assert trace is not None, came
                came = came[trace.end() :]
            assert came in (text, text + b"\r\n", normal(text)), "S9, S11: another message"
        assert len({line for _, line in client.taken}) == len(client.taken), "S10: one verdict for two messages"
        mails = [message.mail for message in self.world.messages]
        assert len(set(mails)) == len(mails), "S10: one message twice"

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.outcomes = []
        if not self.world.closed:
            self.world.half_close()
            self.world.run()
        assert self.world.closed, "S13: nothing more can come, and the session does not end"
        self.check_the_end()


TestSessions: Any = Sessions.TestCase
TestSessions.settings = settings(derandomize=True, stateful_step_count=40)
