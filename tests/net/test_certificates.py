"""Certificates and keys as files: what is understood, what is refused and with which words."""

import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from OpenSSL import SSL

from smtpproxy.net.certificates import (
    LARGEST_FILE,
    Authorities,
    Pair,
    TlsError,
    days_left,
    read_authorities,
    read_pair,
    words_of,
)

ON_SECP112R1 = b"""-----BEGIN PRIVATE KEY-----
ME4CAQAwEAYHKoZIzj0CAQYFK4EEAAYENzA1AgEBBA7Qn2raeLvCuwuCVsTmZqEg
Ax4ABKMcXHAva9QUUwnGaosVBqgJmMCOGYBWEsZL4lk=
-----END PRIVATE KEY-----
"""
DAMAGED = "damaged, or of a kind that is not known: no private key in PEM"


def read(files: Any) -> Pair:
    return read_pair(files.cert, files.key)


def why_not(files: Any) -> tuple[str, str]:
    with pytest.raises(TlsError) as caught:
        read(files)
    assert str(caught.value) == f"{caught.value.path}: {caught.value.why}"
    return caught.value.path, caught.value.why


# --- what is understood ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "kind", "key_type"),
    [("ecdsa", "ECDSA", "ECDSA secp256r1"), ("rsa", "RSA", "RSA 2048"), ("ed25519", "Ed25519", "Ed25519")],
)
def test_a_pair(pki: Any, key: str, kind: str, key_type: str) -> None:
    files = pki.pair(["mx.example.org", "*.Example.COM", "mail.example.net."], key=key, days=30)
    pair = read(files)
    assert pair.chain == (files.certificate,)
    assert pair.names == ("mx.example.org", "*.example.com", "mail.example.net")
    assert (pair.kind, pair.key_type) == (kind, key_type)
    assert pair.issuer == "CN=Test CA"
    assert days_left(pair.not_after, datetime.now(UTC)) == 30
    assert (pair.path, pair.key_path) == (files.cert, files.key)


def test_the_common_name_counts_only_without_a_subject_alternative_name(pki: Any) -> None:
    assert read(pki.pair([], common_name="Old.Example.ORG")).names == ("old.example.org",)
    assert read(pki.pair(["mx.example.org"], common_name="old.example.org")).names == ("mx.example.org",)
    assert read(pki.pair(["192.0.2.7"], common_name="old.example.org")).names == ()


def test_days_are_rounded_down() -> None:
    end = datetime(2030, 1, 15, 12, tzinfo=UTC)
    assert days_left(end, end - timedelta(days=14)) == 14
    assert days_left(end, end - timedelta(days=14) + timedelta(seconds=1)) == 13
    assert days_left(end, end + timedelta(seconds=1)) == -1


def test_a_chain(pki: Any) -> None:
    one = pki.ca("One", parent=pki.root)
    files = pki.pair(ca=pki.ca("Two", parent=one))
    assert [each.subject.rfc4514_string() for each in read(files).chain] == ["CN=mx.example.org", "CN=Two", "CN=One"]
    files.cert.write_bytes(files.cert.read_bytes() + pki.root.path.read_bytes())
    assert len(read(files).chain) == 4


def test_one_file_for_both(pki: Any) -> None:
    files = pki.pair()
    for first, second in ((files.cert, files.key), (files.key, files.cert)):
        both = files.cert.with_name("both.pem")
        both.write_bytes(b"a comment\n" + first.read_bytes() + second.read_bytes())
        assert read_pair(both, both).chain == (files.certificate,)


