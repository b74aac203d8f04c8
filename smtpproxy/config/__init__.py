"""The configuration: a YAML file that becomes one immutable object, or a list of all its mistakes.

``load`` is the way in. ``model``, ``listeners``, ``outbound``, ``routes`` and ``tls`` say what there is to be set,
``fields``, ``outboundfields`` and ``tlsfields`` how each value is written, ``source`` reads YAML with line numbers,
``checks``, ``outboundchecks``, ``routechecks`` and ``tlschecks`` look across settings, ``messages`` finds the words.
"""

from smtpproxy.config.endpoint import Endpoint
from smtpproxy.config.listeners import (
    BareLineEndingsException,
    EarlyPipelining,
    InboundListener,
    Limits,
    Listener,
    ListenerBase,
    ListenerTimeouts,
    Trusted,
    TrustedProxies,
)
from smtpproxy.config.load import load
from smtpproxy.config.model import (
    AnyListener,
    Backend,
    BackendTimeouts,
    Config,
    Log,
    Reuse,
    ServiceSettings,
)
from smtpproxy.config.networks import Networks
from smtpproxy.config.outbound import Cache, Dns, MtaSts, OutboundLimits, OutboundListener, Speculate
from smtpproxy.config.problem import ConfigError, Problem
from smtpproxy.config.routes import Credentials, RemoteReuse, RemoteTimeouts, RemoteTls, Route, Source
from smtpproxy.config.tls import BackendTls, CertificatePair, ClientCertificates, ListenerTls, Protection

__all__ = [
    "AnyListener",
    "Backend",
    "BackendTimeouts",
    "BackendTls",
    "BareLineEndingsException",
    "Cache",
    "CertificatePair",
    "ClientCertificates",
    "Config",
    "ConfigError",
    "Credentials",
    "Dns",
    "EarlyPipelining",
    "Endpoint",
    "InboundListener",
    "Limits",
    "Listener",
    "ListenerBase",
    "ListenerTimeouts",
    "ListenerTls",
    "Log",
    "MtaSts",
    "Networks",
    "OutboundLimits",
    "OutboundListener",
    "Problem",
    "Protection",
    "RemoteReuse",
    "RemoteTimeouts",
    "RemoteTls",
    "Reuse",
    "Route",
    "ServiceSettings",
    "Source",
    "Speculate",
    "Trusted",
    "TrustedProxies",
    "load",
]
