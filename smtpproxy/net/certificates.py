"""Certificates with their keys, and those of authorities: read from files, checked, and given to OpenSSL.

Everything is parsed with ``cryptography`` before OpenSSL sees it: its messages are better, it never asks a
terminal for a pass phrase, and what was checked is kept, so that a context can be made again when the files
have been broken meanwhile.
"""

import itertools
import os
import stat
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.utils import CryptographyDeprecationWarning
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags

__all__ = [
    "EXPIRY_WARNING",
    "LARGEST_FILE",
    "Authorities",
    "Pair",
    "PrivateKey",
    "TlsError",
    "days_left",
    "read_authorities",
    "read_pair",
    "words_of",
]

LARGEST_FILE: Final = 1024 * 1024
"""Octets; a larger file has no certificates of ours in it."""

EXPIRY_WARNING: Final = 14
"""Days before a certificate's end from which on it is warned about."""

_NAMED: Final = 3

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

# OpenSSL keeps one certificate of each of these in a context: here are the classes and the words for them.
_KINDS: Final[tuple[tuple[type[PrivateKey], str], ...]] = (
    (ec.EllipticCurvePrivateKey, "ECDSA"),
    (rsa.RSAPrivateKey, "RSA"),
    (ed25519.Ed25519PrivateKey, "Ed25519"),
    (ed448.Ed448PrivateKey, "Ed448"),
)


class TlsError(Exception):
    """Something that TLS needs cannot be used: ``path`` is the file, or the setting; ``why`` is for a person."""

    def __init__(self, path: str | os.PathLike[str], why: str) -> None:
        super().__init__(path, why)
        self.path = os.fspath(path)
        self.why = why

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


class Pair:
    """A certificate with its chain, and its key. Two are equal if they send the same certificates."""

    __slots__ = ("chain", "key", "key_path", "key_type", "kind", "names", "not_after", "not_before", "path")

    def __init__(
        self, path: Path, key_path: Path, chain: Sequence[x509.Certificate], key: PrivateKey, kind: str
    ) -> None:
        """Take what belongs together; ``chain`` begins with the certificate itself."""
        self.path = path
        self.key_path = key_path
        self.chain = tuple(chain)
        self.key = key
        self.kind = kind
        self.key_type = _key_type(key, kind)
        self.names = _names(chain[0])
        self.not_before: datetime = chain[0].not_valid_before_utc
        self.not_after: datetime = chain[0].not_valid_after_utc

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pair) and self.chain == other.chain

    def __hash__(self) -> int:
        return hash(self.chain)

    @property
    def issuer(self) -> str:
        """Who has signed it (RFC 4514)."""
        return self.chain[0].issuer.rfc4514_string()

    def install(self, context: SSL.Context) -> None:
        """Let a context use it, beside pairs of other kinds. Raises TlsError, such as for a key that is too weak.

        Only the function that reads a chain from a file gives each certificate a chain of its own
        (add_extra_chain_cert has one for all), so the chain as it was checked is written to a file of ours.
        """
        try:
            with tempfile.NamedTemporaryFile(suffix=".pem") as file:
                file.write(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain))
                file.flush()
                context.use_certificate_chain_file(file.name)
            context.use_privatekey(self.key)
        except SSL.Error as error:
            raise TlsError(self.path, f"refused by OpenSSL: {words_of(error)}") from None
        except OSError as error:
            raise TlsError(self.path, f"no room for a temporary file: {error.strerror}") from None


class Authorities:
    """The certificates of the authorities in a CA file. Two are equal if they have the same ones."""

    __slots__ = ("certificates", "path")

    def __init__(self, path: Path, certificates: Sequence[x509.Certificate]) -> None:
        """``path`` is the file that they come from."""
        self.path = path
        self.certificates = tuple(certificates)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Authorities) and self.certificates == other.certificates

    def __hash__(self) -> int:
        return hash(self.certificates)

    @property
    def names(self) -> tuple[str, ...]:
        """The subjects (RFC 4514) of the first three, and how many more there are: systems' bundles are long."""
        subjects = [certificate.subject.rfc4514_string() for certificate in self.certificates[:_NAMED]]
        more = len(self.certificates) - len(subjects)
        return (*subjects, f"and {more} more") if more else tuple(subjects)

    @property
    def not_after(self) -> datetime:
        """When the last of them ends: in a file there may be old ones beside their successors."""
        return max(certificate.not_valid_after_utc for certificate in self.certificates)

    def install(self, context: SSL.Context) -> None:
        """Let a context trust them. Each is an anchor of its own, also one that another has signed.

        Raises TlsError if OpenSSL does not take one.
        """
        try:
            store: Any = context.get_cert_store()
            store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
            for certificate in self.certificates:
                store.add_cert(X509.from_cryptography(certificate))
        except Exception as error:
            raise TlsError(self.path, "refused by OpenSSL") from error


