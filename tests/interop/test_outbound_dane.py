"""DANE (RFC 7672) in earnest: zones signed with ldns-signzone, served by NSD, validated by Unbound; a smarthost that
goes by Unbound's word and delivers to Exim, or does not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import dns.flags
import dns.resolver
import pytest

from .dane_scene import DaneSmarthost, Outcome, Scene, hand_over, scene
from .lab import wait_for
from .messages import assert_intact
from .programs import s_client, shown

pytestmark = pytest.mark.interop

VERIFIED = {
    "key.dane.test": "mx.key.dane.test",
    "certificate.dane.test": "mx.certificate.dane.test",
    "renewal.dane.test": "mx.renewal.dane.test",
    "anchor-cert.dane.test": "mx.anchor-cert.dane.test",
    "anchor-key.dane.test": "mx.anchor-key.dane.test",
    "anchor-domain.dane.test": "mx.anchor-domain.dane.test",
    "moved.dane.test": "mx.anchor-domain.dane.test",
    "alias.dane.test": "www.alias.dane.test",
    "first-name.dane.test": "www.first-name.dane.test",
    "half.dane.test": "www.half.dane.test",
    "pointing.dane.test": "mx.pointing.dane.test",
    "star.dane.test": "mx.star.dane.test",
    "itself.dane.test": "itself.dane.test",
    "key.hashed.test": "mx.key.hashed.test",
    "key.optout.test": "mx.key.optout.test",
}
"""Domains, and the host that takes their mail."""

REFUSED = {
    "wrong.dane.test": "the certificate matches no TLSA record",
    "wrong.hashed.test": "the certificate matches no TLSA record",
    "anchor-misnamed.dane.test": "the certificate is not for mx.anchor-misnamed.dane.test",
    "anchor-other.dane.test": "no certificate of the chain matches a TLSA record",
}

UNKNOWN = {
    "mute.dane.test": ("4.7.5", ""),
    "forged-tlsa.dane.test": ("4.7.5", "_{port}._tcp.mx.forged-tlsa.dane.test. TLSA"),
    "hidden-tlsa.dane.test": ("4.7.5", "_{port}._tcp.mx.hidden-tlsa.dane.test. TLSA"),
    "forged-mx.dane.test": ("4.4.3", "forged-mx.dane.test. MX"),
    "forged-address.dane.test": ("4.4.3", "mx.forged-address.dane.test. A"),
    "expired.test": ("4.4.3", "expired.test. MX"),
}
"""Domains of which DNS says nothing that can be believed: the enhanced status code, and what Unbound finds forged."""

WITHOUT_DANE = {
    "without.dane.test": "mx.without.dane.test",
    "without.hashed.test": "mx.without.hashed.test",
    "without.optout.test": "mx.without.optout.test",
    "loose.dane.test": "mx.loose.dane.test",
    "plain.test": "mx.plain.test",
    "borrowing.plain.test": "mx.wrong.dane.test",
    "lame.dane.test": "mx.lame.plain.test",
}
"""No TLSA records, as NSEC or NSEC3 proves, or not with opt-out; or nobody vouches for TLSA, zone, MX, or address.

