"""`openssl s_client` as the client, by STARTTLS and on a port for TLS alone: versions, resumption, ALPN, renegotiation,
and which certificate is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .clients import burst, hello
from .fronts import Front, Way, fronts, tls
from .messages import assert_intact, sample
from .postfix import Postfix
from .programs import interactive, reply_codes, s_client, shown

pytestmark = pytest.mark.interop

KINDS = {"starttls": ["-starttls", "smtp", "-name", "first.lab.test"], "implicit": []}
by_kind = pytest.mark.parametrize("kind", KINDS)
VERSIONS = {"tls1": "TLSv1", "tls1_1": "TLSv1.1", "tls1_2": "TLSv1.2", "tls1_3": "TLSv1.3"}
TAKEN = {
    "modern": ["tls1_3"],
    "intermediate": ["tls1_2", "tls1_3"],
    "old": list(VERSIONS),
}


@pytest.fixture(scope="module")
def way(postfix_plain: Postfix, lasting_pki: Any, server_pair: Any) -> Iterator[dict[str, Front]]:
    """A listener for each kind of TLS and each profile, and some more."""
    pairs = [
        server_pair,
        lasting_pki.pair(["mx.lab.test"], key="rsa"),
        lasting_pki.pair(["other.lab.test"]),
        lasting_pki.pair(["*.wild.lab.test"]),
    ]
    certificates = [{"cert": str(pair.cert), "key": str(pair.key)} for pair in pairs]
    ways = {}
    for kind in KINDS:
        for profile in TAKEN:
            # The old ones know RSA only.
            pair = pairs[1] if profile == "old" else server_pair
            ways[f"{kind}-{profile}"] = Way(postfix_plain.port, {}, tls(kind, pair, profile=profile))
        ways[f"{kind}-no-tickets"] = Way(postfix_plain.port, {}, tls(kind, server_pair, tickets=False))
        ways[f"{kind}-names"] = Way(postfix_plain.port, {}, {"tls": {"mode": kind, "certificates": certificates}})
    with fronts(ways) as made:
        yield made


@by_kind
@pytest.mark.parametrize("version", TAKEN["intermediate"])
def test_a_message_in_one_flight(
    postfix_plain: Postfix, way: dict[str, Front], lasting_pki: Any, kind: str, version: str
) -> None:
    """S1, S5: everything is said before any reply inside TLS; the certificate is verified against the name."""
    front = way[f"{kind}-intermediate"]
    message = sample(size=100_000)
    verify = ["-CAfile", str(lasting_pki.root.path), "-verify_return_error", "-verify_hostname", "mx.lab.test"]
    done = s_client(front.port, *KINDS[kind], f"-{version}", *verify, say=burst(message))
    assert done.returncode == 0, shown(done)
    assert "Verify return code: 0 (ok)" in shown(done)
    assert reply_codes(done) == [220, 250, 250, 250, 250, 221][kind == "starttls" :]
    assert_intact(postfix_plain.delivered(), message)
    session = front.session(message)
    assert (session["tls"], session["end"]) == (VERSIONS[version], "quit")
    assert session["round_trips_saved"] >= 4


@by_kind
@pytest.mark.parametrize("profile", TAKEN)
@pytest.mark.parametrize("version", VERSIONS)
def test_versions(way: dict[str, Front], kind: str, profile: str, version: str) -> None:
    """Those of the profile are taken; another one ends in an alert that tells the client why, and in our log."""
    front = way[f"{kind}-{profile}"]
    message = sample()
    watch = front.watch()
    options = [*KINDS[kind], f"-{version}", "-cipher", "DEFAULT:@SECLEVEL=0"]
    done = s_client(front.port, *options, say=hello(message))
    if version in TAKEN[profile]:
        assert done.returncode == 0, shown(done)
        assert reply_codes(done)[-1] == 221
        assert front.session(message)["tls"] == VERSIONS[version]
    else:
        assert done.returncode != 0
        assert "alert protocol version" in shown(done)
        assert watch.one("tls_failed")["why"] == "unsupported protocol"


@by_kind
@pytest.mark.parametrize("version", TAKEN["intermediate"])
def test_sessions_are_resumed(way: dict[str, Front], kind: str, version: str, tmp_path: Path) -> None:
    """By a ticket, unless tickets are turned off; our log shows it too."""
    for name, resumed in (("intermediate", True), ("no-tickets", False)):
        front = way[f"{kind}-{name}"]
        ticket = tmp_path / name
        seen = []
        for _ in range(2):
            message = sample()
            option = "-sess_in" if ticket.exists() else "-sess_out"
            done = s_client(front.port, *KINDS[kind], f"-{version}", option, str(ticket), say=hello(message))
            assert done.returncode == 0, shown(done)
            assert ("Reused, TLS" in shown(done)) is (resumed and option == "-sess_in")
            seen.append(front.session(message).get("resumed", False))
        assert seen == [False, resumed]


@by_kind
@pytest.mark.parametrize("version", TAKEN["intermediate"])
def test_protocols_of_others_are_refused(way: dict[str, Front], kind: str, version: str) -> None:
    """ALPN: a client that offers foreign names only gets a fatal alert; one of ours among them is enough."""
    front = way[f"{kind}-intermediate"]
    watch = front.watch()
    options = [*KINDS[kind], f"-{version}", "-alpn"]
    foreign = s_client(front.port, *options, "h2,http/1.1", say=b"QUIT\r\n")
    assert foreign.returncode != 0
    assert "no application protocol" in shown(foreign)
    assert watch.one("tls_failed")["why"] == "the client offers only other protocols (ALPN): h2, http/1.1"
    ours = s_client(front.port, *options, "h2,smtp", say=b"QUIT\r\n")
    assert ours.returncode == 0
    assert "ALPN protocol: smtp" in shown(ours)


@by_kind
def test_renegotiation_is_refused(way: dict[str, Front], kind: str) -> None:
    """TLS 1.2: the client is told so, and gives up."""
    with interactive(way[f"{kind}-intermediate"].port, *KINDS[kind], "-tls1_2") as client:
        client.wait_for("Secure Renegotiation IS supported")
        client.say("NOOP")
        client.wait_for("250 2.0.0")
        client.say("R")
        client.wait_for("RENEGOTIATING")
        assert client.ended() != 0
        assert "no renegotiation" in client.text()


@by_kind
def test_new_keys_in_the_middle(way: dict[str, Front], kind: str) -> None:
    """TLS 1.3: a KeyUpdate that asks for one in return changes nothing that SMTP could see."""
    with interactive(way[f"{kind}-intermediate"].port, *KINDS[kind], "-tls1_3") as client:
        for number in (1, 2, 3):
            client.say("NOOP")
            client.wait_for("250 2.0.0", number)
            client.say("K")
            client.wait_for("KEYUPDATE", number)
        client.say("quit")
        client.wait_for("221 2.0.0")
        assert client.ended() == 0


@pytest.mark.parametrize(
    "options", [[*KINDS["starttls"], "-tls1_2"], ["-tls1_3"]], ids=["STARTTLS, 1.2", "implicit, 1.3"]
)
@pytest.mark.parametrize(
    ("name", "subject", "algorithm"),
    [
        ("mx.lab.test", "mx.lab.test", "ECDSA"),
        ("mx.lab.test", "mx.lab.test", "RSA-PSS"),
        ("other.lab.test", "other.lab.test", "ECDSA"),
        ("any.wild.lab.test", "*.wild.lab.test", "ECDSA"),
        ("nobody.lab.test", "mx.lab.test", "ECDSA"),
        ("", "mx.lab.test", "ECDSA"),
    ],
)
def test_the_certificate_for_the_name(
    way: dict[str, Front], options: list[str], name: str, subject: str, algorithm: str
) -> None:
    """SNI: exact, by a wildcard, or the first one; ECDSA and RSA side by side, as the client can."""
    ask = ["-servername", name] if name else ["-noservername"]
    front = way["starttls-names" if "-starttls" in options else "implicit-names"]
    done = s_client(front.port, *options, "-sigalgs", f"{algorithm}+SHA256", *ask, say=b"QUIT\r\n")
    assert done.returncode == 0, shown(done)
    assert f"subject=CN = {subject}\n" in shown(done)
    assert f"Peer signature type: {algorithm}\n" in shown(done)
