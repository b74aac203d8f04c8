"""Listeners: where clients arrive, and how they are treated; what all have in common, and the inbound one.

The outbound one is in ``outbound``.
"""

import functools
import socket
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from smtpproxy.config.domains import is_hostname
from smtpproxy.config.fields import (
    Count,
    Domains,
    Endpoints,
    Extensions,
    Flag,
    Hostname,
    Name,
    NetworkSet,
    QueueLength,
    Size,
    SizeOrUnlimited,
    TimeOut,
    TimeOutOrOff,
    TimeOutOrUnlimited,
    word_off,
)
from smtpproxy.config.networks import ALL, Networks
from smtpproxy.config.section import Section
from smtpproxy.config.tls import ListenerTls

__all__ = [
    "BareLineEndingsException",
    "EarlyPipelining",
    "InboundListener",
    "Limits",
    "Listener",
    "ListenerBase",
    "ListenerTimeouts",
    "Trusted",
    "TrustedProxies",
    "machine_name",
]

KIB = 1024

BareLineEndings = Literal["normalize", "reject", "pass"]


class EarlyPipelining(Section):
    """To whom early pipelining is offered, and what becomes of others who talk early (S1, S2).

    ``advertise_to_tls`` counts inside TLS; None: the same networks as ``advertise_to``.
    """

    advertise_to: NetworkSet = Networks([ALL])
    advertise_to_tls: NetworkSet | None = None
    keywords: tuple[Literal["PIPECONNECT", "PIPE_CONNECT", "X_PIPE_CONNECT"], ...] = Field(
        default=("PIPECONNECT", "PIPE_CONNECT"), min_length=1
    )
    unlicensed: Literal["accept", "tempfail", "reject"] = "accept"
    prior_offer: TimeOutOrOff = None


class BareLineEndingsException(Section):
    """Another policy for bare line endings for some clients (S11)."""

    networks: NetworkSet
    policy: BareLineEndings


class Limits(Section):
    """What one client, and all of them together, may take."""

    line: int = Field(default=4096, ge=512, strict=True)
    auth_line: int = Field(default=12288, ge=512, strict=True)
    burst_commands: Count = 1000
    burst_octets: Size = 256 * KIB
    recipients: Count = 1000
    message_size: SizeOrUnlimited = None
    errors: Count = 20
    sessions: Count = 10000
    sessions_per_client: Count = 50
    client_prefix_ipv4: int = Field(default=32, ge=1, le=32, strict=True)
    client_prefix_ipv6: int = Field(default=64, ge=1, le=128, strict=True)
    minimum_progress: Size = 4 * KIB

    @model_validator(mode="after")
    def _a_burst_holds_a_line(self) -> Self:
        """Otherwise a legal line could never be read to its end."""
        if self.burst_octets < max(self.line, self.auth_line):
            raise ValueError("burst_octets must be at least as much as line and as auth_line")
        return self


class ListenerTimeouts(Section):
    """How long a client is waited for (RFC 5321, 4.5.3.2), in seconds."""

    command: TimeOut = 300.0
    data_block: TimeOut = 180.0
    minimum_progress: TimeOut = 60.0
    write: TimeOut = 300.0
    session: TimeOutOrUnlimited = 14400.0
    close: TimeOut = 5.0
    tls_handshake: TimeOut = 30.0
    proxy_header: TimeOut = 5.0


class TrustedProxies(Section):
    """Whose word about the client is taken: load balancers in front of us, by their own address."""

    proxy_protocol: NetworkSet = Networks()


class Trusted(TrustedProxies):
    """The same for an inbound listener, which takes XCLIENT too."""

    xclient: NetworkSet = Networks()


@functools.cache
def machine_name() -> str:
    """The machine's full name, or ``localhost`` if it has none that fits into a reply. Asked for once."""
    name = socket.getfqdn()
    return name if is_hostname(name) else "localhost"


class ListenerBase(Section):
    """What there is to set, whatever becomes of the mail; ``fast_open`` is a queue's length, 0 for off (RFC 7413)."""

    name: Name
    mode: Literal["inbound", "outbound"] = "inbound"
    listen: Endpoints
    hostname: Hostname = Field(default_factory=machine_name)
    tls: ListenerTls = ListenerTls()
    proxy_protocol: Literal["off", "optional", "required"] = "off"
    trusted: TrustedProxies = TrustedProxies()
    trace_header: Flag = False
    early_pipelining: EarlyPipelining = EarlyPipelining()
    chunking: Flag = True
    bare_line_endings: BareLineEndings = "normalize"
    bare_line_endings_exceptions: tuple[BareLineEndingsException, ...] = ()
    nul: Literal["reject", "pass"] = "reject"
    backlog: Count = 1024
    fast_open: QueueLength = 256
    limits: Limits = Limits()
    timeouts: ListenerTimeouts = ListenerTimeouts()

    _word_off = field_validator("proxy_protocol", mode="before")(word_off)


class Listener(ListenerBase):
    """One place where the clients of a mail server of ours arrive, and how they are served.

    ``recipient_domains``: every spelling in lower case, () for none listed, None for any (S14).
    """

    mode: Literal["inbound"] = "inbound"
    backend: Name
    recipient_domains: Domains = ()
    auth: Literal["tls", "always", "never"] = "tls"
    trusted: Trusted = Trusted()
    extensions: Extensions = (
        "SIZE",
        "8BITMIME",
        "SMTPUTF8",
        "DSN",
        "ENHANCEDSTATUSCODES",
        "DELIVERBY",
        "LIMITS",
        "MT-PRIORITY",
        "VRFY",
        "EXPN",
        "HELP",
        "ETRN",
        "AUTH",
        "BINARYMIME",
    )
    backend_immune: Flag = False


InboundListener = Listener
