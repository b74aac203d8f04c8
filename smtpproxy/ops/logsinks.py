"""Where the lines of the log go: standard error, a file, syslog. None may ever hold up or break a session.

Lines are collected and written together: when the function handed to `schedule` is called, or as soon as
enough are waiting. A reader that does not read, a full disk or a broken pipe raise nothing: lines wait, up to
a limit, further ones are counted as lost, and once writing works again the number is told.

Not for several threads: everything here is called from the reactor's.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Callable
from errno import EMSGSIZE
from logging.handlers import SysLogHandler
from typing import Protocol

Schedule = Callable[[Callable[[], None]], object]
"""Calls a function once, FLUSH_DELAY seconds later; not at once, because a blocked sink tries again by it."""
FLUSH_DELAY = 0.05
"""Seconds that a line may wait for others."""
WRITE_AT = 64 * 1024
"""Octets waiting that are written without waiting for the scheduled flush."""
WAITING_LIMIT = 1024 * 1024
"""Octets that may wait while nothing can be written; lines above are lost."""

FILE_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
SEVERITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""Severity in syslog (RFC 5424 section 6.2.1) of each of our levels."""
FACILITIES = SysLogHandler.facility_names
"""Facilities of syslog by name (RFC 5424 section 6.2.1): the same that the configuration takes."""


class Sink(Protocol):
    """What takes finished lines."""

    tell_lost: Callable[[int], None]
    """Called with the number of lines lost, once writing works again."""

    def write(self, line: str, level: str = "info") -> None:
        """Take one line without its end; `level` is the event's. Never raises for a failure to write."""

    def flush(self) -> None:
        """Write now whatever can be written without waiting. Never raises for a failure to write."""

    def reopen(self) -> None:
        """Open the destination anew (log rotation). Raises OSError if that fails and keeps the old one."""

    def close(self) -> None:
        """Write what can be written and give up the rest. Lines after this are dropped."""


class _WaitingLines:
    """The part that all sinks share: what waits, when it is written, what is lost."""

    def __init__(self, schedule: Schedule) -> None:
        self.tell_lost: Callable[[int], None] = lambda _lines: None
        self._schedule = schedule
        self._scheduled = False
        self._waiting = bytearray()  # lines, each with its LF; the first may have been written in part
        self._torn = False  # the first one has
        self._blocked = False  # the last attempt left something, so more lines are no reason to try again
        self._closed = False
        self._lost = 0

    def write(self, line: str, level: str = "info") -> None:  # noqa: ARG002  # the level is for syslog
        """Take one line without its end."""
        octets = line.encode("utf-8", "backslashreplace")
        if self._closed or len(self._waiting) + len(octets) >= WAITING_LIMIT:
            self._lost += 1
        else:
            self._waiting += octets
            self._waiting += b"\n"
            if len(self._waiting) >= WRITE_AT and not self._blocked:
                self.flush()
        if not self._scheduled:
            self._wake()

    def flush(self) -> None:
        """Write now whatever can be written without waiting."""
        again = False
        try:
            while self._waiting and not again:
                taken = self._send()
                again = not taken
                self._took(taken)
        except BlockingIOError:
            again = True
        except OSError:
            # Full disk, broken pipe, no syslog: it may stay so for long, the next line is soon enough to try.
            again = False
        self._blocked = bool(self._waiting)
        if again and not self._scheduled:
            self._wake()
        if self._lost and not self._blocked and not self._closed:
            lost, self._lost = self._lost, 0
            self.tell_lost(lost)

    def close(self) -> None:
        """Write what can be written and give up the rest."""
        self.flush()
        self.flush()  # the first may have added the number of lost lines
        self._closed = True
        self._waiting.clear()
        self._close()

    def _took(self, octets: int) -> None:
        if octets:
            self._torn = self._waiting[octets - 1] != ord("\n")
            del self._waiting[:octets]

    def _wake(self) -> None:
        if not self._closed:
            self._scheduled = True
            self._schedule(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if not self._closed:
            self.flush()

    def _send(self) -> int:
        """Send some of what waits, never block; give the octets taken, 0 for "later". May raise OSError."""
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


class StderrSink(_WaitingLines):
    """Lines to standard error, which may be a pipe, a terminal, a file or (under systemd) a socket.

    Writing to it must not block, yet making it non-blocking would do so for every process that shares it. So
    a pipe or terminal is opened a second time, non-blocking, just for us. Where that cannot be done (a socket,
    no permission) a poll before each small write takes its place: what is writable takes PIPE_BUF octets.
    """

    def __init__(self, schedule: Schedule, fd: int = 2) -> None:
        """Take the file descriptor to write to; it stays the caller's."""
        super().__init__(schedule)
        self._fd = fd
        self._own_fd: int | None = None
        self._poll: select.poll | None = None
        try:
            mode = os.fstat(fd).st_mode
        except OSError:  # closed: each write will fail and be counted
            return
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            self._own_fd = _open_again(fd)
        if self._own_fd is not None:
            self._fd = self._own_fd
        elif not stat.S_ISREG(mode):
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)

    def reopen(self) -> None:
        """Nothing to open; only write what waits."""
        self.flush()

    def _send(self) -> int:
        if self._poll is None:
            return os.write(self._fd, self._waiting)
        if not self._poll.poll(0):
            return 0
        return os.write(self._fd, bytes(self._waiting[: select.PIPE_BUF]))

    def _close(self) -> None:
        if self._own_fd is not None:
            os.close(self._own_fd)
            self._own_fd = None


