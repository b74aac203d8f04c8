"""A mail server that is only a parser: it takes what a relay sends, judges it, and gives replies.

It follows RFC 5321 to the letter, remembers every command and every message, and takes offence (AssertionError) at what
no relay of ours may do: a second command without PIPELINING, a command behind one that ends its group (RFC 2920, 3.1),
anything before the greeting, and recipients that must never get through (S14).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

ENDS_GROUP = frozenset(b"EHLO HELO DATA VRFY EXPN HELP NOOP ETRN AUTH QUIT STARTTLS XCLIENT".split())
FOREIGN = b"@foreign.example"
MARK = b"smuggled"
"""Stands in the text of messages, in what looks like commands, and must never stand in a command."""


@dataclass
class Message:
    """A message that a server has accepted."""

    mail: bytes
    recipients: list[bytes]
    text: bytes
    reply: bytes


@dataclass
class Reply:
    """A reply on its way to the relay."""

    raw: bytes
    ends_group: bool = False


def ok(_kind: str, _line: bytes) -> str:
    """Let everything be accepted."""
    return "ok"


def by_content(_kind: str, line: bytes) -> str:
    """Let a command say itself what is to become of it."""
    return "4xx" if b"later" in line else "5xx" if b"never" in line else "ok"


@dataclass
class Server:
    """One session of a server.

    ``plan`` is asked what becomes of a command, by its kind and its line: ok, 4xx, 5xx, 421, close, garbage or surplus.
    """

    name: bytes = b"mail.example"
    serial: int = 1
    keywords: tuple[str, ...] = ()
    plan: Callable[[str, bytes], str] = ok
    guards_domains: bool = False
    """Whether a recipient at FOREIGN may only come behind a 235 of this session (S14)."""

    commands: list[bytes] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    outbox: list[Reply] = field(default_factory=list)
    hung_up: bool = False
    """Whether it is gone once the outbox is empty."""
    told: frozenset[str] = frozenset()
    """The words of the last EHLO reply."""

    _buffer: bytes = b""
    _mode: str = "greeting"
    _left: int = 0
    _last: bool = False
    _refused: bool = False
    _text: bytes = b""
    _hello: bool = False
    _sender: bytes | None = None
    _recipients: list[bytes] = field(default_factory=list)
    _authenticated: bool = False
    _challenges: int = 0

    @property
    def pipelining(self) -> bool:
        return "PIPELINING" in self.keywords

    @property
    def offer(self) -> tuple[str, ...]:
        """What the EHLO reply lists."""
        return self.keywords

    @property
    def chunking(self) -> bool:
        return "CHUNKING" in self.keywords

    def greet(self) -> None:
        """Speak first."""
        assert self._mode == "greeting"
        self._mode = "commands"
        self._reply("greeting", b"220 " + self.name + b" ESMTP\r\n")

    def receive(self, data: bytes) -> None:
        """Take what the relay sends."""
        assert self._mode != "greeting", f"S8: before the greeting: {data!r}"
        if self.hung_up:
            return
        self._buffer += data
        while self._buffer and not self.hung_up and self._step():
            pass

    def _step(self) -> bool:
        if self._mode == "data":
            return self._take_data()
        if self._mode == "chunk":
            return self._take_chunk()
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found:
            return False
        self._buffer = rest
        if self._mode == "auth":
            self._take_auth_response()
        else:
            self._take_command(line)
        return True

    def _take_command(self, line: bytes) -> None:
        assert MARK not in line, f"text of a message became a command: {line!r}"
        assert not set(line) & set(range(32)) - {9}, f"H1: control characters: {line!r}"
        assert not self.outbox or (self.pipelining and not self.outbox[-1].ends_group), f"S8: too early: {line!r}"
        self.commands.append(line)
        verb, _, argument = line.partition(b" ")
        getattr(self, f"_do_{verb.decode().lower()}")(line, argument)

    def _reply(self, kind: str, good: bytes) -> bool:
        """Give the reply that the plan has for it; True if that is ``good``, and a good one."""
        outcome = "ok" if good[:1] in b"45" else self.plan(kind, self.commands[-1] if self.commands else b"")
        ends = kind.encode() in ENDS_GROUP
        number = len(self.commands)
        raw = {
            "ok": good,
            "4xx": b"450 refused %s\r\n" % kind.encode(),
            "5xx": b"550 refused %s\r\n" % kind.encode(),
            "421": b"421 closing %d\r\n" % number,
            "close": b"",
            "garbage": b"what was that?\r\n",
            "surplus": self._surplus(kind, number),
        }[outcome]
        if raw:
            self.outbox.append(Reply(raw, ends))
        self.hung_up = self.hung_up or outcome in ("421", "close", "garbage", "surplus")
        return raw is good and good[:1] not in b"45"

    def _surplus(self, _kind: str, number: int) -> bytes:
        """Give more than one reply."""
        return b"450 one %d\r\n450 two %d\r\n" % (number, number)

    # --- commands ----------------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._sender = None
        self._recipients = []
        self._text = b""
        self._refused = False

    def _do_ehlo(self, _line: bytes, argument: bytes) -> None:
        if not argument:
            self._reply("EHLO", b"501 a name, please\r\n")
            return
        offer = self.offer
        lines = [self.name, *(keyword.encode() for keyword in offer)]
        raw = b"".join(b"250-" + line + b"\r\n" for line in lines[:-1]) + b"250 " + lines[-1] + b"\r\n"
        if self._reply("EHLO", raw):
            self._reset()
            self._hello = True
            self.told = frozenset(word for keyword in offer for word in keyword.split())

    def _do_helo(self, _line: bytes, _argument: bytes) -> None:
        if self._reply("HELO", b"250 " + self.name + b"\r\n"):
            self._reset()
            self._hello = True

    def _do_noop(self, line: bytes, _argument: bytes) -> None:
        self._reply(line[:4].upper().decode(), b"250 noop\r\n")

    _do_vrfy = _do_expn = _do_help = _do_etrn = _do_noop

    def _do_rset(self, _line: bytes, _argument: bytes) -> None:
        if self._reply("RSET", b"250 reset\r\n"):
            self._reset()

    def _do_quit(self, _line: bytes, _argument: bytes) -> None:
        self._reply("QUIT", b"221 bye\r\n")
        self.hung_up = True

    def _do_mail(self, line: bytes, _argument: bytes) -> None:
        if not self._hello:
            self._reply("MAIL", b"503 EHLO first\r\n")
        elif self._sender is not None:
            self._reply("MAIL", b"503 nested MAIL\r\n")
        elif self._reply("MAIL", b"250 sender\r\n"):
            self._sender = line

    def _do_rcpt(self, line: bytes, _argument: bytes) -> None:
        if self.guards_domains and FOREIGN in line:
            assert self._may_relay(), f"S14: {line!r}"
        if self._sender is None:
            self._reply("RCPT", b"503 MAIL first\r\n")
        elif self._reply("RCPT", b"250 recipient\r\n"):
            self._recipients.append(line)

    def _may_relay(self) -> bool:
        return self._authenticated

    def _do_data(self, _line: bytes, _argument: bytes) -> None:
        if not self._recipients or self._text:
            self._reply("DATA", b"503 RCPT first\r\n")
        elif self._reply("DATA", b"354 go ahead\r\n"):
            self._mode = "data"

    def _do_bdat(self, _line: bytes, argument: bytes) -> None:
        assert self.chunking, "S9: BDAT was not offered"
        size, _, last = argument.partition(b" ")
        self._left, self._last = int(size), last == b"LAST"
        self._mode = "chunk"
        if not self._left:
            self._end_chunk()

    def _do_auth(self, _line: bytes, argument: bytes) -> None:
        mechanism, _, response = argument.partition(b" ")
        self._challenges = 0 if response else 2 if mechanism == b"LOGIN" else 1
        self._take_auth_response(first=True)

    def _take_auth_response(self, *, first: bool = False) -> None:
        if not first:
            self._challenges -= 1
        if self._challenges:
            if self._reply("AUTH", b"334 abcd\r\n"):
                self._mode = "auth"
                return
        elif self._reply("AUTH", b"235 welcome\r\n"):
            self._authenticated = True
        self._mode = "commands"

    # --- messages ----------------------------------------------------------------------------------------------------

    def _take_data(self) -> bool:
        end = (b"\r\n" + self._buffer).find(b"\r\n.\r\n")
        if end < 0:
            return False
        text, self._buffer = self._buffer[:end], self._buffer[end + 3 :]
        self._mode = "commands"
        self._accept((b"\r\n" + text).replace(b"\r\n..", b"\r\n.")[2:])
        return True

    def _take_chunk(self) -> bool:
        piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(piece)
        self._text += piece
        if not self._left:
            self._end_chunk()
        return True

    def _end_chunk(self) -> None:
        self._mode = "commands"
        if not self._recipients or self._refused:
            self._refused = True
            self._reply("BDAT", b"503 RCPT first\r\n")
        elif self._last:
            self._accept(self._text)
        elif not self._reply("BDAT", b"250 chunk\r\n"):
            self._refused = True

    def _accept(self, text: bytes) -> None:
        reply = b"250 queued as %d-%d\r\n" % (self.serial, len(self.commands))
        message = Message(self._sender or b"", self._recipients, text, reply)
        self._reset()
        if self._reply("end of data", reply):
            self.messages.append(message)
