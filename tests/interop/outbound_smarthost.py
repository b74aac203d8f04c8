"""smtpproxy as a smarthost, between mail servers that hand everything to it and servers of the world.

One process has all the destinations of a module's tests, each a domain with a route of its own; between smtpproxy and
the server of a destination there is a recorder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from freeports import free_port

from .lab import open_folder, wait_for
from .messages import Sample
from .proxy import LOG, Proxy, Settings, running
from .relay import Conversation, RecordingRelay, recording_relay

# What a route says unless a test wants it otherwise: each message has a connection of its own.
ROUTE: Settings = {"tls": {"mode": "none"}, "reuse": False}


@dataclass
class Way:
    """A destination: the port of 127.0.0.1 of its server, what its route says (see `ROUTE`), and whether there is no
    recorder in between.
    """

    server: int
    route: Settings = field(default_factory=dict)
    direct: bool = False


@dataclass
class Destination:
    """A destination of a running smarthost."""

    domain: str
    line: RecordingRelay
    smarthost: Smarthost

    def to(self, name: str = "recipient") -> str:
        """An address there."""
        return f"{name}@{self.domain}"

    def is_about(self, event: dict[str, Any]) -> bool:
        """Whether a line of the log is about the server here."""
        return event.get("remote") == f"127.0.0.1:{self.line.port}"

    def deliveries(self, name: str = "recipient") -> list[dict[str, Any]]:
        """What the log says of the deliveries to an address there, so far."""
        return [event for event in self.smarthost.events("delivery") if f"<{self.to(name)}>" in event["to"].split(",")]

    def conversation(self) -> Conversation:
        """The last one on the line, when it is over."""
        last = self.line.conversations[-1]
        wait_for(lambda: last.closed, f"the end of the conversation with {self.domain}")
        return last

    def next_delivery(self, number: int, name: str = "recipient") -> dict[str, Any]:
        """Wait until there are that many deliveries to an address; gives the last one."""
        found = wait_for(
            lambda: found if len(found := self.deliveries(name)) >= number else [],
            f"{number} deliveries to {self.to(name)} in the log",
        )
        assert len(found) == number, found
        return found[-1]


class Smarthost(Proxy):
    """A running smtpproxy with two outbound listeners, SMTP (`port`) and LMTP (`lmtp`)."""

    def configure(self, ways: dict[str, Way], listener: Settings, others: Settings) -> None:
        """Take the routes by their domains, settings of both listeners, and other sections."""
        self.ways, self.listener, self.others = ways, listener, others
        self.lmtp = free_port()
        self.destinations: dict[str, Destination] = {}

    def nexthop(self, domain: str) -> int:
        """The port that a domain's mail goes to."""
        way = self.ways[domain]
        return way.server if way.direct else self.destinations[domain].line.port

    def configuration(self) -> Settings:
        """What the YAML file says."""
        usual: Settings = {"mode": "outbound", "hostname": "smarthost.lab.test", **self.listener}
        return {
            "listeners": [
                {"name": "smarthost", "listen": [f"127.0.0.1:{self.port}"], **usual},
                {"name": "lmtp", "listen": [f"127.0.0.1:{self.lmtp}"], "protocol": "lmtp", **usual},
            ],
            "routes": [
                {"domain": domain, "nexthops": [f"127.0.0.1:{self.nexthop(domain)}"], **ROUTE, **way.route}
                for domain, way in self.ways.items()
            ],
            "cache": {"store": "memory:"},
            "log": LOG,
            **self.others,
        }


@contextlib.contextmanager
def smarthost(
    ways: dict[str, Way], listener: Settings | None = None, others: Settings | None = None
) -> Iterator[Smarthost]:
    """A started smarthost with a route for each domain; stopped at the end, which is part of the test."""
    with contextlib.ExitStack() as stack:
        instance = Smarthost(stack.enter_context(open_folder("smarthost")), [])
        instance.configure(ways, listener or {}, others or {})
        for domain, way in ways.items():
            if way.direct:
                continue
            line = stack.enter_context(recording_relay(way.server))
            instance.destinations[domain] = Destination(domain, line, instance)
        stack.enter_context(running(instance))
        assert instance.process is not None
        instance.process.wait_listening(instance.lmtp)
        yield instance


def harmless(sample: Sample, size: int = 300) -> Sample:
    """The same message with a body in which nothing looks like a command, so that it may leave early (rule C8)."""
    line = "Grüße, nothing to see here\n..\n.\n".encode()
    return Sample(sample.token, line * (size // len(line) + 1))
