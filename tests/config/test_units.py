"""Durations and sizes."""

import pytest

from smtpproxy.config.units import LONGEST, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500 ms", 0.5),
        ("30 s", 30.0),
        ("30s", 30.0),
        (" 5 min ", 300.0),
        ("1.5 h", 5400.0),
        ("2 d", 172800.0),
        ("0 s", 0.0),
        (12.5, 12.5),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("wrong", ["5", 5, "5 m", "5 M", "min", "", "-5 s", "1e3 s", "5 s 3 ms", None, True, [5]])
def test_a_duration_needs_a_number_and_a_unit(wrong: object) -> None:
    with pytest.raises(ValueError, match="a number with a unit is expected: ms, s, min, h or d"):
        parse_duration(wrong)


@pytest.mark.parametrize("wrong", ["367 d", LONGEST + 1, float("inf"), float("nan")])
def test_a_duration_has_an_end(wrong: object) -> None:
    with pytest.raises(ValueError, match="at most 366 d"):
        parse_duration(wrong)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("0", 0),
        ("1 B", 1),
        ("256 KiB", 262144),
        ("256KiB", 262144),
        ("10 MB", 10_000_000),
        ("10 kB", 10_000),
        ("50 MiB", 52_428_800),
        ("1.5 GiB", 1_610_612_736),
    ],
)
def test_sizes(text: object, octets: int) -> None:
    assert parse_size(text) == octets


@pytest.mark.parametrize("wrong", ["KiB", "", "1 K", "1 mb", "1.5", "1.3 B", "-1", -1, True, None, "unlimited", {}])
def test_a_size_is_a_whole_number_of_octets(wrong: object) -> None:
    with pytest.raises(ValueError, match="a whole number of octets is expected"):
        parse_size(wrong)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        parse_size("x" * 1000)
    assert len(str(caught.value)) < 250
