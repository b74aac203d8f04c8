"""The configuration as one immutable object; ``etc/inbound.yaml`` explains every setting.

Attribute names are the keys of the YAML file. Durations are seconds (float), sizes octets (int), None means
unlimited or off. What concerns one setting is checked here, what concerns several parts of the file in
``checks``.
"""

import functools
import socket
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from smtpproxy.config.domains import is_hostname
from smtpproxy.config.fields import (
    Count,
    Domains,
    Duration,
    Endpoints,
    Extensions,
    Flag,
    Hostname,
    LogTarget,
    Name,
    NetworkSet,
    Servers,
    Size,
    SizeOrUnlimited,
    TimeOut,
    TimeOutOrOff,
    TimeOutOrUnlimited,
    word_off,
)
from smtpproxy.config.networks import ALL, Networks
from smtpproxy.config.section import Section
from smtpproxy.config.tls import BackendTls, ListenerTls

__all__ = [
    "Backend",
    "BackendTimeouts",
    "BareLineEndingsException",
    "Config",
    "EarlyPipelining",
    "Limits",
    "Listener",
    "ListenerTimeouts",
    "Log",
    "Reuse",
    "ServiceSettings",
    "Trusted",
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


class Trusted(Section):
    """Whose word about the client is taken: load balancers and proxies in front of us, by their own address."""

    proxy_protocol: NetworkSet = Networks()
    xclient: NetworkSet = Networks()


@functools.cache
def machine_name() -> str:
    """The machine's full name, or ``localhost`` if it has none that fits into a reply. Asked for once."""
    name = socket.getfqdn()
    return name if is_hostname(name) else "localhost"


class Listener(Section):
    """One place where clients arrive, and how they are served.

    ``recipient_domains``: every spelling in lower case, () for none listed, None for any (S14).
    """

    name: Name
    mode: Literal["inbound"] = "inbound"
    listen: Endpoints
    backend: Name
    recipient_domains: Domains = ()
    hostname: Hostname = Field(default_factory=machine_name)
    tls: ListenerTls = ListenerTls()
    auth: Literal["tls", "always", "never"] = "tls"
    proxy_protocol: Literal["off", "optional", "required"] = "off"
    trusted: Trusted = Trusted()
    trace_header: Flag = False
    early_pipelining: EarlyPipelining = EarlyPipelining()
    chunking: Flag = True
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
    bare_line_endings: BareLineEndings = "normalize"
    backend_immune: Flag = False
    bare_line_endings_exceptions: tuple[BareLineEndingsException, ...] = ()
    nul: Literal["reject", "pass"] = "reject"
    backlog: Count = 1024
    limits: Limits = Limits()
    timeouts: ListenerTimeouts = ListenerTimeouts()

    _word_off = field_validator("proxy_protocol", mode="before")(word_off)


class Reuse(Section):
    """Keeping backend sessions for the next client (off unless asked for)."""

    idle: TimeOut = 30.0
    uses: Count = 100
    sessions: Count = 50


class BackendTimeouts(Section):
    """How long a backend is waited for (RFC 5321, 4.5.3.2), in seconds."""

    connect: TimeOut = 10.0
    greeting: TimeOut = 300.0
    ehlo: TimeOut = 300.0
    mail: TimeOut = 300.0
    rcpt: TimeOut = 300.0
    data: TimeOut = 120.0
    data_block: TimeOut = 180.0
    end_of_data: TimeOut = 600.0
    other: TimeOut = 300.0
    tls_handshake: TimeOut = 30.0


class Backend(Section):
    """A mail server behind the proxy, on one or several addresses.

    ``identity``: how it learns who the client is; ``client_name``: what it is told as the client's name.
    """

    servers: Servers
    identity: Literal["auto", "xclient", "proxy-v1", "proxy-v2", "source-address", "xforward", "none"] = "auto"
    client_name: Literal["lookup", "unavailable"] = "lookup"
    tls: BackendTls = BackendTls()
    connect: Literal["eager", "lazy"] = "eager"
    pace: Literal["auto", "lockstep"] = "auto"
    reuse: Reuse | None = None
    rest: Duration = 30.0
    resolve: Duration = 60.0
    timeouts: BackendTimeouts = BackendTimeouts()

    @field_validator("reuse", mode="before")
    @classmethod
    def _switch_or_section(cls, value: Any) -> Any:  # noqa: ANN401  (a validator's input is of any type)
        """YAML reads ``off`` and ``on`` as truth values; ``on`` is the section with its defaults."""
        if value is False or value == "off":
            return None
        if value is True or value == "on":
            return {}
        if isinstance(value, (Reuse, dict)) or value is None:
            return value
        raise ValueError("off, on, or a section such as {idle: 30 s, uses: 100, sessions: 50} is expected")


class Log(Section):
    """Where the log goes, and how it looks."""

    format: Literal["json", "keyvalue"] = "json"
    to: LogTarget = "stderr"
    level: Literal["debug", "info", "warning", "error"] = "info"


class ServiceSettings(Section):
    """The process as a whole."""

    transport: Literal["lean", "stock"] = "lean"
    drain: Duration = 60.0


class Config(Section):
    """A whole configuration; each listener's ``backend`` is a key of ``backends``."""

    listeners: tuple[Listener, ...] = Field(min_length=1)
    backends: dict[Name, Backend] = Field(min_length=1)
    log: Log = Log()
    service: ServiceSettings = ServiceSettings()
