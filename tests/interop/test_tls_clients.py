"""swaks, curl and Python's smtplib inside TLS, and how they log in at an Exim behind, which has users."""

from __future__ import annotations

import base64
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .clients import RECIPIENT, name_for
from .conversation import codes, conversation
from .exim_server import PASSWORD, USER, EximServer
from .fronts import Front, Way, fronts, tls
from .lab import program
from .messages import assert_intact, sample
from .postfix import Postfix
from .programs import run, shown, swaks

pytestmark = pytest.mark.interop

FOREIGN = "friend@foreign.test"
KINDS = ("starttls", "implicit")
MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5")
by_kind = pytest.mark.parametrize("kind", KINDS)
by_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS)


@pytest.fixture(scope="module")
def way(postfix_plain: Postfix, exim_backend: EximServer, server_pair: Any) -> Iterator[dict[str, Front]]:
    """A listener for each kind of TLS, in front of a Postfix and of an Exim; it writes transcripts."""
    modes = {"starttls": "starttls-required", "implicit": "implicit", "offered": "starttls"}
    ways = {
        f"{kind}-{name}": Way(server.port, {}, tls(mode, server_pair))
        for kind, mode in modes.items()
        for name, server in (("postfix", postfix_plain), ("exim", exim_backend))
    }
    ways["never"] = Way(exim_backend.port, {}, tls("implicit", server_pair) | {"auth": "never"})
    with fronts(ways, "-v") as made:
        yield made


@pytest.fixture(scope="module")
def context(lasting_pki: Any) -> ssl.SSLContext:
    """What a careful client trusts."""
    return ssl.create_default_context(cafile=str(lasting_pki.root.path))


def connected(kind: str, port: int, name: str, context: ssl.SSLContext) -> smtplib.SMTP:
    """An smtplib client inside TLS."""
    if kind == "implicit":
        return smtplib.SMTP_SSL("127.0.0.1", port, name, timeout=30, context=context)
    client = smtplib.SMTP("127.0.0.1", port, name, timeout=30)
    assert client.starttls(context=context)[0] == 220
    return client


@by_kind
@pytest.mark.parametrize("more", ["", "--pipeline"], ids=lambda words: words or "plain")
def test_swaks(postfix_plain: Postfix, way: dict[str, Front], kind: str, more: str) -> None:
    message = sample()
    option = "--tls" if kind == "starttls" else "--tlsc"
    done = swaks(way[f"{kind}-postfix"].port, message, option, *more.split())
    assert done.returncode == 0, shown(done)
    assert b"=== TLS started with cipher TLSv1.3:" in done.stdout
    assert_intact(postfix_plain.delivered(), message)


def test_swaks_without_tls_where_it_is_required(postfix_plain: Postfix, way: dict[str, Front]) -> None:
    message = sample()
    done = swaks(way["starttls-postfix"].port, message)
    assert b"<** 530 5.7.0" in done.stdout
    assert_intact(postfix_plain.delivered(), message, ())


def test_swaks_where_tls_is_optional(postfix_plain: Postfix, way: dict[str, Front]) -> None:
    for options in ([], ["--tls"]):
        message = sample()
        assert swaks(way["offered-postfix"].port, message, *options).returncode == 0
        assert_intact(postfix_plain.delivered(), message)


@by_kind
def test_curl(postfix_plain: Postfix, way: dict[str, Front], lasting_pki: Any, tmp_path: Path, kind: str) -> None:
    """It verifies the certificate, and without the right authority it does not come."""
    message = sample()
    file = tmp_path / "message"
    file.write_bytes(message.wire)
    scheme = "smtps" if kind == "implicit" else "smtp"
    url = f"{scheme}://127.0.0.1:{way[f'{kind}-postfix'].port}/client.lab.test"
    command = [str(program("curl")), "-sS", "--ssl-reqd", "--url", url, "--mail-from", "sender@lab.test"]
    command += ["--mail-rcpt", RECIPIENT, "--upload-file", str(file)]
    mistrustful = run(*command)
    assert mistrustful.returncode == 60, shown(mistrustful)
    done = run(*command, "--cacert", str(lasting_pki.root.path))
    assert (done.returncode, done.stderr) == (0, b"")
    assert_intact(postfix_plain.delivered(), message)


@by_kind
def test_smtplib(postfix_plain: Postfix, way: dict[str, Front], context: ssl.SSLContext, kind: str) -> None:
    """Several transactions, a large one among them, a refusal, RSET; STARTTLS is offered in clear only."""
    messages = [sample(), sample(size=2_000_000), sample()]
    recipients = ["one@lab.test", "refused@lab.test", "two@lab.test"]
    with connected(kind, way[f"{kind}-postfix"].port, name_for(messages[0]), context) as client:
        for message in messages:
            assert list(client.sendmail("sender@lab.test", recipients, message.wire)) == ["refused@lab.test"]
            assert client.rset()[0] == 250
        assert {"pipelining", "pipeconnect", "chunking", "8bitmime"} <= set(client.esmtp_features)
        assert "starttls" not in client.esmtp_features
        assert client.docmd("STARTTLS")[0] == 503
    stored = postfix_plain.delivered()
    for message in messages:
        assert_intact(stored, message, ("one@lab.test", "two@lab.test"))
    session = way[f"{kind}-postfix"].session(messages[0])
    assert (session["tls"], session["accepted"]) == ("TLSv1.3", 6)


