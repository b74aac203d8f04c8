"""What one client, or one server, can make the proxy hold (H9, H10)."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import socket

import pytest

from .client import Client
from .conftest import TRANSPORTS, MakeMta, MakeProxy
from .process import Process
from .waiting import PATIENCE, eventually

MIB = 1 << 20


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_client_too_many_reads_421(proxy: MakeProxy, mta: MakeMta, transport: str) -> None:
    process = proxy()
    process.simple([mta().endpoint], service={"transport": transport}, limits={"sessions_per_client": 2})
    process.start()
    with Client(process.address()) as one, Client(process.address()) as two:
        one.begin()
        two.begin()
        for early in (b"", b"EHLO client.example\r\n" * 100):
            with Client(process.address()) as third:
                third.send(early)
                (told,) = third.to_the_end()
                assert told.startswith(b"421 4.3.2 proxy.example.org ")
        assert one.code(b"QUIT") == 221
        assert one.to_the_end() == []
        process.wait_for("session")
        with Client(process.address()) as fourth:
            fourth.begin()
    assert len(process.wait_for("session_refused", 2)) == 2
    process.stop()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_h9_a_server_that_stops_to_read_does_not_fill_the_memory(
    proxy: MakeProxy, mta: MakeMta, transport: str
) -> None:
    # The kernel's buffers could hold a good part of the message by themselves.
    server, process = mta(receive_buffer=65536), proxy()
    process.simple([server.endpoint], service={"transport": transport})
    process.start()
    line = b"".join(b"%032x" % number for number in range(2)) + b"\r\n"
    message = (line * (MIB // len(line))) * 64
    with Client(process.address()) as client:
        client.begin().begin_data()
        before = process.memory()
        server.reading.clear()
        sent = client.send_what_fits(message)
        assert sent < len(message), "it was all taken, by whom?"
        assert process.memory() - before < 8 * MIB
        server.reading.set()
        client.send(message[sent:] + b".\r\n")
        assert client.codes(1) == [250]
        assert process.memory() - before < 8 * MIB
        assert process.memory() < 64 * MIB
    taken = server.message().data
    assert len(taken) == len(message)
    assert hashlib.sha256(taken).digest() == hashlib.sha256(message).digest()
    process.stop()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_h9_a_client_that_does_not_read_does_not_fill_the_memory(
    proxy: MakeProxy, mta: MakeMta, transport: str
) -> None:
    """And is cut off after a while, as if it had never been."""
    page = b"214-%s\r\n" % (b"x" * 1000) * 60 + b"214 end\r\n"
    server, process = mta(replies={"HELP": page}), proxy()
    process.simple([server.endpoint], service={"transport": transport}, timeouts={"write": "1 s", "close": "500 ms"})
    process.start()
    with Client(process.address(), receive_buffer=4096) as client:
        client.begin()
        before = process.memory()
        client.send_what_fits(b"HELP\r\n" * 20_000, patience=0.3)
        assert process.memory() - before < 8 * MIB
        (session,) = process.wait_for("session")
        assert session["end"] == "client timed out"
        eventually(lambda: is_cut_off(client.sock), "the connection is closed")
    eventually(lambda: all("HELP" in each or "EHLO" in each for each in server.commands[0]), "only HELP was asked")
    process.stop()


def is_cut_off(sock: socket.socket) -> bool:
    """Whether writing fails: the other side has closed altogether."""
    sock.settimeout(0)
    try:
        sock.send(b"x")
    except BlockingIOError:
        return False
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("extra", [0, 1])
def test_h10_out_of_descriptors_and_back(proxy: MakeProxy, mta: MakeMta, transport: str, extra: int) -> None:
    """Whichever descriptor is the one too many, that of a client or that of its backend; afterwards all is well."""
    process = proxy()
    process.simple([mta().endpoint], service={"transport": transport}, timeouts={"close": "200 ms"})
    keep = [socket.socket() for _ in range(extra)]
    process.start(preexec_fn=few_descriptors, pass_fds=[sock.fileno() for sock in keep])
    for sock in keep:
        sock.close()
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(Client(process.address())) for _ in range(40)]
        crowd[0].begin()
        eventually(lambda: process.descriptors() >= 38 or process.events("session_refused"), "it is full")
    eventually(lambda: process.descriptors() < 20, "the crowd has left")
    with Client(process.address()) as client:
        client.sock.settimeout(PATIENCE)
        client.begin()
        assert client.code(b"QUIT") == 221
    process.stop()
    assert process.events("internal_error") == []


def test_the_limits_of_a_message(proxy: MakeProxy, mta: MakeMta) -> None:
    server, process = mta(), proxy()
    process.simple([server.endpoint], limits={"message_size": 1000, "recipients": 1})
    process.start()
    with Client(process.address()) as client:
        client.begin()
        assert client.ask(b"MAIL FROM:<a@b.example> SIZE=1001").startswith(b"552 5.3.4 ")
        assert client.code(b"MAIL FROM:<a@b.example>") == 250
        assert client.code(b"RCPT TO:<c@example.org>") == 250
        assert client.ask(b"RCPT TO:<d@example.org>").startswith(b"452 4.5.3 ")
        assert client.code(b"DATA") == 354
        client.send(b"x" * 1001 + b"\r\n.\r\n")
        assert client.reply().startswith(b"552 5.3.4 ")
        client.begin_data()
        client.send(b"x" * 998 + b"\r\n.\r\n")
        assert client.codes(1) == [250]
    assert len(server.message().data) == 1000
    process.stop()


def test_one_slow_client_does_not_hold_up_another(proxy: MakeProxy, mta: MakeMta) -> None:
    server, process = mta(), proxy()
    process.simple([server.endpoint])
    process.start()
    with Client(process.address()) as slow:
        slow.begin().begin_data()
        server.reading.clear()
        slow.send_what_fits(b"x" * 100_000_000, patience=0.2)
        with Client(process.address()) as other:
            other.begin()
            assert other.code(b"MAIL FROM:<a@b.example>") == 250
            assert other.code(b"QUIT") == 221
        server.reading.set()
    stop_whatever_it_still_carries(process)


def stop_whatever_it_still_carries(process: Process) -> None:
    """The slow client's data is thrown away; then it ends in good order."""
    process.wait_for("session", 2)
    process.stop()
