"""The settings of TLS: how each is written, and the words for what is wrong."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from smtpproxy.config import (
    Backend,
    BackendTls,
    CertificatePair,
    ClientCertificates,
    Config,
    Listener,
    ListenerTls,
)
from smtpproxy.config.load import parse

Mistakes = Callable[[str], list[str]]
Loaded = Callable[[str], Config]

FINGERPRINT = "0123456789abcdef" * 4
PIN = base64.b64encode(bytes(range(32))).decode()
TEXT = "text is expected (a number or a word like 'no' is written in quotes)"


@pytest.fixture
def listener(loaded: Loaded, minimal: str) -> Callable[[str], Listener]:
    """A listener with one more setting."""
    return lambda setting: loaded(minimal.replace("backends:", f"    {setting}\nbackends:")).listeners[0]


@pytest.fixture
def backend(loaded: Loaded, minimal: str) -> Callable[[str], Backend]:
    """A backend with one more setting."""
    return lambda setting: loaded(f"{minimal}    {setting}\n").backends["legacy"]


def test_the_defaults(loaded: Loaded, minimal: str) -> None:
    config = loaded(minimal)
    assert config.listeners[0].tls == ListenerTls()
    assert config.backends["legacy"].tls == BackendTls()
    tls = ListenerTls()
    assert (tls.mode, tls.profile, tls.versions, tls.ciphers, tls.ciphersuites) == (
        "none",
        "intermediate",
        None,
        None,
        None,
    )
    assert (tls.certificates, tls.tickets, tls.reread, tls.alpn) == ((), True, 10.0, ("smtp", "esmtp"))
    assert tls.client_certificates == ClientCertificates(mode="off", ca=None, logins={})
    leg = BackendTls()
    assert (leg.mode, leg.verify, leg.ca, leg.name, leg.sni) == ("none", "name", "system", None, None)
    assert (leg.pins, leg.certificate, leg.profile) == ((), None, "intermediate")
    assert config.listeners[0].timeouts.tls_handshake == config.backends["legacy"].timeouts.tls_handshake == 30.0


def test_everything_towards_clients(tmp_path: Path, listener: Callable[[str], Listener]) -> None:
    colons = ":".join(FINGERPRINT[at : at + 2].upper() for at in range(0, 64, 2))
    tls = listener(
        "tls: {mode: starttls-required, profile: old, versions: [TLSv1.2, TLSv1.1, TLSv1.2], ciphers: 'HIGH:!aNULL:@SECLEVEL=0',"
        " ciphersuites: 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384', tickets: off, reread: 1 min, alpn: [smtp],"
        " certificates: [{cert: a/x.pem, key: /etc/x.key}, {cert: ../y.pem, key: a/x.pem}],"
        f" client_certificates: {{mode: ask, ca: ca.pem, logins: {{'{colons}': alice, {'9' * 64}: 'Bob, too'}}}}}}"
    ).tls
    assert tls.mode == "starttls-required"
    assert tls.profile == "old"
    assert tls.versions == ("TLSv1.1", "TLSv1.2")
    assert tls.ciphers == "HIGH:!aNULL:@SECLEVEL=0"
    assert tls.ciphersuites == "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"
    assert (tls.tickets, tls.reread, tls.alpn) == (False, 60.0, ("smtp",))
    assert tls.certificates == (
        CertificatePair(cert=tmp_path / "a/x.pem", key=Path("/etc/x.key")),
        CertificatePair(cert=tmp_path / "../y.pem", key=tmp_path / "a/x.pem"),
    )
    assert tls.client_certificates == ClientCertificates(
        mode="ask", ca=tmp_path / "ca.pem", logins={FINGERPRINT: "alice", "9" * 64: "Bob, too"}
    )


def test_everything_towards_a_backend(tmp_path: Path, backend: Callable[[str], Backend]) -> None:
    tls = backend(
        "tls: {mode: implicit, verify: name, ca: ca.pem, name: '2001:DB8:0::1', sni: MX.example.org, profile: modern,"
        " certificate: {cert: a.pem, key: a.key}, versions: [TLSv1.3], ciphers: HIGH, ciphersuites: TLS_AES_128_GCM_SHA256}"
    ).tls
    assert (tls.mode, tls.verify, tls.name, tls.sni, tls.profile) == (
        "implicit",
        "name",
        "2001:db8::1",
        "mx.example.org",
        "modern",
    )
    assert tls.ca == tmp_path / "ca.pem"
    assert tls.certificate == CertificatePair(cert=tmp_path / "a.pem", key=tmp_path / "a.key")
    assert (tls.versions, tls.ciphers, tls.ciphersuites) == (("TLSv1.3",), "HIGH", "TLS_AES_128_GCM_SHA256")
    pinned = backend(f"tls: {{mode: starttls, verify: pins, pins: ['{PIN}']}}").tls
    assert pinned.pins == (PIN,)


@pytest.mark.parametrize(
    "setting", ["off", "'off'", "no", "{}", "{mode: off}", "{mode: 'off'}", "{mode: off, ca: /ca.pem}"]
)
def test_client_certificates_off(listener: Callable[[str], Listener], setting: str) -> None:
    assert listener(f"tls: {{client_certificates: {setting}}}").tls.client_certificates.mode == "off"


def test_a_model_built_without_a_file_leaves_names_of_files_as_they_are() -> None:
    pair = CertificatePair.model_validate({"cert": "a.pem", "key": Path("b/a.key")})
    assert pair == CertificatePair(cert=Path("a.pem"), key=Path("b/a.key"))
    assert BackendTls.model_validate({"ca": "system"}).ca == "system"
    assert BackendTls.model_validate({"ca": "./system"}).ca == Path("system")


def test_names_of_files_belong_to_the_folder_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, minimal: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"{minimal}    tls: {{ca: ca.pem}}\n"
    assert parse("c.yaml", text).backends["legacy"].tls.ca == tmp_path / "ca.pem"
    assert parse("etc/c.yaml", text).backends["legacy"].tls.ca == tmp_path / "etc/ca.pem"
    assert parse("/srv/c.yaml", text).backends["legacy"].tls.ca == Path("/srv/ca.pem")


NO_FINGERPRINT = "the SHA-256 fingerprint of a certificate is expected: 64 hexadecimal digits, with or without colons"
NO_LOGIN = "a login name of 1 to 255 octets without control characters is expected"
NO_FILE = "the name of a file is expected, in quotes if it is a number or a word like 'no'"
NO_CONTENT = "the name of a file is expected, not what is in it"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("off", ": a section is expected (settings, indented below it), not no"),
        ("{mode: tls}", ".mode: none, starttls, starttls-required or implicit is expected, not 'tls'"),
        ("{mode: off}", ".mode: none, starttls, starttls-required or implicit is expected, not no"),
        ("{profile: new}", ".profile: modern, intermediate or old is expected, not 'new'"),
        ("{versions: []}", ".versions: at least one entry is expected"),
        ("{versions: TLSv1.3}", ".versions: a list is expected, such as [one, two], not 'TLSv1.3'"),
        ("{versions: [TLSv1.0]}", ".versions[0]: TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3 is expected, not 'TLSv1.0'"),
        ("{versions: [SSLv3, TLSv1]}", ".versions[0]: TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3 is expected, not 'SSLv3'"),
        ("{versions: [TLSv1.1, TLSv1.3]}", ".versions: versions without a gap are expected: TLSv1.2 is missing"),
        ("{versions: [TLSv1.3, TLSv1]}", ".versions: versions without a gap are expected: TLSv1.1 is missing"),
        ("{ciphers: ''}", ".ciphers: an OpenSSL list of ciphers is expected, such as 'ECDHE+AESGCM:!aNULL', not ''"),
        ("{ciphers: 'A;B'}", ".ciphers: an OpenSSL list of ciphers is expected, such as 'ECDHE+AESGCM:!aNULL', not 'A;B'"),
        ("{ciphers: [HIGH]}", f".ciphers: {TEXT}, not a list"),
        ("{ciphers: TLS_AES_128_GCM_SHA256}", ".ciphers: the cipher suites of TLS 1.3 belong into ciphersuites"),
        (
            "{ciphersuites: HIGH}",
            ".ciphersuites: cipher suites of TLS 1.3 are expected, with colons between, such as 'TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256', not 'HIGH'",
        ),
        ("{certificates: {cert: a, key: b}}", ".certificates: a list is expected, such as [one, two], not a section"),
        (
            "{certificates: [{key: b}]}",
            ".certificates[0].cert: missing; expected is the name of a file with the certificate and those between it and the authority, in PEM form",
        ),
        (
            "{certificates: [{cert: a}]}",
            ".certificates[0].key: missing; expected is the name of a file with the certificate's private key, in PEM form",
        ),
        ("{certificates: [{cert: a, key: 5}]}", f".certificates[0].key: {NO_FILE}"),
        ("{certificates: [{cert: a, key: ''}]}", ".certificates[0].key: the name of a file is expected, not an empty text"),
        ("{certificates: [{cert: a, key:}]}", f".certificates[0].key: {NO_FILE}"),
        ('{certificates: [{cert: a, key: "MII\\nMII"}]}', f".certificates[0].key: {NO_CONTENT}"),
        ("{certificates: [{cert: a, key: '-----BEGIN PRIVATE KEY-----'}]}", f".certificates[0].key: {NO_CONTENT}"),
        ("{certificates: [{cert: a, ky: b, key: c}]}", ".certificates[0].ky: unknown key; did you mean key?"),
        ("{certificates: [{cert: /a, key: b}, {cert: /a, key: c}]}", ".certificates: the certificate /a is in it twice"),
        ("{tickets: 5}", ".tickets: yes or no is expected, not '5'"),
        ("{reread: off}", ".reread: a number with a unit is expected: ms, s, min, h or d, such as '30 s' or '5 min', not no"),
        ("{alpn: []}", ".alpn: at least one entry is expected"),
        ("{alpn: [smtp, 'a b']}", ".alpn[1]: the name of a protocol (RFC 7301) is expected, such as smtp, not 'a b'"),
        ("{client_certificates: on}", ".client_certificates: off, or a section such as {mode: require, ca: clients.pem} is expected"),
        ("{client_certificates: ask}", ".client_certificates: off, or a section such as {mode: require, ca: clients.pem} is expected"),
        ("{client_certificates: }", ".client_certificates: off, or a section such as {mode: require, ca: clients.pem} is expected"),
        ("{client_certificates: {mode: on, ca: a}}", ".client_certificates.mode: off, ask or require is expected, not yes"),
        ("{client_certificates: {ca: system, mod: ask}}", ".client_certificates.mod: unknown key; did you mean mode?"),
        ("{client_certificates: {mode: ask, ca: a, logins: alice}}", ".client_certificates.logins: a section is expected (settings, indented below it), not 'alice'"),
        ("{client_certificates: {mode: ask, ca: a, logins: {ab: alice}}}", f".client_certificates.logins.ab: {NO_FINGERPRINT}"),
        (f"{{client_certificates: {{mode: ask, ca: a, logins: {{{FINGERPRINT}: ''}}}}}}", f".client_certificates.logins.{FINGERPRINT}: {NO_LOGIN}"),
        (f'{{client_certificates: {{mode: ask, ca: a, logins: {{{FINGERPRINT}: "a\\nb"}}}}}}', f".client_certificates.logins.{FINGERPRINT}: {NO_LOGIN}"),
        (f"{{client_certificates: {{mode: ask, ca: a, logins: {{{FINGERPRINT}: {'é' * 128}}}}}}}", f".client_certificates.logins.{FINGERPRINT}: {NO_LOGIN}"),
        (f"{{client_certificates: {{mode: ask, ca: a, logins: {{{FINGERPRINT}: a, {FINGERPRINT.upper()}: b}}}}}}", f".client_certificates.logins: the fingerprint '{FINGERPRINT[:60]}' is in it twice"),
        ("{certificate: {cert: a, key: b}}", ".certificate: unknown key; did you mean certificates?"),
        ("{ca: a.pem}", ".ca: unknown key; it belongs into client_certificates"),
    ],
)  # fmt: skip
def test_a_mistake_towards_clients(listener_with: Mistakes, setting: str, message: str) -> None:
    assert listener_with(f"tls: {setting}") == [f"tls{message}"]


NO_PIN = "the SHA-256 of a public key (its SubjectPublicKeyInfo) in base64 is expected: 44 characters"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("{verify: yes}", ".verify: none, ca, name or pins is expected, not yes"),
        ("{ca: no}", f".ca: {NO_FILE}"),
        ("{name: 'a b'}", ".name: the name of a host or an IP address is expected, not 'a b'"),
        ("{name: 192.0.2.256}", ".name: the name of a host or an IP address is expected, not '192.0.2.256'"),
        ("{name: '*.example.org'}", ".name: the name of a host or an IP address is expected, not '*.example.org'"),
        ("{name: 5}", f".name: {TEXT}, not '5'"),
        ("{name: }", f".name: {TEXT}, not nothing"),
        ("{sni: 192.0.2.1}", ".sni: the name of a host is expected, such as mail.example.org, not '192.0.2.1'"),
        ("{sni: '2001:db8::1'}", ".sni: the name of a host is expected, such as mail.example.org, not '2001:db8::1'"),
        ("{verify: pins, pins: [x]}", f".pins[0]: {NO_PIN}"),
        (f"{{verify: pins, pins: ['{PIN}', '{PIN[:-4]}']}}", f".pins[1]: {NO_PIN}"),
        ("{verify: pins, pins: ['" + "é" * 44 + "']}", f".pins[0]: {NO_PIN}"),
        (f"{{verify: pins, pins: '{PIN}'}}", f".pins: a list is expected, such as [one, two], not '{PIN}'"),
        ("{certificate: a.pem}", ".certificate: a section is expected (settings, indented below it), not 'a.pem'"),
        ("{certificate: {cert: a.pem, key: [b]}}", f".certificate.key: {NO_FILE}"),
        ("{versions: [TLSv1, TLSv1.2]}", ".versions: versions without a gap are expected: TLSv1.1 is missing"),
        ("{certificates: []}", ".certificates: unknown key; did you mean certificate?"),
        ("{tickets: yes}", ".tickets: unknown key; known here are profile, versions, ciphers, ciphersuites, mode, verify, ca, name, sni, pins, certificate"),
    ],
)  # fmt: skip
def test_a_mistake_towards_a_backend(backend_with: Mistakes, setting: str, message: str) -> None:
    assert backend_with(f"tls: {setting}") == [f"tls{message}"]
