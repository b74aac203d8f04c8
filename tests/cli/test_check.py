"""``smtpproxy check``, and S14 tried out by ``--relay``."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smtpproxy.cli import main
from smtpproxy.cli.relay import Answer, Verdict, ask
from smtpproxy.config.endpoint import parse_endpoint

Written = Callable[..., str]
Server = Callable[..., Any]
Capture = pytest.CaptureFixture[str]

FOREIGN = "relay-test@example.net"
TRUSTED = f"accepts the foreign recipient <{FOREIGN}>: it trusts this address; keep recipient_domains strict"


def test_a_configuration_without_mistakes(written: Written, capsys: Capture) -> None:
    file = written("192.0.2.1:25")
    assert main(["check", "-c", file]) == 0
    assert capsys.readouterr() == (f"{file}: no mistakes\n", "")


def test_every_mistake_is_printed(written: Written, capsys: Capture) -> None:
    file = written("192.0.2.1", more="log: {level: loud}\ntls: {}\n")
    assert main(["check", "-c", file]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"{file}:3: backends.legacy.servers[0]: host:port, [IPv6 address]:port or unix:/path is expected, "
        "not '192.0.2.1'\n"
        f"{file}:4: log.level: debug, info, warning or error is expected, not 'loud'\n"
        f"{file}:5: tls: unknown key; it belongs into listeners, backends or routes\n"
    )


ROUTE = """routes:
  - domain: example.net
    nexthops: ["192.0.2.2:587"]
    tls: {mode: verified}
    credentials: {user: us, %s}
