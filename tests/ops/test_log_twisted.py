"""Twisted's own events in our log."""

import io
import json
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.logger import ILogObserver, LogBeginner, Logger, LogPublisher
from twisted.python import log as legacy
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject  # type: ignore[import-untyped]  # zope ships no types

from smtpproxy.ops.log import EventLog
from smtpproxy.ops.logsinks import FileSink
from smtpproxy.ops.logtwisted import TEXT_LIMIT, TRACEBACK_LIMIT, TwistedLog


class Log:
    """An observer, and what it has written."""

    def __init__(self, path: Path, level: str) -> None:
        self.path = path
        self.sink = FileSink(str(path), lambda _: None)
        self.handed: list[Callable[[], None]] = []
        self.observer = TwistedLog(EventLog(self.sink, "json", level, lambda: 0.0), self.handed.append)
        self.twisted = Logger("some.where", observer=LogPublisher(self.observer))

    def events(self) -> list[dict[str, str]]:
        """Read what has been written."""
        self.sink.flush()
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log", "debug")


def failure(text: str, depth: int = 0) -> Failure:
    """Make a failure with a traceback."""

    def deeper(left: int) -> None:
        if not left:
            raise ValueError(text)
        deeper(left - 1)

    try:
        deeper(depth)
    except ValueError:
        return Failure()
    raise AssertionError


def test_it_is_an_observer(log: Log) -> None:
    assert verifyObject(ILogObserver, log.observer)


def test_levels_of_twisted_become_ours(log: Log) -> None:
    log.twisted.debug("a {n}", n=1)
    log.twisted.info("Starting factory {n}", n=2)
    log.twisted.warn("c")
    log.twisted.error("d")
    log.twisted.critical("e")
    events = log.events()
    assert [event["level"] for event in events] == ["debug", "debug", "warning", "error", "error"]
    assert [event["text"] for event in events] == ["a 1", "Starting factory 2", "c", "d", "e"]
    assert {(event["event"], event["namespace"]) for event in events} == {("twisted", "some.where")}


def test_chatter_is_left_out_at_level_info(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", "info")
    log.twisted.info("Starting factory")
    log.twisted.warn("hm")
    assert [event["text"] for event in log.events()] == ["hm"]


def test_failure_is_one_line_with_its_traceback(log: Log) -> None:
    log.twisted.failure("Unhandled {what}", failure("evil\n\x1b[2J"), what="thing")
    (event,) = log.events()
    assert len(log.path.read_text().splitlines()) == 1
    assert "\x1b" not in log.path.read_text()
    assert event["level"] == "error"
    assert event["text"].startswith("Unhandled thing")
    assert event["exception"] == "ValueError: evil\n\x1b[2J"
    assert "in deeper" in event["traceback"]


def test_long_texts_and_tracebacks_are_cut_and_keep_the_exception(log: Log) -> None:
    log.twisted.failure("x" * 5000, failure("the reason", depth=200))
    (event,) = log.events()
    assert event["text"] == "x" * TEXT_LIMIT
    assert event["traceback"].rstrip().endswith("the reason")
    assert "characters left out]" in event["traceback"][:40]
    assert len(event["traceback"]) < TRACEBACK_LIMIT + 50


def test_failures_of_the_old_interface(log: Log) -> None:
    publisher = legacy.LogPublisher(publishPublisher=LogPublisher(log.observer))
    publisher.msg("just talking")
    publisher.msg(isError=1, failure=failure("reason"), why="went wrong")
    publisher.msg(isError=1, failure=failure("reason"), why=None)
    events = log.events()
    assert [event["level"] for event in events] == ["debug", "error", "error"]
    assert [event["text"] for event in events] == ["just talking", "went wrong", "Unhandled Error"]
    assert {event["exception"] for event in events[1:]} == {"ValueError: reason"}


def test_warnings_of_python_are_warnings(log: Log) -> None:
    beginner = LogBeginner(LogPublisher(log.observer), io.StringIO(), sys, warnings)
    beginner.showwarning("old thing", DeprecationWarning, "file.py", 7)
    assert [event["level"] for event in log.events()] == ["warning"]
    assert "old thing" in log.events()[0]["text"]


def test_events_of_other_threads_are_handed_over(log: Log) -> None:
    thread = threading.Thread(target=lambda: log.twisted.error("from afar"))
    thread.start()
    thread.join()
    assert log.events() == []
    (write,) = log.handed
    write()
    assert [event["text"] for event in log.events()] == ["from afar"]
