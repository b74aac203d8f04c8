"""What Twisted itself has to say (failures nobody handled, warnings, its own chatter) as lines of our log."""

from __future__ import annotations

import threading
from collections.abc import Callable

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpproxy.ops.log import EventLog, Level

TEXT_LIMIT = 2048
"""Characters of a message that are kept."""
TRACEBACK_LIMIT = 8192
"""Characters of a traceback that are kept: the last ones, which name the exception."""


@implementer(ILogObserver)
class TwistedLog:
    """An observer for twisted.logger that writes each event as one line "twisted" to an EventLog.

    Fields: namespace (who speaks), text, and for failures exception and traceback.
    """

    def __init__(self, log: EventLog, hand_over: Callable[[Callable[[], None]], object]) -> None:
        """Take the log and a way into the reactor's thread (its callFromThread).

        Twisted calls observers in whatever thread an event comes from; the log is only for the thread that
        makes this object, so events of others are handed over.
        """
        self._log = log
        self._hand_over = hand_over
        self._thread = threading.get_ident()

    def __call__(self, event: LogEvent) -> None:
        """Write one event (ILogObserver)."""
        level = _level(event)
        if not self._log.enabled(level):
            return
        fields = _fields(event)
        if threading.get_ident() == self._thread:
            self._write(level, fields)
        else:
            self._hand_over(lambda: self._write(level, fields))

    def _write(self, level: Level, fields: dict[str, str | None]) -> None:
        if level == "error":
            self._log.error("twisted", fields)
        elif level == "warning":
            self._log.warning("twisted", fields)
        else:
            self._log.debug("twisted", fields)


def _level(event: LogEvent) -> Level:
    """Give our level: what Twisted calls information (factories, ports, its main loop) interests few."""
    level = event.get("log_level")
    if level in (LogLevel.error, LogLevel.critical):
        return "error"
    if level is LogLevel.warn:
        return "warning"
    return "debug"


def _fields(event: LogEvent) -> dict[str, str | None]:
    failure, text = event.get("log_failure"), formatEvent(event)
    if "failure" in event:  # from twisted.python.log.err, which puts the traceback into the text
        failure, text = event["failure"], str(event.get("why") or "Unhandled Error")
    fields = {"namespace": event.get("log_namespace"), "text": text[:TEXT_LIMIT]}
    if isinstance(failure, Failure):
        fields["exception"] = f"{type(failure.value).__name__}: {failure.getErrorMessage()}"[:TEXT_LIMIT]
        fields["traceback"] = _tail(failure.getTraceback())
    return fields


def _tail(text: str) -> str:
    if len(text) <= TRACEBACK_LIMIT:
        return text
    return f"[{len(text) - TRACEBACK_LIMIT} characters left out]{text[-TRACEBACK_LIMIT:]}"
