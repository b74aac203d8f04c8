"""``check --relay`` where the backend is told who the client is: it is asked in the name of one that nobody knows."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from smtpproxy.cli import main
from smtpproxy.cli.relay import Answer, Verdict, ask
from smtpproxy.config.endpoint import parse_endpoint

Capture = pytest.CaptureFixture[str]
Written = Callable[..., str]
Server = Callable[..., object]

FOREIGN = "relay-test@example.net"
KNOWING = {"EHLO": b"250-legacy\r\n250 XCLIENT NAME ADDR\r\n", "XCLI": b"220 legacy ESMTP\r\n"}
XCLIENT = "XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.1"


def asked(server: object, identity: str) -> Answer:
    return ask(parse_endpoint(server.endpoint), FOREIGN, "mx.example.org", 10.0, identity=identity)


@pytest.mark.parametrize("identity", ["auto", "xclient"])
def test_a_server_that_takes_xclient_is_told_of_a_stranger(server: Server, identity: str) -> None:
    backend = server(RCPT=b"554 5.7.1 no relaying\r\n", **KNOWING)
    assert asked(backend, identity) == Answer(Verdict.REFUSES, "554 5.7.1 no relaying")
    assert backend.commands[:4] == ["ehlo mx.example.org", XCLIENT, "ehlo mx.example.org", "mail FROM:<>"]


def test_one_that_relays_for_anybody_is_told_from_one_that_trusts_us(server: Server) -> None:
    knowing, trusting = server(**KNOWING), server()
    assert asked(knowing, "auto") == Answer(Verdict.ACCEPTS, "it trusts anybody")
    assert asked(trusting, "auto") == Answer(Verdict.ACCEPTS, "it trusts this address")


@pytest.mark.parametrize("identity", ["none", "xforward"])
def test_one_that_is_not_to_be_told_is_not(server: Server, identity: str) -> None:
    backend = server(**KNOWING)
    assert asked(backend, identity).verdict is Verdict.ACCEPTS
    assert XCLIENT not in backend.commands


def test_xclient_refused(server: Server) -> None:
    backend = server(**{**KNOWING, "XCLI": b"550 5.7.0 not you\r\n"})
    assert asked(backend, "auto") == Answer(Verdict.UNTRIED, "XCLIENT gets 550 5.7.0 not you")
    assert not any(command.startswith("mail") for command in backend.commands)


@pytest.mark.parametrize(
    ("identity", "header"),
    [
        ("proxy-v1", b"PROXY TCP4 192.0.2.1 192.0.2.2 12345 25\r\n"),
        (
            "proxy-v2",
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2]) + b"\x30\x39\x00\x19",
        ),
    ],
)
def test_a_server_that_wants_a_proxy_header_gets_one(identity: str, header: bytes) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    came: list[bytes] = []

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(10)
            while len(b"".join(came)) < len(header) and (data := connection.recv(len(header))):
                came.append(data)
            connection.sendall(b"554 5.7.1 go away\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    answer = ask(
        parse_endpoint(f"127.0.0.1:{listening.getsockname()[1]}"), FOREIGN, "mx.example.org", 10.0, identity=identity
    )
    thread.join(10)
    listening.close()
    assert b"".join(came) == header
    assert answer == Answer(Verdict.UNTRIED, "it greets with 554 5.7.1 go away")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("identity: source-address", "clients connect to it from their own addresses"),
        ("tls: {mode: implicit}", "it is spoken to inside TLS"),
        ("tls: {mode: starttls-required}", "it is spoken to inside TLS"),
    ],
)
def test_what_cannot_be_tried_is_said(
    written: Written, server: Server, capsys: Capture, settings: str, why: str
) -> None:
    backend = server()
    file = Path(written(backend.endpoint))
    file.write_text(file.read_text().replace("legacy: {servers", "legacy: {" + settings + ", servers"))
    assert main(["check", "--relay", "-c", str(file)]) == 0
    assert f"backend legacy cannot be tried: {why}" in capsys.readouterr().out
    assert backend.commands == []


@pytest.mark.parametrize(("domains", "warned"), [("any", "recipient_domains: any"), (None, "no recipient_domains")])
def test_an_open_relay_behind_a_listener_without_a_list(
    written: Written, server: Server, capsys: Capture, domains: str | None, warned: str
) -> None:
    backend = server(**KNOWING)
    file = Path(written(backend.endpoint, domains=domains or "any"))
    if domains is None:
        file.write_text(file.read_text().replace(", recipient_domains: any", ""))
    assert main(["check", "--relay", "-c", str(file)]) == 1
    assert f"passes on every recipient ({warned})" in capsys.readouterr().err
    assert backend.commands[1] == XCLIENT
