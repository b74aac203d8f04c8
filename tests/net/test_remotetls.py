"""TLS with remotes: what each has to prove, what is noted, what is asked for, and which sessions are resumed."""

import shutil
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from OpenSSL import SSL

from smtpproxy.net.remotetls import TlsVerdict
from smtpproxy.net.tlsfacts import facts_of, verify_error_of
from smtpproxy.session.outbound.target import TlsWish

from .remotepeers import HOST, by_dane, by_route, meet_remote, remote_tls, server_of, target_of, tlsa, with_two_names
from .tlspeers import Report, server_tls, shake

LOOSE = pytest.mark.parametrize("mode", ["opportunistic", "required"])
STRICT = pytest.mark.parametrize("mode", ["verified", "implicit"])
BOTH = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])


# --- what the route says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "wish", "proof", "names", "sni"),
    [
        ({"mode": "none"}, TlsWish.NONE, "nothing", (HOST,), HOST),
        ({}, TlsWish.OPPORTUNISTIC, "nothing", (HOST,), HOST),
        ({"mode": "required"}, TlsWish.REQUIRED, "nothing", (HOST,), HOST),
        ({"mode": "verified"}, TlsWish.VERIFIED, "pkix", (HOST,), HOST),
        ({"mode": "implicit"}, TlsWish.IMPLICIT, "pkix", (HOST,), HOST),
        ({"mode": "verified", "name": "x.example.net"}, TlsWish.VERIFIED, "pkix", ("x.example.net",), "x.example.net"),
        ({"mode": "verified", "sni": "s.example.net"}, TlsWish.VERIFIED, "pkix", (HOST,), "s.example.net"),
        ({"mode": "verified", "pins": ["A" * 43 + "="]}, TlsWish.VERIFIED, "pins", (HOST,), HOST),
    ],
)
def test_what_a_route_demands(settings: Any, wish: TlsWish, proof: str, names: tuple[str, ...], sni: str) -> None:
    security = by_route(HOST + ".", **settings)
    assert (security.wish, security.proof, security.names, security.sni) == (wish, proof, names, sni)


def test_without_a_security_the_route_decides(pki: Any) -> None:
    tls = remote_tls(mode="verified", ca=str(pki.root.path))
    assert meet_remote(tls, server_tls(pki.pair()), target_of())[0] == ""
    why, _ = meet_remote(tls, server_tls(pki.pair(["x.example.net"])), target_of(address="192.0.2.8"))
    assert why == f"the certificate is not for {HOST}"


@LOOSE
@pytest.mark.parametrize(
    ("kind", "noted"),
    [
        ("good", ""),
        ("foreign", "unable to get issuer cert locally"),
        ("expired", "cert has expired"),
        ("client", "invalid purpose"),
        ("misnamed", f"the certificate is not for {HOST}"),
        ("weak", "error 66"),  # a key that is too short: pyOpenSSL has no name for it
    ],
)
@BOTH
def test_where_nothing_must_be_proved_it_is_only_noted(
    pki: Any, mode: str, kind: str, noted: str, version: str
) -> None:
    pair = {
        "good": pki.pair,
        "foreign": lambda: pki.pair(ca=pki.ca("Somebody")),
        "expired": lambda: pki.pair(days=-1),
        "client": lambda: pki.pair(client=True),
        "misnamed": lambda: pki.pair(["x.example.net"]),
        "weak": lambda: pki.pair(key="rsa1024"),
    }[kind]()
    old = {"ciphers": "ALL:@SECLEVEL=0"} if kind == "weak" else {}
    tls, server = remote_tls(mode=mode, ca=str(pki.root.path), versions=[version]), server_tls(pair, **old)
    target = target_of()
    for number in range(3):  # in resumed sessions too
        why, client = meet_remote(tls, server, target)
        assert why == ""
        assert verify_error_of(client) == ""
        assert facts_of(client).resumed == bool(number)
        assert tls.verdict(client) == TlsVerdict("route", not noted, noted)


def test_what_was_noted_is_not_believed_of_a_new_handshake(pki: Any) -> None:
    """The remote has a new certificate, and does not know the session any more."""
    tls, target = remote_tls(ca=str(pki.root.path)), target_of()
    verdicts = []
    for pair in (pki.pair(), pki.pair(days=-1), pki.pair()):
        server = server_tls(pair)
        for _ in range(2):
            _, client = meet_remote(tls, server, target)
            verdicts.append((facts_of(client).resumed, tls.verdict(client).verified))
    assert verdicts == [(False, True), (True, True), (False, False), (True, False), (False, True), (True, True)]


