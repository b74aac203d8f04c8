"""Certificates that are not there, or cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from smtpproxy.config import RemoteTls
from smtpproxy.net.danelookup import NO_DANE
from smtpproxy.ops.probe import tlsview
from smtpproxy.ops.probe.facts import Dane
from smtpproxy.ops.probe.tlsview import TlsView, dane_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_server_without_certificate() -> None:
    view = TlsView(RemoteTls(), lambda: NOW)
    connection = view.connection("mx.example.org", "192.0.2.1", 25, NO_DANE)
    facts = view.facts(connection, "mx.example.org")
    assert (facts.certificate, facts.chain_error) == (None, "the server shows no certificate")


def test_a_certificate_without_names(pki: Any) -> None:
    certificate = tlsview._certificate(pki.pair((), common_name="old").certificate, datetime.now(UTC))
    assert (certificate.subject, certificate.names) == ("CN=old", ())


def test_what_cannot_be_read_is_said(pki: Any) -> None:
    """OpenSSL takes certificates that cryptography does not understand in every part."""

    class Odd:
        def __init__(self, certificate: x509.Certificate) -> None:
            self._certificate = certificate

        @property
        def extensions(self) -> Any:
            raise ValueError("odd")

        @property
        def subject(self) -> Any:
            return self

        def rfc4514_string(self) -> str:
            raise ValueError("odd")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._certificate, name)

    odd: Any = Odd(pki.pair().certificate)
    certificate = tlsview._certificate(odd, datetime.now(UTC))
    assert (certificate.subject, certificate.names) == ("(cannot be read)", ("(cannot be read)",))
    assert certificate.issuer == "CN=Test CA"


def test_what_dns_says() -> None:
    assert dane_of(NO_DANE, asked=False, secure=True) == Dane("not asked")
    assert dane_of(NO_DANE, asked=True, secure=False) == Dane("insecure")
    assert dane_of(NO_DANE, asked=True, secure=True) == Dane("none")
