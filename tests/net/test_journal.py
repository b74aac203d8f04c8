"""What the log says of sessions inside TLS and of those that somebody else named, and what is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from smtpproxy.ops.counters import Counters
from smtpproxy.ops.journal import Journal
from smtpproxy.ops.log import EventLog

from .stage import CLIENT, EHLO_REPLY, Stage
from .tlspeers import a_client
from .tlsstage import SecureClient, TlsScene

GREETING = b"220 mx.example.org ESMTP\r\n"
EHLO = b"EHLO client.example\r\n"


class Book:
    """A journal whose lines can be read."""

    def __init__(self, *, transcripts: bool = False, level: str = "info") -> None:
        self._events: list[dict[str, Any]] = []
        self.counters = Counters()
        self.journal = Journal(EventLog(self, "json", level, lambda: 0.0), self.counters, transcripts=transcripts)
        self.tell_lost: Callable[[int], None] = print

    def write(self, line: str, _level: str = "info") -> None:
        self._events.append(json.loads(line))

    def flush(self) -> None:
        """Nothing waits."""

    def reopen(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """The same."""

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name."""
        return [event for event in self._events if event["event"] == name]

    def session(self) -> dict[str, Any]:
        """The one session that has ended."""
        (event,) = self.events("session")
        return event

    @property
    def noise(self) -> list[str]:
        """Events that somebody should look at."""
        return [event["event"] for event in self._events if event["level"] != "info"]


@pytest.fixture
def scene(stage: Callable[..., Stage], pki: Any) -> TlsScene:
    return TlsScene(stage, pki)


TLS_FIELDS = {"tls", "cipher", "resumed", "sni", "certificate", "fingerprint", "certificate_error"}


def test_a_session_in_clear_says_nothing_of_tls(stage: Callable[..., Stage]) -> None:
    book = Book()
    client = stage(journal=book.journal).ready()
    client.send(b"QUIT\r\n")
    event = book.session()
    assert {name for name in event if event[name] is not None} & (TLS_FIELDS | {"via", "login"}) == set()
    assert book.counters.tls_handshakes == book.counters.tls_failures == 0


def test_a_session_inside_tls(scene: TlsScene) -> None:
    book, context = Book(), a_client()
    play = scene.stage("starttls", journal=book.journal)
    session = None
    for _ in range(2):
        client = SecureClient(play, tls=context)
        if session is not None:
            client.peer.connection.set_session(session)
        play.answer(GREETING)
        client.take()
        client.send(EHLO)
        play.answer(EHLO_REPLY)
        client.take()
        client.ask_for_tls()
        client.handshake()
        client.send(EHLO)
        play.answer(EHLO_REPLY)
        client.take()
        session = client.peer.connection.get_session()
        client.send(b"QUIT\r\n")
        client.take()
        client.receive(client.peer.bye())
    first, second = book.events("session")
    assert (first["tls"], first["sni"]) == ("TLSv1.3", "mx.example.org")
    assert first["cipher"].startswith("TLS_AES_")
    assert (first.get("resumed"), second["resumed"]) == (None, True)
    assert (first["ehlo"], first["end"], first["commands"], first["replies"]) == ("client.example", "quit", 4, 5)
    counters = book.counters
    assert (counters.tls_handshakes, counters.tls_resumed, counters.tls_failures) == (2, 1, 0)
    assert counters.sessions == 2
    assert book.noise == []


@pytest.mark.parametrize(("known", "mapped"), [(True, True), (True, False), (False, True)])
def test_a_client_certificate(scene: TlsScene, pki: Any, *, known: bool, mapped: bool) -> None:
    authority = pki.ca("Clients")
    pair = pki.pair(["joe"], ca=authority if known else pki.ca("Others"), client=True, common_name="Joe")
    asked = {
        "mode": "ask",
        "ca": str(authority.path),
        "logins": {pair.fingerprint: "joe@example.org"} if mapped else {},
    }
    book = Book()
    play = scene.stage("implicit", tls={"client_certificates": asked}, journal=book.journal)
    client = SecureClient(play, tls=a_client(certificate=pair)).handshake()
    client.vanish()
    event = book.session()
    assert event["fingerprint"] == pair.fingerprint
    assert event.get("certificate") == ("CN=Joe" if known else None)
    assert bool(event.get("certificate_error")) is not known
    assert event.get("login") == ("joe@example.org" if known and mapped else None)


