"""DANE: which TLSA records can be used, and whether a server is the one that they name (RFC 7672)."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.net.dane import EE, TA, Tlsa, objection, usable

from .remotepeers import HOST, by_dane, meet_remote, remote_tls, target_of, tlsa
from .tlspeers import now, server_tls

NO_MATCH = "the certificate matches no TLSA record"
NO_ANCHOR = "no certificate of the chain matches a TLSA record"
EVERY_FORM = pytest.mark.parametrize(("selector", "matching"), [(s, m) for s in (0, 1) for m in (0, 1, 2)])
SHA256, SHA512 = b"a" * 32, b"b" * 64
SHA_256 = hashes.SHA256()


def chain_of(pair: Any) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pair.cert.read_bytes())


# --- which records can be used -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "good"),
    [
        (Tlsa(3, 1, 1, SHA256), True),
        (Tlsa(3, 0, 1, SHA256), True),
        (Tlsa(3, 1, 2, SHA512), True),
        (Tlsa(2, 0, 1, SHA256), True),
        (Tlsa(2, 1, 2, SHA512), True),
        (Tlsa(0, 0, 1, SHA256), False),  # PKIX-TA
        (Tlsa(1, 1, 1, SHA256), False),  # PKIX-EE
        (Tlsa(4, 1, 1, SHA256), False),
        (Tlsa(255, 1, 1, SHA256), False),
        (Tlsa(3, 2, 1, SHA256), False),
        (Tlsa(3, 1, 3, SHA256), False),
        (Tlsa(3, 1, 1, SHA512), False),
        (Tlsa(3, 1, 1, SHA256[:-1]), False),
        (Tlsa(3, 1, 2, SHA256), False),
        (Tlsa(3, 1, 1, b""), False),
        (Tlsa(3, 0, 0, b"no certificate"), False),
        (Tlsa(2, 1, 0, b"no key"), False),
    ],
)
def test_which_records_can_be_used(record: Tlsa, *, good: bool) -> None:
    assert usable([record]) == ((record,) if good else ())


def test_whole_certificates_and_keys_can_be_used(pki: Any) -> None:
    certificate = pki.root.certificate
    records = [tlsa(certificate, 2, selector, 0) for selector in (0, 1)]
    assert usable(records) == tuple(records)
    swapped = [Tlsa(2, 1 - record.selector, 0, record.data) for record in records]
    assert usable(swapped) == ()


def test_the_strongest_hash_counts(pki: Any) -> None:
    """RFC 7671, 9: for each usage and selector apart; what stands there as a whole counts anyhow."""
    whole = tlsa(pki.root.certificate, 2, 0, 0)
    records = [
        Tlsa(3, 1, 1, SHA256),
        Tlsa(3, 1, 2, SHA512),
        Tlsa(3, 0, 1, SHA256),
        Tlsa(2, 0, 1, SHA256),
        whole,
        Tlsa(3, 1, 2, SHA512),
    ]
    assert set(usable(records)) == {records[1], records[2], records[3], whole}
    assert len(usable(records)) == 4


def test_records_are_bounded_and_in_a_fixed_order() -> None:
    records = [Tlsa(3, 1, 1, bytes([number]) * 32) for number in range(100)]
    assert usable(records) == usable(reversed(records))
    assert len(usable(records)) == 32


@given(st.lists(st.builds(Tlsa, *[st.integers(0, 4)] * 3, st.binary(max_size=80))))
def test_no_record_breaks_anything(records: list[Tlsa]) -> None:
    for record in usable(records):
        assert record in records
        assert record.usage in {2, 3}


# --- DANE-EE ---------------------------------------------------------------------------------------------------------


@EVERY_FORM
def test_the_servers_own_certificate(pki: Any, selector: int, matching: int) -> None:
    """RFC 7672, 3.1.1: no name, no date, no authority, no purpose."""
    pair = pki.pair(["x.example.net"], ca=pki.ca("Somebody"), days=-5, client=True)
    record = tlsa(pair.certificate, EE, selector, matching)
    tls, target = remote_tls(), target_of(by_dane(record))
    assert usable([record])
    assert meet_remote(tls, server_tls(pair), target)[0] == ""
    assert meet_remote(tls, server_tls(pki.pair()), target)[0] == NO_MATCH


def test_another_certificate_with_the_same_key(pki: Any) -> None:
    one, other = pki.pair(key="rsa"), pki.pair()
    renewed = x509.CertificateBuilder(
        one.certificate.issuer,
        other.certificate.subject,
        one.certificate.public_key(),
        5,
        one.certificate.not_valid_before_utc,
        one.certificate.not_valid_after_utc,
    ).sign(pki.root.key, hashes.SHA256())
    assert objection([renewed], [tlsa(one.certificate, EE, 1, 1)], (), now()) == ""
    assert objection([renewed], [tlsa(one.certificate, EE, 0, 1)], (), now()) == NO_MATCH


def test_the_authoritys_certificate_is_not_the_servers_own(pki: Any) -> None:
    between = pki.ca("Between", parent=pki.root)
    chain = chain_of(pki.pair(ca=between))
    assert chain[1] == between.certificate
    assert objection(chain, [tlsa(between.certificate, EE, 1, 1)], (HOST,), now()) == NO_MATCH


def test_one_of_several_records_is_enough(pki: Any) -> None:
    """A new key is published before it is used (RFC 7671, 8.1)."""
    pair, other = pki.pair(), pki.pair()
    records = [tlsa(other.certificate, EE, 1, 1), tlsa(pair.certificate, EE, 1, 1)]
    assert objection([pair.certificate], records, (), now()) == ""
    mixed = [tlsa(pki.ca("Else").certificate, TA, 0, 1), tlsa(pair.certificate, EE, 1, 1)]
    assert objection([pair.certificate], mixed, ("wrong.example.org",), now()) == ""


def test_no_certificate_is_nobody() -> None:
    assert objection([], [Tlsa(3, 1, 1, SHA256)], (HOST,), now()) == "the server shows no certificate"


# --- DANE-TA ---------------------------------------------------------------------------------------------------------


@EVERY_FORM
@pytest.mark.parametrize("anchor", ["root", "between"])
def test_a_trust_anchor(pki: Any, selector: int, matching: int, anchor: str) -> None:
    """RFC 7672, 3.1.2: it is presented. A root counts as well as what it has signed, and needs no own signature."""
    between = pki.ca("Between", parent=pki.root)
    pair = pki.pair(ca=between)
    pair.cert.write_bytes(pair.cert.read_bytes() + pki.root.path.read_bytes())
    record = tlsa((pki.root if anchor == "root" else between).certificate, TA, selector, matching)
    assert usable([record])
    tls, target = remote_tls(), target_of(by_dane(record))
    assert meet_remote(tls, server_tls(pair), target)[0] == ""
    assert meet_remote(tls, server_tls(pki.pair(ca=pki.ca("Somebody"))), target)[0] != ""


@pytest.mark.parametrize(
    ("selector", "matching", "why"), [(0, 0, ""), (1, 0, ""), (0, 1, NO_ANCHOR), (1, 1, NO_ANCHOR), (1, 2, NO_ANCHOR)]
)
@pytest.mark.parametrize("key", ["ecdsa", "rsa"])
def test_a_trust_anchor_that_is_not_presented(pki: Any, selector: int, matching: int, why: str, key: str) -> None:
    """What is published as a whole is known without; of a hash nobody could tell (RFC 7671, 5.2.1, 5.2.2)."""
    chain = chain_of(pki.pair(key=key))
    assert len(chain) == 1
    record = tlsa(pki.root.certificate, TA, selector, matching)
    assert objection(chain, [record], (HOST,), now()) == why


def test_a_bare_key_that_has_signed_an_intermediate(pki: Any) -> None:
    between = pki.ca("Between", parent=pki.root)
    chain, record = chain_of(pki.pair(ca=between)), tlsa(pki.root.certificate, TA, 1, 0)
    assert objection(chain, [record], (HOST,), now()) == ""
    assert objection(chain_of(pki.pair(ca=pki.ca("Somebody"))), [record], (HOST,), now()) == NO_ANCHOR


@pytest.mark.parametrize("kind", ["rsa", "pss", "ed25519"])
def test_bare_keys_of_every_kind(pki: Any, kind: str) -> None:
    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, 2048)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if kind == "pss" else None
    made = signed(pki, key, hashed=None if kind == "ed25519" else hashes.SHA256(), rsa_padding=pss)
    authority = signed(pki, key, public=key.public_key(), hashed=None if kind == "ed25519" else hashes.SHA256())
    assert objection([made], [tlsa(authority, TA, 1, 0)], (HOST,), now()) == ""
    assert objection([pki.pair().certificate], [tlsa(authority, TA, 1, 0)], (HOST,), now()) == NO_ANCHOR


def signed(
    pki: Any, key: Any, *, public: Any = None, hashed: Any = SHA_256, rsa_padding: Any = None, usage: Any = None
) -> x509.Certificate:
    """A certificate for HOST by a key that is no authority's of the pki."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Bare")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name if public is not None else x509.Name([]))
        .issuer_name(name)
        .public_key(pki.pair().private.public_key() if public is None else public)
        .serial_number(7)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.sign(key, hashed, rsa_padding=rsa_padding)


