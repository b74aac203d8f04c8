"""From the configuration to what sessions go by: what S14 demands of each way to tell a server who the client is."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from smtpproxy.net.policies import CONNECTION_BOUND, relay_policy, waits
from smtpproxy.session.policy import BackendTls, RelayPolicy
from smtpproxy.smtp.commands import Wait

from .stage import backend, listener

IDENTITIES = ("auto", "xclient", "proxy-v1", "proxy-v2", "source-address", "xforward", "none")
OURS = frozenset({"example.org"})
NOWHERE: frozenset[str] = frozenset()
ANY = None
LISTED: dict[str, Any] = {"listed": ["example.org"], "any": "any", "left out": ()}
MODES = ("none", "starttls", "starttls-required", "implicit")
PAIR = {"cert": "mx.pem", "key": "mx.key"}


def policy(
    identity: str = "none",
    domains: Any = ("example.org",),
    *,
    with_address: bool = True,
    secure: bool = False,
    trusted: bool = False,
    backend_tls: str = "none",
    **settings: Any,
) -> RelayPolicy:
    return relay_policy(
        listener(recipient_domains=domains, **settings),
        backend(identity=identity, tls={"mode": backend_tls}),
        secure=secure,
        trusted=trusted,
        with_address=with_address,
    )


# --- S14 ------------------------------------------------------------------------------------------------------------

# The recipients that pass whatever the server knows, those that pass where it was not told, and whether a client is
# turned away where it was not. By identity, and by what recipient_domains is.
S14: dict[tuple[str, str], tuple[frozenset[str] | None, frozenset[str] | None, bool]] = {
    # It decides in the session whether the server was told.
    ("auto", "listed"): (ANY, OURS, False),
    ("auto", "any"): (ANY, ANY, False),
    ("auto", "left out"): (ANY, NOWHERE, True),
    # The server is told, or there is no session.
    ("xclient", "listed"): (OURS, ANY, True),
    ("xclient", "any"): (ANY, ANY, True),
    ("xclient", "left out"): (ANY, ANY, True),
    # The connection tells.
    **{(each, "listed"): (OURS, ANY, False) for each in sorted(CONNECTION_BOUND)},
    **{(each, "any"): (ANY, ANY, False) for each in sorted(CONNECTION_BOUND)},
    **{(each, "left out"): (ANY, ANY, False) for each in sorted(CONNECTION_BOUND)},
    # The server takes everybody for the proxy (XFORWARD only changes its log).
    **{(each, "listed"): (OURS, ANY, False) for each in ("xforward", "none")},
    **{(each, "any"): (ANY, ANY, False) for each in ("xforward", "none")},
    **{(each, "left out"): (NOWHERE, ANY, False) for each in ("xforward", "none")},
}


def test_the_table_is_complete() -> None:
    assert set(S14) == set(product(IDENTITIES, LISTED))


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(("identity", "domains"), S14)
def test_s14_whose_mail_is_passed_on(identity: str, domains: str, *, secure: bool) -> None:
    always, untold, required = S14[identity, domains]
    made = policy(identity, LISTED[domains], secure=secure)
    assert made.recipient_domains == always
    assert made.fallback_domains == untold
    assert made.introduction_required == required
    assert made.introduces == (identity in {"auto", "xclient"})
    assert made.forwards == (identity == "xforward")


@pytest.mark.parametrize(("identity", "domains"), S14)
def test_s14_a_client_without_an_address_is_not_told_of_by_a_connection(identity: str, domains: str) -> None:
    """Such a connection looks to the server as if it were the proxy's own."""
    always, untold, required = S14[identity, domains]
    if identity in CONNECTION_BOUND:
        always = {"listed": OURS, "any": ANY, "left out": NOWHERE}[domains]
    made = policy(identity, LISTED[domains], with_address=False)
    assert (made.recipient_domains, made.fallback_domains, made.introduction_required) == (always, untold, required)


@pytest.mark.parametrize(("identity", "domains"), S14)
def test_s14_nobody_relays_by_accident(identity: str, domains: str) -> None:
    """Where any recipient passes, somebody wrote ``any``, or the server knows the client, or there is no session."""
    made = policy(identity, LISTED[domains])
    told = made.introduction_required or identity in CONNECTION_BOUND
    anybody = made.recipient_domains is None and (made.fallback_domains is None or not made.introduces)
    assert not anybody or told or domains == "any"


# --- TLS and AUTH ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("auth", ["tls", "always", "never"])
@pytest.mark.parametrize("mode", MODES)
def test_tls_and_auth(mode: str, auth: str, *, secure: bool) -> None:
    made = policy(tls={"mode": mode, "certificates": [PAIR]}, auth=auth, secure=secure)
    assert made.secure is secure
    assert made.starttls == (mode in {"starttls", "starttls-required"} and not secure)
    assert made.starttls_required == (mode == "starttls-required" and not secure)
    taken = {"tls": secure, "always": True, "never": False}[auth]
    told = made.extensions.adapt(b"250-mx.example.org\r\n250-AUTH PLAIN\r\n250-AUTH=PLAIN\r\n250 STARTTLS\r\n")[1]
    reply = told.reply(b"mx", early=False)
    assert (b"STARTTLS\r\n" in reply) == made.starttls
    assert b"AUTH=" not in reply
    if made.starttls_required:
        assert b"AUTH" not in reply, "it is not taken before TLS, so a client is not led to send its password"
    else:
        assert (b"AUTH PLAIN\r\n" in reply) == made.auth == taken


@pytest.mark.parametrize("trusted", [False, True])
def test_h6_xclient_is_offered_to_those_who_are_believed(*, trusted: bool) -> None:
    made = policy(trusted=trusted)
    assert made.trusts_xclient is trusted
    told = made.extensions.adapt(b"250-mx.example.org\r\n250 XCLIENT NAME ADDR\r\n")[1]
    offered = b"XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n" in told.reply(b"mx", early=False)
    assert offered is trusted
    assert (b"XCLIENT" in told.reply(b"mx", early=False)) is trusted


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("none", BackendTls.NONE),
        ("starttls", BackendTls.IF_OFFERED),
        ("starttls-required", BackendTls.REQUIRED),
        ("implicit", BackendTls.NONE),  # of the connection's own making
    ],
)
def test_starttls_with_the_server(mode: str, wanted: BackendTls) -> None:
    made = policy(backend_tls=mode)
    assert made.backend_tls is wanted
    assert made.stranger == (wanted is not BackendTls.NONE)
    assert policy("auto", backend_tls=mode).stranger


# --- time -----------------------------------------------------------------------------------------------------------


def test_each_handshake_has_its_own_time() -> None:
    times = waits(
        listener(timeouts={"tls_handshake": 11.0, "command": 1.0}),
        backend(timeouts={"tls_handshake": 22.0, "greeting": 2.0}),
    )
    assert (times[Wait.CLIENT_TLS], times[Wait.BACKEND_TLS]) == (11.0, 22.0)
    assert (times[Wait.COMMAND], times[Wait.GREETING]) == (1.0, 2.0)
    assert len(times) == len(Wait)
