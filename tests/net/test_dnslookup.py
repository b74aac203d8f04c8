"""What a DNS server's answers mean, asked over sockets: chains, truncation, trouble, DNSSEC, which servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.resolver
import pytest
from dnsserver import DnsServer
from freeports import free_port

from smtpproxy.config import Dns, Endpoint
from smtpproxy.net import dnslookup
from smtpproxy.net.dnslookup import Lookup, Mx

ZONES: dict[str, Any] = {
    "example.org": {"MX": ["20 mx2.example.org.", "10 MX1.example.org."], "secure": True, "ttl": 77},
    "mx1.example.org": {"A": ["192.0.2.2", "192.0.2.1"], "AAAA": ["2001:db8::1"], "secure": True},
    "_25._tcp.mx1.example.org": {"TLSA": ["3 1 1 " + "0f" * 32], "secure": True},
    "_26._tcp.mx1.example.org": {"TLSA": ["3 1 1 00ff"], "secure": True},
    "null.example.org": {"MX": ["0 ."]},
    "alias.example.org": {"CNAME": ["mx1.example.org."], "secure": True, "ttl": 10},
    "away.example.org": {"CNAME": ["host.example.net."], "secure": True},
    "host.example.net": {"A": ["192.0.2.7"], "ttl": 5},
    "away.example.net": {"CNAME": ["host.example.net."]},
    "dangling.example.net": {"CNAME": ["gone.example.net."]},
    "half.example.net": {"CNAME": ["mx1.example.org."]},
    "large.example.net": {"TXT": [f'"{number} {"x" * 240}"' for number in range(20)]},
    "many.example.net": {"A": [f"192.0.2.{number}" for number in range(101)]},
    "huge.example.net": {"TXT": [f'"{number} {"x" * 240}"' for number in range(80)]},
    "broken.example": "SERVFAIL",
    "closed.example": "REFUSED",
    "silent.example": "TIMEOUT",
    "signed.example": {"A": ["192.0.2.8"], "TLSA": "SERVFAIL", "secure": True},
}


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer(ZONES) as running:
        yield running


def settings(*servers: DnsServer, **changes: Any) -> Dns:
    endpoints = tuple(Endpoint("tcp", server.address, server.port) for server in servers)
    return Dns(**{"servers": endpoints, "timeout": "5 s", **changes})


def texts(answer: dnslookup.Answer) -> list[str]:
    return [str(record) for record in answer.records]


def test_records_as_they_come(server: DnsServer) -> None:
    look_up = Lookup(settings(server))
    mx, ttl = look_up("example.org", "MX")
    hosts = (Mx(20, "mx2.example.org"), Mx(10, "mx1.example.org"))
    assert (mx.status, mx.records, mx.name, mx.aliases) == ("ok", hosts, "example.org", ())
    assert ttl == 77.0
    assert look_up("null.example.org", "MX")[0].records == (Mx(0, ""),)
    assert texts(look_up("mx1.example.org", "A")[0]) == ["192.0.2.2", "192.0.2.1"]
    assert texts(look_up("mx1.example.org", "AAAA")[0]) == ["2001:db8::1"]
    assert texts(look_up("_25._tcp.mx1.example.org", "TLSA")[0]) == ["3 1 1 " + "0f" * 32]


def test_a_tlsa_record_that_cannot_be_used_is_no_failure(server: DnsServer) -> None:
    """That its digest has a wrong length is for DANE to judge."""
    answer, _ = Lookup(settings(server))("_26._tcp.mx1.example.org", "TLSA")
    assert (answer.status, texts(answer)) == ("ok", ["3 1 1 00ff"])


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [
        ("example.org", "A", "nodata"),
        ("alias.example.org", "MX", "nodata"),
        ("net", "A", "nodata"),
        ("gone.example.org", "MX", "nxdomain"),
        ("dangling.example.net", "A", "nxdomain"),
    ],
)
def test_nothing_for_as_long_as_the_soa_record_says(server: DnsServer, name: str, kind: Any, status: str) -> None:
    answer, ttl = Lookup(settings(server))(name, kind)
    assert (answer.status, answer.records) == (status, ())
    assert ttl == (10.0 if name.startswith("alias") else 60.0), "the least of the minimum and the CNAME's"


@pytest.mark.parametrize("name", ["example.org", "gone.example.org"])
def test_nothing_is_not_remembered_where_nobody_says_for_how_long(name: str) -> None:
    with DnsServer(ZONES, negative_ttl=-1) as server:
        assert Lookup(settings(server))(name, "A")[1] == 0.0


@pytest.mark.parametrize("name", ["broken.example", "closed.example"])
def test_a_server_that_fails(server: DnsServer, name: str) -> None:
    answer, _ = Lookup(settings(server))(name, "MX")
    assert (answer.status, answer.name) == ("tempfail", name)


def test_a_server_that_is_silent_is_asked_again_but_not_for_ever(server: DnsServer) -> None:
    answer, _ = Lookup(settings(server, timeout="100 ms", lifetime="1 s"))("silent.example", "MX")
    assert answer.status == "tempfail"
    assert server.asked[:2] == [("silent.example", "MX", "udp")] * 2


def test_the_next_server_is_asked_where_one_fails(server: DnsServer) -> None:
    with DnsServer({"example.org": "SERVFAIL"}) as first:
        answer, _ = Lookup(settings(first, server))("example.org", "MX")
    assert answer.status == "ok"
    assert len(first.asked) == 1


def test_a_reply_that_was_cut_off_is_asked_for_by_tcp(server: DnsServer) -> None:
    answer, _ = Lookup(settings(server))("large.example.net", "TXT")
    assert len(answer.records) == 20
    assert [by for _, _, by in server.asked] == ["udp", "tcp"]


@pytest.mark.parametrize(("name", "kind", "ttl"), [("many", "A", 0.0), ("huge", "TXT", 0.0), ("large", "TXT", 300.0)])
def test_what_would_fill_the_memory_is_not_remembered(server: DnsServer, name: str, kind: Any, ttl: float) -> None:
    answer, good_for = Lookup(settings(server))(f"{name}.example.net", kind)
    assert (answer.status, good_for) == ("ok", ttl)


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".org", ".".join(["a" * 60] * 5), "a.\\999.org"])
def test_what_cannot_be_a_name_is_nowhere(server: DnsServer, name: str) -> None:
    assert Lookup(settings(server))(name, "A")[0].status == "nxdomain"
    assert server.asked == []


# --- chains and DNSSEC -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "vouched_for", "canonical", "ttl"),
    [
        ("mx1.example.org", "all", "mx1.example.org", 300.0),
        ("alias.example.org", "all", "mx1.example.org", 10.0),
        ("away.example.org", "alias", "host.example.net", 5.0),
        ("away.example.net", "nothing", "host.example.net", 5.0),
        ("half.example.net", "nothing", "mx1.example.org", 300.0),
        ("host.example.net", "nothing", "host.example.net", 5.0),
    ],
)
def test_a_chain_of_names(server: DnsServer, name: str, vouched_for: str, canonical: str, ttl: float) -> None:
    answer, found_ttl = Lookup(settings(server))(name, "A")
    assert (answer.status, answer.name, found_ttl) == ("ok", canonical, ttl)
    assert (answer.secure, answer.alias_secure) == (vouched_for == "all", vouched_for == "alias")
    assert answer.aliases == (() if name == canonical else (name,))


def test_it_can_be_secure_that_there_is_nothing(server: DnsServer) -> None:
    look_up = Lookup(settings(server))
    found = [look_up(name, "TLSA")[0] for name in ("mx1.example.org", "_25._tcp.gone.example.org", "host.example.net")]
    assert [(answer.status, answer.secure) for answer in found] == [
        ("nodata", True),
        ("nxdomain", True),
        ("nodata", False),
    ]


def test_a_failure_in_a_secure_zone_is_a_failure(server: DnsServer) -> None:
    look_up = Lookup(settings(server))
    assert look_up("signed.example", "A")[0].secure
    assert look_up("signed.example", "TLSA")[0].status == "tempfail"


def test_the_word_of_a_server_on_this_machine(server: DnsServer) -> None:
    for word, secure in {"auto": True, "yes": True, "no": False}.items():
        assert Lookup(settings(server, trust_ad=word))("example.org", "MX")[0].secure is secure


@pytest.mark.parametrize("word", ["auto", "yes", "no"])
def test_the_word_of_a_server_somewhere_else(server: DnsServer, word: str) -> None:
    """One such among them is enough; it is never asked here."""
    secure = word == "yes"
    here = Endpoint("tcp", server.address, server.port)
    away = Endpoint("tcp", "192.0.2.53", 53)
    look_up = Lookup(Dns(servers=(here, away), trust_ad=word))
    assert look_up("example.org", "MX")[0].secure is secure
    assert look_up("away.example.org", "A")[0].alias_secure is secure


def test_what_a_server_says_unasked_counts_for_nothing() -> None:
    with DnsServer(ZONES, always_ad=True) as server:
        look_up = Lookup(settings(server, trust_ad="no"))
        found = [look_up("example.org", "MX")[0], look_up("example.org", "A")[0], look_up("gone.example.org", "A")[0]]
    assert [answer.secure for answer in found] == [False] * 3


def test_a_server_that_is_not_trusted_is_not_asked_for_dnssec(server: DnsServer) -> None:
    Lookup(settings(server, trust_ad="no"))("away.example.org", "A")
    assert server.asked == [("away.example.org", "A", "udp")]


# --- the system's servers ----------------------------------------------------------------------------------------


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The port that stands in for 53, which a resolv.conf cannot name."""
    number = free_port("127.0.0.3")
    monkeypatch.setattr(dnslookup, "_PORT", number)
    return number


