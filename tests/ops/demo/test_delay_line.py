"""The emulated line: when things arrive, in what order, and how connections end."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from smtpproxy.ops.demo.delay_line import DelayLine

from .clockwork import Clockwork

ROUND_TRIP = 0.3

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def across(conversation: Callable[[Streams, "Far"], Awaitable[None]], *, answers: bool = True) -> None:
    """Have a conversation as the client at the near end, with `Far` as the server."""

    async def run() -> None:
        far = Far()
        server = await asyncio.start_server(far.accepted, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if not answers:
            server.close()
        async with asyncio.timeout(10), DelayLine(ROUND_TRIP, port) as line:
            far.began = asyncio.get_running_loop().time()
            streams = await asyncio.open_connection("127.0.0.1", line.port)
            try:
                await conversation(streams, far)
            finally:
                streams[1].transport.abort()
        if far.streams.done():
            far.streams.result()[1].transport.abort()
        server.close()
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=Clockwork) as runner:
        runner.run(run())


async def write_for_ever(writer: asyncio.StreamWriter) -> None:
    """Write a little now and then until that fails."""
    while True:
        writer.write(b"more")
        await writer.drain()
        await asyncio.sleep(0.01)


class Far:
    """The server at the far end; `began` is when the client's connect began."""

    def __init__(self) -> None:
        """Wait for one connection."""
        self.began = 0.0
        self.streams: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()

    def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the connection."""
        self.streams.set_result((reader, writer))

    def at(self, round_trips: float) -> bool:
        """Whether it is now this many round trips since the beginning."""
        elapsed = asyncio.get_running_loop().time() - self.began
        return elapsed == pytest.approx(round_trips * ROUND_TRIP)


def test_server_sees_the_connection_after_one_and_a_half_round_trips_and_its_greeting_takes_two() -> None:
    async def conversation(near: Streams, far: Far) -> None:
        _, writer = await far.streams
        assert far.at(1.5)
        writer.write(b"220 hello\r\n")
        assert await near[0].readline() == b"220 hello\r\n"
        assert far.at(2)

    across(conversation)


def test_what_the_client_sends_at_once_arrives_with_its_ack() -> None:
    async def conversation(near: Streams, far: Far) -> None:
        near[1].write(b"early")
        reader, _ = await far.streams
        assert await reader.read(100) == b"early"
        assert far.at(1.5)

    across(conversation)


def test_each_piece_takes_half_a_round_trip_and_order_is_kept() -> None:
    async def conversation(near: Streams, far: Far) -> None:
        reader, writer = await far.streams
        for data in (b"a" * 200_000, b"b"):
            near[1].write(data)
        await asyncio.sleep(ROUND_TRIP / 4)
        near[1].write(b"c")
        assert await reader.readexactly(200_001) == b"a" * 200_000 + b"b"
        assert far.at(2)
        assert await reader.readexactly(1) == b"c"
        assert far.at(2.25)
        writer.write(b"reply")
        assert await near[0].readexactly(5) == b"reply"
        assert far.at(2.75)

    across(conversation)


def test_half_close_arrives_late_too_and_the_other_direction_stays_open() -> None:
    async def conversation(near: Streams, far: Far) -> None:
        near[1].write(b"QUIT")
        near[1].write_eof()
        reader, writer = await far.streams
        assert await reader.read() == b"QUIT"
        assert far.at(1.5)
        writer.write(b"221")
        writer.close()
        assert await near[0].read() == b"221"
        assert far.at(2)

    across(conversation)


def test_reset_at_one_end_cuts_the_other() -> None:
    async def conversation(near: Streams, far: Far) -> None:
        reader, writer = await far.streams
        near[1].write(b"unread")
        await asyncio.sleep(ROUND_TRIP)
        writer.transport.abort()
        reader.feed_eof()
        with pytest.raises(ConnectionError):
            await write_for_ever(near[1])

    across(conversation)


def test_nobody_at_the_far_end_ends_the_connection() -> None:
    async def conversation(near: Streams, far: Far) -> None:
        assert await near[0].read() == b""
        assert far.at(1.5)

    across(conversation, answers=False)
