"""Mistakes that concern several settings at once.

They are looked for in the file's data, not in the finished model, so that they are reported together with
all others; a part that is wrong in itself is passed over here.
"""

from collections.abc import Iterator
from typing import Any, Final

from smtpproxy.config.endpoint import collide
from smtpproxy.config.entries import Entry, Place, entries, items, mode_of, own_address, places
from smtpproxy.config.outboundchecks import cache_checks, is_transparent, outbound_checks
from smtpproxy.config.problem import Finding, Path
from smtpproxy.config.routechecks import route_checks
from smtpproxy.config.tlschecks import backend_tls, listener_tls

__all__ = ["cross_check"]

_SMUGGLING: Final = (
    "pass lets mail be smuggled through a backend that takes a bare CR or LF for a line ending; "
    "if yours surely does not, say so with backend_immune: yes"
)
_NO_DOMAINS: Final = (
    "missing; expected is a list of the domains that the backend receives mail for, or the word any. "
    "It may be left out where the backend learns who the client is (its setting identity: "
    "auto, xclient, proxy-v1, proxy-v2 or source-address)"
)
_EMPTY_DOMAINS: Final = (
    "at least one domain is expected, or the word any; where the backend learns who the client is "
    "(its setting identity), recipient_domains may be left out"
)
_NO_BACKENDS: Final = "expected is a section with one entry for each backend: an inbound listener passes mail on to one"
_NO_ROUTES: Final = (
    "expected is a list of routes, which say where an outbound listener delivers mail, "
    'such as [{domain: "*", lookup: mx}]'
)

# How a backend learns who the client is: once for each connection, so that no other client can have it (S18).
_FOR_ONE_CLIENT: Final = frozenset({"proxy-v1", "proxy-v2", "source-address"})


def cross_check(data: object) -> Iterator[Finding]:
    """Take a configuration's data, as ``source`` gives it; give each mistake as path and message."""
    if not isinstance(data, dict):
        return
    listeners = entries("listeners", data.get("listeners"))
    service = data.get("service")
    stock = isinstance(service, dict) and service.get("transport") == "stock"
    yield from _duplicate_names(listeners)
    yield from _strangers(listeners)
    for entry in listeners:
        yield from listener_tls(entry.path, entry.data.get("tls"))
    listening = [place for entry in listeners for place in places(entry, "listen")]
    yield from _collisions(listening)
    yield from _inbound([entry for entry in listeners if mode_of(entry) == "inbound"], data)
    yield from _servers(data.get("backends"), listening, stock=stock)
    yield from _outbound([entry for entry in listeners if mode_of(entry) == "outbound"], data, stock=stock)
    yield from cache_checks(data.get("cache"))


def _inbound(listeners: list[Entry], data: dict[str, Any]) -> Iterator[Finding]:
    named = data.get("backends", {})
    if listeners and named == {}:
        yield ("backends",), _NO_BACKENDS if "backends" in data else f"missing; {_NO_BACKENDS}"
    backends = named if isinstance(named, dict) else {}
    yield from _unknown_backends(listeners, list(backends))
    yield from _immunity(listeners)
    yield from _open_relays(listeners, {name: item for name, item in backends.items() if isinstance(item, dict)})


def _servers(named: object, listening: list[Place], *, stock: bool) -> Iterator[Finding]:
    backends = list(named.items()) if isinstance(named, dict) else []
    servers = [Entry(("backends", name), item) for name, item in backends if isinstance(item, dict)]
    yield from _identities(servers, stock=stock)
    for entry in servers:
        addresses = list(places(entry, "servers"))
        yield from backend_tls(entry.path, entry.data.get("tls"), [endpoint for _, endpoint in addresses])
        yield from _loops(listening, addresses)


def _outbound(listeners: list[Entry], data: dict[str, Any], *, stock: bool) -> Iterator[Finding]:
    for entry in listeners:
        yield from outbound_checks(entry, stock=stock)
    routed = [entry for entry in listeners if not is_transparent(entry)]
    if routed and data.get("routes", ()) == ():
        yield ("routes",), _NO_ROUTES if "routes" in data else f"missing; {_NO_ROUTES}"
    # Mail may well go to a server of ours through an inbound listener; through an outbound one it goes in circles.
    listening = [place for entry in listeners for place in places(entry, "listen")]
    yield from route_checks(entries("routes", data.get("routes")), listening, stock=stock)