@EVERY_FORM
def test_the_servers_certificate_is_no_anchor_of_itself(pki: Any, selector: int, matching: int) -> None:
    chain = chain_of(pki.pair(ca=pki.ca("Between", parent=pki.root)))
    assert objection(chain, [tlsa(chain[0], TA, selector, matching)], (HOST,), now()) == NO_ANCHOR


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("mx.example.org",), ""),
        (("mx.example.net", "example.org", "mx.example.org"), ""),
        (("mx.example.net", "example.net"), "the certificate is not for mx.example.net"),
        ((), "nobody has said what the certificate must be for"),
    ],
)
def test_the_name_counts(pki: Any, names: tuple[str, ...], why: str) -> None:
    """RFC 7672, 3.2.2."""
    chain = chain_of(pki.pair(ca=pki.ca("Between", parent=pki.root)))
    assert objection(chain, [tlsa(chain[1], TA, 0, 1)], names, now()) == why


def test_dates_count(pki: Any) -> None:
    between = pki.ca("Between", parent=pki.root)
    record = tlsa(between.certificate, TA, 0, 1)
    assert objection(chain_of(pki.pair(ca=between, days=-1)), [record], (HOST,), now()) == "certificate has expired"
    chain = chain_of(pki.pair(ca=between, days=5))
    assert objection(chain, [record], (HOST,), now()) == ""
    assert objection(chain, [record], (HOST,), now() + timedelta(days=7)) == "certificate has expired"
    assert objection(chain, [record], (HOST,), now() - timedelta(days=7)).startswith("certificate is not yet valid")


