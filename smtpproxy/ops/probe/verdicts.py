"""What is wrong with a destination: what would keep mail away from it, or make an early flight fail."""

from __future__ import annotations

from smtpproxy.ops.probe.facts import Dane, Found, Host, Server, Sts

__all__ = ["is_fine", "problems"]


def problems(sts: Sts, host: Host, server: Server) -> tuple[str, ...]:
    """Give all that is wrong with one address, each in a sentence without full stop; empty if nothing is."""
    if server.trouble:
        return () if server.unreachable else (server.trouble,)
    found = _dane(server.dane, inside_tls=server.tls is not None) + _sts(sts, host, server)
    if server.trial is not None:
        found += [f"early flight: {each}" for each in server.trial.problems]
    return tuple(found)


def is_fine(found: Found) -> bool:
    """Whether there is nothing to mend: every host has addresses, one at least was reached, none has a problem."""
    servers = [(host, server) for host in found.hosts for server in host.servers]
    return (
        not found.trouble
        and not any(host.trouble for host in found.hosts)
        and any(not server.unreachable for _, server in servers)
        and not any(problems(found.sts, host, server) for host, server in servers)
    )


def _dane(dane: Dane | None, *, inside_tls: bool) -> list[str]:
    if dane is None:
        return []
    if dane.status == "failed":
        return [f"DANE: {dane.why}"]
    if dane.matches is False:
        return [f"DANE: {dane.why}"]
    if dane.status == "found" and not inside_tls:
        return ["DANE: there are TLSA records, and no TLS was seen"]
    return []


def _sts(sts: Sts, host: Host, server: Server) -> list[str]:
    if sts.status == "failed":
        return [f"MTA-STS: there is a policy, and it cannot be had: {sts.why}"]
    if sts.mode != "enforce":
        return []
    if not host.sts_allows:
        return ["MTA-STS: the policy does not name this host"]
    if server.dane is not None and server.dane.records:
        return []  # RFC 8461, 2: DANE decides then
    if server.tls is None:
        return ["MTA-STS: the policy demands TLS, and none was seen"]
    why = server.tls.chain_error or server.tls.name_error
    return [f"MTA-STS: {why}"] if why else []
