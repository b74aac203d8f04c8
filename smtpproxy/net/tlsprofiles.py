"""Which versions and ciphers of TLS are used: Mozilla's lists, and a context made after them.

The lists are those of Mozilla's "Server Side TLS" guidelines: ``modern`` and ``intermediate`` of version 6.0,
``old`` of version 5.8, the last that has it. Two things differ.

- No DHE in ``old``: Mozilla dropped it too (its working group: costly, and its parameters go wrong), and every
  client that Mozilla names for ``old`` has another cipher of the list.
- The groups (curves) are OpenSSL's own, which begin with X25519MLKEM768 where OpenSSL has it (3.5 and later):
  pyOpenSSL cannot set a list of them.

Other names in a list than this OpenSSL has are passed over, as Mozilla advises: the 3DES cipher of ``old``, for
one, is seldom compiled in today.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from OpenSSL import SSL

from smtpproxy.config import Protection

from .certificates import TlsError, words_of

__all__ = ["PROFILES", "Profile", "is_old", "make_context", "versions_of"]


class Profile(NamedTuple):
    """A list of Mozilla's: versions in order, OpenSSL's lists of ciphers, and whether the server's order decides."""

    versions: tuple[str, ...]
    ciphers: str
    ciphersuites: str
    server_order: bool


_CIPHERSUITES: Final = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_AEAD: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
_CBC_AND_RSA: Final = (
    "ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:"
    "ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES256-SHA:"
    "AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-SHA256:AES256-SHA256:AES128-SHA:AES256-SHA:DES-CBC3-SHA"
)

PROFILES: Final = {
    "modern": Profile(("TLSv1.3",), "", _CIPHERSUITES, server_order=False),
    "intermediate": Profile(("TLSv1.2", "TLSv1.3"), _AEAD, _CIPHERSUITES, server_order=False),
    "old": Profile(
        ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"), f"{_AEAD}:{_CBC_AND_RSA}", _CIPHERSUITES, server_order=True
    ),
}
"""By the names that the configuration uses."""

_NUMBERS: Final = {
    "TLSv1": SSL.TLS1_VERSION,
    "TLSv1.1": SSL.TLS1_1_VERSION,
    "TLSv1.2": SSL.TLS1_2_VERSION,
    "TLSv1.3": SSL.TLS1_3_VERSION,
}

# RFC 8996: no longer to be used.
_DEPRECATED: Final = frozenset({"TLSv1", "TLSv1.1"})


def versions_of(settings: Protection) -> tuple[str, ...]:
    """The versions that the settings mean, in order."""
    return settings.versions or PROFILES[settings.profile].versions


def is_old(settings: Protection) -> bool:
    """Whether the settings are such that the log has to be loud: the profile, or versions of its time (RFC 8996)."""
    return settings.profile == "old" or not _DEPRECATED.isdisjoint(versions_of(settings))


def make_context(method: int, settings: Protection) -> SSL.Context:
    """Make a context, SSL.TLS_SERVER_METHOD or SSL.TLS_CLIENT_METHOD, with the settings' versions and ciphers.

    Raises TlsError, with the name of the setting as its path, if this OpenSSL cannot do what they say.
    """
    context = SSL.Context(method)
    options = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION
    if PROFILES[settings.profile].server_order or settings.ciphers or settings.ciphersuites:
        options |= SSL.OP_CIPHER_SERVER_PREFERENCE  # an order that somebody has written down is meant
    if is_old(settings):
        # A server of that time does not know secure renegotiation (RFC 5746); as a client we renegotiate never.
        options |= SSL.OP_LEGACY_SERVER_CONNECT
    context.set_options(options)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    _set_versions(context, settings)
    _set_ciphers(context, settings)
    return context


def _set_versions(context: SSL.Context, settings: Protection) -> None:
    versions = versions_of(settings)
    for version in (version for version in versions if version in _DEPRECATED):
        trial = SSL.Context(SSL.TLS_METHOD)
        try:
            # As the lowest and the highest: a version that is not compiled in is refused only when it is alone.
            # Later versions are in every library that pyOpenSSL works with.
            trial.set_min_proto_version(_NUMBERS[version])
            trial.set_max_proto_version(_NUMBERS[version])
        except SSL.Error:
            have = "an explicit list of versions without it can be used" if settings.versions is None else ""
            setting = "profile" if settings.versions is None else "versions"
            raise TlsError(setting, f"{_library()} has no {version}" + (f"; {have}" if have else "")) from None
    context.set_min_proto_version(_NUMBERS[versions[0]])
    context.set_max_proto_version(_NUMBERS[versions[-1]])


def _set_ciphers(context: SSL.Context, settings: Protection) -> None:
    profile = PROFILES[settings.profile]
    versions = versions_of(settings)
    ciphers = settings.ciphers or profile.ciphers
    if not ciphers and versions[0] != "TLSv1.3":
        raise TlsError("versions", f"{versions[0]} has no ciphers in profile: modern; name some in ciphers")
    if versions[0] in _DEPRECATED:
        if settings.ciphers is None and settings.profile != "old":
            raise TlsError("versions", f"{versions[0]} has no ciphers in profile: {settings.profile}; use profile: old")
        if "@SECLEVEL" not in ciphers:
            ciphers += ":@SECLEVEL=0"  # OpenSSL 3 and later does no signature with SHA-1 above that level
    if ciphers:
        _try("ciphers", lambda: context.set_cipher_list(ciphers.encode()))
    suites = settings.ciphersuites or profile.ciphersuites
    _try("ciphersuites", lambda: context.set_tls13_ciphersuites(suites.encode()))


def _try(setting: str, step: Callable[[], None]) -> None:
    try:
        step()
    except SSL.Error as error:
        raise TlsError(setting, f"not a list that {_library()} can use: {words_of(error)}") from None


def _library() -> str:
    """Such as ``OpenSSL 4.0.3``."""
    return " ".join(SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii", "replace").split()[:2])
