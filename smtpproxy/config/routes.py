"""Routes: where mail to a domain goes, and how its servers are spoken to; ``etc/smarthost.yaml`` explains them."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from smtpproxy.config.fields import Count, Duration, Flag, TimeOut, switch
from smtpproxy.config.outboundfields import (
    SMTP_PORT,
    Mark,
    NextHops,
    RouteDomains,
    SourceIPv4,
    SourceIPv6,
    UserName,
    VariableName,
    word_on_off,
)
from smtpproxy.config.section import Section
from smtpproxy.config.tls import CertificatePair, Protection
from smtpproxy.config.tlsfields import CertificateFile, NameOrAddress, Pins, ServerName, TrustAnchors

__all__ = ["Credentials", "RemoteReuse", "RemoteTimeouts", "RemoteTls", "Route", "Source"]


class RemoteTls(Protection):
    """TLS towards remotes. ``dane`` and ``mta_sts`` count only where the MX records are looked up.

    ``pins``: SHA-256 of the SubjectPublicKeyInfo, base64; ``downgrade``: what becomes of mail where STARTTLS was
    offered before and is no more.
    """

    mode: Literal["none", "opportunistic", "required", "verified", "implicit"] = "opportunistic"
    dane: Flag = True
    mta_sts: Flag = True
    name: NameOrAddress | None = None
    sni: ServerName | None = None
    ca: TrustAnchors = "system"
    pins: Pins = ()
    certificate: CertificatePair | None = None
    downgrade: Literal["log", "refuse"] = "log"


class Credentials(Section):
    """Who we are for a remote that wants to know (C15). One of the two says where the password is; ``net`` reads it."""

    user: UserName
    password_file: CertificateFile | None = None
    password_env: VariableName | None = None


class RemoteReuse(Section):
    """Keeping sessions with remotes for the next message: seconds, transactions, sessions of the route."""

    idle: TimeOut = 30.0
    uses: Count = 100
    sessions: Count = 20


class Source(Section):
    """Which addresses of this machine connections come from; None: the system chooses."""

    ipv4: SourceIPv4 | None = None
    ipv6: SourceIPv6 | None = None


class RemoteTimeouts(Section):
    """How long a remote is waited for (RFC 5321, 4.5.3.2), in seconds.

    ``others_left``: for its greeting and EHLO reply, while there are other servers to try; ``others_done``: over LMTP,
    from the end of the message, if another destination has taken it; ``delivery``: all tries together, up to the one
    in which the message leaves.
    """

    connect: TimeOut = 30.0
    greeting: TimeOut = 300.0
    ehlo: TimeOut = 300.0
    mail: TimeOut = 300.0
    rcpt: TimeOut = 300.0
    data: TimeOut = 120.0
    data_block: TimeOut = 180.0
    end_of_data: TimeOut = 600.0
    other: TimeOut = 300.0
    tls_handshake: TimeOut = 30.0
    others_left: TimeOut = 60.0
    others_done: TimeOut = 300.0
    delivery: TimeOut = 240.0


class Route(Section):
    """Where mail to some domains goes. Exactly one of ``nexthops`` and ``lookup`` is set.

    ``domain``: every spelling in lower case, such as ``example.org``, ``.example.org`` (each name below it, not
    itself), ``*``. ``dsn``: whether its servers can be trusted to send delivery status notifications (RFC 3461).
    ``rest``: seconds for which an address that could not be reached, or was silent, is tried after all others;
    ``mark``: SO_MARK on our connections, None for none.
    """

    domain: RouteDomains
    nexthops: NextHops = ()
    lookup: Literal["mx"] | None = None
    port: int = Field(default=SMTP_PORT, ge=1, le=65535, strict=True)
    order: Literal["listed", "shuffle"] = "listed"
    addresses: Literal["any", "ipv4", "ipv6", "prefer-ipv4", "prefer-ipv6"] = "any"
    most_addresses: Count = 10
    rest: Duration = 60.0
    tls: RemoteTls = RemoteTls()
    credentials: Credentials | None = None
    early_pipelining: Flag = True
    pace: Literal["auto", "lockstep"] = "auto"
    fast_open: Literal["on", "off", "whole_message"] = "on"
    flush_on: Literal["any-error", "session-error"] = "any-error"
    dsn: Flag = False
    reuse: RemoteReuse | None = RemoteReuse()
    source: Source = Source()
    mark: Mark = None
    timeouts: RemoteTimeouts = RemoteTimeouts()

    _words = field_validator("fast_open", mode="before")(word_on_off)
    _switch = field_validator("reuse", mode="before")(switch("{idle: 30 s, uses: 100, sessions: 20}"))

    @model_validator(mode="before")
    @classmethod
    def _looked_up_if_not_listed(cls, data: Any) -> Any:  # noqa: ANN401  (a validator's input is of any type)
        """The MX records are asked for where no servers are listed."""
        if isinstance(data, dict) and "lookup" not in data and "nexthops" not in data:
            return data | {"lookup": "mx"}
        return data