"""


def test_a_password_that_cannot_be_had(written: Written, capsys: Capture, tmp_path: Path) -> None:
    file = written("192.0.2.1:25", more=ROUTE % "password_file: password")
    assert main(["check", "-c", file]) == 1
    out, err = capsys.readouterr()
    assert out == f"{file}: no mistakes\n"
    assert err.startswith(f"route example.net: the password in {tmp_path / 'password'} cannot be read: ")
    file = written("192.0.2.1:25", more=ROUTE % "password_env: NOT_THERE_AT_ALL")
    assert main(["check", "-c", file]) == 1
    assert "NOT_THERE_AT_ALL" in capsys.readouterr().err


def test_a_password_that_can_be_had_is_not_shown(written: Written, capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hush\n")
    file = written("192.0.2.1:25", more=ROUTE % "password_file: password")
    assert main(["check", "-c", file]) == 0
    assert capsys.readouterr() == (f"{file}: no mistakes\n", "")


def test_without_relay_nothing_is_connected_to(written: Written, server: Server) -> None:
    backend = server()
    assert main(["check", "-c", written(backend.endpoint)]) == 0
    assert backend.commands == []


def test_a_backend_that_trusts_us_behind_a_list_of_domains(written: Written, server: Server, capsys: Capture) -> None:
    backend = server()
    assert main(["check", "--relay", "-c", written(backend.endpoint)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == [f"{backend.endpoint} (backend legacy): {TRUSTED}"]
    assert err == ""
    assert backend.commands == ["ehlo mx.example.org", "mail FROM:<>", f"rcpt TO:<{FOREIGN}>", "rset", "quit"]


def test_an_open_relay_is_warned_of(written: Written, server: Server, capsys: Capture) -> None:
    refusing, trusting = server(RCPT=b"554 5.7.1 no relaying\r\n"), server()
    file = written(refusing.endpoint, trusting.endpoint, domains="any")
    assert main(["check", "--relay", "-c", file]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1] == f"{refusing.endpoint} (backend legacy): refuses: 554 5.7.1 no relaying"
    assert out.splitlines()[2].startswith(f"{trusting.endpoint} (backend legacy): accepts the foreign recipient")
    assert err == (
        "WARNING: OPEN RELAY: listener mx passes on every recipient (recipient_domains: any), "
        "and backend legacy takes foreign ones from this address. Write out recipient_domains.\n"
    )


def test_any_before_a_backend_that_refuses_is_fine(written: Written, server: Server, capsys: Capture) -> None:
    refusing = server(RCPT=b"550-5.7.1 no\r\n550 5.7.1 relaying\r\n")
    assert main(["check", "--relay", "-c", written(refusing.endpoint, domains="any")]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1] == f"{refusing.endpoint} (backend legacy): refuses: 550 5.7.1 no 5.7.1 relaying"
    assert err == ""


def test_another_foreign_recipient(written: Written, server: Server) -> None:
    backend = server(RCPT=b"554 5.7.1 no\r\n")
    options = ["check", "--relay", "--relay-recipient", "x@elsewhere.example", "-c"]
    assert main([*options, written(backend.endpoint)]) == 0
    assert "rcpt TO:<x@elsewhere.example>" in backend.commands


@pytest.mark.parametrize("text", ["x", "x@", "<x@y>", "x@y z", "x@y\r\nDATA", "x@y>\r\n", "@y"])
def test_what_is_no_recipient(written: Written, text: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", "--relay", "--relay-recipient", text, "-c", written("192.0.2.1:25")])
    assert caught.value.code == 2
    assert "an address such as relay-test@example.net is expected" in capsys.readouterr().err


def test_a_recipient_of_our_own_proves_nothing(written: Written, server: Server, capsys: Capture) -> None:
    backend = server()
    file = written(backend.endpoint, domains="[example.org, Example.NET]")
    assert main(["check", "--relay", "-c", file]) == 1
    assert "is no foreign recipient for listener mx" in capsys.readouterr().err
    assert backend.commands == []


# What one server says.


def asked(endpoint: str, patience: float = 10.0) -> Answer:
    return ask(parse_endpoint(endpoint), FOREIGN, "mx.example.org", patience)


def test_a_server_on_a_unix_socket(server: Server) -> None:
    backend = server(unix=True, RCPT=b"554 5.7.1 no\r\n")
    assert asked(backend.endpoint) == Answer(Verdict.REFUSES, "554 5.7.1 no")


def test_a_server_without_ehlo(server: Server) -> None:
    backend = server(EHLO=b"500 what?\r\n", HELO=b"250 legacy\r\n")
    assert asked(backend.endpoint) == Answer(Verdict.ACCEPTS, "it trusts this address")
    assert backend.commands[:2] == ["ehlo mx.example.org", "helo mx.example.org"]


def test_a_temporary_refusal_tells_nothing(server: Server) -> None:
    backend = server(RCPT=b"450 4.2.0 greylisted\r\n")
    assert asked(backend.endpoint) == Answer(Verdict.UNCLEAR, "450 4.2.0 greylisted")


def test_no_data_is_ever_sent(server: Server) -> None:
    backend = server()
    asked(backend.endpoint)
    assert not [command for command in backend.commands if command.upper().startswith(("DATA", "BDAT"))]
    assert backend.commands[-1] == "quit"


@pytest.mark.parametrize(
    ("replies", "detail"),
    [
        ({"greeting": b"554 go away\r\n"}, "it greets with 554 go away"),
        ({"MAIL": b"550 5.7.1 \x1b[31mno\x07\r\n"}, "MAIL FROM:<> gets 550 5.7.1  [31mno"),
        ({"EHLO": b"550 no\r\n", "HELO": b"550 not you\r\n"}, "550 not you"),
        ({"EHLO": b""}, "Connection unexpectedly closed"),
        ({"RCPT": b""}, "Connection unexpectedly closed"),
        ({"greeting": b"HTTP/1.1 400 Bad Request\r\n"}, "it greets with what is no reply of SMTP"),
    ],
)
def test_a_server_that_cannot_be_tried(server: Server, replies: dict[str, bytes], detail: str) -> None:
    assert asked(server(**replies).endpoint) == Answer(Verdict.UNTRIED, detail)


@pytest.mark.parametrize("replies", [{"RSET": b""}, {"QUIT": b""}])
def test_how_the_server_takes_its_leave_does_not_matter(server: Server, replies: dict[str, bytes]) -> None:
    assert asked(server(**replies).endpoint).verdict is Verdict.ACCEPTS


def test_nobody_there(tmp_path: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{unused.getsockname()[1]}"
        assert asked(endpoint) == Answer(Verdict.UNTRIED, "Connection refused")
    assert asked(f"unix:{tmp_path}/none") == Answer(Verdict.UNTRIED, "No such file or directory")


def test_a_silent_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        verdict, detail = asked(f"127.0.0.1:{silent.getsockname()[1]}", patience=0.1)
    assert verdict is Verdict.UNTRIED
    assert "timed out" in detail
