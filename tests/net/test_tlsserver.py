"""TLS towards clients: which certificate, which protocol, whose certificate; sessions; files that change."""

import gc
import weakref
from typing import Any

import pytest
from OpenSSL import SSL

from smtpproxy.net.tlsserver import ForeignProtocolError, TlsError

from .tlspeers import (
    Met,
    Report,
    a_client,
    a_connection,
    carry,
    listener_tls,
    meet,
    say,
    server_tls,
    shake,
)

TLS12 = (SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)
TLS13 = (SSL.TLS1_3_VERSION, SSL.TLS1_3_VERSION)
BOTH = pytest.mark.parametrize("versions", [TLS12, TLS13], ids=["1.2", "1.3"])
RSA_ONLY = b"ECDHE-RSA-AES128-GCM-SHA256"


def test_a_client_that_asks_for_nothing(pki: Any) -> None:
    pair = pki.pair()
    met = meet(server_tls(pair))
    assert met.shown == pair.certificate
    assert met.facts.version == "TLSv1.3"
    assert met.facts.cipher.startswith("TLS_")
    assert met.facts[2:] == (False, "", "", "", "", False, "")


# --- names -------------------------------------------------------------------------------------------------------


@BOTH
def test_the_certificate_is_the_one_for_the_name(pki: Any, versions: tuple[int, int]) -> None:
    pairs = {name: pki.pair([name]) for name in ("mx.example.org", "mail.example.net", "*.example.com")}
    tls = server_tls(*pairs.values())
    context = a_client(versions=versions)
    for asked, shown in (
        (b"mail.example.net", "mail.example.net"),
        (b"MAIL.Example.NET", "mail.example.net"),
        (b"anything.example.com", "*.example.com"),
        (b"two.labels.example.com", "mx.example.org"),
        (b"unheard.of", "mx.example.org"),
        (b"", "mx.example.org"),
    ):
        met = meet(tls, context, asked)
        assert met.shown == pairs[shown].certificate, asked
        assert met.facts.servername == asked.decode()


@BOTH
def test_rsa_and_ecdsa_side_by_side_each_with_its_chain(pki: Any, versions: tuple[int, int]) -> None:
    signers = {kind: pki.ca(f"Intermediate {kind}", parent=pki.root) for kind in ("ecdsa", "rsa")}
    pairs = {kind: pki.pair(key=kind, ca=signer) for kind, signer in signers.items()}
    tls = server_tls(*pairs.values())
    for kind, ciphers in (("ecdsa", b"ECDHE-ECDSA-AES128-GCM-SHA256:" + RSA_ONLY), ("rsa", RSA_ONLY)):
        if versions == TLS13 and kind == "rsa":
            continue  # there the client's signature algorithms decide, which pyOpenSSL cannot set
        met = meet(tls, a_client(versions=versions, ciphers=ciphers), b"mx.example.org")
        assert met.chain == [pairs[kind].certificate, *signers[kind].chain]
        assert met.shown == met.chain[0]


# --- sessions ----------------------------------------------------------------------------------------------------


def resumptions(tls: Any, context: SSL.Context, number: int = 20, name: bytes = b"mx.example.org") -> list[bool]:
    first = meet(tls, context, name)
    assert not first.facts.resumed
    return [meet(tls, context, name, first.session).facts.resumed for _ in range(number)]


@BOTH
@pytest.mark.parametrize("name", [b"", b"mx.example.org"])
def test_every_session_is_resumed(pki: Any, versions: tuple[int, int], name: bytes) -> None:
    tls = server_tls(pki.pair())
    assert resumptions(tls, a_client(versions=versions), name=name) == [True] * 20


@BOTH
def test_without_tickets_none_is_resumed(pki: Any, versions: tuple[int, int]) -> None:
    tls = server_tls(pki.pair(), tickets=False)
    assert resumptions(tls, a_client(versions=versions)) == [False] * 20


@BOTH
def test_a_chain_of_resumptions(pki: Any, versions: tuple[int, int]) -> None:
    tls = server_tls(pki.pair())
    context = a_client(versions=versions)
    met = meet(tls, context, b"mx.example.org")
    for _ in range(5):
        met = meet(tls, context, b"mx.example.org", met.session)
        assert met.facts.resumed
        assert met.facts.servername == "mx.example.org"


def test_early_data_is_not_offered(pki: Any) -> None:
    met = meet(server_tls(pki.pair()), a_client(versions=TLS13))
    assert met.session is not None
    lib: Any = getattr(SSL, "_lib")  # noqa: B009  (a private name of pyOpenSSL, which has no public one)
    assert lib.SSL_SESSION_get_max_early_data(met.session._session) == 0


def test_another_listener_takes_no_session(pki: Any) -> None:
    pair = pki.pair()
    one, other = server_tls(pair), server_tls(pair)
    context = a_client()
    met = meet(one, context)
    assert not meet(other, context, session=met.session).facts.resumed


# --- protocols ---------------------------------------------------------------------------------------------------


