"""Records as they are stored: what cannot be read is as good as nothing."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.store.record import Record, acceptable, dumped, loaded

FULL = Record(
    (b"PIPELINING", b"PIPECONNECT", b"X-\xff\xfe 'quoted' \\"),
    1.5,
    2,
    3.5,
    usable=True,
    flushed=4.5,
    flaps=1,
    holds=2,
    held=5.5,
)


@pytest.mark.parametrize("record", [Record(), Record(()), FULL])
def test_what_was_stored_comes_back(record: Record) -> None:
    text = dumped(record)
    assert text.isascii()
    assert loaded(text) == record


@pytest.mark.parametrize(
    "lines",
    [
        (b"X" * 1000,) * 4 + (b"X" * 96,),  # 4 KiB
        (b"X" * 64,) * 64,
        (b"X",) * 64,
    ],
)
def test_the_largest_record_can_be_read_again_and_a_larger_one_is_none(lines: tuple[bytes, ...]) -> None:
    """There may be 100,000 of them, from servers of ill will (rule H8)."""
    full = Record(lines, 1e9 / 3, 2**31 - 1, 1e9 / 3, usable=True, flushed=1e9 / 3, flaps=9, holds=9, held=1e9 / 3)
    assert loaded(dumped(full)) == full
    assert not acceptable((*lines, b"X"))


def changed(**fields: object) -> str:
    """A stored record with something else in it."""
    return json.dumps({**json.loads(dumped(FULL)), **fields})


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"{}",
        "",
        "{}",
        "[]",
        "null",
        "[" * 30_000,
        "x" * 100_000,
        changed(v=2),
        changed(v="1"),
        changed(lines="UElQRQ=="),
        changed(lines=["no base64!"]),
        changed(lines=[5]),
        changed(lines=[["UElQRQ=="]]),
        changed(lines=["QQ0KQg=="]),  # CR LF in a line
        changed(lines=["QQ=="] * 65),
        changed(lines=[base64.b64encode(b"x" * 999).decode()] * 5),
        changed(seen=[1.0, 2, 3.0]),
        changed(seen=[1.0, 2, 3.0, 1]),
        changed(seen=[1.0, -2, 3.0, True]),
        changed(seen=[1.0, 2.5, 3.0, True]),
        changed(seen=[float("nan"), 2, 3.0, True]),
        changed(seen=[1.0, 2, float("inf"), True]),
        changed(seen=["1", 2, 3.0, True]),
        changed(trouble=[4.0, True, 2, 5.0]),
        changed(trouble=[4.0, 1, 2, -5.0]),
        changed(trouble=None),
    ],
)
def test_what_we_cannot_have_written_is_nothing(text: object) -> None:
    assert loaded(text) is None


@given(st.text() | st.recursive(st.integers() | st.text(), st.lists, max_leaves=10).map(json.dumps))
def test_anything_may_be_there(text: str) -> None:
    assert loaded(text) is None


@given(st.data())
def test_a_record_that_was_damaged_raises_nothing(data: st.DataObject) -> None:
    text = dumped(FULL)
    where = data.draw(st.integers(0, len(text) - 1))
    record = loaded(text[:where] + data.draw(st.text(max_size=3)) + text[where + 1 :])
    assert record is None or isinstance(record, Record)
