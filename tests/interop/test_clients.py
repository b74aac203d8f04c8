"""Other clients, polite and impolite: swaks, curl, netcat, Python's smtplib, and Postfix itself."""

from __future__ import annotations

import base64
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Backend, Serve
from .conversation import codes, conversation, dot_stuffed
from .exim_server import PASSWORD, USER, EximServer
from .lab import program, wait_for
from .messages import assert_intact, sample
from .postfix import Postfix, postfix
from .programs import run, swaks
from .relay import RecordingRelay

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(
    "options",
    ["", "--pipeline", "--protocol SMTP", "--from <>", "--local-interface 127.0.0.2"],
    ids=lambda words: words or "plain",
)
def test_swaks(any_backend: Backend, options: str, serve: Serve) -> None:
    """EHLO and HELO, lock-step and pipelined, the null reverse path."""
    message = sample()
    front = serve(any_backend.port)
    done = swaks(front.port, message, *options.split())
    assert done.returncode == 0, done.stdout.decode("utf-8", "replace")
    assert_intact(any_backend.delivered(), message)


@pytest.mark.parametrize("options", ["", "--pipeline"], ids=lambda words: words or "plain")
def test_swaks_with_a_refused_recipient(any_backend: Backend, options: str, serve: Serve) -> None:
    """Exit status 0: swaks goes on while one recipient is accepted."""
    message = sample()
    front = serve(any_backend.port)
    done = swaks(front.port, message, "--to", "one@lab.test,refused@lab.test,two@lab.test", *options.split())
    assert done.returncode == 0, done.stdout.decode("utf-8", "replace")
    assert b"<** 55" in done.stdout
    assert_intact(any_backend.delivered(), message, ("one@lab.test", "two@lab.test"))


@pytest.mark.parametrize(
    "stage", ["--quit-after RCPT", "--drop-after DATA", "--drop-after-send RCPT", "--quit-after EHLO"]
)
def test_swaks_leaves_before_the_message(any_backend: Backend, stage: str, serve: Serve) -> None:
    """S10, S15: with QUIT or without, nothing is left behind, and the next client is served."""
    left, whole = sample(), sample()
    front = serve(any_backend.port)
    swaks(front.port, left, *stage.split())
    assert swaks(front.port, whole).returncode == 0
    stored = any_backend.delivered()
    assert_intact(stored, left, ())
    assert_intact(stored, whole)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_swaks_authenticates_at_the_backend(exim_backend: EximServer, serve: Serve, mechanism: str) -> None:
    """AUTH passes reply by reply, and after the backend's 235 a foreign recipient does too (S14); no secret
    is logged.
    """
    message = sample()
    front = serve(exim_backend.port, listener={"auth": "always"})
    options = ["--to", "somebody@foreign.test"]
    refused = swaks(front.port, message, *options)
    assert b"<** 550 5.7.1" in refused.stdout
    assert b"relaying denied by the backend" not in refused.stdout
    options += ["--auth", mechanism, "--auth-user", USER, "--auth-password"]
    wrong = swaks(front.port, message, *options, "wrong")
    assert b"<** 535" in wrong.stdout
    right = swaks(front.port, message, *options, PASSWORD)
    assert right.returncode == 0, right.stdout.decode("utf-8", "replace")
    assert_intact(exim_backend.delivered(), message, ("somebody@foreign.test",))
    for secret in (PASSWORD.encode(), base64.b64encode(PASSWORD.encode()), b"AHNvbWVib2R5AGdlaGVpbQ"):
        assert secret.decode() not in front.log()


def test_curl(any_backend: Backend, tmp_path: Path, serve: Serve) -> None:
    """One of several recipients refused, as curl's --mail-rcpt-allowfails permits."""
    message = sample()
    file = tmp_path / "message"
    file.write_bytes(message.wire)
    front = serve(any_backend.port)
    url = f"smtp://127.0.0.1:{front.port}/client.lab.test"
    envelope = "--mail-from sender@lab.test --mail-rcpt one@lab.test --mail-rcpt refused@lab.test"
    command = [str(program("curl")), "-sS", "--url", url, *envelope.split(), "--mail-rcpt-allowfails"]
    done = run(*command, "--upload-file", str(file))
    assert (done.returncode, done.stderr) == (0, b"")
    assert_intact(any_backend.delivered(), message, ("one@lab.test",))


