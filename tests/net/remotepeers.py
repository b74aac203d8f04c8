"""TLS with remotes in memory: targets, TLSA records of certificates, handshakes that are judged."""

import base64
import hashlib
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from smtpproxy.config import RemoteTls as Settings
from smtpproxy.net.dane import Tlsa
from smtpproxy.net.remotetls import RemoteTls
from smtpproxy.net.security import Security, security_by_route
from smtpproxy.net.servernames import spki
from smtpproxy.net.tlsserver import ServerTls
from smtpproxy.session.outbound.target import Target, TlsWish

from .tlspeers import Report, now, say, shake

HOST = "mx.example.org"


def remote_settings(**settings: Any) -> Settings:
    return Settings.model_validate(settings)


def remote_tls(*, report: Report | None = None, clock: Any = now, **settings: Any) -> RemoteTls:
    return RemoteTls(remote_settings(**settings), "route *", report or Report(), clock)


def by_route(host: str = HOST, **settings: Any) -> Security:
    return security_by_route(remote_settings(**settings), host)


def by_dane(*records: Tlsa, names: tuple[str, ...] = (HOST,)) -> Security:
    return Security(TlsWish.VERIFIED, "dane", names, records, sni=HOST, policy="dane")


def target_of(security: Security | None = None, host: str = HOST, address: str = "192.0.2.7", port: int = 25) -> Target:
    return Target(host, address, port, security=security)


def tlsa(certificate: x509.Certificate, usage: int, selector: int, matching: int) -> Tlsa:
    data = spki(certificate) if selector else certificate.public_bytes(Encoding.DER)
    if matching:
        data = (hashlib.sha256 if matching == 1 else hashlib.sha512)(data).digest()
    return Tlsa(usage, selector, matching, data)


def meet_remote(tls: RemoteTls, server: ServerTls, target: Target) -> tuple[str, SSL.Connection]:
    """Connect, judge, read something, remember the session, and go; gives the judgement and the connection."""
    client, other = tls.connection(target), server.connection()
    shake(client, other)
    why = tls.judge(client, target)
    assert say(other, client, b"220 hello\r\n") == b"220 hello\r\n"
    tls.remember(client, target)
    tls.ended(client)
    return why, client


def with_two_names(pki: Any) -> Any:
    """A pair whose certificate has its subjectAltName twice, which no library would make."""
    pair = pki.pair()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    both = [x509.SubjectAlternativeName([x509.DNSName(HOST)]), x509.IssuerAlternativeName([x509.DNSName(HOST)])]
    builder = x509.CertificateBuilder(name, name, pair.private.public_key(), 5, now(), now() + timedelta(days=9))
    for extension in both:
        builder = builder.add_extension(extension, critical=False)
    der = builder.sign(pair.private, hashes.SHA256()).public_bytes(Encoding.DER)
    assert der.count(b"\x55\x1d\x12") == 1
    text = base64.encodebytes(der.replace(b"\x55\x1d\x12", b"\x55\x1d\x11"))  # its own signature is not verified
    pair.cert.write_bytes(b"-----BEGIN CERTIFICATE-----\n" + text + b"-----END CERTIFICATE-----\n")
    return pair


def server_of(pair: Any) -> Any:
    """A server without our own checks."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_file(str(pair.cert))
    context.use_privatekey_file(str(pair.key))
    connection = SSL.Connection(context)
    connection.set_accept_state()
    return connection
