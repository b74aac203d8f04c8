"""The log as the service uses it: levels, flushing, and the settings that choose it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from smtpproxy.ops.log import EventLog, Level, make_log
from smtpproxy.ops.logsinks import WAITING_LIMIT, FileSink, StderrSink, SyslogSink


@dataclass
class Lines:
    """A sink that remembers."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    tell_lost: Callable[[int], None] = field(default=print)

    def write(self, line: str, level: str = "info") -> None:
        self.lines.append((level, line))

    def flush(self) -> None:
        self.done.append("flush")

    def reopen(self) -> None:
        self.done.append("reopen")
        raise PermissionError(13, "Permission denied")

    def close(self) -> None:
        self.done.append("close")


@dataclass(frozen=True)
class Settings:
    to: str = "stderr"
    format: str = "json"
    level: str = "info"


def later(_: Callable[[], None]) -> None:
    """Never come to it."""


LEVELS: list[Level] = ["debug", "info", "warning", "error"]


@pytest.mark.parametrize("level", LEVELS)
def test_only_events_of_the_level_and_above_are_written(level: Level) -> None:
    sink = Lines()
    journal = EventLog(sink, "keyvalue", level, lambda: 0.0)
    journal.debug("a", {"n": 1})
    journal.info("b", {"n": 1})
    journal.warning("c", {"n": 1})
    journal.error("d", {"n": 1})
    expected = LEVELS[LEVELS.index(level) :]
    assert [level for level, _ in sink.lines] == expected
    assert [level for level in LEVELS if journal.enabled(level)] == expected
    assert sink.lines[-1][1] == "time=1970-01-01T00:00:00.000Z level=error event=d n=1"


def test_errors_are_written_at_once_others_wait() -> None:
    sink = Lines()
    journal = EventLog(sink, "json", "debug", lambda: 0.0)
    journal.debug("a", {})
    journal.info("b", {})
    journal.warning("c", {})
    assert sink.done == []
    journal.error("d", {})
    assert sink.done == ["flush"]
    journal.flush()
    journal.close()
    assert sink.done == ["flush", "flush", "close"]


def test_failed_reopening_is_an_event_not_an_exception() -> None:
    sink = Lines()
    EventLog(sink, "keyvalue", "error", lambda: 0.0).reopen()
    ((_, line),) = sink.lines
    assert line == (
        'time=1970-01-01T00:00:00.000Z level=error event=log_reopen_failed error="[Errno 13] Permission denied"'
    )


def test_lost_lines_are_told_in_the_log_itself_whatever_its_level(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    journal = make_log(Settings(to=f"file:{path}", level="error"), later, lambda: 0.0)
    for _ in range(5):
        journal.error("big", {"text": "x" * (WAITING_LIMIT // 3)})
    path.unlink()
    journal.reopen()
    journal.close()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["event"] for event in events] == ["big", "big", "log_lines_lost"]
    assert events[-1]["lines"] == 3
    assert events[-1]["level"] == "warning"


@pytest.mark.parametrize(
    ("to", "kind"),
    [
        ("stderr", StderrSink),
        ("file:/dev/null", FileSink),
        ("syslog", SyslogSink),
        ("syslog:local3", SyslogSink),
    ],
)
def test_settings_choose_the_sink(to: str, kind: type) -> None:
    journal = make_log(Settings(to=to), later, lambda: 0.0)
    assert type(journal._sink) is kind
    journal.close()


def test_syslog_without_a_facility_is_mail() -> None:
    default, mail = (make_log(Settings(to=to), later, lambda: 0.0) for to in ("syslog", "syslog:mail"))
    assert isinstance(default._sink, SyslogSink)
    assert isinstance(mail._sink, SyslogSink)
    assert default._sink._prefixes == mail._sink._prefixes


def test_settings_choose_format_and_level(tmp_path: Path) -> None:
    path = tmp_path / "log"
    journal = make_log(Settings(to=f"file:{path}", format="keyvalue", level="warning"), later, lambda: 0.0)
    journal.info("a", {})
    journal.warning("b", {})
    journal.close()
    assert path.read_text() == "time=1970-01-01T00:00:00.000Z level=warning event=b\n"


@pytest.mark.parametrize(
    "settings",
    [
        Settings(to="paper"),
        Settings(to="file:"),
        Settings(to="stderr:2"),
        Settings(format="xml"),
        Settings(level="loud"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"unknown log|expected stderr"):
        make_log(settings, later, lambda: 0.0)


def test_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_log(Settings(to=f"file:{tmp_path}/no/such"), later, lambda: 0.0)
