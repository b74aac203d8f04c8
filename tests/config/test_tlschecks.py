"""Mistakes that concern several settings of TLS at once."""

import base64
from collections.abc import Callable

import pytest

from smtpproxy.config import Config
from smtpproxy.config.tlschecks import backend_tls, listener_tls

Mistakes = Callable[[str], list[str]]

FINGERPRINT = "0123456789abcdef" * 4
PIN = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize("mode", ["starttls", "starttls-required", "implicit"])
@pytest.mark.parametrize("certificates", ["", ", certificates: []"])
def test_a_listener_with_tls_has_a_certificate(listener_with: Mistakes, mode: str, certificates: str) -> None:
    assert listener_with(f"tls: {{mode: {mode}{certificates}}}") == [
        f"tls.certificates: missing; with mode: {mode} at least one is expected, such as {{cert: mx.pem, key: mx.key}}"
    ]


def test_tls_can_be_prepared(loaded: Callable[[str], Config], minimal: str) -> None:
    prepared = minimal.replace(
        "backends:", "    tls: {mode: none, profile: old, client_certificates: {mode: off, ca: ca.pem}}\nbackends:"
    ).replace("192.0.2.1:25", "unix:/run/smtp")
    config = loaded(f"{prepared}    tls: {{mode: none, verify: pins}}\n")
    assert config.listeners[0].tls.profile == "old"
    assert config.backends["legacy"].tls.verify == "pins"


@pytest.mark.parametrize("mode", ["ask", "require"])
def test_client_certificates_need_an_authority(listener_with: Mistakes, mode: str) -> None:
    assert listener_with(f"tls: {{client_certificates: {{mode: {mode}}}}}") == [
        f"tls.client_certificates.ca: missing; with mode: {mode} the file with the certificates of the authorities is expected"
    ]


@pytest.mark.parametrize("mode", ["", "mode: off, ", "mode: 'off', "])
def test_logins_need_client_certificates(listener_with: Mistakes, mode: str) -> None:
    assert listener_with(f"tls: {{client_certificates: {{{mode}logins: {{{FINGERPRINT}: alice}}}}}}") == [
        "tls.client_certificates.logins: without mode: ask or require no client certificate is seen, so these do nothing"
    ]


@pytest.mark.parametrize(
    ("setting", "messages"),
    [
        ("verify: ca, ca: a.pem", []),
        ("verify: name, ca: a.pem, name: mx.example", []),
        ("verify: none, ca: system, sni: mx.example, pins: []", []),
        (f"verify: pins, pins: ['{PIN}']", []),
        ("verify: none, ca: a.pem", ["ca: not looked at with verify: none"]),
        (f"verify: pins, ca: a.pem, pins: ['{PIN}']", ["ca: not looked at with verify: pins"]),
        (f"verify: ca, pins: ['{PIN}']", ["pins: not looked at with verify: ca"]),
        (f"pins: ['{PIN}']", ["pins: not looked at with verify: name"]),
        (
            "verify: ca, name: mx.example",
            ["name: not looked at with verify: ca; the name that is sent is the setting sni"],
        ),
        (
            "verify: pins",
            ["pins: missing; with verify: pins at least one is expected: the SHA-256 of a public key, in base64"],
        ),
        (
            "verify: pins, pins: []",
            ["pins: missing; with verify: pins at least one is expected: the SHA-256 of a public key, in base64"],
        ),
    ],
)
def test_what_goes_with_the_way_of_verifying(
    loaded: Callable[[str], Config], backend_with: Mistakes, minimal: str, setting: str, messages: list[str]
) -> None:
    text = f"tls: {{mode: starttls, {setting}}}"
    if messages:
        assert backend_with(text) == [f"tls.{message}" for message in messages]
    else:
        assert loaded(f"{minimal}    {text}\n").backends["legacy"].tls.mode == "starttls"


def test_a_unix_socket_has_no_name(mistakes: Mistakes, loaded: Callable[[str], Config], minimal: str) -> None:
    unix = minimal.replace('["192.0.2.1:25"]', '["192.0.2.1:25", "unix:/run/smtp"]')
    assert mistakes(f"{unix}    tls: {{mode: starttls}}\n") == [
        "c.yaml:9: backends.legacy.tls.name: missing; unix:/run/smtp has no name of its own that its certificate could show"
    ]
    for setting in ("verify: ca", "name: mx.example.org", "mode: none"):
        tls = f"tls: {{mode: starttls, {setting}}}" if "mode" not in setting else f"tls: {{{setting}}}"
        assert loaded(f"{unix}    {tls}\n").backends["legacy"].tls


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        {},
        {"mode": {}, "verify": {}, "client_certificates": 5, "certificates": 5},
        {"mode": "none", "verify": "else", "pins": 5, "client_certificates": {"mode": {}}},
        {"mode": "starttls", "certificates": 5, "verify": 5, "client_certificates": {"mode": True, "logins": 5}},
    ],
)
def test_what_is_wrong_in_itself_is_passed_over(data: object) -> None:
    assert list(listener_tls((), data)) == []
    assert list(backend_tls((), data, [])) == []
