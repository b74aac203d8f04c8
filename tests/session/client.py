"""A client that knows what it is owed, and what it was told (rules S3, S10)."""

from __future__ import annotations

from dataclasses import dataclass, field

# What a good reply to a command says, whoever gives it: a server of server.py, or the relay itself.
WORDS: dict[str, tuple[bytes, ...]] = {
    "greeting": (b"ESMTP",),
    "MAIL": (b"sender",),
    "RCPT": (b"recipient",),
    "RSET": (b"reset", b"2.0.0 Ok"),
    "NOOP": (b"noop", b"2.0.0 Ok"),
    "VRFY": (b"noop",),
    "HELP": (b"noop",),
    "BDAT": (b"chunk", b"octets received"),
    "BDAT LAST": (b"queued",),
    "message": (b"queued",),
    "AUTH": (b"welcome",),
    "QUIT": (b"Closing",),
    "STARTTLS": (b"Ready to start TLS",),
    "XCLIENT": (b"ESMTP",),
}
# What a refusal can be about: the command, what we say for it, or what came before it in a session opened late (S18).
ABOUT: dict[str, tuple[bytes, ...]] = {
    "BDAT": (b"BDAT", b"DATA", b"end of data"),
    "BDAT LAST": (b"BDAT", b"DATA", b"end of data"),
    "message": (b"end of data",),
}
EARLIER = (b"greeting", b"EHLO", b"HELO", b"XCLIENT")


@dataclass
class Client:
    """Keeps the account of one session: one reply for each command, in order, and which messages were taken."""

    owed: list[tuple[str, bytes]] = field(default_factory=lambda: [("greeting", b"")])
    """What kind of reply comes next, and the text of the message that it decides about."""
    taken: list[tuple[bytes, bytes]] = field(default_factory=list)
    """The messages that were said to be taken: text, and the line that said so."""
    codes: list[tuple[str, bytes]] = field(default_factory=list)
    awaits: str = ""
    """What the next octets depend on: the reply to DATA, AUTH or STARTTLS; then, whether it may go on with it."""
    text: bytes = b""
    """The message that DATA was said for."""
    chunks: bytes = b""
    """What was accepted of a message in chunks."""
    broken: bool = False
    """Whether a chunk was refused, so that this message must never be taken."""
    violated: bool = False
    """Whether it has sent more than it should: the session ends."""
    last: bytes = b""
    _buffer: bytes = b""
    _lines: bytes = b""

    def says(self, kind: str, text: bytes = b"") -> None:
        """Note that a command was sent (or a message, or a response)."""
        self.owed.append((kind, text))
        if kind in ("DATA", "AUTH", "STARTTLS"):
            self.awaits = kind
            self.text = text

    def hears(self, data: bytes) -> None:
        """Take octets of the proxy."""
        assert not (data and self.awaits == "may shake hands"), f"S5: in clear behind the 220: {data!r}"
        assert b"forged" not in data, f"C11: {data!r}"
        self._buffer += data
        while b"\r\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            assert line[:3].isdigit(), line
            assert line[3:4] in (b" ", b"-", b""), line
            assert not set(line) & set(range(32)) - {9}, f"H8: {line!r}"
            if line[3:4] != b"-":
                self._reply(line)
        assert len(self._buffer) == 0, "replies leave whole"

    def _reply(self, line: bytes) -> None:
        code = self.last = line[:3]
        if not self.owed:
            assert code == b"421", f"S3: nobody asked for {line!r}"
            return
        kind, text = self.owed.pop(0)
        self.codes.append((kind, code))
        if code[:1] == b"2" and kind in WORDS:
            assert any(word in line for word in WORDS[kind]), f"S3: {line!r} to {kind}"
        if b"refused" in line:
            about = line.partition(b"refused ")[2]
            assert about in (*ABOUT.get(kind, (kind.encode(),)), *EARLIER), f"S3: {line!r} to {kind}"
        if code[:1] == b"2":
            self._accepted(kind, text, line)
        elif kind in ("BDAT", "BDAT LAST"):
            # A refused LAST ends the message as well; nothing of it may turn up in another one.
            self.chunks, self.broken = b"", kind == "BDAT"
        self._goes_on(kind, code, line)

    def _goes_on(self, kind: str, code: bytes, line: bytes) -> None:
        """See what the client may send next, and whether such a reply can be."""
        if kind == "DATA":
            assert code[:1] != b"2", line
            self.awaits = "may send data" if code == b"354" else ""
        elif kind == "AUTH":
            self.awaits = "may respond" if code == b"334" else ""
        elif kind == "STARTTLS":
            self.awaits = "may shake hands" if code == b"220" else ""
        else:
            assert code[:1] != b"3", f"S17: {line!r} to {kind}"
        if kind == "bad":
            assert code[:1] in b"45", f"S16: {line!r}"
        if kind == "QUIT":
            assert code in (b"221", b"421"), line

    def _accepted(self, kind: str, text: bytes, line: bytes) -> None:
        if kind == "BDAT":
            self.chunks += text
        elif kind == "BDAT LAST":
            assert not self.broken, "S9: a message with a hole in it was taken"
            self.taken.append((self.chunks + text, line))
        elif kind == "message":
            self.taken.append((text, line))
        if kind in ("EHLO", "HELO", "RSET", "MAIL", "BDAT LAST", "STARTTLS", "XCLIENT"):
            self.chunks, self.broken = b"", False

    def check_the_end(self) -> None:
        """The connection is closed: every reply was given, or the last one has said why not."""
        if self.awaits == "may shake hands":
            return  # nothing can be said before the handshake is done
        if self.owed and not (self.codes and self.codes[-1] == ("QUIT", b"221")):
            assert self.last[:1] in b"45", f"S3: owed {self.owed}, last {self.last!r}"
            assert self.last, "S3: closed without a word"
