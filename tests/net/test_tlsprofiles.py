"""Profiles: which versions and ciphers are spoken, and what OpenSSL cannot do."""

from typing import Any

import pytest
from OpenSSL import SSL

from smtpproxy.config import ListenerTls
from smtpproxy.net.certificates import TlsError
from smtpproxy.net.tlsprofiles import PROFILES, is_old, make_context, versions_of

from .tlspeers import Report, a_client, meet, server_tls

VERSIONS = {
    "TLSv1": SSL.TLS1_VERSION,
    "TLSv1.1": SSL.TLS1_1_VERSION,
    "TLSv1.2": SSL.TLS1_2_VERSION,
    "TLSv1.3": SSL.TLS1_3_VERSION,
}
ANYTHING = b"ALL:@SECLEVEL=0"


def spoken(tls: Any, ciphers: bytes = ANYTHING) -> list[str]:
    """The versions in which a handshake succeeds."""
    found = []
    for name, number in VERSIONS.items():
        try:
            met = meet(tls, a_client(versions=(number, number), ciphers=ciphers))
        except SSL.Error:
            continue
        assert met.facts.version == name
        found.append(name)
    return found


def ciphers_of(**settings: Any) -> list[str]:
    context = make_context(SSL.TLS_SERVER_METHOD, ListenerTls.model_validate(settings))
    return SSL.Connection(context).get_cipher_list()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("key", ["ecdsa", "rsa"])
def test_the_versions_of_a_profile(pki: Any, profile: str, key: str) -> None:
    assert spoken(server_tls(pki.pair(key=key), profile=profile)) == list(PROFILES[profile].versions)


@pytest.mark.parametrize(
    ("profile", "versions"),
    [
        ("old", ["TLSv1"]),
        ("old", ["TLSv1", "TLSv1.1"]),
        ("old", ["TLSv1.2"]),
        ("intermediate", ["TLSv1.3"]),
        ("modern", ["TLSv1.3"]),
    ],
)
def test_explicit_versions(pki: Any, profile: str, versions: list[str]) -> None:
    assert spoken(server_tls(pki.pair(), profile=profile, versions=versions)) == versions


@pytest.mark.parametrize(
    ("settings", "loud"),
    [
        ({"profile": "modern"}, False),
        ({"profile": "intermediate"}, False),
        ({"profile": "old"}, True),
        ({"profile": "old", "versions": ["TLSv1.2", "TLSv1.3"]}, True),
        ({"profile": "intermediate", "versions": ["TLSv1.2"]}, False),
        ({"versions": ["TLSv1.1", "TLSv1.2"], "ciphers": "AES128-SHA"}, True),
    ],
)
def test_what_is_old_is_loud(pki: Any, settings: dict[str, Any], loud: bool) -> None:  # noqa: FBT001  (a table's column)
    report = Report()
    server_tls(pki.pair(key="rsa"), report=report, **settings)
    assert is_old(ListenerTls.model_validate(settings)) is loud
    assert report.take("old") == ([("old", "listener mx")] if loud else [])


def test_versions_are_in_order() -> None:
    assert versions_of(ListenerTls()) == ("TLSv1.2", "TLSv1.3")
    assert versions_of(ListenerTls(versions=("TLSv1.3", "TLSv1.2"))) == ("TLSv1.2", "TLSv1.3")


def test_the_ciphers_of_a_profile() -> None:
    suites = PROFILES["modern"].ciphersuites.split(":")
    assert ciphers_of(profile="modern", versions=["TLSv1.3"])[:3] == suites
    assert ciphers_of(profile="intermediate") == [*suites, *PROFILES["intermediate"].ciphers.split(":")]
    old = ciphers_of(profile="old")
    wanted = [*suites, *PROFILES["old"].ciphers.split(":")]
    assert old == [cipher for cipher in wanted if cipher in old]
    assert set(wanted) - set(old) <= {"DES-CBC3-SHA"}  # seldom compiled in
    everything = ",".join(old)
    for word in ("NULL", "EXP", "RC4", "MD5", "ADH", "AECDH", "PSK", "SRP", "DHE-RSA-AES128-GCM"):
        assert word not in everything.replace("ECDHE-RSA-AES128-GCM", "")


def test_explicit_ciphers() -> None:
    found = ciphers_of(ciphers="ECDHE-RSA-AES256-GCM-SHA384", ciphersuites="TLS_AES_256_GCM_SHA384")
    assert found == ["TLS_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"]


@pytest.mark.parametrize(
    ("settings", "taken"),
    [
        # Who has AES in hardware prefers it, others ChaCha20: the client knows.
        ({}, "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ({"profile": "old"}, "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ({"ciphers": PROFILES["intermediate"].ciphers}, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ],
)
def test_whose_order_decides(pki: Any, settings: dict[str, Any], taken: str) -> None:
    preferred = b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"
    context = a_client(versions=(SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION), ciphers=preferred)
    assert meet(server_tls(pki.pair(), **settings), context).facts.cipher == taken


def test_old_clients_with_explicit_ciphers(pki: Any) -> None:
    tls = server_tls(pki.pair(key="rsa"), versions=["TLSv1", "TLSv1.1", "TLSv1.2"], ciphers="ECDHE-RSA-AES128-SHA")
    assert spoken(tls) == ["TLSv1", "TLSv1.1", "TLSv1.2"]
    tls = server_tls(pki.pair(key="rsa"), versions=["TLSv1.1", "TLSv1.2"], ciphers="AES128-SHA:@SECLEVEL=2")
    assert spoken(tls) == ["TLSv1.2"]  # a level that is given is not changed


@pytest.mark.parametrize(
    ("settings", "setting", "why"),
    [
        ({"ciphers": "NOSUCH"}, "ciphers", "no cipher match"),
        ({"ciphers": "ECDHE-RSA-AES128-SHA:@SECLEVEL=9"}, "ciphers", "invalid command"),
        ({"ciphersuites": "TLS_NO_SUCH"}, "ciphersuites", "no cipher match"),
        ({"versions": ["TLSv1", "TLSv1.1", "TLSv1.2"]}, "versions", "TLSv1 has no ciphers in profile: intermediate"),
        ({"profile": "modern", "versions": ["TLSv1.2"]}, "versions", "TLSv1.2 has no ciphers in profile: modern"),
    ],
)
def test_what_cannot_be_had(pki: Any, settings: dict[str, Any], setting: str, why: str) -> None:
    with pytest.raises(TlsError) as caught:
        server_tls(pki.pair(), **settings)
    assert caught.value.path == setting
    assert why in caught.value.why


@pytest.mark.parametrize(("settings", "setting"), [({}, "profile"), ({"versions": ["TLSv1", "TLSv1.1"]}, "versions")])
def test_a_version_that_is_not_compiled_in(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], setting: str
) -> None:
    class Poorer(SSL.Context):
        """What a distribution's OpenSSL does that was built without TLS 1.0."""

        def set_max_proto_version(self, version: int) -> None:
            if version == SSL.TLS1_VERSION:
                raise SSL.Error([])
            super().set_max_proto_version(version)

    monkeypatch.setattr(SSL, "Context", Poorer)
    with pytest.raises(TlsError, match=rf"^{setting}: OpenSSL \d.* has no TLSv1(;|$)"):
        make_context(SSL.TLS_SERVER_METHOD, ListenerTls.model_validate({"profile": "old", **settings}))
