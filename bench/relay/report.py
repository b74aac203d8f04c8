"""The table of CPU and rates."""

from __future__ import annotations

from statistics import median

from harness.report import markdown, section, verdict

from relay.measure import PER_SESSION, Key, Plan, Result
from relay.relays import Relay

TARGET = 1 / 3
"""At most so much of the CPU time of a mail server that relays."""


def show(result: Result, relays: list[Relay], plan: Plan) -> None:
    """Print what a message costs, how many pass, and what that is beside the others."""
    columns = [f"{count} in a session" for count in PER_SESSION]
    parts = [
        markdown([f"CPU ms per message of {plan.size} octets", *columns], rows(result.cpu, relays, "{:.2f}")),
        markdown(["Messages a second, one core", *columns], rows(result.rate, relays, "{:.0f}")),
    ]
    others = [relay for relay in relays if not relay.ours]
    ratios = [ratio_row(result, relay, other) for relay in relays if relay.ours for other in others]
    if ratios:
        parts.append(markdown(["CPU divided by that of another", *columns, "target", "reached"], ratios))
    section("Relaying", *parts, f"Medians of {plan.rounds} rounds.")


def rows(values: dict[Key, list[float]], relays: list[Relay], form: str) -> list[list[str]]:
    """One row for each relay."""
    return [
        [relay.label, *(form.format(median(values[relay.key, count])) for count in PER_SESSION)] for relay in relays
    ]


def ratio_row(result: Result, relay: Relay, other: Relay) -> list[str]:
    """Our CPU divided by that of another relay."""
    ratios = [median(result.cpu[relay.key, count]) / median(result.cpu[other.key, count]) for count in PER_SESSION]
    figures = [f"{ratio:.2f}" for ratio in ratios]
    return [f"{relay.label} / {other.label}", *figures, f"≤ {TARGET:.2f}", verdict(max(ratios) <= TARGET)]
