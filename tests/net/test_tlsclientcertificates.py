"""Certificates of clients: off, asked for, required; verified or not; and in resumed sessions."""

from typing import Any

import pytest
from OpenSSL import SSL

from smtpproxy.net.tlsfacts import MOST_REMEMBERED, Trust, Verified, facts_of, verify_error_of

from .tlspeers import a_client, a_connection, meet, server_tls, shake

TLS12 = (SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)
TLS13 = (SSL.TLS1_3_VERSION, SSL.TLS1_3_VERSION)
BOTH = pytest.mark.parametrize("versions", [TLS12, TLS13], ids=["1.2", "1.3"])


def asking(pki: Any, mode: str, **more: Any) -> Any:
    clients = {"mode": mode, "ca": str(pki.root.path), **more}
    return server_tls(pki.pair(), pki.pair(["mail.example.net"]), client_certificates=clients)


@BOTH
@pytest.mark.parametrize("mode", ["ask", "require"])
@pytest.mark.parametrize("name", [b"", b"mail.example.net"])
def test_a_good_client_certificate(pki: Any, versions: tuple[int, int], mode: str, name: bytes) -> None:
    mine = pki.pair(["client.example.com"], client=True)
    tls = asking(pki, mode)
    context = a_client(versions=versions, certificate=mine)
    met = meet(tls, context, name)
    for _ in range(3):
        assert met.facts.verified
        assert met.facts.verify_error == ""
        assert met.facts.subject == "CN=client.example.com"
        assert met.facts.fingerprint == mine.fingerprint
        met = meet(tls, context, name, met.session)
        assert met.facts.resumed


@BOTH
def test_an_intermediate_of_the_client(pki: Any, versions: tuple[int, int]) -> None:
    mine = pki.pair(["client.example.com"], client=True, ca=pki.ca("Between", parent=pki.root))
    tls = asking(pki, "ask")
    context = a_client(versions=versions, certificate=mine)
    met = meet(tls, context)
    assert met.facts.verified
    again = meet(tls, context, session=met.session)
    assert again.facts.resumed
    assert again.facts.verified


@BOTH
@pytest.mark.parametrize("mode", ["ask", "require"])
def test_no_client_certificate(pki: Any, versions: tuple[int, int], mode: str) -> None:
    tls = asking(pki, mode)
    context = a_client(versions=versions)
    if mode == "require":
        server = tls.connection()
        with pytest.raises(SSL.Error, match="peer did not return a certificate"):
            shake(a_connection(context), server)
        assert verify_error_of(server) == ""
        return
    met = meet(tls, context)
    for _ in range(2):
        assert met.facts[5:] == ("", "", False, "")
        met = meet(tls, context, session=met.session)
        assert met.facts.resumed


BAD = {
    "foreign": "unable to get issuer cert locally",
    "expired": "cert has expired",
    "server": "invalid purpose",
}


def bad_certificate(pki: Any, kind: str) -> Any:
    if kind == "foreign":
        return pki.pair(["client.example.com"], client=True, ca=pki.ca("Somebody"))
    if kind == "expired":
        return pki.pair(["client.example.com"], client=True, days=-2)
    return pki.pair(["client.example.com"], client=False)


@BOTH
@pytest.mark.parametrize("kind", ["foreign", "expired", "server"])
def test_a_bad_client_certificate_where_one_is_asked_for(pki: Any, versions: tuple[int, int], kind: str) -> None:
    """Also in a resumed session, in which OpenSSL itself would say that it has been verified."""
    mine = bad_certificate(pki, kind)
    tls = asking(pki, "ask", logins={mine.fingerprint: "branch"})
    context = a_client(versions=versions, certificate=mine)
    met = meet(tls, context)
    assert met.facts[5:] == ("", mine.fingerprint, False, BAD[kind])
    for _ in range(2):
        met = meet(tls, context, session=met.session)
        assert met.facts.resumed
        assert met.facts[5:] == ("", mine.fingerprint, False, "of a resumed session, and not known as verified")
        assert tls.login(met.facts) == ""


@BOTH
@pytest.mark.parametrize("kind", ["foreign", "expired", "server"])
def test_a_bad_client_certificate_where_one_is_required(pki: Any, versions: tuple[int, int], kind: str) -> None:
    tls = asking(pki, "require")
    client = a_connection(a_client(versions=versions, certificate=bad_certificate(pki, kind)))
    server = tls.connection()
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        shake(client, server)
    assert verify_error_of(server) == BAD[kind]


def test_the_verdict_on_one_client_says_nothing_about_another(pki: Any) -> None:
    good = pki.pair(["good.example.com"], client=True)
    bad = pki.pair(["bad.example.com"], client=True, ca=pki.ca("Somebody"))
    tls = asking(pki, "ask")
    first, second = a_connection(a_client(certificate=bad)), a_connection(a_client(certificate=good))
    servers = [tls.connection(), tls.connection()]
    for client, server in ((first, servers[0]), (second, servers[1])):
        shake(client, server)
    assert [facts_of(server).verified for server in servers] == [False, True]


@BOTH
def test_the_client_is_told_whose_certificates_are_taken(pki: Any, versions: tuple[int, int]) -> None:
    tls = asking(pki, "ask")
    met = meet(tls, a_client(versions=versions), b"mail.example.net")
    names = met.client.get_client_ca_list(as_cryptography=True)
    assert [name.rfc4514_string() for name in names] == ["CN=Test CA"]


def test_where_none_is_asked_for_none_is_seen(pki: Any) -> None:
    mine = pki.pair(["client.example.com"], client=True)
    assert meet(server_tls(pki.pair()), a_client(certificate=mine)).facts[5:] == ("", "", False, "")


def test_logins_are_for_verified_certificates_only(pki: Any) -> None:
    known, unknown = (pki.pair([name], client=True) for name in ("known.example.com", "unknown.example.com"))
    spelt = ":".join(known.fingerprint[at : at + 2] for at in range(0, 64, 2)).upper()
    tls = asking(pki, "require", logins={spelt: "branch office"})
    assert dict(tls.logins) == {known.fingerprint: "branch office"}
    assert tls.login(meet(tls, a_client(certificate=known)).facts) == "branch office"
    assert tls.login(meet(tls, a_client(certificate=unknown)).facts) == ""
    facts = meet(tls, a_client(certificate=known)).facts
    assert tls.login(facts._replace(verified=False)) == ""


def test_the_memory_of_verified_certificates_is_bounded() -> None:
    trust = Trust(always=False)
    seen, unseen = Verified(), Verified()
    seen.error = ""
    for number in range(MOST_REMEMBERED + 1):
        assert trust.error(seen, f"{number}") == ""
    assert trust.error(unseen, "1") == ""
    assert trust.error(unseen, "0") == "of a resumed session, and not known as verified"
