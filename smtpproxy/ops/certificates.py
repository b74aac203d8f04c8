"""What becomes of certificates, told to the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .log import EventLog


class CertificateLog:
    """Hears of certificates that are loaded, refused, or about to end (a TlsReport)."""

    def __init__(self, log: Callable[[], EventLog]) -> None:
        """``log`` gives the log of the moment: a reload may change it."""
        self._log = log

    def certificate_loaded(self, owner: str, cert_path: str, names: Sequence[str], not_after: datetime) -> None:
        """Write that a certificate is in use from now on."""
        fields = {"owner": owner, "file": cert_path, "names": list(names), "until": not_after.isoformat()}
        self._log().info("certificate_loaded", fields)

    def certificate_refused(self, owner: str, cert_path: str, why: str) -> None:
        """Write that a changed certificate is of no use, so that the one before stays."""
        self._log().error("certificate_refused", {"owner": owner, "file": cert_path, "why": why})

    def certificate_expires(self, owner: str, cert_path: str, not_after: datetime, days: int) -> None:
        """Write that few days are left, or none."""
        self._log().warning(
            "certificate_expires",
            {"owner": owner, "file": cert_path, "until": not_after.isoformat(), "days": days},
        )

    def tls_profile_old(self, owner: str) -> None:
        """Write that versions of TLS are in use that should not be (RFC 8996)."""
        why = "TLS 1.0 and 1.1 are broken; keep this profile only as long as a client needs it"
        self._log().warning("tls_profile_old", {"owner": owner, "why": why})