@STRICT
def test_a_chain_that_does_not_hold_ends_the_handshake(pki: Any, mode: str) -> None:
    tls = remote_tls(mode=mode, ca=str(pki.root.path))
    for pair, why in (
        (pki.pair(ca=pki.ca("Somebody")), "unable to get issuer cert locally"),
        (pki.pair(days=-1), "cert has expired"),
    ):
        client = tls.connection(target_of())
        with pytest.raises(SSL.Error, match="certificate verify failed"):
            shake(client, server_tls(pair).connection())
        assert verify_error_of(client) == why
        assert tls.verdict(client) == TlsVerdict("route", verified=False, why=why)


@STRICT
def test_the_name_has_to_be_right(pki: Any, mode: str) -> None:
    tls, server = remote_tls(mode=mode, ca=str(pki.root.path)), server_tls(pki.pair(["x.example.net"]))
    for _ in range(2):  # the session of the wrong server is not remembered
        why, client = meet_remote(tls, server, target_of())
        assert why == verify_error_of(client) == f"the certificate is not for {HOST}"
        assert not facts_of(client).resumed
        assert tls.verdict(client).describe() == f"route: not verified (the certificate is not for {HOST})"
    assert not tls._sessions


def test_one_of_several_names_is_enough(pki: Any) -> None:
    tls = remote_tls(ca=str(pki.root.path))
    security = by_route(mode="verified")
    server = server_tls(pki.pair(["example.org"]))
    both = type(security)(TlsWish.VERIFIED, "pkix", (HOST, "example.org"))
    assert meet_remote(tls, server, target_of(both))[0] == ""
    assert meet_remote(tls, server, target_of(security))[0] == f"the certificate is not for {HOST}"


@STRICT
def test_pins(pki: Any, mode: str) -> None:
    pair, other = pki.pair(["whatever.example.net"], ca=pki.ca("Somebody"), days=-5), pki.pair()
    server = server_tls(pair)
    assert meet_remote(remote_tls(mode=mode, pins=[other.spki_pin, pair.spki_pin]), server, target_of())[0] == ""
    why, _ = meet_remote(remote_tls(mode=mode, pins=[other.spki_pin]), server, target_of())
    assert why == f"the public key {pair.spki_pin} is none of the pins"


def test_before_the_handshake_nobody_is_right() -> None:
    tls = remote_tls()
    for target in (target_of(), target_of(by_route(mode="verified")), target_of(by_dane())):
        client = tls.connection(target)
        loose = tls.security(target).proof == "nothing"
        assert tls.judge(client, target) == ("" if loose else "the server shows no certificate")
        assert tls.verdict(client).why == "the server shows no certificate"
        tls.remember(client, target)
    assert not tls._sessions


def test_a_verdict_in_words() -> None:
    assert TlsVerdict("dane", verified=True, why="").describe() == "dane: verified"
    told = TlsVerdict("route", verified=False, why="cert has expired", note="MTA-STS testing").describe()
    assert told == "route: not verified (cert has expired); MTA-STS testing"


# --- sessions ----------------------------------------------------------------------------------------------------


@BOTH
def test_sessions_are_resumed_for_the_same_address_port_and_demands_only(pki: Any, version: str) -> None:
    pair = pki.pair()
    tls, server = remote_tls(ca=str(pki.root.path), versions=[version]), server_tls(pair)
    strict, dane = by_route(mode="verified"), by_dane(tlsa(pair.certificate, 3, 1, 1))
    targets = [
        target_of(),
        target_of(by_route(mode="required")),
        target_of(strict),
        target_of(dane),
        target_of(by_dane(tlsa(pair.certificate, 3, 1, 2))),
        target_of(strict, address="192.0.2.8"),
        target_of(strict, port=587),
        target_of(by_route(mode="verified", sni="other.example.org")),
        target_of(by_route(mode="verified", name="mx.example.org", sni="another.example.org")),
    ]
    for resumed in (False, True, True):
        for target in targets:
            why, client = meet_remote(tls, server, target)
            assert why == ""
            assert facts_of(client).resumed == resumed


def test_a_session_from_a_weaker_policy_never_counts(pki: Any) -> None:
    """The wrong server was met where it did not matter; where it does, its session is neither offered nor believed."""
    tls, server = remote_tls(ca=str(pki.root.path)), server_tls(pki.pair(ca=pki.ca("Somebody")))
    assert meet_remote(tls, server, target_of())[0] == ""
    client = tls.connection(target_of(by_route(mode="verified")))
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        shake(client, server.connection())
    # Nor with DANE, where the certificates of a resumed session are judged like those of a new one.
    other = by_dane(tlsa(pki.pair().certificate, 3, 1, 1))
    _, met = meet_remote(tls, server, target_of())
    assert facts_of(met).resumed
    assert tls.judge(met, target_of(other)) == "the certificate matches no TLSA record"


