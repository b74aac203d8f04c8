"""The counters: what is there, and that they start at nothing."""

import pytest

from smtpproxy.ops.counters import Counters


def test_every_counter_starts_at_zero_and_is_listed_once() -> None:
    values = Counters().as_dict()
    assert set(values.values()) == {0}
    assert set(values) == set(Counters.__annotations__)
    assert {"sessions", "round_trips_saved", "smuggling_lines", "relay_refused", "internal_errors"} <= set(values)
    assert {"tls_handshakes", "tls_resumed", "tls_failures"} <= set(values)


def test_as_dict_is_a_copy_of_the_present_values() -> None:
    counters = Counters()
    counters.sessions += 2
    before = counters.as_dict()
    counters.sessions += 1
    counters.octets += 5000
    assert (before["sessions"], before["octets"]) == (2, 0)
    assert (counters.as_dict()["sessions"], counters.as_dict()["octets"]) == (3, 5000)


def test_a_misspelt_counter_is_an_error() -> None:
    with pytest.raises(AttributeError):
        Counters().session = 1  # type: ignore[attr-defined]  # the mistake that is meant
