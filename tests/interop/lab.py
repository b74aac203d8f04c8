"""The ground under the interoperation tests: where the real software is, free ports, waiting, and processes
that are always stopped.

`install.sh` beside this file installs the software.  A test that needs some of it says so with `requires`
(or by using a fixture that does): where it is missing the test is skipped with the reason, or fails if
SMTPPROXY_INTEROP=require.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

Found = TypeVar("Found")

INSTALL = "run tests/interop/install.sh as root"
STARTING = 120.0
"""Seconds for a program to start, which takes a busy machine longer than all that it does then."""


def lab_folder() -> Path:
    """The folder into which install.sh unpacks what cannot be installed beside Postfix."""
    return Path(os.environ.get("SMTPPROXY_LAB", "/var/tmp/smtpproxy-lab"))


def required() -> bool:
    """Whether missing software is a failure (SMTPPROXY_INTEROP=require) and not a reason to skip."""
    return os.environ.get("SMTPPROXY_INTEROP", "") == "require"


def missing(what: str) -> None:
    """Skip the running test, or fail it where everything is required.  `what` is a whole sentence."""
    if required():
        pytest.fail(f"{what} (SMTPPROXY_INTEROP=require)", pytrace=False)
    pytest.skip(what)


def program(name: str) -> Path:
    """The path of an installed program, also where PATH leaves the sbin folders out; skips if there is
    none.
    """
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        missing(f"{name} is not installed: {INSTALL}")
    assert path is not None
    return Path(path)


def unpacked(relative: str) -> Path:
    """The path of a program that install.sh unpacked into the lab folder; skips if it is not there."""
    path = lab_folder() / relative
    if not path.exists():
        missing(f"{path} is not there: {INSTALL}")
    return path


def need_root(why: str) -> None:
    """Skip where the tests run without root, which private mail servers need."""
    if os.geteuid() != 0:
        missing(f"only root can {why}")


def need_user(name: str) -> None:
    """Skip where a user that the software runs as does not exist."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        missing(f"there is no user {name}: {INSTALL}")


def wait_for(condition: Callable[[], Found], what: str, seconds: float = 20.0) -> Found:
    """Poll `condition` until it returns something true and return that; AssertionError naming `what` after
    `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)


def is_listening(port: int) -> bool:
    """Whether somebody listens on the TCP port, told by the kernel: no connection is made that a server
    would have to count.
    """
    wanted = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), Path(table).open(encoding="ascii") as rows:
            next(rows)
            for row in rows:
                fields = row.split()
                if fields[3] != "0A":  # listeners come first; after a volume test thousands of others follow
                    break
                if fields[1].endswith(wanted):
                    return True
    return False


class Process:
    """A program in a process group of its own; `stop` ends the whole group and can be called at any time."""

    def __init__(self, arguments: list[str], output: Path) -> None:
        """Start `arguments`; what it writes to standard output and error goes to the file `output`."""
        self.output = output
        # Ends also when the test run is killed and cannot tidy up.
        guarded = [str(program("setpriv")), "--pdeathsig", "TERM", "--", *arguments]
        with output.open("ab") as sink:
            self.popen = subprocess.Popen(
                guarded, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
            )

    def wait_listening(self, port: int, seconds: float = STARTING) -> None:
        """Return when `port` is listened on; AssertionError with the program's output if it ends before, or
        never listens.
        """

        def ready() -> bool:
            if self.popen.poll() is not None:
                raise AssertionError(f"{self.popen.args!r} ended with status {self.popen.returncode}:\n{self.text()}")
            return is_listening(port)

        try:
            wait_for(ready, f"a listener on port {port}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()}") from None

    def text(self) -> str:
        """Everything that the program has written so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def stop(self, seconds: float = 10.0, first: signal.Signals = signal.SIGTERM) -> int:
        """Send `first` to the program, after `seconds` SIGKILL to its group; its exit status (negative: the
        signal).
        """
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(first)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        return self.popen.wait(seconds)


def whole_lines(text: str) -> list[str]:
    """The lines of a file that somebody writes to; the last one may not have come to its end yet."""
    return text.split("\n")[:-1]


def files_below(folder: Path, *names: str) -> list[Path]:
    """The files in these folders of `folder`, at any depth; what vanishes meanwhile is not there."""
    found = [os.walk(folder / name) for name in names]
    return [Path(top) / file for walk in found for top, _, files in walk for file in files]


@contextlib.contextmanager
def open_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder that other users may enter (pytest's are closed to them, and mail servers run as
    users of their own).
    """
    folder = Path(tempfile.mkdtemp(prefix=f"smtpproxy-{prefix}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
