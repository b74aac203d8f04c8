"""TLS towards a backend: who it must be, and sessions to resume.

The chain of its certificates is verified in the handshake (``verify: ca`` and ``name``), its name or its public
key after it, by ``judge``. One context serves all connections with the backend, because a session may only be
resumed in the context that it comes from; so it is never resumed under another policy, name or CA.
"""

import base64
import hashlib
import ipaddress
from collections.abc import Callable
from datetime import datetime
from typing import Final

import service_identity
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from smtpproxy.config import BackendTls
from smtpproxy.net.certificates import Authorities, Pair, read_authorities, read_pair
from smtpproxy.net.tlsfiles import InUse, TlsReport
from smtpproxy.net.tlsprofiles import is_old, make_context

__all__ = ["MOST_SESSIONS", "ClientTls", "spki_pin"]

MOST_SESSIONS: Final = 1000
"""Hosts of one backend whose last session is remembered."""


class ClientTls:
    """TLS as it is spoken with one backend."""

    def __init__(self, settings: BackendTls, owner: str, report: TlsReport, now: Callable[[], datetime]) -> None:
        """Read every file; ``now`` gives the time with its zone. Raises TlsError if something cannot be used."""
        self._settings = settings
        self._now = now
        self._sessions: dict[str, SSL.Session] = {}
        self._files: list[InUse[Pair] | InUse[Authorities]] = []
        self._context = make_context(SSL.TLS_CLIENT_METHOD, settings)
        if settings.verify in {"ca", "name"}:
            self._context.set_verify(SSL.VERIFY_PEER)
            self._trust(owner, report)
        if settings.certificate is not None:
            files = settings.certificate
            paths = (files.cert, files.key)
            pair = InUse(paths, lambda: read_pair(files.cert, files.key), None, owner, report)
            pair.value.install(self._context)
            self._files.append(pair)
        if is_old(settings):
            report.tls_profile_old(owner)

    def connection(self, host: str) -> SSL.Connection:
        """Give a new connection on memory BIOs, as a client.

        ``host`` is the server's name or address as the configuration has it. Its last session is resumed, if the
        server still takes it.
        """
        connection = SSL.Connection(self._context)
        name = self._settings.sni or self._name(host)
        if name and not _is_address(name):
            connection.set_tlsext_host_name(name.encode("ascii"))
        session = self._sessions.get(host)
        if session is not None:
            connection.set_session(session)
        connection.set_connect_state()
        return connection

    def judge(self, connection: SSL.Connection, host: str) -> str:
        """After the handshake: "" if the server is who it should be, else why not, for the log."""
        verify = self._settings.verify
        if verify == "none":
            return ""
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            return "the server shows no certificate"
        if verify == "pins":
            pin = spki_pin(certificate)
            return "" if pin in self._settings.pins else f"the public key {pin} is none of the pins"
        return "" if verify == "ca" else _misnamed(certificate, self._name(host))

    def remember(self, connection: SSL.Connection, host: str) -> None:
        """Keep the session of a connection for the next one with ``host``.

        To be called when the first application data has come: TLS 1.3 sends its tickets behind the handshake.
        """
        session = connection.get_session()
        if session is None:
            return
        self._sessions.pop(host, None)
        self._sessions[host] = session
        if len(self._sessions) > MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]

    def ended(self, connection: SSL.Connection) -> None:
        """To be called when a connection is over, however it ended, unless it has failed.

        Without a close_notify of either side OpenSSL takes the session for spoiled and does not resume it. That
        was a rule of TLS 1.0, which TLS 1.1 dropped (RFC 4346, 7.2.1), and SMTP servers often just close.
        """
        connection.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)

    def warn_of_expiry(self) -> None:
        """Report our own certificate and the CA file, if they have less than 14 days left, or have ended."""
        now = self._now()
        for file in self._files:
            file.warn_of_expiry(now)

    def _trust(self, owner: str, report: TlsReport) -> None:
        path = self._settings.ca
        if path == "system":
            self._context.set_default_verify_paths()
            return
        authorities = InUse((path,), lambda: read_authorities(path), None, owner, report)
        authorities.value.install(self._context)
        self._files.append(authorities)

    def _name(self, host: str) -> str:
        return self._settings.name or host


def spki_pin(certificate: x509.Certificate) -> str:
    """The SHA-256 of a certificate's SubjectPublicKeyInfo, in base64 (as in RFC 7469, 2.4)."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode("ascii")


def _misnamed(certificate: x509.Certificate, name: str) -> str:
    """Why a certificate is not for a name or an address (RFC 9525, 6); "" if it is."""
    try:
        if _is_address(name):
            verify_certificate_ip_address(certificate, name)
        else:
            verify_certificate_hostname(certificate, name)
    except service_identity.VerificationError:
        return f"the certificate is not for {name}"
    except (service_identity.CertificateError, ValueError) as error:
        return f"the certificate has no name that could be compared with {name}: {error}"
    return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
