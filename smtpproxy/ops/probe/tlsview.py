"""TLS with a server that is probed: a handshake that goes on whoever it is, and what is to be seen then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from smtpproxy.config import MtaSts
from smtpproxy.config import RemoteTls as Settings
from smtpproxy.net.certificates import days_left
from smtpproxy.net.dane import objection
from smtpproxy.net.danelookup import TlsaFound
from smtpproxy.net.remotetls import RemoteTls
from smtpproxy.net.resolver import Resolver
from smtpproxy.net.security import Security
from smtpproxy.net.servernames import misnamed_all
from smtpproxy.net.stsfetch import HttpsTls, PolicyFetcher, agent
from smtpproxy.net.tlsfacts import facts_of
from smtpproxy.ops.probe.facts import Certificate, Dane, Tls
from smtpproxy.session.outbound.target import Target, TlsWish

__all__ = ["TlsView", "dane_of", "policy_fetcher"]

_MOST_NAMES: Final = 100
_UNREADABLE: Final = "(cannot be read)"


class TlsView:
    """Connections with servers, and what their handshakes show."""

    def __init__(self, settings: Settings, now: Callable[[], datetime]) -> None:
        """``settings``: which authorities are believed, versions, ciphers; the mode does not count.

        Raises TlsError if a file cannot be used.
        """
        self._tls = RemoteTls(settings, "probe", _Silence(), now)
        self._now = now

    def connection(self, host: str, address: str, port: int, tlsa: TlsaFound) -> SSL.Connection:
        """Give a new connection, which asks for the name under which DANE was found, if it was."""
        security = Security(TlsWish.OPPORTUNISTIC, "nothing", (host,), sni=tlsa.base if tlsa.records else host)
        return self._tls.connection(Target(host, address, port, security=security))

    def facts(self, connection: SSL.Connection, host: str) -> Tls:
        """Tell what a handshake has come to."""
        facts = facts_of(connection)
        certificate = connection.get_peer_certificate(as_cryptography=True)
        judged: Any = connection.get_app_data()
        if certificate is None:
            return Tls(facts.version, facts.cipher, facts.servername, None, "the server shows no certificate", "")
        return Tls(
            facts.version,
            facts.cipher,
            facts.servername,
            _certificate(certificate, self._now()),
            judged.chain_error,
            misnamed_all(certificate, (host,)),
        )

    def dane(self, connection: SSL.Connection, tlsa: TlsaFound, names: Sequence[str]) -> str:
        """Say why the server is not the one of the usable TLSA records; "" if it is (RFC 7672)."""
        chain = connection.get_peer_cert_chain(as_cryptography=True) or []
        return objection(chain, tlsa.records, names, self._now())


def dane_of(tlsa: TlsaFound, *, asked: bool, secure: bool) -> Dane:
    """Give what DNS says, before a certificate was seen.

    ``asked``: whether DANE counts for this host; ``secure``: whether there was a name to ask for.
    """
    if not asked:
        return Dane("not asked")
    if not secure:
        return Dane("insecure")
    records = tuple(f"{each.usage} {each.selector} {each.matching} {each.data.hex()}" for each in tlsa.records)
    return Dane(tlsa.status, tlsa.base, records, tlsa.why)


def _certificate(certificate: x509.Certificate, now: datetime) -> Certificate:
    """Read a certificate; what cannot be read is said to be so: OpenSSL understands more than cryptography does."""
    end = certificate.not_valid_after_utc
    return Certificate(
        _read(certificate.subject.rfc4514_string),
        _names(certificate),
        _read(certificate.issuer.rfc4514_string),
        certificate.not_valid_before_utc.isoformat(),
        end.isoformat(),
        days_left(end, now),
        certificate.fingerprint(hashes.SHA256()).hex(),
    )


def _read(read: Callable[[], str]) -> str:
    try:
        return read()
    except ValueError:
        return _UNREADABLE


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except ValueError:
        return (_UNREADABLE,)
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)[:_MOST_NAMES]


def policy_fetcher(
    reactor: Any,  # noqa: ANN401  # IReactorTCP, IReactorTime
    resolver: Resolver,
    settings: MtaSts,
    now: Callable[[], datetime],
) -> PolicyFetcher:
    """Give what fetches policies of MTA-STS by HTTPS.  Raises TlsError."""
    tls = HttpsTls(settings, _Silence(), now)
    return PolicyFetcher(agent(reactor, resolver, tls, settings.timeout), reactor, settings.timeout)


class _Silence:
    """Wants to know nothing of certificate files (a TlsReport): they are read once."""

    def certificate_loaded(self, owner: str, cert_path: str, names: Sequence[str], not_after: datetime) -> None:
        """Say nothing."""

    def certificate_refused(self, owner: str, cert_path: str, why: str) -> None:
        """Say nothing."""

    def certificate_expires(self, owner: str, cert_path: str, not_after: datetime, days: int) -> None:
        """Say nothing."""

    def tls_profile_old(self, owner: str) -> None:
        """Say nothing."""
