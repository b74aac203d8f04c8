"""What TLS has to be with the hosts of a destination: route, DANE, MTA-STS, and what wins."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from smtpproxy.config import Route
from smtpproxy.net.dane import Tlsa
from smtpproxy.net.danelookup import NO_DANE, TlsaFound
from smtpproxy.net.remotepolicy import RemotePolicy, decide_host
from smtpproxy.net.security import Security
from smtpproxy.net.stspolicy import StsPolicy
from smtpproxy.net.tlspolicy import MxHost
from smtpproxy.session.outbound.target import TlsWish, Unroutable

from .fakedns import TEMPFAIL, Answers, first, tlsa_answer
from .remotepeers import HOST, remote_settings

NONE, OPPORTUNISTIC, REQUIRED, VERIFIED, IMPLICIT = TlsWish
RECORD = Tlsa(3, 1, 1, b"a" * 32)
DANE = TlsaFound("found", (RECORD,), HOST)
UNUSABLE = TlsaFound("found", (), HOST)
FAILED = TlsaFound("failed", base=HOST, why="no answer")
ENFORCE = StsPolicy("enforce", 1000, (HOST,))
OTHERS = StsPolicy("enforce", 1000, ("other.example.org",))
TESTING = StsPolicy("testing", 1000, (HOST,))
NO_POLICY = StsPolicy("none", 1000, ())
NOT_NAMED = f"{HOST} is none of the MX hosts in the MTA-STS policy of its domain"


def host(name: str = HOST, *, secure: bool = True, source: Any = "mx") -> MxHost:
    made = MxHost(name, 25, mx_secure=secure, source=source, domain="example.org", expanded="example.net")
    made.addresses, made.secure = ("192.0.2.7",), secure
    return made


@pytest.mark.parametrize(
    ("mode", "tlsa", "policy", "wish", "proof_of"),
    [
        ("opportunistic", NO_DANE, None, OPPORTUNISTIC, ("nothing", "route")),
        ("required", NO_DANE, None, REQUIRED, ("nothing", "route")),
        ("verified", NO_DANE, None, VERIFIED, ("pkix", "route")),
        ("implicit", NO_DANE, None, IMPLICIT, ("pkix", "route")),
        ("opportunistic", DANE, None, VERIFIED, ("dane", "dane")),
        ("required", DANE, None, VERIFIED, ("dane", "dane")),
        ("verified", DANE, None, VERIFIED, ("dane", "dane")),
        ("implicit", DANE, None, IMPLICIT, ("dane", "dane")),
        ("opportunistic", UNUSABLE, None, REQUIRED, ("nothing", "dane")),
        ("required", UNUSABLE, None, REQUIRED, ("nothing", "dane")),
        ("verified", UNUSABLE, None, VERIFIED, ("pkix", "dane")),
        ("opportunistic", NO_DANE, ENFORCE, VERIFIED, ("pkix", "mta-sts")),
        ("required", NO_DANE, ENFORCE, VERIFIED, ("pkix", "mta-sts")),
        ("verified", NO_DANE, ENFORCE, VERIFIED, ("pkix", "mta-sts")),
        ("implicit", NO_DANE, ENFORCE, IMPLICIT, ("pkix", "mta-sts")),
        ("opportunistic", DANE, ENFORCE, VERIFIED, ("dane", "dane")),
        ("opportunistic", DANE, OTHERS, VERIFIED, ("dane", "dane")),  # RFC 8461, 2: never over DANE
        ("opportunistic", UNUSABLE, ENFORCE, VERIFIED, ("pkix", "mta-sts")),
        ("opportunistic", NO_DANE, TESTING, OPPORTUNISTIC, ("nothing", "route")),
        ("opportunistic", UNUSABLE, TESTING, REQUIRED, ("nothing", "dane")),
        ("opportunistic", NO_DANE, NO_POLICY, OPPORTUNISTIC, ("nothing", "route")),
    ],
)
def test_what_wins(
    mode: str, tlsa: TlsaFound, policy: StsPolicy | None, wish: TlsWish, proof_of: tuple[str, str]
) -> None:
    security = decide_host(remote_settings(mode=mode), host(), tlsa, policy)
    assert isinstance(security, Security)
    assert (security.wish, security.proof, security.policy) == (wish, *proof_of)
    assert security.sni == HOST
    assert security.tlsa == ((RECORD,) if proof_of[0] == "dane" else ())


@pytest.mark.parametrize(
    ("tlsa", "policy", "why"),
    [
        (FAILED, None, "no answer"),
        (FAILED, ENFORCE, "no answer"),
        (NO_DANE, OTHERS, NOT_NAMED),
        (UNUSABLE, OTHERS, NOT_NAMED),
    ],
)
@pytest.mark.parametrize("mode", ["opportunistic", "required", "verified", "implicit"])
def test_what_leaves_a_host_out(mode: str, tlsa: TlsaFound, policy: StsPolicy | None, why: str) -> None:
    assert decide_host(remote_settings(mode=mode), host(), tlsa, policy) == why


@pytest.mark.parametrize("mode", ["opportunistic", "required", "verified", "implicit"])
def test_no_rule_makes_a_demand_smaller(mode: str) -> None:
    settings, order = remote_settings(mode=mode), list(TlsWish)
    by_route = decide_host(settings, host(), NO_DANE, None)
    assert isinstance(by_route, Security)
    for tlsa, policy in itertools.product((NO_DANE, DANE, UNUSABLE), (None, ENFORCE, TESTING, NO_POLICY)):
        security = decide_host(settings, host(), tlsa, policy)
        assert isinstance(security, Security)
        assert order.index(security.wish) >= order.index(by_route.wish)
        assert (security.proof == "nothing") == (not security.wish.verifies)


def test_the_names_that_count() -> None:
    """RFC 7672, 3.2.2 with DANE; RFC 8461, 4.1 with MTA-STS: the MX host, whatever the route's name is."""
    settings = remote_settings(name="name.example.com")
    found = TlsaFound("found", (RECORD,), "base.example.org")
    dane = decide_host(settings, host(), found, None)
    assert isinstance(dane, Security)
    assert (dane.names, dane.sni) == (("base.example.org", "example.org", "example.net"), "base.example.org")
    sts = decide_host(settings, host(), NO_DANE, ENFORCE)
    assert isinstance(sts, Security)
    assert (sts.names, sts.sni) == ((HOST,), HOST)
    explicit = decide_host(remote_settings(sni="sni.example.com"), host(), found, None)
    assert isinstance(explicit, Security)
    assert explicit.sni == "sni.example.com"


