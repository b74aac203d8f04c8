"""The ports of the one Postfix that the tests of TLS and of the client's identity have in common."""

from __future__ import annotations

from typing import Any, Final

from .postfix import Settings

FRIEND: Final = "127.0.0.66"
"""The client that Postfix relays for; it does not for the proxy's own address."""
STRANGER: Final = "127.0.0.77"
"""A client that it does not relay for."""

_STARTTLS: Final = {"smtpd_tls_security_level": "may"}
_XCLIENT: Final = {"smtpd_authorized_xclient_hosts": "127.0.0.1"}

DOORS: Final[dict[str, Settings]] = {
    "xclient": _XCLIENT,
    # Postfix asks this of whom XCLIENT has named, too: so it is told of one client only in each session, but here.
    "xclient-again": {"smtpd_authorized_xclient_hosts": "127.0.0.0/8"},
    "trusting": {"mynetworks": "127.0.0.0/8"},
    "xforward": {"smtpd_authorized_xforward_hosts": "127.0.0.1"},
    "proxy": {"smtpd_upstream_proxy_protocol": "haproxy"},
    "starttls": _STARTTLS,
    "starttls-xclient": {**_STARTTLS, **_XCLIENT},
    "smtps": {"smtpd_tls_wrappermode": "yes", "smtpd_tls_security_level": "encrypt"},
    "certificates": {**_STARTTLS, "smtpd_tls_ask_ccert": "yes"},
}
"""By name, what is different there from Postfix's main port, which offers neither TLS nor XCLIENT."""


def settings_of_doors(authority: Any, pair: Any) -> Settings:
    """What holds for all the ports: a certificate with its key, and the authority of clients' certificates."""
    return {
        "mynetworks": f"{FRIEND}/32",
        "smtpd_client_port_logging": "yes",
        "smtpd_tls_cert_file": str(pair.cert),
        "smtpd_tls_key_file": str(pair.key),
        "smtpd_tls_CAfile": str(authority.path),
        "smtpd_tls_loglevel": "2",
        "smtpd_tls_received_header": "yes",
    }
