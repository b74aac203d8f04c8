"""Outbound on real sockets, exactly once: servers that fail anywhere, clients of all kinds, a count at the end (C7).

Whatever happens in which order: each message has one last word; after 2xx one server has it, once; after anything else
but an unknown fate (451 4.4.2, RFC 1047) nobody has it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .client import Client
from .outboundproxy import Smarthost, Town, chunk, envelope, route
from .outboundremote import CLOSE, EARLY, PLAIN, RESET, SILENCE, Dialogue, RemoteServer, Reply
from .process import Settings
from .tlstools import server_context

MESSAGES = 60
CLIENTS = 4
WAITS = dict.fromkeys(("greeting", "ehlo", "mail", "rcpt", "data", "end_of_data", "data_block"), "200 ms")


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as made:
        yield made


def misbehaving(chance: random.Random, verb: str, usual: bytes) -> Reply:
    """A reply that is now and then another one."""
    others = [b"451 4.3.0 not now\r\n", b"421 4.3.2 closing\r\n", CLOSE, RESET, SILENCE, b"nonsense\r\n"]
    if verb in {"RCPT", ".", "greeting"}:
        others += [b"554 5.7.1 no\r\n"]

    def say(dialogue: Dialogue) -> bytes:
        if chance.random() > 0.08:
            return usual
        said = chance.choice(others)
        if said == SILENCE:
            # Not for ever: the other side has given up by then.
            dialogue.owner.over.wait(0.5)
            return CLOSE
        return said

    return say


def script(chance: random.Random, keywords: tuple[str, ...], **more: Any) -> Settings:
    """A server that fails now and then, wherever it can."""
    verbs = ("MAIL", "RCPT", ".", "BDAT", "RSET")
    replies = {verb: misbehaving(chance, verb, b"250 2.0.0 ok\r\n") for verb in verbs}
    greeting = misbehaving(chance, "greeting", b"220 remote.example ESMTP\r\n")
    return {"keywords": keywords, "replies": replies, "greeting": greeting} | more


def by_burst(client: Client, recipient: bytes, text: bytes) -> bytes:
    """By BDAT, all at once."""
    client.send(envelope(recipient) + chunk(text))
    return [client.reply() for _ in range(3)][-1]


def by_groups(client: Client, recipient: bytes, text: bytes) -> bytes:
    """By DATA, in groups."""
    client.send(envelope(recipient) + b"DATA\r\n")
    replies = [client.reply() for _ in range(3)]
    if replies[-1][:3] != b"354":
        return replies[-1]
    client.send(text + b".\r\n")
    return client.reply()


def by_lockstep(client: Client, recipient: bytes, text: bytes) -> bytes:
    """By DATA, one command at a time."""
    for line in envelope(recipient).splitlines():
        reply = client.ask(line)
        if reply[:3] != b"250":
            assert client.code(b"RSET") == 250
            return reply
    reply = client.ask(b"DATA")
    if reply[:3] != b"354":
        return reply
    client.send(text + b".\r\n")
    return client.reply()


def by_two_chunks(client: Client, recipient: bytes, text: bytes) -> bytes:
    """By BDAT, in two chunks, the second one behind the reply to the first."""
    client.send(envelope(recipient) + b"BDAT 5\r\n" + text[:5])
    replies = [client.reply() for _ in range(3)]
    if replies[-1][:3] != b"250":
        assert client.code(b"RSET") == 250
        return replies[-1]
    client.send(chunk(text[5:]))
    return client.reply()


SENDERS: list[Callable[[Client, bytes, bytes], bytes]] = [by_burst, by_groups, by_lockstep, by_two_chunks]


def send_all(proxy: Smarthost, chance: random.Random, name: int, count: int) -> dict[bytes, bytes]:
    """Deliver so many messages, some of them on one connection; the last word on each, by its text."""
    words: dict[bytes, bytes] = {}
    client = proxy.client()
    for number in range(count):
        if chance.random() < 0.5:
            client.sock.close()
            client = proxy.client()
        text = b"Subject: %d.%d\r\n\r\n%s\r\n" % (name, number, b"x" * chance.choice((1, 500, 30_000)))
        recipient = b"b@%s.example" % chance.choice((b"plain", b"early", b"tls"))
        words[text] = chance.choice(SENDERS)(client, recipient, text)
    client.sock.close()
    return words


@pytest.mark.parametrize("transport", ["lean", "stock"])
def test_c7_every_message_has_one_fate_and_the_client_knows_it(town: Town, pki: Any, transport: str) -> None:
    chance = random.Random(7)
    tls = server_context(pki.pair(["127.0.0.1"]))
    kinds: dict[str, Settings] = {"plain": {"keywords": PLAIN}, "early": {"keywords": EARLY}}
    kinds["tls"] = {"keywords": EARLY, "tls": tls}
    remotes: list[RemoteServer] = []
    routes = []
    for name, how in kinds.items():
        pair = [town.remote(**script(chance, **how)) for _ in range(2)]
        remotes += pair
        mode = {"mode": "required" if name == "tls" else "none"}
        routes.append(route(pair, f"{name}.example", tls=mode, timeouts=WAITS, reuse={"uses": 5}))
    limits = {"limits": {"errors": 1000}, "speculate": {"confirmed": 0}}
    cache = {"store": "memory:", "hold_back": "300 ms"}
    proxy = town.smarthost(routes, listener=limits, cache=cache, service={"transport": transport})
    with ThreadPoolExecutor(CLIENTS) as pool:
        sending = [pool.submit(send_all, proxy, random.Random(n), n, MESSAGES) for n in range(CLIENTS)]
        words = {text: word for each in sending for text, word in each.result().items()}
    assert len(words) == CLIENTS * MESSAGES
    taken = Counter(text for remote in remotes for text in remote.texts)
    wrong = {}
    for text, word in words.items():
        if word[:1] == b"2":
            fine = taken[text] == 1
        elif word.startswith(b"451 4.4.2"):
            fine = taken[text] <= 1
        else:
            fine = taken[text] == 0
        if not fine:
            wrong[text[:20]] = (word, taken[text])
    assert wrong == {}
    assert sum(word[:1] == b"2" for word in words.values()) > len(words) // 3
    proxy.stop()
    counters = proxy.counters()
    assert counters["deliveries_early"] > 5
    assert counters["remote_reuses"] > 5
