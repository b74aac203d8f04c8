"""The configuration: a YAML file that becomes one immutable object, or a list of all its mistakes.

``load`` is the way in. ``model`` says what there is to be set, ``fields`` how each value is written,
``source`` reads YAML with line numbers, ``checks`` looks across settings, ``messages`` finds the words.
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
)
from smtpproxy.config.networks import Networks
from smtpproxy.config.problem import ConfigError, Problem

__all__ = [
    "Backend",
    "BackendTimeouts",
    "BareLineEndingsException",
    "Config",
    "ConfigError",
    "EarlyPipelining",
    "Endpoint",
    "Limits",
    "Listener",
    "ListenerTimeouts",
    "Log",
    "Networks",
    "Problem",
    "Reuse",
    "ServiceSettings",
    "load",
]
