"""What the service logs: one line per session and transaction, no secrets (H11); and faults of our own (H10)."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from .client import Client
from .conftest import TRANSPORTS, MakeMta, MakeProxy
from .mta import Mta
from .process import Process

ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\nRCPT TO:<x@else.example>\r\n"
MESSAGE = b"Subject: x\r\n\r\ntext\r\n"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_h11_one_line_per_session_and_per_transaction(proxy: MakeProxy, mta: MakeMta, transport: str) -> None:
    server, process = mta(), proxy()
    process.simple([server.endpoint], service={"transport": transport})
    process.start()
    with Client(process.address()) as client:
        burst = b"EHLO client.example\r\n"
        for _ in range(2):
            burst += ENVELOPE + b"BDAT %d LAST\r\n" % len(MESSAGE) + MESSAGE
        client.send(burst + b"MAIL FROM:<given@up.example>\r\nQUIT\r\n")
        assert len(client.to_the_end()) == 12
    with Client(process.address()) as client:
        client.begin()
    process.wait_for("session", 2)
    process.stop()
    assert process.events("internal_error") == []
    early, gone = process.events("session")
    assert early["client"] == "127.0.0.1"
    assert early["ehlo"] == "client.example"
    assert early["backend"] == server.endpoint
    assert (early["commands"], early["replies"]) == (11, 12)
    # Whether the burst was there before the greeting is for the two connections to race about.
    assert (early["accepted"], early["refused"]) == (2, 2)
    assert early["end"] == "quit"
    assert early["round_trips_saved"] > 5
    assert gone["early"] is False
    assert gone["end"] != "quit"
    assert gone["session"] != early["session"]
    first, second, third = process.events("transaction")
    for transaction in (first, second):
        assert transaction["session"] == early["session"]
        assert (transaction["from"], transaction["to"]) == ("a@b.example", "c@example.org")
        assert (transaction["octets"], transaction["reply"]) == (len(MESSAGE), "250 2.0.0 taken")
    assert third["from"] == "given@up.example"
    assert "reply" not in third or third["reply"] is None
    assert len(process.events("started")) == len(process.events("stopping")) == len(process.events("stopped")) == 1


def test_h11_what_a_client_says_cannot_break_a_line(proxy: MakeProxy, mta: MakeMta) -> None:
    process = proxy()
    process.simple([mta().endpoint])
    process.start()
    with Client(process.address()) as client:
        assert client.reply()[:3] == b"220"
        assert client.code(b'EHLO x\xff\xfe","event":"forged\xc2\x85\xe2\x80\xa8y') == 250
        assert client.code(b'MAIL FROM:<"\x1b[31m"@b.example>') == 500
        assert client.code(b'MAIL FROM:<"\xc2\x9b31m\\""@b.example>') == 250
        assert client.code(b"QUIT") == 221
        assert client.to_the_end() == []
    process.wait_for("session")
    process.stop()
    assert process.events("forged") == []
    assert "\x1b" not in process.text()
    assert "\x9b" not in process.text()


# --- the transcript -------------------------------------------------------------------------------------------------

PASSWORD = b"correct horse"
SECRET = base64.b64encode(b"\0user\0" + PASSWORD)


def said(process: Process) -> str:
    """The whole transcript."""
    return "\n".join(event["line"] for event in process.events("transcript"))


def assert_nothing_shown(process: Process) -> None:
    text = process.text()
    for secret in (SECRET, base64.b64encode(b"user"), base64.b64encode(PASSWORD), PASSWORD, b"VXNlcm5hbWU6"):
        assert secret.decode() not in text
    assert process.events("internal_error") == []


def watched(process: Process, server: Mta) -> Client:
    """A client of a proxy that writes transcripts."""
    process.simple([server.endpoint], auth="always")
    process.start()
    return Client(process.address()).begin()


def test_h11_a_transcript_masks_an_initial_response(proxy: MakeProxy, mta: MakeMta) -> None:
    server, process = mta(), proxy(arguments=["-v"])
    with watched(process, server) as client:
        assert client.code(b"auth plain " + SECRET) == 235
        assert client.code(b"MAIL FROM:<a@b.example>") == 250
        assert client.code(b"QUIT") == 221
        assert client.to_the_end() == []
    process.wait_for("session")
    process.stop()
    assert f"auth plain {SECRET.decode()}" in server.commands[0], "the server got it"
    assert_nothing_shown(process)
    text = said(process)
    for line in (
        "C: EHLO client.example",
        "B> EHLO client.example",
        "S: 235 2.7.0 welcome",
        "B< 250 2.0.0 ok",
        "C: QUIT",
    ):
        assert line in text
    assert "C: AUTH ****" in text


def test_h11_a_transcript_masks_an_exchange(proxy: MakeProxy, mta: MakeMta) -> None:
    server, process = mta(), proxy(arguments=["-v"])
    with watched(process, server) as client:
        assert client.code(b"AUTH LOGIN") == 334
        assert client.code(base64.b64encode(PASSWORD)) == 235
        assert client.code(b"QUIT") == 221
        assert client.to_the_end() == []
    process.wait_for("session")
    process.stop()
    assert_nothing_shown(process)


MALFORMED = {
    "a control character in the exchange": b"AUTH LOGIN\r\n%s\x01",
    "a bare LF in the exchange": b"AUTH LOGIN\r\n%s\n",
    "an over-long response": b"AUTH LOGIN\r\n" + b"x" * 13_000 + b"%s",
    "a control character": b"AUTH PLAIN %s\x01",
    "a leading space": b" AUTH PLAIN %s",
    "a tab": b"AUTH\tPLAIN %s",
    "no space": b"AUTHPLAIN %s",
}


def test_h11_a_transcript_masks_what_is_malformed(proxy: MakeProxy, mta: MakeMta) -> None:
    server, process = mta(), proxy(arguments=["-v"])
    with watched(process, server) as first:
        assert first.code(b"QUIT") == 221
    for what, line in MALFORMED.items():
        with Client(process.address()).begin() as client:
            for part in (line % SECRET).split(b"\r\n"):
                client.send(part + b"\r\n")
                assert client.reply()[:1] in b"35", what
    process.wait_for("session", 1 + len(MALFORMED))
    process.stop()
    assert_nothing_shown(process)


def test_without_v_there_is_no_transcript(proxy: MakeProxy, mta: MakeMta) -> None:
    server, process = mta(), proxy()
    with watched(process, server) as client:
        assert client.code(b"QUIT") == 221
    process.wait_for("session")
    process.stop()
    assert process.events("transcript") == []


# --- H10 ------------------------------------------------------------------------------------------------------------

SABOTAGE = """
from smtpproxy.session.relay import Relay
received = Relay.client_received
def client_received(self, data, now):
    if b"boom" in data:
        raise RuntimeError("sabotage")
    return received(self, data, now)
Relay.client_received = client_received
"""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_h10_an_exception_ends_one_session_and_not_the_service(
    proxy: MakeProxy, mta: MakeMta, transport: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SABOTAGE)
    server, process = mta(), proxy(environment={"PYTHONPATH": str(tmp_path)})
    process.simple([server.endpoint], service={"transport": transport})
    process.start()
    with Client(process.address()) as other, Client(process.address()) as client:
        other.begin().begin_data()
        client.begin().begin_data()
        client.send(b"text\r\nboom\r\n.\r\n")
        (told,) = client.to_the_end()
        assert told.startswith(b"421 4.3.0 proxy.example.org ")
        other.send(MESSAGE + b".\r\n")
        assert other.codes(1) == [250]
        assert server.message().data == MESSAGE
    with Client(process.address()) as fresh:
        fresh.begin()
    process.wait_for("session", 3)
    process.stop()
    (error,) = process.events("internal_error")
    assert "sabotage" in error["traceback"]
    assert error["client"] == "127.0.0.1"
    assert server.messages == []
