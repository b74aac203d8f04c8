"""S14 and H6: a Postfix that learns who the client is decides itself for whom it relays, and nobody can pretend to be
somebody else.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .clients import RECIPIENT, burst, send_at_once
from .conftest import CONNECT_MODES
from .conversation import conversation
from .doors import FRIEND, STRANGER
from .fronts import Front, Way, fronts
from .messages import assert_intact, sample
from .opensmtpd import OpenSmtpd
from .postfix import Postfix

pytestmark = pytest.mark.interop

FOREIGN = "victim@foreign.test"
BOTH = (FOREIGN, RECIPIENT)
IDENTITIES = {
    "auto": "xclient",
    "xclient": "xclient",
    "proxy-v1": "proxy",
    "proxy-v2": "proxy",
    "source-address": "plain",
}
NOT_TOLD = {"none": "xclient", "xforward": "xforward"}


@pytest.fixture(scope="module")
def way(postfix_doors: Postfix, opensmtpd_plain: OpenSmtpd) -> Iterator[dict[str, Front]]:
    """A listener for each identity, with no domains listed where that is possible."""
    ports = {**postfix_doors.ports, "plain": postfix_doors.port}
    unnamed = {"client_name": "unavailable"}
    ways = {}
    for identity, door in IDENTITIES.items():
        ways[identity] = Way(ports[door], {**unnamed, "identity": identity}, {"recipient_domains": None})
        ways[f"{identity}-listed"] = Way(ports[door], {**unnamed, "identity": identity})
    for identity, door in NOT_TOLD.items():
        ways[identity] = Way(ports[door], {**unnamed, "identity": identity})
    ways["no-wall"] = Way(ports["trusting"], {"identity": "none"}, {"recipient_domains": "any"})
    for name, connect in CONNECT_MODES.items():
        ways[f"once-{name}"] = Way(opensmtpd_plain.port, {**unnamed, "identity": "auto", **connect})
    with fronts(ways) as made:
        yield made


def test_without_an_identity_the_lab_shows_an_open_relay(postfix_doors: Postfix, way: dict[str, Front]) -> None:
    """Or the tests below would prove nothing: a Postfix that trusts our address, no domains, no identity."""
    message = sample()
    assert send_at_once(way["no-wall"].port, burst(message, *BOTH), source=STRANGER)[1] == [220, *[250] * 5, 221]
    assert_intact(postfix_doors.delivered(), message, BOTH)


@pytest.mark.parametrize("identity", IDENTITIES)
def test_the_backend_relays_for_whom_it_trusts(postfix_doors: Postfix, way: dict[str, Front], identity: str) -> None:
    """For its friend; not for a stranger, and not for a client at the proxy's own address."""
    for source, taken in ((FRIEND, BOTH), (STRANGER, BOTH[1:]), ("127.0.0.1", BOTH[1:])):
        message = sample()
        with conversation(way[identity].port, source=source) as client:
            client.send_octets(burst(message, *BOTH))
            replies = client.replies()
        foreign = replies[3]
        assert foreign.code == (250 if source == FRIEND else 554)
        # Postfix's own words.
        assert source == FRIEND or "Relay access denied" in foreign.text
        assert [reply.code for reply in replies[4:]] == [250, 250, 221]
        assert_intact(postfix_doors.delivered(), message, taken)


@pytest.mark.parametrize("identity", NOT_TOLD)
def test_a_backend_that_is_not_told_gets_our_own_domains_only(
    postfix_doors: Postfix, way: dict[str, Front], identity: str
) -> None:
    """XFORWARD grants nothing, to the friend neither."""
    message = sample()
    answers = send_at_once(way[identity].port, burst(message, *BOTH), source=FRIEND)[1]
    assert answers == [220, 250, 250, 550, 250, 250, 221]
    assert_intact(postfix_doors.delivered(), message)


@pytest.mark.parametrize("identity", [*IDENTITIES, *NOT_TOLD])
@pytest.mark.parametrize(
    "claim",
    [
        b"XCLIENT ADDR=127.0.0.66 NAME=friend.lab.test",
        b"XFORWARD ADDR=127.0.0.66 NAME=friend.lab.test",
        b"PROXY TCP4 127.0.0.66 127.0.0.1 4242 25",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x42\x7f\0\0\x01\x10\x92\0\x19",
    ],
    ids=["XCLIENT", "XFORWARD", "PROXY v1", "PROXY v2"],
)
@pytest.mark.parametrize("early", [True, False], ids=["early", "polite"])
def test_nobody_can_pretend_to_be_the_friend(
    postfix_doors: Postfix, way: dict[str, Front], identity: str, claim: bytes, *, early: bool
) -> None:
    """H6: whatever a client says of itself reaches no backend; the foreign recipient is refused all the same."""
    name = f"{identity}-listed" if identity in IDENTITIES else identity
    message = sample()
    with conversation(way[name].port, source=STRANGER) as client:
        if not early:
            assert client.reply().code == 220
            assert client.ask(b"EHLO client.lab.test").code == 250
        client.send_octets(claim + b"\r\n" + burst(message, *BOTH))
        client.replies()
    copies = [copy for copy in postfix_doors.delivered() if copy.header(b"X-Token") == message.token.encode()]
    assert [copy.recipient for copy in copies] in ([RECIPIENT], [])
    assert all(FRIEND.encode() not in copy.header(b"Received") for copy in copies)
    if copies:
        assert FRIEND not in postfix_doors.arrival(message)


@pytest.mark.parametrize("connect", CONNECT_MODES)
def test_a_server_that_takes_ehlo_once(opensmtpd_plain: OpenSmtpd, way: dict[str, Front], connect: str) -> None:
    """OpenSMTPD refuses a second EHLO and offers no XCLIENT: mail flows, for clients that say HELO too."""
    for verb in (b"EHLO", b"HELO", b"EHLO"):
        message = sample()
        answers = send_at_once(way[f"once-{connect}"].port, burst(message, *BOTH, verb=verb), source=STRANGER)[1]
        assert answers == [220, 250, 250, 550, 250, 250, 221]
        assert_intact(opensmtpd_plain.delivered(), message)
