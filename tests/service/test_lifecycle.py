"""Start, graceful stop, reload (S10, S15, S19)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from freeports import free_port

from .client import Client
from .conftest import TRANSPORTS, MakeMta, MakeProxy
from .mta import Mta
from .process import Process, listener
from .waiting import STARTING, eventually

MESSAGE = b"Subject: x\r\n\r\ntext\r\n"


def take_message(client: Client, mta: Mta) -> None:
    """Let a client that has begun its mail data finish it."""
    client.send(MESSAGE + b".\r\n")
    assert client.codes(1) == [250]
    assert mta.message().data == MESSAGE


def refuses(address: tuple[str, int]) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(address, 5).close()
    except ConnectionRefusedError:
        return True
    return False


# --- SIGTERM --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sigterm(proxy: MakeProxy, mta: MakeMta, transport: str) -> None:
    """Idle sessions read 421 at once, a transaction is finished and then reads it; new clients are not accepted."""
    server, process = mta(), proxy()
    process.simple([server.endpoint], service={"transport": transport}, timeouts={"close": "500 ms"})
    process.start()
    with Client(process.address()) as idle, Client(process.address()) as busy, Client(process.address()) as writing:
        idle.begin()
        assert busy.begin().code(b"MAIL FROM:<a@b.example>") == 250
        writing.begin().begin_data()
        writing.send(b"Subject: x\r\n")
        process.signal(signal.SIGTERM)
        (told,) = idle.to_the_end()
        assert told.startswith(b"421 4.3.2 proxy.example.org ")
        eventually(lambda: refuses(process.address()), "the port is closed")
        assert busy.code(b"RCPT TO:<c@example.org>") == 250
        assert busy.code(b"DATA") == 354
        process.signal(signal.SIGHUP)
        take_message(busy, server)
        assert [reply[:3] for reply in busy.to_the_end()] == [b"421"]
        assert process.running
        writing.send(b"\r\ntext\r\n.\r\n")
        assert writing.codes(1) == [250]
        assert server.message().data == MESSAGE
        assert [reply[:3] for reply in writing.to_the_end()] == [b"421"]
        assert process.ended() == 0
    assert process.events()[-1]["event"] == "stopped"
    assert len(process.events("session")) == 3
    assert {event["end"] for event in process.events("session")} == {"shutdown"}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_s15_the_drain_has_its_limit(proxy: MakeProxy, mta: MakeMta, transport: str) -> None:
    server, process = mta(), proxy()
    process.simple([server.endpoint], service={"transport": transport, "drain": "300 ms"})
    process.start()
    with Client(process.address()) as client:
        client.begin().begin_data()
        client.send(b"half of it\r\n")
        process.signal(signal.SIGTERM)
        assert [reply[:3] for reply in client.to_the_end()] == [b"421"]
        assert process.ended() == 0
    assert server.messages == []
    (transaction,) = process.events("transaction")
    assert transaction["reply"].startswith("421")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_second_sigterm_ends_the_waiting(proxy: MakeProxy, mta: MakeMta, transport: str) -> None:
    process = proxy()
    process.simple([mta().endpoint], service={"transport": transport}, timeouts={"close": "500 ms"})
    process.start()
    with Client(process.address()) as client:
        client.begin().begin_data()
        process.signal(signal.SIGTERM)
        process.wait_for("stopping")
        assert client.send_what_fits(b"half of it\r\n") == 12
        process.signal(signal.SIGTERM)
        assert [reply[:3] for reply in client.to_the_end()] == [b"421"]
    assert process.ended() == 0
    assert process.events()[-1]["event"] == "stopped"


def test_sigterm_with_nobody_there(proxy: MakeProxy, mta: MakeMta) -> None:
    process = proxy()
    process.simple([mta().endpoint])
    process.start()
    with Client(process.address()) as client:
        client.begin()
        assert client.code(b"QUIT") == 221
        assert client.to_the_end() == []
    process.stop()


def test_sigterm_takes_leave_of_kept_sessions(proxy: MakeProxy, mta: MakeMta) -> None:
    server, process = mta(), proxy()
    process.simple([server.endpoint], backend={"reuse": True})
    process.start()
    with Client(process.address()) as client:
        client.begin()
        assert client.code(b"QUIT") == 221
    process.wait_for("session")
    assert server.commands[0][-1] != "QUIT"
    process.stop()
    eventually(lambda: server.commands[0][-1] == "QUIT", "the kept session says QUIT")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("reactor", ["epoll", "default"])
def test_every_reactor_will_do(proxy: MakeProxy, mta: MakeMta, reactor: str, transport: str) -> None:
    server, process = mta(), proxy(arguments=["--reactor", reactor])
    process.simple([server.endpoint], service={"transport": transport})
    process.start()
    with Client(process.address()) as client:
        client.begin().begin_data()
        take_message(client, server)
        assert client.code(b"QUIT") == 221
        assert client.to_the_end() == []
    process.stop()
    assert process.events("internal_error") == []


# --- what prevents a start ------------------------------------------------------------------------------------------


def run(process: Process) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "smtpproxy", "run", "-c", str(process.file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=STARTING, check=False)


def test_an_address_in_use_is_said_in_one_line(proxy: MakeProxy) -> None:
    process = proxy()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process.port = taken.getsockname()[1]
        process.simple(["127.0.0.1:25"])
        outcome = run(process)
    assert outcome.returncode == 1
    assert f"127.0.0.1:{process.port}" in outcome.stderr
    assert "in use" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_a_wrong_configuration_prevents_the_start(proxy: MakeProxy) -> None:
    process = proxy()
    process.simple(["127.0.0.1:25"], colour="blue")
    outcome = run(process)
    assert outcome.returncode == 1
    assert "colour" in outcome.stderr


# --- SIGHUP ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_good_configuration_is_taken_as_a_whole(proxy: MakeProxy, mta: MakeMta, transport: str) -> None:
    """A live session keeps what it began with; new ones get the new one; addresses open and close."""
    first, second, process = mta(), mta(), proxy()
    other_port = free_port()
    service = {"transport": transport}
    listening = [f"127.0.0.1:{process.port}"]
    old = [listener("mx", listening), listener("gone", [f"127.0.0.1:{other_port}"])]
    process.configure(old, {"mta": {"servers": [first.endpoint]}}, service=service)
    process.start()
    gone, came = ("127.0.0.1", other_port), ("127.0.0.1", free_port())
    with Client(process.address()) as live, Client(gone) as left:
        live.begin()
        left.begin()
        new = [
            listener("mx", listening, recipient_domains=["other.example"], hostname="new.example.org"),
            listener("came", [f"127.0.0.1:{came[1]}"]),
        ]
        process.configure(new, {"mta": {"servers": [second.endpoint]}}, service=service)
        process.signal(signal.SIGHUP)
        process.wait_for("reloaded")
        eventually(lambda: refuses(gone), "the removed address is closed")
        for client in (live, left):
            client.begin_data()
            take_message(client, first)
        with Client(process.address()) as fresh:
            fresh.begin()
            assert fresh.code(b"MAIL FROM:<a@b.example>") == 250
            assert fresh.code(b"RCPT TO:<c@example.org>") == 550
            assert fresh.code(b"RCPT TO:<c@other.example>") == 250
            assert fresh.code(b"DATA") == 354
            take_message(fresh, second)
        with Client(came) as client:
            client.begin().begin_data()
            take_message(client, second)
        process.signal(signal.SIGTERM)
        for client in (live, left):
            assert [reply[:3] for reply in client.to_the_end()] == [b"421"]
    assert process.ended() == 0


def test_a_bad_configuration_changes_nothing(proxy: MakeProxy, mta: MakeMta) -> None:
    server, process = mta(), proxy()
    process.simple([server.endpoint])
    process.start()
    good = process.file.read_text()
    with Client(process.address()) as live:
        live.begin()
        process.simple([server.endpoint], colour="blue", hostname=7)
        process.signal(signal.SIGHUP)
        process.wait_for("reload_refused")
        mistakes = " ".join(event["problem"] for event in process.events("configuration_mistake"))
        assert "colour" in mistakes
        assert "hostname" in mistakes
        with socket.create_server(("127.0.0.1", 0)) as taken:
            free = ("127.0.0.1", free_port())
            ports = (process.port, free[1], taken.getsockname()[1])
            listening = [f"127.0.0.1:{port}" for port in ports]
            process.configure([listener("mx", listening)], {"mta": {"servers": ["127.0.0.1:1"]}})
            process.signal(signal.SIGHUP)
            process.wait_for("reload_refused", 2)
            assert refuses(free), "all of it is taken, or nothing"
        process.simple(["127.0.0.1:1"], log={"to": "file:/nowhere/at/all.log"})
        process.signal(signal.SIGHUP)
        process.wait_for("reload_refused", 3)
        live.begin_data()
        take_message(live, server)
        with Client(process.address()) as fresh:
            fresh.begin().begin_data()
            take_message(fresh, server)
    process.file.write_text(good)
    process.signal(signal.SIGHUP)
    process.wait_for("reloaded")
    process.stop()


def test_a_reload_opens_the_log_anew(proxy: MakeProxy, mta: MakeMta, tmp_path: Path) -> None:
    """Log rotation: sessions that began before write to the new file."""
    server, process = mta(), proxy()
    log, rotated = tmp_path / "mail.log", tmp_path / "mail.log.1"
    process.simple([server.endpoint])
    process.start()
    process.simple([server.endpoint], log={"to": f"file:{log}"})
    with Client(process.address()) as live:
        live.begin()
        process.signal(signal.SIGHUP)
        eventually(lambda: log.exists() and "reloaded" in log.read_text(), "the new log")
        log.rename(rotated)
        process.signal(signal.SIGHUP)
        eventually(lambda: log.exists() and "reloaded" in log.read_text(), "the log after its rotation")
        live.begin_data()
        take_message(live, server)
        assert live.code(b"QUIT") == 221
    eventually(lambda: '"event":"session"' in log.read_text().replace(" ", ""), "the session's line")
    assert '"event":"session"' not in rotated.read_text().replace(" ", "")
    process.signal(signal.SIGTERM)
    assert process.ended() == 0
    assert "stopped" in log.read_text()


RESOLVER = """
import socket, sys
from pathlib import Path
real = socket.getaddrinfo
def getaddrinfo(host, *arguments, **options):
    if host != "mta.test":
        return real(host, *arguments, **options)
    if Path({flag!r}).exists():
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return real("127.0.0.1", *arguments, **options)
socket.getaddrinfo = getaddrinfo
"""


def test_s19_a_reload_while_no_name_can_be_looked_up(proxy: MakeProxy, mta: MakeMta, tmp_path: Path) -> None:
    """The old addresses are better than none: a log rotation must not stop the mail."""
    flag = tmp_path / "down"
    (tmp_path / "sitecustomize.py").write_text(RESOLVER.format(flag=str(flag)))
    server, process = mta(), proxy(environment={"PYTHONPATH": str(tmp_path)})
    process.simple([f"mta.test:{server.endpoint.rpartition(':')[2]}"])
    process.start()
    flag.touch()
    process.signal(signal.SIGHUP)
    process.wait_for("backend_lookup_failed")
    process.wait_for("reloaded")
    with Client(process.address()) as client:
        client.begin()
        assert client.code(b"QUIT") == 221
    process.stop()


def test_a_reload_brings_a_server_with_a_name(proxy: MakeProxy, mta: MakeMta) -> None:
    first, second, process = mta(), mta(greeting=b"220 second.example ESMTP\r\n"), proxy()
    process.simple([first.endpoint])
    process.start()
    process.simple([f"localhost:{second.endpoint.rpartition(':')[2]}"])
    process.signal(signal.SIGHUP)
    process.wait_for("reloaded")

    def served() -> bool:
        with Client(process.address()) as client:
            return client.reply().startswith(b"220 second.example")

    eventually(served, "the new server is used as soon as its name is looked up")
    process.stop()


def test_a_unix_listener_comes_and_goes(proxy: MakeProxy, mta: MakeMta, tmp_path: Path) -> None:
    server, process = mta(), proxy()
    path = tmp_path / "smtp"
    tcp, both = [f"127.0.0.1:{process.port}"], [f"127.0.0.1:{process.port}", f"unix:{path}"]
    backends = {"mta": {"servers": [server.endpoint]}}
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    process.configure([listener("mx", both)], backends)
    process.start()
    with Client(str(path)) as client:
        client.begin().begin_data()
        take_message(client, server)
        process.configure([listener("mx", tcp)], backends)
        process.signal(signal.SIGHUP)
        process.wait_for("reloaded")
        assert not path.exists()
        assert client.code(b"QUIT") == 221
    process.configure([listener("mx", both)], backends)
    process.signal(signal.SIGHUP)
    process.wait_for("reloaded", 2)
    with Client(str(path)) as client:
        client.begin()
    process.stop()
    assert not path.exists()
    assert {event["client"] for event in process.events("session")} == {"unix"}


def test_a_client_that_was_told_421_and_stays_does_not_outlive_a_reload(proxy: MakeProxy, mta: MakeMta) -> None:
    process = proxy()
    server = mta()
    process.simple([server.endpoint], limits={"sessions": 1}, timeouts={"close": "500 ms"})
    process.start()
    with Client(process.address()) as first, Client(process.address()) as refused:
        first.begin()
        assert refused.reply()[:3] == b"421"
        assert first.code(b"QUIT") == 221
        process.signal(signal.SIGHUP)
        process.wait_for("reloaded")
        eventually(lambda: is_reset(refused.sock), "the refused connection is cut off")
    process.stop()


def is_reset(sock: socket.socket) -> bool:
    """Whether the other side has closed for good, and not only its writing side."""
    try:
        sock.send(b"x")
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


# --- systemd --------------------------------------------------------------------------------------------------------

HANDED_OVER = """
import os, sys
for target, source in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(source, target)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(target - 2), LISTEN_FDNAMES="mail.socket:submission")
os.execv(sys.executable, [sys.executable, "-m", "smtpproxy", *sys.argv[2:]])
"""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sockets_handed_over_by_systemd(proxy: MakeProxy, mta: MakeMta, transport: str) -> None:
    server, process = mta(), proxy()
    listeners = [
        listener("mx", ["systemd:mail.socket"]),
        listener("sub", ["systemd:submission"], hostname="sub.example"),
    ]
    process.configure(listeners, {"mta": {"servers": [server.endpoint]}}, service={"transport": transport})
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        numbers = [os.dup(one.fileno()), os.dup(two.fileno())]
        command = [sys.executable, "-c", HANDED_OVER, ",".join(map(str, numbers)), "run", "-c", str(process.file)]
        process.start(command, pass_fds=numbers)
        for number in numbers:
            os.close(number)
        for sock in (one, two):
            with Client(sock.getsockname()) as client:
                client.begin().begin_data()
                take_message(client, server)
                assert client.code(b"QUIT") == 221
        process.signal(signal.SIGHUP)
        process.wait_for("reloaded")
        with Client(one.getsockname()) as client:
            client.begin()
        process.stop()
    assert {event["listener"] for event in process.events("session")} == {"mx", "sub"}


def test_a_socket_that_was_not_handed_over(proxy: MakeProxy) -> None:
    process = proxy()
    process.configure([listener("mx", ["systemd:mail.socket"])], {"mta": {"servers": ["127.0.0.1:25"]}})
    outcome = run(process)
    assert outcome.returncode == 1
    assert "systemd:mail.socket" in outcome.stderr
