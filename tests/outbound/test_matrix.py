"""Exactly once, whatever a remote does, wherever, however it is spoken to: the table of ``matrix.py``, all of it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from smtpproxy.session.outbound.target import TlsWish

from . import matrix

BOTH = ("DATA", "LMTP")
"""Ways that are tried with every transport."""
FEW = ("clear", "STARTTLS")
COMBINATIONS = [
    (way, transport) for way in matrix.WAYS for transport in matrix.TRANSPORTS if way in BOTH or transport in FEW
]
CHANGING = ("DATA", "DATA, two recipients", "BDAT, two recipients", "LMTP")


def try_all(cases: Iterable[matrix.Case]) -> None:
    """Play every case; say which one has gone wrong."""
    for case in cases:
        try:
            matrix.judge(matrix.play(case))
        except Exception as problem:
            raise AssertionError(f"{case}: {problem}") from problem


@pytest.mark.parametrize(("way", "transport"), COMBINATIONS)
def test_exactly_once(way: str, transport: str) -> None:
    try_all(matrix.cases(matrix.WAYS[way], matrix.TRANSPORTS[transport], matrix.PACES))


@pytest.mark.parametrize("transport", FEW)
@pytest.mark.parametrize("way", CHANGING)
def test_exactly_once_where_a_remote_has_changed(way: str, transport: str) -> None:
    try_all(matrix.cases(matrix.WAYS[way], matrix.TRANSPORTS[transport], matrix.CHANGED))


@pytest.mark.parametrize("way", ["DATA", "BDAT", "LMTP"])
def test_exactly_once_in_kept_sessions(way: str) -> None:
    try_all(matrix.cases_of_kept_sessions(matrix.WAYS[way]))


@pytest.mark.parametrize("way", matrix.WAYS.values(), ids=matrix.WAYS)
def test_the_table_can_fail(way: matrix.Way) -> None:
    """A remote that loses what it has accepted is found out: the table is no formality."""
    story = matrix.play(matrix.Case(way, matrix.PACES["pipelined"], TlsWish.NONE))
    for server in story.world.servers.values():
        server.accepted.clear()
    with pytest.raises(AssertionError, match="was reported, and has nothing"):
        matrix.judge(story)
