"""Clients of a smarthost that are in use: Postfix, Exim, OpenSMTPD, msmtp, swaks, curl; and remotes of another age or
another mind: a server without EHLO, OpenSMTPD, Postfix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from .clients import RECIPIENT, burst, post, send_at_once
from .conftest import MakeExim
from .lab import program, wait_for
from .messages import Sample, Stored, assert_intact, sample
from .opensmtpd import OpenSmtpd
from .outbound_clients import (
    RelayingOpenSmtpd,
    RelayingPostfix,
    relaying_opensmtpd,
    relaying_postfix,
)
from .outbound_exim import EximRemote, exim_remote
from .outbound_oldserver import OldServer, old_server
from .outbound_smarthost import Smarthost, Way, smarthost
from .postfix import Postfix
from .programs import run, swaks
from .test_exim import assert_delivered
from .wire import assert_lockstep

pytestmark = pytest.mark.interop

Send = Callable[[Sample, str], None]


class Server(Protocol):
    """What remotes have in common."""

    def delivered(self) -> list[Stored]:
        """Wait until all is delivered, and give everything ever delivered."""


@pytest.fixture(scope="module")
def exim(server_pair: Any) -> Iterator[EximRemote]:
    """A remote that offers early pipelining."""
    with exim_remote(server_pair) as server:
        yield server


@pytest.fixture(scope="module")
def old() -> Iterator[OldServer]:
    """A remote that knows no EHLO."""
    with old_server() as server:
        yield server


@pytest.fixture(scope="module")
def house(
    exim: EximRemote, old: OldServer, postfix_plain: Postfix, postfix_lockstep: Postfix, opensmtpd_plain: OpenSmtpd
) -> Iterator[Smarthost]:
    """A smarthost for all of them, with kept sessions, and without where the wire is looked at."""
    kept = {"reuse": True}
    ways = {
        "lab.test": Way(exim.port, kept),
        "postfix.test": Way(postfix_plain.port, kept),
        "old.test": Way(old.port),
        "lockstep.test": Way(postfix_lockstep.port),
        "opensmtpd.test": Way(opensmtpd_plain.port),
        "kept.opensmtpd.test": Way(opensmtpd_plain.port, kept),
        "verdicts.test": Way(exim.port, kept),
    }
    with smarthost(ways, {"relay_from": ["127.0.0.1"]}) as made:
        yield made


# --- clients --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postfix_client(house: Smarthost) -> Iterator[RelayingPostfix]:
    """Postfix with `relayhost`."""
    with relaying_postfix("smtp:", {"relayhost": f"[127.0.0.1]:{house.port}"}) as server:
        yield server


@pytest.fixture(scope="module")
def opensmtpd_client(house: Smarthost) -> Iterator[RelayingOpenSmtpd]:
    """OpenSMTPD with `relay host`."""
    with relaying_opensmtpd(house.port) as server:
        yield server


def by_msmtp(house: Smarthost, folder: Path) -> Send:
    """One message by msmtp."""
    file = folder / "msmtprc"
    file.write_text(f"account default\nhost 127.0.0.1\nport {house.port}\nfrom sender@lab.test\ntls off\nauth off\n")

    def send(message: Sample, recipient: str) -> None:
        done = run(str(program("msmtp")), "-C", str(file), recipient, data=message.text)
        assert (done.returncode, done.stderr) == (0, b"")

    return send


def by_swaks(house: Smarthost, _folder: Path) -> Send:
    """One message by swaks, command by command."""

    def send(message: Sample, recipient: str) -> None:
        done = swaks(house.port, message, "--to", recipient)
        assert done.returncode == 0, done.stdout.decode("utf-8", "replace")

    return send


def by_pipelining_swaks(house: Smarthost, _folder: Path) -> Send:
    """One message by swaks, in groups of commands."""

    def send(message: Sample, recipient: str) -> None:
        done = swaks(house.port, message, "--to", recipient, "--pipeline")
        assert done.returncode == 0, done.stdout.decode("utf-8", "replace")

    return send


def by_curl(house: Smarthost, folder: Path) -> Send:
    """One message by curl."""

    def send(message: Sample, recipient: str) -> None:
        file = folder / "message"
        file.write_bytes(message.wire)
        url = f"smtp://127.0.0.1:{house.port}/client.lab.test"
        envelope = ["--mail-from", "sender@lab.test", "--mail-rcpt", recipient]
        done = run(str(program("curl")), "-sS", "--url", url, *envelope, "--upload-file", str(file))
        assert (done.returncode, done.stderr) == (0, b"")

    return send


def by_smtplib(house: Smarthost, _folder: Path) -> Send:
    """One message by Python's smtplib."""

    def send(message: Sample, recipient: str) -> None:
        post(house.port, message, recipient)

    return send


