"""smtpproxy as a user runs it: a YAML file, and ``python -m smtpproxy run -c FILE``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from freeports import free_port

from .waiting import PATIENCE, STARTING, eventually

Settings = dict[str, Any]


def listener(name: str, listen: list[str], backend: str = "mta", **more: Any) -> Settings:
    """The settings of a listener."""
    return {
        "name": name,
        "listen": listen,
        "backend": backend,
        "recipient_domains": ["example.org"],
        "hostname": "proxy.example.org",
    } | more


class Process:
    """A running smtpproxy; what it logs is kept in a file."""

    def __init__(
        self, folder: Path, *, arguments: list[str] | None = None, environment: Settings | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "smtpproxy.yaml"
        self._log = folder / "stderr.log"
        self._arguments = arguments or []
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        """Where the first listener is, unless the test says otherwise."""

    def configure(self, listeners: list[Settings], backends: Settings, **more: Any) -> None:
        """Write the configuration."""
        config = {"listeners": listeners, "backends": backends} | more
        self.file.write_text(yaml.safe_dump(config))

    def simple(self, servers: list[str], *, backend: Settings | None = None, **changes: Any) -> None:
        """Write one with one listener and one backend; ``service`` and ``log`` are parts of the file of their own."""
        more = {key: changes.pop(key) for key in ("service", "log") if key in changes}
        self.configure(
            [listener("mx", [f"127.0.0.1:{self.port}"], **changes)],
            {"mta": {"servers": servers, **(backend or {})}},
            **more,
        )

    def start(self, command: list[str] | None = None, **options: Any) -> Process:
        """Start it; give it back when it says that it has started."""
        usual = [sys.executable, "-m", "smtpproxy", "run", "-c", str(self.file), *self._arguments]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command or usual, stderr=log, stdout=log, stdin=subprocess.DEVNULL, env=self._environment, **options
            )
        self.wait_for("started", patience=STARTING)
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def address(self) -> tuple[str, int]:
        """Where the first listener is."""
        return ("127.0.0.1", self.port)

    def text(self) -> str:
        """Everything that it has written."""
        return self._log.read_text("utf-8", "replace")

    def events(self, name: str = "") -> list[Settings]:
        """What it has logged: every line is a JSON object."""
        lines = self.text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        events = [json.loads(line) for line in whole]
        assert all(isinstance(event, dict) for event in events)
        return [event for event in events if not name or event["event"] == name]

    def wait_for(self, name: str, count: int = 1, *, patience: float = PATIENCE) -> list[Settings]:
        """Wait until so many events of that name are logged; give them."""

        def look() -> list[Settings]:
            assert self.running or self.events(name), f"it has ended: {self.text()}"
            found = self.events(name)
            return found if len(found) >= count else []

        return eventually(look, f"{count} × {name}", patience)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def memory(self) -> int:
        """Octets of memory that it has now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def descriptors(self) -> int:
        """How many it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def ended(self) -> int:
        """Wait for its end; give the exit status."""
        assert self._process is not None
        return self._process.wait(PATIENCE)

    def stop(self) -> None:
        """SIGTERM, which must end it in good order."""
        self.signal(signal.SIGTERM)
        status = self.ended()
        assert status == 0, self.text()
        assert self.events()[-1]["event"] == "stopped"

    def kill(self) -> None:
        """End it, if it has not ended: after a test that failed."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE)