@pytest.mark.parametrize(
    ("tlsa", "policy", "note"),
    [
        (NO_DANE, TESTING, "the domain has an MTA-STS policy in mode testing"),
        (
            NO_DANE,
            OTHERS._replace(mode="testing"),
            "the domain has an MTA-STS policy in mode testing, which does not name this MX host",
        ),
        (UNUSABLE, None, "there are TLSA records, but none that can be used"),
        (
            UNUSABLE,
            TESTING,
            "there are TLSA records, but none that can be used; the domain has an MTA-STS policy in mode testing",
        ),
    ],
)
def test_what_is_only_noted(tlsa: TlsaFound, policy: StsPolicy | None, note: str) -> None:
    security = decide_host(remote_settings(), host(), tlsa, policy)
    assert isinstance(security, Security)
    assert security.note == note
    plain = decide_host(remote_settings(mode=security.wish.name.lower()), host(), NO_DANE, None)
    assert security == plain  # a note makes no other session of it
    assert hash(security.key) == hash(plain.key)


# --- all hosts of a destination ---------------------------------------------------------------------------------


class Policies:
    """Instead of MtaSts: the policy of every domain."""

    def __init__(self, policy: StsPolicy | None = None) -> None:
        self.policy = policy
        self.asked: list[str] = []

    def find(self, domain: str, found: Callable[[StsPolicy | None], None]) -> None:
        self.asked.append(domain)
        found(self.policy)


class Told:
    """A PolicyReport."""

    def __init__(self) -> None:
        self.left_out: list[tuple[str, str, str]] = []

    def host_left_out(self, domain: str, host: str, why: str) -> None:
        self.left_out.append((domain, host, why))


def route(**tls: Any) -> Route:
    return Route.model_validate({"domain": "*", "lookup": "mx", "tls": tls})


def decide(
    hosts: list[MxHost], dns: Answers, policies: Policies | None = None, told: Told | None = None, **tls: Any
) -> list[Any]:
    found: list[Any] = []
    policy = RemotePolicy(dns, policies or Policies(), told or Told())
    policy.decide(route(**tls), "example.org", hosts, found.append)
    return found