def days_left(not_after: datetime, now: datetime) -> int:
    """Whole days until a certificate ends, rounded down; negative if it has ended."""
    return (not_after - now).days


def read_pair(cert: Path, key: Path) -> Pair:
    """Read a certificate with its chain, and its key (PEM; both may be in one file).

    Raises TlsError if a file cannot be read or is damaged, if the key is encrypted or does not belong to the
    first certificate, and if the certificates do not follow each other, each signed by the next.
    """
    with _understood(cert):
        chain = _certificates(cert)
        private, kind = _private_key(key)
        _check_match(cert, key, chain, private)
        _check_order(cert, chain)
        return Pair(cert, key, chain, private, kind)


def read_authorities(path: Path) -> Authorities:
    """Read a file with the certificates of authorities (PEM). Raises TlsError."""
    with warnings.catch_warnings(), _understood(path):
        # About serial numbers that are not positive: in systems' bundles there are such, and nobody can mend them.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return Authorities(path, _certificates(path))


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Make a TlsError of whatever else a parser raises: its classes are many, the file is anybody's."""
    try:
        yield
    except TlsError:
        raise
    except Exception as error:
        raise TlsError(path, f"a certificate in it cannot be understood: {error}") from error


def words_of(error: SSL.Error) -> str:
    """What OpenSSL says, without the names of its functions."""
    problems = error.args[0] if error.args else []
    reasons = [reason for _, _, reason in problems if reason] if isinstance(problems, list) else []
    return ", ".join(reasons) or "no reason given"


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=_without_waiting) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise TlsError(path, "not a regular file")
            content = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise TlsError(path, f"cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_FILE:
        raise TlsError(path, "larger than 1 MiB: no file of certificates or keys")
    if not content.strip():
        raise TlsError(path, "empty")
    return content


def _without_waiting(path: str, flags: int) -> int:
    """A pipe would be waited for until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _certificates(path: Path) -> list[x509.Certificate]:
    content = _content(path)
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise TlsError(path, "no certificate is in it (PEM is expected: -----BEGIN CERTIFICATE-----)")
    if content.count(b"-----BEGIN ") != content.count(b"-----END "):
        raise TlsError(path, "ends in the middle of a certificate")
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise TlsError(path, f"damaged: {error}") from None


def _private_key(path: Path) -> tuple[PrivateKey, str]:
    content = _content(path)
    if b"PRIVATE KEY-----" not in content:
        raise TlsError(path, "no private key is in it (PEM is expected: -----BEGIN PRIVATE KEY-----)")
    try:
        # Looking for the primes of an RSA key takes a third of a second, in which no session would move.
        key = load_pem_private_key(content, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise TlsError(path, "encrypted: a key without a pass phrase is needed, since nobody can be asked") from None
    except (ValueError, UnsupportedAlgorithm):
        # The message of the parser is not passed on: it may quote what it has read.
        raise TlsError(path, "damaged, or of a kind that is not known: no private key in PEM") from None
    for key_class, kind in _KINDS:
        if isinstance(key, key_class):
            return key, kind
    raise TlsError(path, "a key of a kind that is not used for TLS here (ECDSA, RSA and Ed25519 are)")


def _check_match(cert: Path, key: Path, chain: Sequence[x509.Certificate], private: PrivateKey) -> None:
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for number, certificate in enumerate(chain):
        if certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == public:
            if number:
                raise TlsError(
                    cert, f"the key in {key} belongs to certificate {number + 1}: the server's own must be the first"
                )
            return
    raise TlsError(cert, f"the key in {key} does not belong to it")


def _check_order(path: Path, chain: Sequence[x509.Certificate]) -> None:
    """RFC 5246, 7.4.2: each certificate certifies the one before it (RFC 8446, 4.4.2, only advises it)."""
    for number, (subject, issuer) in enumerate(itertools.pairwise(chain), start=1):
        if subject.issuer != issuer.subject:
            raise TlsError(
                path,
                f"not in order: certificate {number} was signed by {subject.issuer.rfc4514_string()}, "
                f"but certificate {number + 1} is {issuer.subject.rfc4514_string()}",
            )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names that it is for, lower case; the common name only without a subjectAltName (RFC 9525, 4.1)."""
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        found = [str(attribute.value) for attribute in common]
    else:
        found = alternative.value.get_values_for_type(x509.DNSName)
    return tuple(dict.fromkeys(name.lower().removesuffix(".") for name in found))


def _key_type(key: PrivateKey, kind: str) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return f"{kind} {key.curve.name}"
    return f"{kind} {key.key_size}" if isinstance(key, rsa.RSAPrivateKey) else kind