def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path, port: int) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# a comment\nsearch lab.example\nnameserver\nnameserver none\nnameserver 127.0.0.2\noptions rotate\n"
    )
    look_up = Lookup(Dns(), str(file))
    with (
        DnsServer({"example.org": {"MX": ["10 one.example."]}}, address="127.0.0.2", port=port) as one,
        DnsServer({"example.org": {"MX": ["10 two.example."]}}, address="127.0.0.3", port=port) as two,
    ):
        assert [look_up("example.org", "MX")[0].records for _ in range(2)] == [(Mx(10, "one.example"),)] * 2
        other = tmp_path / "new"
        other.write_text("nameserver 127.0.0.3\n")
        other.replace(file)
        assert look_up("example.org", "MX")[0].records == (Mx(10, "two.example"),)
    assert (len(one.asked), len(two.asked)) == (2, 1)


@pytest.mark.parametrize("text", [None, "", "search lab.example\n"])
def test_without_servers_there_is_one_on_this_machine(tmp_path: Path, port: int, text: str | None) -> None:
    file = tmp_path / "resolv.conf"
    if text is not None:
        file.write_text(text)
    with DnsServer({"example.org": {"MX": ["10 one.example."], "secure": True}}, port=port):
        assert Lookup(Dns(), str(file))("example.org", "MX")[0].secure


def test_the_search_list_is_for_people(tmp_path: Path, port: int) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 127.0.0.1\nsearch example.org\n")
    with DnsServer(ZONES, port=port):
        assert Lookup(Dns(), str(file))("mx1", "A")[0].status == "nxdomain"


def test_one_reading_serves_many_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 127.0.0.1\n")
    made: list[Any] = []

    class Counted(dns.resolver.Resolver):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            made.append(self)

    monkeypatch.setattr(dns.resolver, "Resolver", Counted)
    look_up = Lookup(Dns(), str(file))
    for name in ("a..b", "c..d"):
        look_up(name, "A")
    assert len(made) == 1
