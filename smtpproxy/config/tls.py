"""TLS towards clients and towards backends, as far as it is a matter of settings.

The files that are named here are opened by ``net``, not by us: they change while the program runs.
"""

from typing import Any, Literal

from pydantic import Field, field_validator

from smtpproxy.config.fields import Flag, TimeOut, word_off
from smtpproxy.config.section import Section
from smtpproxy.config.tlsfields import (
    AlpnNames,
    CertificateFile,
    Ciphers,
    Ciphersuites,
    Logins,
    NameOrAddress,
    Pins,
    ServerName,
    TrustAnchors,
    Versions,
)

__all__ = ["BackendTls", "CertificatePair", "ClientCertificates", "ListenerTls", "Protection", "TlsMode"]

TlsMode = Literal["none", "starttls", "starttls-required", "implicit"]


class Protection(Section):
    """Which versions and ciphers are used, on either side; None means what the profile says."""

    profile: Literal["modern", "intermediate", "old"] = "intermediate"
    versions: Versions | None = None
    ciphers: Ciphers | None = None
    ciphersuites: Ciphersuites | None = None


class CertificatePair(Section):
    """A certificate with its chain, and its key: two PEM files."""

    cert: CertificateFile
    key: CertificateFile


class ClientCertificates(Section):
    """Whether clients show a certificate; ``logins``: SHA-256 fingerprint (64 hex digits) to login name."""

    mode: Literal["off", "ask", "require"] = "off"
    ca: CertificateFile | None = None
    logins: Logins = Field(default_factory=dict)

    _word_off = field_validator("mode", mode="before")(word_off)


class ListenerTls(Protection):
    """TLS towards clients. ``reread`` is in seconds; the first certificate is the default one."""

    mode: TlsMode = "none"
    certificates: tuple[CertificatePair, ...] = ()
    tickets: Flag = True
    reread: TimeOut = 10.0
    alpn: AlpnNames = ("smtp", "esmtp")
    client_certificates: ClientCertificates = ClientCertificates()

    @field_validator("certificates")
    @classmethod
    def _each_once(cls, pairs: tuple[CertificatePair, ...]) -> tuple[CertificatePair, ...]:
        """A certificate has one key."""
        files = [pair.cert for pair in pairs]
        for number, file in enumerate(files):
            if file in files[:number]:
                raise ValueError(f"the certificate {file} is in it twice")
        return pairs

    @field_validator("client_certificates", mode="before")
    @classmethod
    def _off_or_section(cls, value: Any) -> Any:  # noqa: ANN401  (a validator's input is of any type)
        """YAML reads ``off`` as the truth value False."""
        if word_off(value) == "off":
            return {}
        if isinstance(value, (ClientCertificates, dict)):
            return value
        raise ValueError("off, or a section such as {mode: require, ca: clients.pem} is expected")


class BackendTls(Protection):
    """TLS towards a backend. ``pins``: SHA-256 of the SubjectPublicKeyInfo, base64."""

    mode: TlsMode = "none"
    verify: Literal["none", "ca", "name", "pins"] = "name"
    ca: TrustAnchors = "system"
    name: NameOrAddress | None = None
    sni: ServerName | None = None
    pins: Pins = ()
    certificate: CertificatePair | None = None
