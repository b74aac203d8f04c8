"""What is demanded of the TLS with one remote: how it has to prove who it is, and which rule says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from .tlspolicy import WISHES

if TYPE_CHECKING:
    from smtpproxy.config import RemoteTls as Settings
    from smtpproxy.session.outbound.target import TlsWish

    from .dane import Tlsa

__all__ = ["Policy", "Proof", "Security", "is_proved_by_route", "security_by_route"]

Proof = Literal["nothing", "pkix", "pins", "dane"]
"""How a remote proves who it is: not at all; by an authority and its name; by its public key; by TLSA records."""

Policy = Literal["route", "dane", "mta-sts"]
"""Whose rule it is: the configuration's, or that of the domain which the mail is for."""


@dataclass(frozen=True, slots=True)
class Security:
    """Immutable. Two are equal if they demand the same; then sessions of one may be resumed under the other."""

    wish: TlsWish
    proof: Proof = "nothing"
    names: tuple[str, ...] = ()
    """What the certificate may be for: host names or addresses. Without a proof they are only for the log."""
    tlsa: tuple[Tlsa, ...] = ()
    """The usable TLSA records, where they are the proof."""
    sni: str = ""
    """The name that the server is asked for; empty: none."""
    policy: Policy = field(default="route", compare=False)
    note: str = field(default="", compare=False)
    """More for the log, such as what MTA-STS would have forbidden if it were not in mode testing."""

    @property
    def key(self) -> Security:
        """What makes a session another one (rule C15): all that it demands."""
        return self


def is_proved_by_route(settings: Settings) -> bool:
    """Whether the configuration itself says who the remotes of a route must be, so that nobody else is asked."""
    return WISHES[settings.mode].verifies and bool(settings.pins or settings.name or settings.ca != "system")


@lru_cache(1024)
def security_by_route(settings: Settings, host: str) -> Security:
    """Give what a route demands of a remote, with DANE and MTA-STS left out.

    ``host``: the MX host or nexthop, a name or an address.
    """
    wish = WISHES[settings.mode]
    name = settings.name or host.removesuffix(".")
    sni = settings.sni or name
    if not wish.verifies:
        return Security(wish, names=(name,), sni=sni)
    return Security(wish, "pins" if settings.pins else "pkix", (name,), sni=sni)