@BOTH
@pytest.mark.parametrize("usage", [2, 3])
def test_a_resumed_session_is_judged_by_dane_too(pki: Any, version: str, usage: int) -> None:
    between = pki.ca("Between", parent=pki.root)
    pair = pki.pair(ca=between)
    security = by_dane(tlsa(pair.certificate if usage == 3 else between.certificate, usage, 1, 1))
    tls, server = remote_tls(versions=[version]), server_tls(pair)
    for resumed in (False, True, True):
        why, client = meet_remote(tls, server, target_of(security))
        assert why == ""
        assert facts_of(client).resumed == resumed
        assert tls.verdict(client) == TlsVerdict("dane", verified=True, why="")


def test_nothing_is_remembered_that_was_not_judged(pki: Any) -> None:
    tls, target = remote_tls(), target_of()
    client = tls.connection(target)
    shake(client, server_tls(pki.pair()).connection())
    tls.remember(client, target)
    assert not tls._sessions


# --- what the remote is told, and files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "settings", "sent"),
    [(HOST, {}, HOST), ("192.0.2.7", {}, ""), ("192.0.2.7", {"sni": "s.example.net"}, "s.example.net")],
)
def test_the_name_that_is_sent(pki: Any, host: str, settings: dict[str, Any], sent: str) -> None:
    client, server = remote_tls(**settings).connection(target_of(host=host)), server_tls(pki.pair()).connection()
    shake(client, server)
    assert facts_of(server).servername == sent


def test_our_own_certificate(pki: Any) -> None:
    mine, report = pki.pair(["proxy.example.org"], client=True), Report()
    tls = remote_tls(certificate={"cert": str(mine.cert), "key": str(mine.key)}, report=report)
    assert [told[:3] for told in report.take()] == [("loaded", "route *", str(mine.cert))]
    server = server_tls(pki.pair(), client_certificates={"mode": "require", "ca": str(pki.root.path)})
    client, other = tls.connection(target_of()), server.connection()
    shake(client, other)
    assert facts_of(other).fingerprint == mine.fingerprint


def test_other_authorities_end_all_sessions(pki: Any) -> None:
    one, other = pki.ca("One"), pki.ca("Other")
    place = pki.root.path.with_name("anchors.pem")
    shutil.copyfile(one.path, place)
    tls, server, target = remote_tls(ca=str(place)), server_tls(pki.pair(ca=one)), target_of()
    assert [tls.verdict(meet_remote(tls, server, target)[1]).verified for _ in range(2)] == [True, True]
    shutil.copyfile(other.path, place)
    for _ in range(3):
        tls.reread()
    _, client = meet_remote(tls, server, target)
    assert not facts_of(client).resumed
    assert not tls.verdict(client).verified


def test_early_data_is_never_sent(pki: Any) -> None:
    """Rule C10: what is written before the handshake is done is refused by OpenSSL, resumed session or not."""
    tls, server, target = remote_tls(versions=["TLSv1.3"]), server_tls(pki.pair()), target_of()
    meet_remote(tls, server, target)
    client = tls.connection(target)
    with pytest.raises(SSL.WantReadError):
        client.send(b"EHLO me\r\n")
    hello = client.bio_read(65536)
    assert b"\x00\x2a\x00\x00" not in hello  # the extension early_data (42), which is empty
    assert b"EHLO" not in hello


# --- certificates that OpenSSL understands, and cryptography does not ------------------------------------------------


def test_a_certificate_that_cannot_be_understood(pki: Any) -> None:
    tls, target = remote_tls(), target_of()
    client = tls.connection(target)
    shake(client, server_of(with_two_names(pki)))
    assert tls.judge(client, target) == ""
    assert not tls.verdict(client).verified
    why = tls.judge(client, target_of(by_route(mode="verified")))
    assert why.startswith(f"the certificate has no name that could be compared with {HOST}: Duplicate")
    assert verify_error_of(client) == why


def test_whatever_is_wrong_it_is_only_the_remotes_fault(pki: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tls, target = remote_tls(), target_of()
    client = tls.connection(target)
    shake(client, server_tls(pki.pair()).connection())

    def odd(*_: Any, **__: Any) -> None:
        raise UnsupportedAlgorithm("a key of tomorrow")

    monkeypatch.setattr(SSL.Connection, "get_peer_certificate", odd)
    monkeypatch.setattr(SSL.Connection, "get_peer_cert_chain", odd)
    for security in (by_route(mode="verified"), by_dane()):
        assert tls.judge(client, target_of(security)) == "the certificate cannot be understood: a key of tomorrow"
    assert tls.judge(client, target) == ""
    assert not tls.verdict(client).verified
