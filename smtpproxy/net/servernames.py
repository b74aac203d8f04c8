"""Whether a server's certificate is for the name that it should have, or has the public key that it should have."""

import base64
import hashlib
import ipaddress
from collections.abc import Sequence

import service_identity
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from smtpproxy.config.domains import is_hostname

__all__ = ["ask_for", "misnamed", "misnamed_all", "spki", "spki_pin"]


def spki(certificate: x509.Certificate) -> bytes:
    """The SubjectPublicKeyInfo of a certificate, DER. Raises ValueError for a key of an unknown kind."""
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def spki_pin(certificate: x509.Certificate) -> str:
    """The SHA-256 of a certificate's SubjectPublicKeyInfo, in base64 (as in RFC 7469, 2.4)."""
    return base64.b64encode(hashlib.sha256(spki(certificate)).digest()).decode("ascii")


def misnamed(certificate: x509.Certificate, name: str) -> str:
    """Why a certificate is not for a name or an address (RFC 9525, 6); "" if it is."""
    try:
        if _is_address(name):
            verify_certificate_ip_address(certificate, name)
        else:
            verify_certificate_hostname(certificate, name)
    except service_identity.VerificationError:
        return f"the certificate is not for {name}"
    except Exception as error:  # the classes are many, and the certificate is anybody's
        return f"the certificate has no name that could be compared with {name}: {error}"
    return ""


def misnamed_all(certificate: x509.Certificate, names: Sequence[str]) -> str:
    """Why a certificate is for none of some names, in words about the first; "" if it is for one of them."""
    if not names:
        return "nobody has said what the certificate must be for"
    objections = [misnamed(certificate, name) for name in names]
    return objections[0] if all(objections) else ""


def ask_for(connection: SSL.Connection, name: str) -> None:
    """Tell the server which name is meant (RFC 6066, 3), if it is one: addresses and paths are not."""
    if is_hostname(name) and not _is_address(name):
        connection.set_tlsext_host_name(name.encode("ascii"))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