def test_smtplib(any_backend: Backend, serve: Serve) -> None:
    """Several transactions in one session, RSET, NOOP, a refusal, and an unknown verb between them."""
    messages = [sample(size=size) for size in (0, 300_000, 0)]
    recipients = ["one@lab.test", "refused@lab.test", "two@lab.test"]
    front = serve(any_backend.port)
    with smtplib.SMTP("127.0.0.1", front.port, "client.lab.test", timeout=30) as client:
        for message in messages:
            refused = client.sendmail("sender@lab.test", recipients, message.wire, ["BODY=8BITMIME"])
            assert {name: reply[0] // 10 for name, reply in refused.items()} == {"refused@lab.test": 55}
            assert client.noop()[0] == 250
            assert client.docmd("XEXCH50", "2 2")[0] == 500
            assert client.mail("sender@lab.test")[0] == 250
            assert client.rset()[0] == 250
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("sender@lab.test", ["refused@lab.test"], messages[0].wire)
        assert {"pipelining", "pipeconnect", "chunking", "8bitmime"} <= set(client.esmtp_features)
    stored = any_backend.delivered()
    for message in messages:
        assert_intact(stored, message, ("one@lab.test", "two@lab.test"))


def test_netcat_sends_a_whole_session_at_once(any_backend: Backend, serve: Serve) -> None:
    """Two transactions, QUIT and a half-close in the first flight, as one BDAT each: the most a client can
    save (PROTOCOL table, 2 round trips).
    """
    messages = [sample(), sample(size=100_000)]
    burst = b"EHLO client.lab.test\r\n"
    for message in messages:
        burst += (
            b"MAIL FROM:<sender@lab.test>\r\nRCPT TO:<recipient@lab.test>\r\nBDAT %d LAST\r\n" % len(message.wire)
            + message.wire
        )
    front = serve(any_backend.port)
    done = run(str(program("nc")), "-N", "127.0.0.1", str(front.port), data=burst + b"QUIT\r\n")
    final = [int(line[:3]) for line in done.stdout.decode().splitlines() if line[3:4] == " "]
    assert final == [220, 250, 250, 250, 250, 250, 250, 250, 221], done.stdout
    stored = any_backend.delivered()
    for message in messages:
        assert_intact(stored, message)


def test_a_burst_of_many_recipients_and_chunks(any_backend: Backend, serve: Serve) -> None:
    """S3: one reply per command, in order, whatever the backend's pace; a chunk may end anywhere, in a line
    end or behind a dot.
    """
    message = sample(size=20_000)
    good = tuple(f"r{number}@lab.test" for number in range(20))
    everybody = [*good[:10], "refused@lab.test", *good[10:]]
    chunks = [message.wire[start : start + 997] for start in range(0, len(message.wire), 997)]
    front = serve(any_backend.port)
    with conversation(front.port) as client:
        client.send(
            b"EHLO client.lab.test",
            b"MAIL FROM:<sender@lab.test>",
            *(f"RCPT TO:<{name}>".encode() for name in everybody),
        )
        for number, chunk in enumerate(chunks, 1):
            client.send_octets(b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if number == len(chunks) else b"") + chunk)
        client.send(b"QUIT")
        answers = codes(client.replies())
    refusals = [code for code in answers if code >= 400]
    assert answers == [220, 250, 250] + [250] * 10 + refusals + [250] * 10 + [250] * len(chunks) + [221]
    assert [code // 10 for code in refusals] == [55]
    assert_intact(any_backend.delivered(), message, good)


def test_data_early_then_the_message(any_backend: Backend, serve: Serve) -> None:
    """DATA last in the first flight, before the greeting; the message follows the 354; then a second
    transaction.
    """
    messages = [sample(), sample()]
    front = serve(any_backend.port)
    with conversation(front.port) as client:
        envelope = (b"MAIL FROM:<sender@lab.test>", b"RCPT TO:<recipient@lab.test>", b"DATA")
        client.send(b"EHLO client.lab.test", *envelope)
        assert [client.reply().code for _ in range(5)] == [220, 250, 250, 250, 354]
        client.send_octets(dot_stuffed(messages[0].wire) + b"\r\n".join(envelope) + b"\r\n")
        assert [client.reply().code for _ in range(4)] == [250, 250, 250, 354]
        client.send_octets(dot_stuffed(messages[1].wire) + b"QUIT\r\n")
        assert codes(client.replies()) == [250, 221]
    stored = any_backend.delivered()
    for message in messages:
        assert_intact(stored, message)


def test_text_behind_an_early_data_is_never_run(any_backend: Backend, serve: Serve) -> None:
    """S5: what was read before our 354 is no message and no command; nobody gets anything."""
    message = sample()
    front = serve(any_backend.port)
    with conversation(front.port) as client:
        client.send_octets(
            b"EHLO client.lab.test\r\nMAIL FROM:<sender@lab.test>\r\nRCPT TO:<recipient@lab.test>\r\nDATA\r\n"
            + dot_stuffed(message.wire)
            + b"QUIT\r\n"
        )
        assert codes(client.replies()) == [220, 250, 250, 250, 554]
    assert_intact(any_backend.delivered(), message, ())


def test_a_client_that_vanishes_leaves_nothing(any_backend: Backend, serve: Serve) -> None:
    """S10, H7: gone in the middle of DATA, in the middle of a chunk, and between two chunks."""
    message = sample()
    half = message.wire[: len(message.wire) // 2]
    start = (b"EHLO client.lab.test", b"MAIL FROM:<sender@lab.test>", b"RCPT TO:<recipient@lab.test>")
    front = serve(any_backend.port)
    for tail in (
        b"DATA\r\n",
        b"BDAT %d LAST\r\n" % len(message.wire) + half,
        b"BDAT %d\r\n" % len(half) + half,
    ):
        with conversation(front.port) as client:
            client.send(*start)
            client.send_octets(tail)
            assert [client.reply().code for _ in range(4)] == [220, 250, 250, 250]
            if tail.startswith(b"DATA"):
                assert client.reply().code == 354
                client.send_octets(dot_stuffed(message.wire)[: len(half)])
    assert_intact(any_backend.delivered(), message, ())


@pytest.fixture(scope="module")
def sending_postfix(switch: RecordingRelay) -> Iterator[Postfix]:
    """A Postfix that relays everything to the switch."""
    settings = {
        "virtual_mailbox_domains": "",
        "default_transport": "smtp",
        "myhostname": "sender.lab.test",
        "relayhost": f"[127.0.0.1]:{switch.port}",
        "smtp_tls_security_level": "none",
    }
    with postfix(settings) as server:
        yield server


def test_postfix_as_the_client(
    any_backend: Backend, serve: Serve, switch: RecordingRelay, sending_postfix: Postfix
) -> None:
    """The other common sender."""
    messages = [sample(), sample(size=1 << 20)]
    switch.target = serve(any_backend.port).port
    with smtplib.SMTP("127.0.0.1", sending_postfix.port, "client.lab.test", timeout=30) as client:
        for message in messages:
            client.sendmail("sender@lab.test", ["one@lab.test", "two@lab.test"], message.wire)
    wait_for(lambda: not sending_postfix.queued(), "everything sent on", 30.0)
    assert "status=deferred" not in sending_postfix.log()
    stored = any_backend.delivered()
    for message in messages:
        assert_intact(stored, message, ("one@lab.test", "two@lab.test"))


def test_chunks_of_a_server_with_pipelining_alone(postfix_without_chunking: Postfix, serve: Serve) -> None:
    """S9: BDAT becomes DATA for a backend that pipelines."""
    message = sample(size=50_000)
    front = serve(postfix_without_chunking.port)
    with conversation(front.port) as client:
        client.send(b"EHLO client.lab.test", b"MAIL FROM:<sender@lab.test>", b"RCPT TO:<recipient@lab.test>")
        client.send_octets(
            b"BDAT %d\r\n" % 10_001
            + message.wire[:10_001]
            + b"BDAT %d LAST\r\n" % (len(message.wire) - 10_001)
            + message.wire[10_001:]
        )
        client.send(b"QUIT")
        assert codes(client.replies()) == [220, 250, 250, 250, 250, 250, 221]
    assert_intact(postfix_without_chunking.delivered(), message)
