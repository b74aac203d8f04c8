"""The store in a file: it survives everything, is shared, and is done without where it cannot be had."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from smtpproxy.store.ehlo import EhloCache, Key
from smtpproxy.store.sqlite import SqliteStore

from .remotes import CHANGED, DAY, HOUR, KEY, LINES, OTHER, UnixClock, found, made, may_be_early

WRITER = Path(__file__).with_name("writer.py")
ME = Key("192.0.2.1", 25, tls=False, ehlo="me")
LONG = 30.0  # seconds, for what is done in no time


class Ages:
    """Seconds for the age of copies, which the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Workers:
    """Caches over one file, as the processes of a machine have them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = UnixClock()
        self.ages = Ages()
        self.reports: list[str] = []
        self._started: list[tuple[SqliteStore, EhloCache]] = []

    def start(self, **settings: float) -> EhloCache:
        store = SqliteStore(self.path, self.reports.append, monotonic=self.ages)
        cache = made(store, self.clock, **settings)
        self._started.append((store, cache))
        return cache

    def settle(self) -> None:
        """Wait until all of them have written what they have; copies are old then."""
        assert all(store.settle(LONG) for store, _ in self._started)
        self.ages.now += 1.0

    def close(self) -> None:
        for _, cache in self._started:
            cache.close()


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    monkeypatch.setattr("smtpproxy.store.copies._LINGER", 0.0)
    workers = Workers(tmp_path / "cache.db")
    yield workers
    workers.close()


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM ehlo")
        return int(count)


def test_what_happened_is_seen_at_once_by_this_process(workers: Workers) -> None:
    cache = workers.start()
    assert found(cache) is None
    cache.learned(KEY, LINES)
    cache.confirmed(KEY)
    entry = found(cache)
    assert entry is not None
    assert (entry.lines, entry.confirmed) == (LINES, 1)
    cache.flush(KEY, hold_back=False)
    assert not may_be_early(cache)


def test_it_survives_a_restart_with_the_trouble(workers: Workers) -> None:
    cache = workers.start()
    cache.learned(KEY, LINES)
    cache.confirmed(KEY)
    cache.learned(OTHER, CHANGED)
    cache.flush(OTHER, hold_back=True)
    cache.close()
    cache = workers.start()
    entry = found(cache)
    assert entry is not None
    assert (entry.lines, entry.confirmed, entry.early) == (LINES, 1, True)
    cache.confirmed(OTHER)
    assert not may_be_early(cache, OTHER)
    workers.clock.advance(HOUR)
    assert may_be_early(cache, OTHER)
    assert workers.reports == []


def test_the_file_is_for_its_owner_alone(workers: Workers) -> None:
    before = os.umask(0)
    try:
        cache = workers.start()
        cache.learned(KEY, LINES)
        workers.settle()
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in workers.path.parent.iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}
    assert {"cache.db", "cache.db-wal"} <= set(modes)


def test_another_process_sees_what_was_learned_and_flushed(workers: Workers) -> None:
    one, two = workers.start(), workers.start()
    one.learned(KEY, LINES)
    workers.settle()
    assert may_be_early(two)
    two.flush(KEY, hold_back=False)
    workers.settle()
    assert not may_be_early(one)
    one.confirmed(KEY)
    workers.settle()
    assert may_be_early(two)


def test_copies_are_believed_for_half_a_second_only(workers: Workers) -> None:
    one, two = workers.start(), workers.start()
    one.learned(KEY, LINES)
    workers.settle()
    assert may_be_early(two)
    one.flush(KEY, hold_back=True)
    assert workers._started[0][0].settle(LONG)
    workers.ages.now += 0.4
    assert may_be_early(two), "or each look would be one into the file"
    workers.ages.now += 0.2
    assert not may_be_early(two)


def test_a_flush_is_not_lost_by_what_another_writes_later(workers: Workers) -> None:
    one, two = workers.start(), workers.start()
    one.learned(KEY, LINES)
    workers.settle()
    assert may_be_early(two)
    workers.clock.advance(1.0)
    one.flush(KEY, hold_back=True)
    workers.settle()
    two.confirmed(KEY)  # it still knows nothing of the flush
    workers.settle()
    assert not may_be_early(one)
    assert not may_be_early(two)


def test_a_reply_read_before_a_flush_and_written_after_it_gives_nothing_back(workers: Workers) -> None:
    one, two = workers.start(), workers.start()
    one.learned(KEY, LINES)
    workers.settle()
    workers.clock.advance(1.0)
    one.flush(KEY, hold_back=False)
    workers.settle()
    workers.clock.advance(-0.5)
    two.confirmed(KEY)
    workers.clock.advance(0.5)
    workers.settle()
    assert not may_be_early(one)
    assert not may_be_early(two)


def test_confirmations_of_several_processes_add_up(workers: Workers) -> None:
    one, two = workers.start(), workers.start()
    one.learned(KEY, LINES)
    workers.settle()
    for _ in range(100):
        one.confirmed(KEY)
        two.confirmed(KEY)
    workers.settle()
    for cache in (one, two):
        entry = found(cache)
        assert entry is not None
        assert entry.confirmed == 200


def test_confirmations_that_come_late_count_too(workers: Workers) -> None:
    one, two = workers.start(), workers.start()
    one.learned(KEY, LINES)
    workers.settle()
    assert may_be_early(two)
    workers.clock.advance(2.0)
    one.confirmed(KEY)
    workers.settle()
    workers.clock.advance(-1.0)
    two.confirmed(KEY)
    workers.settle()
    entry = found(one)
    assert entry is not None
    assert entry.confirmed == 2


def test_late_news_of_lines_that_are_no_more_confirms_nothing(workers: Workers) -> None:
    one, two = workers.start(), workers.start()
    one.learned(KEY, LINES)
    workers.settle()
    assert may_be_early(two)
    workers.clock.advance(2.0)
    one.learned(KEY, CHANGED)
    workers.settle()
    workers.clock.advance(-1.0)
    two.confirmed(KEY)
    two.confirmed(KEY, LINES)
    workers.settle()
    entry = found(one)
    assert entry is not None
    assert (entry.lines, entry.confirmed) == (CHANGED, 0)


def test_the_number_is_bounded_the_least_recently_used_goes(workers: Workers) -> None:
    cache = workers.start(entries=10)
    for port in range(1, 31):
        cache.learned(KEY._replace(port=port), LINES)
        workers.clock.advance(1.0)
        if port > 2:
            cache.confirmed(KEY._replace(port=2))
        workers.settle()
    workers.close()
    assert rows(workers.path) == 10
    known = [port for port in range(1, 31) if found(workers.start(), KEY._replace(port=port))]
    assert known == [2, *range(22, 31)]


def test_what_has_expired_goes_from_the_file(workers: Workers) -> None:
    cache = workers.start()
    cache.learned(KEY, LINES)
    cache.close()
    workers.clock.advance(DAY + 1)
    cache = workers.start()
    cache.close()
    assert rows(workers.path) == 0


def test_a_record_that_cannot_be_read_is_learned_anew(workers: Workers) -> None:
    workers.start().learned(KEY, LINES)
    workers.settle()
    with closing(sqlite3.connect(workers.path)) as connection, connection:
        connection.execute("UPDATE ehlo SET record = ?", (b"\xff\xfe",))
    cache = workers.start()
    assert found(cache) is None
    cache.learned(KEY, CHANGED)
    workers.settle()
    assert may_be_early(workers.start())
    assert workers.reports == []


def test_another_generation_takes_the_store_over(workers: Workers) -> None:
    cache = workers.start()
    cache.learned(KEY, LINES)
    cache.flush(KEY, hold_back=True)
    cache.confirmed(KEY)
    assert not may_be_early(cache)
    threads = set(threading.enumerate())
    again = made(workers._started[0][0], workers.clock, hold_back=0.0)
    assert may_be_early(again)
    assert set(threading.enumerate()) <= threads


def test_a_file_that_cannot_be_read_just_now(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = workers.start()
    cache.learned(KEY, LINES)
    workers.settle()

    def locked(*_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    done: list[object] = []
    for name in ("get", "all", "forget"):
        monkeypatch.setattr(workers._started[0][0]._reader, name, locked)
    assert may_be_early(cache), "the copy is better than nothing"
    assert found(cache, OTHER) is None
    cache.all(done.append)
    cache.forget([OTHER], done.append)
    assert done == [None, False]
    assert workers.reports == []


def test_what_is_forgotten_is_forgotten_by_the_others(workers: Workers) -> None:
    one, two = workers.start(), workers.start()
    one.learned(KEY, LINES)
    one.learned(OTHER, LINES)
    workers.settle()
    assert may_be_early(two)
    done: list[bool] = []
    one.forget([KEY], done.append)
    workers.settle()
    assert [found(cache, key) is None for cache in (one, two) for key in (KEY, OTHER)] == [True, False] * 2
    one.forget(None, done.append)
    workers.settle()
    assert found(two, OTHER) is None
    assert done == [True, True]


def goes_on(workers: Workers) -> None:
    """Without a file it works all the same, for itself."""
    cache = workers.start()
    cache.learned(KEY, LINES)
    assert may_be_early(cache)
    cache.flush(KEY, hold_back=True)
    cache.confirmed(KEY)
    assert not may_be_early(cache)
    workers.clock.advance(HOUR)
    assert may_be_early(cache)
    listed: list[int] = []
    cache.all(lambda records: listed.append(len(records or [])))
    cache.forget(None, listed.append)
    assert listed == [1, 1]
    assert found(cache) is None
    [report] = workers.reports
    assert report.startswith(f"{workers.path}: ")
    assert report.endswith("; the EHLO cache is kept in memory only")


def test_a_file_that_is_no_database(workers: Workers) -> None:
    workers.path.write_bytes(b"no database at all, but long enough to look at" * 100)
    goes_on(workers)
    assert "not a database" in workers.reports[0]


def test_a_file_of_something_else_is_left_alone(workers: Workers) -> None:
    with closing(sqlite3.connect(workers.path)) as connection, connection:
        connection.execute("CREATE TABLE precious (data)")
    goes_on(workers)
    assert "database of something else" in workers.reports[0]
    with closing(sqlite3.connect(workers.path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("precious",)]


def test_a_file_of_a_later_version_is_left_alone(workers: Workers) -> None:
    with closing(sqlite3.connect(workers.path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    goes_on(workers)
    assert "later version" in workers.reports[0]


def test_a_folder_that_is_not_there_is_not_made(workers: Workers) -> None:
    workers.path = workers.path.parent / "missing" / "cache.db"
    goes_on(workers)
    assert "No such file or directory" in workers.reports[0]
    assert not workers.path.parent.exists()


@pytest.mark.parametrize(("mode", "why"), [(0o444, "Permission denied"), (0o666, "readonly database")])
def test_a_folder_that_may_only_be_read(workers: Workers, mode: int, why: str) -> None:
    root = os.geteuid() == 0
    with TemporaryDirectory() as name:  # the folder of a test cannot be looked into by another user
        folder = Path(name)
        workers.path = folder / "cache.db"
        workers.start().close()
        workers.path.chmod(mode)
        folder.chmod(0o555)
        if root:  # who may write everywhere
            os.seteuid(65534)
        try:
            goes_on(workers)
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)
    assert why in workers.reports[0]


@pytest.mark.parametrize("by", ["reading", "writing"])
def test_a_file_that_is_ruined_while_we_run(workers: Workers, by: str) -> None:
    cache = workers.start()
    cache.learned(KEY, LINES)
    workers.settle()
    with closing(sqlite3.connect(workers.path, isolation_level=None)) as connection:
        connection.execute("UPDATE ehlo SET used = used + 1")  # so that nobody believes his own cache
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with workers.path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)  # behind the page that says what is in the file
        file.write(b"\xa5" * (size - 4096))
    if by == "writing":
        workers.ages.now -= 1.0
        cache.learned(OTHER, LINES)
    else:
        assert may_be_early(cache)
    wait_until(lambda: bool(workers.reports))
    assert may_be_early(cache)
    cache.learned(OTHER, CHANGED)
    assert may_be_early(cache, OTHER)
    [report] = workers.reports
    assert report.endswith("the EHLO cache is kept in memory only")


def wait_until(true: Callable[[], bool]) -> None:
    """For what another thread does; fails after a long time."""
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_cannot_be_written_now_is_written_later(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpproxy.store.sqlite._WRITE_PATIENCE", 0.01)
    monkeypatch.setattr("smtpproxy.store.sqlite._PAUSE", 0.01)
    cache = workers.start()
    with closing(sqlite3.connect(workers.path, isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        cache.learned(KEY, LINES)
        wait_until(lambda: bool(workers.reports))
        cache.flush(KEY, hold_back=True)
        assert not may_be_early(cache)
    workers.settle()
    locked, again = workers.reports
    assert "locked" in locked
    assert again.endswith("written again")
    entry = found(workers.start())
    assert entry is not None
    assert not entry.early


def test_only_so_much_waits_for_the_file(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpproxy.store.copies._MOST_WAITING", 10)
    monkeypatch.setattr("smtpproxy.store.copies._LINGER", LONG)
    cache = workers.start()
    for port in range(1, 31):
        cache.learned(KEY._replace(port=port), LINES)
    cache.close()
    assert rows(workers.path) == 10


def test_only_so_many_copies_are_kept(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpproxy.store.copies._MOST_COPIES", 10)
    cache = workers.start()
    for port in range(1, 31):
        cache.learned(KEY._replace(port=port), LINES)
        workers.settle()
    assert len(workers._started[0][0]._copies.items()) == 10
    assert all(found(cache, KEY._replace(port=port)) for port in range(1, 31))


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a process that writes to the file."""
    processes: list[subprocess.Popen[str]] = []

    def start(what: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(WRITER), str(tmp_path / "cache.db"), what]
        started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(started)
        return started

    yield start
    for started in processes:
        started.kill()
        started.communicate()


