"""Draw one conversation as a ladder: milliseconds at the left, then what crosses the line, and which way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from smtpproxy.ops.demo.style import Style
from smtpproxy.ops.demo.timeline import Direction, Event, Part, Timeline

_TIME_COLUMNS: Final = 8
_SHORTEST_ARROW: Final = 4
_JOINT: Final = " · "


def ladder(timeline: Timeline, style: Style, *, server: str) -> Iterator[str]:
    """Yield the lines of the picture of `timeline`; `server` is the name over the right-hand side."""
    inner = style.width - _TIME_COLUMNS - 3
    # What comes or goes within half a round trip is one moment to the eye, and one row of the picture.
    moment = timeline.waits[0].until / 2
    yield f"{'ms':>{_TIME_COLUMNS - 1}}  client{server:>{inner - 4}}"
    last = -moment
    for event in _moments(timeline.events, moment):
        same = event.at - last < moment
        last = event.at
        clock = style.paint("faint", f"{'' if same else f'{event.at:.0f}':>{_TIME_COLUMNS - 1}}")
        yield f"{clock}  │{_arrow(event, inner, style)}│"


def _moments(events: Iterable[Event], moment: float) -> Iterator[Event]:
    """Join neighbouring events of one direction and one moment; the time is that of the last one."""
    joined: Event | None = None
    for event in events:
        if joined and event.direction is joined.direction and event.at - joined.at < moment:
            joined = Event(event.at, event.direction, joined.parts + event.parts)
            continue
        if joined:
            yield joined
        joined = event
    if joined:
        yield joined


def _arrow(event: Event, columns: int, style: Style) -> str:
    text = _text(event.parts, columns - _SHORTEST_ARROW - 4)
    shaft = "─" * (columns - len(text) - 4)
    if event.direction is Direction.SENT:
        return f" {style.paint('sent', text)} {style.paint('faint', shaft + '→')} "
    return f" {style.paint('faint', '←' + shaft)} {style.paint('received', text)} "


def _text(parts: Sequence[Part], columns: int) -> str:
    """Return the longest form of `parts` that fits: everything, abbreviated, or cut."""
    full = _JOINT.join(part.full for part in parts)
    if len(full) <= columns:
        return full
    short = _JOINT.join(part.short for part in parts) if len(parts) > 1 else full
    return short if len(short) <= columns else short[: columns - 1] + "…"