@BOTH
def test_alpn(pki: Any, versions: tuple[int, int]) -> None:
    tls = server_tls(pki.pair())
    for offered, taken in (
        ([b"smtp"], "smtp"),
        ([b"h2", b"esmtp"], "esmtp"),
        ([b"esmtp", b"smtp"], "smtp"),
        ([], ""),
    ):
        met = meet(tls, a_client(versions=versions, alpn=offered))
        assert met.facts.alpn == taken
        assert met.client.get_alpn_proto_negotiated() == taken.encode()


@BOTH
@pytest.mark.parametrize("name", [b"", b"mx.example.org", b"mail.example.net"])
def test_only_foreign_protocols(pki: Any, versions: tuple[int, int], name: bytes) -> None:
    tls = server_tls(pki.pair(), pki.pair(["mail.example.net"]))
    client = a_connection(a_client(versions=versions, alpn=[b"h2", b"http/1.1"]), name)
    server = tls.connection()
    with pytest.raises(ForeignProtocolError, match=r"other protocols \(ALPN\): h2, http/1\.1$"):
        shake(client, server)
    with pytest.raises(SSL.Error, match="no application protocol"):
        client.do_handshake()
    # Neither OpenSSL's queue of errors nor pyOpenSSL's list of exceptions is left with something for others.
    assert meet(tls, name=name).facts.version == "TLSv1.3"


def test_the_names_of_foreign_protocols_are_bounded_and_shown_as_ascii(pki: Any) -> None:
    client = a_connection(a_client(alpn=[b"\xff\n", b"x" * 255, b"y" * 255]))
    with pytest.raises(ForeignProtocolError) as caught:
        shake(client, server_tls(pki.pair()).connection())
    assert str(caught.value).endswith(r": \xff" + "\n, " + "x" * 96)


def test_other_names_can_be_configured(pki: Any) -> None:
    tls = server_tls(pki.pair(), alpn=["submission"])
    assert meet(tls, a_client(alpn=[b"smtp", b"submission"])).facts.alpn == "submission"
    with pytest.raises(ForeignProtocolError):
        meet(tls, a_client(alpn=[b"smtp"]))


# --- what is wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage", [b"EHLO me\r\n" * 10, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 99]
)
def test_garbage_instead_of_a_handshake(pki: Any, garbage: bytes) -> None:
    tls = server_tls(pki.pair())
    server = tls.connection()
    server.bio_write(garbage)
    with pytest.raises(SSL.Error):
        server.do_handshake()
    assert meet(tls).facts.version == "TLSv1.3"


def test_renegotiation_is_refused(pki: Any) -> None:
    tls = server_tls(pki.pair())
    client, server = a_connection(a_client(versions=TLS12)), tls.connection()
    shake(client, server)
    assert client.renegotiate()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    carry(client, server)
    with pytest.raises(SSL.WantReadError):
        server.recv(100)
    carry(server, client)
    with pytest.raises(SSL.Error, match="no renegotiation"):
        client.do_handshake()
    assert server.total_renegotiations() == 0


def test_compression_is_off_and_versions_are_the_profiles(pki: Any) -> None:
    tls = server_tls(pki.pair(key="rsa"))
    too_old = a_client(versions=(SSL.TLS1_VERSION, SSL.TLS1_1_VERSION), ciphers=b"ALL:@SECLEVEL=0")
    with pytest.raises(SSL.Error, match="unsupported protocol"):
        meet(tls, too_old)


def test_a_listener_without_certificates_is_a_mistake() -> None:
    with pytest.raises(TlsError, match=r"^certificates: none, but a server needs one$"):
        server_tls()


def test_a_certificate_that_cannot_be_used(pki: Any) -> None:
    weak = pki.pair(key="rsa1024")
    with pytest.raises(TlsError) as caught:
        server_tls(weak)
    assert caught.value.path == str(weak.cert)
    assert caught.value.why == "refused by OpenSSL: ee key too small"
    report = Report()
    assert meet(server_tls(weak, report=report, profile="old"), a_client(ciphers=b"ALL:@SECLEVEL=0")).shown
    assert ("old", "listener mx") in report.told


# --- what is left behind -----------------------------------------------------------------------------------------


def test_a_connection_leaves_nothing_behind(pki: Any) -> None:
    """No cycles: it goes with its last reference, and contexts that are no longer in use go too."""
    mine = pki.pair(["client.example.com"], client=True)
    pair = pki.pair()
    tls = server_tls(pair, client_certificates={"mode": "ask", "ca": str(pki.root.path)})
    contexts = [weakref.ref(context) for context in (tls.parts.front.context, *tls.parts.choice.made.values())]
    gc.disable()
    try:
        met: Met | None = meet(tls, a_client(certificate=mine))
        assert met is not None
        connection = weakref.ref(met.server)
        del met
        assert connection() is None
        failing = tls.connection()
        connection = weakref.ref(failing)
        with pytest.raises(ForeignProtocolError):
            shake(a_connection(a_client(alpn=[b"h2"])), failing)
        del failing
    finally:
        gc.enable()
    gc.collect()
    assert connection() is None
    del tls
    gc.collect()
    assert [context() for context in contexts] == [None, None]


def test_settings_are_the_configurations(pki: Any) -> None:
    assert listener_tls(pki.pair()).alpn == ("smtp", "esmtp")
    client, server = a_connection(a_client()), server_tls(pki.pair()).connection()
    shake(client, server)
    assert say(client, server, b"x" * 5000) == b"x" * 5000
