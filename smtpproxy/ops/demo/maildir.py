"""A Maildir (https://cr.yp.to/proto/maildir.html), as much of it as a demo needs: deliver and list."""

from __future__ import annotations

import itertools
import os
import socket
import time
from pathlib import Path


class Maildir:
    """A folder with tmp, new and cur.

    A message is written to tmp and then renamed into new, so nobody ever sees half a message. It keeps its
    CR LF: what the demo wants to show is that not an octet was changed. There is no fsync, which a real mail
    server owes its sender before the 250: the demo measures the line, not the disk.
    """

    def __init__(self, path: Path) -> None:
        """Create the folders under `path` where missing; raises OSError."""
        self.path = path
        self._serial = itertools.count(1)
        self._host = socket.gethostname().replace("/", r"\057").replace(":", r"\072")
        for name in ("tmp", "new", "cur"):
            (path / name).mkdir(parents=True, exist_ok=True)

    def deliver(self, message: bytes) -> Path:
        """Store `message`, return its file in new; raises OSError, and then leaves nothing behind."""
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        name = f"{seconds}.M{nanoseconds // 1000}P{os.getpid()}Q{next(self._serial)}.{self._host}"
        temporary, final = self.path / "tmp" / name, self.path / "new" / name
        try:
            temporary.write_bytes(message)
            temporary.rename(final)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return final

    def names(self) -> set[str]:
        """Return the names of the messages in new."""
        return {entry.name for entry in (self.path / "new").iterdir()}

    def read(self, name: str) -> bytes:
        """Return the octets of the message `name` in new."""
        return (self.path / "new" / name).read_bytes()
