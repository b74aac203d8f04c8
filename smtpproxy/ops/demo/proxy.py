"""smtpproxy itself, as the real service in a process of its own, with a configuration made for the demo."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import Final, Self

import yaml

from smtpproxy.ops.demo.errors import DemoError

COMMAND: Final = (sys.executable, "-m", "smtpproxy")

_LOOPBACK: Final = "127.0.0.1"
_START_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.05
_ANSWER_SECONDS: Final = 5.0
_DRAIN_SECONDS: Final = 3
_STOP_SECONDS: Final = 10.0
_LINES_SHOWN: Final = 20


class Proxy:
    """The child process; use it as an asynchronous context manager, inside it answers on `port`.

    Attributes:
        port: where it listens, on loopback.
        configuration: its configuration file.
        log: its event log, JSON.
    """

    def __init__(self, folder: Path, backend_port: int, port: int = 0) -> None:
        """Prepare to run in front of 127.0.0.1:`backend_port`.

        Args:
            folder: an existing folder for its files.
            backend_port: the mail server's.
            port: where to listen, 0: any free one.

        Raises:
            OSError: the port is taken.
        """
        self.port = _free(port)
        self.configuration = folder / "smtpproxy.yaml"
        self.log = folder / "smtpproxy.log"
        self._errors = folder / "smtpproxy.stderr"
        self._backend_port = backend_port
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        """Start it and wait until it greets; raises DemoError."""
        self.configuration.write_text(self.settings(), encoding="utf-8")
        with self._errors.open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *COMMAND,
                "run",
                "-c",
                os.fspath(self.configuration),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the proxy in order
            )
        try:
            await self._until_it_answers()
        except BaseException:
            self._kill()
            await self._process.wait()
            raise
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Stop it with SIGTERM; raises DemoError, after what `error` says, if that did not end well."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                status = await self._process.wait()
        except TimeoutError:
            self._kill()
            await self._process.wait()
            complaint = f"smtpproxy did not end within {_STOP_SECONDS:.0f} s of SIGTERM."
        else:
            if not status:
                return
            complaint = f"smtpproxy ended with status {status}."
        earlier = f"{error}\n" if isinstance(error, DemoError) else ""
        raise DemoError(earlier + self._report(complaint))

    async def ended(self) -> None:
        """Wait until it ends by itself, and then raise DemoError."""
        await self._process.wait()
        raise DemoError("smtpproxy ended by itself.")

    def settings(self) -> str:
        """Return the text of the configuration."""
        return yaml.safe_dump(
            {
                "listeners": [
                    {
                        "name": "demo",
                        "mode": "inbound",
                        "listen": [f"{_LOOPBACK}:{self.port}"],
                        "backend": "legacy",
                        "recipient_domains": ["demo.example"],
                        "hostname": "proxy.demo.example",
                    }
                ],
                "backends": {"legacy": {"servers": [f"{_LOOPBACK}:{self._backend_port}"]}},
                "log": {"format": "json", "to": f"file:{self.log}"},
                "service": {"drain": f"{_DRAIN_SECONDS} s"},
            },
            sort_keys=False,
        )

    async def _until_it_answers(self) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not await self._answers():
                    status = self._process.returncode
                    if status is not None:
                        raise DemoError(self._report(f"smtpproxy did not start, status {status}."))
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise DemoError(self._report(f"smtpproxy did not greet within {_START_SECONDS:.0f} s.")) from None

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(_LOOPBACK, self.port)
        except ConnectionRefusedError:
            return False
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                greeting = await reader.readline()
                writer.write(b"QUIT\r\n")
                await reader.read()
        except (OSError, ValueError):  # TimeoutError is an OSError
            return False
        finally:
            writer.transport.abort()
        return greeting.startswith(b"220")

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _report(self, sentence: str) -> str:
        words = self._errors.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES_SHOWN:]
        return "\n".join([sentence, *(["It said:", *words] if words else [])])


def _free(port: int) -> int:
    """Return `port` (0: any) if it is free, else raise OSError: no stranger there is taken for the proxy."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((_LOOPBACK, port))
        free: int = probe.getsockname()[1]
    return free
