"""What all tests share."""

import base64
import functools
import hashlib
import ipaddress
import itertools
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, settings

# The machine's speed is no property of the code: nothing fails for being slow.
_ANY_SPEED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", **_ANY_SPEED)
settings.register_profile("thorough", max_examples=2000, **_ANY_SPEED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def project() -> Path:
    """The folder of the project, with setup.py in it."""
    return Path(__file__).resolve().parent.parent


class Authority:
    """A certificate authority; ``path`` is its certificate, ``chain`` what a server sends of it and its parents."""

    def __init__(self, path: Path, certificate: x509.Certificate, key: Any, chain: Sequence[x509.Certificate]) -> None:
        self.path = path
        self.certificate = certificate
        self.key = key
        self.chain = tuple(chain)


class CertificateFiles:
    """A certificate and its key: the files ``cert`` (with the chain) and ``key``, and what is known by heart of it."""

    def __init__(self, cert: Path, key: Path, certificate: x509.Certificate, private: Any) -> None:
        self.cert = cert
        self.key = key
        self.certificate = certificate
        self.private = private
        self.fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        info = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.spki_pin = base64.b64encode(hashlib.sha256(info).digest()).decode()


class Pki:
    """Makes authorities and certificates as files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    @functools.cached_property
    def root(self) -> Authority:
        """The authority that signs where no other is named."""
        return self.ca()

    def ca(self, name: str = "Test CA", *, parent: Authority | None = None) -> Authority:
        """Make an authority: its own root, or signed by a parent."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign(name, key, parent, days=3650)
        path = self._folder / f"ca{next(self._numbers)}.pem"
        path.write_bytes(certificate.public_bytes(Encoding.PEM))
        return Authority(path, certificate, key, (certificate, *parent.chain) if parent else ())

    def pair(
        self,
        names: Sequence[str] = ("mx.example.org",),
        *,
        key: str = "ecdsa",
        days: int = 90,
        ca: Authority | None = None,
        client: bool = False,
        common_name: str | None = None,
    ) -> CertificateFiles:
        """Make a certificate with its key: ``ecdsa``, ``rsa``, ``rsa1024`` or ``ed25519``; ``days`` until it ends.

        Names that are addresses become such; with ``client`` it is for clients only. Without names it has no
        subjectAltName.
        """
        number = next(self._numbers)
        private = _private_key(key, number)
        subject = common_name or (names[0] if names else "nobody")
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        authority = ca or self.root
        certificate = _sign(subject, private, authority, days=days, names=names, usage=usage)
        files = CertificateFiles(
            self._folder / f"pair{number}.pem", self._folder / f"pair{number}.key", certificate, private
        )
        chain = (certificate, *authority.chain)
        files.cert.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in chain))
        files.key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files


def _private_key(kind: str, number: int) -> Any:
    if kind == "ecdsa":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return _rsa_key(1024 if kind == "rsa1024" else 2048, number)


@functools.cache
def _rsa_key(bits: int, _number: int) -> rsa.RSAPrivateKey:
    """Slow to make: the same number gives the same key in all tests."""
    return rsa.generate_private_key(65537, bits)


def _sign(
    subject: str,
    key: Any,
    issuer: Authority | None,
    *,
    days: int,
    names: Sequence[str] = (),
    usage: x509.ObjectIdentifier | None = None,
) -> x509.Certificate:
    """Without a usage it is an authority."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    end = datetime.now(UTC) + timedelta(days=days, hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(end, datetime.now(UTC)) - timedelta(days=1))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=usage is None, path_length=None), critical=True)
    )
    if names:
        alternative = x509.SubjectAlternativeName([_general_name(each) for each in names])
        builder = builder.add_extension(alternative, critical=False)
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.sign(issuer.key if issuer else key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    """Certificates in the test's folder: ``pki.ca()``, ``pki.pair(["mx.example.org"], key="rsa", days=90)``."""
    folder = tmp_path / "pki"
    folder.mkdir()
    return Pki(folder)


@pytest.fixture(scope="session")
def lasting_pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """The same for what lasts as long as all tests."""
    return Pki(tmp_path_factory.mktemp("pki"))
