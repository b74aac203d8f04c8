"""A private OpenSMTPD: the strictest lock-step server there is (a second command in one segment ends the
session).

opensmtpd_namespace.sh gives it a mount namespace of its own; where that is not permitted its tests are
skipped.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from freeports import free_port

from .lab import Process, files_below, lab_folder, missing, need_root, open_folder, program, unpacked, wait_for
from .messages import Maildir, Stored

SMTPD_CONF = """\
smtp max-message-size "100M"
listen on 127.0.0.1 port {port} hostname mx.lab.test
action keep maildir "{folder}/box" virtual {{ "@" = box }}
match from any for rcpt-to "refused@lab.test" reject
match from any for any action keep
"""


@dataclass
class OpenSmtpd:
    """One private instance."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: Process | None = None

    def __post_init__(self) -> None:
        """The Maildir that it delivers to."""
        self.box = Maildir(self.folder / "box")

    def start(self) -> None:
        """Write the configuration and start; returns when the port is listened on."""
        (self.folder / "smtpd.conf").write_text(SMTPD_CONF.format(port=self.port, folder=self.folder), encoding="ascii")
        script = Path(__file__).with_name("opensmtpd_namespace.sh")
        command = [str(program("unshare")), "-m", "sh", str(script), str(lab_folder()), str(self.folder)]
        self.process = Process(command, self.folder / "smtpd.log")
        self.process.wait_listening(self.port)

    def stop(self) -> None:
        """Stop all of its processes; harmless when it does not run."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def log(self) -> str:
        """What it has written to its log."""
        return (self.folder / "smtpd.log").read_text(encoding="utf-8", errors="replace")

    def queued(self) -> list[Path]:
        """The files of messages not yet delivered, and of sessions in the middle of one."""
        return files_below(self.folder / "spool/smtpd", "incoming", "queue", "temporary")

    def delivered(self, seconds: float = 30.0) -> list[Stored]:
        """Wait until the queue is empty, and give everything ever delivered."""
        wait_for(lambda: not self.queued(), f"an empty queue of OpenSMTPD\n{self.log()[-2000:]}", seconds)
        return self.box.messages()


@contextlib.contextmanager
def opensmtpd() -> Iterator[OpenSmtpd]:
    """A started OpenSMTPD; stopped and removed at the end."""
    need_root("start a private OpenSMTPD")
    unpacked("opensmtpd/usr/sbin/smtpd")
    permitted = subprocess.run([str(program("unshare")), "-m", "true"], capture_output=True, text=True, check=False)
    if permitted.returncode != 0:
        reason = permitted.stderr.strip()
        missing(f"OpenSMTPD needs a mount namespace, and unshare -m is not permitted here: {reason}")
    with open_folder("opensmtpd") as folder:
        server = OpenSmtpd(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