Start = Callable[[str], subprocess.Popen[str]]


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_process_that_is_killed_leaves_what_it_has_written(process: Start, tmp_path: Path) -> None:
    writer = process("learn")
    written = 0
    while written < 500:
        written = int(line_of(writer))
    writer.send_signal(signal.SIGKILL)
    writer.wait(LONG)
    reports: list[str] = []
    cache = EhloCache(SqliteStore(tmp_path / "cache.db", reports.append), clock=time.time)
    known = [port for port in range(1, written + 1) if may_be_early(cache, ME._replace(port=port))]
    cache.learned(OTHER, LINES)
    cache.close()
    assert known == list(range(1, written + 1))
    assert reports == []


def test_another_process_flushes_and_it_is_seen(process: Start, tmp_path: Path) -> None:
    ages, reports = Ages(), list[str]()
    store = SqliteStore(tmp_path / "cache.db", reports.append, monotonic=ages)
    cache = EhloCache(store, clock=time.time)
    cache.learned(ME, LINES)
    assert store.settle(LONG)
    assert line_of(process("flush")) == "flushed"
    ages.now += 0.5
    cache.confirmed(ME)
    assert not may_be_early(cache, ME)
    cache.close()
    assert reports == []


def test_processes_that_begin_at_once_and_write_at_once_lose_nothing(process: Start, tmp_path: Path) -> None:
    writers = [process("count") for _ in range(3)]
    reports: list[str] = []
    store = SqliteStore(tmp_path / "cache.db", reports.append)
    cache = EhloCache(store, clock=time.time)
    assert [line_of(writer) for writer in writers] == ["counted"] * 3
    cache.learned(ME, LINES)
    assert store.settle(LONG)
    again = [process("count") for _ in range(3)]
    assert [line_of(writer) for writer in again] == ["counted"] * 3
    cache.close()
    cache = EhloCache(SqliteStore(tmp_path / "cache.db", reports.append), clock=time.time)
    entry = found(cache, ME)
    cache.close()
    assert entry is not None
    assert entry.confirmed == 300
    assert reports == []


def test_no_thread_is_left_behind(workers: Workers) -> None:
    before = set(threading.enumerate())
    workers.start()
    (writer,) = set(threading.enumerate()) - before
    workers.close()
    assert not writer.is_alive()
