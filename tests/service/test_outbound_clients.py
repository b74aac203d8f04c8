"""Outbound on real sockets: clients that vanish, stall or send much, listeners of every kind, who may use them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from freeports import free_port

from smtpproxy.smtp.proxyheader import v1_header, v2_header

from .client import Client
from .outboundproxy import Town, chunk, deliver, envelope, route, smarthost, vanish
from .outboundremote import EARLY, PLAIN, Dialogue
from .process import Settings
from .waiting import PATIENCE, eventually

MIB = 1 << 20
LINE = b"x" * 1022 + b"\r\n"
SMALL = 65536
"""A buffer that the kernel does not enlarge: one of its own choice may hold a whole message (32 MiB have been seen)."""


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as made:
        yield made


MOMENTS = {
    "behind RCPT": (envelope(), 2, b""),
    "behind DATA": (envelope() + b"DATA\r\n", 3, b""),
    "within the message": (envelope() + b"DATA\r\n", 3, b"Subject: x\r\n"),
    "before the last octet": (envelope() + b"DATA\r\n", 3, b"x\r\n.\r"),
    "within a chunk": (envelope() + b"BDAT 100 LAST\r\nhalf", 2, b""),
    "between chunks": (envelope() + b"BDAT 3\r\nx\r\n", 3, b""),
}


@pytest.mark.parametrize("how", ["close", "reset"])
def test_s10_a_client_that_vanishes_before_the_end_leaves_nothing(town: Town, how: str) -> None:
    remotes = [town.remote(keywords=words) for words in (PLAIN, EARLY)]
    proxy = town.smarthost([route([remotes[0]], "plain.example"), route([remotes[1]], "early.example")])
    for domain in (b"plain.example", b"early.example"):
        for lines, replies, more in MOMENTS.values():
            client = proxy.client()
            client.send(lines.replace(b"example.org", domain))
            assert client.codes(replies) == [250, 250, 354 if b"DATA" in lines else 250][:replies]
            client.send(more)
            vanish(client, how)
    count = 2 * len(MOMENTS)
    proxy.wait_for("session", count)
    dialogues = [dialogue for remote in remotes for dialogue in remote.dialogues]
    eventually(lambda: all(dialogue.ended.is_set() for dialogue in dialogues), "every connection is given up")
    for domain in (b"plain.example", b"early.example"):
        with proxy.client() as client:
            assert deliver(client, b"x\r\n", b"b@" + domain)[:3] == b"250"
    assert [remote.texts for remote in remotes] == [[b"x\r\n"]] * 2
    replies_logged = [event["reply"] for event in proxy.wait_for("delivery", count + 2) if "reply" in event]
    assert replies_logged == ["250 2.0.0 taken"] * 2


@pytest.mark.parametrize("how", ["close", "reset"])
def test_c7_a_message_that_is_on_its_way_is_delivered_once_and_logged_though_the_client_is_gone(
    town: Town, how: str
) -> None:
    remote = town.remote(keywords=EARLY, replies={".": _wait_for_the_end})
    proxy = town.smarthost([route([remote])])
    client = proxy.client()
    client.send(envelope() + chunk(b"x\r\n"))
    assert client.codes(2) == [250, 250]
    eventually(lambda: remote.dialogue().verbs[-1:] == ["BDAT"], "the message is there")
    vanish(client, how)
    if how == "reset":
        proxy.wait_for("session")
    remote.over.set()
    event = proxy.wait_for("delivery")[0]
    assert (event["reply"], event["accepted"]) == ("250 2.0.0 taken", 1)
    assert len(remote.messages) == 1
    proxy.stop()
    assert proxy.counters()["deliveries_accepted"] == 1


def _wait_for_the_end(dialogue: Dialogue) -> bytes:
    assert dialogue.owner.over.wait(20)
    return b"250 2.0.0 taken\r\n"


def test_memory_is_bounded_where_a_remote_does_not_read(town: Town) -> None:
    remotes = [town.remote(keywords=words, receive_buffer=SMALL) for words in (PLAIN, EARLY)]
    proxy = town.smarthost([route([remotes[0]], "data.example"), route([remotes[1]], "chunks.example")])
    text = LINE * (64 * 1024)
    for remote, name in ((remotes[0], b"data.example"), (remotes[1], b"chunks.example")):
        with proxy.client() as client:
            client.send(envelope(b"b@" + name) + b"DATA\r\n")
            assert client.codes(3) == [250, 250, 354]
            before = proxy.memory()
            remote.reading.clear()
            sent = client.send_what_fits(text)
            assert sent < len(text), "it was all taken, by whom?"
            assert proxy.memory() - before < 8 * MIB
            remote.reading.set()
            for begin in range(sent, len(text), MIB):
                client.send(text[begin : begin + MIB])
            client.send(b".\r\n")
            assert client.codes(1) == [250]
        assert proxy.memory() - before < 8 * MIB
        assert remote.texts == [text]


def test_h9_a_client_that_reads_no_replies_is_read_no_more(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    proxy = town.smarthost([route([remote])], listener={"limits": {"errors": 1_000_000}})
    with Client(proxy.address(), receive_buffer=4096) as client:
        before = proxy.memory()
        commands = b"NOOP\r\n" * 10_000_000
        assert client.send_what_fits(commands) < len(commands)
        assert proxy.memory() - before < 16 * MIB


def test_lmtp_a_slow_and_a_fast_destination_each_have_the_whole_message(town: Town, tmp_path: Path) -> None:
    slow, fast = town.remote(keywords=PLAIN, receive_buffer=SMALL), town.remote(keywords=EARLY)
    refusing = town.remote(keywords=EARLY, replies={".": b"554 5.7.1 spam\r\n"})
    routes = [
        route([slow], "slow.example"),
        route([fast], "fast.example"),
        route([refusing], "refusing.example"),
        route([town.nobody()], "nobody.example"),
    ]
    address = str(tmp_path / "lmtp.sock")
    listeners = [
        smarthost(port := free_port(), protocol="lmtp"),
        smarthost(0, "unix", protocol="lmtp", relay_from=[]) | {"listen": [f"unix:{address}"]},
    ]
    proxy = town.smarthost(routes, listeners)
    names = ["fast", "slow", "refusing", "nobody", "slow"]
    recipients = [f"b{number}@{name}.example".encode() for number, name in enumerate(names)]
    much = LINE * (64 * 1024)
    texts = []
    for place in (("127.0.0.1", port), address):
        with Client(place) as client:
            assert b"LMTP" in client.reply()
            assert client.code(b"EHLO client.example") == 500
            assert client.code(b"LHLO client.example") == 250
            client.send(envelope(*recipients) + b"DATA\r\n")
            assert client.codes(7) == [250, 250, 250, 250, 451, 250, 354]
            slow.reading.clear()
            before = proxy.memory()
            sent = client.send_what_fits(much)
            assert sent < len(much), "it was all taken, by whom?"
            assert proxy.memory() - before < 16 * MIB
            slow.reading.set()
            texts.append(much[: -(-sent // len(LINE)) * len(LINE)])
            client.send(texts[-1][sent:] + b".\r\n")
            assert client.codes(4) == [250, 250, 554, 250]
    assert slow.texts == fast.texts == texts
    assert [len(recipients) for _, recipients, _ in slow.messages] == [2, 2]


def test_lmtp_only_so_many_destinations_at_a_time(town: Town) -> None:
    remotes = [town.remote(keywords=EARLY) for _ in range(3)]
    routes = [route([remote], f"d{number}.example") for number, remote in enumerate(remotes)]
    proxy = town.smarthost(routes, listener={"protocol": "lmtp", "limits": {"destinations": 2}})
    with Client(proxy.address()) as client:
        assert b"LMTP" in client.reply()
        assert client.code(b"LHLO client.example") == 250
        recipients = [f"b@d{number}.example".encode() for number in (0, 1, 2, 1)]
        client.send(envelope(*recipients) + chunk(b"x\r\n"))
        assert client.codes(8) == [250, 250, 250, 452, 250, 250, 250, 250]
    assert [len(remote.messages) for remote in remotes] == [1, 1, 0]


def test_lmtp_all_destinations_are_asked_at_the_same_time(town: Town) -> None:
    together = threading.Barrier(3, timeout=PATIENCE)
    remotes = [town.remote(keywords=EARLY, greeting=_when_all_are_there(together)) for _ in range(3)]
    routes = [route([remote], f"d{number}.example") for number, remote in enumerate(remotes)]
    proxy = town.smarthost(routes, listener={"protocol": "lmtp"})
    with Client(proxy.address()) as client:
        client.send(b"LHLO client.example\r\n" + envelope(b"b@d0.example", b"b@d1.example", b"b@d2.example"))
        assert client.codes(6) == [220, 250, 250, 250, 250, 250]
        client.send(chunk(b"x\r\n"))
        assert client.codes(3) == [250, 250, 250]
    assert [remote.texts for remote in remotes] == [[b"x\r\n"]] * 3


def _when_all_are_there(together: threading.Barrier) -> Callable[[Dialogue], bytes]:
    def greet(_dialogue: Dialogue) -> bytes:
        together.wait()
        return b"220 remote.example ESMTP\r\n"

    return greet


def test_split_one_destination_at_a_time(town: Town) -> None:
    remotes = [town.remote(keywords=EARLY) for _ in range(2)]
    proxy = town.smarthost([route([remote], f"d{number}.example") for number, remote in enumerate(remotes)])
    with proxy.client() as client:
        client.send(envelope(b"b@d0.example", b"b@d1.example", b"c@d0.example") + chunk(b"x\r\n"))
        assert client.codes(5) == [250, 250, 452, 250, 250]
        assert deliver(client, b"x\r\n", b"b@d1.example")[:3] == b"250"
    assert [len(recipients) for remote in remotes for _, recipients, _ in remote.messages] == [2, 1]
    assert [event["put_off"] for event in proxy.wait_for("several_destinations")] == [1]


def test_what_a_destination_refuses_is_no_fault_of_the_client(town: Town) -> None:
    proxy = town.smarthost([route([town.nobody()])], listener={"limits": {"errors": 3}})
    with proxy.client() as client:
        for end in (b"DATA\r\n", chunk(b"x\r\n")) * 4:
            client.send(envelope() + end)
            replies = client.codes(3)
            assert replies[:2] == [250, 451]
            assert replies[2] in {451, 503, 554}
            assert client.code(b"RSET") == 250
        assert client.code(b"QUIT") == 221


def test_c8_a_chunk_that_stalls_is_waited_for_no_longer_than_patience(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    proxy = town.smarthost(
        [route([remote], reuse=False)], listener={"speculate": {"confirmed": 0, "patience": "100 ms"}}
    )
    with proxy.client() as client:
        assert deliver(client)[:3] == b"250"
        client.send(envelope() + b"BDAT 100 LAST\r\nhalf")
        assert client.codes(2) == [250, 250]
        assert remote.dialogue(-1, 2).verbs == ["EHLO", "MAIL", "RCPT"]
        client.send(b"x" * 94 + b"\r\n")
        assert client.codes(1) == [250]
    assert [len(text) for text in remote.texts] == [21, 100]


def test_never_an_open_relay(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    port = free_port()
    header = b"PROXY TCP4 %s 127.0.0.1 1000 25\r\n"
    front: Settings = {"proxy_protocol": "required", "trusted": {"proxy_protocol": ["127.0.0.1/32"]}}
    listeners = [
        smarthost(port, relay_from=["127.0.0.2/32"]),
        smarthost(front_port := free_port(), "front", relay_from=["192.0.2.0/24"], **front),
    ]
    proxy = town.smarthost([route([remote])], listeners)
    with Client(("127.0.0.1", port)) as client:
        assert client.to_the_end() == [b"554 5.7.1 proxy.example.org You may not relay here\r\n"]
    with Client(("127.0.0.1", front_port)) as client:
        client.send(header % b"198.51.100.1" + b"EHLO client.example\r\n")
        assert client.to_the_end() == [b"554 5.7.1 proxy.example.org You may not relay here\r\n"]
    with Client(("127.0.0.1", front_port)) as client:
        # The balancer itself may not relay either.
        client.send(b"PROXY UNKNOWN\r\n")
        assert client.to_the_end()[0][:3] == b"554"
    with Client(("127.0.0.1", front_port)) as client:
        client.send(header % b"192.0.2.77")
        assert deliver(client.begin())[:3] == b"250"
    refused = proxy.wait_for("session_refused", 3)
    assert [event["client"] for event in refused] == ["127.0.0.1", "198.51.100.1", "127.0.0.1"]
    assert proxy.wait_for("delivery")[0]["listener"] == "front"
    assert len(remote.messages) == 1


def test_whom_a_load_balancer_does_not_name_may_not_relay_though_itself_may(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    front: Settings = {"proxy_protocol": "optional", "trusted": {"proxy_protocol": ["127.0.0.1/32"]}}
    proxy = town.smarthost([route([remote])], listener={"relay_from": ["127.0.0.1/32"], **front})
    for header in (v1_header(None), v2_header(None)):
        with Client(proxy.address()) as client:
            client.send(header + b"EHLO client.example\r\n")
            assert client.to_the_end() == [b"554 5.7.1 proxy.example.org You may not relay here\r\n"]
    with Client(proxy.address()) as client:
        client.send(b"EHLO client.example\r\n")
        assert client.codes(2) == [220, 250]
        assert deliver(client)[:3] == b"250"
    assert [event["client"] for event in proxy.wait_for("session_refused", 2)] == ["127.0.0.1"] * 2
    assert len(remote.messages) == 1


def test_a_client_that_waits_for_a_remote_is_not_cut_for_idling(town: Town) -> None:
    remote = town.remote(keywords=EARLY, replies={".": _wait_for_the_end})
    proxy = town.smarthost([route([remote])], listener={"timeouts": {"command": "1 s"}})
    with proxy.client() as client:
        client.send(envelope() + chunk(b"x\r\n"))
        assert client.codes(2) == [250, 250]
        eventually(lambda: remote.dialogue().verbs[-1] == "BDAT", "the message is there")
        with proxy.client() as idle:
            # Its time is up when that of whoever waits would be.
            assert idle.reply()[:3] == b"421"
        remote.over.set()
        assert client.codes(1) == [250]
        assert client.reply()[:3] == b"421"
