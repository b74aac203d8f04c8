"""What concerns mail to the world, but for the routes: its listeners, what is remembered of remotes, names, policies.

``etc/smarthost.yaml`` explains every setting.
"""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from smtpproxy.config.fields import Count, Duration, NetworkSet, Size, TimeOut, switch, word_off
from smtpproxy.config.listeners import KIB, Limits, ListenerBase
from smtpproxy.config.networks import Networks
from smtpproxy.config.outboundfields import (
    Addresses,
    DnsServers,
    DurationOrOff,
    Mark,
    StoreAddress,
    VariableName,
    word_yes_no,
)
from smtpproxy.config.section import Section
from smtpproxy.config.tlsfields import TrustAnchors

__all__ = ["TRANSPARENT_MARK", "Cache", "Dns", "MtaSts", "OutboundLimits", "OutboundListener", "Speculate"]

TRANSPARENT_MARK = 25
"""What our own connections for a transparent listener are marked with, unless the file says otherwise."""

_MOST_CONFIRMED = 1000


class Speculate(Section):
    """When a message goes into the first flight (C8, C13).

    ``size``: of the largest such message; ``confirmed``: how many times a remote must have been found unchanged;
    ``patience``: how long more of the client's burst is waited for.
    """

    size: Size = 256 * KIB
    confirmed: int = Field(default=2, ge=0, le=_MOST_CONFIRMED, strict=True)
    patience: Duration = 0.05


class OutboundLimits(Limits):
    """The same as for any listener; but one client, our mail server, may well be all there is.

    ``destinations``: of one transaction by LMTP; each has a connection of its own.
    """

    sessions_per_client: Count = 1000
    destinations: Count = 100


class OutboundListener(ListenerBase):
    """One place where a mail server of ours hands over its mail to the world.

    ``own_addresses``: those under which the world reaches this machine though no interface of it has them (NAT).
    ``relay_from``: who may; the clients of a Unix socket may always. ``transparent``: how connections get here that
    the client meant for somebody else. ``mark``: SO_MARK on our own connections for it, None for none.
    """

    mode: Literal["outbound"] = "outbound"
    protocol: Literal["smtp", "lmtp"] = "smtp"
    own_addresses: Addresses = ()
    relay_from: NetworkSet = Networks(["127.0.0.0/8", "::1"])
    transparent: Literal["off", "redirect", "tproxy"] = "off"
    mark: Mark = None
    speculate: Speculate | None = Speculate()
    limits: OutboundLimits = OutboundLimits()

    _word_transparent = field_validator("transparent", mode="before")(word_off)
    _switch = field_validator("speculate", mode="before")(
        switch("{size: 256 KiB, confirmed: 2, patience: 50 ms}"),
    )

    @model_validator(mode="before")
    @classmethod
    def _marked_if_transparent(cls, data: Any) -> Any:  # noqa: ANN401  (a validator's input is of any type)
        """Otherwise the kernel would redirect our own connections to us."""
        if isinstance(data, dict) and "mark" not in data and data.get("transparent") in ("redirect", "tproxy"):
            return data | {"mark": TRANSPARENT_MARK}
        return data


class Cache(Section):
    """What is remembered of remotes' EHLO replies, where, and how long (C1, C5, C6).

    ``hold_back``: seconds, 0 for off; ``password_env``: the environment variable with Redis's password.
    """

    store: StoreAddress = "sqlite:/var/lib/smtpproxy/cache.db"
    ttl: TimeOut = 86400.0
    entries: Count = 100_000
    hold_back: DurationOrOff = 3600.0
    hold_back_most: TimeOut = 86400.0
    password_env: VariableName | None = None

    @model_validator(mode="after")
    def _most_is_more(self) -> Self:
        """It doubles from one to the other."""
        if self.hold_back_most < self.hold_back:
            raise ValueError("hold_back_most must be at least as much as hold_back")
        return self


class Dns(Section):
    """Whom names are asked of, how long, and what is remembered.

    ``timeout`` is for one try, ``lifetime`` for all tries of one question; ``trust_ad``: whether a resolver's word
    that an answer is secure is believed (RFC 6698, RFC 7672, 2.2).
    """

    servers: DnsServers = "system"
    timeout: TimeOut = 5.0
    lifetime: TimeOut = 20.0
    entries: Count = 10_000
    ttl_most: TimeOut = 86400.0
    ttl_negative_most: TimeOut = 900.0
    trust_ad: Literal["auto", "yes", "no"] = "auto"

    _words = field_validator("trust_ad", mode="before")(word_yes_no)

    @model_validator(mode="after")
    def _a_life_holds_a_try(self) -> Self:
        """Otherwise no try could last as long as it may."""
        if self.lifetime < self.timeout:
            raise ValueError("lifetime must be at least as much as timeout")
        return self


class MtaSts(Section):
    """How policies of MTA-STS (RFC 8461) are fetched, and how many are remembered."""

    timeout: TimeOut = 10.0
    entries: Count = 10_000
    ca: TrustAnchors = "system"
