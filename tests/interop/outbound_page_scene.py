"""What docs/smarthost.md is tried on: a machine with a mail server and smtpproxy, and the world, where an Exim has the
mail of some domains; and DNS.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import transparent_exim as exim
from .lab import STARTING, Process, missing, open_folder, program, wait_for, whole_lines
from .messages import Sample, Stored, assert_intact
from .namespaces import Machine, machines

TOP = Path(__file__).resolve().parents[2]
DOMAINS = {
    "one.example": "198.51.100.7",
    "two.example": "198.51.100.8",
    "three.example": "198.51.100.9",
    "four.example": "198.51.100.10",
}
EVERYBODY = ("ann@one.example", "ann@two.example", "ann@three.example")
REFUSED, NOWHERE = "refused@one.example", "ann@nowhere.example"
HERE = "192.0.2.20"

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Folders of the page, in a mount namespace of its own: the system sees nothing of them.
PRIVATE = """\
mount --make-rprivate /
cp -a /etc {folder}/etc
mount --bind {folder}/etc /etc
mount -t tmpfs none /var/lib
mkdir -p /etc/smtpproxy
cp {folder}/smarthost.yaml /etc/smtpproxy
PATH={path}
"""


def blocks(heading: str, page: str = "docs/smarthost.md") -> list[str]:
    """The fenced blocks below a heading of a page, up to the next heading of the same or a higher level."""
    text = (TOP / page).read_text("utf-8")
    begin = text.index(f"\n{heading}\n") + 1
    level = heading.partition(" ")[0]
    end = re.search(rf"^#{{2,{len(level)}}} ", text[begin + len(heading) :], re.MULTILINE)
    part = text[begin : begin + len(heading) + end.start()] if end else text[begin:]
    return [content for _, content in FENCED.findall(part)]


class House:
    """The mail server's machine, and the world."""

    def __init__(self, folder: Path, machine: Machine, world: exim.EximThere) -> None:
        """Nothing runs on the machine yet."""
        self.folder, self.machine, self.world = folder, machine, world
        self._processes: list[Process] = []
        self.proxy: Process

    def command(self, commands: str) -> list[str]:
        """What gives commands of the page; the command smtpproxy is that of these tests."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        script = PRIVATE.format(folder=self.folder, path=path) + commands
        return self.machine.command(str(program("unshare")), "--mount", "sh", "-e", "-c", script)

    def serve(self, configuration: str, commands: str) -> None:
        """Write the file that the page wants to be in /etc/smtpproxy, and give the commands, of which the last one is
        smtpproxy; returns when it has started.
        """
        (self.folder / "smarthost.yaml").write_text(configuration, "utf-8")
        before, _, last = commands.rstrip().rpartition("\n")
        self.proxy = self._run(self.command(f"{before}\nexec {last}"), "smtpproxy.log")

        def started() -> bool:
            assert self.proxy.popen.poll() is None, self.proxy.text()
            return '"event":"started"' in self.proxy.text()

        wait_for(started, "smtpproxy to start", STARTING)
        wait_for(lambda: self._dns.text().strip() == "53", "DNS to be served", STARTING)

    def serve_dns(self) -> None:
        """A resolver at 127.0.0.1, which does not validate."""
        zones = {domain: {"MX": [f"10 mx.{domain}."]} for domain in DOMAINS}
        zones |= {f"mx.{domain}": {"A": [address]} for domain, address in DOMAINS.items()}
        (self.folder / "zones.json").write_text(json.dumps(zones), "ascii")
        command = [sys.executable, str(TOP / "tests/dnsserver.py"), "--port", "53", str(self.folder / "zones.json")]
        self._dns = self._run(self.machine.command(*command), "dns.log")

    def _run(self, command: list[str], log: str) -> Process:
        process = Process(command, self.folder / log)
        self._processes.append(process)
        return process

    def events(self, name: str) -> list[dict[str, Any]]:
        """What smtpproxy has logged under this name."""
        lines = [line for line in whole_lines(self.proxy.text()) if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def close_kept_sessions(self) -> None:
        """By a reload."""
        before = len(self.events("reloaded"))
        self.proxy.popen.send_signal(signal.SIGHUP)
        wait_for(lambda: len(self.events("reloaded")) > before, "a reload")

    def stored(self, message: Sample) -> list[Stored]:
        """What the world has of a message."""
        return [one for one in self.world.box.messages() if one.header(b"X-Token") == message.token.encode()]

    def delivered(self, message: Sample, *recipients: str) -> list[dict[str, Any]]:
        """Wait until a message is there for them, in the log too, and for nobody else; gives the deliveries of now."""

        def arrived() -> list[Stored]:
            there = self.stored(message)
            return there if len(there) >= len(recipients) else []

        assert_intact(wait_for(arrived, f"{message.token} for {recipients}"), message, recipients)
        names = [line.split()[2] for line in self.world.log() if f" id={message.token}@" in line]

        def logged() -> list[dict[str, Any]]:
            found = [
                event for event in self.events("delivery") if any(name in event.get("reply", "") for name in names)
            ]
            return found if sum(event["accepted"] for event in found) == len(recipients) else []

        return wait_for(logged, f"the deliveries of {message.token} in the log")

    def stop(self) -> None:
        """Stop everything; smtpproxy was not in trouble."""
        for process in reversed(self._processes):
            process.stop(first=signal.SIGTERM)
        assert "Traceback" not in self.proxy.text(), self.proxy.text()


@contextlib.contextmanager
def house(pair: Any) -> Iterator[House]:
    """The machines, connected, the world's server with that certificate, and DNS; smtpproxy does not run yet."""
    for name in ("ip", "ss", "mount"):
        program(name)
    if subprocess.run([str(program("unshare")), "--mount", "true"], capture_output=True, check=False).returncode != 0:
        missing("no mount namespace can be made here (unshare --mount)")
    with open_folder("smarthost-page") as folder, machines(2) as (machine, world):
        machine.connect("eth0", world, "eth0")
        machine.address("eth0", f"{HERE}/24")
        world.address("eth0", "192.0.2.1/24")
        for address in DOMAINS.values():
            world.address("lo", f"{address}/32")
        machine.sh("ip route add default via 192.0.2.1")
        there, process = exim.server(world, folder / "world", tuple(DOMAINS.values()), pair, early=False)
        made = House(folder, machine, there)
        try:
            made.serve_dns()
            yield made
            made.stop()
        finally:
            process.stop()
            for process in made._processes:
                process.stop()
