"""The client and its four ways, against the legacy MTA and against servers that misbehave."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from smtpproxy.ops.demo.client import send
from smtpproxy.ops.demo.errors import DemoError
from smtpproxy.ops.demo.flights import WAYS, Way
from smtpproxy.ops.demo.legacy_mta import LegacyMta
from smtpproxy.ops.demo.maildir import Maildir
from smtpproxy.ops.demo.timeline import Timeline

MESSAGE = b".\r\nx\r\n..\r\n"
LOCK_STEP, PIPELINED, EARLY_DATA, EARLY_BDAT = WAYS
ALL = frozenset({"PIPECONNECT", "PIPELINING", "CHUNKING"})

GREETING = b"220 here\r\n"
EHLO = b"250-here\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 PIPECONNECT\r\n"


def scripted(way: Way, replies: Sequence[bytes], known: frozenset[str] = ALL) -> tuple[Timeline, bytes]:
    """Send by `way` to a server that has its replies ready; return the timeline and what it received."""
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(replies))
        received.extend(await reader.read())
        writer.close()

    async def run() -> Timeline:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            async with asyncio.timeout(10):
                return await send(way, MESSAGE, port=port, round_trip=0.01, known=known)
        finally:
            server.close()
            await asyncio.sleep(0.01)

    return asyncio.run(run()), bytes(received)


def test_round_trips_of_the_ways() -> None:
    # One for TCP, one for each flight.
    assert [1 + len(way.plan(MESSAGE)) for way in WAYS] == [7, 5, 3, 2]


def test_lock_step_delivers_to_the_legacy_mta(tmp_path: Path) -> None:
    maildir = Maildir(tmp_path)

    async def run() -> tuple[Timeline, int]:
        async with LegacyMta(maildir) as mta:
            timeline = await send(LOCK_STEP, MESSAGE, port=mta.port, round_trip=0.01, known=frozenset())
            return timeline, mta.violations

    timeline, violations = asyncio.run(run())
    assert violations == 0
    assert [maildir.read(name) for name in maildir.names()] == [MESSAGE]
    assert [wait.label for wait in timeline.waits] == ["TCP", "220", "EHLO", "MAIL", "RCPT", "DATA", "text"]
    assert [keyword.split()[0] for keyword in timeline.extensions] == ["SIZE", "8BITMIME"]
    assert timeline.milliseconds >= 10


def test_legacy_mta_hangs_up_on_the_early_ways(tmp_path: Path) -> None:
    async def run() -> int:
        async with LegacyMta(Maildir(tmp_path)) as mta:
            for way in (PIPELINED, EARLY_DATA, EARLY_BDAT):
                with pytest.raises(DemoError, match="554"):
                    await send(way, MESSAGE, port=mta.port, round_trip=0.0, known=ALL)
            return mta.violations

    assert asyncio.run(run()) == 3
    assert Maildir(tmp_path).names() == set()


def test_one_flight_on_the_wire() -> None:
    timeline, received = scripted(EARLY_BDAT, [GREETING, EHLO, *[b"250 ok\r\n"] * 3, b"221 bye\r\n"])
    assert received == (
        b"EHLO client.example\r\nMAIL FROM:<alice@client.example> SIZE=10 BODY=8BITMIME\r\n"
        b"RCPT TO:<user@demo.example>\r\nBDAT 10 LAST\r\n" + MESSAGE + b"QUIT\r\n"
    )
    assert timeline.round_trips == 2
    assert timeline.extensions == ("PIPELINING", "CHUNKING", "PIPECONNECT")


def test_mail_data_is_stuffed() -> None:
    replies = [GREETING, EHLO, b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"250 ok\r\n", b"221 bye\r\n"]
    _, received = scripted(EARLY_DATA, replies)
    assert received.endswith(b"DATA\r\n..\r\nx\r\n...\r\n.\r\nQUIT\r\n")


@pytest.mark.parametrize(
    ("replies", "complaint"),
    [
        ([b"554 go away\r\n"], "expected 220 to greeting, got 554 go away"),
        ([GREETING, EHLO, b"550 no\r\n"], "expected 250 to MAIL, got 550 no"),
        ([GREETING, b"what?\r\n"], r"not a reply: what\?"),
        ([GREETING, b"220 \x1b[2J\r\n"], r"expected 250 to EHLO, got 220 \?\[2J"),
        ([GREETING, b"250 here\r\n", *[b"250 ok\r\n"] * 3], "no longer offers PIPECONNECT"),
        ([GREETING, EHLO, *[b"250 ok\r\n"] * 3, b"250 surplus\r\n"], "expected 221 to QUIT, got 250 surplus"),
        ([GREETING, EHLO, *[b"250 ok\r\n"] * 3, b"221 bye\r\n250 more\r\n"], "a reply too many: 250 more"),
    ],
)
def test_wrong_replies_are_told_with_the_conversation(replies: list[bytes], complaint: str) -> None:
    with pytest.raises(DemoError, match=complaint) as caught:
        scripted(EARLY_BDAT, replies)
    assert "-> EHLO client.example" in str(caught.value)


def test_connection_that_ends_too_soon() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DemoError, match="the connection was closed"):
            await send(LOCK_STEP, MESSAGE, port=port, round_trip=0.0, known=ALL)
        server.close()
        with pytest.raises(DemoError, match="Connect call failed"):
            await send(LOCK_STEP, MESSAGE, port=port, round_trip=0.0, known=ALL)

    asyncio.run(run())


def test_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpproxy.ops.demo.client._DEADLINE_SECONDS", 0.1)
    with pytest.raises(DemoError, match="too slow"):
        scripted(LOCK_STEP, [])


def test_early_ways_need_what_was_learned() -> None:
    with pytest.raises(DemoError, match="EHLO does not offer CHUNKING and PIPECONNECT"):
        scripted(EARLY_BDAT, [], known=frozenset({"PIPELINING"}))
