"""Closing a connection whose protocol wants to hear nothing more of it, whatever its transport."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from smtpproxy.net.parting import part
from smtpproxy.net.transport import FLUSH_SECONDS

from .fakes import FakeReactor, HalfRecorder
from .stage import FakeTransport, LeanFake
from .tlslayer import Joined
from .tlspeers import server_tls
from .tlsstage import CLOSE_NOTIFY


def with_protocol(transport: FakeTransport) -> FakeTransport:
    transport.protocol = HalfRecorder()
    transport.registerProducer(transport.protocol, streaming=True)
    transport.pauseProducing()
    return transport


def test_what_is_closed_already_needs_nothing() -> None:
    part(None)
    part(None, reset=True)


@pytest.mark.parametrize("reset", [True, False])
def test_a_transport_of_ours_is_detached(*, reset: bool) -> None:
    transport = with_protocol(LeanFake(FakeReactor()))
    protocol = transport.protocol
    part(transport, reset=reset)
    assert transport.ended == ("reset" if reset else "closed")
    assert transport.protocol is not protocol


def test_another_is_read_again_so_that_its_loss_is_seen_and_cut_off_in_the_end() -> None:
    transport = with_protocol(FakeTransport(FakeReactor()))
    part(transport)
    assert (transport.paused, transport.ended) == (False, "closed")
    transport.full = True
    transport.write(b"nobody minds any more")
    transport.reactor.advance(FLUSH_SECONDS - 1)
    assert transport.ended == "closed"
    transport.reactor.advance(1)
    assert transport.ended == "reset"


def test_another_is_not_kept_when_it_has_ended() -> None:
    transport = with_protocol(FakeTransport(FakeReactor()))
    reactor, gone = transport.reactor, weakref.ref(transport)
    part(transport)
    del transport
    gc.collect()
    assert gone() is None
    reactor.advance(FLUSH_SECONDS)


def test_another_is_reset_at_once() -> None:
    transport = with_protocol(FakeTransport(FakeReactor()))
    part(transport, reset=True)
    assert (transport.paused, transport.ended) == (False, "reset")
    assert transport.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize("reset", [True, False])
def test_tls_says_farewell_unless_it_is_a_reset(pki: Any, *, lean: bool, reset: bool) -> None:
    joined = Joined(server_tls(pki.pair()), lean=lean).secure()
    part(joined.layer, reset=reset)
    assert joined.lower.ended == ("reset" if reset else "closed")
    joined.peer.feed(joined.lower.take())
    assert joined.peer.ended == ("" if reset else CLOSE_NOTIFY)
