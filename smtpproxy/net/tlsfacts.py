"""What is known of a connection after its TLS handshake, and whether to believe the certificate of the peer.

In the mode ``ask`` a certificate that does not verify lets the handshake go on. pyOpenSSL's way to say so (the
callback gives True) also wipes out the error, and OpenSSL writes "verified" into the session: when that
session is resumed, nothing is verified again, and the lie would be believed. So a verdict is only believed
where it was seen to be given: in this handshake (``Verified``), or in an earlier one for the same certificate
(``Trust``).
"""

from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from OpenSSL.crypto import X509

from .tlsnames import Choice

__all__ = [
    "MOST_REMEMBERED",
    "Seen",
    "TlsFacts",
    "Trust",
    "Verified",
    "facts_of",
    "go_on",
    "note",
    "reason_of",
    "verify_error_of",
    "with_reason",
]

MOST_REMEMBERED: Final = 10000
"""Certificates that have been verified, as far as they are remembered for resumed sessions (mode ``ask``)."""

_FORGOTTEN: Final = "of a resumed session, and not known as verified"
_REASONS: Final = {
    number: name.removeprefix("ERR_").lower().replace("_", " ")
    for name, number in vars(SSL.X509VerificationCodes).items()
    if name.startswith("ERR_")
}


class TlsFacts(NamedTuple):
    """What a TLS handshake has come to; a text is empty where there is nothing to say."""

    version: str
    """Such as ``TLSv1.3``."""
    cipher: str
    """OpenSSL's name of it."""
    resumed: bool
    """Whether a session was resumed."""
    servername: str
    """The name that the client asked for (SNI); what is not ASCII is shown as an escape."""
    alpn: str
    """The name of the protocol that was agreed on."""
    subject: str
    """Of the client's certificate, if it is verified (RFC 4514)."""
    fingerprint: str
    """Of the client's certificate, verified or not: SHA-256, 64 hexadecimal digits in lower case."""
    verified: bool
    """Whether the client has shown a certificate of one of the configured authorities."""
    verify_error: str
    """Why the certificate that the client has shown is not verified."""


class Verified:
    """What came of verifying the peer's certificate, as far as it was done: the app data of a connection."""

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: str | None = None
        """Why the certificate is not verified; "" if it is; None if none was looked at in this handshake."""


class Seen(Verified):
    """The same of a connection of ServerTls, and how to find the context for the name that the client asks for."""

    __slots__ = ("choice",)

    def __init__(self, choice: Choice[SSL.Context]) -> None:
        """``choice`` is the ServerTls's at the time when the connection began."""
        super().__init__()
        self.choice = choice


class Trust:
    """How the contexts of one ServerTls judge clients' certificates: the app data of those contexts."""

    __slots__ = ("_always", "_verified")

    def __init__(self, *, always: bool) -> None:
        """``always``: no handshake succeeds unless the certificate is verified (mode ``require``)."""
        self._always = always
        self._verified: dict[str, None] = {}

    def error(self, verified: Verified, fingerprint: str) -> str:
        """Why the certificate that a client has shown is not to be believed; "" if it is."""
        if self._always:
            return ""
        if verified.error is None:
            return "" if fingerprint in self._verified else _FORGOTTEN
        if not verified.error:
            self._remember(fingerprint)
        return verified.error

    def _remember(self, fingerprint: str) -> None:
        self._verified[fingerprint] = None
        if len(self._verified) > MOST_REMEMBERED:
            del self._verified[next(iter(self._verified))]


def note(connection: SSL.Connection, _certificate: X509, error: int, _depth: int, ok: int) -> bool:
    """Write down the first error of a certificate; whether there is none: for SSL.Context.set_verify.

    It is called for each certificate of a chain. It never raises: pyOpenSSL would keep the exception, and raise
    it in another connection.
    """
    verified: Verified = connection.get_app_data()
    if not verified.error:
        verified.error = "" if ok else reason_of(error)
    return bool(ok)


def reason_of(error: int) -> str:
    """Put one of OpenSSL's numbers for what is wrong with a certificate into words."""
    return _REASONS.get(error, f"error {error}")


def go_on(connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
    """Do the same, but let the handshake go on whatever the certificate."""
    note(connection, certificate, error, depth, ok)
    return True


def verify_error_of(connection: SSL.Connection) -> str:
    """After a handshake that failed: why the peer's certificate is not verified; "" if that is not the reason.

    For connections of ServerTls and of ClientTls. OpenSSL's own error only says "certificate verify failed".
    """
    verified: Verified = connection.get_app_data()
    return verified.error or ""


def with_reason(why: str, connection: SSL.Connection) -> str:
    """Give why a handshake failed, and what is wrong with the peer's certificate if that was it."""
    error = verify_error_of(connection)
    return f"{why} ({error})" if error else why


def facts_of(connection: SSL.Connection) -> TlsFacts:
    """Tell what the handshake of a connection has come to; to be called when it is complete, on either side.

    Of the peer's certificate only a connection of ServerTls tells something; who a server is says
    ``ClientTls.judge``.
    """
    subject = fingerprint = verify_error = ""
    trust: Trust | None = connection.get_context().get_app_data()
    certificate = None
    if trust is not None:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is not None:
            fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
            verify_error = trust.error(connection.get_app_data(), fingerprint)
            subject = "" if verify_error else _subject(certificate)
    return TlsFacts(
        connection.get_protocol_version_name(),
        connection.get_cipher_name() or "",
        _resumed(connection),
        (connection.get_servername() or b"").decode("ascii", "backslashreplace"),
        connection.get_alpn_proto_negotiated().decode("ascii", "backslashreplace"),
        subject,
        fingerprint,
        certificate is not None and not verify_error,
        verify_error,
    )


def _subject(certificate: x509.Certificate) -> str:
    try:
        return certificate.subject.rfc4514_string()
    except ValueError:  # OpenSSL understands names that cryptography does not
        return ""


def _resumed(connection: SSL.Connection) -> bool:
    """Whether a session was resumed. pyOpenSSL has no public function for it; without the private one: False."""
    reused = getattr(getattr(SSL, "_lib", None), "SSL_session_reused", None)
    ssl = getattr(connection, "_ssl", None)
    return reused is not None and ssl is not None and bool(reused(ssl))
