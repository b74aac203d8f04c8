"""Random clients against random servers, for as long as it takes.

What must hold, whatever happens (rules S3, S8, S10, S14, S15, H8, H9, H10):

- one reply per command, in order; a reply too few only where the last one is a refusal and the connection closes;
- a 2xx for a message only where a server has given it, and for the very text that the client has sent;
- nothing of a message's text reaches a server as a command, no foreign recipient before a 235;
- the servers' own view (``server.py``): paces, groups, nothing before the greeting;
- somebody is always waited for, connections are left once (``owner.py``); no exception, ever;
- after the client has closed its side the session ends.
"""

from __future__ import annotations

import re
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from smtpproxy.smtp.lineendings import BarePolicy

from .client import Client
from .owner import Setup
from .server import FOREIGN, MARK
from .test_paces import SERVERS
from .world import World

OUTCOMES = (*["ok"] * 8, "4xx", "4xx", "5xx", "5xx", "421", "close", "garbage", "surplus")
LINES = st.sampled_from(
    [
        b"Subject: hello\r\n",
        b"\r\n",
        b".\r\n",
        b"..\r\n",
        b".x\r\n",
        b"MAIL FROM:<%s@client.example>\r\n" % MARK,
        b"RSET %s\r\n" % MARK,
        b"QUIT %s\r\n" % MARK,
        b"bare\nLF %s\n.\nRCPT TO:<%s@foreign.example>\n" % (MARK, MARK),
        b"bare\rCR\r.\r\r\n",
        b"NUL \0\r\n",
        b"no end %s" % MARK,
    ]
)
TEXTS = st.lists(LINES, max_size=6).map(b"".join)
LINES_OF_COMMANDS = st.sampled_from(
    [
        ("EHLO", b"EHLO client.example"),
        ("EHLO", b"ehlo other.example"),
        ("EHLO", b"EHLO"),
        ("HELO", b"HELO client.example"),
        ("MAIL", b"MAIL FROM:<a@client.example>"),
        ("MAIL", b"MAIL FROM:<a@client.example> SIZE=10 BODY=8BITMIME"),
        ("MAIL", b"MAIL FROM:<a@client.example> RET=HDRS"),
        ("RCPT", b"RCPT TO:<b@example.org>"),
        ("RCPT", b"RCPT TO:<c@example.org>"),
        ("RCPT", b"RCPT TO:<b" + FOREIGN + b">"),
        ("RSET", b"RSET"),
        ("RSET", b"RSET now"),
        ("NOOP", b"NOOP"),
        ("VRFY", b"VRFY b"),
        ("HELP", b"HELP"),
        ("bad", b"XFROB"),
        ("bad", b"NOOP \n"),
        ("bad", b"NOOP " + b"x" * 5000),
        ("bad", b""),
    ]
)
LATE = {"drain": "shut_down", "end": "end_now", "late": "client_timed_out", "later": "backend_timed_out"}
MOSTLY = st.sampled_from([True, True, True, False])
ENVELOPE = [("MAIL", b"MAIL FROM:<a@client.example>"), ("RCPT", b"RCPT TO:<b@example.org>")]


def normal(text: bytes) -> bytes:
    """Give what a text is for a server that gets it as DATA (S9, S11)."""
    text = re.sub(rb"\r\n|\n|\r", lambda match: b" " if match[0] == b"\r" else b"\r\n", text)
    return text if not text or text.endswith(b"\r\n") else text + b"\r\n"


