"""Listening sockets that were handed over by systemd (sd_listen_fds_with_names(3)).

Read from the environment by ourselves: Twisted's reader takes the variables away when its endpoints are imported, which
under twistd is before anything of ours runs.  It leaves the names, and the names tell the number.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIRST: Final = 3


class Inherited:
    """The sockets, by the names of their units (``FileDescriptorName=``, or the unit's own name)."""

    def __init__(self, environment: Mapping[str, str], process: int) -> None:
        """Take the environment and our process id; variables meant for another process count for nothing."""
        self._descriptors: dict[str, int] = {}
        if environment.get("LISTEN_PID", str(process)) != str(process):
            return
        for offset, name in enumerate(environment.get("LISTEN_FDNAMES", "").split(":")):
            if name and _listens(_FIRST + offset):
                self._descriptors.setdefault(name, _FIRST + offset)

    def take(self, name: str) -> socket.socket:
        """Give the socket of that name. Raises OSError if there is none."""
        if name not in self._descriptors:
            known = ", ".join(sorted(self._descriptors)) or "none"
            raise OSError(errno.ENOENT, f"systemd handed over no socket of that name (there are: {known})")
        return socket.socket(fileno=os.dup(self._descriptors[name]))


def _listens(descriptor: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False
