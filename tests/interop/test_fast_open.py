"""TCP Fast Open between two smtpproxies (C10): what rides on the SYN, what never does, and what the kernels count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .fast_open_scene import Line, line

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def between(server_pair: Any) -> Iterator[Line]:
    """Both, on machines of their own."""
    with line(server_pair.cert, server_pair.key) as made:
        yield made


def first_and_second(between: Line, domain: str) -> tuple[dict[str, Any], bytes, dict[str, Any], bytes]:
    """Of two messages, what was logged of them and what was in their SYNs."""
    first, (nothing,) = between.send(domain)
    second, (data,) = between.send(domain)
    assert "early" not in first
    assert second["early"] is True
    return first, nothing, second, data


@pytest.mark.parametrize("domain", ["four.test", "six.test"])
def test_the_commands_of_the_second_session_ride_on_the_syn(between: Line, domain: str) -> None:
    before = between.counters()
    first, nothing, second, data = first_and_second(between, domain)
    assert nothing == b"", "it asks for a cookie"
    assert "fast_open" not in first
    assert second["fast_open"] is True
    assert second["one_flight"] is True
    # The message is in the same flight, but leaves behind the SYN (rule C10).
    ehlo, mail, rcpt, nothing = data.split(b"\r\n")
    assert ehlo == b"EHLO smarthost.test"
    assert mail.startswith(b"MAIL FROM:<sender@lab.test>")
    assert rcpt == b"RCPT TO:<user@%s>" % domain.encode()
    assert nothing == b""
    assert between.counters() == (before[0] + 1, before[1] + 1)


def test_a_whole_message_rides_where_the_route_takes_the_risk(between: Line) -> None:
    first, nothing, second, data = first_and_second(between, "risky.test")
    assert nothing == b""
    assert "fast_open" not in first
    assert second["fast_open"] is True
    assert b"\r\nBDAT " in data
    assert b"\r\nHello.\r\n" in data


def test_inside_tls_nothing_but_its_beginning_rides(between: Line) -> None:
    """EHLO and STARTTLS: no sender and no recipient leaves in clear text (rule C2)."""
    between.send("four.test")  # there is a cookie of that address now
    before = between.counters()
    _, nothing, second, data = first_and_second(between, "encrypted.test")
    assert nothing == b""
    assert data == b"EHLO smarthost.test\r\nSTARTTLS\r\n"
    assert second["fast_open"] is True
    assert second["tls"].startswith("TLSv1.3 ")
    # The machine there counts the first one too: it had the cookie, and nothing to say.
    assert between.counters() == (before[0] + 1, before[1] + 2)


def test_a_listener_may_take_no_data_with_the_syn(between: Line) -> None:
    """It comes once more then, behind the SYN."""
    between.send("four.test")  # there is a cookie of that address now
    before = between.counters()
    _, _, second, data = first_and_second(between, "shy.test")
    assert data.startswith(b"EHLO ")
    assert "fast_open" not in second
    assert between.counters() == before


def test_a_route_may_do_without(between: Line) -> None:
    """Early, but not that early."""
    between.send("risky.test")  # the same server: it is known now, and a cookie of it
    before = between.counters()
    sent, data = between.send("off.test")
    assert data == [b""]
    assert sent["early"] is True
    assert "fast_open" not in sent
    assert between.counters() == before


def test_it_is_counted(between: Line) -> None:
    """The last one: it asks for the counters by the end of the service."""
    between.send("four.test")
    between.send("four.test")
    opened = sum(event.get("fast_open", False) for event in between.smarthost.events("delivery"))
    between.smarthost.process.stop()
    (stopped,) = between.smarthost.events("stopped")
    assert opened > 0
    assert f"remote_fast_open={opened}" in stopped["counters"]
