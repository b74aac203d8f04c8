"""Domains and hosts: what is written, which hosts and addresses are visited, DANE, and MTA-STS."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from freeports import free_port
from probeserver import MailServer
from twisted.internet.defer import Deferred, fail, succeed

from smtpproxy.net.servernames import spki
from smtpproxy.net.stspolicy import StsError
from smtpproxy.ops.probe import run
from smtpproxy.ops.probe.destination import Destination
from smtpproxy.ops.probe.facts import Found, Host, Server
from smtpproxy.ops.probe.run import Look
from smtpproxy.ops.probe.verdicts import is_fine, problems

MX = "mx.example.org"


# --- what is written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "port", "expected"),
    [
        ("example.org", None, ("example.org", 25, False)),
        ("example.org.", 2525, ("example.org", 2525, False)),
        ("mx.example.org:25", None, (MX, 25, True)),
        ("mx.example.org:2525", 2525, (MX, 2525, True)),
        ("192.0.2.1", None, ("192.0.2.1", 25, True)),
        ("192.0.2.1:26", None, ("192.0.2.1", 26, True)),
        ("2001:DB8::1", 26, ("2001:db8::1", 26, True)),
        ("[2001:db8::1]", None, ("2001:db8::1", 25, True)),
        ("[2001:db8::1]:587", None, ("2001:db8::1", 587, True)),
    ],
)
def test_destinations(text: str, port: int | None, expected: tuple[str, int, bool]) -> None:
    assert Destination.parse(text, port) == expected


@pytest.mark.parametrize(
    ("text", "port", "why"),
    [
        ("", None, "is expected"),
        ("a b", None, "is expected"),
        ("mx:", None, "is expected"),
        ("mx:25:26", None, "is expected"),
        ("[192.0.2.1", None, "is expected"),
        ("[1:2]", None, "is no IPv6 address"),
        ("mx:0", None, "1 to 65535"),
        ("mx:65536", None, "1 to 65535"),
        ("mx:25", 26, "two different ports"),
    ],
)
def test_what_is_no_destination(text: str, port: int | None, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Destination.parse(text, port)


# --- which hosts --------------------------------------------------------------------------------------------------


def test_all_hosts_of_a_domain_the_best_first(do: Any) -> None:
    port = free_port()
    zones = {
        "example.org": {"MX": ["20 second.example.org.", "10 first.example.org."]},
        "first.example.org": {"A": ["127.0.0.2", "127.0.0.3"]},
        "second.example.org": {"A": ["127.0.0.4"]},
    }
    heard: list[str] = []

    class Ear(Look):
        def known(self, found: Found) -> None:
            heard.append(f"{found.kind} {found.asked}")

        def host(self, host: Host) -> None:
            heard.append(f"{host.name} {host.preference}")

        def server(self, host: Host, server: Server) -> None:
            heard.append(f"{host.name} {server.address}:{server.port} {server.greeting[:3]}")

    with (
        MailServer(address="127.0.0.2", port=port),
        MailServer(address="127.0.0.3", port=port),
        MailServer(address="127.0.0.4", port=port),
    ):
        found = do("Example.ORG", zones, port=port, look=Ear())
    assert heard == [
        "domain Example.ORG",
        "first.example.org 10",
        f"first.example.org 127.0.0.2:{port} 220",
        f"first.example.org 127.0.0.3:{port} 220",
        "second.example.org 20",
        f"second.example.org 127.0.0.4:{port} 220",
    ]
    assert [len(host.servers) for host in found.hosts] == [2, 1]
    assert is_fine(found)


def test_a_name_without_mx_is_a_host(do: Any) -> None:
    with MailServer() as mx:
        found = do(MX, {MX: {"A": ["127.0.0.1"]}}, port=mx.port)
    assert (found.kind, [host.preference for host in found.hosts]) == ("host", [None])
    assert is_fine(found)


def test_with_a_port_nobody_asks_for_mx(do: Any) -> None:
    zones = {"example.org": {"MX": ["10 elsewhere.example.net."], "A": ["127.0.0.1"]}}
    with MailServer() as mx:
        found = do(f"example.org:{mx.port}", zones)
    assert [host.name for host in found.hosts] == ["example.org"]
    assert is_fine(found)


def test_only_so_many_addresses(do: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "MOST_ADDRESSES", 1)
    zones = {
        "example.org": {"MX": ["1 a.example.org.", "2 b.example.org."]},
        "a.example.org": {"A": ["127.0.0.1", "127.0.0.2"]},
        "b.example.org": {"A": ["127.0.0.3"]},
    }
    with MailServer() as mx:
        found = do("example.org", zones, port=mx.port)
    assert [(len(host.servers), host.left_out) for host in found.hosts] == [(1, 1), (0, 1)]


@pytest.mark.parametrize(
    ("zones", "why"),
    [
        ({}, "example.org: no such domain"),
        ({"example.org": {"MX": ["0 ."]}}, "example.org takes no mail (null MX)"),
        ({"example.org": "SERVFAIL"}, "example.org: DNS gives no answer now"),
    ],
)
def test_no_hosts(do: Any, zones: Any, why: str) -> None:
    found = do("example.org", zones)
    assert (found.trouble, found.hosts) == (why, ())
    assert not is_fine(found)


@pytest.mark.parametrize("name", ["-x-.example.org", "ex*ample.org", "a..b", "\u200f.example"])
def test_what_can_be_no_name_is_not_asked_for(do: Any, name: str) -> None:
    found = do(name)
    assert found.trouble
    assert not is_fine(found)


@pytest.mark.parametrize(("here", "why"), [({"A": "SERVFAIL"}, "DNS gives no address now"), ({}, "it has no address")])
def test_a_host_without_address(do: Any, here: Any, why: str) -> None:
    found = do("example.org", {"example.org": {"MX": ["10 mx.example.org."]}, MX: {**here, "AAAA": []}})
    assert [host.trouble for host in found.hosts] == [why]
    assert not is_fine(found)


# --- DANE ---------------------------------------------------------------------------------------------------------


def secure_zones(port: int, *records: str, secure: bool = True) -> dict[str, Any]:
    zones: dict[str, Any] = {
        "example.org": {"MX": ["10 mx.example.org."], "secure": secure},
        MX: {"A": ["127.0.0.1"], "secure": secure},
    }
    if records:
        zones[f"_{port}._tcp.{MX}"] = {"TLSA": list(records), "secure": secure}
    return zones


def tlsa_of(pair: Any) -> str:
    return f"3 1 1 {hashlib.sha256(spki(pair.certificate)).hexdigest()}"


def first_server(found: Found) -> tuple[Server, tuple[str, ...]]:
    host = found.hosts[0]
    return host.servers[0], problems(found.sts, host, host.servers[0])


def test_dane_that_matches(do: Any, pki: Any) -> None:
    """RFC 7672, 3.1.1: the name and the authority do not count."""
    pair = pki.pair(["other.example.net"], ca=pki.ca("Somebody"))
    with MailServer(pair=pair) as mx:
        found = do("example.org", secure_zones(mx.port, tlsa_of(pair)), port=mx.port)
    server, wrong = first_server(found)
    assert server.dane is not None
    assert (server.dane.status, server.dane.base, server.dane.matches) == ("found", MX, True)
    assert server.dane.records == (tlsa_of(pair),)
    assert found.hosts[0].secure
    assert server.tls is not None
    assert server.tls.servername == MX
    assert wrong == ()


def test_dane_of_a_trust_anchor(do: Any, pki: Any) -> None:
    """RFC 7672, 3.1.2: the certificate has to be for a name of the destination, which may be the domain."""
    root = pki.root.certificate.public_bytes(Encoding.DER).hex()
    with MailServer(pair=pki.pair(["example.org"])) as mx:
        found = do("example.org", secure_zones(mx.port, f"2 0 0 {root}"), port=mx.port)
    server, wrong = first_server(found)
    assert server.dane is not None
    assert (server.dane.matches, wrong) == (True, ())


def test_dane_that_does_not_match(do: Any, pki: Any) -> None:
    with MailServer(pair=pki.pair([MX])) as mx:
        found = do("example.org", secure_zones(mx.port, tlsa_of(pki.pair([MX]))), port=mx.port)
    server, wrong = first_server(found)
    assert server.dane is not None
    assert server.dane.matches is False
    assert wrong == ("DANE: the certificate matches no TLSA record",)
    assert not is_fine(found)


def test_dane_and_no_tls(do: Any, pki: Any) -> None:
    with MailServer() as mx:
        found = do("example.org", secure_zones(mx.port, tlsa_of(pki.pair())), port=mx.port)
    assert first_server(found)[1] == ("DANE: there are TLSA records, and no TLS was seen",)


@pytest.mark.parametrize(
    ("secure", "broken", "status"), [(False, False, "insecure"), (True, False, "none"), (True, True, "failed")]
)
def test_no_dane(do: Any, pki: Any, status: str, *, secure: bool, broken: bool) -> None:
    pair = pki.pair([MX])
    with MailServer(pair=pair) as mx:
        zones = secure_zones(mx.port, *([] if secure else [tlsa_of(pair)]), secure=secure)
        if broken:
            zones[f"_{mx.port}._tcp.{MX}"] = "SERVFAIL"
        found = do("example.org", zones, port=mx.port)
    server, wrong = first_server(found)
    assert server.dane is not None
    assert (server.dane.status, server.dane.matches) == (status, None)
    assert bool(wrong) is broken  # C16: without an answer there is no delivery


# --- MTA-STS ------------------------------------------------------------------------------------------------------


def policy(mode: str, *mx: str) -> bytes:
    return "".join([f"version: STSv1\nmode: {mode}\nmax_age: 86400\n", *(f"mx: {each}\n" for each in mx)]).encode()


def with_policy(do: Any, mx: MailServer, answer: Deferred[bytes]) -> Found:
    asked: list[str] = []

    def fetch(domain: str) -> Deferred[bytes]:
        asked.append(domain)
        return answer

    zones = secure_zones(mx.port, secure=False)
    zones["_mta-sts.example.org"] = {"TXT": ['"v=STSv1; id=1;"']}
    found: Found = do("example.org", zones, port=mx.port, fetch=fetch)
    assert asked == ["example.org"]
    return found


@pytest.mark.parametrize("mode", ["enforce", "testing"])
def test_a_policy_that_is_kept(do: Any, pki: Any, mode: str) -> None:
    with MailServer(pair=pki.pair([MX])) as mx:
        found = with_policy(do, mx, succeed(policy(mode, "*.example.org")))
    assert (found.sts.status, found.sts.mode, found.sts.mx, found.sts.max_age) == (
        "found",
        mode,
        ("*.example.org",),
        86400,
    )
    assert found.hosts[0].sts_allows is True
    assert is_fine(found)


@pytest.mark.parametrize(
    ("patterns", "names", "tls", "why"),
    [
        (["other.example.org"], [MX], True, "MTA-STS: the policy does not name this host"),
        ([MX], ["other.example.org"], True, f"MTA-STS: the certificate is not for {MX}"),
        ([MX], [MX], False, "MTA-STS: the policy demands TLS, and none was seen"),
    ],
)
def test_a_policy_that_is_not_kept(
    do: Any, pki: Any, patterns: list[str], names: list[str], why: str, *, tls: bool
) -> None:
    for mode in ("enforce", "testing"):
        with MailServer(pair=pki.pair(names) if tls else None) as mx:
            found = with_policy(do, mx, succeed(policy(mode, *patterns)))
        assert first_server(found)[1] == ((why,) if mode == "enforce" else ())


def test_dane_decides_over_a_policy(do: Any, pki: Any) -> None:
    """RFC 8461, 2."""
    pair = pki.pair(["other.example.net"])
    with MailServer(pair=pair) as mx:
        zones = secure_zones(mx.port, tlsa_of(pair)) | {"_mta-sts.example.org": {"TXT": ['"v=STSv1; id=1;"']}}
        found = do("example.org", zones, port=mx.port, fetch=lambda _: succeed(policy("enforce", MX)))
    assert found.sts.mode == "enforce"
    assert first_server(found)[1] == ()


def test_a_policy_that_cannot_be_had(do: Any) -> None:
    with MailServer() as mx:
        found = with_policy(do, mx, fail(StsError("HTTP status 404")))
    assert (found.sts.status, found.sts.why) == ("failed", "HTTP status 404")
    assert not is_fine(found)


def test_a_policy_of_mode_none(do: Any) -> None:
    with MailServer() as mx:
        found = with_policy(do, mx, succeed(policy("none")))
    assert (found.sts.mode, found.hosts[0].sts_allows) == ("none", None)
    assert is_fine(found)


def test_no_policy(do: Any) -> None:
    with MailServer() as mx:
        found = do("example.org", secure_zones(mx.port), port=mx.port, fetch=lambda _: fail(StsError("not asked")))
    assert found.sts.status == "none"
