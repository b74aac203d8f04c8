"""smtpproxy itself, as a user runs it: a YAML file and `python -m smtpproxy run -c FILE` in a process of
its own.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from freeports import free_port

from .lab import Process, open_folder, whole_lines

Settings = dict[str, Any]

LOG = {"format": "json", "to": "stderr", "level": "info"}


def log_time() -> str:
    """The present as a line of the log has it.

    What happened before may be written later: how many lines there are tells nothing of what is yet to happen.
    """
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def usual_listener(name: str, port: int, backend: str, changes: Settings) -> Settings:
    """The settings of a listener on a port of 127.0.0.1; those of `changes` replace others, None leaves one out."""
    usual: Settings = {
        "name": name,
        "mode": "inbound",
        "listen": [f"127.0.0.1:{port}"],
        "backend": backend,
        "recipient_domains": ["lab.test"],
        "hostname": "proxy.lab.test",
        "early_pipelining": {"advertise_to": ["all"]},
        "limits": {"sessions_per_client": 500},
    }
    return {key: value for key, value in (usual | changes).items() if value is not None}


def usual_backend(ports: list[int], changes: Settings) -> Settings:
    """The settings of a backend: servers on these ports of 127.0.0.1, in order of preference."""
    return {"servers": [f"127.0.0.1:{port}" for port in ports], **changes}


@dataclass
class Proxy:
    """A running smtpproxy with one listener and one backend."""

    running: ClassVar[list[Proxy]] = []
    folder: Path
    backends: list[int]
    backend_settings: Settings = field(default_factory=dict)
    listener_settings: Settings = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: Process | None = None
    arguments: tuple[str, ...] = ()

    def configuration(self) -> Settings:
        """What the YAML file says; the settings of a test replace those of the same name."""
        return {
            "listeners": [usual_listener("mx", self.port, "legacy", self.listener_settings)],
            "backends": {"legacy": usual_backend(self.backends, self.backend_settings)},
            "log": LOG,
        }

    def start(self) -> None:
        """Write the file and start; returns when the port is listened on."""
        file = self.folder / "smtpproxy.yaml"
        # JSON is YAML too, and never has aliases, which smtpproxy does not take.
        file.write_text(json.dumps(self.configuration(), indent=1), encoding="ascii")
        self.process = Process(
            [sys.executable, "-m", "smtpproxy", "run", "-c", str(file), *self.arguments],
            self.folder / "smtpproxy.log",
        )
        self.process.wait_listening(self.port)

    def log(self) -> str:
        """Everything that it has written so far."""
        return (self.folder / "smtpproxy.log").read_text(encoding="utf-8", errors="replace")

    def events(self, name: str = "", *, since: str = "") -> list[dict[str, Any]]:
        """The events logged so far (those called `name`, from a `log_time` on); AssertionError if a line is not a JSON
        object.
        """
        events = []
        for line in whole_lines(self.log()):
            try:
                event = json.loads(line)
            except ValueError:
                raise AssertionError(f"a log line that is not JSON: {line!r}") from None
            assert isinstance(event, dict), line
            if (not name or event.get("event") == name) and event["time"] >= since:
                events.append(event)
        return events

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.popen.send_signal(number)

    def stop(self) -> None:
        """SIGTERM; AssertionError unless it ends by itself, with exit status 0, having written nothing but
        JSON lines.
        """
        if self.process is not None:
            self.signal(signal.SIGTERM)
            self.ended()

    def ended(self) -> None:
        """Wait for the end of a proxy that has been told to stop; AssertionError as `stop`."""
        assert self.process is not None
        try:
            status = self.process.popen.wait(45.0)
        finally:
            process, self.process = self.process, None
            process.stop()
        assert status == 0, f"smtpproxy ended with status {status}:\n{process.text()[-4000:]}"
        assert self.events("stopped"), process.text()[-4000:]


@contextlib.contextmanager
def proxy(
    *backends: int,
    backend: Settings | None = None,
    listener: Settings | None = None,
    arguments: tuple[str, ...] = (),
) -> Iterator[Proxy]:
    """A started smtpproxy in front of servers on these ports of 127.0.0.1, in order of preference.

    `backend` and `listener` add to (or replace) keys of the configuration, `arguments` to the command line.
    Stopped at the end, which is part of the test.
    """
    with open_folder("proxy") as folder:
        instance = Proxy(folder, list(backends), backend or {}, listener or {}, arguments=arguments)
        with running(instance):
            yield instance


@contextlib.contextmanager
def running(instance: Proxy) -> Iterator[None]:
    """Start an smtpproxy, and stop it at the end, which is part of the test."""
    Proxy.running.append(instance)
    try:
        instance.start()
        yield
    except BaseException:
        # The reason is known: its exit status must not hide it.  What it has logged may explain it.
        if instance.process is not None:
            instance.process.stop()
        sys.stderr.write(instance.log()[-6000:])
        raise
    else:
        instance.stop()
    finally:
        Proxy.running.remove(instance)
