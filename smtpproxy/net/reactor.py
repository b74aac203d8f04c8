"""An epoll reactor that goes straight to the transport.

The stock reactor wraps every event in a log context and looks the descriptor over before and after.  A
``LeanTransport`` needs neither: it never raises, and tells the reactor itself when it is gone.  Everything else is
treated as ever.  It is a reactor plugin too: ``twistd --reactor smtpproxy-lean``.
"""

from __future__ import annotations

import errno
from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log

from .transport import LeanTransport

if TYPE_CHECKING:
    from select import epoll

_MOST_EVENTS: Final = 512


class LeanReactor(EPollReactor):
    """The stock epoll reactor with a shorter way to lean transports."""

    _poller: epoll
    _selectables: dict[int, Any]
    _reads: set[int]
    _writes: set[int]

    def addReader(self, reader: Any) -> None:
        """Watch a descriptor for input; a lean transport's socket can always be watched."""
        if type(reader) is not LeanTransport:
            super().addReader(reader)  # type: ignore[no-untyped-call]  # Twisted's, untyped
            return
        fd = reader.fileno()
        if fd in self._writes:
            self._poller.modify(fd, EPOLLIN | EPOLLOUT)
        else:
            self._poller.register(fd, EPOLLIN)
        self._reads.add(fd)
        self._selectables[fd] = reader

    def forget(self, transport: LeanTransport) -> None:
        """Watch a lean transport no more; it closes its descriptor, by which the kernel forgets it too (epoll(7))."""
        fd = transport.fileno()
        self._reads.discard(fd)
        self._writes.discard(fd)
        self._selectables.pop(fd, None)

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events and deal with them; ``timeout`` in seconds, None for ever."""
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, _MOST_EVENTS)
        except OSError as problem:
            if problem.errno == errno.EINTR:
                return
            raise
        selectables = self._selectables
        for fd, event in events:
            selectable = selectables.get(fd)
            if selectable is None:
                continue
            if event == EPOLLIN and type(selectable) is LeanTransport:
                try:
                    selectable.doRead()
                except Exception:
                    # No session's fault may end the others (rule H10).
                    log.err()
                    selectable.abortConnection()
            else:
                log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, event)

    doIteration = doPoll  # noqa: N815  # Twisted's name


def install() -> None:
    """Make this the process's reactor. Raises ReactorAlreadyInstalledError if there is one."""
    installReactor(LeanReactor())  # type: ignore[no-untyped-call]  # Twisted's constructor, untyped