Of the last one's TLSA records DNS would say nothing.
"""


@pytest.fixture(scope="module")
def place(lasting_pki: Any) -> Iterator[Scene]:
    """All the servers."""
    with scene(lasting_pki) as made:
        yield made


@pytest.fixture(scope="module")
def house(place: Scene, lasting_pki: Any) -> Iterator[DaneSmarthost]:
    """A smarthost that believes a resolver of its own machine, as it does by itself."""
    with place.smarthost("auto", lasting_pki.root.path) as made:
        yield made


def delivery(house: DaneSmarthost, recipient: str) -> dict[str, Any]:
    """What is logged of the only delivery to a recipient."""
    found = wait_for(
        lambda: [event for event in house.events("delivery") if event["to"] == f"<{recipient}>"],
        f"the delivery to {recipient} in the log",
    )
    assert len(found) == 1, found
    return found[0]


def arrived(place: Scene, outcome: Outcome, recipient: str) -> None:
    """AssertionError unless the message was taken, and is there once."""
    assert outcome.code == 250, outcome
    assert_intact(place.exim.delivered(), outcome.message, (recipient,))


def is_there(place: Scene, outcome: Outcome) -> bool:
    """Whether Exim has ever taken a message."""
    return outcome.message.token in place.exim.log()


@pytest.mark.parametrize("domain", VERIFIED)
def test_who_proves_to_be_the_server_gets_the_mail(place: Scene, house: DaneSmarthost, domain: str) -> None:
    recipient = f"r@{domain}"
    arrived(place, hand_over(house, recipient), recipient)
    event = delivery(house, recipient)
    assert (event["host"], event["verdict"], event["tries"]) == (VERIFIED[domain], "dane: verified", 1)
    assert event["tls"].startswith("TLSv1.3 ")


@pytest.mark.parametrize("domain", REFUSED)
def test_who_does_not_gets_nothing(place: Scene, house: DaneSmarthost, domain: str) -> None:
    recipient, before = f"r@{domain}", len(place.line.conversations)
    outcome = hand_over(house, recipient)
    assert (outcome.code, outcome.text[:5]) == (451, "4.7.5"), outcome
    event = delivery(house, recipient)
    assert event["verdict"] == f"dane: not verified ({REFUSED[domain]})"
    assert [failure.partition(": ")[2] for failure in event["failures"]] == [f"TLS: {REFUSED[domain]}"]
    (talk,) = place.line.conversations[before:]
    in_clear = talk.sent_by("client").partition(b"\x16\x03")[0]  # up to the handshake
    assert in_clear == b"EHLO smarthost.lab.test\r\nSTARTTLS\r\n"
    assert not is_there(place, outcome)


def test_nothing_goes_in_clear_where_starttls_was_cut_out(place: Scene, house: DaneSmarthost) -> None:
    outcome = hand_over(house, "r@clear.dane.test")
    assert (outcome.code, outcome.text[:5]) == (451, "4.7.5"), outcome
    (failure,) = delivery(house, "r@clear.dane.test")["failures"]
    assert failure.endswith(": STARTTLS is not offered")
    assert not place.sink.recipients()


def test_the_next_host_is_tried(place: Scene, house: DaneSmarthost) -> None:
    arrived(place, hand_over(house, "r@second.dane.test"), "r@second.dane.test")
    event = delivery(house, "r@second.dane.test")
    assert (event["host"], event["verdict"], event["tries"]) == ("mx.key.dane.test", "dane: verified", 2)


@pytest.mark.parametrize("domain", UNKNOWN)
def test_what_is_forged_or_kept_back_keeps_the_mail_here(place: Scene, house: DaneSmarthost, domain: str) -> None:
    recipient, (status, question) = f"r@{domain}", UNKNOWN[domain]
    outcome = hand_over(house, recipient)
    assert (outcome.code, outcome.text[:5]) == (451, status), outcome
    event = delivery(house, recipient)
    assert event["tries"] == 0
    assert event["why"] in outcome.text
    if question:
        assert f"validation failure <{question.format(port=place.line.port)} IN>" in place.dns.log()


@pytest.mark.parametrize("domain", WITHOUT_DANE)
def test_without_dane_it_goes_as_the_route_says(place: Scene, house: DaneSmarthost, domain: str) -> None:
    recipient = f"r@{domain}"
    arrived(place, hand_over(house, recipient), recipient)
    event = delivery(house, recipient)
    assert event["host"] == WITHOUT_DANE[domain]
    assert event["verdict"] == f"route: not verified (the certificate is not for {WITHOUT_DANE[domain]})"
    assert event["tls"].startswith("TLSv1.3 ")


def test_records_that_cannot_be_used_demand_tls_only(place: Scene, house: DaneSmarthost) -> None:
    arrived(place, hand_over(house, "r@useless.dane.test"), "r@useless.dane.test")
    verdict = delivery(house, "r@useless.dane.test")["verdict"]
    assert verdict.startswith("dane: not verified")
    assert verdict.endswith("there are TLSA records, but none that can be used")


def test_a_resolver_that_is_not_believed(place: Scene, lasting_pki: Any) -> None:
    """There is no DANE then; what the resolver itself refuses to say stays unsaid."""
    with place.smarthost("no", lasting_pki.root.path) as house:
        for domain in ("key.dane.test", "wrong.dane.test", "forged-tlsa.dane.test"):
            recipient = f"unbelieved@{domain}"
            arrived(place, hand_over(house, recipient), recipient)
            assert delivery(house, recipient)["verdict"].startswith("route: not verified")
        outcome = hand_over(house, "unbelieved@forged-mx.dane.test")
        assert (outcome.code, outcome.text[:5]) == (451, "4.4.3")


@pytest.mark.parametrize(
    ("domain", "found", "wrong"),
    [
        ("anchor-key.dane.test", ("found", True), 0),
        ("wrong.dane.test", ("found", False), 1),
        ("forged-tlsa.dane.test", ("failed", None), 1),
        ("plain.test", ("insecure", None), 0),
    ],
)
def test_the_probe_sees_the_same(place: Scene, house: DaneSmarthost, domain: str, found: Any, wrong: int) -> None:
    options = ["-c", str(house.folder / "smtpproxy.yaml"), "--port", str(place.line.port), "--json"]
    command = [sys.executable, "-m", "smtpproxy", "probe", domain, *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (run.returncode, run.stderr) == (wrong, "")
    (server,) = json.loads(run.stdout)["hosts"][0]["servers"]
    assert (server["dane"]["status"], server["dane"]["matches"]) == found
    assert [problem.startswith("DANE: ") for problem in server["problems"]] == [True] * wrong


@pytest.mark.parametrize(
    "domain", ["key", "certificate", "renewal", "anchor-cert", "anchor-key", "wrong", "anchor-misnamed", "anchor-other"]
)
def test_openssl_comes_to_the_same(place: Scene, domain: str) -> None:
    """With its own DANE, and the records as Unbound gives them, vouched for."""
    host = f"mx.{domain}.dane.test"
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], place.dns.port, 30.0
    resolver.set_flags(dns.flags.RD | dns.flags.AD)
    answer = resolver.resolve(f"_{place.line.port}._tcp.{host}", "TLSA")
    assert answer.response.flags & dns.flags.AD
    options = ["-dane_tlsa_domain", host, "-dane_ee_no_namechecks", "-verify_return_error", "-brief"]
    for record in answer:
        options += ["-dane_tlsa_rrdata", str(record)]
    done = s_client(place.exim.port, "-starttls", "smtp", *options, say=b"QUIT\r\n")
    good = f"{domain}.dane.test" in VERIFIED
    assert (done.returncode == 0) is good, shown(done)
    assert bool(re.search(r"^DANE TLSA ", shown(done), re.MULTILINE)) is good, shown(done)
