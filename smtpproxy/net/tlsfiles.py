"""Files that TLS reads, and reads again when they have changed; and who is told what comes of it."""

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from .certificates import EXPIRY_WARNING, TlsError, days_left

__all__ = ["InUse", "TlsReport"]

_FileState = tuple[int, int, int, int, int] | None


class _Dated(Protocol):
    """What a Pair and Authorities have in common."""

    @property
    def path(self) -> Path: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def not_after(self) -> datetime: ...


V = TypeVar("V", bound=_Dated)


class TlsReport(Protocol):
    """Who is told what becomes of certificates; ``owner`` is such as ``listener mx`` or ``backend legacy``."""

    def certificate_loaded(self, owner: str, cert_path: str, names: Sequence[str], not_after: datetime) -> None:
        """A certificate is in use from now on; of a CA file: subjects, and when the last of them ends."""

    def certificate_refused(self, owner: str, cert_path: str, why: str) -> None:
        """A changed file cannot be used; what was loaded before stays in use."""

    def certificate_expires(self, owner: str, cert_path: str, not_after: datetime, days: int) -> None:
        """Few whole days are left; negative: it has ended."""

    def tls_profile_old(self, owner: str) -> None:
        """Versions of TLS are in use that should not be (RFC 8996)."""


class InUse(Generic[V]):
    """A certificate pair or a CA file that is in use, and looked at again for changes.

    A change counts when the files have then stood still for one look: programs such as certbot switch several
    files, one after the other.
    """

    __slots__ = ("_owner", "_paths", "_pending", "_read", "_report", "_state", "value")

    def __init__(
        self, paths: Sequence[Path], read: Callable[[], V], fallback: V | None, owner: str, report: TlsReport
    ) -> None:
        """``read`` makes the value of the files ``paths``, and raises TlsError.

        Raises it too, if the files cannot be used now, unless there is a ``fallback`` to use instead.
        """
        self._paths = tuple(paths)
        self._read = read
        self._owner = owner
        self._report = report
        self._state: tuple[_FileState, ...] = ()
        self._pending: tuple[_FileState, ...] = ()
        self.value: V
        """What was last read from the files and could be used."""
        try:
            self.value = self._load()
        except TlsError as error:
            if fallback is None:
                raise
            self.value = fallback
            self._report.certificate_refused(owner, error.path, error.why)
        else:
            self._tell_loaded()

    def renew(self) -> bool:
        """Look at the files; whether there is another value now. Never raises for what is in the files."""
        state = self._look()
        if state == self._state:
            self._pending = ()
            return False
        if state != self._pending:
            self._pending = state
            return False
        self._pending = ()
        try:
            value = self._load()
        except TlsError as error:
            self._report.certificate_refused(self._owner, error.path, error.why)
            return False
        if value == self.value:
            return False
        self.value = value
        self._tell_loaded()
        return True

    def warn_of_expiry(self, now: datetime) -> None:
        """Tell if less than 14 days are left, or none."""
        days = days_left(self.value.not_after, now)
        if days < EXPIRY_WARNING:
            self._report.certificate_expires(self._owner, str(self.value.path), self.value.not_after, days)

    def _load(self) -> V:
        """Read now. Raises TlsError; the same state of the files is then not tried again."""
        self._state = self._look()
        value = self._read()
        if self._look() != self._state:
            raise TlsError(self._paths[0], "changes while it is read")
        return value

    def _look(self) -> tuple[_FileState, ...]:
        return tuple(_state_of(path) for path in self._paths)

    def _tell_loaded(self) -> None:
        value = self.value
        self._report.certificate_loaded(self._owner, str(value.path), value.names, value.not_after)


def _state_of(path: Path) -> _FileState:
    """What changes with the contents of a file, with where a link leads, and with its permissions."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
