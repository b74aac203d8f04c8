"""The try-out of docs/old-server-modern-tls.md, word for word, in an empty directory on a machine of its own.

What the page shows as output must be in the output, line by line.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import Process, open_folder, program, wait_for
from .namespaces import Machine, machines

pytestmark = pytest.mark.interop

PAGE = Path(__file__).resolve().parents[2] / "docs/old-server-modern-tls.md"
OLD_SERVER, PROXY = "terminal 1", "terminal 2, and leave it running"
READY = {OLD_SERVER: "Now send something yourself", PROXY: '"event":"started"'}
FENCED = re.compile(r"```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"Save this as `([\w.]+)`:\n\n$")


def steps() -> Iterator[tuple[str, str, str]]:
    """What the try-out says, in order: a file with its name, or commands with where they are given; and what is shown
    below the commands.
    """
    text = PAGE.read_text(encoding="utf-8")
    begin = text.index("\n## Try it out\n")
    part = text[begin : text.index("\n## ", begin + 1)]
    blocks = list(FENCED.finditer(part))
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        between = part[block.end() : following.start() if following else len(part)]
        shown = "\n".join(re.findall(r"^    (.+)$", between, re.MULTILINE))
        if block[1] == "yaml":
            name = FILE.search(part[: block.start()])
            assert name is not None, "a file without a name"
            yield f"file {name[1]}", block[2], shown
        else:
            head, _, commands = block[2].partition("\n")
            assert (block[1], head[:2]) == ("sh", "# "), block[2]
            yield head[2:], commands, shown


class Reader:
    """Somebody who follows the page."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.folder = folder / "empty"
        self.folder.mkdir()
        self.notes = folder
        self.running: dict[str, Process] = {}

    def _shell(self, commands: str) -> list[str]:
        """A shell in the empty directory, in which the command smtpproxy is that of these tests."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        script = f"cd {shlex.quote(str(self.folder))}\nPATH={shlex.quote(path)}\n{commands}"
        # Whoever runs the tests in the background of a shell ignores SIGINT, and so would all that they start.
        return self.machine.command("env", "--default-signal=INT", "sh", "-e", "-c", script)

    def do(self, commands: str) -> str:
        """Give commands, and read what they write."""
        done = subprocess.run(
            self._shell(f"exec 2>&1\n{commands}"), capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{self.said()}"
        return done.stdout

    def leave_running(self, terminal: str, commands: str) -> str:
        """Give a command that does not end; give what it has written when it is ready."""
        process = Process(self._shell(commands), self.notes / f"{len(self.running)}.log")
        self.running[terminal] = process

        def ready() -> bool:
            assert process.popen.poll() is None, process.text()
            return READY[terminal] in process.text()

        wait_for(ready, f"{commands} to be ready", 60.0)
        return process.text()

    def said(self) -> str:
        """What runs has written."""
        return "\n".join(process.text() for process in self.running.values())

    def press_ctrl_c(self) -> None:
        """End what runs, as a terminal does it. Raises subprocess.TimeoutExpired for what does not end."""
        for process in reversed(self.running.values()):
            if process.popen.poll() is None:
                os.killpg(process.popen.pid, signal.SIGINT)
                process.popen.wait(30.0)


@pytest.fixture
def reader() -> Iterator[Reader]:
    for name in ("openssl", "swaks", "curl"):
        program(name)
    with open_folder("page") as folder, machines(1) as (machine,):
        made = Reader(machine, folder)
        try:
            yield made
            made.press_ctrl_c()
        finally:
            for process in made.running.values():
                process.stop(first=signal.SIGINT)


def test_the_try_out_works_word_for_word(reader: Reader) -> None:
    for place, content, shown in steps():
        if place.startswith("file "):
            (reader.folder / place.removeprefix("file ")).write_text(content, encoding="utf-8")
            continue
        output = reader.leave_running(place, content) if place in READY else reader.do(content)
        for line in shown.splitlines():
            assert line.strip() in output, f"{line}\nis not in the output of\n{content}\n{output}"
    assert set(reader.running) == set(READY)
    check_the_end(reader)


def check_the_end(reader: Reader) -> None:
    """What the page says at the end of the try-out."""
    arrived = "<me@client.example> → <user@demo.example>"
    wait_for(lambda: reader.running[OLD_SERVER].text().count(arrived) == 4, "four messages")
    reader.press_ctrl_c()
    events = [json.loads(line) for line in reader.running[PROXY].text().splitlines()]
    sessions = [event for event in events if event["event"] == "session"]
    assert len(sessions) == 6, sessions
    assert {(one["tls"], one["cipher"]) for one in sessions} == {("TLSv1.3", "TLS_AES_256_GCM_SHA384")}
    # openssl's two just close.
    assert sorted(one["end"] for one in sessions) == ["client closed the connection"] * 2 + ["quit"] * 4
