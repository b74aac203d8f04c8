"""Clients that are programs: run to their end, or spoken to line by line."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .lab import open_folder, program, wait_for
from .messages import Sample

Finished = subprocess.CompletedProcess[bytes]


def run(*command: str, data: bytes = b"") -> Finished:
    """Run a client to its end."""
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)


def swaks(port: int, message: Sample, *options: str) -> Finished:
    """Send a message with swaks; it takes the final dot on its standard input for the end."""
    command = [
        str(program("swaks")),
        "--server",
        "127.0.0.1",
        "--port",
        str(port),
        "--helo",
        "client.lab.test",
    ]
    command += ["--from", "sender@lab.test", "--to", "recipient@lab.test", "--data", "-", *options]
    return run(*command, data=message.text + b".\n")


def s_client(port: int, *options: str, say: bytes = b"") -> Finished:
    """`openssl s_client` to a port of 127.0.0.1: everything is said right behind the handshake, then it waits for the
    end.
    """
    return run(str(program("openssl")), "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof", *options, data=say)


def shown(done: Finished) -> str:
    """What a program has written, to both of its outputs."""
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def reply_codes(done: Finished) -> list[int]:
    """The codes of the replies in what a client has written."""
    return [int(code) for code in re.findall(rb"^(\d{3}) [^\r\n]*\r?$", done.stdout, re.MULTILINE)]


class Interactive:
    """An `openssl s_client` that is spoken to line by line.

    A line that begins with `Q`, `R` (renegotiation) or `K` (new keys) is a command to s_client, and whatever it reads
    together with it is lost: wait for an answer before.
    """

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        """Start it."""
        self._output = folder / "s_client.log"
        command = [str(program("openssl")), "s_client", "-connect", f"127.0.0.1:{port}", "-crlf", *options]
        with self._output.open("wb") as sink:
            self._popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sink, stderr=sink)

    def say(self, line: str) -> None:
        """Say a line."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line.encode() + b"\n")
        self._popen.stdin.flush()

    def text(self) -> str:
        """Everything that it has written."""
        return self._output.read_text("utf-8", "replace")

    def wait_for(self, words: str, times: int = 1) -> None:
        """Wait until it has written these words so often."""
        wait_for(lambda: self.text().count(words) >= times, f"{times} x {words!r} in what s_client says", 15.0)

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        return self._popen.wait(15.0)

    def stop(self) -> None:
        """End it, if it has not ended."""
        self._popen.kill()
        self._popen.communicate()


@contextmanager
def interactive(port: int, *options: str) -> Iterator[Interactive]:
    """A started `openssl s_client`, ended at the end."""
    with open_folder("s_client") as folder:
        client = Interactive(folder, port, *options)
        try:
            yield client
        finally:
            client.stop()
