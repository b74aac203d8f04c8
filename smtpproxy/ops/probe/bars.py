"""Drawing times: one bar for each step, where it began and as long as it took."""

from __future__ import annotations

from collections.abc import Sequence

from smtpproxy.ops.demo.style import Style
from smtpproxy.ops.probe.facts import Phase

__all__ = ["bars", "milliseconds"]

_BAR = "═"
_NARROWEST = 10


def bars(phases: Sequence[Phase], style: Style, indent: str = "") -> list[str]:
    """Draw the steps of a session, a line for each and one for the sum.

    Every step begins where the one before it ended; one that took any time at all has a bar of one column at least.
    """
    total = sum(phase.seconds for phase in phases)
    together = Phase("together", total)
    names = max(len(phase.name) for phase in [*phases, together])
    numbers = max(len(milliseconds(phase.seconds)) for phase in [*phases, together])
    room = max(_NARROWEST, style.width - len(indent) - names - numbers - 4)
    lines = []
    before = 0.0
    for phase in phases:
        begin = min(_columns(before, total, room), room - 1)
        before += phase.seconds
        length = max(1, _columns(before, total, room) - begin) if phase.seconds else 0
        bar = style.paint("sent", style.fit(_BAR * length))
        number = milliseconds(phase.seconds)
        lines.append(f"{indent}{phase.name:<{names}}  {number:>{numbers}}  {' ' * begin}{bar}".rstrip())
    return [*lines, f"{indent}{together.name:<{names}}  {milliseconds(total):>{numbers}}"]


def milliseconds(seconds: float) -> str:
    """Write a time with about three digits, in ms."""
    value = seconds * 1000
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"


def _columns(part: float, total: float, room: int) -> int:
    return round(part / total * room) if total else 0
