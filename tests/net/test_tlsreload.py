"""What a new ServerTls takes over from the one before it: sessions, and contents of files that are broken now."""

from typing import Any

import pytest
from cryptography import x509
from OpenSSL import SSL

from smtpproxy.net.tlsserver import ServerTls, TlsError

from .tlspeers import Report, a_client, meet, server_tls

TLS12 = (SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)
TLS13 = (SSL.TLS1_3_VERSION, SSL.TLS1_3_VERSION)
BOTH = pytest.mark.parametrize("versions", [TLS12, TLS13], ids=["1.2", "1.3"])


def shown(tls: ServerTls, name: bytes = b"") -> x509.Certificate:
    return meet(tls, name=name).shown


@BOTH
def test_sessions_outlive_a_reload_that_changes_nothing_else(pki: Any, versions: tuple[int, int]) -> None:
    pair = pki.pair()
    first = server_tls(pair)
    context = a_client(versions=versions)
    session = meet(first, context).session
    second = server_tls(pair, pki.pair(["mail.example.net"]), before=first)
    assert meet(second, context, session=session).facts.resumed
    third = server_tls(pair, before=second, alpn=["smtp"])
    assert not meet(third, context, session=session).facts.resumed


def test_a_reload_does_not_touch_what_served_before(pki: Any) -> None:
    """A configuration may be dropped again: then the one before goes on as it was."""
    pair, more = pki.pair(), pki.pair(["mail.example.net"])
    first = server_tls(pair)
    second = server_tls(more, pair, before=first)
    assert shown(first) == shown(first, b"mail.example.net") == pair.certificate
    assert shown(second) == more.certificate


def test_a_broken_pair_at_a_reload(pki: Any) -> None:
    good, broken, report = pki.pair(), pki.pair(["mail.example.net"]), Report()
    first = server_tls(good, broken)
    broken.key.write_bytes(good.key.read_bytes())
    second = server_tls(good, broken, before=first, report=report)
    why = f"the key in {broken.key} does not belong to it"
    assert report.take("refused") == [("refused", "listener mx", str(broken.cert), why)]
    assert shown(second, b"mail.example.net") == broken.certificate
    with pytest.raises(TlsError, match="does not belong to it"):
        server_tls(good, broken)
    third = server_tls(broken, before=second, report=report)
    assert shown(third) == broken.certificate
    second.reread()
    third.reread()
    assert report.take("refused")  # at the reload; looking again tells nothing new
    assert report.take() == []


def test_a_broken_pair_that_was_not_there_before(pki: Any) -> None:
    good, broken = pki.pair(), pki.pair(["mail.example.net"])
    first = server_tls(good)
    broken.cert.write_bytes(b"")
    with pytest.raises(TlsError) as caught:
        server_tls(good, broken, before=first)
    assert (caught.value.path, caught.value.why) == (str(broken.cert), "empty")
    assert str(caught.value) == f"{broken.cert}: empty"


def test_broken_authorities_at_a_reload(pki: Any) -> None:
    place = pki.ca().path
    first = server_tls(pki.pair(), client_certificates={"mode": "require", "ca": str(place)})
    place.write_bytes(b"")
    report = Report()
    pair = pki.pair()
    server_tls(pair, before=first, report=report, client_certificates={"mode": "ask", "ca": str(place)})
    assert report.take("refused") == [("refused", "listener mx", str(place), "empty")]
    with pytest.raises(TlsError, match="empty"):
        server_tls(pair, client_certificates={"mode": "ask", "ca": str(place)})
