"""Files of TLS that change while the program runs: renewed, half written, broken, and right again."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from OpenSSL import SSL

from smtpproxy.net.certificates import Pair
from smtpproxy.net.tlsserver import ServerTls, TlsError

from .tlspeers import Report, a_client, a_connection, days_from_now, listener_tls, meet, now, server_tls, shake

TLS12 = (SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)
TLS13 = (SSL.TLS1_3_VERSION, SSL.TLS1_3_VERSION)
BOTH = pytest.mark.parametrize("versions", [TLS12, TLS13], ids=["1.2", "1.3"])


def shown(tls: ServerTls, name: bytes = b"") -> x509.Certificate:
    return meet(tls, name=name).shown


def put(new: Any, place: Any) -> None:
    """Write the files of one pair over those of another."""
    shutil.copyfile(new.cert, place.cert)
    shutil.copyfile(new.key, place.key)


def test_nothing_changes(pki: Any) -> None:
    pair, report = pki.pair(), Report()
    tls = server_tls(pair, report=report)
    loaded = ("loaded", "listener mx", str(pair.cert), ("mx.example.org",), pair.certificate.not_valid_after_utc)
    assert report.take() == [loaded]
    parts = tls.parts
    for _ in range(3):
        tls.reread()
    assert tls.parts is parts
    assert report.take() == []


def test_a_new_pair_is_taken_when_it_has_stood_still_for_one_look(pki: Any) -> None:
    old, new, newer, report = pki.pair(), pki.pair(), pki.pair(), Report()
    tls = server_tls(old, report=report)
    report.take()
    put(new, old)
    tls.reread()
    assert shown(tls) == old.certificate
    put(newer, old)
    tls.reread()
    assert shown(tls) == old.certificate
    assert report.take() == []
    tls.reread()
    assert shown(tls) == newer.certificate
    assert [told[0] for told in report.take()] == ["loaded"]
    tls.reread()
    assert report.take() == []


def test_connections_that_exist_keep_what_they_have(pki: Any) -> None:
    old, new = pki.pair(), pki.pair()
    tls = server_tls(old)
    begun = tls.connection()
    client = a_connection(a_client())
    put(new, old)
    tls.reread()
    tls.reread()
    shake(client, begun)
    assert client.get_peer_certificate(as_cryptography=True) == old.certificate
    assert shown(tls) == new.certificate


class Certbot:
    """Keeps its files as certbot does: ``live/NAME`` has links into ``archive/NAME``, which is numbered."""

    def __init__(self, folder: Path, first: Any) -> None:
        self.live, self.archive = folder / "live" / "mx", folder / "archive" / "mx"
        self.live.mkdir(parents=True)
        self.archive.mkdir(parents=True)
        self.cert, self.key = self.live / "fullchain.pem", self.live / "privkey.pem"
        self.store(first, 1)
        self.link("privkey", 1)
        self.link("fullchain", 1)

    def store(self, pair: Any, number: int) -> None:
        shutil.copyfile(pair.cert, self.archive / f"fullchain{number}.pem")
        shutil.copyfile(pair.key, self.archive / f"privkey{number}.pem")

    def link(self, kind: str, number: int) -> None:
        link = self.live / f"{kind}.pem"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../archive/mx/{kind}{number}.pem")


@pytest.mark.parametrize("looks_between", [0, 1, 2])
def test_certbot(pki: Any, tmp_path: Path, looks_between: int) -> None:
    old, new, report = pki.pair(), pki.pair(), Report()
    certbot = Certbot(tmp_path, old)
    tls = server_tls(certbot, report=report)
    report.take()
    certbot.store(new, 2)
    tls.reread()
    for kind in ("privkey", "fullchain"):
        certbot.link(kind, 2)
        for _ in range(looks_between):
            tls.reread()
            if kind == "privkey":
                assert shown(tls) == old.certificate
    for _ in range(3):
        tls.reread()
    assert shown(tls) == new.certificate
    told = report.take()
    # Seen twice with the new key and the old certificate, the pair is refused once; it is right again later.
    refused = [("refused", "listener mx", str(certbot.cert), f"the key in {certbot.key} does not belong to it")]
    assert told[:-1] == (refused if looks_between == 2 else [])
    assert told[-1][0] == "loaded"


BREAKAGES = {
    "empty": (b"", "empty"),
    "garbage": (b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n", "damaged"),
    "half": (None, "ends in the middle of a certificate"),
    "no certificate": (b"hello\n", "no certificate is in it"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_certificate_is_refused_once_and_the_old_one_stays(pki: Any, breakage: str) -> None:
    pair, new, report = pki.pair(), pki.pair(), Report()
    tls = server_tls(pair, report=report)
    report.take()
    content, why = BREAKAGES[breakage]
    pair.cert.write_bytes(new.cert.read_bytes()[:-40] if content is None else content)
    for _ in range(4):
        tls.reread()
    ((kind, owner, path, said),) = report.take()
    assert (kind, owner, path) == ("refused", "listener mx", str(pair.cert))
    assert said.startswith(why)
    assert shown(tls) == pair.certificate
    put(new, pair)
    tls.reread()
    tls.reread()
    assert shown(tls) == new.certificate


def test_files_that_vanish(pki: Any) -> None:
    pair, report = pki.pair(), Report()
    tls = server_tls(pair, report=report)
    report.take()
    pair.key.rename(pair.key.with_suffix(".gone"))
    for _ in range(3):
        tls.reread()
    assert report.take() == [("refused", "listener mx", str(pair.key), "cannot be read: No such file or directory")]
    assert shown(tls) == pair.certificate
    pair.key.with_suffix(".gone").rename(pair.key)
    for _ in range(3):
        tls.reread()
    assert report.take() == []  # what is there is what is in use
    assert shown(tls) == pair.certificate


def test_permissions_that_are_mended_are_a_change(pki: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root reads everything, so that the refusal is played; that the mode of the file counts is real."""
    pair, new, report = pki.pair(), pki.pair(), Report()
    tls = server_tls(pair, report=report)
    report.take()
    put(new, pair)
    with monkeypatch.context() as patched:
        patched.setattr("smtpproxy.net.certificates.open", _refusing, raising=False)
        tls.reread()
        tls.reread()
    assert report.take() == [("refused", "listener mx", str(pair.cert), "cannot be read: Permission denied")]
    tls.reread()
    assert shown(tls) == pair.certificate
    pair.cert.chmod(0o600)
    tls.reread()
    tls.reread()
    assert shown(tls) == new.certificate


