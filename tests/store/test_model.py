"""Whatever happens, in whatever order, a cache does what a plain list of all that happened says (C1 to C6)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpproxy.store.ehlo import EhloCache
from smtpproxy.store.memory import MemoryStore
from smtpproxy.store.record import dumped, loaded
from smtpproxy.store.sqlite import SqliteStore

from .remotes import CHANGED, DAY, HOUR, KEY, LINES, MINUTE, UnixClock, found, made

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["learned", "changed", "confirmed", "flushed", "flushed", "held"]),
        st.sampled_from([0.0, 1.0, MINUTE, HOUR / 2, HOUR, 5 * HOUR, DAY / 2, DAY + 1]),
    ),
    max_size=40,
)


class Model:
    """Reads everything from the history, as the rules are written."""

    def __init__(self) -> None:
        self.lines: tuple[bytes, ...] = ()
        self.seen: list[float] = []  # live replies, those that agree with the lines
        self.right = False
        self.flaps: list[float] = []
        self.holds: list[tuple[float, float]] = []  # beginning and end

    def reply(self, now: float, lines: tuple[bytes, ...] | None) -> None:
        """A live reply; None: it was equal."""
        alive = self.seen and now < self.seen[-1] + DAY
        if lines is None and not alive:
            return
        if lines is not None:
            self.lines = lines
        if lines is not None or not self.right:
            self.seen = []
        self.seen.append(now)
        self.right = True

    def flush(self, now: float, *, hold: bool) -> None:
        """A flush; a trouble counts only where it takes something away."""
        had_right, proven = self.right and now < self.seen[-1] + DAY, len(self.seen) > 4
        self.right = False
        self.seen = self.seen[-1:]
        if self.held(now):
            return
        if not hold and had_right:
            last = self.flaps[-1:] and self.flaps[-1]
            self.flaps = [] if proven else [*(self.flaps if last and now < last + DAY else []), now]
        elif not hold and self.flaps and now < self.flaps[-1] + DAY:
            self.flaps[-1] = now  # the time of the last flush
        if hold or len(self.flaps) >= 3:
            in_a_row = self.holds if self.holds and now < self.holds[-1][1] + DAY else []
            length = min(HOUR * 2 ** len(in_a_row), DAY)
            self.holds = [*in_a_row, (now, now + length)]
            self.flaps = []

    def held(self, now: float) -> bool:
        return any(begin <= now < end for begin, end in self.holds)

    def expected(self, now: float) -> tuple[tuple[bytes, ...], int, bool] | None:
        """Lines, confirmations, whether early; None: nothing."""
        if not self.seen or now >= self.seen[-1] + DAY:
            return None
        return self.lines, (len(self.seen) - 1 if self.right else 0), self.right and not self.held(now)


def step(cache: EhloCache, model: Model, what: str, now: float) -> None:
    match what:
        case "learned" | "changed":
            lines = LINES if what == "learned" else CHANGED
            cache.learned(KEY, lines)
            model.reply(now, lines)
        case "confirmed":
            cache.confirmed(KEY)
            model.reply(now, None)
        case _:
            cache.flush(KEY, hold_back=what == "held")
            model.flush(now, hold=what == "held")


def seen(cache: EhloCache) -> tuple[tuple[bytes, ...], int, bool] | None:
    entry = found(cache)
    return None if entry is None else (entry.lines, entry.confirmed, entry.early)


@given(STEPS)
def test_the_cache_does_what_the_model_says(steps: list[tuple[str, float]]) -> None:
    clock, model = UnixClock(), Model()
    cache = made(MemoryStore(), clock)
    for what, pause in steps:
        step(cache, model, what, clock.now)
        assert seen(cache) == model.expected(clock.now)
        clock.advance(pause)
        assert seen(cache) == model.expected(clock.now)


@settings(max_examples=10)
@given(STEPS)
def test_a_file_that_is_opened_anew_says_the_same(steps: list[tuple[str, float]]) -> None:
    clock, model = UnixClock(), Model()
    with TemporaryDirectory() as folder:
        for part in (steps[::2], steps[1::2]):
            reports: list[str] = []
            cache = made(SqliteStore(Path(folder) / "cache.db", reports.append), clock)
            assert seen(cache) == model.expected(clock.now)
            for what, pause in part:
                step(cache, model, what, clock.now)
                assert seen(cache) == model.expected(clock.now)
                clock.advance(pause)
            cache.close()
            assert reports == []


@given(STEPS)
def test_a_record_is_the_same_after_it_was_stored(steps: list[tuple[str, float]]) -> None:
    clock, model, store = UnixClock(), Model(), MemoryStore()
    cache = made(store, clock)
    for what, pause in steps:
        step(cache, model, what, clock.now)
        clock.advance(pause)
    for record in store._records.values():
        assert loaded(dumped(record)) == record
