"""A long line to a server on this machine: a TCP forwarder that delivers everything half a round trip later.

Only the delay is emulated: bandwidth is unlimited, nothing is lost, and there is no slow start (on a real
line a message of more than about 14 KiB costs extra round trips whatever the protocol does). Order and
half-close are kept.

The handshake needs thought, because the kernel finishes it with the near end at once. On a real line the
client may send its first data one round trip after its SYN, and the server's accept() sees the connection
half a round trip after that, with the client's ACK:

    client   0 SYN            1 SYN/ACK here: ACK, first data            2 reply to it, or greeting
    server        0.5 SYN/ACK                            1.5 accept(), greeting, first data

So the line dials the server one and a half round trips after its own accept(), and what a client sends
within the first round trip leaves only at the end of it. A client that wants to see the moment of
"connected" at the right time has to sleep for one round trip after connect(), as the demo's own does.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Self

_LOOPBACK: Final = "127.0.0.1"
_CHUNK: Final = 65536
_CHUNKS_UNDER_WAY: Final = 256  # per direction; more is not read: bounds the memory to 16 MiB
_DIAL_SECONDS: Final = 10.0

# What travels: when it arrives (loop time) and the octets; b"" is the end of what this side sends.
_Parcel = tuple[float, bytes]


class DelayLine:
    """The forwarder: listens on loopback and forwards each connection to one server.

    Use it as an asynchronous context manager; `port` is known inside.
    """

    def __init__(self, round_trip: float, server_port: int, port: int = 0) -> None:
        """Forward from `port` (0: any free one) to `server_port` on loopback; `round_trip` in seconds."""
        self.port = port
        self._round_trip = round_trip
        self._server_port = server_port
        self._connections: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Start to listen; raises OSError if the port is taken."""
        self._listener = await asyncio.start_server(self._accepted, _LOOPBACK, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop to listen and cut all connections."""
        if self._listener is not None:
            self._listener.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._forward(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected = asyncio.get_running_loop().time() + self._round_trip
        # The client's half is read from the start, so that its data keeps the time at which it was sent.
        outward = _Lane(self._round_trip / 2, not_before=connected)
        inward = _Lane(self._round_trip / 2)
        ends = [writer]
        try:
            async with asyncio.TaskGroup() as lanes:
                lanes.create_task(outward.collect(reader))
                await _sleep_until(connected + self._round_trip / 2)
                async with asyncio.timeout(_DIAL_SECONDS):
                    far_reader, far_writer = await asyncio.open_connection(_LOOPBACK, self._server_port)
                ends.append(far_writer)
                lanes.create_task(outward.deliver(far_writer))
                lanes.create_task(inward.collect(far_reader))
                lanes.create_task(inward.deliver(writer))
        except* OSError:  # a reset on one side, nobody at home, too slow: all of it is cut
            for end in ends:
                end.transport.abort()
        finally:
            for end in ends:
                end.close()


class _Lane:
    """One direction of one connection."""

    def __init__(self, delay: float, not_before: float = 0.0) -> None:
        self._delay = delay
        self._not_before = not_before
        self._under_way: asyncio.Queue[_Parcel] = asyncio.Queue(_CHUNKS_UNDER_WAY)

    async def collect(self, reader: asyncio.StreamReader) -> None:
        clock = asyncio.get_running_loop().time
        data = b"-"
        while data:
            data = await reader.read(_CHUNK)
            leaves = max(clock(), self._not_before)
            await self._under_way.put((leaves + self._delay, data))

    async def deliver(self, writer: asyncio.StreamWriter) -> None:
        data = b"-"
        while data:
            due, data = await self._under_way.get()
            await _sleep_until(due)
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):  # the peer may have closed altogether meanwhile
            writer.write_eof()


async def _sleep_until(due: float) -> None:
    # Always a real sleep of at least nothing, so that a long queue does not starve the other direction.
    await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
