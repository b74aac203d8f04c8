"""The configuration as one immutable object; ``etc/inbound.yaml`` and ``etc/smarthost.yaml`` explain every setting.

Attribute names are the keys of the YAML file. Durations are seconds (float), sizes octets (int), None means
unlimited or off. What concerns one setting is checked here and in the modules that have parts of the model,
what concerns several parts of the file in ``checks``.
"""

from typing import Annotated, Final, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from smtpproxy.config.fields import Count, Duration, LogTarget, Name, Servers, TimeOut, switch
from smtpproxy.config.listeners import Listener
from smtpproxy.config.outbound import Cache, Dns, MtaSts, OutboundListener
from smtpproxy.config.routes import Route
from smtpproxy.config.section import Section
from smtpproxy.config.tls import BackendTls

__all__ = ["MODE_TAGS", "AnyListener", "Backend", "BackendTimeouts", "Config", "Log", "Reuse", "ServiceSettings"]

MODE_TAGS: Final = {"inbound": "(inbound)", "outbound": "(outbound)"}
"""What pydantic calls the kinds of listeners in the path of a mistake; no key of a file looks like that."""


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

    _switch = field_validator("reuse", mode="before")(switch("{idle: 30 s, uses: 100, sessions: 50}"))


class Log(Section):
    """Where the log goes, and how it looks."""

    format: Literal["json", "keyvalue"] = "json"
    to: LogTarget = "stderr"
    level: Literal["debug", "info", "warning", "error"] = "info"


class ServiceSettings(Section):
    """The process as a whole."""

    transport: Literal["lean", "stock"] = "lean"
    drain: Duration = 60.0


def _mode(data: object) -> str | None:
    """Tell which kind of listener is meant: the tag of its model, None where the word says neither."""
    mode = data.get("mode", "inbound") if isinstance(data, dict) else getattr(data, "mode", "inbound")
    return MODE_TAGS.get(mode) if isinstance(mode, str) else None


AnyListener = Annotated[
    Annotated[Listener, Tag(MODE_TAGS["inbound"])] | Annotated[OutboundListener, Tag(MODE_TAGS["outbound"])],
    Discriminator(_mode),
]


class Config(Section):
    """A whole configuration; the ``backend`` of each inbound listener is a key of ``backends``."""

    listeners: tuple[AnyListener, ...] = Field(min_length=1)
    backends: dict[Name, Backend] = Field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    cache: Cache = Cache()
    dns: Dns = Dns()
    mta_sts: MtaSts = MtaSts()
    log: Log = Log()
    service: ServiceSettings = ServiceSettings()

    @property
    def inbound(self) -> tuple[Listener, ...]:
        """The listeners in front of mail servers of ours, in the file's order."""
        return tuple(listener for listener in self.listeners if isinstance(listener, Listener))

    @property
    def outbound(self) -> tuple[OutboundListener, ...]:
        """The listeners for mail to the world, in the file's order."""
        return tuple(listener for listener in self.listeners if isinstance(listener, OutboundListener))
