"""TLS towards backends: sessions that are resumed, and files that change."""

import shutil
from typing import Any

import pytest
from OpenSSL import SSL

from smtpproxy.net.certificates import Authorities, TlsError
from smtpproxy.net.tlsclient import MOST_SESSIONS
from smtpproxy.net.tlsfacts import facts_of

from .tlspeers import Report, client_tls, meet_and_judge, meet_backend, say, server_tls, shake

HOST = "mx.example.org"


# --- sessions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_sessions_are_resumed(pki: Any, version: str) -> None:
    tls = client_tls(verify="name", ca=str(pki.root.path), versions=[version])
    server = server_tls(pki.pair())
    resumed = [facts_of(meet_backend(tls, server)).resumed for _ in range(21)]
    assert resumed == [False] + [True] * 20


def test_each_host_has_its_own_session(pki: Any) -> None:
    tls, server = client_tls(verify="none"), server_tls(pki.pair())
    hosts = ["mx.example.org", "10.0.0.1", "10.0.0.2"]
    assert [facts_of(meet_backend(tls, server, host)).resumed for host in hosts * 2] == [False] * 3 + [True] * 3


def test_a_session_that_the_server_has_forgotten(pki: Any) -> None:
    tls, pair = client_tls(verify="name", ca=str(pki.root.path)), pki.pair()
    meet_backend(tls, server_tls(pair))
    restarted = server_tls(pair)
    assert [facts_of(meet_backend(tls, restarted)).resumed for _ in range(2)] == [False, True]


def test_sessions_are_bounded(pki: Any) -> None:
    tls, server = client_tls(verify="none"), server_tls(pki.pair())
    client = meet_backend(tls, server, "first")
    for number in range(MOST_SESSIONS - 1):
        tls.remember(client, f"host{number}")
    assert facts_of(meet_backend(tls, server, "first")).resumed  # remembered anew: now the youngest
    tls.remember(client, "one too many")
    assert len(tls._sessions) == MOST_SESSIONS
    assert "host0" not in tls._sessions
    assert "first" in tls._sessions


def test_without_a_handshake_there_is_nothing_to_remember() -> None:
    tls = client_tls(verify="none")
    tls.remember(tls.connection(HOST), HOST)
    assert not tls._sessions


def test_the_session_of_a_wrong_server_is_not_remembered(pki: Any) -> None:
    tls = client_tls(verify="name", ca=str(pki.root.path))
    client, server = tls.connection(HOST), server_tls(pki.pair(["wrong.example.org"])).connection()
    shake(client, server)
    assert tls.judge(client, HOST)
    say(server, client, b"220 hello\r\n")
    tls.remember(client, HOST)
    assert not tls._sessions


# --- files that change --------------------------------------------------------------------------------------------


def test_our_own_certificate_changes(pki: Any) -> None:
    old, new = (pki.pair(["proxy.example.org"], client=True) for _ in range(2))
    tls = client_tls(verify="none", certificate={"cert": str(old.cert), "key": str(old.key)})
    server = server_tls(pki.pair(), client_certificates={"mode": "require", "ca": str(pki.root.path)})
    before = meet_backend(tls, server)
    shutil.copyfile(new.cert, old.cert)
    tls.reread()
    shutil.copyfile(new.key, old.key)
    for _ in range(2):
        tls.reread()
    tls.remember(before, HOST)  # too late: its session belongs to the certificate that was
    client, other = tls.connection(HOST), server.connection()
    shake(client, other)
    assert facts_of(other).fingerprint == new.fingerprint
    assert not facts_of(other).resumed


def test_no_room_for_a_new_context(pki: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, report = pki.ca("One"), pki.ca("Other"), Report()
    tls = client_tls(ca=str(one.path), report=report)
    shutil.copyfile(other.path, one.path)
    tls.reread()
    install, calls = Authorities.install, []

    def full(authorities: Authorities, context: SSL.Context) -> None:
        calls.append(context)
        if len(calls) == 1:
            raise TlsError(authorities.path, "no room")
        install(authorities, context)

    monkeypatch.setattr(Authorities, "install", full)
    tls.reread()
    assert report.take("refused") == [("refused", "backend legacy", str(one.path), "no room")]
    assert meet_and_judge(tls, server_tls(pki.pair(ca=one))) == ""
    tls.reread()
    assert meet_and_judge(tls, server_tls(pki.pair(ca=other))) == ""
    assert len(calls) == 2


def test_the_authorities_change(pki: Any) -> None:
    one, other = pki.ca("One"), pki.ca("Other")
    place = pki.root.path.with_name("anchors.pem")
    shutil.copyfile(one.path, place)
    tls = client_tls(ca=str(place))
    assert meet_and_judge(tls, server_tls(pki.pair(ca=one))) == ""
    shutil.copyfile(other.path, place)
    for _ in range(3):
        tls.reread()
    assert meet_and_judge(tls, server_tls(pki.pair(ca=other))) == ""
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        meet_backend(tls, server_tls(pki.pair(ca=one)))
