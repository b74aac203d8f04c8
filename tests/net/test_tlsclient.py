"""TLS towards backends: whether the server is who it should be, what it is told, and sessions."""

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreContext, X509StoreContextError

from smtpproxy.net.tlsclient import spki_pin
from smtpproxy.net.tlsfacts import facts_of, verify_error_of
from smtpproxy.net.tlsserver import TlsError

from .remotepeers import server_of, with_two_names
from .tlspeers import Report, client_tls, days_from_now, meet_and_judge, meet_backend, server_tls, shake

HOST = "mx.example.org"


# --- who the server is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "host", "verdict"),
    [
        (["mx.example.org"], "mx.example.org", ""),
        (["mx.example.org"], "MX.Example.ORG", ""),
        (["*.example.org"], "mx.example.org", ""),
        (["*.example.org"], "a.mx.example.org", "the certificate is not for a.mx.example.org"),
        (["other.example.org"], "mx.example.org", "the certificate is not for mx.example.org"),
        (["192.0.2.7"], "192.0.2.7", ""),
        (["192.0.2.7"], "192.0.2.8", "the certificate is not for 192.0.2.8"),
        (["mx.example.org"], "192.0.2.7", "the certificate is not for 192.0.2.7"),
        (["2001:db8::7"], "2001:db8:0::7", ""),
        (["192.0.2.7"], "mx.example.org", "the certificate is not for mx.example.org"),
    ],
)
def test_the_name(pki: Any, names: list[str], host: str, verdict: str) -> None:
    tls = client_tls(verify="name", ca=str(pki.root.path))
    assert meet_and_judge(tls, server_tls(pki.pair(names)), host) == verdict


def test_a_common_name_is_no_name(pki: Any) -> None:
    tls = client_tls(verify="name", ca=str(pki.root.path))
    verdict = meet_and_judge(tls, server_tls(pki.pair([], common_name=HOST)))
    assert verdict.startswith("the certificate has no name that could be compared with mx.example.org")


