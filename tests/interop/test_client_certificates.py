"""Clients that show a certificate, asked for or required: it is in the log, and where the configuration says so the
Postfix behind gets a login name for it by XCLIENT.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from .clients import burst, hello
from .doors import STRANGER
from .fronts import Front, Way, fronts, tls
from .messages import assert_intact, sample
from .postfix import Postfix
from .programs import s_client, shown

pytestmark = pytest.mark.interop

WHY = {
    "stranger": "certificate verify failed (unable to get issuer cert locally)",
    "late": "certificate verify failed (cert has expired)",
    "nobody": "peer did not return a certificate",
}
"""Clients that are not let in where a certificate is required, and what the log says of them."""

KINDS = {"starttls": ["-starttls", "smtp"], "implicit": []}
WAYS = [(kind, [*options, version]) for kind, options in KINDS.items() for version in ("-tls1_2", "-tls1_3")]
by_kind_and_version = pytest.mark.parametrize(("kind", "options"), WAYS, ids=[f"{kind}{way[-1]}" for kind, way in WAYS])


@pytest.fixture(scope="module")
def people(lasting_pki: Any) -> dict[str, Any]:
    """Certificates of clients: one that has a login, one that has none, one of another authority, one too old."""
    authority = lasting_pki.ca("Clients")
    return {
        "alice": lasting_pki.pair(["alice.lab.test"], ca=authority, client=True, common_name="Alice"),
        "bob": lasting_pki.pair(["bob.lab.test"], ca=authority, client=True, key="rsa", common_name="Bob"),
        "stranger": lasting_pki.pair(["alice.lab.test"], client=True, common_name="Alice"),
        "late": lasting_pki.pair(["late.lab.test"], ca=authority, client=True, days=-1, common_name="Late"),
        "authority": authority,
    }


@pytest.fixture(scope="module")
def way(postfix_doors: Postfix, server_pair: Any, people: dict[str, Any]) -> Iterator[dict[str, Front]]:
    """A listener for each kind of TLS that asks for certificates, and one that requires them."""
    ways = {}
    # Every one of them has a login, the certificates that are worth nothing too.
    logins = {people[name].fingerprint: f"{name}@lab.test" for name in ("alice", "stranger", "late")}
    for kind in KINDS:
        for mode in ("ask", "require"):
            wanted = {"mode": mode, "ca": str(people["authority"].path), "logins": logins}
            listener = {"recipient_domains": None, **tls(kind, server_pair, client_certificates=wanted)}
            ways[f"{kind}-{mode}"] = Way(postfix_doors.ports["xclient"], {"client_name": "unavailable"}, listener)
    with fronts(ways) as made:
        yield made


def showing(person: Any) -> list[str]:
    """The options of s_client that show a certificate."""
    return ["-cert", str(person.cert), "-key", str(person.key), "-bind", f"{STRANGER}:0"]


@by_kind_and_version
def test_a_certificate_becomes_a_login(
    postfix_doors: Postfix, way: dict[str, Front], people: dict[str, Any], kind: str, options: list[str]
) -> None:
    """By the map from fingerprints only: Bob's certificate is as good as Alice's, but has no login."""
    asked, required = way[f"{kind}-ask"], way[f"{kind}-require"]
    people_and_logins = (("alice", "alice@lab.test"), ("bob", ""))
    for front, (name, login) in itertools.product((asked, required), people_and_logins):
        message = sample()
        done = s_client(front.port, *options, *showing(people[name]), say=burst(message))
        assert done.returncode == 0, shown(done)
        assert_intact(postfix_doors.delivered(), message)
        more = f", sasl_method=XCLIENT, sasl_username={re.escape(login)}" if login else ""
        assert re.fullmatch(rf"unknown\[{STRANGER}\]:\d+{more}", postfix_doors.arrival(message))
        session = front.session(message)
        assert session["certificate"] == f"CN={name.capitalize()}"
        assert session["fingerprint"] == people[name].fingerprint
        assert session.get("login", "") == login


@by_kind_and_version
def test_a_certificate_that_is_worth_nothing(
    postfix_doors: Postfix, way: dict[str, Front], people: dict[str, Any], kind: str, options: list[str]
) -> None:
    """Where one is only asked for the client gets in, without a login whatever the map says; else it does not."""
    asked, required = way[f"{kind}-ask"], way[f"{kind}-require"]
    for name, why in WHY.items():
        shows = showing(people[name]) if name in people else ["-bind", f"{STRANGER}:0"]
        message = sample()
        done = s_client(asked.port, *options, *shows, say=burst(message))
        assert done.returncode == 0, shown(done)
        assert re.fullmatch(rf"unknown\[{STRANGER}\]:\d+", postfix_doors.arrival(message))
        assert_intact(postfix_doors.delivered(), message)
        session = asked.session(message)
        assert not {"login", "certificate"} & set(session)
        assert ("certificate_error" in session) is (name != "nobody")

        watch = required.watch()
        message = sample()
        done = s_client(required.port, *options, *shows, say=burst(message))
        assert why in watch.one("tls_failed")["why"]
        assert "alert" in shown(done)
        assert_intact(postfix_doors.delivered(), message, ())


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_session_keeps_who_it_is(
    postfix_doors: Postfix, way: dict[str, Front], people: dict[str, Any], kind: str, tmp_path: Any
) -> None:
    """The certificate is part of the session: the login goes with it, and nobody else's."""
    front = way[f"{kind}-require"]
    ticket = str(tmp_path / "ticket")
    options = [*KINDS[kind], "-tls1_3", *showing(people["alice"])]
    assert s_client(front.port, *options, "-sess_out", ticket, say=hello(sample())).returncode == 0
    message = sample()
    done = s_client(front.port, *options, "-sess_in", ticket, say=burst(message))
    assert "Reused, TLSv1.3" in shown(done)
    assert "sasl_username=alice@lab.test" in postfix_doors.arrival(message)
    session = front.session(message)
    assert (session["resumed"], session["login"], session["certificate"]) == (True, "alice@lab.test", "CN=Alice")
