"""Model remotes: honest SMTP servers that are hit by one fault each, and that know what a client must never do.

What a server has accepted stands in ``accepted``: messages whose end of data it has answered 2xx, whether or not
anybody has read that.  Whatever the test is about, it fails where the proxy

- says anything that its pace does not allow: before the greeting, behind EHLO, or behind a command that ends a group,
  without an assumption, or two commands at once in lock-step (C2, C6, RFC 2920);
- says MAIL in clear where TLS is wanted (C2), or AUTH in clear (C15);
- sends mail data after every recipient was refused and it has read so (C14).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

ENDS_GROUP = frozenset({b"HELO", b"STARTTLS", b"AUTH", b"DATA"})
NONSENSE = frozenset({"garbage", "surplus", "3xx", "half"})
REFUSALS = {
    "4xx": b"450 4.7.1 No, says the fault\r\n",
    "5xx": b"550 5.7.1 No, says the fault\r\n",
    "421": b"421 4.3.2 Going down\r\n",
    "3xx": b"334 Hmm\r\n",
}
EARLY_KINDS = ("early 554", "early 421", "early close")
"""Faults of a remote that does not take early talk."""
CLOSING = frozenset({"lost", "cut", "half", "garbage", "421", "unhanded"})
"""Faults behind which the connection is lost."""
SAYS_YES = frozenset({"none", "surplus", "cut", "half"})
"""Faults of a remote that takes what it is given, whatever becomes of the reply."""
BDAT = re.compile(rb"BDAT (\d+)( LAST)?\Z", re.IGNORECASE)


class Fault(NamedTuple):
    """What goes wrong, and at which reply: 0 is the greeting."""

    kind: str
    at: int


NO_FAULT = Fault("none", -1)


class Message(NamedTuple):
    """A message that was accepted."""

    sender: bytes
    recipients: tuple[bytes, ...]
    text: bytes


@dataclass
class Server:
    """One session of a model remote."""

    keywords: tuple[str, ...]
    inside: tuple[str, ...] = ()
    """What it offers inside TLS."""
    fault: Fault = NO_FAULT
    implicit: bool = False
    wants_tls: bool = False
    """Whether the proxy must have TLS with it."""
    may_be_early: bool = False
    """Whether the proxy may talk early to it, as far as it knows."""
    lockstep: bool = False
    knows_ehlo: bool = True
    goes_ahead: bool = False
    """Whether DATA is answered 354 although every recipient was refused (RFC 2920, 3.1)."""

    accepted: list[Message] = field(default_factory=list)
    told: list[Message] = field(default_factory=list)
    """Messages whose 2xx the proxy has been given."""
    replies: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Verb and reply: what the proxy has not been given yet."""
    refusals: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Verb and reply of every refusal that the proxy has been given."""
    count: int = 0
    """Replies that were made."""
    verbs: list[bytes] = field(default_factory=list)
    """What was answered, reply by reply."""
    secure: bool = False
    early: set[bool] = field(default_factory=set)
    """The states of TLS in which something was said before it was allowed without an assumption."""
    greeted: bool = False
    closed: bool = False
    silent: bool = False
    """Whether it says nothing any more."""
    stops: bool = False
    """Whether nothing more of the proxy reaches it."""
    lost: bool = False
    """Whether the connection is lost once what was said is read."""
    asked_for: set[bytes] = field(default_factory=set)
    """Senders of messages for which MAIL has arrived."""
    has_data: set[bytes] = field(default_factory=set)
    """Senders of messages of which an octet has arrived, or of the command that carries them."""

    def __post_init__(self) -> None:
        self.secure = self.implicit
        self._buffer = b""
        self._mode = "commands"
        self._left = 0
        self._last = False
        self._skips = False
        self._text = b""
        self._known = False
        """Whether the proxy has said who it is."""
        self._may_answer_hello = True
        self._mail = False
        self._sender = b""
        self._recipients: list[bytes] = []
        self._asked = self._refused = 0
        self._unread: list[bytes] = []
        self.received = 0
        """Octets that have arrived in this state of TLS."""
        self.given_count = 0
        self._ahead = 0
        """Replies too many that will be taken for the next ones."""

    # --- what arrives ------------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Say who we are; whoever has spoken by now is early."""
        self.greeted = True
        if self._buffer and self.fault.kind in EARLY_KINDS:
            self._drop_early_talker(self.fault.kind)
            return
        self._reply(b"greeting", b"220 server.example\r\n")
        self._run()

    def _drop_early_talker(self, kind: str) -> None:
        if kind == "early 554":
            self.replies.append((b"greeting", b"554 5.5.1 You talk too early\r\n"))
        elif kind == "early 421":
            self.replies.append((b"greeting", b"421 4.7.0 You talk too early\r\n"))
        self.lost = True

    def receive(self, data: bytes) -> None:
        """Take what the proxy has written."""
        if not self.greeted:
            self.early.add(self.secure)
            assert self.may_be_early, f"C2, C6: {data!r} before the greeting"
        elif self._may_answer_hello and data.find(b"\r\n") < len(data) - 2:
            self.early.add(self.secure)
        self._buffer += data
        self.received += len(data)
        if self.greeted:
            self._run()

    def inside_tls(self) -> None:
        """Begin anew, inside TLS."""
        self.secure = True
        self._buffer = b""
        self.received = 0
        self._known = False
        self._may_answer_hello = True
        self._unread.clear()
        self._forget()

    def given(self, verb: bytes, reply: bytes) -> None:
        """Learn that the proxy has been given a reply."""
        self.given_count += 1
        if verb in self._unread:
            self._unread.remove(verb)
        elif self._unread:
            # A reply too many is taken for the one to the next command.
            self._unread.pop(0)
        else:
            self._ahead += 1
        if reply[:1] in b"45":
            self.refusals.append((verb, reply))
            self._refused += verb == b"RCPT"
        elif verb == b"end of data" and reply[:1] == b"2" and self._makes_sense():
            self.told.append(self.accepted[len(self.told)])

    def _makes_sense(self) -> bool:
        """Whether the proxy can make sense of what it has been given last."""
        return self.fault.kind not in NONSENSE or self.given_count <= self.fault.at

    # --- reading -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._buffer and not (self.closed or self.lost or self.silent):
            if self._mode == "commands":
                line, found, rest = self._buffer.partition(b"\r\n")
                if not found:
                    return
                self._buffer = rest
                self._command(line)
            elif self._mode == "chunk":
                self._chunk()
            elif not self._mail_data():
                return

    def _command(self, line: bytes) -> None:
        verb = line.split(b" ")[0].upper()
        known = _COMMANDS.get(verb)
        if known is not None:
            self._check_pace(verb)
        if known is None or (verb == b"BDAT" and "CHUNKING" not in self._offer):
            self._reply(verb, b"500 5.5.1 What?\r\n")
        else:
            known(self, verb, line)

    @property
    def _offer(self) -> tuple[str, ...]:
        return self.inside if self.secure else self.keywords

    def _check_pace(self, verb: bytes) -> None:
        unread = self._unread
        if unread:
            assert not self.lockstep, f"{verb!r} behind {unread} in lock-step"
            assert unread[-1] not in ENDS_GROUP, f"RFC 2920: {verb!r} behind {unread}"
            if b"EHLO" in unread or b"greeting" in unread:
                self.early.add(self.secure)
                assert self.may_be_early, f"C2, C6: {verb!r} behind {unread}"
            else:
                assert "PIPELINING" in self._offer or self.early, f"RFC 2920: {verb!r} behind {unread}"
        if verb == b"MAIL":
            assert self.secure or not self.wants_tls, "C2: MAIL in clear"
        if verb == b"AUTH":
            assert self.secure, "C15: credentials in clear"

    def _hello(self, verb: bytes, _line: bytes) -> None:
        if verb == b"EHLO" and not self.knows_ehlo:
            self._reply(verb, b"500 5.5.1 EHLO?\r\n")
        elif verb == b"HELO":
            self._known = self._reply(verb, b"250 server.example\r\n")
        else:
            lines = ["server.example", *self._offer]
            text = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
            self._known = self._reply(verb, text.encode())
        self._may_answer_hello = False

    def _starttls(self, verb: bytes, _line: bytes) -> None:
        if self._buffer:
            raise AssertionError(f"C11: {self._buffer!r} behind STARTTLS")
        if "STARTTLS" in self._offer:
            self._reply(verb, b"220 2.0.0 Go\r\n")
        else:
            self._reply(verb, b"502 5.5.1 No TLS\r\n")

    def _auth(self, verb: bytes, _line: bytes) -> None:
        self._reply(verb, b"235 2.7.0 Welcome\r\n")

    def _mail_from(self, verb: bytes, line: bytes) -> None:
        self._forget()
        self._sender = line[len("MAIL FROM:<") :].partition(b"@")[0]
        self.asked_for.add(self._sender)
        if self._known:
            self._mail = self._reply(verb, b"250 2.1.0 Sender\r\n")
        else:
            self._reply(verb, b"503 5.5.1 EHLO first\r\n")

    def _rcpt(self, verb: bytes, line: bytes) -> None:
        self._asked += 1
        if not self._mail:
            self._reply(verb, b"503 5.5.1 MAIL first\r\n")
        elif self._reply(verb, b"250 2.1.5 Recipient\r\n"):
            self._recipients.append(line)

    def _no_more_recipients(self) -> bool:
        """Whether every recipient was refused, and the proxy has read so."""
        return self._asked > 0 and self._refused >= self._asked

    def _data(self, verb: bytes, _line: bytes) -> None:
        if not self._recipients and not (self.goes_ahead and self._asked):
            self._reply(verb, b"554 5.5.1 No valid recipients\r\n")
        elif self._reply(verb, b"354 Go\r\n"):
            self._mode = "data"

    def _mail_data(self) -> bool:
        self.has_data.add(self._sender)
        assert not self._no_more_recipients() or self._buffer in (b".", b".\r", b".\r\n"), "C14: mail data for nobody"
        end = 0 if self._buffer.startswith(b".\r\n") else self._buffer.find(b"\r\n.\r\n") + 2
        if end == 1:
            return False
        text, self._buffer = self._buffer[:end], self._buffer[end + 3 :]
        self._text = re.sub(rb"(?m)^\.", b"", text)
        self._mode = "commands"
        self._end()
        return True

    def _bdat(self, _verb: bytes, line: bytes) -> None:
        match = BDAT.match(line)
        assert match is not None, line
        self.has_data.add(self._sender)
        assert not self._no_more_recipients(), "C14: a chunk for nobody"
        self._left, self._last = int(match[1]), bool(match[2])
        self._mode = "chunk"
        if not self._left:
            self._chunk()

    def _chunk(self) -> None:
        taken, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(taken)
        self._text += taken
        if self._left:
            return
        self._mode = "commands"
        if self._last:
            self._end()
        elif not self._recipients:
            self._reply(b"BDAT", b"503 5.5.1 No valid recipients\r\n")
        else:
            self._reply(b"BDAT", b"250 2.0.0 Chunk\r\n")

    def _end(self) -> None:
        if not self._recipients:
            self._reply(b"end of data", b"554 5.5.1 No valid recipients\r\n")
            return
        message = Message(self._sender, tuple(self._recipients), self._text)
        if self._reply(b"end of data", b"250 2.0.0 Taken\r\n"):
            self.accepted.append(message)
        self._forget()

    def _forget(self) -> None:
        self._mode = "commands"
        self._text = b""
        self._mail = False
        self._recipients = []
        self._asked = self._refused = 0

    def _rset(self, verb: bytes, _line: bytes) -> None:
        self._forget()
        self._reply(verb, b"250 2.0.0 Ok\r\n")

    def _quit(self, _verb: bytes, _line: bytes) -> None:
        self.closed = True

    # --- answering ---------------------------------------------------------------------------------------------------

    def _reply(self, verb: bytes, reply: bytes) -> bool:
        """Answer, unless the fault is due; say whether it was (or will be taken for) a yes."""
        number, self.count = self.count, self.count + 1
        self.verbs.append(verb)
        if self._ahead:
            self._ahead -= 1
        else:
            self._unread.append(verb)
        if number != self.fault.at:
            self.replies.append((verb, reply))
            return reply[:1] in b"23"
        return self._fault(verb, reply)

    def _fault(self, verb: bytes, reply: bytes) -> bool:
        kind = self.fault.kind
        if kind in EARLY_KINDS or (kind == "3xx" and verb == b"DATA"):
            kind = "none"
        if kind in REFUSALS:
            self.replies.append((verb, REFUSALS[kind]))
        elif kind == "garbage":
            self.replies.append((verb, b"garbage\r\n"))
        elif kind == "half":
            self.replies.append((verb, reply[:-3]))
        elif kind in ("none", "surplus"):
            self.replies.append((verb, reply))
        if kind == "surplus":
            self.replies.append((b"surplus", b"250 2.0.0 And another thing\r\n"))
        self.silent = self.silent or kind == "stall"
        self.lost = kind in CLOSING or (kind in REFUSALS and verb == b"greeting")
        return kind in SAYS_YES and reply[:1] in b"23"


_COMMANDS = {
    b"EHLO": Server._hello,
    b"HELO": Server._hello,
    b"STARTTLS": Server._starttls,
    b"AUTH": Server._auth,
    b"MAIL": Server._mail_from,
    b"RCPT": Server._rcpt,
    b"DATA": Server._data,
    b"BDAT": Server._bdat,
    b"RSET": Server._rset,
    b"QUIT": Server._quit,
}
