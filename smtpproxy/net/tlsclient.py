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

from smtpproxy.config import BackendTls, CertificatePair
from smtpproxy.config.domains import is_hostname

from .certificates import Authorities, Pair, TlsError, read_authorities, read_pair
from .tlsfacts import Verified, note, verify_error_of
from .tlsfiles import InUse, TlsReport
from .tlsprofiles import is_old, make_context

__all__ = ["MOST_SESSIONS", "ClientTls", "spki_pin", "verify_error_of"]

MOST_SESSIONS: Final = 1000
"""Hosts of one backend whose last session is remembered."""


# Ways to verify in which the chain has to lead to an authority.
_CHAIN: Final = frozenset({"ca", "name"})


class ClientTls:
    """TLS as it is spoken with one backend. The app data of its connections is taken (``verify_error_of``)."""

    def __init__(self, settings: BackendTls, owner: str, report: TlsReport, now: Callable[[], datetime]) -> None:
        """Read every file; ``now`` gives the time with its zone. Raises TlsError if something cannot be used."""
        self._settings = settings
        self._owner = owner
        self._report = report
        self._now = now
        self._behind = False  # whether files are read that the context is not made of yet
        self._sessions: dict[str, SSL.Session] = {}
        make_context(SSL.TLS_CLIENT_METHOD, settings)  # so that a bad setting is not taken for a bad certificate
        self._authorities: InUse[Authorities] | None = None
        if settings.verify in _CHAIN and settings.ca != "system":
            path = settings.ca
            self._authorities = InUse((path,), lambda: read_authorities(path), None, owner, report)
        self._pair: InUse[Pair] | None = None
        if settings.certificate is not None:
            files = settings.certificate
            self._pair = InUse((files.cert, files.key), lambda: self._usable_pair(files), None, owner, report)
        self._context = self._make_context()
        if is_old(settings):
            report.tls_profile_old(owner)

    def connection(self, host: str) -> SSL.Connection:
        """Give a new connection on memory BIOs, as a client.

        ``host`` is the server's name or address as the configuration has it. Its last session is resumed, if the
        server still takes it.
        """
        connection = SSL.Connection(self._context)
        connection.set_app_data(Verified())
        name = self._settings.sni or self._name(host)
        if is_hostname(name) and not _is_address(name):
            connection.set_tlsext_host_name(name.encode("ascii"))
        session = self._sessions.get(host)
        if session is not None:
            connection.set_session(session)
        connection.set_connect_state()
        return connection

    def judge(self, connection: SSL.Connection, host: str) -> str:
        """After the handshake: "" if the server is who it should be, else why not, for the log."""
        why = self._objection(connection, host)
        if why:
            connection.get_app_data().error = why
        return why

    def _objection(self, connection: SSL.Connection, host: str) -> str:
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
        """Keep the session of a connection for the next one with ``host``, unless it was judged to be the wrong server.

        To be called when the first application data has come: TLS 1.3 sends its tickets behind the handshake.
        """
        session = connection.get_session()
        if session is None or verify_error_of(connection) or connection.get_context() is not self._context:
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

    def reread(self) -> None:
        """Look at the files, as ServerTls does. After a change no session is resumed that began before it."""
        changed = [file.renew() for file in (self._authorities, self._pair) if file is not None]
        if any(changed) or self._behind:
            try:
                self._context = self._make_context()
            except TlsError as error:  # such as no room for a file; to be tried again
                self._behind = True
                self._report.certificate_refused(self._owner, error.path, error.why)
            else:
                self._behind = False
                self._sessions.clear()

    def warn_of_expiry(self) -> None:
        """Report our own certificate and the CA file, if they have less than 14 days left, or have ended."""
        now = self._now()
        for file in (self._authorities, self._pair):
            if file is not None:
                file.warn_of_expiry(now)

    def _usable_pair(self, files: CertificatePair) -> Pair:
        """Read our own pair and try it. Raises TlsError."""
        pair = read_pair(files.cert, files.key)
        pair.install(make_context(SSL.TLS_CLIENT_METHOD, self._settings))
        return pair

    def _make_context(self) -> SSL.Context:
        context = make_context(SSL.TLS_CLIENT_METHOD, self._settings)
        if self._settings.verify in _CHAIN:
            context.set_verify(SSL.VERIFY_PEER, note)
            if self._authorities is None:
                context.set_default_verify_paths()
            else:
                self._authorities.value.install(context)
        if self._pair is not None:
            self._pair.value.install(context)
        return context

    def _name(self, host: str) -> str:
        return self._settings.name or host.removesuffix(".")


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
