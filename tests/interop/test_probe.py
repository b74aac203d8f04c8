"""``smtpproxy probe`` against real mail servers: what they offer, and early flights to Exim, which knows them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Backend
from .lab import wait_for
from .outbound_exim import EximRemote, exim_remote

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def exim(server_pair: Any) -> Iterator[EximRemote]:
    """An Exim with TLS and early pipelining."""
    with exim_remote(server_pair) as server:
        yield server


def probe(port: int, *options: str, status: int = 0) -> dict[str, Any]:
    """Probe a server of this machine; give what was found of it."""
    command = [sys.executable, "-m", "smtpproxy", "probe", f"127.0.0.1:{port}", "--json", *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (run.returncode, run.stderr) == (status, ""), run.stdout
    server: dict[str, Any] = json.loads(run.stdout)["hosts"][0]["servers"][0]
    return server


def codes(trial: dict[str, Any]) -> list[tuple[str, int]]:
    return [(answer["command"], answer["code"]) for answer in trial["answers"]]


ENVELOPE = [("MAIL", 250), ("RCPT", 250), ("RSET", 250), ("QUIT", 221)]


def test_an_early_flight_inside_tls(exim: EximRemote, lasting_pki: Any) -> None:
    server = probe(exim.port, "--ca", str(lasting_pki.root.path), "--try", "somebody@lab.test")
    assert (server["clear"]["keywords"], server["clear"]["usable"]) == (["PIPECONNECT"], True)
    assert (server["inside"]["keywords"], server["inside"]["usable"]) == (["PIPECONNECT"], True)
    assert server["tls"]["version"] == "TLSv1.3"
    assert (server["tls"]["chain_error"], server["tls"]["name_error"]) == ("", "")
    trial = server["trial"]
    assert (trial["early_clear"], trial["early_inside"], trial["problems"]) == (True, True, [])
    assert codes(trial) == [("greeting", 220), ("EHLO", 250), ("STARTTLS", 220), ("EHLO inside", 250), *ENVELOPE]


def test_an_early_flight_in_clear(exim: EximRemote) -> None:
    server = probe(exim.port, "--no-tls", "--try", "somebody@lab.test")
    trial = server["trial"]
    assert (trial["early_clear"], trial["early_inside"], trial["problems"]) == (True, False, [])
    assert codes(trial) == [("greeting", 220), ("EHLO", 250), *ENVELOPE]


@pytest.mark.parametrize(("mailbox", "code"), [("refused", 550), ("later", 451)])
def test_a_refusal_is_the_same_early_and_politely(exim: EximRemote, mailbox: str, code: int) -> None:
    trial = probe(exim.port, "--try", f"{mailbox}@lab.test")["trial"]
    assert trial["problems"] == []
    assert ("RCPT", code) in codes(trial)


def test_nothing_is_ever_left_in_a_spool(exim: EximRemote) -> None:
    """No message, and no complaint of the server about how it was spoken to."""
    probe(exim.port, "--try", "somebody@lab.test", "--from", "somebody@lab.test")
    wait_for(lambda: not exim.queued(), "an empty spool")
    assert exim.box.messages() == []
    assert not re.search(r"SMTP (protocol|syntax) error|unexpected|lost", exim.log())


def test_an_exim_that_does_not_offer_it(exim: EximRemote) -> None:
    server = probe(exim.polite, "--try", "somebody@lab.test")
    assert (server["clear"]["keywords"], server["usable"]) == ([], False)
    assert server["trial"]["skipped"] == "early pipelining is not offered"


def test_an_exim_without_chunking(exim: EximRemote) -> None:
    server = probe(exim.data)
    assert [saving["clear"] for saving in server["savings"]] == [5, 3, 2, 1]
    assert [saving["clear_missing"] for saving in server["savings"]] == ["", "", "no CHUNKING", "no CHUNKING"]


def test_servers_that_have_never_heard_of_it(backend: Backend) -> None:
    server = probe(backend.port, "--try", "somebody@lab.test")
    assert (server["usable"], server["problems"]) == (False, [])
    assert server["clear"]["lines"]
    assert server["trial"]["skipped"] == "early pipelining is not offered"
