"""A Postfix behind smtpproxy logs, and judges by, the client's own address: XCLIENT, the PROXY protocol, the client's
address as the source; with XFORWARD it logs it only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from .clients import RECIPIENT, burst, name_for, post, send_at_once
from .doors import FRIEND, STRANGER
from .fronts import Front, Way, fronts
from .messages import assert_intact, sample
from .postfix import Postfix
from .relay import RecordingRelay, recording_relay

pytestmark = pytest.mark.interop

UNNAMED = {"client_name": "unavailable"}
ORDINARY = ("auto", "xclient", "proxy-v1", "proxy-v2", "source-address")
LEARNING = [*ORDINARY, "auto lazy", "auto reuse", "xclient lockstep", "proxy-v2 lazy"]
EARLY_REPLIES = [220, 250, 250, 250, 250, 221]


def door(identity: str) -> str:
    """Where Postfix is told in that way."""
    return "plain" if identity == "source-address" else identity.replace("auto", "xclient").split("-v")[0]


@pytest.fixture(scope="module")
def way(postfix_doors: Postfix, behind: RecordingRelay) -> Iterator[dict[str, Front]]:
    """A listener for each identity; recipients are all the same to it, so that Postfix decides."""
    ports = {**postfix_doors.ports, "plain": postfix_doors.port}
    extra = {"lazy": {"connect": "lazy"}, "reuse": {"reuse": True}, "lockstep": {"pace": "lockstep"}}
    anybody = {"recipient_domains": None}
    ways = {}
    for words in LEARNING:
        identity, _, more = words.partition(" ")
        settings = {**UNNAMED, "identity": identity, **extra.get(more, {})}
        ways[words.replace(" ", "-")] = Way(ports[door(identity)], settings, anybody)
    ways["xforward"] = Way(ports["xforward"], {**UNNAMED, "identity": "xforward"})
    ways["traced"] = Way(postfix_doors.port, {"identity": "none"}, {"trace_header": True})
    ways["xforward-kept"] = Way(ports["xforward"], {**UNNAMED, "identity": "xforward", "reuse": True})
    ways["xclient-kept"] = Way(behind.port, {**UNNAMED, "identity": "xclient", "reuse": True}, anybody)
    ways["named"] = Way(ports["xclient"], {"identity": "xclient"}, anybody)
    ways["required"] = Way(ports["plain"], {"identity": "xclient"}, anybody)
    ways["required-lazy"] = Way(ports["plain"], {"identity": "xclient", "connect": "lazy"}, anybody)
    ways["nothing-listed"] = Way(ports["plain"], {"identity": "auto"}, anybody)
    ways["listed-reuse"] = Way(ports["xclient"], {**UNNAMED, "identity": "auto", "reuse": True})
    ways["listed"] = Way(ports["plain"], {"identity": "auto"})
    with fronts(ways) as made:
        yield made


@pytest.fixture(scope="module")
def behind(postfix_doors: Postfix) -> Iterator[RecordingRelay]:
    """Between smtpproxy and the Postfix that takes XCLIENT more than once."""
    with recording_relay(postfix_doors.ports["xclient-again"]) as relay:
        yield relay


@pytest.mark.parametrize("words", LEARNING)
def test_the_backend_logs_the_client(postfix_doors: Postfix, way: dict[str, Front], words: str) -> None:
    """Address and port, for a polite client and for a whole session in one flight; EHLO name and protocol too."""
    front = way[words.replace(" ", "-")]
    polite, early = sample(), sample()
    polite_port = post(front.port, polite, source=STRANGER)
    early_port, answers = send_at_once(front.port, burst(early), source=STRANGER)
    assert answers == EARLY_REPLIES
    stored = postfix_doors.delivered()
    for message, port in ((polite, polite_port), (early, early_port)):
        assert_intact(stored, message)
        (copy,) = [copy for copy in stored if copy.header(b"X-Token") == message.token.encode()]
        assert copy.header(b"Received").startswith(f"from {name_for(message)} (unknown [127.0.0.77])".encode())
        seen = postfix_doors.arrival(message)
        # The source port is the kernel's choice where smtpproxy opens the connection itself.
        assert re.fullmatch(r"unknown\[127\.0\.0\.77\]:" + ("[0-9]+" if words == "source-address" else str(port)), seen)


def test_xforward_is_logged(postfix_doors: Postfix, way: dict[str, Front]) -> None:
    message = sample()
    port = post(way["xforward"].port, message, source=STRANGER)
    expected = rf"unknown\[127\.0\.0\.1\]:\d+, orig_client=unknown\[127\.0\.0\.77\]:{port}"
    assert re.fullmatch(expected, postfix_doors.arrival(message))
    assert_intact(postfix_doors.delivered(), message)


def test_a_kept_session_serves_one_client_after_the_other(
    postfix_doors: Postfix, way: dict[str, Front], behind: RecordingRelay
) -> None:
    """S18: XCLIENT anew for each of them; no client is taken for the one before."""
    sources = [f"127.0.0.{number}" for number in (71, 72, 73, 71)]
    for source in sources:
        message = sample()
        port, answers = send_at_once(way["xclient-kept"].port, burst(message), source=source)
        assert answers == EARLY_REPLIES
        assert postfix_doors.arrival(message) == f"unknown[{source}]:{port}"
        assert_intact(postfix_doors.delivered(), message)
    (kept,) = behind.conversations
    told = re.findall(rb"XCLIENT .*?ADDR=(\S+)", kept.sent_by("client"))
    assert told == [source.encode() for source in sources]


@pytest.mark.parametrize("name", ["auto-reuse", "listed-reuse"])
def test_nobody_inherits_the_rights_of_the_client_before(
    postfix_doors: Postfix, way: dict[str, Front], name: str
) -> None:
    """S18: Postfix takes XCLIENT only once in a session, and relays for the first of these clients."""
    for source, expected in ((FRIEND, 250), (STRANGER, 554), (FRIEND, 250), (STRANGER, 554)):
        message = sample()
        port, answers = send_at_once(way[name].port, burst(message, "a@foreign.test", RECIPIENT), source=source)
        assert answers == [220, 250, 250, expected, 250, 250, 221]
        assert postfix_doors.arrival(message) == f"unknown[{source}]:{port}"
        assert_intact(postfix_doors.delivered(), message, ("a@foreign.test", RECIPIENT)[expected == 554 :])


def test_xforward_for_each_client_of_a_kept_session(postfix_doors: Postfix, way: dict[str, Front]) -> None:
    for source in ("127.0.0.71", "127.0.0.72"):
        message = sample()
        port = post(way["xforward-kept"].port, message, source=source)
        assert f"orig_client=unknown[{source}]:{port}" in postfix_doors.arrival(message)


def test_a_client_that_says_helo(postfix_doors: Postfix, way: dict[str, Front]) -> None:
    """It is introduced too; the Received header shows its name and the old protocol."""
    message = sample()
    octets = burst(message, verb=b"HELO")
    port, answers = send_at_once(way["auto"].port, octets, source=STRANGER)
    assert answers == EARLY_REPLIES
    assert postfix_doors.arrival(message) == f"unknown[127.0.0.77]:{port}"
    stored = postfix_doors.delivered()
    assert_intact(stored, message)
    (copy,) = [copy for copy in stored if copy.header(b"X-Token") == message.token.encode()]
    assert copy.header(b"Received").startswith(f"from {name_for(message)} (unknown [127.0.0.77])".encode())


def test_the_name_is_looked_up(postfix_doors: Postfix, way: dict[str, Front]) -> None:
    """Postfix itself is told to look up no name here: the one that it logs is ours, from /etc/hosts."""
    message = sample()
    port = post(way["named"].port, message)
    assert postfix_doors.arrival(message) == f"localhost[127.0.0.1]:{port}"


def test_the_trace_header(postfix_doors: Postfix, way: dict[str, Front]) -> None:
    """Below Postfix's own header, by DATA and by BDAT; the rest of the message is as it was."""
    for early in (False, True):
        message = sample()
        if early:
            assert send_at_once(way["traced"].port, burst(message), source=STRANGER)[1] == EARLY_REPLIES
        else:
            post(way["traced"].port, message, source=STRANGER)
        stored = postfix_doors.delivered()
        assert_intact(stored, message)
        (copy,) = [copy for copy in stored if copy.header(b"X-Token") == message.token.encode()]
        postfixes, ours = copy.content.partition(b"\nFrom:")[0].split(b"\nReceived: ")[1:]
        assert b"(unknown [127.0.0.1])" in postfixes
        begin = (
            rf"from {name_for(message)} \(\[127\.0\.0\.77\]\)\s+by proxy\.lab\.test \(smtpproxy, listener traced\)\s+"
        )
        assert re.match(begin + r"with ESMTP id \d+;\s+\w{3}, ", ours.decode())


