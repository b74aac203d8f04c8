"""A Postfix behind its postscreen, which punishes clients that talk before it has greeted them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from freeports import free_port

from .lab import need_root, need_user, open_folder, program
from .postfix import Postfix

# It makes everybody wait for its greeting for a second, if it has not seen them before.
_SCREEN = """\
127.0.0.1:{port} inet n - n - 1 postscreen
  -o {{ postscreen_greet_action = {action} }}
  -o {{ postscreen_access_list = }}
  -o {{ postscreen_greet_wait = 1s }}
  -o {{ postscreen_cache_map = btree:$data_directory/screen{port} }}
"""


@dataclass
class ScreenedPostfix(Postfix):
    """One private instance with postscreens that know nobody yet, so many for each action; `port` has none."""

    each: int = 3
    screens: dict[str, list[int]] = field(default_factory=dict)

    def _doors(self) -> str:
        if not self.screens:
            self.screens = {action: [free_port() for _ in range(self.each)] for action in ("enforce", "drop")}
        lines = [_SCREEN.format(port=port, action=action) for action, ports in self.screens.items() for port in ports]
        return "\n".join([super()._doors(), *lines, "smtpd pass - - n - - smtpd", "dnsblog unix - - n - 0 dnsblog"])

    def start(self) -> None:
        """Start; returns when all ports are listened on."""
        super().start()
        assert self.process is not None
        for port in (port for ports in self.screens.values() for port in ports):
            self.process.wait_listening(port)


@contextlib.contextmanager
def screened_postfix() -> Iterator[ScreenedPostfix]:
    """A started Postfix with postscreens; stopped and removed at the end."""
    need_root("start a private Postfix")
    need_user("postfix")
    program("postfix")
    with open_folder("postfix") as folder:
        server = ScreenedPostfix(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
