"""The demo from beginning to end: start everything, send, draw, check, stay up, clean up."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from smtpproxy.ops.demo.by_hand import Places, by_hand
from smtpproxy.ops.demo.captions import behind, headline, offers
from smtpproxy.ops.demo.check import mistakes
from smtpproxy.ops.demo.client import send
from smtpproxy.ops.demo.delay_line import DelayLine
from smtpproxy.ops.demo.errors import DemoError
from smtpproxy.ops.demo.flights import EARLY_KEYWORD, WAYS, Way
from smtpproxy.ops.demo.ladder import ladder
from smtpproxy.ops.demo.legacy_commands import Envelope
from smtpproxy.ops.demo.legacy_mta import LegacyMta
from smtpproxy.ops.demo.maildir import Maildir
from smtpproxy.ops.demo.messages import messages
from smtpproxy.ops.demo.proxy import Proxy
from smtpproxy.ops.demo.style import Style
from smtpproxy.ops.demo.summary import Result, bars, table
from smtpproxy.ops.demo.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said.

    Attributes:
        once: end after the check instead of staying up.
        round_trip: of the emulated line, seconds.
        maildir: where to store; None: a temporary folder.
        proxy_port: of smtpproxy; this and the other ports: 0 is any free one.
        far_port: of the line before smtpproxy.
        legacy_port: of the legacy MTA.
    """

    once: bool
    round_trip: float
    maildir: Path | None
    proxy_port: int
    far_port: int
    legacy_port: int


class Demo:
    """One run of the demo.

    Attributes:
        intact: all messages have arrived as they were sent; False until that is known.
    """

    _legacy: LegacyMta
    _proxy: Proxy
    _near_legacy: DelayLine
    _near_proxy: DelayLine

    def __init__(self, options: Options, out: TextIO) -> None:
        """Print to `out`."""
        self.intact = False
        self._keep = False
        self._options = options
        self._out = out
        self._style = Style.of(out)
        self._folder = Path(tempfile.mkdtemp(prefix="smtpproxy-demo-"))
        self._sent: dict[bytes, tuple[str, bytes]] = {}
        self._known: frozenset[str] = frozenset()
        self._offers: list[tuple[str, tuple[str, ...]]] = []

    def say(self, *lines: str) -> None:
        """Print lines."""
        for line in lines:
            print(self._style.fit(line), file=self._out)
        self._out.flush()

    def fail(self, reason: str) -> None:
        """Print why the demo failed, and where its files are, which are kept for those who want to look."""
        self.intact = False
        self._keep = True
        self.say("", self._style.paint("bad", "The demo failed."), reason)
        self.say(f"Its files are kept in {self._folder}")

    def clean_up(self) -> None:
        """Remove the temporary files, unless the demo failed."""
        if not self._keep:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def run(self) -> None:
        """Show everything; without `once` this only ends by cancellation. Raises DemoError."""
        async with AsyncExitStack() as stack:
            maildir = await self._start(stack)
            before = maildir.names()
            self._introduce()
            results = [await self._send_all(way) for way in WAYS]
            self.say("", *bars(results, self._style), "", *table(results, self._style), "")
            self._check([maildir.read(name) for name in sorted(maildir.names() - before)])
            if not self._options.once:
                await self._stay(maildir)

    async def _start(self, stack: AsyncExitStack) -> Maildir:
        options = self._options
        try:
            maildir = Maildir(options.maildir or self._folder / "Maildir")
            self._legacy = await stack.enter_async_context(LegacyMta(maildir, options.legacy_port))
            self._proxy = await stack.enter_async_context(Proxy(self._folder, self._legacy.port, options.proxy_port))
            self._near_legacy = await stack.enter_async_context(DelayLine(options.round_trip, self._legacy.port))
            self._near_proxy = await stack.enter_async_context(
                DelayLine(options.round_trip, self._proxy.port, options.far_port)
            )
        except OSError as error:
            raise DemoError(f"Cannot start: {error}") from error
        return maildir

    def _introduce(self) -> None:
        trip = f"{self._options.round_trip * 1000:g} ms"
        self.say(
            self._style.paint("title", "Early pipelining for a mail server that cannot even pipeline"),
            "",
            f"  client ═════ {trip} ═════ legacy MTA                  direct",
            f"  client ═════ {trip} ═════ smtpproxy ─── legacy MTA    the same server, untouched",
            "",
            f"The line is emulated, {trip} there and back. Time runs from the client's SYN to",
            "the 250 for the message. The legacy MTA hangs up on whoever does not wait for",
            "its reply.",
        )

    async def _send_all(self, way: Way) -> Result:
        """Send all messages in one way, draw the first."""
        port = self._near_legacy.port if way.direct else self._near_proxy.port
        timelines: list[Timeline] = []
        for message in messages(way.key):
            self._sent[message.key] = (f"{way.name}, {message.name}", message.data)
            timeline = await send(way, message.data, port=port, round_trip=self._options.round_trip, known=self._known)
            timelines.append(timeline)
            if len(timelines) == 1:
                self._draw(way, timeline)
        self._learn(way, timelines[0])
        return Result(way.name, way.title, tuple(timelines))

    def _draw(self, way: Way, timeline: Timeline) -> None:
        style = self._style
        server = "legacy MTA" if way.direct else "smtpproxy"
        self.say("", headline(way.title, timeline, style), "", *ladder(timeline, style, server=server))
        if not way.direct:
            self.say(behind(self._legacy.last_dialogue, style))

    def _learn(self, way: Way, timeline: Timeline) -> None:
        """Remember what the proxy offered to the polite session, and show it beside what the MTA offered."""
        if way.needs:
            return
        keywords = tuple(line.partition(" ")[0] for line in timeline.extensions)
        self._offers.append(("legacy MTA" if way.direct else "smtpproxy", keywords))
        if not way.direct:
            self._known = frozenset(keywords)
            self.say("", *offers(self._offers, EARLY_KEYWORD, self._style))

    def _check(self, arrived: list[bytes]) -> None:
        wrong = mistakes(self._sent, arrived)
        if self._legacy.violations:
            wrong.append(f"Times the legacy MTA hung up on somebody who did not wait: {self._legacy.violations}.")
        if wrong:
            raise DemoError("\n".join(wrong))
        self.intact = True
        self.say(
            self._style.paint("good", f"All {len(arrived)} messages arrived intact, each exactly once."),
            f"The legacy MTA answered {self._legacy.commands} commands; nobody ever spoke before its reply.",
        )

    async def _stay(self, maildir: Maildir) -> None:
        self._legacy.on_stored = self._announce
        self._legacy.on_violation = lambda: self._event("the legacy MTA hung up on somebody who did not wait")
        places = Places(
            proxy=self._proxy.port,
            far=self._near_proxy.port,
            legacy=self._legacy.port,
            milliseconds=self._options.round_trip * 1000,
            maildir=maildir.path,
            temporary=self._options.maildir is None,
            configuration=self._proxy.configuration,
            log=self._proxy.log,
        )
        self.say("", *by_hand(places, self._style))
        await self._proxy.ended()

    def _announce(self, envelope: Envelope, path: Path, octets: int) -> None:
        recipients = ", ".join(f"<{recipient}>" for recipient in envelope.recipients)
        self._event(f"<{envelope.sender}> → {recipients}: {octets} octets, {path.parent.name}/{path.name}")

    def _event(self, text: str) -> None:
        printable = "".join(character if character.isprintable() else "?" for character in text)
        self.say(f"{time.strftime('%H:%M:%S')}  {printable}")
