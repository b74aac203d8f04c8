"""``smtpproxy cache``: what is known of remotes, shown and forgotten."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from smtpproxy.cli import main
from smtpproxy.store.ehlo import EhloCache, Key
from smtpproxy.store.sqlite import SqliteStore

REDIS = shutil.which("redis-server") or shutil.which("valkey-server")
EARLY = Key("192.0.2.1", 25, tls=False, ehlo="proxy.example.org")
SECURE = EARLY._replace(tls=True)
PLAIN = Key("2001:db8::1", 2525, tls=False, ehlo="proxy.example.org")
HELD = Key("192.0.2.3", 25, tls=False, ehlo="proxy.example.org")
FLUSHED = Key("192.0.2.4", 25, tls=False, ehlo="proxy.example.org")
OFFER = (b"PIPELINING", b"PIPECONNECT", b"SIZE 1000")
EVIL = (b"PIPELINING", b"X-EVIL \xe2\x80\xae\xff\\")


class Known:
    """A configuration and the store that it names."""

    def __init__(self, folder: Path, store: str) -> None:
        self.database = folder / "cache.db"
        self.config = folder / "c.yaml"
        self.config.write_text(
            "listeners:\n"
            "  - {name: out, mode: outbound, hostname: proxy.example.org, listen: ['127.0.0.1:0']}\n"
            "routes: [{domain: '*', lookup: mx}]\n"
            f"cache: {{store: '{store}'}}\n"
        )

    def run(self, action: str, *arguments: str) -> int:
        return main(["cache", action, *arguments, "-c", str(self.config)])

    def remember(self) -> None:
        """As a service would."""
        cache = EhloCache(SqliteStore(self.database, print), clock=time.time)
        fill(cache)
        cache.close()


def fill(cache: EhloCache) -> None:
    cache.learned(EARLY, OFFER)
    cache.confirmed(EARLY)
    cache.learned(SECURE, OFFER)
    cache.learned(PLAIN, EVIL)
    cache.flush(HELD, hold_back=True)
    cache.learned(HELD, OFFER)
    cache.learned(FLUSHED, OFFER)
    cache.flush(FLUSHED, hold_back=False)


@pytest.fixture
def known(tmp_path: Path) -> Known:
    return Known(tmp_path, f"sqlite:{tmp_path}/cache.db")


def test_a_line_for_each_remote(known: Known, capsys: pytest.CaptureFixture[str]) -> None:
    known.remember()
    assert known.run("list") == 0
    out = capsys.readouterr().out
    assert sorted(line.split("; last seen")[0] for line in out.splitlines()) == [
        "192.0.2.1 port 25 in clear as proxy.example.org: early",
        "192.0.2.1 port 25 inside TLS as proxy.example.org: early",
        "192.0.2.3 port 25 in clear as proxy.example.org: held back for 60 min",
        "192.0.2.4 port 25 in clear as proxy.example.org: polite, it was flushed",
        "2001:db8::1 port 2525 in clear as proxy.example.org: polite, it offers no early pipelining",
    ]
    assert "confirmed 1" in out


def test_all_that_is_known_of_an_address(known: Known, capsys: pytest.CaptureFixture[str]) -> None:
    known.remember()
    assert known.run("show", "192.0.2.1") == 0
    out = capsys.readouterr().out
    assert out.count("    PIPECONNECT\n") == 2
    assert "inside TLS" in out
    assert "2001:db8::1" not in out
    assert known.run("show", "192.0.2.3") == 0
    assert "1 times in a row" in capsys.readouterr().out
    assert known.run("show", "192.0.2.4") == 0
    assert "flushes in quick succession: 1" in capsys.readouterr().out


def test_an_address_may_be_written_in_another_way(known: Known, capsys: pytest.CaptureFixture[str]) -> None:
    known.remember()
    assert known.run("show", "[2001:DB8:0::1]") == 0
    assert "port 2525" in capsys.readouterr().out


def test_h8_what_a_remote_said_moves_no_terminal(known: Known, capsys: pytest.CaptureFixture[str]) -> None:
    known.remember()
    for arguments in (["show", "2001:db8::1"], ["show", "2001:db8::1", "--json"], ["list", "--json"]):
        assert known.run(*arguments) == 0
        out = capsys.readouterr().out
        assert out.isascii()
        assert not set(map(ord, out)) & {*range(10), *range(11, 32), 127}
    assert known.run("show", "2001:db8::1") == 0
    assert r"    X-EVIL \xe2\x80\xae\xff\x5c" in capsys.readouterr().out


def test_json(known: Known, capsys: pytest.CaptureFixture[str]) -> None:
    before = time.time()
    known.remember()
    assert known.run("list", "--json") == 0
    remotes = {(item["address"], item["tls"]): item for item in json.loads(capsys.readouterr().out)}
    early = remotes["192.0.2.1", False]
    assert (early["port"], early["ehlo"], early["confirmed"], early["early"]) == (25, "proxy.example.org", 1, True)
    assert early["lines"] == ["PIPELINING", "PIPECONNECT", "SIZE 1000"]
    assert before <= early["learned"] <= early["last_seen"] <= time.time()
    held = remotes["192.0.2.3", False]
    assert (held["early"], held["holds"]) == (False, 1)
    assert held["held_until"] > time.time() + 3000
    assert remotes["192.0.2.4", False]["flaps"] == 1
    assert remotes["2001:db8::1", False]["lines"][1].encode("latin-1") == EVIL[1]
    assert known.run("show", "192.0.2.77", "--json") == 1
    assert json.loads(capsys.readouterr().out) == []


def test_one_address_is_forgotten(known: Known, capsys: pytest.CaptureFixture[str]) -> None:
    known.remember()
    assert known.run("flush", "192.0.2.1") == 0
    assert capsys.readouterr().out == "192.0.2.1 is forgotten\n"
    assert known.run("flush", "192.0.2.1") == 0
    assert capsys.readouterr().out == "nothing was known of 192.0.2.1\n"
    assert known.run("show", "192.0.2.1") == 1
    assert "nothing is known of 192.0.2.1" in capsys.readouterr().err
    assert known.run("list") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_all_is_forgotten(known: Known, capsys: pytest.CaptureFixture[str]) -> None:
    known.remember()
    assert known.run("flush", "--all") == 0
    assert capsys.readouterr().out == "all is forgotten\n"
    assert known.run("list") == 0
    assert capsys.readouterr().out == ""


def test_a_running_service_sees_that_it_was_forgotten(known: Known) -> None:
    ages = iter(range(100))
    cache = EhloCache(SqliteStore(known.database, print, monotonic=lambda: float(next(ages))), clock=time.time)
    fill(cache)
    assert cache._store.settle(30)  # type: ignore[attr-defined]  # it is the one for a file
    assert known.run("flush", "192.0.2.1") == 0
    entries: list[object] = []
    cache.find(EARLY, entries.append)
    cache.find(PLAIN, entries.append)
    cache.close()
    assert entries[0] is None
    assert entries[1] is not None


@pytest.mark.parametrize(
    "arguments", [["flush"], ["flush", "192.0.2.1", "--all"], ["show"], ["show", "mx.example.org"], []]
)
def test_a_command_that_says_too_little_or_too_much(known: Known, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        known.run(*(arguments or ["--json"]))
    assert end.value.code == 2


def test_memory_is_the_processes_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Known(tmp_path, "memory:").run("list") == 1
    assert "only the running process has what it knows" in capsys.readouterr().err


def test_there_is_no_file_yet_and_none_is_made(known: Known, capsys: pytest.CaptureFixture[str]) -> None:
    assert known.run("list") == 1
    assert "there is no such file" in capsys.readouterr().err
    assert not known.database.exists()


def test_a_file_that_is_no_database(known: Known, capsys: pytest.CaptureFixture[str]) -> None:
    known.database.write_bytes(b"nothing of the kind" * 100)
    assert known.run("list") == 1
    assert "not a database" in capsys.readouterr().err


def test_a_file_that_cannot_be_opened(known: Known, capsys: pytest.CaptureFixture[str]) -> None:
    known.database.mkdir()
    assert known.run("flush", "--all") == 1
    assert "unable to open database file" in capsys.readouterr().err


def test_a_mistake_in_the_configuration(known: Known, capsys: pytest.CaptureFixture[str]) -> None:
    known.config.write_text("listeners: 5\n")
    assert known.run("list") == 1
    assert "listeners" in capsys.readouterr().err


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def with_redis(tmp_path: Path) -> Iterator[tuple[Known, Command]]:
    """The command in a process of its own, for it runs the reactor; and Redis."""
    if REDIS is None:
        pytest.skip("neither redis-server nor valkey-server is installed")
    where = tmp_path / "redis"
    known = Known(tmp_path, f"unix:{where}")
    command = [REDIS, "--port", "0", "--save", "", "--dir", tmp_path, "--unixsocket", where]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    while "eady to accept connections" not in (line := server.stdout.readline()):
        assert line, "it did not start"

    def run(program: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *program], capture_output=True, text=True, timeout=60, check=False)

    try:
        yield known, run
    finally:
        server.kill()
        server.communicate()


FILL = """
import sys, time
from twisted.internet import reactor
from smtpproxy.store.ehlo import EhloCache, Key
from smtpproxy.store.opening import make_store
store = make_store(sys.argv[1], reactor, print)
cache = EhloCache(store, clock=time.time)
def fill(up):
    cache.learned(Key("192.0.2.1", 25, False, "proxy.example.org"), (b"PIPELINING", b"PIPECONNECT"))
    cache.learned(Key("192.0.2.2", 25, False, "proxy.example.org"), (b"PIPELINING",))
    look()