class Sessions(RuleBasedStateMachine):
    """One listener; clients come one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: list[str] = []

    @initialize(
        keywords=st.sampled_from(sorted(SERVERS.values())),
        eager=st.booleans(),
        reuse=st.booleans(),
        tight=st.booleans(),
        learned=st.booleans(),
        limited=st.booleans(),
        bare=st.sampled_from(BarePolicy),
        polite=st.booleans(),
    )
    def begin(
        self,
        *,
        keywords: tuple[str, ...],
        eager: bool,
        reuse: bool,
        tight: bool,
        learned: bool,
        limited: bool,
        bare: BarePolicy,
        polite: bool,
    ) -> None:
        keywords = ("SIZE 1000", "8BITMIME", "AUTH LOGIN PLAIN", *keywords)
        setup = Setup(
            eager=eager,
            reuse=reuse,
            # More than the server really has.
            learned=("DSN", "CHUNKING", *keywords) if learned else None,
            domains=("example.org",),
            bare=bare,
            pass_nul=limited,
            size=60 if limited else None,
            recipients=2 if limited else 1000,
            errors=8 if limited else 1000,
            line=64 if tight else 4096,
            auth_line=64 if tight else 12288,
            burst_commands=3 if tight else 1000,
            burst_octets=80 if tight else 262144,
        )
        self.world = World(setup, keywords, plan=self.plan, guards_domains=True)
        self.arrive(polite=polite)

    def plan(self, _kind: str, _line: bytes) -> str:
        return self.outcomes.pop(0) if self.outcomes else "ok"

    def arrive(self, *, polite: bool) -> None:
        self.client = Client()
        self.heard = 0
        self.world.connect()
        if polite:
            self.world.wait()
            self.world.run()
        if not self.world.closed:
            self.client.says("EHLO")
            self.world.send(b"EHLO client.example\r\n")

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
        for kind, _ in commands:
            self.client.says(kind)
        self.packets(data, b"".join(line + b"\r\n" for _, line in commands) + behind)

    @precondition(lambda self: self.free)
    @rule(data=st.data(), text=TEXTS, envelope=MOSTLY, more=st.lists(LINES_OF_COMMANDS, max_size=2))
    def chunks(self, data: st.DataObject, text: bytes, *, envelope: bool, more: list[tuple[str, bytes]]) -> None:
        burst = b""
        if envelope:
            for kind, line in ENVELOPE:
                self.client.says(kind)
                burst += line + b"\r\n"
        cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=3).map(sorted))
        finished = not more or data.draw(st.booleans())
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        for index, piece in enumerate(pieces):
            last = finished and index == len(pieces) - 1
            self.client.says("BDAT LAST" if last else "BDAT", piece)
            burst += b"BDAT %d%s\r\n" % (len(piece), b" LAST" if last else b"") + piece
        for kind, line in more:
            self.client.says(kind)
            burst += line + b"\r\n"
        self.packets(data, burst)
        if data.draw(MOSTLY):
            self.world.run()

    @precondition(lambda self: self.free)
    @rule(data=st.data(), text=TEXTS, commands=st.lists(LINES_OF_COMMANDS, max_size=1), envelope=MOSTLY)
    def data(self, data: st.DataObject, text: bytes, commands: list[tuple[str, bytes]], *, envelope: bool) -> None:
        for kind, _ in (commands := commands + ENVELOPE * envelope):
            self.client.says(kind)
        self.client.says("DATA", text)
        self.packets(data, b"".join(line + b"\r\n" for _, line in commands) + b"DATA\r\n")
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
        for kind, _ in more:
            client.says(kind)
        stuffed = (b"\r\n" + text).replace(b"\r\n.", b"\r\n..")[2:]
        self.packets(data, stuffed + b".\r\n" + b"".join(line + b"\r\n" for _, line in more))

    @precondition(lambda self: self.at("may send data"))
    @rule(data=st.data())
    def half_a_message(self, data: st.DataObject) -> None:
        self.packets(data, b"Subject: %s\r\n.\r" % MARK)
        self.client.violated = True
        self.leave(gently=data.draw(st.booleans()))

    @precondition(lambda self: self.at("DATA", "AUTH") and not self.client.violated)
    @rule(data=st.data())
    def more_than_allowed(self, data: st.DataObject) -> None:
        """What stands behind AUTH may be commands after all; behind DATA it never is."""
        self.client.violated = True
        if self.client.awaits == "AUTH":
            self.client.says("NOOP")
        self.packets(data, b"NOOP\r\n")

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

    @rule(outcomes=st.lists(st.sampled_from(OUTCOMES), max_size=4))
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
            message = accepted[line]
            assert message.text in (text, text + b"\r\n", normal(text)), "S9, S11: another message"
        assert len({line for _, line in client.taken}) == len(client.taken), "S10: one verdict for two messages"

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
