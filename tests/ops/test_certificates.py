"""What becomes of certificates, told to the log."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from smtpproxy.ops.certificates import CertificateLog
from smtpproxy.ops.log import EventLog

UNTIL = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Lines:
    """A sink that remembers what was written, as the objects that the lines are."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.tell_lost: Callable[[int], None] = print

    def write(self, line: str, _level: str = "info") -> None:
        self.events.append(json.loads(line))

    def flush(self) -> None:
        """Nothing waits."""

    def reopen(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """The same."""


def told(lines: Lines) -> CertificateLog:
    log = EventLog(lines, "json", "info", lambda: 0.0)
    return CertificateLog(lambda: log)


def the_event(lines: Lines) -> dict[str, Any]:
    (event,) = lines.events
    del event["time"]
    return event


def test_one_that_is_loaded() -> None:
    lines = Lines()
    told(lines).certificate_loaded("listener mx", "/etc/mx.pem", ("mx.example.org", "*.example.org"), UNTIL)
    assert the_event(lines) == {
        "level": "info",
        "event": "certificate_loaded",
        "owner": "listener mx",
        "file": "/etc/mx.pem",
        "names": ["mx.example.org", "*.example.org"],
        "until": "2026-03-01T12:00:00+00:00",
    }


def test_one_that_is_refused() -> None:
    lines = Lines()
    told(lines).certificate_refused("listener mx", "/etc/mx.pem", "the key is another one's")
    assert the_event(lines) == {
        "level": "error",
        "event": "certificate_refused",
        "owner": "listener mx",
        "file": "/etc/mx.pem",
        "why": "the key is another one's",
    }


@pytest.mark.parametrize("days", [13, 0, -2])
def test_one_that_ends(days: int) -> None:
    lines = Lines()
    told(lines).certificate_expires("backend legacy", "/etc/ca.pem", UNTIL, days)
    event = the_event(lines)
    assert (event["level"], event["event"], event["owner"]) == ("warning", "certificate_expires", "backend legacy")
    assert (event["file"], event["days"], event["until"]) == ("/etc/ca.pem", days, "2026-03-01T12:00:00+00:00")


def test_an_old_profile_is_loud() -> None:
    lines = Lines()
    told(lines).tls_profile_old("listener mx")
    event = the_event(lines)
    assert (event["level"], event["event"], event["owner"]) == ("warning", "tls_profile_old", "listener mx")
    assert "TLS 1.0" in event["why"]


def test_the_log_is_the_one_of_the_moment() -> None:
    """A reload may bring another one."""
    first, second = Lines(), Lines()
    logs = [EventLog(lines, "json", "info", lambda: 0.0) for lines in (first, second)]
    report = CertificateLog(lambda: logs[-1])
    report.tls_profile_old("listener mx")
    logs.pop()
    report.tls_profile_old("listener mx")
    assert len(first.events) == len(second.events) == 1