@pytest.mark.parametrize(
    ("tls", "asked"),
    [
        ({}, ["example.org"]),
        ({"mode": "verified"}, ["example.org"]),
        ({"mode": "none"}, []),
        ({"mta_sts": False}, []),
        ({"mode": "verified", "name": "mail.example.org"}, []),
    ],
)
def test_a_policy_is_asked_for_before_the_hosts_are_known(tls: dict[str, Any], asked: list[str]) -> None:
    policies = Policies()
    RemotePolicy(Answers(), policies, Told()).prepare(route(**tls), "example.org")
    assert policies.asked == asked


def test_nobody_is_asked_where_no_route_wants_policies() -> None:
    dns = Answers()
    RemotePolicy(dns, None, Told()).prepare(route(), "example.org")
    assert dns.asked == []


HOSTS = ["mx1.example.org", "mx2.example.org", "mx3.example.org"]


def test_each_host_is_decided_on_and_their_order_stays() -> None:
    dns = Answers({"_25._tcp.mx2.example.org": tlsa_answer(RECORD), "_25._tcp.mx3.example.org": TEMPFAIL})
    told = Told()
    decisions = first(decide([host(name) for name in HOSTS], dns, told=told))
    assert [(one.name, wish, security.policy) for one, wish, security in decisions] == [
        ("mx1.example.org", OPPORTUNISTIC, "route"),
        ("mx2.example.org", VERIFIED, "dane"),
    ]
    why = "no answer about the TLSA records of _25._tcp.mx3.example.org"
    assert told.left_out == [("example.org", "mx3.example.org", why)]


def test_answers_may_come_in_any_order() -> None:
    dns = Answers({"_25._tcp.mx1.example.org": tlsa_answer(RECORD)}, later=True)
    found = decide([host(name) for name in HOSTS], dns)
    assert len(dns.waiting) == 3
    for answer in reversed(dns.waiting):
        assert found == []
        answer()
    assert [security.proof for _, _, security in first(found)] == ["dane", "nothing", "nothing"]


def test_with_no_host_left_the_mail_waits() -> None:
    dns = Answers({f"_25._tcp.{name}": TEMPFAIL for name in HOSTS})
    result = first(decide([host(name) for name in HOSTS], dns))
    why = "no answer about the TLSA records of _25._tcp.mx1.example.org"
    assert result == Unroutable(f"451 4.7.5 {why}\r\n".encode(), why)
    result = first(decide([host("mx.example.net")], Answers(), Policies(OTHERS)))
    assert result.reply.startswith(b"451 4.7.5 mx.example.net is none of the MX hosts")


@pytest.mark.parametrize(
    "tls",
    [
        {"mode": "none"},
        {"mode": "verified", "pins": ["A" * 43 + "="]},
        {"mode": "verified", "name": "mx.example.com"},
        {"mode": "implicit", "ca": "ca.pem"},
        {"dane": False, "mta_sts": False},
    ],
)
def test_where_nobody_is_asked(tls: dict[str, Any]) -> None:
    dns, policies = Answers({f"_25._tcp.{HOST}": tlsa_answer(RECORD)}), Policies(ENFORCE)
    ((decided, wish, security),) = first(decide([host()], dns, policies, **tls))
    assert (decided.name, wish) == (HOST, TlsWish[tls.get("mode", "opportunistic").upper()])
    assert security.policy == "route"
    assert (dns.asked, policies.asked) == ([], [])


@pytest.mark.parametrize("source", ["nexthop", "literal"])
def test_without_a_look_up_of_mx_records_nobody_is_asked(source: str) -> None:
    dns, policies = Answers(), Policies(ENFORCE)
    ((_, wish, _),) = first(decide([host(source=source)], dns, policies))
    assert wish is OPPORTUNISTIC
    assert (dns.asked, policies.asked) == ([], [])


def test_each_of_the_two_can_be_turned_off() -> None:
    dns, policies = Answers({f"_25._tcp.{HOST}": tlsa_answer(RECORD)}), Policies(ENFORCE)
    ((_, _, security),) = first(decide([host()], dns, policies, dane=False))
    assert security.policy == "mta-sts"
    ((_, _, security),) = first(decide([host()], dns, policies, mta_sts=False))
    assert security.policy == "dane"
    assert policies.asked == ["example.org"]


def test_the_implicit_mx_counts_as_one() -> None:
    dns = Answers({"_25._tcp.example.org": tlsa_answer(RECORD)})
    ((_, _, security),) = first(decide([host("example.org", source="implicit")], dns))
    assert (security.proof, security.names) == ("dane", ("example.org", "example.net"))
    ((_, _, security),) = first(decide([host("example.org", source="implicit", secure=False)], dns))
    assert security.proof == "nothing"
