"""Mistakes that concern several settings of an outbound listener, and of the cache, at once; ``checks`` asks for them.

Like there, the file's data is looked at, and a part that is wrong in itself is passed over.
"""

import ipaddress
from collections.abc import Iterator
from typing import Any, Final

from smtpproxy.config.entries import Entry, is_switched_on, items, places
from smtpproxy.config.networks import ALL, Network, parse_network
from smtpproxy.config.problem import Finding, Path

__all__ = ["cache_checks", "is_transparent", "outbound_checks"]

_WAYS: Final = frozenset({"redirect", "tproxy"})

_SMUGGLING: Final = (
    "pass is not possible with mode: outbound: among the servers of the world are some that take a bare CR or LF "
    "for a line ending, and mail could be smuggled through them"
)
_OPEN_RELAY: Final = (
    "would make an open relay, through which anybody sends mail to anybody; "
    "expected are the addresses of your own mail servers"
)
_ANYBODYS_WORD: Final = (
    "would make an open relay: whoever may send a PROXY header can claim any address; "
    "expected are the addresses of your load balancers"
)

# Networks that wide are not anybody's own, except these that no packet from the world comes from.
_WIDEST: Final = {4: 8, 6: 16}
_NOT_THE_WORLD: Final = tuple(map(ipaddress.IPv6Network, ("fc00::/7", "fe80::/10")))


def is_transparent(listener: Entry) -> bool:
    """Tell whether an outbound listener's connections were meant for somebody else."""
    way = listener.data.get("transparent")
    return isinstance(way, str) and way in _WAYS


def outbound_checks(listener: Entry, *, stock: bool) -> Iterator[Finding]:
    """Take an outbound listener, and whether ``service.transport`` is ``stock``; give each mistake."""
    path, data = listener
    yield from _open_to_the_world((*path, "relay_from"), data.get("relay_from"), _OPEN_RELAY)
    trusted = data.get("trusted")
    if isinstance(trusted, dict):
        yield from _open_to_the_world(
            (*path, "trusted", "proxy_protocol"), trusted.get("proxy_protocol"), _ANYBODYS_WORD
        )
    yield from _bare_line_endings(path, data)
    if is_transparent(listener):
        yield from _transparent(listener, stock=stock)
    elif is_switched_on(data.get("mark")):
        yield (*path, "mark"), "looked at only with transparent: redirect or tproxy; a route has a mark of its own"


def _open_to_the_world(path: Path, networks: object, why: str) -> Iterator[Finding]:
    for index, text in enumerate(items(networks)):
        try:
            network = parse_network(text)
        except ValueError:
            continue
        if _is_the_world(network):
            yield (*path, index), f"{network} {why}"


def _is_the_world(network: Network | str) -> bool:
    if isinstance(network, str):
        return network == ALL
    if isinstance(network, ipaddress.IPv6Network) and any(network.subnet_of(own) for own in _NOT_THE_WORLD):
        return False
    return network.prefixlen < _WIDEST[network.version]


def _bare_line_endings(path: Path, data: dict[str, Any]) -> Iterator[Finding]:
    """No server of the world can be vouched for (S11)."""
    if data.get("bare_line_endings") == "pass":
        yield (*path, "bare_line_endings"), _SMUGGLING
    for index, exception in enumerate(items(data.get("bare_line_endings_exceptions"))):
        if isinstance(exception, dict) and exception.get("policy") == "pass":
            yield (*path, "bare_line_endings_exceptions", index, "policy"), _SMUGGLING


def _transparent(listener: Entry, *, stock: bool) -> Iterator[Finding]:
    """The client believes that it speaks with somebody else, whom the kernel names."""
    path, data = listener
    way = data["transparent"]
    if data.get("protocol") == "lmtp":
        yield (
            (*path, "protocol"),
            f"smtp is expected with transparent: {way}: that is what the client believes to speak",
        )
    tls = data.get("tls")
    if isinstance(tls, dict) and tls.get("mode") in ("starttls", "starttls-required", "implicit"):
        yield (
            (*path, "tls", "mode"),
            f"none is expected with transparent: {way}: we have no certificate of the server that the client wants",
        )
    if data.get("proxy_protocol") in ("optional", "required"):
        yield (
            (*path, "proxy_protocol"),
            f"off is expected with transparent: {way}: a client that does not know of us sends no PROXY header",
        )
    for place, endpoint in places(listener, "listen"):
        if endpoint.kind == "unix":
            yield place, f"a Unix socket cannot be meant for another server; transparent: {way} needs a TCP port"
    if stock:
        yield (*path, "transparent"), f"{way} needs service.transport: lean"


def cache_checks(data: object) -> Iterator[Finding]:
    """Take the data of the section ``cache``; give each mistake."""
    if not isinstance(data, dict) or "password_env" not in data:
        return
    store = data.get("store", "sqlite:")
    if isinstance(store, str) and store.startswith(("memory:", "sqlite:")):
        yield ("cache", "password_env"), "looked at only where store is a Redis, such as redis://127.0.0.1:6379"
