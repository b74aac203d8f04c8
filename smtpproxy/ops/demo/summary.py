"""Draw the comparison of the ways: bars over one scale of time, and the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from smtpproxy.ops.demo.style import Style
from smtpproxy.ops.demo.timeline import Timeline

_NAME_COLUMNS: Final = 14  # before a bar
_TIME_COLUMNS: Final = 8  # behind it
_TITLE_COLUMNS: Final = 37  # in the table


@dataclass(frozen=True, slots=True)
class Result:
    """All messages sent in one way.

    Attributes:
        name: of the way, short.
        title: of the way.
        timelines: one for each message, in the order of sending; the first one is drawn.
    """

    name: str
    title: str
    timelines: tuple[Timeline, ...]

    @property
    def milliseconds(self) -> float:
        """The median over the messages."""
        return median(timeline.milliseconds for timeline in self.timelines)

    @property
    def round_trips(self) -> int:
        """Round trips per message: the same for all of them, because the way says what is waited for."""
        return self.timelines[0].round_trips


def bars(results: Sequence[Result], style: Style) -> Iterator[str]:
    """Yield one bar for each result, a box for each round trip, all over the same scale."""
    columns = style.width - _NAME_COLUMNS - _TIME_COLUMNS - 3
    longest = max(result.timelines[0].milliseconds for result in results)
    for result in results:
        timeline = result.timelines[0]
        bar = _bar(timeline, columns / longest)
        boxes = style.paint("sent", bar)
        yield f"  {result.name:<{_NAME_COLUMNS}}{boxes} {timeline.milliseconds:.0f} ms"


def _bar(timeline: Timeline, scale: float) -> str:
    bar = ""
    for wait in timeline.waits:
        room = max(1, round(wait.until * scale) - len(bar) - 1)
        label = f" {wait.label} " if len(wait.label) + 2 <= room else wait.label[:room]
        bar += ("┼" if bar else "├") + f"{label:─^{room}}"
    return bar + "┤"


def table(results: Sequence[Result], style: Style) -> Iterator[str]:
    """Yield the lines of the table; what is saved is against the first result."""
    head = f"{'way':<{_TITLE_COLUMNS}}{'round trips':>12}{'ms per message':>16}{'saved':>13}"
    yield f"  {head}"
    yield style.paint("faint", "  " + "─" * len(head))
    slowest = results[0].milliseconds
    for result in results:
        saved = slowest - result.milliseconds
        row = f"  {result.title:<{_TITLE_COLUMNS}}{result.round_trips:>12}{result.milliseconds:>16.0f}"
        gain = f"{f'{saved:.0f} ms {saved / slowest:4.0%}':>13}" if result is not results[0] else ""
        yield row + style.paint("good", gain)
