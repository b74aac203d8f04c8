"""Servers that cannot serve (S10, S19, H8)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from freeports import free_port

from .client import Client
from .conftest import TRANSPORTS, MakeMta, MakeProxy
from .process import Process
from .waiting import eventually


def dead() -> str:
    """An address where nobody listens."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server whose queue is full: connections to it do not come about."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        clients = []
        while True:
            client = socket.socket()
            clients.append(client)
            client.settimeout(0)
            client.connect_ex(listening.getsockname())
            if len(clients) > 3:
                break
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        for client in clients:
            client.close()


def served(process: Process) -> str:
    """Be served from the beginning to the end; give the server's name in the greeting."""
    with Client(process.address()) as client:
        greeting = client.reply()
        assert greeting[:3] == b"220", greeting
        assert client.code(b"EHLO x") == 250
        assert client.code(b"QUIT") == 221
        return greeting.split()[1].decode()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_s19_the_next_server_serves_and_the_first_one_rests(
    proxy: MakeProxy, mta: MakeMta, transport: str, silent: str, tmp_path: Path
) -> None:
    """Refused, not there, not answering, busy, garbage: each is left for the next, and told once."""
    busy = mta(greeting=b"421 4.3.2 busy\r\n")
    garbage = mta(greeting=b"SSH-2.0-OpenSSH_9.2\r\n")
    good = mta(greeting=b"220 good.example ESMTP\r\n")
    bad = [dead(), f"unix:{tmp_path}/mta", silent, busy.endpoint, garbage.endpoint]
    process = proxy()
    backend = {"timeouts": {"connect": "1 s"}, "rest": "1 h"}
    process.simple([*bad, good.endpoint], service={"transport": transport}, backend=backend)
    process.start()
    assert served(process) == "good.example"
    assert [event["server"] for event in process.wait_for("backend_failed", len(bad))] == bad
    assert served(process) == "good.example"
    process.stop()
    assert len(process.events("backend_failed")) == len(bad), "the resting ones were not asked again"


def test_s19_a_server_is_tried_again_after_its_rest(proxy: MakeProxy, mta: MakeMta) -> None:
    first = mta(greeting=b"421 4.3.2 busy\r\n")
    second = mta(greeting=b"220 second.example ESMTP\r\n")
    process = proxy()
    process.simple([first.endpoint, second.endpoint], backend={"rest": "200 ms"})
    process.start()
    assert served(process) == "second.example"
    first.script.greeting = b"220 first.example ESMTP\r\n"
    eventually(lambda: served(process) == "first.example", "the first server is asked again")
    process.stop()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("connect", ["eager", "lazy"])
def test_s19_unreachable_is_421(proxy: MakeProxy, transport: str, connect: str) -> None:
    process = proxy()
    process.simple([dead(), dead()], service={"transport": transport}, backend={"connect": connect})
    process.start()
    with Client(process.address()) as client:
        client.send(b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nQUIT\r\n")
        (told,) = client.to_the_end()
        assert told.startswith(b"421 4.3.2 proxy.example.org ")
    process.wait_for("session")
    whys = " ".join(event["why"] for event in process.events("backend_failed"))
    assert "refused" in whys
    process.stop()


def test_s19_a_refusal_by_the_greeting_is_the_clients(proxy: MakeProxy, mta: MakeMta) -> None:
    first, second = mta(greeting=b"554 5.7.1 not you\r\n"), mta()
    process = proxy()
    process.simple([first.endpoint, second.endpoint])
    process.start()
    for _ in range(2):
        with Client(process.address()) as client:
            assert client.to_the_end() == [b"554 5.7.1 not you\r\n"]
    assert second.commands == []
    process.stop()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_s10_a_backend_that_vanishes_never_gives_a_2xx(proxy: MakeProxy, mta: MakeMta, transport: str) -> None:
    """At each step in turn; the proxy serves the next client all the same."""
    server, process = mta(), proxy()
    process.simple([server.endpoint], service={"transport": transport})
    process.start()
    steps = [b"EHLO x", b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@example.org>", b"DATA", b"text\r\n."]
    for failing in ("EHLO", "MAIL", "RCPT", "DATA", "."):
        server.script.replies = {failing: b""}
        with Client(process.address()) as client:
            client.reply()
            replies = []
            for step in steps:
                client.send(step + b"\r\n")
                replies.append(client.reply())
                if replies[-1][:1] not in b"23":
                    break
            assert len(replies) == 1 + ("EHLO", "MAIL", "RCPT", "DATA", ".").index(failing)
            assert replies[-1][:1] == b"4"
    server.script.replies = {}
    with Client(process.address()) as client:
        client.begin().begin_data()
        client.send(b"text\r\n.\r\n")
        assert client.codes(1) == [250]
    process.stop()
    assert process.events("internal_error") == []


NO_NAMES = """
import socket
real = socket.getaddrinfo
def getaddrinfo(host, *arguments, **options):
    if host == "nowhere.invalid":
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return real(host, *arguments, **options)
socket.getaddrinfo = getaddrinfo
"""


def test_s19_names_are_looked_up(proxy: MakeProxy, mta: MakeMta, tmp_path: Path) -> None:
    """The system's resolver is not asked for the name that does not exist: it might take its time."""
    (tmp_path / "sitecustomize.py").write_text(NO_NAMES)
    process = proxy(environment={"PYTHONPATH": str(tmp_path)})
    port = mta().endpoint.rpartition(":")[2]
    process.simple([f"localhost:{port}", f"nowhere.invalid:{port}"], backend={"resolve": "100 ms"})
    process.start()
    assert served(process) == "mta.example.org"
    failures = process.wait_for("backend_lookup_failed", 2)
    assert {event["why"].partition(" ")[0] for event in failures} == {f"nowhere.invalid:{port}:"}
    process.stop()
