"""The lines around a ladder: its headline, what happened behind the proxy, what the EHLO replies offered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from smtpproxy.ops.demo.legacy_commands import Answer
from smtpproxy.ops.demo.style import Style
from smtpproxy.ops.demo.timeline import Timeline

_NAME_COLUMNS: Final = 12


def headline(title: str, timeline: Timeline, style: Style) -> str:
    """Return the line over a picture: the way at the left, its cost at the right."""
    cost = f"{timeline.round_trips} round trips, {timeline.milliseconds:.0f} ms"
    return style.paint("title", title + f"{cost:>{style.width - len(title)}}")


def behind(dialogue: Iterable[Answer], style: Style) -> str:
    """Return the line that tells what the legacy MTA was asked by the proxy and answered, QUIT left out."""
    steps = [f"{answer.verb} {answer.code}".strip() for answer in dialogue if answer.verb != "QUIT"]
    return style.paint("faint", f"{'':9}behind it: {', '.join(steps)}")


def offers(servers: Sequence[tuple[str, tuple[str, ...]]], keyword: str, style: Style) -> Iterator[str]:
    """Yield the lines that compare EHLO replies; `keyword` is the one that the client has learned.

    Args:
        servers: name and EHLO keywords of each server; the last one is where the client learned.
        keyword: what licenses early pipelining.
        style: how to draw.
    """
    yield "Offered in reply to EHLO:"
    for name, extensions in servers:
        words = [style.paint("good", word) if word == keyword else word for word in extensions]
        yield f"{name:>{_NAME_COLUMNS}}  {' · '.join(words)}"
    if keyword in servers[-1][1]:
        learned = style.paint("good", keyword)
        yield f"The client has learned {learned}: from now on it need not wait for the greeting."