@pytest.mark.parametrize("form", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
@pytest.mark.parametrize("key", ["ecdsa", "rsa"])
def test_forms_of_a_key(pki: Any, form: PrivateFormat, key: str) -> None:
    files = pki.pair(key=key)
    files.key.write_bytes(files.private.private_bytes(Encoding.PEM, form, NoEncryption()))
    assert read(files).kind == {"ecdsa": "ECDSA", "rsa": "RSA"}[key]


def test_a_key_with_its_parameters_before_it(pki: Any) -> None:
    """So ``openssl ecparam -genkey`` writes them."""
    files = pki.pair()
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    traditional = files.private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    files.key.write_bytes(parameters + traditional)
    assert read(files).kind == "ECDSA"


def test_pairs_are_equal_if_they_send_the_same(pki: Any) -> None:
    one, other = pki.pair(), pki.pair()
    copy = one.cert.with_name("copy.pem")
    copy.write_bytes(one.cert.read_bytes())
    assert read(one) == read_pair(copy, one.key)
    assert hash(read(one)) == hash(read_pair(copy, one.key))
    assert read(one) != read(other)
    assert read(one) != "a pair"


def test_authorities(pki: Any) -> None:
    one, other = pki.ca("One"), pki.ca("Other")
    both = one.path.with_name("both.pem")
    both.write_bytes(one.path.read_bytes() + other.path.read_bytes())
    found = read_authorities(both)
    assert found.names == ("CN=One", "CN=Other")
    assert found.not_after == max(one.certificate.not_valid_after_utc, other.certificate.not_valid_after_utc)
    assert found == Authorities(Path("elsewhere"), [one.certificate, other.certificate])
    assert hash(found) == hash(Authorities(Path("elsewhere"), [one.certificate, other.certificate]))
    assert found != read_authorities(one.path)
    assert found != both


def test_of_many_authorities_only_the_first_are_named(pki: Any) -> None:
    many = Authorities(Path("bundle.pem"), [pki.ca(f"{number}").certificate for number in range(5)])
    assert many.names == ("CN=0", "CN=1", "CN=2", "and 2 more")
    assert Authorities(Path("bundle.pem"), many.certificates[:3]).names == ("CN=0", "CN=1", "CN=2")


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["cert", "key"])
def test_files_that_cannot_be_read(pki: Any, which: str) -> None:
    files = pki.pair()
    path = getattr(files, which)
    path.unlink()
    assert why_not(files) == (str(path), "cannot be read: No such file or directory")
    path.mkdir()
    assert why_not(files) == (str(path), "cannot be read: Is a directory")
    path.rmdir()
    os.mkfifo(path)
    assert why_not(files) == (str(path), "not a regular file")
    path.unlink()
    path.write_bytes(b" \n")
    assert why_not(files) == (str(path), "empty")
    path.write_bytes(b"x" * (LARGEST_FILE + 1))
    assert why_not(files) == (str(path), "larger than 1 MiB: no file of certificates or keys")


def test_a_certificate_that_is_none(pki: Any) -> None:
    files = pki.pair(ca=pki.ca("Between", parent=pki.root))
    whole = files.cert.read_bytes()
    files.cert.write_bytes(files.key.read_bytes())
    no_certificate = "no certificate is in it (PEM is expected: -----BEGIN CERTIFICATE-----)"
    assert why_not(files) == (str(files.cert), no_certificate)
    files.cert.write_bytes(files.certificate.public_bytes(Encoding.DER))
    assert why_not(files) == (str(files.cert), no_certificate)
    for cut in (30, 200, len(whole) // 2 + 100):
        files.cert.write_bytes(whole[:-cut])
        assert why_not(files) == (str(files.cert), "ends in the middle of a certificate")
    files.cert.write_bytes(whole.replace(b"\nMII", b"\nMIH", 1))
    path, why = why_not(files)
    assert path == str(files.cert)
    assert why.startswith("damaged: ")


def test_a_key_that_is_none(pki: Any) -> None:
    files = pki.pair()
    whole = files.key.read_bytes()
    no_key = "no private key is in it (PEM is expected: -----BEGIN PRIVATE KEY-----)"
    files.key.write_bytes(files.cert.read_bytes())
    assert why_not(files) == (str(files.key), no_key)
    for content in (whole[:-30], whole.replace(b"\nMI", b"\nXX"), whole[:60] + whole[90:]):
        files.key.write_bytes(content)
        assert why_not(files) == (str(files.key), DAMAGED)


@pytest.mark.parametrize("form", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
def test_an_encrypted_key_is_never_asked_about(pki: Any, form: PrivateFormat) -> None:
    files = pki.pair()
    files.key.write_bytes(files.private.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")))
    why = "encrypted: a key without a pass phrase is needed, since nobody can be asked"
    assert why_not(files) == (str(files.key), why)


def test_a_key_of_another_kind(pki: Any) -> None:
    files = pki.pair()
    private = dsa.generate_private_key(1024)
    files.key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    why = "a key of a kind that is not used for TLS here (ECDSA, RSA and Ed25519 are)"
    assert why_not(files) == (str(files.key), why)


def test_a_key_of_another_certificate(pki: Any) -> None:
    files, other = pki.pair(), pki.pair(key="rsa")
    files.key.write_bytes(other.key.read_bytes())
    assert why_not(files) == (str(files.cert), f"the key in {files.key} does not belong to it")


def test_the_servers_certificate_must_be_the_first(pki: Any) -> None:
    between = pki.ca("Between", parent=pki.root)
    files = pki.pair(ca=between)
    files.cert.write_bytes(between.path.read_bytes() + files.certificate.public_bytes(Encoding.PEM))
    why = f"the key in {files.key} belongs to certificate 2: the server's own must be the first"
    assert why_not(files) == (str(files.cert), why)


def test_a_chain_in_the_wrong_order(pki: Any) -> None:
    one = pki.ca("One", parent=pki.root)
    two = pki.ca("Two", parent=one)
    files = pki.pair(ca=two)
    own = files.certificate.public_bytes(Encoding.PEM)
    files.cert.write_bytes(own + one.path.read_bytes() + two.path.read_bytes())
    why = "not in order: certificate 1 was signed by CN=Two, but certificate 2 is CN=One"
    assert why_not(files) == (str(files.cert), why)


def test_a_certificate_that_cannot_be_understood(pki: Any) -> None:
    files = pki.pair()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "odd")])
    odd = (
        x509.CertificateBuilder(name, name, files.private.public_key(), 1)
        .not_valid_before(files.certificate.not_valid_before_utc)
        .not_valid_after(files.certificate.not_valid_after_utc)
        .add_extension(x509.UnrecognizedExtension(x509.OID_SUBJECT_ALTERNATIVE_NAME, b"odd"), critical=False)
        .sign(files.private, hashes.SHA256())
    )
    files.cert.write_bytes(odd.public_bytes(Encoding.PEM))
    path, why = why_not(files)
    assert path == str(files.cert)
    assert why.startswith("a certificate in it cannot be understood: ")


