"""Between the thread that asks and the one that writes, step by step."""

from __future__ import annotations

import pytest

from smtpproxy.store.copies import Copies
from smtpproxy.store.record import Record
from smtpproxy.store.rules import Event, Kind, Rules

from .remotes import KEY, LINES, OTHER

NOW = 1_800_000_000.0
RULES = Rules()


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Copies:
    monkeypatch.setattr("smtpproxy.store.copies._LINGER", 0.0)
    return Copies()


def learned(at: float) -> Event:
    return Event(Kind.LEARNED, NOW + at, LINES)


def confirmed(at: float) -> Event:
    return Event(Kind.CONFIRMED, NOW + at)


def known(copies: Copies) -> Record:
    _, record = copies.known(KEY, 0.0)
    assert record is not None
    return record


def test_what_happens_while_the_writer_writes_is_not_lost(copies: Copies) -> None:
    copies.happened(KEY, learned(0), RULES)
    assert copies.batch() == {KEY: [learned(0)]}
    copies.happened(KEY, confirmed(1), RULES)
    written = RULES.after(None, learned(0))
    copies.written({KEY: written}, 0.0, RULES)
    assert known(copies).confirmed == 1
    assert copies.batch() == {KEY: [confirmed(1)]}


def test_what_another_process_has_written_is_seen_with_what_is_not_written_yet(copies: Copies) -> None:
    copies.happened(KEY, learned(0), RULES)
    copies.batch()
    copies.happened(KEY, confirmed(1), RULES)
    theirs = RULES.after(RULES.after(None, learned(-10)), Event(Kind.HELD, NOW - 5))
    seen = copies.read(KEY, theirs, 0.0, RULES, batches=copies.batches)
    assert seen is not None
    assert (seen.confirmed, seen.holds) == (1, 1)


def test_an_answer_of_the_file_from_before_a_write_is_not_believed(copies: Copies) -> None:
    copies.happened(KEY, learned(0), RULES)
    copies.batch()
    before = copies.batches
    written = RULES.after(None, learned(0))
    copies.written({KEY: written}, 0.0, RULES)
    assert copies.read(KEY, None, 1.0, RULES, batches=before) == written
    assert known(copies) == written
    # One from behind it is: another process has forgotten it.
    assert copies.read(KEY, None, 2.0, RULES, batches=copies.batches) is None


def test_what_could_not_be_written_is_given_again(copies: Copies) -> None:
    copies.happened(KEY, learned(0), RULES)
    assert copies.batch() == {KEY: [learned(0)]}
    copies.happened(KEY, Event(Kind.FLUSHED, NOW + 1), RULES)
    copies.happened(OTHER, learned(1), RULES)
    assert copies.batch() == {KEY: [learned(0), Event(Kind.FLUSHED, NOW + 1)], OTHER: [learned(1)]}
    assert not copies.settle(0.0)
    copies.written({KEY: None, OTHER: None}, 0.0, RULES)
    assert copies.settle(0.0)


def test_what_is_forgotten_is_not_written(copies: Copies) -> None:
    copies.happened(KEY, learned(0), RULES)
    copies.happened(OTHER, learned(0), RULES)
    copies.forget([KEY])
    assert copies.batch() == {OTHER: [learned(0)]}


def test_a_batch_is_bounded(copies: Copies) -> None:
    for port in range(1, 601):
        copies.happened(KEY._replace(port=port), learned(0), RULES)
    first = copies.batch()
    assert len(first) == 500
    copies.written(dict.fromkeys(first), 0.0, RULES)
    assert len(copies.batch()) == 100


def test_when_it_is_closed_the_rest_is_written_and_nothing_more_comes(copies: Copies) -> None:
    copies.happened(KEY, learned(0), RULES)
    copies.close()
    copies.happened(OTHER, learned(0), RULES)
    assert copies.batch() == {KEY: [learned(0)]}
    copies.written({KEY: None}, 0.0, RULES)
    assert copies.batch() == {}
    assert copies.pause(100.0)