@pytest.mark.parametrize("name", ["required", "required-lazy", "nothing-listed"])
def test_a_backend_that_does_not_take_xclient_is_not_used(way: dict[str, Front], name: str) -> None:
    """S14: who is to be told of clients, and can't be, gets none of them; the log says why."""
    watch = way[name].watch()
    answers = send_at_once(way[name].port, burst(sample()), source=STRANGER)[1]
    # Lazily the EHLO reply is what Postfix said the last time, or our own before it has ever said anything.
    assert answers == [220, 421] if name != "required-lazy" else answers[-1] == 421
    session = watch.one("session")
    assert session["end"] == "backend does not take XCLIENT"
    assert session["accepted"] == 0


def test_auto_falls_back_on_the_listed_domains(postfix_doors: Postfix, way: dict[str, Front]) -> None:
    """S14: a Postfix that trusts nobody's word gets recipients of our own domains only."""
    message = sample()
    octets = burst(message, "victim@foreign.test", "recipient@lab.test")
    answers = send_at_once(way["listed"].port, octets, source=STRANGER)[1]
    assert answers == [220, 250, 250, 550, 250, 250, 221]
    assert postfix_doors.arrival(message).startswith("unknown[127.0.0.1]:")
    assert_intact(postfix_doors.delivered(), message)
