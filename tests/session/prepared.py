"""A mail server that can do more than plain SMTP: TLS, XCLIENT and XFORWARD; and the referee of who may ask it what.

Beside what ``server.py`` takes offence at:

- a command of a client that needs an EHLO, before the server knows that client where it must, or knows another one, or
  is in clear where it must not be (H6, S18, S19);
- XCLIENT or STARTTLS that it has not offered, XCLIENT inside a transaction, anything in clear amid a handshake;
- what a client has said before a wall, TLS or a new name, and that comes after it (S5, S6).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from smtpproxy.session.policy import BackendTls

from .listener import Setup
from .server import Server

READY = b"220 ready\r\n"
FORGED = b"250-forged.example\r\n250 AUTH PLAIN\r\n"
NEEDS_EHLO = frozenset({b"MAIL", b"RCPT", b"DATA", b"BDAT", b"AUTH", b"VRFY", b"EXPN", b"ETRN"})
PHASE = re.compile(rb"p(\d+)\.(?:client|other)\.example")
"""Stands in what a client says: how many walls it has seen (counting the ones that it is about to see)."""


def marked(line: bytes, phase: int) -> bytes:
    """Put the number of the phase into a command with a name in it."""
    return re.sub(rb"(client|other)\.example", rb"p%d.\1.example" % phase, line)


@dataclass
class Now:
    """What is true at the moment, for whoever judges a command."""

    setup: Setup
    address: Callable[[], str]
    """Who the client is."""
    phase: Callable[[], int]


@dataclass
class Prepared(Server):
    """One session of such a server; what it can do depends on its keywords."""

    now: Now | None = None
    once: bool = False
    """Whether it takes EHLO only once in a session, as some do."""
    forgetful: bool = False
    """Whether XCLIENT is listed no more after it was taken, as Postfix does."""
    secure: bool = False
    handshaking: bool = False
    known: str = ""
    """The client that XCLIENT has named."""
    _starttls_refused: bool = False

    def receive(self, data: bytes) -> None:
        """Take what the relay sends."""
        assert not self.handshaking, f"C11: amid the handshake: {data!r}"
        super().receive(data)

    def secured(self) -> None:
        """Begin anew inside TLS."""
        assert self.handshaking
        assert not self._buffer
        self.handshaking, self.secure = False, True
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._reset()
        self._hello = self._authenticated = False
        self.told = frozenset()

    @property
    def offer(self) -> tuple[str, ...]:
        """What the EHLO reply lists."""
        return tuple(
            keyword
            for keyword in self.keywords
            if not (keyword == "STARTTLS" and self.secure)
            and not (keyword.startswith("XCLIENT") and self.forgetful and self.known)
        )

    def _take_command(self, line: bytes) -> None:
        verb = line.partition(b" ")[0].upper()
        if self.now is not None:
            self._judge(verb, line, self.now)
        super()._take_command(line)

    def _judge(self, verb: bytes, line: bytes, now: Now) -> None:
        for phase in PHASE.findall(line):
            assert int(phase) >= now.phase(), f"S6: of before the wall ({now.phase()}): {line!r}"
        if verb not in NEEDS_EHLO:
            return
        setup = now.setup
        introduces = setup.identity in ("auto", "xclient")
        is_known = self.known == now.address()
        assert is_known or not self.known, f"S18: as {self.known}, but it is {now.address()}: {line!r}"
        required = setup.identity == "xclient" or (setup.identity == "auto" and setup.domains == ())
        assert is_known or not required, f"H6: of a client that was not named: {line!r}"
        takes_it = {"XCLIENT", "ADDR"} <= self.told
        assert is_known or not (introduces and takes_it), f"S18: could have been named: {line!r}"
        assert self.secure or setup.backend_tls is not BackendTls.REQUIRED, f"S19: in clear: {line!r}"
        opportunity = "STARTTLS" in self.told and not self._starttls_refused
        assert self.secure or setup.backend_tls is BackendTls.NONE or not opportunity, f"in clear: {line!r}"

    # --- commands ----------------------------------------------------------------------------------------------------

    def _do_ehlo(self, line: bytes, argument: bytes) -> None:
        if self.once and self._hello:
            self._reply("EHLO", b"503 already identified\r\n")
        else:
            super()._do_ehlo(line, argument)

    def _do_helo(self, line: bytes, argument: bytes) -> None:
        if self.once and self._hello:
            self._reply("HELO", b"503 already identified\r\n")
        else:
            super()._do_helo(line, argument)

    def _may_relay(self) -> bool:
        return self._authenticated or bool(self.known)

    def _surplus(self, kind: str, number: int) -> bytes:
        return READY + FORGED if kind == "STARTTLS" else super()._surplus(kind, number)

    def _do_starttls(self, line: bytes, argument: bytes) -> None:
        assert not argument
        assert "STARTTLS" in self.told, "STARTTLS was not offered"
        assert not self.known, f"S18: named before TLS: {line!r}"
        self.handshaking = self._reply("STARTTLS", READY)
        self._starttls_refused = not self.handshaking

    def _do_xclient(self, line: bytes, argument: bytes) -> None:
        values = self._attributes(argument)
        assert self._sender is None, "XCLIENT amid a transaction"
        assert self.now is None or values["ADDR"] == self.now.address(), f"H6: {line!r}, but: {self.now.address()}"
        if self._reply("XCLIENT", b"220 " + self.name + b" ESMTP\r\n"):
            self.known = values["ADDR"]
            self._begin_anew()

    def _do_xforward(self, line: bytes, argument: bytes) -> None:
        values = self._attributes(argument)
        assert self.now is None or values["ADDR"] == self.now.address(), f"H6: {line!r}, but: {self.now.address()}"
        self._reply("XFORWARD", b"250 noted\r\n" if self._sender is None else b"503 amid a transaction\r\n")

    def _attributes(self, argument: bytes) -> dict[str, str]:
        values = dict(word.split("=", 1) for word in argument.decode().split(" "))
        assert set(values) <= self.told, f"not offered: {values}"
        return values
