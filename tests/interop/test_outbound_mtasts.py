"""MTA-STS (RFC 8461) in earnest: a smarthost fetches policies from an nginx by HTTPS, and delivers to Exim, or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .lab import wait_for
from .messages import assert_intact
from .mtasts_scene import Place, StsSmarthost, place, sts_smarthost

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def town(lasting_pki: Any) -> Iterator[Place]:
    """All the servers."""
    with place(lasting_pki) as made:
        yield made


@pytest.fixture(scope="module")
def house(town: Place, lasting_pki: Any) -> Iterator[StsSmarthost]:
    """The smarthost."""
    with sts_smarthost(town, lasting_pki.root.path) as made:
        yield made


def delivered(town: Place, house: StsSmarthost, recipient: str) -> dict[str, Any]:
    """Send a message, which must arrive; give what is logged of its delivery."""
    message, code = town.hand_over(house.port, recipient)
    assert code == 250
    assert_intact(town.exim.delivered(), message, (recipient,))
    return logged(house, recipient)


def kept(town: Place, house: StsSmarthost, recipient: str) -> dict[str, Any]:
    """Send a message, which must be refused for now; give what is logged of its delivery."""
    message, code = town.hand_over(house.port, recipient)
    assert code == 451
    assert message.token not in town.exim.log()
    return logged(house, recipient)


def logged(house: StsSmarthost, recipient: str) -> dict[str, Any]:
    """What is logged of the only delivery to a recipient."""
    found = wait_for(
        lambda: [event for event in house.events("delivery") if event["to"] == f"<{recipient}>"],
        f"the delivery to {recipient} in the log",
    )
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("domain", ["enforced.test", "wild.test"])
def test_a_host_of_the_policy_gets_the_mail(town: Place, house: StsSmarthost, domain: str) -> None:
    for number in range(2):
        event = delivered(town, house, f"r{number}@{domain}")
        assert event["verdict"] == "mta-sts: verified"
        assert event["tls"].startswith("TLSv1.3 ")
    assert town.web.fetched(domain) == 1


def test_a_host_that_is_not_in_it_gets_nothing(town: Place, house: StsSmarthost) -> None:
    event = kept(town, house, "r@elsewhere.test")
    assert event["tries"] == 0
    assert event["why"] == "mx.elsewhere.test is none of the MX hosts in the MTA-STS policy of its domain"
    assert event["reply"].startswith("451 4.7.5 ")


def test_a_host_with_the_certificate_of_others_gets_nothing(town: Place, house: StsSmarthost) -> None:
    event = kept(town, house, "r@misnamed.test")
    assert event["verdict"] == "mta-sts: not verified (the certificate is not for mx.misnamed.test)"
    assert event["reply"].startswith("451 4.7.5 ")


def test_a_policy_that_is_tested_only_tells(town: Place, house: StsSmarthost) -> None:
    verdict = delivered(town, house, "r@testing.test")["verdict"]
    assert verdict.startswith("route: not verified")
    assert verdict.endswith("MTA-STS policy in mode testing, which does not name this MX host")


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        ("redirected.test", "HTTP status 301"),
        ("html.test", "its media type is not text/plain"),
        ("stranger.test", "the certificate is refused: the certificate is not for mta-sts.stranger.test"),
    ],
)
def test_what_is_no_policy_counts_for_nothing(town: Place, house: StsSmarthost, domain: str, why: str) -> None:
    assert delivered(town, house, f"r@{domain}")["verdict"].startswith("route: not verified")
    (failed,) = [event for event in house.events("mta_sts_fetch_failed") if event["domain"] == domain]
    assert failed["why"].endswith(why)


def test_what_was_fetched_stays_in_force_without_the_web_server(town: Place, house: StsSmarthost) -> None:
    """The last one: DNS says that there are new policies, and they cannot be had."""
    for domain in ("enforced.test", "elsewhere.test"):
        town.hand_over(house.port, f"before@{domain}")
        town.dns.zones[f"_mta-sts.{domain}"] = {"TXT": ['"v=STSv1; id=2;"'], "ttl": 0}
    town.web.stop()
    assert delivered(town, house, "r@enforced.test")["verdict"] == "mta-sts: verified"
    assert kept(town, house, "r@elsewhere.test")["tries"] == 0
    assert delivered(town, house, "r@late.test")["verdict"].startswith("route: not verified")
    failed = [event["domain"] for event in house.events("mta_sts_fetch_failed")]
    assert failed[-3:] == ["enforced.test", "elsewhere.test", "late.test"]