@pytest.mark.parametrize("client", [by_msmtp, by_swaks, by_pipelining_swaks, by_curl, by_smtplib])
@pytest.mark.parametrize("domain", ["lab.test", "postfix.test"])
def test_programs(
    house: Smarthost,
    exim: EximRemote,
    postfix_plain: Postfix,
    tmp_path: Path,
    *,
    client: Callable[[Smarthost, Path], Send],
    domain: str,
) -> None:
    """Messages of all sizes, by clients that know nothing of all this."""
    send = client(house, tmp_path)
    server: Server = exim if domain == "lab.test" else postfix_plain
    # swaks reads backslash and n as a line end.
    for size in (0, 300_000) if "swaks" not in client.__name__ else (0, 0):
        message = sample(size=size)
        send(message, f"recipient@{domain}")
        assert_intact(server.delivered(), message, (f"recipient@{domain}",))


def test_postfix(postfix_client: RelayingPostfix, exim: EximRemote) -> None:
    """`relayhost`: several messages, a large one, and a refusal of one recipient among others."""
    messages = [sample(size=size) for size in (0, 1 << 20, 0, 0, 0)]
    for message in messages:
        post(postfix_client.port, message, RECIPIENT)
    postfix_client.emptied()
    stored = exim.delivered()
    for message in messages:
        assert_intact(stored, message)
    message = sample()
    post(postfix_client.port, message, "refused@verdicts.test", "one@verdicts.test")
    assert postfix_client.outcome(message, "one@verdicts.test").startswith("status=sent")
    outcome = postfix_client.outcome(message, "refused@verdicts.test")
    assert outcome.startswith("status=bounced"), outcome
    assert "550 5.1.1 no such user (in reply to RCPT TO command)" in outcome
    assert_intact(exim.delivered(), message, ("one@verdicts.test",))


@pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])
def test_exim(house: Smarthost, make_exim: MakeExim, exim: EximRemote, *, chunking: bool) -> None:
    """Exim pipelines early with us, as we do with the remote."""
    client = make_exim(house.port, chunking=chunking)
    for number, size in enumerate((0, 0, 1 << 20, 0)):
        message = sample(size=size)
        delivery = client.send(message, "one@lab.test", "two@lab.test")
        assert_delivered(delivery, client)
        assert delivery.early is (number > 0)
        assert_intact(exim.delivered(), message, ("one@lab.test", "two@lab.test"))
    message = sample()
    delivery = client.send(message, "refused@lab.test", "one@lab.test", "later@lab.test")
    assert [len(lines) for lines in (delivery.accepted, delivery.deferred, delivery.refused)] == [1, 1, 1]
    assert "550 5.1.1 no such user" in delivery.refused[0]
    assert "451 4.2.0 come back later" in delivery.deferred[0]
    assert_intact(exim.delivered(), message, ("one@lab.test",))


