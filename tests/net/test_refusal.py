"""Turning a client away before there is a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from smtpproxy.net.refusal import refusal

from .stage import CLIENT, FakeTransport, LeanFake, Stage
from .tlsstage import TlsScene

LOWERS = pytest.mark.parametrize("lean", [True, False], ids=["lean", "stock"])


def refused(play: Stage, why: str, *, lean: bool) -> FakeTransport:
    """The transport of a client that is turned away."""
    transport = (LeanFake if lean else FakeTransport)(play.reactor)
    transport.protocol = refusal(play.context, CLIENT, why)
    transport.protocol.makeConnection(transport)
    return transport


@LOWERS
@pytest.mark.parametrize(
    ("why", "words"),
    [("too many sessions", b"Too many sessions"), ("no PROXY header in time", b"No PROXY header in time")],
)
def test_it_is_told_why_in_one_reply_and_given_time_to_read_it(
    stage: Callable[..., Stage], why: str, words: bytes, *, lean: bool
) -> None:
    play = stage(listener={"timeouts": {"close": 5.0}})
    transport = refused(play, why, lean=lean)
    assert transport.take() == b"421 4.3.2 proxy.example.org " + words + b", try again later\r\n"
    assert (transport.half_closed, transport.ended) == (True, "")
    transport.protocol.dataReceived(b"EHLO x\r\n")
    assert transport.take() == b""
    assert play.journal.refused == [("mx", CLIENT, why)]
    transport.protocol.readConnectionLost()
    assert transport.ended == "closed"
    assert list(play.sweep) == [play.pool]


@LOWERS
def test_one_that_stays_is_cut_off(stage: Callable[..., Stage], *, lean: bool) -> None:
    play = stage(listener={"timeouts": {"close": 5.0}})
    transport = refused(play, "too many sessions", lean=lean)
    play.pass_time(4.0)
    assert transport.ended == ""
    play.pass_time(1.0 + 2 * play.sweep.round)
    assert transport.ended == "reset"


@LOWERS
def test_where_tls_is_expected_nothing_is_said(stage: Callable[..., Stage], pki: Any, *, lean: bool) -> None:
    """It could not be read."""
    play = TlsScene(stage, pki).stage("implicit")
    transport = refused(play, "too many sessions", lean=lean)
    assert (transport.take(), transport.half_closed) == (b"", True)
    transport.protocol.dataReceived(b"\x16\x03\x01")
    assert transport.take() == b""


def test_where_starttls_is_offered_it_is_said_in_clear(stage: Callable[..., Stage], pki: Any) -> None:
    play = TlsScene(stage, pki).stage("starttls-required")
    assert refused(play, "too many sessions", lean=True).take().startswith(b"421 4.3.2 ")
