"""Mistakes that concern several settings of a route, or several routes, at once; ``checks`` asks for them.

Like there, the file's data is looked at, and a part that is wrong in itself is passed over.
"""

from collections.abc import Iterator
from typing import Any, Final

from smtpproxy.config.endpoint import Endpoint
from smtpproxy.config.entries import Entry, Place, is_switched_on, own_address, places
from smtpproxy.config.outboundfields import SMTP_PORT, parse_next_hop, parse_route_domains
from smtpproxy.config.problem import Finding, Path, quoted
from smtpproxy.config.tlsfields import SYSTEM

__all__ = ["route_checks"]

_UNVERIFIED: Final = frozenset({"none", "opportunistic", "required"})
_VERIFIED: Final = frozenset({"verified", "implicit"})
_WHERE_IT_IS: Final = "password_file (a file that holds nothing else) or password_env (a variable's name)"


def route_checks(routes: list[Entry], listening: list[Place], *, stock: bool) -> Iterator[Finding]:
    """Give each mistake.

    Takes all routes, the addresses that outbound listeners listen on, and whether ``service.transport`` is ``stock``.
    """
    yield from _same_domain_twice(routes)
    for route in routes:
        path, data = route
        tls = data.get("tls", {})
        tls = tls if isinstance(tls, dict) else {}
        servers = list(places(route, "nexthops", parse_next_hop))
        yield from _servers(path, data, tls)
        yield from _tls((*path, "tls"), tls)
        yield from _plain_port(path, data, tls, servers)
        yield from _credentials(path, data, tls)
        for place, server in servers:
            if own := own_address(server, listening):
                yield place, f"smtpproxy itself listens on {own}: it would talk to itself"
        if stock:
            yield from _needs_lean(path, data)


def _same_domain_twice(routes: list[Entry]) -> Iterator[Finding]:
    """Of two routes for one domain the second would never be taken."""
    first: dict[str, Path] = {}
    for path, data in routes:
        try:
            spellings = parse_route_domains(data.get("domain"))
        except ValueError:
            continue
        taken = [spelling for spelling in spellings if first.setdefault(spelling, path) != path]
        if taken:
            yield (
                (*path, "domain"),
                f"another route is for {quoted(taken[0])} already, so this one would never be taken",
            )


def _servers(path: Path, data: dict[str, Any], tls: dict[str, Any]) -> Iterator[Finding]:
    """What goes with servers that are listed, and what with those that are looked up."""
    if "nexthops" not in data:
        if data.get("order", "listed") == "shuffle":
            yield (
                (*path, "order"),
                "looked at only with nexthops; servers that the DNS prefers equally are always shuffled",
            )
        return
    if data.get("lookup") == "mx":
        yield (
            (*path, "lookup"),
            "not possible with nexthops: either the servers are listed, or the DNS is asked for them",
        )
        return
    if isinstance(data.get("port"), int) and data["port"] != SMTP_PORT:
        yield (*path, "port"), "looked at only with lookup: mx; each of nexthops has its own, such as host:2525"
    for key in ("dane", "mta_sts"):
        if tls.get(key) is True:
            yield (*path, "tls", key), "looked at only with lookup: mx; a server that is listed is verified by tls.mode"


def _tls(path: Path, tls: dict[str, Any]) -> Iterator[Finding]:
    mode = tls.get("mode", "opportunistic")
    if not isinstance(mode, str):
        return
    if mode == "none":
        for key in ("dane", "mta_sts"):
            if tls.get(key) is True:
                yield (*path, key), "not looked at with mode: none"
    if mode in _UNVERIFIED:
        for key, nothing in (("name", None), ("pins", ())):
            if tls.get(key, nothing) != nothing:
                yield (*path, key), f"not looked at with mode: {mode}, which takes any certificate"
    elif mode in _VERIFIED:
        yield from _whose_word(path, tls)


def _whose_word(path: Path, tls: dict[str, Any]) -> Iterator[Finding]:
    """What says who the remotes are excludes other ways to know it."""
    if tls.get("pins", ()) != ():
        if tls.get("ca", SYSTEM) != SYSTEM:
            yield (*path, "ca"), "not looked at with pins: whoever signed it, the key counts"
        if "name" in tls:
            yield (*path, "name"), "not looked at with pins; the name that is sent is the setting sni"
    own = [key for key, nothing in (("pins", ()), ("name", None), ("ca", SYSTEM)) if tls.get(key, nothing) != nothing]
    for key in ("dane", "mta_sts"):
        if own and tls.get(key) is True:
            yield (*path, key), f"not looked at where {own[0]} says who the remotes are"


def _plain_port(path: Path, data: dict[str, Any], tls: dict[str, Any], servers: list[Place]) -> Iterator[Finding]:
    """On port 25 every session begins in clear text."""
    if tls.get("mode") != "implicit":
        return
    why = "TLS from the first octet on (tls.mode: implicit) is not spoken on port 25"
    for place, server in servers:
        if server.port == SMTP_PORT:
            yield place, f"{why}; expected is a port such as {_on_port(server, 465)}"
    if "nexthops" not in data and data.get("port", SMTP_PORT) == SMTP_PORT:
        yield (*path, "port"), why


def _on_port(server: Endpoint, port: int) -> Endpoint:
    return Endpoint("tcp", host=server.host, port=port)


def _credentials(path: Path, data: dict[str, Any], tls: dict[str, Any]) -> Iterator[Finding]:
    """A password is for one server, which has to prove that it is that one (C15)."""
    credentials = data.get("credentials")
    if not isinstance(credentials, dict):
        return
    path = (*path, "credentials")
    given = [key for key in ("password_file", "password_env") if key in credentials]
    if not given:
        yield (*path, "password_file"), f"missing; expected is {_WHERE_IT_IS}"
    elif len(given) > 1:
        yield (*path, "password_env"), "only one of password_file and password_env is possible"
    mode = tls.get("mode", "opportunistic")
    if isinstance(mode, str) and mode in _UNVERIFIED:
        yield path, f"tls.mode: verified or implicit is expected, not {mode}: the password would go to anybody"
    if "nexthops" not in data:
        yield path, "possible only with nexthops: a password is not for whichever server the DNS names"


def _needs_lean(path: Path, data: dict[str, Any]) -> Iterator[Finding]:
    if is_switched_on(data.get("mark")):
        yield (*path, "mark"), "a mark needs service.transport: lean"
    if data.get("fast_open") == "whole_message":
        yield (*path, "fast_open"), "whole_message needs service.transport: lean"