def test_opensmtpd(opensmtpd_client: RelayingOpenSmtpd, exim: EximRemote) -> None:
    """`relay host`: several messages, a large one."""
    messages = [sample(size=size) for size in (0, 1 << 20, 0)]
    for message in messages:
        post(opensmtpd_client.port, message, RECIPIENT)
    wait_for(lambda: not opensmtpd_client.queued(), f"an empty queue of OpenSMTPD\n{opensmtpd_client.log()[-2000:]}")
    stored = exim.delivered()
    for message in messages:
        assert_intact(stored, message)


# --- remotes --------------------------------------------------------------------------------------------------------


def test_a_server_without_ehlo(house: Smarthost, old: OldServer) -> None:
    """HELO behind its 500; nothing is ever sent before it has answered."""
    where = house.destinations["old.test"]
    where.line.hold = 0.3
    for size in (0, 200_000):
        message = sample(size=size)
        assert send_at_once(house.port, burst(message, where.to()))[1] == [220, 250, 250, 250, 250, 221]
        assert_intact(old.messages, message, (where.to(),))
    assert old.faults == []
    for seen in where.line.conversations:
        assert seen.before_greeting == b""
        assert_lockstep(seen)


@pytest.mark.parametrize("domain", ["opensmtpd.test", "kept.opensmtpd.test"])
def test_opensmtpd_as_a_remote(house: Smarthost, opensmtpd_plain: OpenSmtpd, domain: str) -> None:
    """One command at a time, or it ends the session; a refused recipient among others."""
    where = house.destinations[domain]
    for size in (0, 1 << 20, 0):
        message = sample(size=size)
        assert send_at_once(house.port, burst(message, where.to()))[1] == [220, 250, 250, 250, 250, 221]
        assert_intact(opensmtpd_plain.delivered(), message, (where.to(),))
    for seen in where.line.conversations:
        assert seen.before_greeting == b""
        assert_lockstep(seen)


def test_opensmtpd_takes_no_addresses_in_utf_8(house: Smarthost) -> None:
    """A missing SMTPUTF8 is 550 5.6.7."""
    octets = burst(sample(), "recipient@opensmtpd.test").replace(
        b"MAIL FROM:<sender@lab.test>", "MAIL FROM:<größe@lab.test> SMTPUTF8".encode(), 1
    )
    codes = send_at_once(house.port, octets)[1]
    assert codes[:4] == [220, 250, 250, 550], codes


def test_a_lockstep_postfix(house: Smarthost, postfix_lockstep: Postfix, make_exim: MakeExim) -> None:
    """No PIPELINING, no CHUNKING, from an Exim that pipelines early with us."""
    where = house.destinations["lockstep.test"]
    client = make_exim(house.port)
    for _ in range(3):
        message = sample()
        assert_delivered(client.send(message, where.to()), client)
        assert_intact(postfix_lockstep.delivered(), message, (where.to(),))
    for seen in where.line.conversations:
        assert_lockstep(seen)


def test_a_large_message_without_a_last_line_end(house: Smarthost, postfix_plain: Postfix) -> None:
    """In one chunk of 1 MiB to Postfix."""
    where = house.destinations["postfix.test"]
    message = sample(size=1 << 20)
    cut = Sample(message.token, message.body.removesuffix(b"\n") + b"the end")
    assert send_at_once(house.port, burst(cut, where.to()))[1] == [220, 250, 250, 250, 250, 221]
    assert_intact(postfix_plain.delivered(), Sample(cut.token, cut.body + b"\n"), (where.to(),))


def test_nobody_else_may_use_it(house: Smarthost, postfix_plain: Postfix) -> None:
    """Never an open relay: clients outside `relay_from` are turned away."""
    message = sample()
    octets = burst(message, "recipient@postfix.test")
    assert send_at_once(house.port, octets, source="127.0.0.9")[1][:1] == [554]
    assert send_at_once(house.port, octets, source="127.0.0.1")[1] == [220, 250, 250, 250, 250, 221]
    assert_intact(postfix_plain.delivered(), message, ("recipient@postfix.test",))
