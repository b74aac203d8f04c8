"""Outbound as a process: what survives it, how it is reloaded and ended, what it holds after many messages."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from freeports import free_port

from .client import Client
from .mta import Mta
from .outboundproxy import Smarthost, Town, chunk, deliver, deliver_by_data, envelope, route, smarthost, vanish
from .outboundremote import EARLY, Dialogue
from .process import listener
from .waiting import PATIENCE, eventually

MIB = 1 << 20
RIDING = {"speculate": {"confirmed": 0}}


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as made:
        yield made


def once(*hops: Any, **more: Any) -> list[dict[str, Any]]:
    """Routes by which each message has its own connection."""
    return [route(hops, reuse=False, **more)]


def ask(proxy: Smarthost) -> bytes:
    """Deliver a message; give the last reply."""
    with proxy.client() as client:
        return deliver(client)


def _when_the_test_says_so(dialogue: Dialogue) -> bytes:
    assert dialogue.owner.over.wait(PATIENCE)
    return b"250 2.0.0 taken\r\n"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_c1_the_cache_survives(town: Town, end: signal.Signals) -> None:
    remote = town.remote(keywords=EARLY)
    proxy = town.smarthost(once(remote), listener=RIDING)
    assert ask(proxy)[:3] == b"250"
    eventually(proxy.cached, "an entry in the file")
    proxy.signal(end)
    proxy.ended()
    proxy.start()
    remote.behave(keywords=EARLY, waits=True)
    assert ask(proxy)[:3] == b"250"
    assert remote.dialogue(-1, 2).early


def test_a_reload_keeps_the_cache_and_what_is_under_way(town: Town) -> None:
    old, new = town.remote(keywords=EARLY, replies={".": _when_the_test_says_so}), town.remote(keywords=EARLY)
    proxy = town.smarthost(once(old, new), cache={"store": "memory:"}, listener=RIDING)
    with proxy.client() as client:
        client.send(envelope() + chunk(b"x\r\n"))
        assert client.codes(2) == [250, 250]
        proxy.outbound(once(new), cache={"store": "memory:"}, listener=RIDING)
        proxy.reload()
        proxy.wait_for("reloaded")
        assert ask(proxy)[:3] == b"250"
        old.over.set()
        assert client.codes(1) == [250]
        new.behave(keywords=EARLY, waits=True)
        assert ask(proxy)[:3] == b"250"
        proxy.reload()
        proxy.wait_for("reloaded", 2)
        assert ask(proxy)[:3] == b"250"
        # The client of the oldest configuration goes on with it, cache included.
        old.behave(keywords=EARLY, waits=True)
        assert deliver(client)[:3] == b"250"
    assert (len(old.messages), len(new.messages)) == (2, 3)
    assert [bool(dialogue.early) for dialogue in new.dialogues] == [False, True, True]


def test_a_mistake_in_the_file_changes_nothing(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    proxy = town.smarthost(once(remote))
    good = proxy.file.read_text()
    config = yaml.safe_load(good)
    config["routes"][0]["tls"] = {"mode": "verified", "ca": "/no/such/file.pem"}
    for number, bad in enumerate((good.replace("nexthops", "nexthop"), yaml.safe_dump(config)), 1):
        proxy.file.write_text(bad)
        proxy.reload()
        proxy.wait_for("reload_refused", number)
        assert ask(proxy)[:3] == b"250"
    assert len(proxy.events("configuration_mistake")) >= 1
    proxy.file.write_text(good)
    proxy.reload()
    proxy.wait_for("reloaded")
    assert ask(proxy)[:3] == b"250"


def test_sigterm_lets_a_delivery_end_and_its_client_go_with_421(town: Town) -> None:
    remote = town.remote(keywords=EARLY, replies={".": _when_the_test_says_so})
    proxy = town.smarthost([route([remote])])
    with proxy.client() as client, proxy.client() as idle:
        client.send(envelope() + b"DATA\r\n")
        assert client.codes(3) == [250, 250, 354]
        proxy.signal(signal.SIGTERM)
        proxy.wait_for("stopping")
        assert idle.codes(1) == [421]
        client.send(b"x\r\n.\r\n")
        eventually(lambda: remote.dialogue().verbs[-1] == "BDAT", "the message is there")
        remote.over.set()
        assert client.codes(2) == [250, 421]
    assert proxy.ended() == 0
    assert len(remote.messages) == 1
    assert remote.dialogue().ended.wait(PATIENCE)
    assert remote.dialogue().verbs[-1] == "QUIT"


def test_sigterm_waits_for_a_delivery_whose_client_is_gone(town: Town) -> None:
    remote = town.remote(keywords=EARLY, replies={".": _when_the_test_says_so})
    proxy = town.smarthost([route([remote])])
    with proxy.client() as client:
        client.send(envelope() + chunk(b"x\r\n") + b"QUIT\r\n")
        assert client.codes(2) == [250, 250]
        eventually(lambda: remote.dialogue().verbs[-1] == "BDAT", "the message is there")
    proxy.signal(signal.SIGTERM)
    proxy.wait_for("stopping")
    remote.over.set()
    assert proxy.ended() == 0
    assert proxy.events("delivery")[0]["reply"] == "250 2.0.0 taken"


def test_the_drain_has_an_end(town: Town) -> None:
    remote = town.remote(keywords=EARLY, replies={".": _when_the_test_says_so})
    proxy = town.smarthost([route([remote])], service={"drain": "300 ms"})
    with proxy.client() as client:
        client.send(envelope() + chunk(b"x\r\n"))
        assert client.codes(2) == [250, 250]
        eventually(lambda: remote.dialogue().verbs[-1] == "BDAT", "the message is there")
        proxy.signal(signal.SIGTERM)
        assert client.codes(1) == [421]
    assert proxy.ended() == 0
    # The server may have taken it: what is there twice in the end has its line (C7).
    [event] = proxy.events("delivery")
    assert event["reply"] == "451 4.4.2 Connection lost, fate of the message unknown"
    assert proxy.counters()["deliveries_unknown"] == 1


def test_inbound_and_outbound_side_by_side(town: Town) -> None:
    remote, backend = town.remote(keywords=EARLY), Mta(socket.create_server(("127.0.0.1", 0)))
    ports = [free_port(), free_port()]
    listeners = [smarthost(ports[0]), listener("mx", [f"127.0.0.1:{ports[1]}"])]
    backends = {"mta": {"servers": [backend.endpoint]}}
    proxy = town.smarthost([route([remote])], listeners, backends=backends)
    for port in ports:
        with Client(("127.0.0.1", port)).begin() as client:
            assert deliver(client)[:3] == b"250"
    backend.close()
    assert (len(remote.messages), len(backend.messages)) == (1, 1)
    proxy.stop()
    assert proxy.counters()["deliveries_accepted"] == 1
    assert proxy.counters()["messages_accepted"] == 2


def test_a_dead_resolver_holds_up_nobody_else_nor_a_reload_nor_the_end(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.settimeout(PATIENCE)
        # No step below waits so long: whoever waited for the resolver would fail.
        dns = {"servers": ["{}:{}".format(*deaf.getsockname())], "timeout": "1 min", "lifetime": "1 min"}
        routes = [route([remote], "known.example"), {"domain": "*", "lookup": "mx", "tls": {"mode": "none"}}]
        proxy = town.smarthost(routes, dns=dns)
        lost = proxy.client()
        lost.send(envelope(b"b@unknown.example"))
        assert lost.codes(1) == [250]
        deaf.recv(1000)
        with proxy.client() as client:
            assert deliver(client, b"x\r\n", b"b@known.example")[:3] == b"250"
        vanish(lost)
        proxy.reload()
        proxy.wait_for("reloaded")
        with proxy.client() as client:
            assert deliver(client, b"x\r\n", b"b@known.example")[:3] == b"250"
            client.send(envelope(b"b@unknown.example"))
            assert client.codes(1) == [250]
            deaf.recv(1000)
            vanish(client)
        proxy.reload()
        proxy.wait_for("reloaded", 2)
        proxy.stop()


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_a_redis_that_is_away_makes_us_polite_and_nothing_worse(town: Town, tmp_path: Path) -> None:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    remote = town.remote(keywords=EARLY)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as redis:
        try:
            eventually(lambda: _answers(port), "redis")
            cache = {"store": f"redis://127.0.0.1:{port}"}
            proxy = town.smarthost(once(remote), cache=cache, listener=RIDING)
            assert ask(proxy)[:3] == b"250"

            def known() -> bool:
                remote.behave(keywords=EARLY)
                assert ask(proxy)[:3] == b"250"
                return bool(proxy.wait_for("delivery", len(remote.messages))[-1].get("early"))

            eventually(known, "early talk with what redis knows")
        finally:
            redis.kill()
            redis.wait()
    remote.behave(keywords=EARLY)
    for _ in range(2):
        assert ask(proxy)[:3] == b"250"
    assert not proxy.wait_for("delivery", len(remote.messages))[-1].get("early")
    assert proxy.wait_for("cache_store")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_nothing_is_left_of_many_deliveries(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    failing = town.remote(greeting=b"554 5.7.1 go away\r\n")
    routes = [
        route([remote], "kept.example"),
        route([remote], "once.example", reuse=False),
        route([failing, remote], "second.example", reuse=False),
        route([town.nobody()], "nobody.example"),
    ]
    proxy = town.smarthost(routes, listener=RIDING)

    def round_of(number: int) -> None:
        for domain in (b"kept.example", b"once.example", b"second.example"):
            with Client(proxy.address()).begin() as client:
                for send in (deliver, deliver_by_data):
                    for _ in range(number):
                        assert send(client, b"Subject: x\r\n\r\nx\r\n", b"b@" + domain)[:3] == b"250"
                client.send(envelope(b"b@" + domain) + b"BDAT 10\r\nhalf")
        with Client(proxy.address()).begin() as client:
            for _ in range(15):
                client.send(envelope(b"b@nobody.example"))
                assert client.codes(2) == [250, 451]
                assert client.code(b"RSET") == 250

    round_of(10)
    memory = []
    for _ in range(4):
        round_of(80)
        eventually(lambda: proxy.descriptors() < 25, "connections are closed")
        memory.append(proxy.memory())
    assert len(remote.messages) == 3 * 2 * (10 + 4 * 80)
    assert proxy.threads() < 12
    assert memory[-1] - memory[0] < 3 << 20


def test_many_routes_that_demand_the_same_cost_little(town: Town) -> None:
    # Each set of authorities has almost a megabyte.
    alike = {"tls": {"mode": "opportunistic"}}
    smarthost = town.smarthost([route(["192.0.2.1"], f"d{number}.example", **alike) for number in range(60)])
    assert smarthost.memory() < 90 * MIB


def test_what_reloads_have_replaced_is_given_back(town: Town) -> None:
    # Of each generation 17 megabytes. Some are kept: the first one, and the last one for a while.
    named = [{"tls": {"mode": "verified", "name": f"mx{number}.example"}} for number in range(20)]
    smarthost = town.smarthost([route(["192.0.2.1"], f"d{number}.example", **tls) for number, tls in enumerate(named)])
    memory = []
    for number in range(6):
        smarthost.reload()
        smarthost.wait_for("reloaded", number + 1)
        with smarthost.client():
            pass  # so the reactor has had its turn
        memory.append(smarthost.memory())
    assert memory[-1] - memory[2] < 25 * MIB
