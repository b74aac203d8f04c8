"""A route as its sessions see it: its TLS, its policy, its time-outs, its password."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from smtpproxy.session.outbound.policy import RemotePolicy
from smtpproxy.session.outbound.target import Credentials

if TYPE_CHECKING:
    from smtpproxy.config import Route

    from .remotetls import RemoteTls

_LONGEST_PASSWORD = 4096


class SecretError(OSError):
    """A password cannot be had; the text names the file or the variable."""


class RemoteRoute:
    """One route of the configuration, made ready; there is one object for each listener that uses it."""

    def __init__(self, settings: Route, tls: RemoteTls, hostname: str, credentials: Credentials | None) -> None:
        """``hostname``: what we call ourselves in EHLO."""
        self.settings = settings
        self.tls = tls
        self.hostname = hostname
        self.credentials = credentials
        self.policy = RemotePolicy(
            hostname=hostname.encode(),
            early=settings.early_pipelining,
            lockstep=settings.pace == "lockstep",
            flush_on_refusal=settings.flush_on == "any-error",
            refuse_downgrade=settings.tls.downgrade == "refuse",
        )
        timeouts = settings.timeouts
        self.waits = (
            timeouts.delivery,
            timeouts.greeting,
            timeouts.ehlo,
            timeouts.mail,
            timeouts.rcpt,
            timeouts.data,
            timeouts.data_block,
            timeouts.end_of_data,
            timeouts.other,
            timeouts.delivery,
            timeouts.tls_handshake,
            timeouts.tls_handshake,
        )
        """Seconds of each kind of wait, by its number (RFC 5321, 4.5.3.2)."""


def read_credentials(settings: Route) -> Credentials | None:
    """Read what a route logs in with. Raises SecretError."""
    wanted = settings.credentials
    if wanted is None:
        return None
    if wanted.password_file is not None:
        password = _from_file(wanted.password_file)
    else:
        password = os.environ.get(wanted.password_env or "", "")
        if not password:
            raise SecretError(f"the environment has no variable {wanted.password_env} with a password")
    return Credentials(wanted.user, password)


def _from_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST_PASSWORD + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise SecretError(f"the password in {path} cannot be read: {problem}") from problem
    password = text.removesuffix("\n").removesuffix("\r")
    if not password or len(text) > _LONGEST_PASSWORD or "\0" in password:
        raise SecretError(f"{path} has no password that could be used")
    return password
