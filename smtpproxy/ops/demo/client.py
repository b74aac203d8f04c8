"""The demo's client: sends one message in one of the ways, and notes what it sent and received when."""

from __future__ import annotations

import asyncio
from typing import Final

from smtpproxy.ops.demo.errors import DemoError
from smtpproxy.ops.demo.flights import EARLY_KEYWORD, Flight, Item, Way
from smtpproxy.ops.demo.timeline import Direction, Event, Part, Timeline, Wait

_LOOPBACK: Final = "127.0.0.1"
_DEADLINE_SECONDS: Final = 20.0
_DEADLINE_ROUND_TRIPS: Final = 20
_QUIT: Final = b"QUIT\r\n"


async def send(way: Way, message: bytes, *, port: int, round_trip: float, known: frozenset[str]) -> Timeline:
    """Send `message` to 127.0.0.1:`port`, then QUIT, and return what happened up to the final reply.

    Args:
        way: how to send.
        message: octets of the message, lines ending with CR LF.
        port: the near end of a delay line.
        round_trip: of that line, in seconds.
        known: keywords, without parameters, of this server's EHLO reply to an earlier polite session.

    Raises:
        DemoError: something was refused, garbled, missing or too slow; with the conversation so far.
    """
    if missing := way.needs - known:
        raise DemoError(f"{way.title}: not allowed, EHLO does not offer {' and '.join(sorted(missing))}.")
    session = _Session(round_trip)
    try:
        async with asyncio.timeout(_DEADLINE_SECONDS + _DEADLINE_ROUND_TRIPS * round_trip):
            await session.dial(port)
            try:
                await session.handshake()
                for flight in way.plan(message):
                    await session.fly(flight)
                if way.needs:
                    session.confirm()
                await session.quit()
            finally:
                session.close()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, DemoError) as problem:
        raise DemoError(
            f"Sending a message failed ({way.title}): {_reason(problem)}.\n"
            f"The conversation so far:\n{session.transcript()}"
        ) from problem
    return session.timeline()


class _Session:
    """One connection of the client's."""

    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    def __init__(self, round_trip: float) -> None:
        self._round_trip = round_trip
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._events: list[Event] = []
        self._waits: list[Wait] = []
        self._extensions: tuple[str, ...] = ()

    def timeline(self) -> Timeline:
        return Timeline(tuple(self._events), tuple(self._waits), self._extensions)

    def transcript(self) -> str:
        arrows = {Direction.SENT: "->", Direction.RECEIVED: "<-"}
        return "\n".join(
            f"{event.at:8.0f} ms  {arrows[event.direction]} {part.full}"
            for event in self._events
            for part in event.parts
        )

    async def dial(self, port: int) -> None:
        self._note(Direction.SENT, Part("SYN", "SYN"))
        self._reader, self._writer = await asyncio.open_connection(_LOOPBACK, port)

    async def handshake(self) -> None:
        # The kernel has finished the handshake with the near end of the line; on a real one it takes a
        # round trip.
        await asyncio.sleep(max(0.0, self._began + self._round_trip - self._loop.time()))
        self._note(Direction.RECEIVED, Part("SYN+ACK", "SYN + ACK: connected"))
        self._waits.append(Wait("TCP", self._now()))

    async def fly(self, flight: Flight) -> None:
        sent = [item for item in flight.items if item.wire]
        if sent:
            self._note(Direction.SENT, *(item.part for item in sent))
            self._writer.write(b"".join(item.wire for item in sent))
            await self._writer.drain()
        for item in flight.items:
            code, lines = await self._reply(item)
            if code != item.code:
                raise DemoError(f"expected {item.code} to {item.name}, got {code} {lines[0]}")
            if item.name == "EHLO":
                self._extensions = tuple(lines[1:])
        self._waits.append(Wait(flight.label, self._now()))

    def confirm(self) -> None:
        # What was used unseen must still be on offer; otherwise a real client forgets it (rule C3).
        if EARLY_KEYWORD not in self._extensions:
            raise DemoError(f"the EHLO reply no longer offers {EARLY_KEYWORD}")

    async def quit(self) -> None:
        # Behind the final reply, so it costs the message nothing. The half-close behind it is what Exim does.
        self._writer.write(_QUIT)
        self._writer.write_eof()
        answer = await self._reader.readuntil(b"\r\n")
        if not answer.startswith(b"221"):
            raise DemoError(f"expected 221 to QUIT, got {_printable(answer)}")
        if surplus := await self._reader.read():
            raise DemoError(f"a reply too many: {_printable(surplus)}")

    def close(self) -> None:
        self._writer.transport.abort()

    async def _reply(self, to: Item) -> tuple[int, list[str]]:
        lines: list[str] = []
        while True:
            line = _printable(await self._reader.readuntil(b"\r\n"))
            code, mark, text = line[:3], line[3:4], line[4:]
            if not (code.isdecimal() and mark in ("-", " ", "")):
                raise DemoError(f"not a reply: {line}")
            lines.append(text)
            if mark != "-":
                break
        shown = " ".join(text.split(" ")[0] for text in lines[1:]) or lines[0]
        short = f"{code} {to.name}" if to.wire else code
        self._note(Direction.RECEIVED, Part(short, f"{code} {shown}"))
        return int(code), lines

    def _note(self, direction: Direction, *parts: Part) -> None:
        self._events.append(Event(self._now(), direction, parts))

    def _now(self) -> float:
        return (self._loop.time() - self._began) * 1000


def _reason(problem: Exception) -> str:
    if isinstance(problem, asyncio.IncompleteReadError):
        return "the connection was closed"
    return "too slow, gave up" if isinstance(problem, TimeoutError) else str(problem)


def _printable(line: bytes) -> str:
    # It will be shown on a terminal: control characters must not get there (rule H8).
    text = line.rstrip(b"\r\n").decode("ascii", "replace")
    return "".join(character if character.isprintable() else "?" for character in text)