def test_a_failed_handshake_is_a_warning_and_a_session(scene: TlsScene) -> None:
    book = Book()
    play = scene.stage("implicit", journal=book.journal)
    client = SecureClient(play)
    client.receive(b"GET / HTTP/1.1\r\n\r\n")
    (failed,) = book.events("tls_failed")
    assert (failed["level"], failed["listener"], failed["client"]) == ("warning", "mx", CLIENT)
    assert failed["why"]
    assert failed["session"] == client.session.number
    assert book.session()["end"] == f"TLS handshake failed: {failed['why']}"
    assert "tls" not in book.session()
    assert (book.counters.tls_failures, book.counters.tls_handshakes, book.counters.sessions) == (1, 0, 1)


def test_a_handshake_that_never_ends_is_a_time_out(scene: TlsScene) -> None:
    book = Book()
    play = scene.stage("implicit", journal=book.journal)
    client = SecureClient(play)
    client.receive(client.hello())
    play.pass_time(30.0 + 2 * play.sweep.round)
    assert book.session()["end"] == "TLS handshake timed out"
    assert book.counters.timeouts == 1
    assert book.noise == []


def test_health_checks_make_no_noise_and_save_no_round_trips(stage: Callable[..., Stage]) -> None:
    """The counters only grow."""
    book = Book()
    trusted = {"proxy_protocol": "required", "trusted": {"proxy_protocol": ["192.0.2.0/24"]}}
    play = stage(listener=trusted, journal=book.journal)
    for first in (b"", b"PROXY UNKNOWN\r\n", b"PROXY TCP4 203.0.113.5 192.0.2.1 1 25\r\n"):
        client = play.client()
        if first:
            client.transport.protocol.dataReceived(first)
        client.transport.protocol.readConnectionLost()
    play.answer(GREETING)
    assert book.noise == []
    assert book.counters.round_trips_saved == 0
    assert {event["round_trips_saved"] for event in book.events("session")} <= {0}


def test_a_client_that_a_proxy_has_named(stage: Callable[..., Stage]) -> None:
    book = Book()
    settings = {"trusted": {"xclient": ["192.0.2.0/24"]}}
    play = stage(listener=settings, backend={"identity": "none"}, journal=book.journal)
    client = play.greeted()
    client.send(b"XCLIENT ADDR=2001:db8::5 LOGIN=joe\r\n")
    client.send(b"XCLIENT ADDR=IPV6:2001:db8::5 LOGIN=joe\r\n")
    client.send(b"QUIT\r\n")
    event = book.session()
    assert (event["client"], event["via"], event["login"]) == ("2001:db8::5", CLIENT, "joe")


def test_a_client_too_many_behind_a_load_balancer_is_named(stage: Callable[..., Stage]) -> None:
    book = Book()
    settings = {
        "proxy_protocol": "required",
        "trusted": {"proxy_protocol": ["192.0.2.0/24"]},
        "limits": {"sessions_per_client": 1},
    }
    play = stage(listener=settings, journal=book.journal)
    for _ in range(2):
        play.client().transport.protocol.dataReceived(b"PROXY TCP4 203.0.113.5 192.0.2.1 1 25\r\n")
    (refused,) = book.events("session_refused")
    assert (refused["client"], refused["why"]) == ("203.0.113.5", "too many sessions from this client")
    assert book.counters.sessions_refused == 1


def test_h11_a_transcript_goes_on_inside_tls_and_shows_no_secret(scene: TlsScene) -> None:
    book = Book(transcripts=True)
    play = scene.stage("starttls", journal=book.journal)
    client = SecureClient(play)
    play.answer(GREETING)
    client.take()
    client.send(b"AUTH PLAIN c2VjcmV0\r\n")
    client.ask_for_tls()
    client.handshake()
    client.send(EHLO)
    play.answer(b"250-mx.example.org\r\n250 AUTH PLAIN LOGIN\r\n")
    client.take()
    client.send(b"AUTH LOGIN c2VjcmV0\r\n")
    play.answer(b"334 c2VjcmV0\r\n")
    client.take()
    client.send(b"c2VjcmV0\r\n")
    play.answer(b"235 welcome\r\n")
    client.take()
    client.send(b"QUIT\r\n")
    said = [event["line"] for event in book.events("transcript")]
    assert not any("c2VjcmV0" in line for line in said)
    for line in ("C: STARTTLS", "S: 220 2.0.0 Ready to start TLS", "S: 334 ****", "B< 235 welcome"):
        assert line in said
    assert said.count("C: AUTH ****") == 3
    assert said.count("C: EHLO client.example") == 1
    assert {event["session"] for event in book.events("transcript")} == {client.session.number}


def test_a_log_without_sessions_counts_all_the_same(scene: TlsScene) -> None:
    book = Book(level="warning")
    play = scene.stage("implicit", journal=book.journal)
    SecureClient(play).handshake().vanish()
    assert book.events("session") == []
    assert (book.counters.sessions, book.counters.tls_handshakes) == (1, 1)
