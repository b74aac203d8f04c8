"""The configuration: a YAML file that becomes one immutable object, or a list of all its mistakes.

``load`` is the way in. ``model`` and ``tls`` say what there is to be set, ``fields`` and ``tlsfields`` how
each value is written, ``source`` reads YAML with line numbers, ``checks`` and ``tlschecks`` look across
settings, ``messages`` finds the words.
"""

from smtpproxy.config.endpoint import Endpoint
from smtpproxy.config.load import load
from smtpproxy.config.model import (
    Backend,
    BackendTimeouts,
    BareLineEndingsException,
    Config,
    EarlyPipelining,
    Limits,
    Listener,
    ListenerTimeouts,
    Log,
    Reuse,
    ServiceSettings,
    Trusted,
)
from smtpproxy.config.networks import Networks
from smtpproxy.config.problem import ConfigError, Problem
from smtpproxy.config.tls import BackendTls, CertificatePair, ClientCertificates, ListenerTls, Protection

__all__ = [
    "Backend",
    "BackendTimeouts",
    "BackendTls",
    "BareLineEndingsException",
    "CertificatePair",
    "ClientCertificates",
    "Config",
    "ConfigError",
    "EarlyPipelining",
    "Endpoint",
    "Limits",
    "Listener",
    "ListenerTimeouts",
    "ListenerTls",
    "Log",
    "Networks",
    "Problem",
    "Protection",
    "Reuse",
    "ServiceSettings",
    "Trusted",
    "load",
]