def _duplicate_names(listeners: list[Entry]) -> Iterator[Finding]:
    first: dict[str, Path] = {}
    for path, listener in listeners:
        name = listener.get("name")
        if isinstance(name, str) and first.setdefault(name, path) != path:
            yield (*path, "name"), f"another listener has the name '{name}' already"


def _unknown_backends(listeners: list[Entry], names: list[str]) -> Iterator[Finding]:
    for path, listener in listeners:
        backend = listener.get("backend")
        if isinstance(backend, str) and names and backend not in names:
            yield (*path, "backend"), f"there is no backend '{backend}'; known are {', '.join(names)}"


def _immunity(listeners: list[Entry]) -> Iterator[Finding]:
    """Bare line endings may be passed on only where somebody vouched for the backend (S11)."""
    for path, listener in listeners:
        if listener.get("backend_immune") is True:
            continue
        asked: list[tuple[Path, object]] = [((*path, "bare_line_endings"), listener.get("bare_line_endings"))]
        for index, exception in enumerate(items(listener.get("bare_line_endings_exceptions"))):
            if isinstance(exception, dict):
                asked.append(((*path, "bare_line_endings_exceptions", index, "policy"), exception.get("policy")))
        for place, policy in asked:
            if policy == "pass":
                yield place, _SMUGGLING


def _open_relays(listeners: list[Entry], backends: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """The recipients are known, or the backend learns who the client is and decides itself (S14)."""
    for path, listener in listeners:
        if listener.get("recipient_domains") == ():
            yield (*path, "recipient_domains"), _EMPTY_DOMAINS
        name = listener.get("backend")
        backend = backends.get(name) if isinstance(name, str) else None
        identity = backend.get("identity") if backend else None
        if "recipient_domains" not in listener and identity in ("none", "xforward"):
            yield (*path, "recipient_domains"), f"{_NO_DOMAINS}, not with identity: {identity}"


def _strangers(listeners: list[Entry]) -> Iterator[Finding]:
    """The PROXY header is taken from somebody, if it is taken at all."""
    for path, listener in listeners:
        asked, trusted = listener.get("proxy_protocol"), listener.get("trusted", {})
        if asked in ("optional", "required") and isinstance(trusted, dict) and not trusted.get("proxy_protocol", ()):
            yield (
                (*path, "trusted", "proxy_protocol"),
                f"with proxy_protocol: {asked} at least one network is expected, from which a PROXY header is taken",
            )


def _identities(backends: list[Entry], *, stock: bool) -> Iterator[Finding]:
    """What a way of telling the backend who the client is does not go with."""
    for entry in backends:
        path, backend = entry
        identity, reuse = backend.get("identity"), backend.get("reuse")
        if not isinstance(identity, str):
            continue
        if identity in _FOR_ONE_CLIENT and (reuse is True or reuse == "on" or isinstance(reuse, dict)):
            yield (
                (*path, "reuse"),
                f"off is expected with identity: {identity}, because such a session can serve no other client",
            )
        if identity == "source-address":
            if stock:
                yield (*path, "identity"), "source-address needs service.transport: lean"
            for place, server in places(entry, "servers"):
                if server.kind == "unix":
                    yield place, "a Unix socket shows no source address; identity: source-address needs a TCP port"


def _collisions(listening: list[Place]) -> Iterator[Finding]:
    for number, (path, endpoint) in enumerate(listening):
        for _, earlier in listening[:number]:
            if collide(endpoint, earlier):
                yield path, f"{endpoint} cannot be listened on beside {earlier}, which is in the file already"
                break


def _loops(listening: list[Place], servers: list[Place]) -> Iterator[Finding]:
    """A server that is one of the proxy's own addresses would be the proxy talking to itself."""
    for path, server in servers:
        if own := own_address(server, listening):
            yield path, f"smtpproxy itself listens on {own}: it would talk to itself"
