"""What a probe has found, for a person at a terminal.

The functions take facts that are escaped already (``document.escaped``) and give finished lines.
"""

from __future__ import annotations

import textwrap
from typing import Final

from smtpproxy.ops.demo.style import Style
from smtpproxy.ops.probe.bars import bars, milliseconds
from smtpproxy.ops.probe.facts import Dane, Found, Hello, Host, Server, Sts, Tls, Trial
from smtpproxy.ops.probe.verdicts import problems

__all__ = ["heading", "host_lines", "server_lines"]

_INDENT: Final = "    "
_DAY: Final = 86400
_NAMES_SHOWN: Final = 12


def heading(found: Found, style: Style) -> list[str]:
    """Say what is probed, and what holds for all of it."""
    if found.trouble:
        return [style.paint("bad", f"{found.asked}: {found.trouble}")]
    number = len(found.hosts)
    what = f"{number} mail host{'s' * (number > 1)} in its MX records" if found.kind == "domain" else "a mail host"
    lines = [style.paint("title", f"{found.asked}: {what}"), f"We say EHLO {found.ehlo}."]
    policy = _policy(found.sts)
    return [*lines, *_wrapped(f"MTA-STS: {policy}", style, "")] if policy else lines


def host_lines(host: Host, style: Style) -> list[str]:
    """Begin a host."""
    facts = [host.name]
    if host.preference is not None:
        facts.append(f"preference {host.preference}")
    if host.secure:
        facts.append("vouched for by DNSSEC")
    if host.sts_allows is not None:
        facts.append("named by the MTA-STS policy" if host.sts_allows else "not named by the MTA-STS policy")
    lines = ["", style.paint("title", ", ".join(facts))]
    if host.trouble:
        lines.append(style.paint("bad", f"  {host.trouble}"))
    if host.left_out:
        lines.append(f"  {host.left_out} more addresses are left out")
    return lines


def server_lines(sts: Sts, host: Host, server: Server, style: Style) -> list[str]:
    """Tell all of one address."""
    lines = ["", f"  {server.address} port {server.port}"]
    if server.unreachable:
        return [*lines, f"{_INDENT}not visited: {server.trouble}"]
    if server.greeting:
        lines += _wrapped(server.greeting, style)
    if server.round_trip is not None:
        lines += ["", *bars(server.phases, style, _INDENT)]
    lines += _hello("In clear", server.clear, style) + _hello("Inside TLS", server.inside, style)
    lines += _tls(server.tls, style) + _dane(server.dane, style) + _savings(server)
    lines += _trial(server.trial, style)
    wrong = problems(sts, host, server)
    if wrong:
        lines.append("")
    for each in wrong:
        lines += [style.paint("bad", line) for line in _wrapped(each, style)]
    return lines


def _policy(sts: Sts) -> str:
    if sts.status == "found":
        names = f" for {', '.join(sts.mx)}" if sts.mx else ""
        return f"mode {sts.mode}{names}, good for {sts.max_age / _DAY:.1f} days"
    return {"none": "no policy", "failed": f"there is a policy, and it cannot be had: {sts.why}"}.get(sts.status, "")


def _hello(where: str, hello: Hello | None, style: Style) -> list[str]:
    if hello is None:
        return []
    offered = "it knows HELO only" if hello.helo_only else ", ".join(hello.lines) or "no extensions"
    return ["", *_wrapped(f"{where}: {offered}", style), _early(hello, style)]


def _early(hello: Hello, style: Style) -> str:
    if not hello.keywords:
        return f"{_INDENT}  early pipelining is not offered"
    keywords = " and ".join(hello.keywords)
    if hello.usable:
        return f"{_INDENT}  " + style.paint("good", f"{keywords}, and PIPELINING beside it: usable")
    return f"{_INDENT}  " + style.paint("bad", f"{keywords} without PIPELINING: not usable")