def _refusing(*_arguments: Any, **_settings: Any) -> Any:
    raise PermissionError(13, os.strerror(13))


def test_a_file_that_changes_while_it_is_read(pki: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, new, report = pki.pair(), pki.pair(), Report()
    tls = server_tls(pair, report=report)
    report.take()
    put(new, pair)
    tls.reread()
    real = open

    def touching(path: Path, *arguments: Any, **settings: Any) -> Any:
        os.utime(pair.key, ns=(1, 1))
        return real(path, *arguments, **settings)

    with monkeypatch.context() as patched:
        patched.setattr("smtpproxy.net.certificates.open", touching, raising=False)
        tls.reread()
    assert report.take() == [("refused", "listener mx", str(pair.cert), "changes while it is read")]
    assert shown(tls) == pair.certificate
    tls.reread()
    tls.reread()
    assert shown(tls) == new.certificate


def test_only_what_has_changed_is_made_anew(pki: Any) -> None:
    pairs = [pki.pair([f"mx{number}.example.org"]) for number in range(3)]
    tls = server_tls(*pairs)
    before = {pair.chain[0]: context for (pair,), context in tls.parts.choice.made.items()}
    new = pki.pair(["mx1.example.org", "more.example.org"])
    put(new, pairs[1])
    tls.reread()
    tls.reread()
    after = {pair.chain[0]: context for (pair,), context in tls.parts.choice.made.items()}
    assert set(after) == {pairs[0].certificate, new.certificate, pairs[2].certificate}
    assert after[pairs[0].certificate] is before[pairs[0].certificate]
    assert after[pairs[2].certificate] is before[pairs[2].certificate]
    assert shown(tls, b"more.example.org") == new.certificate


@BOTH
def test_sessions_outlive_a_certificate(pki: Any, versions: tuple[int, int]) -> None:
    old, new = pki.pair(), pki.pair()
    tls = server_tls(old)
    context = a_client(versions=versions)
    session = meet(tls, context, b"mx.example.org").session
    put(new, old)
    tls.reread()
    tls.reread()
    assert meet(tls, context, b"mx.example.org", session).facts.resumed
    assert shown(tls) == new.certificate


def test_no_room_for_new_contexts(pki: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, report = pki.pair(), pki.pair(), Report()
    tls = server_tls(old, report=report)
    report.take()
    put(new, old)
    tls.reread()
    install, calls = Pair.install, []

    def full(pair: Pair, context: SSL.Context) -> None:
        calls.append(context)
        if len(calls) in {2, 3}:
            raise TlsError(pair.path, "no room")
        install(pair, context)

    monkeypatch.setattr(Pair, "install", full)
    for _ in range(2):
        tls.reread()
        assert shown(tls) == old.certificate
    assert report.take("refused") == [("refused", "listener mx", str(old.cert), "no room")] * 2
    tls.reread()
    assert shown(tls) == new.certificate
    tls.reread()
    assert report.take() == []


# --- authorities -------------------------------------------------------------------------------------------------


@BOTH
def test_the_authorities_of_clients_change(pki: Any, versions: tuple[int, int]) -> None:
    one, other, report = pki.ca("One"), pki.ca("Other"), Report()
    place = pki.root.path.with_name("clients.pem")
    shutil.copyfile(one.path, place)
    mine = pki.pair(["client.example.com"], ca=one, client=True)
    context = a_client(versions=versions, certificate=mine)
    tls = server_tls(pki.pair(), report=report, client_certificates={"mode": "ask", "ca": str(place)})
    met = meet(tls, context)
    assert met.facts.verified
    report.take()

    place.write_bytes(b"half a file")
    tls.reread()
    tls.reread()
    why = "no certificate is in it (PEM is expected: -----BEGIN CERTIFICATE-----)"
    assert report.take() == [("refused", "listener mx", str(place), why)]
    assert meet(tls, context).facts.verified

    shutil.copyfile(other.path, place)
    tls.reread()
    tls.reread()
    end = other.certificate.not_valid_after_utc
    assert report.take() == [("loaded", "listener mx", str(place), ("CN=Other",), end)]
    met = meet(tls, context, session=met.session)
    assert not met.facts.resumed
    assert not met.facts.verified
    met = meet(tls, context, session=met.session)
    assert met.facts.resumed
    assert not met.facts.verified


# --- expiry ------------------------------------------------------------------------------------------------------


def test_what_ends_soon_is_reported(pki: Any) -> None:
    pairs = [pki.pair([f"mx{days}.example.org"], days=days) for days in (-3, 0, 13, 14, 90)]
    report = Report()
    tls = server_tls(*pairs, report=report)
    report.take()
    for _ in range(2):
        tls.warn_of_expiry()
        expected = [
            ("expires", "listener mx", str(pair.cert), pair.certificate.not_valid_after_utc, days)
            for pair, days in zip(pairs, (-3, 0, 13), strict=False)
        ]
        assert report.take() == expected


def test_authorities_that_end_soon_are_reported(pki: Any) -> None:
    report, authority = Report(), pki.ca()
    settings = listener_tls(pki.pair(days=9000), client_certificates={"mode": "ask", "ca": str(authority.path)})
    tls = ServerTls(settings, "listener mx", report, days_from_now(3645))
    report.take()
    tls.warn_of_expiry()
    end = authority.certificate.not_valid_after_utc
    assert report.take() == [("expires", "listener mx", str(authority.path), end, 5)]
    ServerTls(settings, "listener mx", report, now).warn_of_expiry()
    assert report.take("expires") == []
