"""Mail servers as clients of a smarthost: they take mail from a test and hand all of it on."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .lab import Process, lab_folder, missing, need_root, need_user, open_folder, program, unpacked, wait_for
from .messages import Sample
from .opensmtpd import OpenSmtpd
from .postfix import Postfix, Settings

# What comes round in less than a second may still be locked by its last delivery; then Postfix leaves it ("skipped,
# still being delivered") until it is started again.
BACK_OFF = {"minimal_backoff_time": "2s", "maximal_backoff_time": "2s"}


class RelayingPostfix(Postfix):
    """A Postfix that keeps nothing for itself."""

    def _doors(self) -> str:
        return f"{super()._doors()}\nlmtp unix - - n - - lmtp\nscache unix - - n - 1 scache"

    def outcome(self, message: Sample, recipient: str) -> str:
        """What its log says of a recipient of a message, the last time: `status=` and what follows."""

        def look() -> str:
            log = self.log()
            numbers = re.findall(rf": (\w+): message-id=<{message.token}@", log)
            assert len(numbers) <= 1, f"{message.token} came more than once"
            found = [re.findall(rf": {n}: to=<{recipient}>,.* (status=.*)", log) for n in numbers]
            return found[0][-1] if found and found[0] else ""

        return wait_for(look, f"{message.token} for {recipient} in Postfix's log")

    def emptied(self, seconds: float = 30.0) -> None:
        """Wait until it has handed all on."""
        wait_for(lambda: not self.queued(), f"an empty queue of Postfix\n{self.log()[-3000:]}", seconds)


@contextlib.contextmanager
def relaying_postfix(nexthop: str, settings: Settings | None = None) -> Iterator[RelayingPostfix]:
    """A started Postfix that hands everything to `nexthop` (a transport, a colon, and what follows it)."""
    need_root("start a private Postfix")
    need_user("postfix")
    program("postfix")
    everything = {"virtual_mailbox_domains": "", "default_transport": nexthop, **BACK_OFF, **(settings or {})}
    with open_folder("postfix") as folder:
        server = RelayingPostfix(folder, everything)
        try:
            server.start()
            yield server
        finally:
            server.stop()


RELAYING = """\
smtp max-message-size "100M"
listen on 127.0.0.1 port {port} hostname client.lab.test
action out relay host smtp://127.0.0.1:{nexthop}
match from any for any action out
"""


@dataclass
class RelayingOpenSmtpd(OpenSmtpd):
    """An OpenSMTPD that hands everything on, to a port of 127.0.0.1."""

    nexthop: int = 0

    def start(self) -> None:
        """Write the configuration and start; returns when the port is listened on."""
        text = RELAYING.format(port=self.port, nexthop=self.nexthop)
        (self.folder / "smtpd.conf").write_text(text, encoding="ascii")
        script = Path(__file__).with_name("opensmtpd_namespace.sh")
        command = [str(program("unshare")), "-m", "sh", str(script), str(lab_folder()), str(self.folder)]
        self.process = Process(command, self.folder / "smtpd.log")
        self.process.wait_listening(self.port)


@contextlib.contextmanager
def relaying_opensmtpd(nexthop: int) -> Iterator[RelayingOpenSmtpd]:
    """A started OpenSMTPD that hands everything to a port of 127.0.0.1; stopped and removed at the end."""
    need_root("start a private OpenSMTPD")
    unpacked("opensmtpd/usr/sbin/smtpd")
    if subprocess.run([str(program("unshare")), "-m", "true"], capture_output=True, check=False).returncode != 0:
        missing("OpenSMTPD needs a mount namespace, and unshare -m is not permitted here")
    with open_folder("opensmtpd") as folder:
        server = RelayingOpenSmtpd(folder, nexthop=nexthop)
        try:
            server.start()
            yield server
        finally:
            server.stop()