def _tls(tls: Tls | None, style: Style) -> list[str]:
    if tls is None:
        return []
    asked = f", asked for {tls.servername}" if tls.servername else ""
    lines = ["", f"{_INDENT}TLS: {tls.version}, {tls.cipher}{asked}"]
    certificate = tls.certificate
    if certificate is not None:
        names = list(certificate.names[:_NAMES_SHOWN])
        more = len(certificate.names) - len(names)
        listed = ", ".join(names) + (f" and {more} more" if more else "") or "no name"
        days = f"{certificate.days_left} days left" if certificate.days_left >= 0 else "it has ended"
        for fact in (
            f"certificate: {certificate.subject or 'no subject'}",
            f"for: {listed}",
            f"issuer: {certificate.issuer}",
            f"from {certificate.not_before} to {certificate.not_after}: {days}",
        ):
            lines += _wrapped(fact, style, _INDENT + "  ")
    chain = f"not verified: {tls.chain_error}" if tls.chain_error else "leads to an authority that is believed here"
    lines += _wrapped(f"chain: {chain}", style, _INDENT + "  ")
    if certificate is not None:
        lines += _wrapped(f"name: {tls.name_error or 'matches'}", style, _INDENT + "  ")
    return lines


def _dane(dane: Dane | None, style: Style) -> list[str]:
    if dane is None or dane.status == "not asked":
        return []
    said = {
        "insecure": "DNSSEC does not vouch for this host here, so TLSA records would not count",
        "none": "no TLSA records",
        "failed": dane.why,
        "found": f"TLSA records of {dane.base}" + ("" if dane.records else ", none of which can be used"),
    }[dane.status]
    if dane.matches is not None:
        said += f": {'the certificate matches' if dane.matches else dane.why}"
    lines = ["", *_wrapped(f"DANE: {said}", style)]
    for record in dane.records:
        lines += _wrapped(record, style, _INDENT + "  ")
    return lines


def _savings(server: Server) -> list[str]:
    trip = server.round_trip
    if not server.savings or trip is None:
        return []
    title = (
        "What early pipelining saves here" if server.usable else "What early pipelining would save if it were offered"
    )
    lines = ["", f"{_INDENT}{title}, for a round trip of {milliseconds(trip)}:", ""]
    rows = [("", "in clear", "STARTTLS")]
    rows += [
        (
            saving.way,
            _cell(saving.clear, trip, saving.clear_missing),
            _cell(saving.starttls, trip, saving.starttls_missing),
        )
        for saving in server.savings
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for way, clear, starttls in rows:
        cells = f"{_INDENT}  {way:<{widths[0]}}  {clear:<{widths[1]}}"
        lines.append((f"{cells}  {starttls}" if server.tls else cells).rstrip())
    return [*lines, f"{_INDENT}  (round trips for one message; the server's own pauses come on top)"]


def _cell(round_trips: int | None, trip: float, missing: str) -> str:
    if round_trips is None:
        return ""
    return f"{round_trips} = {milliseconds(round_trips * trip)}" + (f" ({missing})" if missing else "")


def _trial(trial: Trial | None, style: Style) -> list[str]:
    if trial is None:
        return []
    if trial.skipped:
        return ["", *_wrapped(f"No early flight was sent: {trial.skipped}", style)]
    where = [
        name for name, is_early in (("in clear", trial.early_clear), ("inside TLS", trial.early_inside)) if is_early
    ]
    lines = ["", f"{_INDENT}An early flight, really sent, early {' and '.join(where)}:"]
    for answer in trial.answers:
        lines += _wrapped(f"{answer.command}: {answer.text}", style, _INDENT + "  ")
    if not trial.problems:
        lines.append(f"{_INDENT}  " + style.paint("good", "every reply came as it must"))
    if trial.seconds is not None and trial.polite_seconds is not None:
        saved = trial.polite_seconds - trial.seconds
        compared = f"{milliseconds(trial.seconds)}, politely {milliseconds(trial.polite_seconds)}"
        difference = f"{milliseconds(abs(saved))} {'saved' if saved >= 0 else 'lost'}"
        lines.append(f"{_INDENT}  {compared}: {difference}")
    return lines


def _wrapped(text: str, style: Style, indent: str = _INDENT) -> list[str]:
    return textwrap.wrap(
        text,
        style.width,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,
    )
