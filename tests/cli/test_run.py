"""``smtpproxy run``: the service as a process."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from freeports import free_port

Written = Callable[..., str]
Server = Callable[..., Any]

LIMIT = 120.0  # seconds; far more than anything here takes


RUN = (sys.executable, "-m", "smtpproxy", "run")
TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "smtpproxy")


def failed(*arguments: str) -> str:
    """What a run that cannot begin says on standard error."""
    result = subprocess.run(
        [*RUN, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert result.returncode == 1
    assert result.stdout == ""
    return result.stderr


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A service that has begun to serve; it is killed at the end if it still runs."""
    # Not buffered here, so that what is read line by line and what ``communicate`` reads make the whole.
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, bufsize=0, **streams) as process:
        try:
            assert process.stderr is not None
            assert b'"started"' in process.stderr.readline()
            yield process
        finally:
            process.kill()


def stopped(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Stop it gracefully; give its exit status and what it logged since it began."""
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=LIMIT)
    return process.returncode, err.decode()


def conversation(port: int, commands: bytes) -> list[str]:
    """Send all commands at once, the last of them QUIT; give the lines of the replies."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client, client.makefile("rb") as lines:
        client.sendall(commands)
        return lines.read().decode().splitlines()


def connected(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def until(true: Callable[[], bool]) -> None:
    """Wait for what the service will do."""
    deadline = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (RUN, 0),
        ((*RUN, "--reactor", "epoll"), 0),
        ((*RUN, "--reactor", "default"), 0),
        (TWISTD, -signal.SIGTERM),  # twistd ends by the signal that it got
    ],
    ids=["lean", "epoll", "default", "twistd"],
)
def test_a_session_and_a_graceful_end(
    written: Written, server: Server, command: tuple[str, ...], expected: int
) -> None:
    backend, port = server(), free_port()
    with running(*command, "-c", written(backend.endpoint, listen=f"127.0.0.1:{port}")) as process:
        replies = conversation(port, b"EHLO me\r\nNOOP\r\nQUIT\r\n")
        status, logged = stopped(process)
    assert [reply[:4] for reply in replies if reply[3] == " "] == ["220 ", "250 ", "250 ", "221 "]
    assert any("PIPECONNECT" in reply for reply in replies)
    assert status == expected
    assert logged.index('"session"') < logged.index('"stopping"') < logged.index('"stopped"')
    assert '"transcript"' not in logged


@pytest.mark.parametrize("command", [RUN, TWISTD], ids=["run", "twistd"])
def test_a_transcript_on_request(written: Written, server: Server, command: tuple[str, ...]) -> None:
    backend, port = server(), free_port()
    with running(*command, "-v", "-c", written(backend.endpoint, listen=f"127.0.0.1:{port}")) as process:
        conversation(port, b"EHLO me\r\nQUIT\r\n")
        _, logged = stopped(process)
    assert [line for line in logged.splitlines() if '"transcript"' in line and "EHLO me" in line]


def test_a_reload_takes_the_new_file(written: Written, server: Server) -> None:
    backend, port, other = server(), free_port(), free_port()
    file = Path(written(backend.endpoint, listen=f"127.0.0.1:{port}"))
    with running(*RUN, "-c", str(file)) as process:
        assert connected(port)
        file.write_text(file.read_text().replace(f"127.0.0.1:{port}", f"127.0.0.1:{other}"))
        process.send_signal(signal.SIGHUP)
        until(lambda: connected(other))
        until(lambda: not connected(port))
        assert stopped(process)[0] == 0


def test_a_configuration_with_mistakes(written: Written) -> None:
    file = written("192.0.2.1:25", more="log: {level: loud}\n")
    assert failed("-c", file) == f"{file}:4: log.level: debug, info, warning or error is expected, not 'loud'\n"


def test_a_port_in_use(written: Written) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        file = written("192.0.2.1:25", listen=address)
        assert failed("-c", file) == f"smtpproxy: cannot listen on {address}: Address already in use\n"


def test_a_log_that_cannot_be_opened(written: Written, tmp_path: Path) -> None:
    file = written("192.0.2.1:25", more=f"log: {{to: 'file:{tmp_path}/none/log'}}\n")
    assert failed("-c", file) == f"smtpproxy: {tmp_path}/none/log: No such file or directory\n"


def test_a_socket_that_cannot_be_made(written: Written, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/none/smtp"
    file = written("192.0.2.1:25", listen=address)
    assert failed("-c", file) == f"smtpproxy: cannot listen on {address}: No such file or directory\n"
