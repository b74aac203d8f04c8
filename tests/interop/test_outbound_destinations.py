"""One message for several destinations: by LMTP all of them at once, by SMTP one after the other (`split`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from .clients import post
from .conftest import MakeExim
from .lab import open_folder, wait_for
from .messages import assert_intact, sample
from .opensmtpd import OpenSmtpd
from .outbound_clients import RelayingPostfix, relaying_postfix
from .outbound_exim import EximRemote, LmtpExim, exim_remote
from .outbound_smarthost import Smarthost, Way, smarthost
from .postfix import Postfix
from .proxy import log_time

pytestmark = pytest.mark.interop

DOMAINS = ["exim.test", "postfix.test", "opensmtpd.test"]
EVERYBODY = tuple(f"recipient@{domain}" for domain in DOMAINS)


@pytest.fixture(scope="module")
def exim(server_pair: Any) -> Iterator[EximRemote]:
    """One of the remotes."""
    with exim_remote(server_pair) as server:
        yield server


@pytest.fixture(scope="module")
def house(exim: EximRemote, postfix_plain: Postfix, opensmtpd_plain: OpenSmtpd) -> Iterator[Smarthost]:
    """A smarthost with three destinations, and one where nobody is."""
    ports = (exim.port, postfix_plain.port, opensmtpd_plain.port)
    ways = {domain: Way(port) for domain, port in zip(DOMAINS, ports, strict=True)}
    with smarthost({**ways, "nobody.test": Way(1)}) as made:
        yield made


@pytest.fixture(scope="module")
def lmtp_postfix(house: Smarthost) -> Iterator[RelayingPostfix]:
    """A Postfix that hands everything on by LMTP, the documented way."""
    with relaying_postfix(f"lmtp:inet:127.0.0.1:{house.lmtp}") as server:
        yield server


@pytest.fixture(scope="module")
def smtp_postfix(house: Smarthost) -> Iterator[RelayingPostfix]:
    """A Postfix that hands everything on by SMTP."""
    with relaying_postfix(f"smtp:[127.0.0.1]:{house.port}") as server:
        yield server


@pytest.fixture
def arrived(exim: EximRemote, postfix_plain: Postfix, opensmtpd_plain: OpenSmtpd) -> Any:
    """What all the remotes have, as one list."""
    return lambda: [*exim.delivered(), *postfix_plain.delivered(), *opensmtpd_plain.delivered()]


def deliveries(house: Smarthost, since: str, number: int) -> list[dict[str, Any]]:
    """Wait until there are that many deliveries in the log from a moment on."""
    found = wait_for(
        lambda: found if len(found := house.events("delivery", since=since)) >= number else [],
        f"{number} deliveries in the log",
    )
    assert len(found) == number, found
    return found


def test_postfix_by_lmtp(house: Smarthost, lmtp_postfix: RelayingPostfix, arrived: Any) -> None:
    """All destinations in one transaction, cold and warm."""
    for _ in range(4):
        message, since = sample(), log_time()
        post(lmtp_postfix.port, message, *EVERYBODY)
        lmtp_postfix.emptied()
        assert_intact(arrived(), message, EVERYBODY)
        done = deliveries(house, since, len(DOMAINS))
        assert len({delivery["session"] for delivery in done}) == 1
    for recipient in EVERYBODY:
        assert lmtp_postfix.outcome(message, recipient).startswith("status=sent (250")


def test_exim_by_lmtp(house: Smarthost, arrived: Any) -> None:
    """The same from Exim."""
    with open_folder("exim") as folder:
        exim = LmtpExim(folder, house.lmtp)
        for _ in range(4):
            message, since = sample(), log_time()
            delivery = exim.send(message, *EVERYBODY)
            assert len(delivery.accepted) == len(DOMAINS), delivery.log
            assert exim.queue() == []
            assert_intact(arrived(), message, EVERYBODY)
            done = deliveries(house, since, len(DOMAINS))
            assert len({one["session"] for one in done}) == 1


def test_each_recipient_has_a_verdict_of_its_own(house: Smarthost, arrived: Any) -> None:
    """By LMTP: one destination refuses, one is not there, and what the others took is done with."""
    refused, nobody = "refused@exim.test", "recipient@nobody.test"
    with open_folder("exim") as folder:
        exim = LmtpExim(folder, house.lmtp)
        for _ in range(4):
            message = sample()
            delivery = exim.send(message, *EVERYBODY, refused, nobody)
            assert len(delivery.accepted) == len(DOMAINS), delivery.log
            assert [line.split()[4] for line in delivery.refused] == [refused], delivery.log
            assert [line.split()[4] for line in delivery.deferred] == [nobody], delivery.log
            assert "5.1.1 no such user" in delivery.refused[0]
            assert_intact(arrived(), message, EVERYBODY)


def test_exim_splits(house: Smarthost, make_exim: MakeExim, arrived: Any) -> None:
    """By SMTP and with DATA: for the recipients with 452 Exim begins another transaction on the same connection."""
    exim = make_exim(house.port, chunking=False)
    for _ in range(4):
        message, since = sample(), log_time()
        delivery = exim.send(message, *EVERYBODY)
        assert len(delivery.accepted) == len(DOMAINS), delivery.log
        assert exim.queue() == []
        assert_intact(arrived(), message, EVERYBODY)
        done = deliveries(house, since, len(DOMAINS))
        assert len({one["session"] for one in done}) == 1


def test_exim_with_chunking_splits_later(house: Smarthost, make_exim: MakeExim, arrived: Any) -> None:
    """With BDAT it has said QUIT before it sees a 452, so that these recipients wait for its next queue run."""
    exim = make_exim(house.port)
    for _ in range(2):
        message = sample()
        delivery = exim.send(message, *EVERYBODY)
        assert [len(delivery.accepted), len(delivery.deferred)] == [1, 2], delivery.log
        assert all("452 4.5.3" in line for line in delivery.deferred)
        delivery = exim.retry()
        assert [len(delivery.accepted), len(delivery.deferred)] == [1, 1], delivery.log
        assert len(exim.retry().accepted) == 1
        assert exim.queue() == []
        assert_intact(arrived(), message, EVERYBODY)


def test_postfix_splits(house: Smarthost, smtp_postfix: RelayingPostfix, arrived: Any) -> None:
    """By SMTP: Postfix puts the recipients with 452 off to its next queue run, in the end all have it once."""
    message, since = sample(), log_time()
    post(smtp_postfix.port, message, *EVERYBODY)
    smtp_postfix.emptied()
    assert_intact(arrived(), message, EVERYBODY)
    done = deliveries(house, since, len(DOMAINS))
    assert len({one["session"] for one in done}) == len(DOMAINS)
    put_off = re.findall(r"to=<recipient@(\S+)>.* status=deferred .*452 4.5.3", smtp_postfix.log())
    assert len(put_off) == 2 + 1, put_off
