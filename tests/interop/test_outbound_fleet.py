"""Several smtpproxies with one EHLO cache, in a Redis or in a file, and what becomes of it when one of all these is
killed; the remote is an Exim that offers early pipelining.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from freeports import free_port

from .clients import burst, send_at_once
from .lab import Process, missing, open_folder, program, wait_for
from .messages import assert_intact, sample
from .outbound_exim import EximRemote, exim_remote
from .outbound_smarthost import Smarthost, Way, smarthost
from .sink import smtp_sink

pytestmark = pytest.mark.interop

TO = "user@lab.test"
TAKEN = [220, 250, 250, 250, 250, 221]
KILLS = 2
MESSAGES = 40  # at a time, through each of them


@pytest.fixture(scope="module")
def exim(server_pair: Any) -> Iterator[EximRemote]:
    """The remote."""
    with exim_remote(server_pair) as server:
        yield server


@contextlib.contextmanager
def fleet(exim: EximRemote, store: str, sink: int = 1) -> Iterator[tuple[Smarthost, Smarthost]]:
    """Two smarthosts with the same store; another remote is on the port `sink`."""
    ways = {"lab.test": Way(exim.port, direct=True), "sink.test": Way(sink, direct=True)}
    others = {"cache": {"store": store}}
    with smarthost(ways, others=others) as one, smarthost(ways, others=others) as other:
        yield one, other


def early(house: Smarthost, exim: EximRemote) -> bool:
    """Send a message, which has to arrive, and say whether it was early."""
    message, before = sample(), len(deliveries(house, TO))
    assert send_at_once(house.port, burst(message, TO))[1] == TAKEN
    (delivery,) = wait_for(lambda: deliveries(house, TO)[before:], "the delivery in the log")
    assert_intact(exim.delivered(), message, (TO,))
    return bool(delivery.get("early", False))


def deliveries(house: Smarthost, recipient: str) -> list[dict[str, Any]]:
    """Those to a recipient, so far."""
    return [event for event in house.events("delivery") if event["to"] == f"<{recipient}>"]


# --- Redis ----------------------------------------------------------------------------------------------------------


class Redis:
    """One whose data survive it."""

    def __init__(self, folder: Path) -> None:
        """It does not run yet."""
        self._folder, self.port = folder, free_port()
        self._process: Process | None = None

    def start(self) -> None:
        """Start; returns when it is there."""
        name = shutil.which("redis-server") or shutil.which("valkey-server")
        if name is None:
            missing("neither redis-server nor valkey-server is installed: run tests/interop/install.sh as root")
        command = [str(name), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "no"]
        self._process = Process(command, self._folder / "redis.log")
        self._process.wait_listening(self.port)

    def ask(self, command: str) -> bytes:
        """Give a command; gives all that it says."""
        with socket.create_connection(("127.0.0.1", self.port), 10.0) as connection:
            connection.sendall(f"{command}\r\nQUIT\r\n".encode())
            with connection.makefile("rb") as answer:
                return answer.read()

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None:
            self._process.stop(first=signal.SIGKILL)
            self._process = None


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A started Redis."""
    with open_folder("redis") as folder:
        made = Redis(folder)
        try:
            made.start()
            yield made
        finally:
            made.kill()


def test_a_fleet_with_a_redis(exim: EximRemote, redis: Redis) -> None:
    """What one learns or flushes counts for the other; without Redis both are polite, and early when it is back."""
    record = f"GET smtpproxy:ehlo:127.0.0.1|{exim.port}|clear|smarthost.lab.test"
    nothing = redis.ask(record)
    with fleet(exim, f"redis://127.0.0.1:{redis.port}") as (one, other):

        def knows(house: Smarthost) -> bool:
            # On a machine with much else to do Redis may be slower than it may be: then the log says so.
            return early(house, exim) or bool(house.events("cache_store"))

        wait_for(lambda: b"\nconnected_clients:3\r" in redis.ask("INFO clients"), "both to be connected")
        assert not early(one, exim)
        wait_for(lambda: redis.ask(record) != nothing, "the record of the remote")
        assert knows(other)
        # Any refusal flushes: what is known is not usable any more.
        wait_for(lambda: b",true]" in redis.ask(record), "the record to be usable")
        assert send_at_once(one.port, burst(sample(), "refused@lab.test"))[1][:4] == [220, 250, 250, 550]
        wait_for(lambda: b",false]" in redis.ask(record), "the flush")
        assert not early(other, exim)
        redis.kill()
        for house in (one, other):
            assert not early(house, exim)
            assert not early(house, exim)
            wait_for(partial(house.events, "cache_store"), "the trouble in the log")
        redis.start()
        for house in (one, other):
            wait_for(partial(early, house, exim), "early talk with what Redis knows", 30.0)


# --- a file ---------------------------------------------------------------------------------------------------------


def load(house: Smarthost) -> Process:
    """Begin to send messages, by several clients at a time; each is a delivery of its own, which is remembered."""
    size = ["-s", "4", "-m", str(MESSAGES), "-l", "100"]
    command = [str(program("smtp-source")), *size, "-f", "sender@lab.test", "-t", "user@sink.test"]
    return Process([*command, f"127.0.0.1:{house.port}"], house.folder / "source.log")


def at_least(house: Smarthost, number: int) -> bool:
    """Whether so many of them were delivered."""
    return accepted(house) >= number


def accepted(house: Smarthost) -> int:
    """How many of them were delivered, so far."""
    return house.log().count('"to":"<user@sink.test>","recipients":1,"accepted":1,')


def test_one_of_two_with_a_file_is_killed(exim: EximRemote) -> None:
    """Again and again, while both write: the other goes on, the file stays whole, and what was in it is still known."""
    with open_folder("cache") as folder, smtp_sink() as sink:
        file = folder / "cache.db"
        with fleet(exim, f"sqlite:{file}", sink.port) as (one, other):
            assert not early(one, exim)
            wait_for(lambda: early(other, exim), "the other to know it")
            for number in range(1, KILLS + 1):
                seen, sources = accepted(one), [load(one), load(other)]
                wait_for(partial(at_least, one, seen + MESSAGES // 4), "deliveries")
                assert one.process is not None
                one.process.stop(first=signal.SIGKILL)
                assert sources[1].popen.wait(30.0) == 0, sources[1].text()
                sources[0].stop()
                with contextlib.closing(sqlite3.connect(file)) as database:
                    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert early(other, exim)
                one.start()
                assert early(one, exim)
                wait_for(partial(at_least, other, number * MESSAGES), "all of them in the log")
            assert accepted(other) == KILLS * MESSAGES
            assert one.events("cache_store") + other.events("cache_store") == []
