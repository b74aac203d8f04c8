"""The log of the service: one structured line for each event, in the format and to the place configured.

Deliberately not the standard library's logging: two lines for each session at thousands of sessions a second
leave no room for its records. logformat.py makes the lines, logsinks.py writes them, logtwisted.py brings in
what Twisted says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from smtpproxy.ops.logformat import FORMATS, Fields
from smtpproxy.ops.logsinks import FileSink, Schedule, Sink, StderrSink, SyslogSink

Level = Literal["debug", "info", "warning", "error"]
LEVELS: dict[str, int] = {"debug": 0, "info": 1, "warning": 2, "error": 3}
"""The levels by weight; the methods of EventLog know them by heart."""
DEFAULT_FACILITY = "mail"
"""Facility of "syslog" without one."""


class LogSettings(Protocol):
    """The part `log` of the configuration."""

    @property
    def format(self) -> str:
        """Either json or keyvalue."""

    @property
    def to(self) -> str:
        """One of stderr, file:/path, syslog, syslog:facility."""

    @property
    def level(self) -> str:
        """The least level that is written: debug, info, warning or error."""


class EventLog:
    """Writes events as lines. For the reactor's thread only, as its sinks are."""

    __slots__ = ("_clock", "_format", "_sink", "_threshold")

    def __init__(self, sink: Sink, format: str, level: str, clock: Callable[[], float]) -> None:  # noqa: A002  # the setting's name
        """Take where lines go, their format, the least level, and a clock: seconds since 1970.

        Raises ValueError for an unknown format or level.
        """
        if format not in FORMATS:
            raise ValueError(f"unknown log format {format!r}: one of {', '.join(FORMATS)}")
        if level not in LEVELS:
            raise ValueError(f"unknown log level {level!r}: one of {', '.join(LEVELS)}")
        self._sink = sink
        self._format = FORMATS[format]()
        self._threshold = LEVELS[level]
        self._clock = clock
        sink.tell_lost = self._tell_lost

    def enabled(self, level: Level) -> bool:
        """Tell whether events of this level are written: to save the making of costly fields."""
        return LEVELS[level] >= self._threshold

    def debug(self, event: str, fields: Fields) -> None:
        """Write an event of interest only to someone who hunts a fault."""
        if self._threshold == 0:
            self._emit("debug", event, fields)

    def info(self, event: str, fields: Fields) -> None:
        """Write an event of normal operation."""
        if self._threshold <= 1:
            self._emit("info", event, fields)

    def warning(self, event: str, fields: Fields) -> None:
        """Write an event that someone should look at."""
        if self._threshold <= 2:
            self._emit("warning", event, fields)

    def error(self, event: str, fields: Fields) -> None:
        """Write an event that needs repair, at once: the process may not live long."""
        self._emit("error", event, fields)
        self._sink.flush()

    def flush(self) -> None:
        """Write what waits."""
        self._sink.flush()

    def reopen(self) -> None:
        """Open the destination anew (SIGHUP, log rotation).

        If that fails the old one is kept, and the log says so.
        """
        try:
            self._sink.reopen()
        except OSError as error:
            self.error("log_reopen_failed", {"error": str(error)})

    def close(self) -> None:
        """Write what waits and close the destination."""
        self._sink.close()

    def _emit(self, level: Level, event: str, fields: Fields) -> None:
        self._sink.write(self._format.line(self._clock(), level, event, fields), level)

    def _tell_lost(self, lines: int) -> None:
        # Whatever the level: whoever reads must know that something is missing.
        self._emit("warning", "log_lines_lost", {"lines": lines})


def make_log(settings: LogSettings, schedule: Schedule, clock: Callable[[], float]) -> EventLog:
    """Make the log that the settings ask for.

    `schedule` calls a function once, FLUSH_DELAY (see logsinks.py) seconds later; `clock` gives seconds since
    1970. Raises OSError if the file cannot be opened, ValueError for settings that mean nothing.
    """
    return EventLog(_make_sink(settings.to, schedule), settings.format, settings.level, clock)


def _make_sink(to: str, schedule: Schedule) -> Sink:
    kind, _, rest = to.partition(":")
    if to == "stderr":
        return StderrSink(schedule)
    if kind == "file" and rest:
        return FileSink(rest, schedule)
    if kind == "syslog":
        return SyslogSink(rest or DEFAULT_FACILITY, schedule)
    raise ValueError(f"log to {to!r}: expected stderr, file:/path, syslog or syslog:facility")
