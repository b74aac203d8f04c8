"""A Postfix on a machine of its own, which hands on all that it gets."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from .lab import STARTING, Process, need_user, open_folder, program, wait_for
from .messages import Sample
from .namespaces import Machine
from .outbound_clients import BACK_OFF, RelayingPostfix
from .postfix import MAIN_CF, MASTER_CF, Settings, _with, master_program

# It keeps nothing for itself, and speaks IPv6 too.
USUAL = {"virtual_mailbox_domains": "", "default_transport": "smtp:", "inet_protocols": "all", **BACK_OFF}


def give(machine: Machine, port: int, message: Sample, *recipients: str) -> None:
    """Hand a message to a server on a port of 127.0.0.1 there."""
    curl = [str(program("curl")), "--silent", "--show-error", "--max-time", "30", "--mail-from", "sender@lab.test"]
    for recipient in recipients:
        curl += ["--mail-rcpt", recipient]
    curl += ["--upload-file", "-", f"smtp://127.0.0.1:{port}/client.lab.test"]
    done = subprocess.run(machine.command(*curl), input=message.wire, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@dataclass
class MachinePostfix(RelayingPostfix):
    """One that runs on `machine`; its port is there too."""

    machine: Machine | None = None

    def start(self) -> None:
        """Write the configuration and start; returns when its port is listened on there."""
        for name in ("etc", "queue", "data", "box"):
            (self.folder / name).mkdir(exist_ok=True)
        main = _with(MAIN_CF.format(folder=self.folder), self.settings)
        for name, text in (("main.cf", main), ("master.cf", MASTER_CF.format(doors=self._doors()))):
            file = self.folder / "etc" / name
            file.write_text(text, encoding="ascii")
            os.utime(file, (0, 0))
        shutil.chown(self.folder / "data", "postfix")
        self._make_queue()
        command = [str(master_program()), "-c", str(self.folder / "etc"), "-d"]
        self.process = process = Process(self._there(*command), self.folder / "start.log")

        def listens() -> bool:
            assert process.popen.poll() is None, process.text()
            shown = subprocess.run(self._there("ss", "-Hltn"), capture_output=True, text=True, check=True)
            return f"127.0.0.1:{self.port} " in shown.stdout

        wait_for(listens, "Postfix to listen", STARTING)

    def _there(self, *command: str) -> list[str]:
        assert self.machine is not None
        return self.machine.command(*command)

    def take(self, message: Sample, *recipients: str) -> None:
        """Hand a message to it."""
        assert self.machine is not None
        give(self.machine, self.port, message, *recipients)

    def flush(self) -> None:
        """Let it try everything in its queue now."""
        command = [str(program("postqueue")), "-c", str(self.folder / "etc"), "-f"]
        subprocess.run(command, capture_output=True, check=True)


@contextlib.contextmanager
def postfix_on(machine: Machine, settings: Settings | None = None) -> Iterator[MachinePostfix]:
    """A started Postfix of that machine; stopped and removed at the end."""
    need_user("postfix")
    program("postfix")
    with open_folder("postfix") as folder:
        server = MachinePostfix(folder, {**USUAL, **(settings or {})}, machine=machine)
        try:
            server.start()
            yield server
        finally:
            server.stop()