def test_a_key_on_a_curve_that_is_not_known(pki: Any) -> None:
    files = pki.pair()
    files.key.write_bytes(ON_SECP112R1)
    assert why_not(files) == (str(files.key), DAMAGED)


def test_authorities_may_be_in_a_file_twice(pki: Any) -> None:
    twice = pki.root.path.with_name("twice.pem")
    twice.write_bytes(pki.root.path.read_bytes() * 2)
    read_authorities(twice).install(SSL.Context(SSL.TLS_SERVER_METHOD))


def test_authorities_that_openssl_does_not_take(pki: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    monkeypatch.setattr(context, "get_cert_store", lambda: None)
    with pytest.raises(TlsError, match=r"refused by OpenSSL$"):
        read_authorities(pki.root.path).install(context)


def test_a_key_that_is_too_weak(pki: Any) -> None:
    """It is a good pair; only OpenSSL does not take it, and says so when it is to be used."""
    pair = read(pki.pair(key="rsa1024"))
    with pytest.raises(TlsError, match=r"refused by OpenSSL: ee key too small$"):
        pair.install(SSL.Context(SSL.TLS_SERVER_METHOD))


def test_no_room_for_the_chain(pki: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = read(pki.pair())
    monkeypatch.setattr("tempfile.tempdir", str(pair.path.with_name("nowhere")))
    with pytest.raises(TlsError, match=r"no room for a temporary file: No such file or directory$"):
        pair.install(SSL.Context(SSL.TLS_SERVER_METHOD))


def test_the_key_is_not_written_to_the_temporary_file(pki: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = pki.pair()
    both = files.cert.with_name("both.pem")
    both.write_bytes(files.cert.read_bytes() + files.key.read_bytes())
    written = []
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    use = context.use_certificate_chain_file

    def read_and_use(path: str) -> None:
        written.append(Path(path).read_bytes())
        use(path)

    monkeypatch.setattr(context, "use_certificate_chain_file", read_and_use)
    read_pair(both, both).install(context)
    assert written == [files.certificate.public_bytes(Encoding.PEM)]


def test_words() -> None:
    assert words_of(SSL.Error([("SSL routines", "", "one"), ("", "", ""), ("x", "y", "two")])) == "one, two"
    assert words_of(SSL.Error([])) == words_of(SSL.Error()) == words_of(SSL.Error("text")) == "no reason given"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")
def test_a_certificate_of_openssls_own_making(tmp_path: Path) -> None:
    """Somebody else's encoder than ours."""
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 5 -subj /CN=mx.example.org -addext"
    subprocess.run(
        [*command.split(), "subjectAltName=DNS:mx.example.org", "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    pair = read_pair(cert, key)
    assert (pair.names, pair.key_type) == (("mx.example.org",), "RSA 2048")
