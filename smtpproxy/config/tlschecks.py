"""Mistakes that concern several settings of TLS at once; ``checks`` asks for them.

Like there, the file's data is looked at, and a part that is wrong in itself is passed over. What is
prepared while the mode is still ``none`` need not be complete.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from smtpproxy.config.endpoint import Endpoint
from smtpproxy.config.problem import Finding, Path

__all__ = ["backend_tls", "listener_tls"]

_IN_USE: Final = frozenset({"starttls", "starttls-required", "implicit"})

# For which way of verifying a setting is looked at, and its value that says nothing.
_LOOKED_AT: Final[dict[str, tuple[frozenset[str], object]]] = {
    "ca": (frozenset({"ca", "name"}), "system"),
    "name": (frozenset({"name"}), None),
    "pins": (frozenset({"pins"}), ()),
}
_VERIFY: Final = frozenset({"none", "ca", "name", "pins"})


def listener_tls(listener: Path, data: object) -> Iterator[Finding]:
    """Take the path of a listener and the data of its section ``tls``; give each mistake."""
    if not isinstance(data, dict):
        return
    path = (*listener, "tls")
    mode = data.get("mode")
    if _is_one_of(mode, _IN_USE) and data.get("certificates", ()) == ():
        yield (
            (*path, "certificates"),
            f"missing; with mode: {mode} at least one is expected, such as {{cert: mx.pem, key: mx.key}}",
        )
    clients = data.get("client_certificates")
    if isinstance(clients, dict):
        yield from _client_certificates((*path, "client_certificates"), clients)


def _client_certificates(path: Path, data: dict[str, Any]) -> Iterator[Finding]:
    mode = data.get("mode", "off")
    if _is_one_of(mode, frozenset({"ask", "require"})) and "ca" not in data:
        yield (
            (*path, "ca"),
            f"missing; with mode: {mode} the file with the certificates of the authorities is expected",
        )
    if (mode is False or mode == "off") and data.get("logins"):
        yield (*path, "logins"), "without mode: ask or require no client certificate is seen, so these do nothing"


def backend_tls(backend: Path, data: object, servers: Sequence[Endpoint]) -> Iterator[Finding]:
    """Take the path of a backend, the data of its section ``tls`` and its servers; give each mistake."""
    if not isinstance(data, dict):
        return
    path = (*backend, "tls")
    verify = data.get("verify", "name")
    if not _is_one_of(verify, _VERIFY):
        return
    for key, (ways, nothing) in _LOOKED_AT.items():
        if verify not in ways and data.get(key, nothing) != nothing:
            hint = "; the name that is sent is the setting sni" if key == "name" else ""
            yield (*path, key), f"not looked at with verify: {verify}{hint}"
    if not _is_one_of(data.get("mode"), _IN_USE):
        return
    if verify == "pins" and data.get("pins", ()) == ():
        yield (
            (*path, "pins"),
            "missing; with verify: pins at least one is expected: the SHA-256 of a public key, in base64",
        )
    unnamed = next((server for server in servers if server.kind != "tcp"), None)
    if verify == "name" and "name" not in data and unnamed is not None:
        yield (*path, "name"), f"missing; {unnamed} has no name of its own that its certificate could show"


def _is_one_of(value: object, words: frozenset[str]) -> bool:
    return isinstance(value, str) and value in words
