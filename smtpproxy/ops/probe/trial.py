"""Early pipelining tried in earnest: EHLO MAIL RCPT RSET in one flight before the greeting, never DATA.

The same commands are sent politely first, so that replies and times can be compared.  Where STARTTLS is offered the
envelope goes inside TLS only: in clear there are then EHLO and STARTTLS.  QUIT follows the replies: in the same flight
it would make Exim 4.96 wait 200 ms for the client to close before it sends any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from smtpproxy.ops.probe.facts import Answer, Hello, Server, Trial
from smtpproxy.ops.probe.line import Line, LineError
from smtpproxy.ops.probe.visit import Place, Tools, reach, text_of
from smtpproxy.smtp.offer import Offer
from smtpproxy.smtp.replies import Reply

__all__ = ["Envelope", "tried"]

_GREETING: Final = "greeting"
_INSIDE: Final = " inside"
_EHLO: Final = "EHLO"
_RSET: Final = "RSET"
_QUIT: Final = "QUIT"
_MAY_REFUSE: Final = frozenset({"MAIL", "RCPT"})
"""Commands that a server may refuse: then it must do so both times."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who a message would be from and for; none is sent.  ``sender`` may be empty (the null reverse path)."""

    sender: str
    recipient: str

    def commands(self) -> list[tuple[str, bytes]]:
        """Give the commands behind EHLO, each with its name."""
        return [
            ("MAIL", f"MAIL FROM:<{self.sender}>\r\n".encode("ascii")),
            ("RCPT", f"RCPT TO:<{self.recipient}>\r\n".encode("ascii")),
            (_RSET, b"RSET\r\n"),
        ]


async def tried(tools: Tools, place: Place, server: Server, envelope: Envelope) -> Trial:
    """Send it to a server that was visited without trouble; never raises for what the server does."""
    clear, inside = server.clear, server.inside
    if clear is None or not server.usable:
        return _nothing("early pipelining is not offered")
    polite = _Session(tools, place, envelope, early_clear=False, early_inside=False, clear=clear, inside=inside)
    await polite.run()
    early = _Session(
        tools,
        place,
        envelope,
        early_clear=clear.usable,
        early_inside=inside is not None and inside.usable,
        clear=clear,
        inside=inside,
    )
    await early.run()
    return Trial(
        early.early_clear,
        early.early_inside,
        tuple(early.answers),
        early.seconds,
        tuple(polite.answers),
        polite.seconds,
        (*(f"polite: {each}" for each in polite.problems), *early.problems, *_differences(polite, early)),
    )


def _nothing(why: str) -> Trial:
    return Trial(
        early_clear=False,
        early_inside=False,
        answers=(),
        seconds=None,
        polite=(),
        polite_seconds=None,
        problems=(),
        skipped=why,
    )


def _differences(polite: _Session, early: _Session) -> list[str]:
    """Give what a server refuses only if it is spoken to early, or only if it is not."""
    before = {answer.command: answer for answer in polite.answers}
    return [
        f"{answer.command} got {answer.code} early, and {before[answer.command].code} politely"
        for answer in early.answers
        if answer.command in _MAY_REFUSE & before.keys() and answer.code // 100 != before[answer.command].code // 100
    ]


class _Session:
    """One session: each of its phases early or polite."""

    def __init__(
        self,
        tools: Tools,
        place: Place,
        envelope: Envelope,
        *,
        early_clear: bool,
        early_inside: bool,
        clear: Hello,
        inside: Hello | None,
    ) -> None:
        """``clear`` and ``inside``: what is known of the server."""
        self._tools = tools
        self._place = place
        self._envelope = envelope.commands()
        self.early_clear = early_clear
        self.early_inside = early_inside
        self._clear = clear
        self._inside = inside
        self.answers: list[Answer] = []
        self.problems: list[str] = []
        self.seconds: float | None = None
        """From the beginning to the reply to RSET."""

    async def run(self) -> None:
        """Do it; never raises for what the server does."""
        clock = self._tools.reactor
        began = clock.seconds()
        try:
            line = await reach(self._tools, self._place)
        except LineError as problem:
            self.problems.append(str(problem.args[0]))
            return
        try:
            await self._talk(line)
            self.seconds = clock.seconds() - began
            line.send(b"QUIT\r\n")
            self._expect(_QUIT, await line.reply())
            if more := await line.the_end():
                self.problems.append(more)
        except LineError as problem:
            self.problems.append(f"{problem} (replies so far: {len(self.answers)})")
        finally:
            line.close()

    async def _talk(self, line: Line) -> None:
        view = self._tools.tls
        if self._inside is None or view is None:
            await self._phase(line, self._clear, self._envelope, early=self.early_clear, greeted=False)
            return
        starttls = [("STARTTLS", b"STARTTLS\r\n")]
        await self._phase(line, self._clear, starttls, early=self.early_clear, greeted=False)
        place = self._place
        await line.secure(view.connection(place.host, place.address, place.port, place.tlsa))
        await self._phase(line, self._inside, self._envelope, early=self.early_inside, greeted=True)

    async def _phase(
        self, line: Line, known: Hello, commands: list[tuple[str, bytes]], *, early: bool, greeted: bool
    ) -> None:
        """Say EHLO and what follows it; ``greeted``: whether the greeting was read in an earlier phase."""
        ehlo = b"EHLO " + self._tools.ehlo.encode("ascii") + b"\r\n"
        if early:
            line.send(ehlo, *(octets for _, octets in commands))
        if not greeted:
            self._expect(_GREETING, await line.reply())
        if not early:
            line.send(ehlo)
        self._compare(known, await line.reply(), _EHLO + _INSIDE if greeted else _EHLO)
        if early or known.pipelining:
            if not early:
                line.send(*(octets for _, octets in commands))
            for name, _ in commands:
                self._expect(name, await line.reply())
            return
        for name, octets in commands:
            line.send(octets)
            self._expect(name, await line.reply())

    def _compare(self, known: Hello, reply: Reply, name: str) -> None:
        """See whether EHLO is answered as it was before (rule C3)."""
        self._expect(name, reply)
        if reply.code // 100 == 2 and Hello.of(Offer.parse(reply.raw)).lines != known.lines:
            self.problems.append(f"the reply to {name} is another one than before")

    def _expect(self, name: str, reply: Reply) -> None:
        """Note a reply.  Raises LineError where there is no going on."""
        first = text_of(reply.raw.partition(b"\r\n")[0])
        self.answers.append(Answer(name, reply.code, first if name.startswith(_EHLO) else text_of(reply.raw)))
        good = reply.code // 100 == 2
        if good or (name in _MAY_REFUSE and reply.code >= 400 and reply.code != 421):
            return
        said = f"{name} got {text_of(reply.raw)}"
        if name in {_RSET, _QUIT}:
            self.problems.append(said)
        else:
            raise LineError(said)
