"""The types of the settings that concern TLS: files, fingerprints, pins, names, versions, ciphers.

Like ``fields``, they take the file's form or the finished value and raise ValueError in words for an
administrator. A value that stands where a key or a certificate is named is never quoted in a message:
somebody may have put the key itself there.
"""

import base64
import binascii
import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr, ValidationInfo

from smtpproxy.config.domains import is_hostname
from smtpproxy.config.problem import quoted

__all__ = [
    "FOLDER",
    "AlpnNames",
    "CertificateFile",
    "Ciphers",
    "Ciphersuites",
    "Logins",
    "NameOrAddress",
    "Pins",
    "ServerName",
    "TrustAnchors",
    "Version",
    "Versions",
]

FOLDER: Final = "folder"
"""The key, in pydantic's validation context, of the folder (a Path) that relative file names belong to."""

SYSTEM: Final = "system"

Version = Literal["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]

_VERSIONS: Final[tuple[Version, ...]] = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_CIPHERS: Final = re.compile(r"[A-Za-z0-9@:+!=_.,-]+(?: [A-Za-z0-9@:+!=_.,-]+)*", re.ASCII)
_CIPHERSUITES: Final = re.compile(r"TLS_[A-Z0-9_]+(?::TLS_[A-Z0-9_]+)*", re.ASCII)
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ALPN_NAME: Final = re.compile(r"[!-~]{1,255}", re.ASCII)
_PIN_OCTETS: Final = 32
_LONGEST_LOGIN: Final = 255


def _file(value: object, info: ValidationInfo) -> Path:
    """A file name; a relative one belongs to the folder of the configuration, if that is known."""
    if not isinstance(value, (str, Path)):
        raise ValueError("the name of a file is expected, in quotes if it is a number or a word like 'no'")
    text = os.fspath(value)
    if "-----BEGIN" in text or not text.isprintable():
        raise ValueError("the name of a file is expected, not what is in it")
    if not text:
        raise ValueError("the name of a file is expected, not an empty text")
    folder = (info.context or {}).get(FOLDER)
    return Path(text) if folder is None else folder / text


def _anchors(value: object, info: ValidationInfo) -> object:
    return SYSTEM if value == SYSTEM else _file(value, info)


def _contiguous(versions: tuple[Version, ...]) -> tuple[Version, ...]:
    """In order, each once; OpenSSL is told a lowest and a highest version, so a gap cannot be had."""
    ordered = tuple(version for version in _VERSIONS if version in versions)
    first, last = _VERSIONS.index(ordered[0]), _VERSIONS.index(ordered[-1])
    missing = [version for version in _VERSIONS[first : last + 1] if version not in ordered]
    if missing:
        raise ValueError(f"versions without a gap are expected: {missing[0]} is missing")
    return ordered


def _ciphers(value: str) -> str:
    if not _CIPHERS.fullmatch(value):
        raise ValueError(f"an OpenSSL list of ciphers is expected, such as 'ECDHE+AESGCM:!aNULL', not {quoted(value)}")
    if "TLS_AES_" in value or "TLS_CHACHA20_" in value:
        raise ValueError("the cipher suites of TLS 1.3 belong into ciphersuites")
    return value


def _ciphersuites(value: str) -> str:
    if not _CIPHERSUITES.fullmatch(value):
        raise ValueError(
            "cipher suites of TLS 1.3 are expected, with colons between, "
            f"such as 'TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256', not {quoted(value)}"
        )
    return value


def _alpn_name(value: str) -> str:
    if not _ALPN_NAME.fullmatch(value):
        raise ValueError(f"the name of a protocol (RFC 7301) is expected, such as smtp, not {quoted(value)}")
    return value


def _fingerprint(value: str) -> str:
    digits = value.replace(":", "").lower()
    if not _FINGERPRINT.fullmatch(digits):
        raise ValueError(
            "the SHA-256 fingerprint of a certificate is expected: 64 hexadecimal digits, with or without colons"
        )
    return digits


def _login(value: str) -> str:
    if not value or not value.isprintable() or len(value.encode()) > _LONGEST_LOGIN:
        raise ValueError(f"a login name of 1 to {_LONGEST_LOGIN} octets without control characters is expected")
    return value


def _each_once(value: Any) -> Any:  # noqa: ANN401  (a validator's input is of any type)
    """Two spellings of one fingerprint would be two logins of one certificate."""
    if isinstance(value, dict):
        seen = set()
        for key in value:
            digits = str(key).replace(":", "").lower()
            if digits in seen:
                raise ValueError(f"the fingerprint {quoted(digits)} is in it twice")
            seen.add(digits)
    return value


def _pin(value: str) -> str:
    try:
        octets = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        octets = b""
    if len(octets) != _PIN_OCTETS:
        raise ValueError("the SHA-256 of a public key (its SubjectPublicKeyInfo) in base64 is expected: 44 characters")
    return base64.b64encode(octets).decode()


def _name_or_address(value: str) -> str:
    """Lower case; an address in its usual spelling."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        pass
    if not is_hostname(value) or value.replace(".", "").isdigit():
        raise ValueError(f"the name of a host or an IP address is expected, not {quoted(value)}")
    return value.lower()


def _server_name(value: str) -> str:
    """RFC 6066, 3: a host name, never an address."""
    if not is_hostname(value) or value.replace(".", "").isdigit():
        raise ValueError(f"the name of a host is expected, such as mail.example.org, not {quoted(value)}")
    return value.lower()


CertificateFile = Annotated[Path, BeforeValidator(_file)]
TrustAnchors = Annotated[Path | Literal["system"], BeforeValidator(_anchors)]
Versions = Annotated[tuple[Version, ...], Field(min_length=1), AfterValidator(_contiguous)]
Ciphers = Annotated[StrictStr, AfterValidator(_ciphers)]
Ciphersuites = Annotated[StrictStr, AfterValidator(_ciphersuites)]
AlpnNames = Annotated[tuple[Annotated[StrictStr, AfterValidator(_alpn_name)], ...], Field(min_length=1)]
Logins = Annotated[
    dict[Annotated[str, AfterValidator(_fingerprint)], Annotated[StrictStr, AfterValidator(_login)]],
    BeforeValidator(_each_once),
]
Pins = tuple[Annotated[StrictStr, AfterValidator(_pin)], ...]
NameOrAddress = Annotated[StrictStr, AfterValidator(_name_or_address)]
ServerName = Annotated[StrictStr, AfterValidator(_server_name)]