def test_a_certificate_that_cannot_be_understood(pki: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the server's fault, and no exception."""
    tls = client_tls(verify="name", ca=str(pki.root.path))
    client = client_tls(verify="none").connection(HOST)
    shake(client, server_of(with_two_names(pki)))
    assert tls.judge(client, HOST).startswith(f"the certificate has no name that could be compared with {HOST}")

    def odd(*_: Any, **__: Any) -> None:
        raise UnsupportedAlgorithm("a key of tomorrow")

    monkeypatch.setattr(SSL.Connection, "get_peer_certificate", odd)
    assert tls.judge(client, HOST) == "the certificate cannot be understood: a key of tomorrow"


def test_another_name_can_be_expected(pki: Any) -> None:
    tls = client_tls(verify="name", ca=str(pki.root.path), name="legacy.example.org")
    server = server_tls(pki.pair(), pki.pair(["legacy.example.org"]))
    assert meet_and_judge(tls, server, "10.0.0.1") == ""
    assert meet_and_judge(tls, server_tls(pki.pair()), HOST) == "the certificate is not for legacy.example.org"


@pytest.mark.parametrize("verify", ["ca", "name"])
def test_a_chain_that_does_not_verify_ends_the_handshake(pki: Any, verify: str) -> None:
    tls = client_tls(verify=verify, ca=str(pki.root.path))
    for pair, why in (
        (pki.pair(ca=pki.ca("Somebody")), "unable to get issuer cert locally"),
        (pki.pair(days=-1), "cert has expired"),
        (pki.pair(client=True), "invalid purpose"),
    ):
        client = tls.connection(HOST)
        with pytest.raises(SSL.Error, match="certificate verify failed"):
            shake(client, server_tls(pair).connection())
        assert verify_error_of(client) == why
    client = tls.connection(HOST)
    shake(client, server_tls(pki.pair()).connection())
    assert verify_error_of(client) == ""


def test_ca_without_the_name(pki: Any) -> None:
    tls = client_tls(verify="ca", ca=str(pki.root.path))
    assert meet_and_judge(tls, server_tls(pki.pair(["whatever.example.net"]))) == ""


def test_an_intermediate_authority_is_an_anchor_of_its_own(pki: Any) -> None:
    between = pki.ca("Between", parent=pki.root)
    tls = client_tls(verify="name", ca=str(between.path))
    assert meet_and_judge(tls, server_tls(pki.pair(ca=between))) == ""
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        meet_backend(tls, server_tls(pki.pair()))


def test_a_servers_own_certificate_is_an_anchor_too(pki: Any) -> None:
    """The old mail server with its self-signed certificate, or any other that is known by heart."""
    pair = pki.pair()
    assert meet_and_judge(client_tls(verify="name", ca=str(pair.cert)), server_tls(pair)) == ""


def test_nothing_is_verified(pki: Any) -> None:
    assert (
        meet_and_judge(client_tls(verify="none"), server_tls(pki.pair(["x.example.net"], ca=pki.ca("Somebody")))) == ""
    )


def test_pins(pki: Any) -> None:
    pair, other = pki.pair(["whatever.example.net"], ca=pki.ca("Somebody"), days=-5), pki.pair(key="rsa")
    assert spki_pin(pair.certificate) == pair.spki_pin
    server = server_tls(pair)
    assert meet_and_judge(client_tls(verify="pins", pins=[other.spki_pin, pair.spki_pin]), server) == ""
    verdict = meet_and_judge(client_tls(verify="pins", pins=[other.spki_pin]), server)
    assert verdict == f"the public key {pair.spki_pin} is none of the pins"


@pytest.mark.parametrize("verify", ["name", "pins"])
def test_a_resumed_session_is_judged_too(pki: Any, verify: str) -> None:
    pair = pki.pair()
    more = {"pins": [pair.spki_pin]} if verify == "pins" else {"ca": str(pki.root.path)}
    tls, server = client_tls(verify=verify, **more), server_tls(pair)
    assert meet_and_judge(tls, server) == ""
    client = meet_backend(tls, server)
    assert facts_of(client).resumed
    assert tls.judge(client, HOST) == ""
    other = client_tls(verify="name", ca=str(pki.root.path), name="other.example.org")
    assert other.judge(client, HOST) == "the certificate is not for other.example.org"


def test_before_the_handshake_nobody_is_right(pki: Any) -> None:
    tls = client_tls(verify="name", ca=str(pki.root.path))
    assert tls.judge(tls.connection(HOST), HOST) == "the server shows no certificate"


def test_the_systems_authorities(pki: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL's own variable says where they are; else where the system has them."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.root.path))
    tls = client_tls(ca="system")
    assert meet_and_judge(tls, server_tls(pki.pair())) == ""
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        meet_backend(tls, server_tls(pki.pair(ca=pki.ca("Somebody"))))


SYSTEM = Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.mark.skipif(not SYSTEM.exists(), reason="this system keeps its authorities elsewhere")
def test_the_systems_own_authorities(pki: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    tls = client_tls(ca="system")  # kept: pyOpenSSL's store is gone with its context
    store = tls._context.get_cert_store()
    assert store is not None
    first = SYSTEM.read_bytes().partition(b"-----END CERTIFICATE-----")
    authority = X509.from_cryptography(x509.load_pem_x509_certificate(first[0] + first[1]))
    X509StoreContext(store, authority).verify_certificate()
    with pytest.raises(X509StoreContextError):
        X509StoreContext(store, X509.from_cryptography(pki.root.certificate)).verify_certificate()


@pytest.mark.skipif(not SYSTEM.exists(), reason="this system keeps its authorities elsewhere")
def test_a_whole_bundle_as_ca(pki: Any) -> None:
    """In the bundles of systems are certificates that break rules of today; nothing is said about it."""
    bundle = pki.root.path.with_name("bundle.pem")
    bundle.write_bytes(SYSTEM.read_bytes() + pki.root.path.read_bytes())
    assert meet_and_judge(client_tls(ca=str(bundle)), server_tls(pki.pair())) == ""


# --- what the server is told -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "host", "sent"),
    [
        ({}, "mx.example.org", "mx.example.org"),
        ({}, "192.0.2.7", ""),
        ({}, "2001:db8::7", ""),
        ({}, "mx.example.org.", "mx.example.org"),
        ({}, "/run/legacy.sock", ""),
        ({}, "", ""),
        ({"name": "legacy.example.org"}, "192.0.2.7", "legacy.example.org"),
        ({"name": "192.0.2.9"}, "mx.example.org", ""),
        ({"sni": "sni.example.org"}, "192.0.2.7", "sni.example.org"),
        ({"sni": "sni.example.org", "name": "legacy.example.org"}, "mx.example.org", "sni.example.org"),
    ],
)
def test_the_name_that_is_sent(pki: Any, settings: dict[str, Any], host: str, sent: str) -> None:
    client, server = client_tls(verify="none", **settings).connection(host), server_tls(pki.pair()).connection()
    shake(client, server)
    assert facts_of(server).servername == sent


def test_our_own_certificate(pki: Any) -> None:
    mine = pki.pair(["proxy.example.org"], client=True)
    report = Report()
    tls = client_tls(verify="none", certificate={"cert": str(mine.cert), "key": str(mine.key)}, report=report)
    end = mine.certificate.not_valid_after_utc
    assert report.take() == [("loaded", "backend legacy", str(mine.cert), ("proxy.example.org",), end)]
    server = server_tls(pki.pair(), client_certificates={"mode": "require", "ca": str(pki.root.path)})
    client, other = tls.connection(HOST), server.connection()
    shake(client, other)
    assert facts_of(other).fingerprint == mine.fingerprint


def test_facts_of_our_side(pki: Any) -> None:
    facts = facts_of(meet_backend(client_tls(verify="ca", ca=str(pki.root.path)), server_tls(pki.pair())))
    assert (facts.version, facts.servername) == ("TLSv1.3", HOST)
    assert facts[5:] == ("", "", False, "")


# --- what is wrong -----------------------------------------------------------------------------------------------


def test_files_that_cannot_be_used(pki: Any) -> None:
    pair, other = pki.pair(), pki.pair()
    with pytest.raises(TlsError, match=r"missing\.pem: cannot be read: No such file or directory$"):
        client_tls(ca=str(pki.root.path.with_name("missing.pem")))
    with pytest.raises(TlsError, match="does not belong to it"):
        client_tls(verify="none", certificate={"cert": str(pair.cert), "key": str(other.key)})
    weak = pki.pair(key="rsa1024")
    with pytest.raises(TlsError, match=r"refused by OpenSSL: ee key too small$"):
        client_tls(verify="none", certificate={"cert": str(weak.cert), "key": str(weak.key)})
    with pytest.raises(TlsError, match=r"^ciphers: not a list that OpenSSL"):
        client_tls(verify="none", ciphers="NOSUCH")


def test_an_authority_that_is_not_needed_is_not_read(pki: Any) -> None:
    missing = str(pki.root.path.with_name("missing.pem"))
    assert meet_and_judge(client_tls(verify="none", ca=missing), server_tls(pki.pair())) == ""


def test_what_ends_soon_is_reported(pki: Any) -> None:
    mine, report = pki.pair(["proxy.example.org"], client=True, days=5), Report()
    tls = client_tls(ca=str(pki.root.path), certificate={"cert": str(mine.cert), "key": str(mine.key)}, report=report)
    report.take()
    tls.warn_of_expiry()
    end = mine.certificate.not_valid_after_utc
    assert report.take() == [("expires", "backend legacy", str(mine.cert), end, 5)]
    tls._now = days_from_now(4000)
    tls.warn_of_expiry()
    assert [told[2] for told in report.take()] == [str(pki.root.path), str(mine.cert)]


def test_old_servers(pki: Any) -> None:
    report = Report()
    tls = client_tls(verify="none", profile="old", versions=["TLSv1", "TLSv1.1"], report=report)
    assert report.take() == [("old", "backend legacy")]
    client = meet_backend(tls, server_tls(pki.pair(key="rsa"), profile="old"))
    assert facts_of(client).version == "TLSv1.1"
    with pytest.raises(SSL.Error):
        meet_backend(tls, server_tls(pki.pair(key="rsa")))
