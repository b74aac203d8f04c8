"""DANE for SMTP (RFC 7672): which TLSA records can be used, and whether a server is the one that they name.

OpenSSL's own DANE cannot be reached through pyOpenSSL, so the certificates that were presented are judged here, after
the handshake: it has proved that the server has the key of the first of them, and nothing else.

- DANE-EE(3): the certificate or its public key is in a record. Names and dates do not count (RFC 7672, 3.1.1).
- DANE-TA(2): the certificates lead to a trust anchor that is in a record; names and dates count (3.1.2, 3.2.2).
- PKIX-TA(0) and PKIX-EE(1) cannot be used by MTAs (3.1.3).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError, X509StoreFlags

from .servernames import misnamed_all, spki

__all__ = ["EE", "TA", "Tlsa", "objection", "usable"]

TA: Final = 2
"""Usage: the certificate of a trust anchor."""
EE: Final = 3
"""Usage: the server's own certificate."""

_FULL: Final = 0
_CERTIFICATE: Final = 0
_HASHES: Final[dict[int, Callable[[bytes], Any]]] = {1: hashlib.sha256, 2: hashlib.sha512}
_WEAK: Final = frozenset({"md5", "sha1"})
_WEAK_RSA: Final = 2048  # bits; less is too weak at OpenSSL's own level of security, too
_MOST: Final = 32  # records that are looked at: each may cost a search through the whole chain


class Tlsa(NamedTuple):
    """A TLSA record (RFC 6698, 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes


def usable(records: Iterable[Tlsa]) -> tuple[Tlsa, ...]:
    """Give the records that can be used for SMTP, in a fixed order; of several hashes the strongest (RFC 7671, 9)."""
    good = sorted({record for record in records if _is_usable(record)})[:_MOST]
    best: dict[tuple[int, int], int] = {}
    for usage, selector, matching, _ in good:
        best[usage, selector] = max(matching, best.get((usage, selector), _FULL))
    return tuple(record for record in good if record.matching in {_FULL, best[record.usage, record.selector]})


def objection(chain: Sequence[x509.Certificate], records: Sequence[Tlsa], names: Sequence[str], now: datetime) -> str:
    """Say why a server is not the one that the usable ``records`` name; "" if it is.

    ``chain``: what it has presented, its own certificate first. ``names``: what the certificate may be for, where the
    record is about a trust anchor. ``now`` has a zone. Raises whatever cryptography raises for a certificate that it
    does not understand.
    """
    if not chain:
        return "the server shows no certificate"
    if any(record.usage == EE and _matches(chain[0], record) for record in records):
        return ""
    anchors = [record for record in records if record.usage == TA]
    if not anchors:
        return "the certificate matches no TLSA record"
    return _untrusted(chain, anchors, now) or misnamed_all(chain[0], names)


def _is_usable(record: Tlsa) -> bool:
    if record.usage not in {TA, EE} or record.selector not in {0, 1}:
        return False
    if record.matching != _FULL:
        digest = _HASHES.get(record.matching)
        return digest is not None and len(record.data) == digest(b"").digest_size
    try:
        _parsed(record)
    except Exception:  # the parser's classes are many, the record is anybody's
        return False
    return True


def _parsed(record: Tlsa) -> Any:
    """Give the certificate or the public key that is in a record as a whole."""
    if record.selector == _CERTIFICATE:
        return x509.load_der_x509_certificate(record.data)
    return load_der_public_key(record.data)


def _matches(certificate: x509.Certificate, record: Tlsa) -> bool:
    """RFC 6698, 2.1.2 and 2.1.3."""
    selected = certificate.public_bytes(Encoding.DER) if record.selector == _CERTIFICATE else spki(certificate)
    if record.matching != _FULL:
        selected = _HASHES[record.matching](selected).digest()
    return selected == record.data


# --- DANE-TA(2) ----------------------------------------------------------------------------------------------------


def _untrusted(chain: Sequence[x509.Certificate], records: Sequence[Tlsa], now: datetime) -> str:
    """Say why the chain does not lead to one of the trust anchors; "" if it does."""
    anchors = _anchors(chain, records)
    if not anchors:
        return "no certificate of the chain matches a TLSA record"
    try:
        verified = _verified(chain, anchors, now)
    except X509StoreContextError as error:
        return str(error)
    # The anchor's own signature is nobody's business, unless it is the server's certificate.
    if any(_is_weak(certificate) for certificate in verified[: max(1, len(verified) - 1)]):
        return "a signature in the chain is too weak"
    return "" if _is_for_servers(chain[0]) else "the certificate is not for servers"


def _anchors(chain: Sequence[x509.Certificate], records: Sequence[Tlsa]) -> list[x509.Certificate]:
    """Find the trust anchors: presented ones that match a record, and what is in a record as a whole.

    Of an anchor whose bare key is published, the certificates that it has signed stand for it (RFC 7671, 5.2.2); so
    it need not be presented.
    """
    found = [each for each in chain[1:] if any(_matches(each, record) for record in records)]
    for record in records:
        if record.matching == _FULL:
            whole = _parsed(record)
            if isinstance(whole, x509.Certificate):
                found += [] if whole == chain[0] else [whole]  # the server's own is none: that is usage 3
            else:
                found += [each for each in chain if _is_signed_by(each, whole)]
    return found


def _verified(
    chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], now: datetime
) -> list[x509.Certificate]:
    """Give the chain up to an anchor. Raises X509StoreContextError if there is none that holds."""
    store: Any = X509Store()
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    store.set_time(now.astimezone(UTC))
    for anchor in anchors:
        store.add_cert(X509.from_cryptography(anchor))
    presented = [X509.from_cryptography(certificate) for certificate in chain]
    verified = X509StoreContext(store, presented[0], presented[1:]).get_verified_chain()
    return [certificate.to_cryptography() for certificate in verified]


def _is_signed_by(certificate: x509.Certificate, key: Any) -> bool:
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    parameters: Any = certificate.signature_algorithm_parameters
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, parameters, _hash_of(certificate))
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, parameters)
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, signed)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):  # also where it is another kind of key
        return False
    return True


def _hash_of(certificate: x509.Certificate) -> Any:
    return certificate.signature_hash_algorithm


def _is_weak(certificate: x509.Certificate) -> bool:
    """Whether anybody could have made the signature: OpenSSL does not look at it outside a handshake."""
    algorithm, key = _hash_of(certificate), certificate.public_key()
    return (algorithm is not None and algorithm.name in _WEAK) or (
        isinstance(key, rsa.RSAPublicKey) and key.key_size < _WEAK_RSA
    )


def _is_for_servers(certificate: x509.Certificate) -> bool:
    """RFC 5280, 4.2.1.12."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in usages or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages
