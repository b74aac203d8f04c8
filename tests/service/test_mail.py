"""Mail through the running service: both transports, every way to keep a backend, every kind of address."""

from __future__ import annotations

import hashlib
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from freeports import free_port, has_ipv6

from .client import Client
from .conftest import TRANSPORTS, serving
from .mta import Mta
from .process import Process, listener
from .waiting import eventually

MODES = {
    "eager": {},
    "lazy": {"connect": "lazy"},
    "reuse": {"reuse": True},
    "lazy and reuse": {"connect": "lazy", "reuse": True},
    "lockstep": {"pace": "lockstep"},
}
MESSAGE = b"Subject: hello\r\n\r\n..dots\r\n.\r\n8-bit \xc3\xa9\r\nlast\r\n"
ENVELOPE = b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\nRCPT TO:<d@example.org>\r\n"
RECIPIENTS = ["RCPT TO:<c@example.org>", "RCPT TO:<d@example.org>"]


def stuffed(message: bytes) -> bytes:
    return (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


class Town:
    """One proxy with a listener for each mode and each kind of address, and the servers behind."""

    def __init__(self, stack: ExitStack, transport: str) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.plain = serving(stack)
        self.chunking = serving(stack, extensions=("CHUNKING", "PIPELINING", "8BITMIME"))
        self.bare = serving(stack, extensions=(), replies={"EHLO": b"500 what?\r\n", "HELO": b"250 old\r\n"})
        self.unix = serving(stack, str(self.folder / "mta"))
        self.process = Process(self.folder / "proxy")
        stack.callback(self.process.kill)
        self.addresses: dict[str, Any] = {}
        listeners, backends = [], {}
        servers = dict.fromkeys(MODES, self.plain) | {
            "chunking": self.chunking, "bare": self.bare, "Unix": self.unix,
        }  # fmt: skip
        if has_ipv6():
            servers["IPv6"] = serving(stack, ("::1", 0))
        for name, mta in servers.items():
            word = name.replace(" ", "-")
            listeners.append(listener(word, [self._listen(name)], word))
            backends[word] = {"servers": [mta.endpoint], **MODES.get(name, {})}
        self.servers = servers
        self.process.configure(listeners, backends, service={"transport": transport})
        self.process.start()

    def _listen(self, name: str) -> str:
        if name == "Unix":
            self.addresses[name] = str(self.folder / "listening")
            return f"unix:{self.addresses[name]}"
        host = "::1" if name == "IPv6" else "127.0.0.1"
        self.addresses[name] = (host, free_port(host))
        return f"[{host}]:{self.addresses[name][1]}" if ":" in host else f"{host}:{self.addresses[name][1]}"

    def client(self, name: str) -> Client:
        if name not in self.addresses:
            pytest.skip(f"no {name} on this machine")
        return Client(self.addresses[name])


@pytest.fixture(scope="module", params=TRANSPORTS)
def town(request: pytest.FixtureRequest) -> Iterator[Town]:
    with ExitStack() as stack:
        here = Town(stack, request.param)
        yield here
        here.process.stop()
        assert here.process.events("internal_error") == []
        assert not Path(here.addresses["Unix"]).exists(), "a Unix socket is removed at the end"


PLACES = [*MODES, "chunking", "bare", "IPv6", "Unix"]


def assert_arrived(mta: Mta, message: bytes) -> None:
    taken = mta.message()
    assert taken.data == message
    assert taken.sender == "MAIL FROM:<a@b.example>"
    assert taken.recipients == RECIPIENTS


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("turn", [1, 2])
def test_step_by_step_with_data(town: Town, place: str, turn: int) -> None:
    """Twice, as the second client of a lazy or reusing listener begins with what the first one left."""
    assert turn
    with town.client(place) as client:
        assert client.reply()[:3] == b"220"
        for line in ENVELOPE.splitlines():
            assert client.code(line) == 250
        assert client.code(b"DATA") == 354
        client.send(stuffed(MESSAGE))
        assert client.codes(1) == [250]
        assert_arrived(town.servers[place], MESSAGE)
        assert client.code(b"RSET") == 250
        assert client.code(b"QUIT") == 221
        assert client.to_the_end() == []


@pytest.mark.parametrize("place", PLACES)
def test_s13_one_early_burst_with_bdat_and_a_half_close(town: Town, place: str) -> None:
    with town.client(place) as client:
        client.send(ENVELOPE + b"BDAT %d LAST\r\n" % len(MESSAGE) + MESSAGE + b"QUIT\r\n")
        client.half_close()
        codes = [int(reply[:3]) for reply in client.to_the_end()]
        assert codes == [220, 250, 250, 250, 250, 250, 221]
        assert_arrived(town.servers[place], MESSAGE)


@pytest.mark.parametrize("place", PLACES)
def test_early_pipelining_with_data_and_a_half_close(town: Town, place: str) -> None:
    with town.client(place) as client:
        client.send(ENVELOPE + b"DATA\r\n")
        assert client.codes(6) == [220, 250, 250, 250, 250, 354]
        client.send(stuffed(MESSAGE) + b"QUIT\r\n")
        client.half_close()
        assert [reply[:3] for reply in client.to_the_end()] == [b"250", b"221"]
        assert_arrived(town.servers[place], MESSAGE)


@pytest.mark.parametrize("place", PLACES)
def test_several_transactions_in_one_burst(town: Town, place: str) -> None:
    burst, ehlo = b"", ENVELOPE.partition(b"\r\n")[0] + b"\r\n"
    messages = [b"Subject: %d\r\n\r\ntext %d\r\n" % (number, number) for number in range(3)]
    for message in messages:
        burst += (
            ENVELOPE.removeprefix(ehlo)
            + b"BDAT 5\r\n"
            + message[:5]
            + b"BDAT %d LAST\r\n" % (len(message) - 5)
            + message[5:]
        )
    with town.client(place) as client:
        client.send(ehlo + burst + b"QUIT\r\n")
        assert {reply[:3] for reply in client.to_the_end()[2:-1]} == {b"250"}
        for message in messages:
            assert_arrived(town.servers[place], message)


@pytest.mark.parametrize("place", ["eager", "chunking", "Unix"])
@pytest.mark.parametrize("by", ["DATA", "BDAT"])
def test_a_big_message_arrives_bit_for_bit(town: Town, place: str, by: str) -> None:
    lines = [
        b"%s%s\r\n" % (b"." * (number % 3), hashlib.sha256(b"%d" % number).hexdigest().encode())
        for number in range(30_000)
    ]
    message = b"".join(lines)
    with town.client(place) as client:
        client.begin()
        for line in ENVELOPE.splitlines()[1:]:
            assert client.code(line) == 250
        if by == "DATA":
            assert client.code(b"DATA") == 354
            client.send(stuffed(message))
        else:
            for start in range(0, len(message), 700_001):
                chunk = message[start : start + 700_001]
                last = b" LAST" if start + 700_001 >= len(message) else b""
                client.send(b"BDAT %d%s\r\n" % (len(chunk), last) + chunk)
            assert {client.reply()[:3] for _ in range(0, len(message) - 700_001, 700_001)} == {b"250"}
        assert client.codes(1) == [250]
        assert_arrived(town.servers[place], message)


def test_s14_a_foreign_recipient_never_reaches_the_server(town: Town) -> None:
    before = len(town.plain.commands)
    with town.client("eager") as client:
        client.begin()
        assert client.code(b"MAIL FROM:<a@b.example>") == 250
        assert client.ask(b"RCPT TO:<victim@else.example>").startswith(b"550 5.7.1 ")
        assert client.code(b"QUIT") == 221
    asked = [line for commands in town.plain.commands[before:] for line in commands]
    assert not any("victim" in line for line in asked)


def test_a_client_gone_in_mail_data_leaves_no_message(town: Town) -> None:
    before = len(town.process.events("session"))
    with town.client("eager") as client:
        client.begin().begin_data()
        client.send(b"half of it\r\n.")
    town.process.wait_for("session", before + 1)
    eventually(lambda: town.plain.commands, "the server has seen it")
    assert town.plain.messages == []


@pytest.mark.parametrize("place", ["eager", "lazy", "Unix"])
@pytest.mark.parametrize(
    "after", [b"", b"EHLO x\r\n", ENVELOPE, ENVELOPE + b"DATA\r\n", ENVELOPE + b"BDAT 100 LAST\r\nx"]
)
def test_s10_a_client_that_resets_ends_nothing_but_its_session(town: Town, place: str, after: bytes) -> None:
    before = len(town.process.events("session"))
    with town.client(place) as client:
        client.send(after)
        assert client.reply()[:3] == b"220"
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    town.process.wait_for("session", before + 1)
    with town.client(place) as client:
        client.begin()
        assert client.code(b"QUIT") == 221
    assert town.servers[place].messages == []


def test_reuse_lends_one_backend_session_to_many_clients(town: Town) -> None:
    def serve() -> None:
        with town.client("reuse") as client:
            client.begin().begin_data()
            client.send(b"text\r\n.\r\n")
            assert client.codes(1) == [250]
            assert town.plain.message().data == b"text\r\n"
            assert client.code(b"QUIT") == 221
            assert client.to_the_end() == []

    serve()
    before = len(town.plain.commands)
    for _ in range(5):
        serve()
    assert len(town.plain.commands) == before

    def reused() -> bool:
        return any(event.get("reused") for event in town.process.events("session") if event["listener"] == "reuse")

    eventually(reused, "the log tells of it")
