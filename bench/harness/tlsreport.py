"""The tables of the TLS part."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

from harness import tls
from harness.peers import EAGER_TLS, LAZY_TLS, NGINX_TLS, PEERS
from harness.report import STREAM_TARGET, markdown, section, verdict

OURS = (EAGER_TLS.key, LAZY_TLS.key)
Row = tuple[str, str]  # peer, mode
Figure = Callable[[float], float]  # from microseconds of one session


def show(result: tls.TlsResult, plan: tls.Plan) -> None:
    """Print sessions per CPU second, how they compare with nginx, and megabytes per CPU second."""
    titles = [course.name for course in tls.SESSION_COURSES]
    rows = rows_of(result, tls.SESSION_MODES)
    figures = [[label(row), *cells(result, row, tls.SESSION_COURSES, sessions_per_second)] for row in rows]
    parts = [markdown(["sessions per CPU second", *titles], figures)]
    ratios = [ratio_row(result, row) for row in rows if row[0] in OURS and has_nginx(result)]
    if ratios:
        parts.append(markdown(["sessions, times those of nginx", *titles, "target", "reached"], ratios))
    parts.append(f"Medians of {result.rounds} rounds; in brackets how far the rounds lie apart.")
    section(f"TLS 1.3 sessions of one message of {plan.size} octets", *parts)
    show_streams(result, plan)


def show_streams(result: tls.TlsResult, plan: tls.Plan) -> None:
    """Print megabytes per CPU second."""
    rows = []
    for key in dict.fromkeys(peer for peer, _ in rows_of(result, ("pipelined", "bdat"))):
        values = [result.samples.get((course.name, key, course.modes[0])) for course in tls.STREAM_COURSES]
        rates = [[megabytes_per_second(plan, value) for value in some or ()] for some in values]
        reached = all(median(some) >= STREAM_TARGET for some in rates if some)
        target = [f"≥ {STREAM_TARGET:.0f}", verdict(reached)] if key in OURS else ["", ""]
        rows.append([PEERS[key].label, *(cell(some) for some in rates), *target])
    titles = [course.name for course in tls.STREAM_COURSES]
    table = markdown(["MB per CPU second", *titles, "target", "reached"], rows)
    section(f"TLS 1.3, messages of {plan.stream_size >> 20} MiB", table)


def sessions_per_second(microseconds: float) -> float:
    """How many sessions a second of CPU is enough for."""
    return 1e6 / microseconds


def megabytes_per_second(plan: tls.Plan, microseconds: float) -> float:
    """Megabytes (10^6 octets) of mail data per second of CPU: a megabyte per second is an octet per microsecond."""
    return plan.stream_size / microseconds


def rows_of(result: tls.TlsResult, modes: Iterable[str]) -> list[Row]:
    """The peers that were measured, each with its modes, in the usual order."""
    known = {(peer, mode) for _, peer, mode in result.samples}
    return [(peer, mode) for peer in PEERS for mode in modes if (peer, mode) in known]


def label(row: Row) -> str:
    """What stands in front of a row."""
    name = PEERS[row[0]].label
    return f"{name}, early client" if row[1] == "early" else name


def cells(result: tls.TlsResult, row: Row, courses: Iterable[tls.Course], figure: Figure) -> list[str]:
    """One cell for each course."""
    columns = [result.samples.get((course.name, *row), []) for course in courses]
    return [cell([figure(value) for value in values]) for values in columns]


def cell(values: list[float]) -> str:
    """A median with its spread; a dash where nothing was measured."""
    if not values:
        return "–"
    middle = median(values)
    return f"{middle:.0f} ({(max(values) - min(values)) / middle:.0%})" if len(values) > 1 else f"{middle:.0f}"


def has_nginx(result: tls.TlsResult) -> bool:
    """Tell whether there is anything to compare with."""
    return any(peer == NGINX_TLS.key for _, peer, _ in result.samples)


def ratio_row(result: tls.TlsResult, row: Row) -> list[str]:
    """How many times nginx's sessions one of ours serves. nginx has polite clients in every row: it takes no others."""
    ratios = []
    for course in tls.SESSION_COURSES:
        theirs = median(result.samples[course.name, NGINX_TLS.key, "pipelined"])
        ratios.append(theirs / median(result.samples[course.name, *row]))
    return [label(row), *(f"{ratio:.2f}" for ratio in ratios), "≥ 1.0", verdict(min(ratios) >= 1.0)]
