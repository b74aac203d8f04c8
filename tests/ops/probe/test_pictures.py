"""What a person sees: bars, the table of savings, texts that no terminal obeys; and the same as JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from smtpproxy.ops.demo.style import Style
from smtpproxy.ops.probe.bars import bars, milliseconds
from smtpproxy.ops.probe.document import document, escaped
from smtpproxy.ops.probe.facts import Answer, Certificate, Dane, Found, Hello, Host, Phase, Server, Sts, Tls, Trial
from smtpproxy.ops.probe.savings import savings
from smtpproxy.ops.probe.show import Show
from smtpproxy.smtp.offer import Offer

EVIL = "\x1b[2J\x07\x9b\u202e\x7f\\"
PLAIN = "\\x1b[2J\\x07\\x9b\\u202e\\x7f\\x5c"


def hello(*lines: bytes) -> Hello:
    return Hello.of(Offer(lines))


FULL = hello(b"PIPELINING", b"CHUNKING", b"PIPECONNECT")
TLS_1_3 = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", "mx.example.org", None, "", "")


# --- what it saves ------------------------------------------------------------------------------------------------


def table(clear: Hello, inside: Hello | None = None, tls: Tls | None = None) -> list[tuple[Any, ...]]:
    return [(each.clear, each.starttls) for each in savings(clear, inside, tls)]


def test_savings_are_those_of_the_protocol() -> None:
    """The table in docs/protocol.md."""
    assert table(FULL, FULL, TLS_1_3) == [(5, 8), (3, 5), (2, 4), (1, 3)]
    assert table(FULL) == [(5, None), (3, None), (2, None), (1, None)]


def test_savings_with_a_server_that_does_not_pipeline() -> None:
    lockstep = hello(b"CHUNKING")
    assert table(lockstep, lockstep, TLS_1_3)[0] == (7, 10)
    assert "lock-step" in savings(lockstep, None, None)[0].way


def test_what_is_missing_is_said() -> None:
    missing = [(each.clear_missing, each.starttls_missing) for each in savings(FULL, hello(b"PIPELINING"), TLS_1_3)]
    assert missing == [("", ""), *[("", "not offered inside TLS")] * 3]
    missing = [(each.clear_missing, each.starttls_missing) for each in savings(hello(b"PIPELINING"), FULL, TLS_1_3)]
    assert missing == [("", ""), *[("not offered", "not offered")] * 3]
    without = hello(b"PIPELINING", b"PIPECONNECT")
    assert [each.clear_missing for each in savings(without, None, None)] == ["", "", "no CHUNKING", "no CHUNKING"]
    assert [each.starttls_missing for each in savings(FULL, without, TLS_1_3)] == ["", "", *["no CHUNKING"] * 2]


# --- bars ---------------------------------------------------------------------------------------------------------


def test_bars_follow_one_another() -> None:
    phases = [Phase("DNS", 0.01), Phase("TCP connect", 0.03), Phase("greeting", 0.0), Phase("EHLO", 0.04)]
    assert bars(phases, Style(width=46), "  ") == [
        "  DNS          10.0 ms  ═══",
        "  TCP connect  30.0 ms     ════════",
        "  greeting     0.00 ms",
        "  EHLO         40.0 ms             ═══════════",
        "  together     80.0 ms",
    ]


@pytest.mark.parametrize("width", [10, 80, 100])
def test_every_time_is_seen_and_nothing_is_too_wide(width: int) -> None:
    phases = [Phase("a", 1e-6), Phase("b", 100.0), Phase("c", 1e-6)]
    lines = bars(phases, Style(width=width, unicode=False))
    assert ["=" in line for line in lines] == [True, True, True, False]
    assert all(len(line) <= max(width, 35) for line in lines)


def test_no_time_at_all() -> None:
    assert bars([Phase("a", 0.0)], Style()) == ["a         0.00 ms", "together  0.00 ms"]


@pytest.mark.parametrize(("seconds", "text"), [(0.00012, "0.12 ms"), (0.0123, "12.3 ms"), (1.5, "1500 ms")])
def test_milliseconds(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


# --- nothing that a terminal obeys (H8) ---------------------------------------------------------------------------


def evil() -> Found:
    """Everything that can come from elsewhere is of ill will."""
    certificate = Certificate(EVIL, (EVIL,) * 30, EVIL, "2026-01-01", "2027-01-01", -1, "00")
    answers = (Answer("RCPT", 550, EVIL),)
    trial = Trial(
        early_clear=True,
        early_inside=True,
        answers=answers,
        seconds=0.1,
        polite=answers,
        polite_seconds=0.3,
        problems=(EVIL,),
    )
    hostile = Hello((EVIL,), ("PIPECONNECT",), usable=True, pipelining=True, chunking=True, starttls=True)
    server = Server(
        "192.0.2.1",
        25,
        phases=(Phase("DNS", 0.1),),
        greeting=EVIL,
        clear=hostile,
        tls=Tls("TLSv1.3", "X", EVIL, certificate, EVIL, EVIL),
        inside=hostile,
        dane=Dane("found", EVIL, (EVIL,), EVIL, matches=False),
        round_trip=0.05,
        savings=savings(FULL, FULL, TLS_1_3),
        trial=trial,
    )
    broken = Server("192.0.2.2", 25, trouble=EVIL)
    away = Server("2001:db8::1", 25, trouble=EVIL, unreachable=True)
    host = Host(EVIL, 10, secure=True, sts_allows=False, servers=(server, broken, away), trouble=EVIL, left_out=3)
    return Found(EVIL, "domain", "me.example.net", 0.1, Sts("found", "enforce", (EVIL,), 86400), (host,))


def shown(found: Found, **style: Any) -> str:
    stream = io.StringIO()
    show = Show(stream, Style(**style))
    show.known(found)
    for host in found.hosts:
        show.host(host)
        for server in host.servers:
            show.server(host, server)
    return stream.getvalue()


@pytest.mark.parametrize("unicode", [True, False])
def test_no_terminal_is_told_anything(*, unicode: bool) -> None:
    text = shown(evil(), unicode=unicode)
    assert all(character in "\n═" or 32 <= ord(character) < 127 for character in text)
    assert text.isascii() is not unicode
    assert text.count(PLAIN) >= 20
    failed = Sts("failed", why=EVIL)
    text = shown(Found(EVIL, "domain", "me", 0.1, failed, evil().hosts)) + shown(
        Found("x", "domain", "me", 0.1, failed, trouble=EVIL)
    )
    assert all(character in "\n═" or 32 <= ord(character) < 127 for character in text)


def test_colours_are_only_ours() -> None:
    text = shown(evil(), colour=True)
    assert "\x1b[1m" in text
    assert "\x1b[2J" not in text


def test_no_reader_of_json_is_told_anything() -> None:
    text = document(evil())
    assert all(character == "\n" or 32 <= ord(character) < 127 for character in text)
    content = json.loads(text)
    assert content["asked"] == content["hosts"][0]["servers"][0]["greeting"] == PLAIN
    assert content["fine"] is False
    first, broken, away = content["hosts"][0]["servers"]
    assert first["usable"] is True
    assert first["problems"][0] == f"DANE: {PLAIN}"
    assert (broken["problems"], away["problems"]) == ([PLAIN], [])


def test_what_is_escaped() -> None:
    assert escaped(("a\r\nb", 7, None, ("\U0001f600",))) == ("a\\x0d\\x0ab", 7, None, ("\\U0001f600",))


# --- words --------------------------------------------------------------------------------------------------------


def server_text(**changes: Any) -> str:
    server = Server("192.0.2.1", 25, **changes)
    found = Found("mx", "host", "me", 0.0, Sts("not asked"), (Host("mx", None, secure=False, sts_allows=None),))
    stream = io.StringIO()
    show = Show(stream, Style())
    show.known(found)
    show.server(found.hosts[0], server)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([b"PIPELINING", b"PIPECONNECT"], "PIPECONNECT, and PIPELINING beside it: usable"),
        ([b"PIPECONNECT"], "PIPECONNECT without PIPELINING: not usable"),
        ([b"PIPELINING"], "early pipelining is not offered"),
    ],
)
def test_words_for_early_pipelining(lines: list[bytes], words: str) -> None:
    assert words in server_text(clear=hello(*lines))


def test_words_for_savings() -> None:
    text = server_text(clear=FULL, round_trip=0.08, phases=(Phase("DNS", 0.1),), savings=savings(FULL, None, None))
    assert "What early pipelining saves here, for a round trip of 80.0 ms:" in text
    assert "polite, pipelined                    5 = 400 ms" in text
    assert "early, message in the flight (BDAT)  2 = 160 ms" in text
    assert "STARTTLS" not in text
    plain = hello(b"PIPELINING")
    text = server_text(clear=plain, round_trip=0.08, phases=(Phase("DNS", 0.1),), savings=savings(plain, None, None))
    assert "would save if it were offered" in text
    assert "3 = 240 ms (not offered)" in text


@pytest.mark.parametrize(
    ("dane", "words"),
    [
        (Dane("insecure"), "DNSSEC does not vouch for this host here"),
        (Dane("none"), "no TLSA records"),
        (Dane("failed", why="no answer"), "DANE: no answer"),
        (Dane("found", "mx"), "TLSA records of mx, none of which can be used"),
        (Dane("found", "mx", ("3 1 1 00",), matches=True), "TLSA records of mx: the certificate matches"),
    ],
)
def test_words_for_dane(dane: Dane, words: str) -> None:
    assert words in server_text(clear=FULL, dane=dane)


def test_words_for_what_was_not_done() -> None:
    assert "not visited: cannot connect" in server_text(trouble="cannot connect", unreachable=True)
    skipped = Trial(
        early_clear=False,
        early_inside=False,
        answers=(),
        seconds=None,
        polite=(),
        polite_seconds=None,
        problems=(),
        skipped="it is not offered",
    )
    assert "No early flight was sent: it is not offered" in server_text(clear=FULL, trial=skipped)
    assert "DANE" not in server_text(clear=FULL, dane=Dane("not asked"))