@by_kind
@by_mechanism
def test_log_in(
    exim_backend: EximServer, way: dict[str, Front], context: ssl.SSLContext, kind: str, mechanism: str
) -> None:
    """Exim's user may send to foreign domains, another client may not (S14); AUTH is tried wrongly first."""
    message = sample()
    front = way[f"{kind}-exim"]
    with connected(kind, front.port, name_for(message), context) as client:
        client.ehlo_or_helo_if_needed()
        assert set(client.esmtp_features["auth"].split()) == set(MECHANISMS)
        method = getattr(client, f"auth_{mechanism.lower().replace('-', '_')}")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("sender@lab.test", [FOREIGN], message.wire)
        client.user, client.password = USER, "wrong"
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.auth(mechanism, method)
        client.password = PASSWORD
        assert client.auth(mechanism, method)[0] == 235
        client.sendmail("sender@lab.test", [FOREIGN], message.wire)
    assert_intact(exim_backend.delivered(), message, (FOREIGN,))
    front.session(message)
    assert_secret(front)


def assert_secret(front: Front) -> None:
    """Nothing of an exchange is in the log, which has a transcript: no password, no response, no challenge."""
    log = front.proxy.log()
    assert "AUTH ****" in log
    plain = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
    for secret in (PASSWORD, base64.b64encode(PASSWORD.encode()).decode(), plain, plain[4:20]):
        assert secret not in log
    lines = [event["line"] for event in front.proxy.events("transcript")]
    assert {line[3:] for line in lines if line[3:6] == "334"} <= {"334 ****"}
    # A response to CRAM-MD5 begins with the user's name.
    assert base64.b64encode(f"{USER} ".encode()).decode()[:12] not in log


@by_kind
@by_mechanism
def test_swaks_logs_in(exim_backend: EximServer, way: dict[str, Front], kind: str, mechanism: str) -> None:
    message = sample()
    options = ["--tls" if kind == "starttls" else "--tlsc", "--to", FOREIGN]
    options += ["--auth", mechanism, "--auth-user", USER, "--auth-password", PASSWORD]
    done = swaks(way[f"{kind}-exim"].port, message, *options)
    assert done.returncode == 0, shown(done)
    assert_intact(exim_backend.delivered(), message, (FOREIGN,))
    assert_secret(way[f"{kind}-exim"])


def test_auth_in_the_first_flight(exim_backend: EximServer, way: dict[str, Front], context: ssl.SSLContext) -> None:
    """EHLO and AUTH with an initial response, before the greeting; the envelope behind the 235, in one flight again."""
    message = sample()
    response = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())
    with conversation(way["implicit-exim"].port) as client:
        client.start_tls(context, "mx.lab.test")
        client.send(b"EHLO " + name_for(message).encode(), b"AUTH PLAIN " + response)
        assert [client.reply().code for _ in range(3)] == [220, 250, 235]
        client.send(b"MAIL FROM:<sender@lab.test>", b"RCPT TO:<friend@foreign.test>")
        client.send_octets(b"BDAT %d LAST\r\n" % len(message.wire) + message.wire + b"QUIT\r\n")
        assert codes(client.replies()) == [250, 250, 250, 221]
    assert_intact(exim_backend.delivered(), message, (FOREIGN,))
    assert_secret(way["implicit-exim"])


def test_auth_can_be_cancelled(way: dict[str, Front], context: ssl.SSLContext) -> None:
    """RFC 4954, 4: a single asterisk; the session goes on."""
    with conversation(way["implicit-exim"].port) as client:
        client.start_tls(context, "mx.lab.test")
        assert client.reply().code == 220
        assert client.ask(b"EHLO client.lab.test").code == 250
        assert client.ask(b"AUTH LOGIN").code == 334
        assert client.ask(b"*").code == 501
        assert client.ask(b"NOOP").code == 250


@pytest.mark.parametrize(
    ("name", "secure", "code"), [("offered-exim", False, 538), ("starttls-exim", False, 530), ("never", True, 503)]
)
def test_auth_where_it_is_not_offered(
    way: dict[str, Front], context: ssl.SSLContext, name: str, code: int, *, secure: bool
) -> None:
    """In clear, or not at all; what the client sent all the same is not in the log."""
    with conversation(way[name].port) as client:
        if secure:
            client.start_tls(context, "mx.lab.test")
        assert client.reply().code == 220
        assert "AUTH" not in client.ask(b"EHLO client.lab.test").text
        assert client.ask(b"AUTH PLAIN " + base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())).code == code
        assert client.ask(b"QUIT").code == 221
    assert base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode() not in way[name].proxy.log()


@by_kind
def test_a_certificate_for_somebody_else_is_not_taken(way: dict[str, Front], pki: Any, kind: str) -> None:
    """Or the tests above would not show that these clients look; our log has the alert."""
    front = way[f"{kind}-postfix"]
    watch = front.watch()
    with pytest.raises(ssl.SSLCertVerificationError):
        connected(
            kind, front.port, "client.lab.test", ssl.create_default_context(cafile=str(pki.ca("Somebody else").path))
        )
    assert "unknown ca" in watch.one("tls_failed")["why"]
