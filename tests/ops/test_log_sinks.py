"""Sinks of the log: collected writing, and nothing that holds up or breaks whoever logs."""

import fcntl
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from smtpproxy.ops.logsinks import WAITING_LIMIT, WRITE_AT, FileSink, StderrSink, SyslogSink

LINE = "x" * 100


class Turns:
    """Stands for the reactor: keeps what is scheduled until the test lets it happen."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, function: Callable[[], None]) -> None:
        self.waiting.append(function)

    def turn(self) -> None:
        """Call what was scheduled until now."""
        due, self.waiting = self.waiting, []
        for function in due:
            function()


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:  # the test closed it
            continue


def drain(fd: int) -> bytes:
    """Read what is there."""
    data = b""
    while True:
        try:
            new = os.read(fd, 1 << 20)
        except BlockingIOError:
            return data
        if not new:
            return data
        data += new


def numbered(count: int) -> list[str]:
    return [f"{number:06d} {LINE}" for number in range(count)]


def test_lines_wait_for_the_turn_and_go_out_together(tmp_path: Path, turns: Turns) -> None:
    path = tmp_path / "log"
    sink = FileSink(str(path), turns)
    sink.write("one")
    sink.write("two é")
    assert len(turns.waiting) == 1
    assert path.read_bytes() == b""
    turns.turn()
    assert path.read_bytes() == "one\ntwo é\n".encode()
    assert not turns.waiting
    sink.write("three")
    sink.close()
    turns.turn()
    sink.write("after the end")
    assert path.read_text() == "one\ntwo é\nthree\n"
    assert not turns.waiting


def test_much_is_written_without_waiting_for_the_turn(tmp_path: Path, turns: Turns) -> None:
    path = tmp_path / "log"
    sink = FileSink(str(path), turns)
    for line in numbered(WRITE_AT // 108 + 1):
        sink.write(line)
    assert path.stat().st_size >= WRITE_AT
    sink.close()


def test_file_is_appended_to_and_not_for_everybody(tmp_path: Path, turns: Turns) -> None:
    path = tmp_path / "log"
    before = os.umask(0)
    try:
        sink = FileSink(str(path), turns)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    sink.write("one")
    sink.close()
    sink = FileSink(str(path), turns)
    sink.write("two")
    sink.close()
    assert path.read_text() == "one\ntwo\n"


def test_rotation_splits_no_line_and_loses_none(tmp_path: Path, turns: Turns) -> None:
    path, old = tmp_path / "log", tmp_path / "log.1"
    sink = FileSink(str(path), turns)
    sink.write("one")
    path.rename(old)
    sink.write("two")
    sink.reopen()
    sink.write("three")
    sink.close()
    assert (old.read_text(), path.read_text()) == ("one\ntwo\n", "three\n")


def test_failed_rotation_keeps_the_old_file(tmp_path: Path, turns: Turns) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = FileSink(str(folder / "log"), turns)
    folder.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        sink.reopen()
    sink.write("still there")
    sink.close()
    assert (tmp_path / "moved" / "log").read_text() == "still there\n"


def test_full_disk_raises_nothing_and_nothing_is_lost_while_there_is_room(tmp_path: Path, turns: Turns) -> None:
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    sink = FileSink(str(path), turns)
    lost: list[int] = []
    sink.tell_lost = lost.append
    sink.write("one")
    turns.turn()
    assert not turns.waiting  # no use in trying again and again
    sink.write("two")
    turns.turn()
    path.unlink()
    sink.reopen()
    assert path.read_text() == "one\ntwo\n"
    assert lost == []
    sink.close()


def test_waiting_lines_are_limited_and_the_lost_ones_told_once(tmp_path: Path, turns: Turns) -> None:
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    sink = FileSink(str(path), turns)
    lost: list[int] = []
    sink.tell_lost = lost.append
    lines = numbered(2 * WAITING_LIMIT // 108)
    for line in lines:
        sink.write(line)
        assert len(sink._waiting) <= WAITING_LIMIT
    turns.turn()
    assert lost == []
    path.unlink()
    sink.reopen()
    written = path.read_text().splitlines()
    assert written == lines[: len(written)]
    assert lost == [len(lines) - len(written)]
    assert len(written) > WAITING_LIMIT // 110
    sink.write("fine again")
    turns.turn()
    assert len(lost) == 1
    sink.close()


def test_line_torn_by_rotation_is_not_continued_in_the_new_file(tmp_path: Path, turns: Turns) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = FileSink(str(path), turns)
    lost: list[int] = []
    sink.tell_lost = lost.append
    lines = numbered(2000)
    for line in lines:
        sink.write(line)
    path.rename(tmp_path / "old")
    sink.reopen()
    sink.close()
    old, new = drain(reader).decode().splitlines(), path.read_text().splitlines()
    os.close(reader)
    assert len(old[-1]) < len(lines[0])
    assert [*old[:-1], lines[len(old) - 1], *new] == lines
    assert lost == [1]


def test_pipe_that_nobody_reads_does_not_block(turns: Turns, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = StderrSink(turns, writer)
    lines = numbered(5000)
    for line in lines:
        sink.write(line)
    turns.turn()
    assert turns.waiting  # it will be tried again
    assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK  # others who share it notice nothing
    data = drain(reader)
    while turns.waiting:
        turns.turn()
        data += drain(reader)
    assert data.decode().splitlines() == lines
    sink.close()
    os.write(writer, b"still the caller's")


def test_pipe_that_cannot_be_opened_again_does_not_block(
    turns: Turns, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        sink = StderrSink(turns, pipe[1])
    blocked_until_read(sink, turns, lambda: drain(pipe[0]))


def test_socket_that_nobody_reads_does_not_block(turns: Turns) -> None:
    reader, writer = socket.socketpair()
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)  # by itself it may hold all that is written
    reader.settimeout(0)
    with reader, writer:
        blocked_until_read(StderrSink(turns, writer.fileno()), turns, lambda: drain(reader.fileno()))


def blocked_until_read(sink: StderrSink, turns: Turns, read: Callable[[], bytes]) -> None:
    lines = numbered(8000)
    for line in lines:
        sink.write(line)
    turns.turn()
    assert turns.waiting
    data = read()
    assert 0 < len(data) < 8000 * 108
    while turns.waiting:
        turns.turn()
        data += read()
    assert data.decode().splitlines() == lines
    sink.close()


def test_stderr_to_a_file_keeps_its_place(turns: Turns, tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb", buffering=0) as file:
        sink = StderrSink(turns, file.fileno())
        sink.write("ours")
        sink.reopen()
        file.write(b"another's\n")
        sink.write("ours again")
        sink.close()
    assert path.read_text() == "ours\nanother's\nours again\n"


def test_broken_pipe_and_closed_stderr_raise_nothing(turns: Turns, pipe: tuple[int, int]) -> None:
    broken = StderrSink(turns, pipe[1])
    os.close(pipe[0])
    closed = StderrSink(turns, os.open("/dev/null", os.O_RDONLY))
    os.close(closed._fd)
    for sink in (broken, closed, StderrSink(turns, 987_654)):
        sink.write("one")
        turns.turn()
        sink.flush()
        assert sink._waiting == b"one\n"
        sink._own_fd = None if sink is closed else sink._own_fd
        sink.close()
    assert not turns.waiting


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    with listen(tmp_path / "syslog") as listener:
        yield listener


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    listener.settimeout(0)
    return listener


def received(listener: socket.socket) -> list[str]:
    datagrams = []
    while True:
        try:
            datagrams.append(listener.recv(65536).decode())
        except BlockingIOError:
            return datagrams


def test_syslog_gets_a_datagram_with_priority_for_each_line(turns: Turns, receiver: socket.socket) -> None:
    sink = SyslogSink("mail", turns, receiver.getsockname())
    sink.write("fine", "info")
    sink.write("bad", "error")
    assert received(receiver) == []
    turns.turn()
    tag = f"smtpproxy[{os.getpid()}]: "
    assert received(receiver) == [f"<22>{tag}fine", f"<19>{tag}bad"]
    other = SyslogSink("local0", turns, receiver.getsockname())
    other.write("look", "warning")
    other.write("detail", "debug")
    other.close()
    assert received(receiver) == [f"<132>{tag}look", f"<135>{tag}detail"]
    sink.close()


def test_syslog_that_comes_late_or_again_gets_the_lines(turns: Turns, tmp_path: Path) -> None:
    path = tmp_path / "syslog"
    sink = SyslogSink("mail", turns, str(path))
    sink.write("one")
    turns.turn()
    assert not turns.waiting
    with listen(path) as first:
        sink.write("two")
        turns.turn()
        assert [line[-3:] for line in received(first)] == ["one", "two"]
    path.unlink()
    sink.write("three")
    with listen(path) as second:
        turns.turn()
        turns.turn()
        assert [line[-5:] for line in received(second)] == ["three"]
        sink.reopen()
        sink.write("four")
        sink.close()
        assert [line[-4:] for line in received(second)] == ["four"]


def test_slow_syslog_does_not_block_and_misses_nothing(turns: Turns, receiver: socket.socket) -> None:
    sink = SyslogSink("mail", turns, receiver.getsockname())
    lines = numbered(3000)
    for line in lines:
        sink.write(line)
    turns.turn()
    assert turns.waiting
    got = received(receiver)
    assert len(got) < len(lines)
    while turns.waiting:
        turns.turn()
        got += received(receiver)
    assert [re.sub(r"^<22>smtpproxy\[\d+\]: ", "", line) for line in got] == lines
    sink.close()


def test_line_too_long_for_syslog_is_lost_alone(turns: Turns, receiver: socket.socket) -> None:
    sink = SyslogSink("mail", turns, receiver.getsockname())
    lost: list[int] = []
    sink.tell_lost = lost.append
    sink.write("x" * (WAITING_LIMIT // 2))
    sink.write("next")
    turns.turn()
    assert [line[-4:] for line in received(receiver)] == ["next"]
    assert lost == [1]
    sink.close()


def test_unknown_facility_is_refused(turns: Turns) -> None:
    with pytest.raises(ValueError, match="unknown syslog facility 'post'"):
        SyslogSink("post", turns)
