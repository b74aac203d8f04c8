"""What the sessions of one listener share: admission, policies by network, what was learned (S1, S2, S11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from smtpproxy.net.context import Context
from smtpproxy.session.policy import Learned
from smtpproxy.smtp.commands import Wait
from smtpproxy.smtp.lineendings import BarePolicy

from .stage import CLIENT, EHLO_REPLY, Stage


@pytest.fixture
def context(stage: Callable[..., Stage]) -> Callable[..., Context]:
    """Make a context from the settings of its listener."""

    def make(**changes: Any) -> Context:
        return stage(listener=changes).context

    return make


Make = Callable[..., Context]


# --- admission ------------------------------------------------------------------------------------------------------


def test_sessions_in_all(context: Make) -> None:
    here = context(limits={"sessions": 3, "sessions_per_client": 2})
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
        assert here.admit(address) == ""
    assert here.sessions == 3
    assert here.admit("192.0.2.3") == "too many sessions"
    here.dismiss("192.0.2.1")
    assert here.admit("192.0.2.3") == ""
    assert here.sessions == 3


def test_sessions_of_one_client(context: Make) -> None:
    here = context(limits={"sessions_per_client": 2})
    assert here.admit(CLIENT) == here.admit(CLIENT) == ""
    assert here.admit(CLIENT) == "too many sessions from this client"
    assert here.admit("192.0.2.10") == ""
    here.dismiss(CLIENT)
    assert here.admit(CLIENT) == ""
    assert here.sessions == 3


def test_a_refused_client_is_not_counted(context: Make) -> None:
    here = context(limits={"sessions_per_client": 1})
    here.admit(CLIENT)
    for _ in range(5):
        assert here.admit(CLIENT)
    here.dismiss(CLIENT)
    assert here.sessions == 0
    assert here.admit(CLIENT) == ""


@pytest.mark.parametrize(
    ("limits", "first", "same", "other"),
    [
        ({}, "192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ({}, "2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:2::1"),
        ({}, "fe80::1%eth0", "fe80::2%eth1", "2001:db8::1"),
        ({"client_prefix_ipv4": 24}, "192.0.2.1", "192.0.2.255", "192.0.3.1"),
        ({"client_prefix_ipv4": 1}, "127.0.0.1", "1.2.3.4", "128.0.0.1"),
        ({"client_prefix_ipv6": 48}, "2001:db8:1:ffff::1", "2001:db8:1::1", "2001:db8:2::1"),
        ({}, "no address at all", "no address at all", "another"),
        ({"client_prefix_ipv6": 128}, "2001:db8::1", "2001:0db8:0:0::1", "2001:db8::2"),
    ],
)
def test_a_client_is_a_network(context: Make, limits: dict[str, int], first: str, same: str, other: str) -> None:
    here = context(limits={"sessions_per_client": 1, **limits})
    assert here.admit(first) == ""
    assert here.admit(same) == "too many sessions from this client"
    assert here.admit(other) == ""
    here.dismiss(first)
    assert here.admit(same) == ""


def test_clients_of_a_unix_socket_are_not_one_client(context: Make) -> None:
    here = context(limits={"sessions_per_client": 1, "sessions": 3})
    assert [here.admit("") for _ in range(4)] == ["", "", "", "too many sessions"]
    for _ in range(3):
        here.dismiss("")
    assert here.sessions == 0


def test_nobody_is_admitted_while_going_down(context: Make) -> None:
    here = context()
    here.draining = True
    assert here.admit(CLIENT) == "shutting down"
    assert here.sessions == 0


def test_a_refused_client_reads_421(stage: Callable[..., Stage]) -> None:
    play = stage(listener={"limits": {"sessions_per_client": 1}})
    play.greeted()
    refused = play.client()
    assert refused.take() == (b"421 4.3.2 proxy.example.org Too many sessions from this client, try again later\r\n")
    assert refused.transport.half_closed
    assert refused.send(b"EHLO x\r\n") == b""
    assert len(play.dialler.legs) == 1
    assert play.journal.refused == [("mx", CLIENT, "too many sessions from this client")]
    refused.half_close()
    assert refused.transport.ended == "closed"
    assert play.context.sessions == 1


def test_a_refused_client_that_stays_is_cut_off(stage: Callable[..., Stage]) -> None:
    play = stage(listener={"limits": {"sessions": 1}})
    play.greeted("192.0.2.1")
    refused = play.client("192.0.2.2")
    play.pass_time(4.0)
    assert not refused.transport.ended
    play.pass_time(1.5 + 2 * play.sweep.round)
    assert refused.transport.ended == "reset"


def test_a_session_that_turns_out_to_be_anothers_is_counted_there(context: Make) -> None:
    """By a PROXY header, or by XCLIENT."""
    here = context(limits={"sessions_per_client": 1, "sessions": 3})
    assert here.admit("") == here.admit("") == ""
    assert here.readmit("", "192.0.2.1") == ""
    assert here.readmit("", "192.0.2.1") == "too many sessions from this client"
    assert here.sessions == 2, "who is refused is still to be counted out"
    assert here.readmit("192.0.2.1", "192.0.2.1") == ""
    assert here.readmit("192.0.2.1", "192.0.2.2") == ""
    assert here.admit("192.0.2.1") == ""
    here.dismiss("192.0.2.1")
    assert here.readmit("192.0.2.2", "") == ""
    assert here.admit("192.0.2.2") == ""
    for address in ("", "", "192.0.2.2"):
        here.dismiss(address)
    assert here.sessions == 0


def test_the_same_client_by_two_addresses_of_one_network_is_one(context: Make) -> None:
    here = context(limits={"sessions_per_client": 1})
    assert here.admit("2001:db8:0:1::1") == ""
    assert here.readmit("2001:db8:0:1::1", "2001:db8:0:1::2") == ""
    here.dismiss("2001:db8:0:1::2")
    assert here.admit("2001:db8:0:1::3") == ""


def test_every_end_of_a_session_makes_room(stage: Callable[..., Stage]) -> None:
    play = stage(listener={"limits": {"sessions": 1}})
    for end in range(5):
        client = play.greeted()
        if end == 0:
            client.send(b"QUIT\r\n")
        elif end == 1:
            client.vanish()
        elif end == 2:
            client.half_close()
        elif end == 3:
            play.answer(b"421 going down\r\n")
        else:
            client.session.cut_off()
        assert play.context.sessions == 0, end
    assert len(play.journal.sessions) == 5


# --- policies -------------------------------------------------------------------------------------------------------


def test_s1_early_pipelining_by_network(context: Make) -> None:
    here = context(early_pipelining={"advertise_to": ["192.0.2.0/24", "2001:db8::/32"]})
    assert here.client_policy("192.0.2.1").early
    assert here.client_policy("2001:db8::1").early
    assert not here.client_policy("198.51.100.1").early
    assert not here.client_policy("").early
    assert context().client_policy("").early
    assert not context(early_pipelining={"advertise_to": []}).client_policy(CLIENT).early


@pytest.mark.parametrize(
    ("choice", "refusal"),
    [("accept", b""), ("tempfail", b"421 4.5.0 proxy.example.org "), ("reject", b"554 5.5.0 proxy.example.org ")],
)
def test_s2_what_the_unlicensed_are_told(context: Make, choice: str, refusal: bytes) -> None:
    here = context(early_pipelining={"advertise_to": ["192.0.2.0/24"], "unlicensed": choice})
    assert here.client_policy("192.0.2.1").early_refusal == b""
    told = here.client_policy("198.51.100.1").early_refusal
    assert told.startswith(refusal)
    assert bool(told) == bool(refusal)
    assert not told or told.endswith(b"\r\n")


def test_s1_inside_tls_there_may_be_other_networks(context: Make) -> None:
    here = context(early_pipelining={"advertise_to": ["192.0.2.0/24"], "advertise_to_tls": ["198.51.100.0/24"]})
    for address, clear, secure in (("192.0.2.1", True, False), ("198.51.100.1", False, True)):
        assert here.client_policy(address).early == clear
        assert here.client_policy(address, secure=True).early == secure
    same = context(early_pipelining={"advertise_to": ["192.0.2.0/24"]})
    assert same.client_policy("192.0.2.1", secure=True).early
    assert not same.client_policy("198.51.100.1", secure=True).early


def test_h6_xclient_is_believed_by_network(context: Make) -> None:
    here = context(trusted={"xclient": ["192.0.2.0/24", "2001:db8::/32"]})
    assert [here.trusts(each) for each in ("192.0.2.1", "2001:db8::1", "198.51.100.1", "")] == [
        True,
        True,
        False,
        False,
    ]
    assert not context().trusts("127.0.0.1")


def test_there_is_one_policy_for_each_way_to_be(context: Make) -> None:
    """What was learned is kept by it (S18)."""
    here = context(tls={"mode": "starttls", "certificates": [{"cert": "mx.pem", "key": "mx.key"}]})
    ways = [
        here.policy(address, secure=secure, trusted=trusted)
        for address in (CLIENT, "")
        for secure in (False, True)
        for trusted in (False, True)
    ]
    assert len(set(ways)) == len(ways)
    assert here.policy("192.0.2.77") is here.policy(CLIENT)
    assert [policy.secure for policy in ways] == [False, False, True, True] * 2
    assert [policy.trusts_xclient for policy in ways] == [False, True] * 4


def test_s11_bare_line_endings_by_network(context: Make) -> None:
    here = context(
        backend_immune=True,
        bare_line_endings="reject",
        bare_line_endings_exceptions=[
            {"networks": ["192.0.2.0/28"], "policy": "pass"},
            {"networks": ["192.0.2.0/24"], "policy": "normalize"},
        ],
    )
    assert here.client_policy("192.0.2.1").bare is BarePolicy.PASS
    assert here.client_policy("192.0.2.200").bare is BarePolicy.NORMALIZE
    assert here.client_policy("198.51.100.1").bare is BarePolicy.REJECT


def test_h2_nul(context: Make) -> None:
    assert not context().client_policy(CLIENT).pass_nul
    assert context(nul="pass").client_policy(CLIENT).pass_nul


def test_the_settings_of_the_listener_reach_its_sessions(context: Make) -> None:
    policy = context(
        hostname="other.example.org",
        chunking=False,
        recipient_domains="any",
        limits={"line": 600, "auth_line": 700, "burst_commands": 7, "burst_octets": 8000, "recipients": 5, "errors": 6},
    ).policy(CLIENT)
    assert policy.hostname == b"other.example.org"
    assert not policy.chunking
    assert policy.recipient_domains is None
    limits = policy.limits
    assert (limits.line, limits.auth_line, limits.burst_commands) == (600, 700, 7)
    assert (limits.burst_octets, limits.recipients, limits.errors, limits.message_size) == (8000, 5, 6, None)
    assert context(limits={"message_size": 99}).policy(CLIENT).limits.message_size == 99
    assert context().policy(CLIENT).fallback_domains == frozenset({"example.org"})


def test_the_settings_of_the_backend_reach_its_sessions(stage: Callable[..., Stage]) -> None:
    eager = stage().context.policy(CLIENT)
    assert (eager.eager, eager.reuse, eager.lockstep) == (True, False, False)
    lazy = stage(backend={"connect": "lazy", "reuse": "on", "pace": "lockstep"}).context.policy(CLIENT)
    assert (lazy.eager, lazy.reuse, lazy.lockstep) == (False, True, True)


def test_which_wait_has_which_time_out(stage: Callable[..., Stage]) -> None:
    times = {
        "connect": 1.0,
        "greeting": 2.0,
        "ehlo": 3.0,
        "mail": 4.0,
        "rcpt": 5.0,
        "data": 6.0,
        "end_of_data": 8.0,
        "other": 9.0,
    }
    waits = stage(
        listener={"timeouts": {"data_block": 7.0, "command": 10.0}}, backend={"timeouts": {**times, "data_block": 11.0}}
    ).context.waits
    assert waits[Wait.GREETING] == 2.0
    assert waits[Wait.EHLO] == 3.0
    assert waits[Wait.MAIL] == 4.0
    assert waits[Wait.RCPT] == 5.0
    assert waits[Wait.DATA] == 6.0
    assert waits[Wait.DATA_BLOCK] == 7.0
    assert waits[Wait.END_OF_DATA] == 8.0
    assert waits[Wait.OTHER] == 9.0
    assert waits[Wait.COMMAND] == 10.0


# --- offers ---------------------------------------------------------------------------------------------------------

PRIOR = {"early_pipelining": {"prior_offer": 600.0}}


def test_s2_early_talk_needs_a_prior_offer_where_that_is_demanded(stage: Callable[..., Stage]) -> None:
    play = stage(listener=PRIOR)
    stranger = play.client()
    assert stranger.send(b"EHLO client.example\r\n").startswith(b"421 4.5.0 proxy.example.org ")
    assert stranger.transport.half_closed
    play.ready()
    known = play.client()
    assert known.send(b"EHLO client.example\r\nNOOP\r\n") == b""
    play.answer(b"220 mx.example.org ESMTP\r\n")
    play.answer(EHLO_REPLY)
    play.answer(b"250 ok\r\n")
    assert known.take().endswith(b"250 ok\r\n")


def test_s2_an_offer_is_forgotten_after_its_time(stage: Callable[..., Stage]) -> None:
    play = stage(listener=PRIOR)
    play.ready()
    play.reactor.advance(601.0)
    assert play.client().send(b"EHLO client.example\r\n").startswith(b"421 ")


def test_s2_a_polite_client_needs_no_offer(stage: Callable[..., Stage]) -> None:
    play = stage(listener=PRIOR)
    client = play.ready(lines=b"NOOP\r\n")
    assert client.take() == b""


@pytest.mark.parametrize(
    ("offered", "known", "unknown"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
    ],
)
def test_s2_an_offer_is_to_an_ipv4_host_or_an_ipv6_network(
    stage: Callable[..., Stage], offered: str, known: str, unknown: str
) -> None:
    """Whatever networks the limits count by."""
    limits = {"client_prefix_ipv4": 8, "client_prefix_ipv6": 32}
    here = stage(listener={**PRIOR, "limits": limits}).context
    here.offered(offered)
    assert here.client_policy(known).early_refusal == b""
    assert here.client_policy(unknown).early_refusal.startswith(b"421 ")


def test_s2_without_the_demand_nobody_is_remembered_and_nobody_refused(context: Make) -> None:
    here = context()
    here.offered(CLIENT)
    assert here.client_policy("198.51.100.1").early_refusal == b""


# --- what was learned -----------------------------------------------------------------------------------------------


def test_s7_unknown_keywords_are_dropped_and_told_once(stage: Callable[..., Stage]) -> None:
    play = stage()
    for _ in range(3):
        client = play.greeted()
        client.send(b"EHLO client.example\r\n")
        play.answer(b"250-mx.example.org\r\n250-XYZZY\r\n250 DSN\r\n")
        assert b"XYZZY" not in client.take()
        client.send(b"QUIT\r\n")
    assert play.journal.dropped == [[b"XYZZY"]]


def test_s7_servers_that_differ_are_told_once_each(stage: Callable[..., Stage]) -> None:
    play = stage()
    for number in range(6):
        client = play.greeted()
        client.send(b"EHLO client.example\r\n")
        play.answer(b"250-mx.example.org\r\n250-XYZZY\r\n250 %s\r\n" % (b"DSN", b"8BITMIME")[number % 2])
        client.send(b"QUIT\r\n")
    assert [keyword for keywords in play.journal.dropped for keyword in keywords].count(b"XYZZY") <= 2


@pytest.mark.parametrize(("told", "shared"), [(False, True), (True, False)])
def test_s18_what_a_server_says_to_a_client_that_it_knows_is_for_that_client(
    stage: Callable[..., Stage], *, told: bool, shared: bool
) -> None:
    here = stage().context
    policy = here.policy(CLIENT)
    head, extensions = policy.extensions.adapt(b"250-mx.example.org\r\n250 DSN\r\n")
    here.learn(policy, CLIENT, Learned(head, extensions), told=told)
    assert here.learned(policy, CLIENT) is not None
    assert (here.learned(policy, "192.0.2.10") is not None) == shared
    assert here.learned(here.policy(CLIENT, secure=True), CLIENT) is None


@pytest.mark.parametrize("identity", ["proxy-v1", "proxy-v2", "source-address"])
def test_s18_where_the_connection_tells_who_the_client_is_nothing_is_shared(
    stage: Callable[..., Stage], identity: str
) -> None:
    here = stage(backend={"identity": identity}).context
    policy = here.policy(CLIENT)
    head, extensions = policy.extensions.adapt(b"250-mx.example.org\r\n250 DSN\r\n")
    here.learn(policy, CLIENT, Learned(head, extensions), told=False)
    assert here.learned(policy, CLIENT) is not None
    assert here.learned(policy, "192.0.2.10") is None


def test_s18_what_was_learned_is_bounded(stage: Callable[..., Stage]) -> None:
    here = stage(backend={"identity": "proxy-v1"}).context
    policy = here.policy(CLIENT)
    head, extensions = policy.extensions.adapt(b"250-mx.example.org\r\n250 DSN\r\n")
    for number in range(10_000):
        here.learn(policy, f"client {number}", Learned(head, extensions), told=False)
    assert here.learned(policy, "client 0") is None
    assert here.learned(policy, "client 9999") is not None
    assert len(here._learned) < 5_000


def test_s18_lazy_sessions_begin_with_what_was_learned(stage: Callable[..., Stage]) -> None:
    play = stage(backend={"connect": "lazy"})
    first = play.ready()
    first.send(b"QUIT\r\n")
    second = play.client()
    assert second.take().startswith(b"220 mx.example.org")
    told = second.send(b"EHLO other.example\r\n")
    assert b"8BITMIME" in told
    assert second.send(b"NOOP\r\nRSET\r\nQUIT\r\n").split(b"\r\n")[0][:3] == b"250"
    assert len(play.dialler.legs) == 1, "nobody needed the backend"
