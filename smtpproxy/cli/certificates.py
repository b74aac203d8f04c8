"""The certificates of a configuration: one line for each, and what is wrong with them.

They are read and tried as the service does it. What is only prepared, with ``mode: none``, is left out.
"""

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from OpenSSL import SSL

from smtpproxy.config import CertificatePair, Config, Protection
from smtpproxy.net.certificates import (
    EXPIRY_WARNING,
    Authorities,
    Pair,
    TlsError,
    days_left,
    read_authorities,
    read_pair,
)
from smtpproxy.net.tlsprofiles import make_context

__all__ = ["check"]


class _Owner(NamedTuple):
    """Who uses which files, in which role."""

    name: str
    method: int
    settings: Protection
    pairs: Sequence[CertificatePair]
    authorities: Path | None


def check(config: Config, now: datetime) -> int:
    """Print a line for each certificate; ``now`` has a time zone.

    What cannot be used is said on standard error, and makes the exit status 1; a certificate with less than 14
    days left, or none, is only warned about there. Else the status is 0.
    """
    status = 0
    for owner in _owners(config):
        for found in _examine(owner):
            if isinstance(found, TlsError):
                print(f"{owner.name}: {_clean(str(found))}", file=sys.stderr)
                status = 1
                continue
            print(f"{owner.name}: {_clean(_line(found, now))}")
            warning = _warning(found, now)
            if warning:
                print(f"warning: {owner.name}: {found.path}: {warning}", file=sys.stderr)
    return status


def _owners(config: Config) -> Iterator[_Owner]:
    for listener in config.listeners:
        server = listener.tls
        if server.mode != "none":
            clients = server.client_certificates
            authorities = None if clients.mode == "off" else clients.ca
            name = f"listener {listener.name}"
            yield _Owner(name, SSL.TLS_SERVER_METHOD, server, server.certificates, authorities)
    for backend_name, backend in config.backends.items():
        client = backend.tls
        if client.mode != "none":
            pairs = [] if client.certificate is None else [client.certificate]
            verified = client.verify in {"ca", "name"}
            authorities = client.ca if verified and isinstance(client.ca, Path) else None
            yield _Owner(f"backend {backend_name}", SSL.TLS_CLIENT_METHOD, client, pairs, authorities)


def _examine(owner: _Owner) -> Iterator[Pair | Authorities | TlsError]:
    """Each thing that an owner uses, or why it cannot be used."""
    try:
        make_context(owner.method, owner.settings)
    except TlsError as error:
        yield error
        return
    for files in owner.pairs:
        try:
            pair = read_pair(files.cert, files.key)
            pair.install(make_context(owner.method, owner.settings))
            yield pair
        except TlsError as error:
            yield error
    if owner.authorities is not None:
        try:
            yield read_authorities(owner.authorities)
        except TlsError as error:
            yield error


def _line(found: Pair | Authorities, now: datetime) -> str:
    names = ", ".join(found.names) or "no names"
    what = f"{found.key_type}, issued by {found.issuer}" if isinstance(found, Pair) else "authorities"
    return f"{found.path}: {names}; {what}; ends {found.not_after:%Y-%m-%d}, {_days(found, now)}"


def _days(found: Pair | Authorities, now: datetime) -> str:
    days = days_left(found.not_after, now)
    return "has ended" if days < 0 else f"{days} day{'' if days == 1 else 's'} left"


def _warning(found: Pair | Authorities, now: datetime) -> str:
    """What to say of its dates; "" if there is nothing to say."""
    if isinstance(found, Pair) and found.not_before > now:
        return f"begins only on {found.not_before:%Y-%m-%d}"
    return _days(found, now) if days_left(found.not_after, now) < EXPIRY_WARNING else ""


def _clean(text: str) -> str:
    """A certificate says what its maker wanted; a terminal need not do what it says."""
    return "".join(character if character.isprintable() else "?" for character in text)
