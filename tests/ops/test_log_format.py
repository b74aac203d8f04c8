"""Lines of the log: exactly one for each event, whatever is in it (H11)."""

import datetime as dt
import enum
import json
import math
import re
import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.ops.logformat import KEYS_KEPT, Fields, JsonFormat, KeyValueFormat, Scalar, quote_text

NASTY = 'a\r\nb\x1b[2J\x7f\x9b0m\u2028\u2029\u202e\u2066\ud800 ="\\é\U0001f600'
SCALARS = st.one_of(
    st.text(),
    st.text(alphabet=NASTY),
    st.binary(),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
)
FIELDS = st.dictionaries(st.text(), st.one_of(SCALARS, st.lists(SCALARS), st.tuples(SCALARS, SCALARS)))
PAIR = re.compile(r' ([^ ="]+)=("(?:[^"\\]|\\.)*"|[^ ="\\]*)')
NOW = 1_700_000_000.25


def decoded(value: Scalar | Sequence[Scalar]) -> object:
    """Say what a reader of the JSON gets for a value."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float):
        if not math.isfinite(value):
            return repr(value)
        return value if abs(value) >= 1e15 else float(f"{value:.3f}")
    if isinstance(value, list | tuple):
        return [decoded(element) for element in value]
    return value


@given(fields=FIELDS, event=st.text())
def test_json_is_one_line_of_printable_ascii_and_reads_back(fields: dict[str, Scalar], event: str) -> None:
    line = JsonFormat().line(NOW, "info", event, fields)
    assert re.fullmatch(r"[ -~]+", line)
    pairs = json.loads(line, object_pairs_hook=list)
    own = {"time", "level", "event"}
    expected = [
        (f"{key}_" if key in own else key, decoded(value)) for key, value in fields.items() if value is not None
    ]
    assert pairs == [("time", "2023-11-14T22:13:20.250Z"), ("level", "info"), ("event", event), *expected]


@given(fields=FIELDS, event=st.text())
def test_keyvalue_is_one_line_without_control_characters_and_forges_nothing(
    fields: dict[str, Scalar], event: str
) -> None:
    line = KeyValueFormat().line(NOW, "warning", event, fields)
    kinds = {unicodedata.category(character) for character in line}
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    pairs = PAIR.findall(f" {line}")
    assert "".join(f" {key}={value}" for key, value in pairs) == f" {line}"
    assert len(pairs) == 3 + sum(value is not None for value in fields.values())
    assert [key for key, _ in pairs[:3]] == ["time", "level", "event"]
    assert unquoted(pairs[2][1]) == event
    texts = [value for value in fields.values() if value is not None]
    for (_, written), value in zip(pairs[3:], texts, strict=True):
        if isinstance(value, str | bytes):
            assert unquoted(written) == decoded(value)


def unquoted(value: str) -> str:
    """Read a value of key=value."""
    return str(json.loads(value)) if value.startswith('"') else value


def test_a_whole_line_in_both_formats() -> None:
    fields: Fields = {
        "client": "192.0.2.1:40122",
        "helo": b"m\xc3\xbcnchen.example\xff",
        "early": True,
        "duration": 1.23456,
        "tls": None,
        "refused": ["550 5.1.1 no", 2, None, b"x", False],
    }
    assert JsonFormat().line(NOW, "info", "session", fields) == (
        '{"time":"2023-11-14T22:13:20.250Z","level":"info","event":"session","client":"192.0.2.1:40122",'
        '"helo":"m\\u00fcnchen.example\\\\xff","early":true,"duration":1.235,'
        '"refused":["550 5.1.1 no",2,null,"x",false]}'
    )
    assert KeyValueFormat().line(NOW, "info", "session", fields) == (
        "time=2023-11-14T22:13:20.250Z level=info event=session client=192.0.2.1:40122 "
        'helo="münchen.example\\\\xff" early=true duration=1.235 refused="550 5.1.1 no,2,,x,false"'
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi" \\', '"say \\"hi\\" \\\\"'),
        ("für", '"für"'),
        ("a\nb", '"a\\nb"'),
        ("\x1b[31m\x9b", '"\\u001b[31m\\u009b"'),
        ("\u202eevil\u2028", '"\\u202eevil\\u2028"'),
    ],
)
def test_values_are_quoted_when_needed(text: str, written: str) -> None:
    assert quote_text(text) == written


def test_subclasses_and_strange_types_are_written_as_what_they_are() -> None:
    class Pace(enum.IntEnum):
        LOCKSTEP = 3

    class Why(enum.StrEnum):
        QUIT = "quit"

    fields = {"pace": Pace.LOCKSTEP, "why": Why.QUIT, "raw": bytearray(b"x\x00"), "odd": {"a\n"}}
    line = JsonFormat().line(NOW, "info", "session", fields)  # type: ignore[arg-type]  # a set is none of ours
    assert line.endswith('"pace":3,"why":"quit","raw":"x\\u0000","odd":"{\'a\\\\n\'}"}')


@given(now=st.floats(min_value=0, max_value=4e9))
def test_time_is_utc_and_cut_to_milliseconds(now: float) -> None:
    written = json.loads(JsonFormat().line(now, "info", "x", {}))["time"]
    then = dt.datetime.fromisoformat(written)
    assert then.utcoffset() == dt.timedelta(0)
    assert -1e-6 <= now - then.timestamp() <= 0.001 + 1e-6


def test_time_follows_the_clock_from_second_to_second_and_back() -> None:
    lines = KeyValueFormat()
    seen = [lines.line(now, "info", "x", {})[21:28] for now in (10.75, 11.0, 11.5, 10.25)]
    assert seen == [":10.750", ":11.000", ":11.500", ":10.250"]


def test_keys_that_never_end_do_not_fill_the_memory() -> None:
    lines = JsonFormat()
    for number in range(3 * KEYS_KEPT):
        assert f'"key{number}":1' in lines.line(NOW, "info", "x", {f"key{number}": 1})
    assert len(lines._keys) <= KEYS_KEPT
