"""One smtpproxy with many listeners, each with a backend of its own: starting a process for each of the ways to
configure it would take most of the time of the tests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from freeports import free_port

from .clients import name_for
from .lab import open_folder, wait_for
from .messages import Sample
from .proxy import LOG, Proxy, Settings, log_time, running, usual_backend, usual_listener


@dataclass
class Way:
    """How one listener and its backend are configured; `server` is a port of 127.0.0.1.

    Settings replace the usual ones (`usual_listener`, `usual_backend`).
    """

    server: int
    backend: Settings = field(default_factory=dict)
    listener: Settings = field(default_factory=dict)


def tls(mode: str, pair: Any, **more: Any) -> Settings:
    """The settings of a listener with TLS; `pair` is a certificate with its key."""
    return {"tls": {"mode": mode, "certificates": [{"cert": str(pair.cert), "key": str(pair.key)}], **more}}


@dataclass
class Front:
    """One listener."""

    name: str
    port: int
    proxy: Proxy

    def watch(self) -> Watch:
        """Watch its part of the log from now on."""
        return Watch(self, log_time())

    def session(self, message: Sample) -> dict[str, Any]:
        """Wait for the log line of the session in which the client with that message said EHLO."""
        return self.sessions(name_for(message), 1)[0]

    def sessions(self, name: str, number: int) -> list[dict[str, Any]]:
        """Wait for the log lines of so many sessions of the client that says EHLO with that name."""

        def look() -> list[dict[str, Any]]:
            found = [one for one in self.events() if one["event"] == "session" and one.get("ehlo") == name]
            return found if len(found) >= number else []

        return wait_for(look, f"{number} sessions of {name} in the log of {self.name}")

    def events(self, *, since: str = "") -> list[dict[str, Any]]:
        """What has been logged of it and of its backend, from a `log_time` on; both have its name."""
        events = self.proxy.events(since=since)
        return [event for event in events if self.name in (event.get("listener"), event.get("backend"))]


class Watch:
    """What is logged of a listener from a moment on."""

    def __init__(self, front: Front, since: str) -> None:
        self._front = front
        self._since = since

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name."""
        return [event for event in self._front.events(since=self._since) if event["event"] == name]

    def several(self, name: str, number: int) -> list[dict[str, Any]]:
        """Wait for so many events of that name; AssertionError if there are more."""
        found = wait_for(
            lambda: events if len(events := self.events(name)) >= number else [],
            f"{number} {name} of {self._front.name}",
        )
        assert len(found) == number, found
        return found

    def one(self, name: str) -> dict[str, Any]:
        """Wait for one event of that name."""
        return self.several(name, 1)[0]


class ManyFronts(Proxy):
    """A running smtpproxy with a listener for each way."""

    def configure(self, ways: dict[str, Way]) -> dict[str, Front]:
        """Take the ways, by their names; the first one's port is the one that is waited for."""
        self.ways = ways
        self.fronts = {name: Front(name, free_port(), self) for name in ways}
        self.port = next(iter(self.fronts.values())).port
        return self.fronts

    def configuration(self) -> Settings:
        """What the YAML file says."""
        return {
            "listeners": [
                usual_listener(name, self.fronts[name].port, name, way.listener) for name, way in self.ways.items()
            ],
            "backends": {name: usual_backend([way.server], way.backend) for name, way in self.ways.items()},
            "log": LOG,
        }


@contextlib.contextmanager
def fronts(ways: dict[str, Way], *arguments: str) -> Iterator[dict[str, Front]]:
    """A started smtpproxy with a listener for each way, by the same names; stopped at the end, which is part of the
    test.
    """
    with open_folder("proxy") as folder:
        instance = ManyFronts(folder, [], arguments=arguments)
        made = instance.configure(ways)
        with running(instance):
            for front in made.values():
                assert instance.process is not None
                instance.process.wait_listening(front.port)
            yield made
