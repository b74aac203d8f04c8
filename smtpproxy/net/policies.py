"""From the configuration to what sessions go by: policies for clear text and for TLS, time-outs by their kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.session.policy import BackendTls, Limits, RelayPolicy
from smtpproxy.smtp.extensions import ExtensionPolicy
from smtpproxy.smtp.xclient import ATTRIBUTES

if TYPE_CHECKING:
    from smtpproxy.config import Backend, Listener
    from smtpproxy.config.listeners import Limits as LimitSettings

CONNECTION_BOUND: Final = frozenset({"proxy-v1", "proxy-v2", "source-address"})
"""Identities that belong to a connection with a server, so that it can serve no other client (rule S18)."""
_STARTTLS: Final = frozenset({"starttls", "starttls-required"})
_BACKEND_TLS: Final = {"starttls": BackendTls.IF_OFFERED, "starttls-required": BackendTls.REQUIRED}


def relay_policy(
    settings: Listener, backend: Backend, *, secure: bool, trusted: bool, with_address: bool = True
) -> RelayPolicy:
    """Give how sessions behave: ``secure`` inside TLS, ``trusted`` for those who may say XCLIENT (rule H6).

    ``with_address``: for clients that have one, which those of a Unix socket have not.
    """
    limits, mode = settings.limits, settings.tls.mode
    starttls = mode in _STARTTLS and not secure
    required = mode == "starttls-required" and not secure
    auth = secure if settings.auth == "tls" else settings.auth == "always" and not required
    introduces = backend.identity in ("auto", "xclient")
    listed, fallback = _domains(settings, backend, with_address=with_address)
    return RelayPolicy(
        hostname=hostname(settings),
        limits=limits_of(limits),
        extensions=ExtensionPolicy(
            settings.extensions,
            settings.early_pipelining.keywords,
            chunking=settings.chunking,
            message_size=limits.message_size,
            recipients=limits.recipients,
            auth=auth,
            also=[
                *([b"STARTTLS"] if starttls else []),
                *([b"XCLIENT " + b" ".join(ATTRIBUTES)] if trusted else []),
            ],
        ),
        chunking=settings.chunking,
        recipient_domains=listed,
        eager=backend.connect == "eager",
        reuse=backend.reuse is not None,
        lockstep=backend.pace == "lockstep",
        secure=secure,
        starttls=starttls,
        starttls_required=required,
        auth=auth,
        auth_inside=starttls and settings.auth != "never",
        trusts_xclient=trusted,
        backend_tls=_BACKEND_TLS.get(backend.tls.mode, BackendTls.NONE),
        introduces=introduces,
        introduction_required=backend.identity == "xclient" or (introduces and settings.recipient_domains == ()),
        fallback_domains=fallback,
        forwards=backend.identity == "xforward",
    )


def _domains(
    settings: Listener, backend: Backend, *, with_address: bool
) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    """Give the domains that are in force always, and those in force where the backend was not told (rule S14)."""
    domains = None if settings.recipient_domains is None else frozenset(settings.recipient_domains)
    if backend.identity == "auto":
        return None, domains
    # The ends of a connection tell nothing of a client without an address.
    learns = backend.identity == "xclient" or (backend.identity in CONNECTION_BOUND and with_address)
    return (None if learns and not domains else domains), None


def limits_of(limits: LimitSettings) -> Limits:
    """Give the bounds of one session of a listener, of either kind."""
    return Limits(
        limits.line,
        limits.auth_line,
        limits.burst_commands,
        limits.burst_octets,
        limits.recipients,
        limits.message_size,
        limits.errors,
    )


def hostname(settings: Listener) -> bytes:
    """Give the name that we go by in replies of our own."""
    return settings.hostname.encode()


def waits(settings: Listener, backend: Backend) -> tuple[float, ...]:
    """Give the seconds of each kind of wait, by its number (RFC 5321, 4.5.3.2)."""
    client, server = settings.timeouts, backend.timeouts
    return (
        0.0,
        server.greeting,
        server.ehlo,
        server.mail,
        server.rcpt,
        server.data,
        client.data_block,
        server.end_of_data,
        server.other,
        client.command,
        client.tls_handshake,
        server.tls_handshake,
    )
