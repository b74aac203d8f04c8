"""The tables of round trips."""

from __future__ import annotations

from statistics import median
from typing import Any

from harness.report import markdown, section, verdict

from wan.rows import Figures, Plan

ALLOWANCE = 0.5
"""So much more than the target is less than another round trip: the time of the programs, and of the line itself."""


def show(all_figures: list[Figures], plan: Plan) -> None:
    """Print a table for each size of message, if anything was measured."""
    if not all_figures:
        return
    for position, octets in enumerate(plan.sizes):
        # A large message takes more, by the slow start of TCP alone: the targets are for small ones.
        aims = position == 0
        header = ["Round trips", "", "worst", *(["target", "reached"] if aims else [])]
        rows = [cells(figures, octets, aims=aims) for figures in all_figures]
        title = f"A message of {octets / 1024:g} KiB, round trip {plan.milliseconds} ms"
        section(title, markdown(header, rows), f"Medians of {plan.messages} messages, from the SYN to the final reply.")
    for figures in all_figures:
        for remark in figures.remarks:
            print(f"{figures.row.label}: {remark}")


def cells(figures: Figures, octets: int, *, aims: bool) -> list[str]:
    """One row of a table."""
    values = figures.round_trips[octets]
    middle, target = median(values), figures.row.target
    row = [figures.row.label, f"{middle:.2f}", f"{max(values):.2f}"]
    if aims:
        row += ["", ""] if target is None else [f"{target:g}", verdict(middle < target + ALLOWANCE)]
    return row


def as_json(all_figures: list[Figures], plan: Plan) -> dict[str, Any]:
    """Everything that was measured."""
    rows = [
        {
            "row": figures.row.key,
            "label": figures.row.label,
            "target": figures.row.target,
            "round_trips": {str(octets): values for octets, values in figures.round_trips.items()},
            "remarks": figures.remarks,
        }
        for figures in all_figures
    ]
    return {"milliseconds": plan.milliseconds, "rows": rows}
