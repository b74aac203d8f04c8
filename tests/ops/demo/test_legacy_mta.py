"""The legacy MTA over real sockets: the lock-step rule, dot-unstuffing, what is stored and what is not."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from smtpproxy.ops.demo.legacy_mta import LegacyMta
from smtpproxy.ops.demo.legacy_session import unstuffed
from smtpproxy.ops.demo.maildir import Maildir

from .clockwork import Clockwork

ENVELOPE = b"EHLO c", b"MAIL FROM:<a@client.example>", b"RCPT TO:<user@demo.example>", b"DATA"


class Caller:
    """A client of the MTA; every read has a deadline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk over this connection."""
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        """Send, and wait for nothing."""
        self._writer.write(data)

    def half_close(self) -> None:
        """Send no more."""
        self._writer.write_eof()

    def vanish(self) -> None:
        """Cut the connection."""
        self._writer.transport.abort()

    async def reply(self) -> bytes:
        """Return the next reply, all its lines."""
        lines = b""
        async with asyncio.timeout(20):
            while True:
                line = await self._reader.readuntil(b"\r\n")
                lines += line
                if line[3:4] == b" ":
                    return lines

    async def ask(self, line: bytes) -> bytes:
        """Send a command, return the code of its reply."""
        self.send(line + b"\r\n")
        return (await self.reply())[:3]

    async def envelope(self) -> None:
        """Go on to the 354."""
        await self.reply()
        assert [await self.ask(line) for line in ENVELOPE] == [b"250", b"250", b"250", b"354"]

    async def rest(self) -> bytes:
        """Return everything up to the end of the connection."""
        async with asyncio.timeout(20):
            return await self._reader.read()


def call(path: Path, conversation: Callable[[Caller, LegacyMta], Awaitable[None]]) -> LegacyMta:
    """Have a conversation with an MTA that stores under `path`, return the MTA."""

    async def run() -> LegacyMta:
        async with LegacyMta(Maildir(path)) as mta:
            reader, writer = await asyncio.open_connection("127.0.0.1", mta.port)
            try:
                await conversation(Caller(reader, writer), mta)
            finally:
                writer.transport.abort()
        return mta

    # The MTA listens for a moment before each reply: the machine must not take it for anything else.
    with asyncio.Runner(loop_factory=Clockwork) as runner:
        return runner.run(run())


def stored(path: Path) -> list[bytes]:
    """Return all messages under `path`."""
    maildir = Maildir(path)
    return [maildir.read(name) for name in sorted(maildir.names())]


def test_lock_step_session_is_stored_unstuffed_and_told(tmp_path: Path) -> None:
    told: list[tuple[str, list[str], int, bytes]] = []

    async def conversation(caller: Caller, mta: LegacyMta) -> None:
        mta.on_stored = lambda envelope, file, octets: told.append(
            (envelope.sender, envelope.recipients, octets, file.read_bytes())
        )
        await caller.envelope()
        assert await caller.ask(b"..\r\n...x\r\ny.\r\n\r\n..\r\nz\xff\r\n.") == b"250"
        assert await caller.ask(b"MAIL FROM:<>") == b"250"  # the next transaction
        assert await caller.ask(b"QUIT") == b"221"
        assert await caller.rest() == b""
        assert [(answer.verb, answer.code) for answer in mta.last_dialogue] == [
            *[("", 220), ("EHLO", 250), ("MAIL", 250), ("RCPT", 250), ("DATA", 354), ("mail data", 250)],
            *[("MAIL", 250), ("QUIT", 221)],
        ]

    message = b".\r\n..x\r\ny.\r\n\r\n.\r\nz\xff\r\n"
    mta = call(tmp_path, conversation)
    assert stored(tmp_path) == [message]
    assert told == [("a@client.example", ["user@demo.example"], len(message), message)]
    assert (mta.commands, mta.violations) == (7, 0)


def test_empty_message(tmp_path: Path) -> None:
    async def conversation(caller: Caller, _: LegacyMta) -> None:
        await caller.envelope()
        assert await caller.ask(b".") == b"250"

    call(tmp_path, conversation)
    assert stored(tmp_path) == [b""]


def test_end_of_data_in_pieces(tmp_path: Path) -> None:
    async def conversation(caller: Caller, _: LegacyMta) -> None:
        await caller.envelope()
        for piece in (b"x\r", b"\n", b".", b"\r", b"\n"):
            caller.send(piece)
            await asyncio.sleep(0.01)
        assert (await caller.reply())[:3] == b"250"

    call(tmp_path, conversation)
    assert stored(tmp_path) == [b"x\r\n"]


@pytest.mark.parametrize(
    "early",
    [
        pytest.param([b"EHLO c\r\n"], id="before the greeting"),
        pytest.param([None, b"EHLO c\r\nNOOP\r\n"], id="two in one segment"),
        pytest.param([None, b"EHLO c\r\n", b"N"], id="an octet before the reply"),
        pytest.param([None, b"NOOP\r\n", None, b"NOOP\r\n", b"NOOP\r\n"], id="the third does not wait"),
    ],
)
def test_whoever_does_not_wait_gets_554_and_the_end(tmp_path: Path, early: list[bytes | None]) -> None:
    """Each None is a reply that is waited for."""
    told: list[bool] = []

    async def conversation(caller: Caller, mta: LegacyMta) -> None:
        mta.on_violation = lambda: told.append(True)
        for data in early:
            if data is None:
                await caller.reply()
            else:
                caller.send(data)
                await asyncio.sleep(0)
        assert (await caller.rest()).endswith(b"554 5.5.0 One thing at a time: you did not wait for my reply\r\n")

    mta = call(tmp_path, conversation)
    assert mta.violations == len(told) == 1


@pytest.mark.parametrize("data", [b"DATA\r\nx\r\n.\r\n", b"DATA\r\n."])
def test_mail_data_before_the_354_is_a_violation(tmp_path: Path, data: bytes) -> None:
    async def conversation(caller: Caller, _: LegacyMta) -> None:
        await caller.reply()
        for line in ENVELOPE[:3]:
            await caller.ask(line)
        caller.send(data)
        assert (await caller.rest()).startswith(b"554 ")

    assert call(tmp_path, conversation).violations == 1
    assert stored(tmp_path) == []


def test_command_behind_the_final_dot_is_a_violation_and_the_message_is_not_stored(tmp_path: Path) -> None:
    async def conversation(caller: Caller, _: LegacyMta) -> None:
        await caller.envelope()
        caller.send(b"x\r\n.\r\nQUIT\r\n")
        assert (await caller.rest()).startswith(b"554 ")

    assert call(tmp_path, conversation).violations == 1
    assert stored(tmp_path) == []


def test_client_that_vanishes_before_the_final_dot_leaves_nothing(tmp_path: Path) -> None:
    async def conversation(caller: Caller, _: LegacyMta) -> None:
        await caller.envelope()
        caller.send(b"half a message\r\n")
        await asyncio.sleep(0.01)
        caller.vanish()
        await asyncio.sleep(0.01)

    call(tmp_path, conversation)
    assert stored(tmp_path) == []


def test_half_close_behind_quit_still_gets_the_reply(tmp_path: Path) -> None:
    async def conversation(caller: Caller, _: LegacyMta) -> None:
        await caller.reply()
        caller.send(b"QUIT\r\n")
        caller.half_close()
        assert (await caller.rest()).startswith(b"221 ")

    assert call(tmp_path, conversation).violations == 0


def test_endless_line_ends_the_session(tmp_path: Path) -> None:
    async def conversation(caller: Caller, _: LegacyMta) -> None:
        await caller.reply()
        caller.send(b"x" * 5000)
        assert (await caller.rest()).startswith(b"500 ")

    call(tmp_path, conversation)


def test_message_that_cannot_be_stored_is_not_acknowledged(tmp_path: Path) -> None:
    async def conversation(caller: Caller, _: LegacyMta) -> None:
        await caller.envelope()
        (tmp_path / "tmp").rmdir()
        assert await caller.ask(b"x\r\n.") == b"452"
        assert await caller.ask(b"NOOP") == b"250"

    call(tmp_path, conversation)
    assert stored(tmp_path) == []


def test_unstuffed_takes_one_dot_from_each_line() -> None:
    assert unstuffed(b"..\r\n.a\r\nb.\r\n...\r\n") == b".\r\na\r\nb.\r\n..\r\n"
    assert unstuffed(b"") == b""
