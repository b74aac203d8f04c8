"""Outbound on real sockets: TLS with remotes, what is done without it, credentials, and TLS with clients."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .client import Client
from .outboundproxy import Town, deliver, route
from .outboundremote import CLOSE, EARLY, Dialogue
from .process import Settings
from .tlstools import client_context, server_context, with_tls

HOST = "127.0.0.1"
SECRET = "S3cret-of-ours"
RIDING = {"speculate": {"confirmed": 0}}


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as made:
        yield made


@pytest.fixture
def server_tls(pki: Any) -> ssl.SSLContext:
    """The context of a server that is rightly called 127.0.0.1."""
    return server_context(pki.pair([HOST]))


def tls(pki: Any, mode: str, **more: Any) -> Settings:
    """The TLS of a route."""
    return {"mode": mode, "ca": str(pki.root.path)} | more


def once(*hops: Any, **more: Any) -> list[Settings]:
    """Routes by which each message has its own connection."""
    return [route(hops, reuse=False, **more)]


def ask(smarthost: Any) -> bytes:
    """Deliver a message on a connection of its own; give the last reply."""
    with smarthost.client() as client:
        return deliver(client)


def test_starttls_is_used_where_it_is_offered_and_ehlo_said_anew(
    town: Town, pki: Any, server_tls: ssl.SSLContext
) -> None:
    remote = town.remote(keywords=EARLY, tls=server_tls)
    smarthost = town.smarthost(once(remote, tls=tls(pki, "verified")), listener=RIDING)
    assert ask(smarthost) == b"250 2.0.0 taken\r\n"
    assert remote.dialogue().verbs[:7] == ["EHLO", "STARTTLS", "TLS", "EHLO", "MAIL", "RCPT", "BDAT"]
    remote.behave(keywords=EARLY, tls=server_tls, waits=True)
    assert ask(smarthost) == b"250 2.0.0 taken\r\n"
    assert remote.dialogue(-1, 2).early == b"EHLO proxy.example.org\r\nSTARTTLS\r\n"
    first, second = smarthost.wait_for("delivery", 2)
    assert first["tls"].startswith("TLSv1.3 ")
    assert (first.get("early"), second["early"], second["one_flight"]) == (None, True, True)
    assert "verified" in first["verdict"]


def test_implicit_tls_early_and_verified(town: Town, pki: Any, server_tls: ssl.SSLContext) -> None:
    remote = town.remote(keywords=EARLY, tls=server_tls, implicit=True)
    smarthost = town.smarthost(once(remote, tls=tls(pki, "implicit")), listener=RIDING)
    assert ask(smarthost) == b"250 2.0.0 taken\r\n"
    remote.behave(keywords=EARLY, tls=server_tls, implicit=True, waits=True)
    assert ask(smarthost) == b"250 2.0.0 taken\r\n"
    assert remote.dialogue(-1, 2).early.startswith(b"EHLO proxy.example.org\r\nMAIL ")
    assert [event["tls"][:7] for event in smarthost.wait_for("delivery", 2)] == ["TLSv1.3"] * 2


@pytest.mark.parametrize("mode", ["verified", "implicit"])
def test_another_ones_certificate_goes_on_to_the_next_server(town: Town, pki: Any, mode: str) -> None:
    wrong, right = server_context(pki.pair(["mx.other.example"])), server_context(pki.pair([HOST]))
    first = town.remote(tls=wrong, implicit=mode == "implicit")
    second = town.remote(tls=right, implicit=mode == "implicit")
    smarthost = town.smarthost(once(first, second, tls=tls(pki, mode)))
    assert ask(smarthost) == b"250 2.0.0 taken\r\n"
    assert first.dialogue().verbs in (["TLS"], ["EHLO", "STARTTLS", "TLS"], [], ["EHLO", "STARTTLS"])
    event = smarthost.wait_for("delivery")[0]
    assert (event["tries"], event["remote"]) == (2, second.nexthop)
    assert "127.0.0.1" in event["failures"][0]
    second.refuse()
    with smarthost.client() as client:
        assert deliver(client)[:3] == b"451"
    assert first.messages == []


@pytest.mark.parametrize("mode", ["required", "verified"])
def test_no_message_in_clear_where_tls_is_a_must(town: Town, pki: Any, mode: str) -> None:
    remote = town.remote(keywords=EARLY)
    smarthost = town.smarthost(once(remote, tls=tls(pki, mode)))
    assert ask(smarthost)[:9] == b"451 4.7.5"
    remote.behave(keywords=EARLY, replies={"EHLO": b"250-r\r\n250 STARTTLS\r\n", "STARTTLS": b"454 4.7.0 not now\r\n"})
    assert ask(smarthost)[:9] == b"451 4.7.5"
    assert [verb for dialogue in remote.dialogues for verb in dialogue.verbs if verb in {"MAIL", "BDAT"}] == []


def test_c16_an_opportunistic_handshake_that_fails_gets_one_retry_in_clear(town: Town, pki: Any) -> None:
    broken = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # without any certificate no handshake succeeds
    remote = town.remote(keywords=EARLY, tls=broken)
    smarthost = town.smarthost(once(remote, tls=tls(pki, "opportunistic")))
    assert ask(smarthost) == b"250 2.0.0 taken\r\n"
    broken_off, taken = remote.dialogues
    assert broken_off.verbs == ["EHLO", "STARTTLS"]
    # The client's leave lets the session go, and its QUIT may be there already.
    assert taken.verbs[:4] == ["EHLO", "MAIL", "RCPT", "BDAT"]
    event = smarthost.wait_for("delivery")[0]
    assert (event["tries"], event.get("tls")) == (2, None)
    assert "handshake failed" in event["failures"][0]


def test_c16_a_downgrade_is_logged_or_refused(town: Town, pki: Any, server_tls: ssl.SSLContext) -> None:
    lenient, strict = (town.remote(keywords=EARLY, tls=server_tls) for _ in range(2))
    routes = [
        route([lenient], "log.example", tls=tls(pki, "opportunistic"), reuse=False),
        route([strict], "refuse.example", tls=tls(pki, "opportunistic", downgrade="refuse"), reuse=False),
    ]
    smarthost = town.smarthost(routes)
    for remote, domain, code in ((lenient, b"log.example", b"250"), (strict, b"refuse.example", b"451")):
        with smarthost.client() as client:
            assert deliver(client, b"x\r\n", b"b@" + domain)[:3] == b"250"
        remote.behave(keywords=EARLY)
        # What is refused once is refused the next time, too: it is not learned.
        for _ in range(2):
            with smarthost.client() as client:
                assert deliver(client, b"x\r\n", b"b@" + domain)[:3] == code
    gone = smarthost.wait_for("starttls_gone", 3)
    assert [event["remote"] for event in gone] == [lenient.nexthop, strict.nexthop, strict.nexthop]
    assert len(strict.messages) == 1
    smarthost.stop()
    assert smarthost.counters()["tls_downgrades"] == 3


def _login(dialogue: Dialogue) -> bytes:
    """Ask for user and password."""
    words = dialogue.heard[-1].split()
    if words[1] == "PLAIN":
        return b"235 2.7.0 welcome\r\n"
    for question in (b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n"):
        dialogue.sock.sendall(question)
        dialogue.heard.append(dialogue.sock.recv(1000).decode().strip())
    return b"235 2.7.0 welcome\r\n"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_c15_h11_credentials_are_given_inside_verified_tls_and_shown_nowhere(
    town: Town, pki: Any, server_tls: ssl.SSLContext, tmp_path: Path, mechanism: str
) -> None:
    script: Settings = {"keywords": (*EARLY, f"AUTH {mechanism}"), "tls": server_tls, "replies": {"AUTH": _login}}
    by_file, by_variable = town.remote(**script), town.remote(**script)
    password = tmp_path / "password"
    password.write_text(SECRET + "\n")
    known = {"tls": tls(pki, "verified"), "reuse": False}
    routes = [
        route([by_file], "file.example", credentials={"user": "us", "password_file": str(password)}, **known),
        route([by_variable], "env.example", credentials={"user": "us", "password_env": "OUR_SECRET"}, **known),
    ]
    options = {"environment": {"OUR_SECRET": SECRET}, "arguments": ["-v"]}
    smarthost = town.smarthost(routes, options=options, listener=RIDING)
    plain = base64.b64encode(f"\0us\0{SECRET}".encode()).decode()
    coded = base64.b64encode(SECRET.encode()).decode()
    for domain, remote in ((b"file.example", by_file), (b"env.example", by_variable)):
        for _ in range(2):
            with smarthost.client() as client:
                assert deliver(client, b"x\r\n", b"b@" + domain)[:3] == b"250"
        assert len(remote.dialogues) == 2
        for dialogue in remote.dialogues:
            assert (plain if mechanism == "PLAIN" else coded) in " ".join(dialogue.heard).split()
    by_file.behave(**script | {"replies": {"AUTH": f"535 5.7.8 not {plain} {coded}\r\n".encode()}})
    with smarthost.client() as client:
        assert deliver(client, b"x\r\n", b"b@file.example")[:3] == b"451"
    by_file.behave(keywords=EARLY, tls=server_tls, replies={"AUTH": b"503 5.5.1 what?\r\n"})
    with smarthost.client() as client:
        assert deliver(client, b"x\r\n", b"b@file.example")[:9] == b"451 4.7.8"
    assert len(by_file.messages) == 2
    smarthost.stop()
    text = smarthost.text()
    assert "AUTH ****" in text
    assert not [secret for secret in (SECRET, plain, coded) if secret in text]
    assert "535 5.7.8" in text


def test_c15_a_password_that_cannot_be_had_is_said_in_one_line(town: Town, pki: Any, tmp_path: Path) -> None:
    remote = town.remote(tls=server_context(pki.pair([HOST])))
    gone = tmp_path / "no-such-password"
    login = {"user": "us", "password_file": str(gone)}
    gone.write_text(SECRET)
    smarthost = town.smarthost(once(remote, tls=tls(pki, "verified"), credentials=login))
    gone.unlink()
    smarthost.reload()
    assert str(gone) in smarthost.wait_for("reload_refused")[0]["why"]
    smarthost.stop()
    done = smarthost.once()
    assert done.returncode == 1
    assert str(gone) in done.stderr
    assert "Traceback" not in done.stderr + smarthost.text()


def test_a_client_by_starttls_and_one_by_implicit_tls(town: Town, pki: Any) -> None:
    remote = town.remote(keywords=EARLY)
    pair = pki.pair(["proxy.example.org"])
    context = client_context(pki)
    for mode in ("starttls-required", "implicit"):
        smarthost = town.smarthost(once(remote), listener={"tls": with_tls(pair, mode)})
        with Client(smarthost.address()) as client:
            if mode == "implicit":
                client.secure(context, "proxy.example.org").begin()
            else:
                client.begin()
                assert client.code(b"MAIL FROM:<a@client.example>") == 530
                assert client.code(b"STARTTLS") == 220
                client.secure(context, "proxy.example.org")
                assert b"STARTTLS" not in client.ask(b"EHLO client.example")
            assert deliver(client) == b"250 2.0.0 taken\r\n"
            assert client.code(b"QUIT") == 221
    assert len(remote.messages) == 2


def test_a_server_that_closes_in_the_handshake_of_required_tls_is_left_for_the_next(
    town: Town, pki: Any, server_tls: ssl.SSLContext
) -> None:
    offers = b"250-r\r\n250 STARTTLS\r\n"
    first = town.remote(replies={"EHLO": offers, "STARTTLS": CLOSE})
    second = town.remote(tls=server_tls)
    smarthost = town.smarthost(once(first, second, tls=tls(pki, "required")))
    assert ask(smarthost) == b"250 2.0.0 taken\r\n"
    assert smarthost.wait_for("delivery")[0]["tries"] == 2
