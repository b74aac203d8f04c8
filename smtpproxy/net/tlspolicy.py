"""Between the routes and TLS: which hosts of a destination may be used, and what each has to prove.

The router finds hosts and their addresses; somebody who knows DANE (RFC 7672) and MTA-STS (RFC 8461) then decides on
them.  Here is what they tell each other, and the policy of routes that have neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from smtpproxy.session.outbound.target import TlsWish, Unroutable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from smtpproxy.config import Route

WISHES: Final = {
    "none": TlsWish.NONE,
    "opportunistic": TlsWish.OPPORTUNISTIC,
    "required": TlsWish.REQUIRED,
    "verified": TlsWish.VERIFIED,
    "implicit": TlsWish.IMPLICIT,
}
"""What the words of ``tls.mode`` mean."""


class MxHost:
    """One host that takes mail for a destination, with its addresses."""

    __slots__ = (
        "addresses",
        "alias_secure",
        "canonical",
        "domain",
        "expanded",
        "mx_secure",
        "name",
        "port",
        "preference",
        "secure",
        "source",
    )

    def __init__(
        self,
        name: str,
        port: int,
        *,
        preference: int = 0,
        source: Literal["mx", "implicit", "nexthop", "literal"] = "mx",
        mx_secure: bool = False,
        domain: str = "",
        expanded: str = "",
    ) -> None:
        """``name``: an A-label in lower case, without final dot, or an address as text where there is no name.

        ``preference``: that of the MX record, or the place in the list of nexthops.  ``mx_secure``: that it is this
        host was vouched for by DNSSEC (or is written in the configuration or in the recipient's address).  ``domain``:
        what was routed, "" for nexthops; ``expanded``: the same behind its CNAMEs, if those were secure (RFC 7672,
        3.2.2).
        """
        self.name = name
        self.port = port
        self.preference = preference
        self.source = source
        self.mx_secure = mx_secure
        self.domain = domain
        self.expanded = expanded or domain
        self.addresses: tuple[str, ...] = ()
        """As text, in the order in which they are to be tried; filled in when they are known."""
        self.secure = False
        """Whether DNSSEC vouches for every answer about the addresses, CNAMEs included."""
        self.canonical = name
        """The name behind the CNAMEs."""
        self.alias_secure = False
        """Where the whole is not secure and there are CNAMEs: whether the first of them is (RFC 7672, 2.2.2)."""

    def __repr__(self) -> str:
        return f"MxHost({self.name}, {self.port}, {self.preference}, {self.addresses})"


Decision: TypeAlias = tuple[MxHost, TlsWish, Any]
"""A host, what is wanted of TLS with it, and what the connection needs to know of that (None: the route says all).

The last is the owner's: here only its attribute ``key`` counts, which must be hashable.
"""


class TlsPolicy(Protocol):
    """Decides on the hosts of a destination."""

    def prepare(self, route: Route, domain: str) -> None:
        """Begin to ask for what does not depend on the hosts of a domain (an A-label), while these are looked for."""

    def decide(
        self,
        route: Route,
        domain: str,
        hosts: Sequence[MxHost],
        found: Callable[[list[Decision] | Unroutable], None],
    ) -> None:
        """Say what TLS has to be with each host; leave out those that may not be used, keep the order of the others.

        ``domain``: an A-label, "" for nexthops, ``[192.0.2.1]`` for literals; ``hosts``: at least one, each with
        addresses.  ``found`` is called exactly once, in the reactor's thread, perhaps before this method returns, with
        at least one host or the reason why there is none.
        """


def unroutable(status: bytes, text: str) -> Unroutable:
    """Make an Unroutable: ``status``: reply code and enhanced status code; ``text``: ASCII, for reply and log alike."""
    return Unroutable(b"%s %s\r\n" % (status, text.encode("ascii")), text)