def look():
    waits = store._waiting or store._writing
    reactor.callLater(0.01, look) if waits else reactor.stop()
reactor.callWhenRunning(store.whether_up, fill)
reactor.run()
"""


def test_redis(with_redis: tuple[Known, Command], tmp_path: Path) -> None:
    known, run = with_redis
    filling = run(["-c", FILL, f"unix:{tmp_path}/redis"])
    assert (filling.returncode, filling.stderr) == (0, "")

    def cache(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run(["-m", "smtpproxy", "cache", *arguments, "-c", str(known.config)])

    listed = cache("list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line.split(";")[0] for line in sorted(listed.stdout.splitlines())] == [
        "192.0.2.1 port 25 in clear as proxy.example.org: early",
        "192.0.2.2 port 25 in clear as proxy.example.org: polite, it offers no early pipelining",
    ]
    assert cache("flush", "192.0.2.1").stdout == "192.0.2.1 is forgotten\n"
    assert cache("show", "192.0.2.1").returncode == 1
    assert cache("flush", "--all").returncode == 0
    assert cache("list").stdout == ""


def test_redis_is_away(tmp_path: Path) -> None:
    pytest.importorskip("txredisapi")
    known = Known(tmp_path, f"unix:{tmp_path}/nobody")
    command = [sys.executable, "-m", "smtpproxy", "cache", "list", "-c", str(known.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Redis is away" in done.stderr
    assert "Traceback" not in done.stderr


def test_redis_password_is_not_in_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Known(tmp_path, "redis://127.0.0.1:1")
    known.config.write_text(known.config.read_text().replace("1'}", "1', password_env: REDIS_PASSWORD}"))
    monkeypatch.delitem(os.environ, "REDIS_PASSWORD", raising=False)
    assert known.run("list") == 1
    assert "REDIS_PASSWORD, which cache.password_env names, is not in the environment" in capsys.readouterr().err
