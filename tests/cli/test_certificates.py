"""``smtpproxy check``: the certificates of a configuration."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from smtpproxy.cli import main
from smtpproxy.cli.certificates import check
from smtpproxy.config import load

Capture = pytest.CaptureFixture[str]


def write(folder: Path, listener: str = "{}", backend: str = "{}") -> str:
    file = folder / "c.yaml"
    file.write_text(
        "listeners:\n"
        "  - {name: mx, listen: ['127.0.0.1:0'], backend: legacy, recipient_domains: [example.org],\n"
        f"     tls: {listener}}}\n"
        f"backends: {{legacy: {{servers: ['192.0.2.1:25'], tls: {backend}}}}}\n"
    )
    return str(file)


def starttls(*pairs: Any, more: str = "") -> str:
    files = ", ".join(f"{{cert: {pair.cert}, key: {pair.key}}}" for pair in pairs)
    return f"{{mode: starttls, certificates: [{files}]{more}}}"


def test_a_line_for_each_certificate(pki: Any, tmp_path: Path, capsys: Capture) -> None:
    one = pki.pair(["mx.example.org", "*.example.org"], days=90)
    two = pki.pair(key="rsa", days=30, ca=pki.ca("Between", parent=pki.root))
    mine = pki.pair(["proxy.example.org"], days=20, client=True)
    file = write(
        tmp_path,
        starttls(one, two, more=f", client_certificates: {{mode: ask, ca: {pki.root.path}}}"),
        f"{{mode: starttls, ca: {pki.root.path}, certificate: {{cert: {mine.cert}, key: {mine.key}}}}}",
    )
    assert main(["check", "-c", file]) == 0
    out, err = capsys.readouterr()
    ends = [f"{pair.certificate.not_valid_after_utc:%Y-%m-%d}" for pair in (one, two, mine, pki.root)]
    left = (pki.root.certificate.not_valid_after_utc - datetime.now(UTC)).days
    authorities = f"{pki.root.path}: CN=Test CA; authorities; ends {ends[3]}, {left} days left"
    assert out.splitlines() == [
        f"{file}: no mistakes",
        (
            f"listener mx: {one.cert}: mx.example.org, *.example.org; ECDSA secp256r1, issued by CN=Test CA; "
            f"ends {ends[0]}, 90 days left"
        ),
        f"listener mx: {two.cert}: mx.example.org; RSA 2048, issued by CN=Between; ends {ends[1]}, 30 days left",
        f"listener mx: {authorities}",
        (
            f"backend legacy: {mine.cert}: proxy.example.org; ECDSA secp256r1, issued by CN=Test CA; "
            f"ends {ends[2]}, 20 days left"
        ),
        f"backend legacy: {authorities}",
    ]
    assert err == ""


def test_what_ends_soon_is_only_warned_about(pki: Any, tmp_path: Path, capsys: Capture) -> None:
    ended, soon, fine = (pki.pair([f"{days}.example.org"], days=days) for days in (-1, 1, 14))
    assert main(["check", "-c", write(tmp_path, starttls(ended, soon, fine))]) == 0
    out, err = capsys.readouterr()
    assert [line.rpartition(", ")[2] for line in out.splitlines()[1:]] == ["has ended", "1 day left", "14 days left"]
    assert err.splitlines() == [
        f"warning: listener mx: {ended.cert}: has ended",
        f"warning: listener mx: {soon.cert}: 1 day left",
    ]


def test_what_has_not_begun_is_warned_about(pki: Any, tmp_path: Path, capsys: Capture) -> None:
    pair = pki.pair()
    past = datetime.now(UTC) - timedelta(days=10)
    assert check(load(write(tmp_path, starttls(pair))), past) == 0
    begins = f"{pair.certificate.not_valid_before_utc:%Y-%m-%d}"
    assert capsys.readouterr().err == f"warning: listener mx: {pair.cert}: begins only on {begins}\n"


def test_everything_that_cannot_be_used_is_an_error(pki: Any, tmp_path: Path, capsys: Capture) -> None:
    good, mixed, weak, gone = pki.pair(), pki.pair(), pki.pair(key="rsa1024"), pki.pair()
    mixed.key.write_bytes(good.key.read_bytes())
    gone.cert.unlink()
    anchors = tmp_path / "anchors.pem"
    anchors.write_bytes(b"")
    listener = starttls(mixed, weak, gone, good, more=f", client_certificates: {{mode: ask, ca: {anchors}}}")
    assert main(["check", "-c", write(tmp_path, listener, f"{{mode: starttls, ca: {anchors}}}")]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert f"listener mx: {good.cert}: mx.example.org" in out
    assert err.splitlines() == [
        f"listener mx: {mixed.cert}: the key in {mixed.key} does not belong to it",
        f"listener mx: {weak.cert}: refused by OpenSSL: ee key too small",
        f"listener mx: {gone.cert}: cannot be read: No such file or directory",
        f"listener mx: {anchors}: empty",
        f"backend legacy: {anchors}: empty",
    ]


def test_a_setting_that_openssl_cannot_do_is_an_error(pki: Any, tmp_path: Path, capsys: Capture) -> None:
    file = write(tmp_path, starttls(pki.pair(), more=", ciphers: NOSUCH"))
    assert main(["check", "-c", file]) == 1
    out, err = capsys.readouterr()
    assert out == f"{file}: no mistakes\n"
    assert err.startswith("listener mx: ciphers: not a list that OpenSSL ")


def test_what_is_not_used_is_not_looked_at(tmp_path: Path, capsys: Capture) -> None:
    listener = "{mode: none, certificates: [{cert: missing.pem, key: missing.key}]}"
    file = write(tmp_path, listener, "{mode: none, ca: missing.pem}")
    assert main(["check", "-c", file]) == 0
    assert capsys.readouterr() == (f"{file}: no mistakes\n", "")


def test_what_a_certificate_says_does_nothing_to_a_terminal(pki: Any, tmp_path: Path, capsys: Capture) -> None:
    pair = pki.pair([], common_name="\x1b[2Jmx\r\n")
    assert main(["check", "-c", write(tmp_path, starttls(pair))]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].startswith(f"listener mx: {pair.cert}: ?[2jmx??; ECDSA")