def test_a_chain_has_to_hold(pki: Any) -> None:
    """Whoever shows the certificate of an authority has not been signed by it yet."""
    between, other = pki.ca("Between", parent=pki.root), pki.ca("Between")
    forged = [chain_of(pki.pair(ca=other))[0], between.certificate]
    assert objection(forged, [tlsa(between.certificate, TA, 0, 1)], (HOST,), now()) != ""
    no_authority = pki.pair(["nobody.example.org"])
    made = signed(pki, no_authority.private)
    assert objection([made, no_authority.certificate], [tlsa(pki.root.certificate, TA, 0, 0)], (HOST,), now()) != ""


def test_weak_signatures_are_refused(pki: Any) -> None:
    root = pki.ca("Root")
    record = tlsa(root.certificate, TA, 0, 0)
    weak = chain_of(pki.pair(key="rsa1024", ca=root))
    assert objection(weak, [record], (HOST,), now()) == "a signature in the chain is too weak"
    assert objection(chain_of(pki.pair(key="rsa", ca=root)), [record], (HOST,), now()) == ""


@pytest.mark.parametrize(
    ("usage", "why"),
    [
        (None, ""),
        (ExtendedKeyUsageOID.SERVER_AUTH, ""),
        (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, ""),
        (ExtendedKeyUsageOID.CLIENT_AUTH, "the certificate is not for servers"),
    ],
)
def test_the_purpose_counts(pki: Any, usage: Any, why: str) -> None:
    key = rsa.generate_private_key(65537, 2048)
    authority = signed(pki, key, public=key.public_key())
    made = signed(pki, key, usage=usage)
    assert objection([made], [tlsa(authority, TA, 1, 0)], (HOST,), now()) == why


def test_the_hashes_are_those_of_rfc_6698(pki: Any) -> None:
    """Made here without any of our own functions."""
    certificate = pki.pair().certificate
    der = certificate.public_bytes(Encoding.DER)
    for record in (Tlsa(3, 0, 0, der), Tlsa(3, 0, 1, hashlib.sha256(der).digest())):
        assert objection([certificate], [record], (), now()) == ""
    wrong = Tlsa(3, 0, 2, hashlib.sha512(der + b"x").digest())
    assert objection([certificate], [wrong], (), now()) == NO_MATCH
