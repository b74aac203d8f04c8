"""TLSA records of a mail host: when they are asked for, under which name, and what answers mean (RFC 7672, 2)."""

from typing import Any

import pytest

from smtpproxy.net.dane import Tlsa
from smtpproxy.net.danelookup import NO_DANE, TlsaFound, base_domains, find_tlsa
from smtpproxy.net.resolver import Answer
from smtpproxy.net.tlspolicy import MxHost

from .fakedns import NOTHING, TEMPFAIL, Answers, first, tlsa_answer

RECORD, OTHER = Tlsa(3, 1, 1, b"a" * 32), Tlsa(2, 0, 1, b"b" * 32)
PKIX = Tlsa(1, 1, 1, b"c" * 32)
MX, TARGET = "mx.example.org", "real.example.net"


def host(
    *, mx_secure: bool = True, secure: bool = True, canonical: str = MX, alias_secure: bool = False, port: int = 25
) -> MxHost:
    made = MxHost(MX, port, mx_secure=mx_secure, domain="example.org")
    made.addresses, made.secure, made.canonical, made.alias_secure = ("192.0.2.7",), secure, canonical, alias_secure
    return made


@pytest.mark.parametrize(
    ("about", "bases"),
    [
        ({}, (MX,)),
        ({"mx_secure": False}, ()),  # 2.2.1
        ({"secure": False}, ()),  # 2.2.2
        ({"mx_secure": False, "secure": False}, ()),
        ({"canonical": TARGET}, (TARGET, MX)),  # 2.2.3: all secure
        ({"canonical": TARGET, "secure": False}, ()),
        ({"canonical": TARGET, "secure": False, "alias_secure": True}, (MX,)),
        ({"canonical": TARGET, "secure": False, "alias_secure": True, "mx_secure": False}, ()),
        ({"canonical": TARGET, "mx_secure": False}, ()),
        ({"secure": False, "alias_secure": True}, ()),  # there is no alias
    ],
)
def test_which_names_are_asked_for(about: dict[str, Any], bases: tuple[str, ...]) -> None:
    assert base_domains(host(**about)) == bases
    answers, found = Answers(), list[TlsaFound]()
    find_tlsa(answers, host(**about), found.append)
    assert first(found) == NO_DANE
    assert answers.asked == [(f"_25._tcp.{base}", "TLSA") for base in bases]


@pytest.mark.parametrize(
    ("at_target", "at_mx", "result"),
    [
        (tlsa_answer(RECORD), tlsa_answer(OTHER), TlsaFound("found", (RECORD,), TARGET)),
        (NOTHING, tlsa_answer(OTHER), TlsaFound("found", (OTHER,), MX)),
        (Answer("nodata", secure=True), tlsa_answer(OTHER), TlsaFound("found", (OTHER,), MX)),
        (tlsa_answer(RECORD, secure=False), tlsa_answer(OTHER), TlsaFound("found", (OTHER,), MX)),
        (tlsa_answer(RECORD, secure=False), NOTHING, NO_DANE),
        (NOTHING, NOTHING, NO_DANE),
        (Answer("nxdomain"), Answer("nodata"), NO_DANE),
        (tlsa_answer(PKIX), tlsa_answer(OTHER), TlsaFound("found", (), TARGET)),  # none usable: TLS without proof
        (tlsa_answer(PKIX, RECORD), NOTHING, TlsaFound("found", (RECORD,), TARGET)),
    ],
)
def test_what_answers_mean(at_target: Answer, at_mx: Answer, result: TlsaFound) -> None:
    answers = Answers({f"_25._tcp.{TARGET}": at_target, f"_25._tcp.{MX}": at_mx})
    found: list[TlsaFound] = []
    find_tlsa(answers, host(canonical=TARGET), found.append)
    assert first(found) == result


@pytest.mark.parametrize("known", [{TARGET: TEMPFAIL, MX: tlsa_answer(RECORD)}, {TARGET: NOTHING, MX: TEMPFAIL}])
def test_no_answer_is_not_the_answer_no(known: dict[str, Answer]) -> None:
    """Rule C16; RFC 7672, 2.1.2: also where the name before the CNAME would have records."""
    answers = Answers({f"_25._tcp.{name}": answer for name, answer in known.items()})
    found: list[TlsaFound] = []
    find_tlsa(answers, host(canonical=TARGET), found.append)
    failed = next(name for name, answer in known.items() if answer is TEMPFAIL)
    assert first(found).status == "failed"
    assert first(found).why == f"no answer about the TLSA records of _25._tcp.{failed}"


def test_the_port_is_that_of_the_host() -> None:
    answers, found = Answers({f"_465._tcp.{MX}": tlsa_answer(RECORD)}), list[TlsaFound]()
    find_tlsa(answers, host(port=465), found.append)
    assert first(found) == TlsaFound("found", (RECORD,), MX)