def _open_again(fd: int) -> int | None:
    """Open what `fd` refers to a second time, with flags of its own; None if that cannot be done."""
    try:
        return os.open(f"/proc/self/fd/{fd}", FILE_FLAGS)
    except OSError:
        return None


class FileSink(_WaitingLines):
    """Lines appended to a file, created with mode 0640 (less what the umask takes away)."""

    def __init__(self, path: str, schedule: Schedule) -> None:
        """Open the file. Raises OSError."""
        super().__init__(schedule)
        self._path = path
        self._fd = self._open()

    def reopen(self) -> None:
        """Open the path anew: log rotation has moved the file. Raises OSError and keeps the old file then."""
        fd = self._open()
        self.flush()
        if self._torn:  # half a line is in the old file: the other half is of no use in the new one
            self._took(self._waiting.index(b"\n") + 1)
            self._lost += 1
        os.close(self._fd)
        self._fd = fd
        self.flush()

    def _open(self) -> int:
        return os.open(self._path, FILE_FLAGS | os.O_CREAT, 0o640)

    def _send(self) -> int:
        return os.write(self._fd, self._waiting)

    def _close(self) -> None:
        os.close(self._fd)


class SyslogSink(_WaitingLines):
    """Lines to the local syslog, one datagram each: "<priority>smtpproxy[pid]: line" (RFC 3164 section 4.3).

    Not by way of the C library's syslog(), which waits when the receiver is slow. The time is left to the
    receiver, as section 4.3.2 allows; our own stands in the line.
    """

    def __init__(self, facility: str, schedule: Schedule, address: str = "/dev/log") -> None:
        """Take the name of a facility and the receiver's socket. Raises ValueError for an unknown name."""
        super().__init__(schedule)
        if facility not in FACILITIES:
            raise ValueError(f"unknown syslog facility {facility!r}: one of {', '.join(FACILITIES)}")
        self._address = address
        self._socket: socket.socket | None = None
        self._prefixes = {
            level: f"<{FACILITIES[facility] * 8 + severity}>smtpproxy[" for level, severity in SEVERITIES.items()
        }

    def write(self, line: str, level: str = "info") -> None:
        """Take one line; `level` decides on its severity."""
        # Asked each time: twistd makes the service first and becomes a daemon, another process, later.
        super().write(f"{self._prefixes[level]}{os.getpid()}]: {line}", level)

    def reopen(self) -> None:
        """Connect anew with the next line."""
        self._close()
        self.flush()

    def _send(self) -> int:
        end = self._waiting.index(b"\n")
        if self._socket is None:
            self._socket = self._connect()
        try:
            self._socket.send(bytes(self._waiting[:end]))
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == EMSGSIZE:  # would never get through: lost, and on to the next
                self._lost += 1
                return end + 1
            self._close()  # the receiver was started anew: connect again soon
            return 0
        return end + 1

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(self._address)
        except OSError:
            connection.close()
            raise
        return connection

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
