"""Next hops that want a login (rule C15): an Exim that offers early pipelining, and a Postfix that asks Dovecot; over
STARTTLS and TLS from the first octet on, by PLAIN and LOGIN.
"""

from __future__ import annotations

import base64
import re
import signal
from collections.abc import Iterator
from functools import partial
from itertools import chain, pairwise, product
from pathlib import Path
from typing import Any

import pytest

from .clients import burst, post, send_at_once
from .lab import open_folder, program, wait_for
from .messages import Sample, assert_intact, sample
from .outbound_clients import RelayingPostfix, relaying_postfix
from .outbound_exim import pipelining
from .outbound_smarthost import Smarthost, Way
from .outbound_submission import (
    KINDS,
    MECHANISMS,
    PASSWORD,
    USER,
    EximSubmission,
    PostfixSubmission,
    Submission,
    exim_submission,
    postfix_submission,
)
from .programs import run
from .proxy import running

pytestmark = pytest.mark.interop

WRONG = "wr0ng-password"
TAKEN = [220, 250, 250, 250, 250, 221]
MODES = {"starttls": "verified", "implicit": "implicit"}
PROVIDERS = ("exim", "postfix")
REFUSED = "451 4.7.8 The remote server did not let us log in"

by_kind = pytest.mark.parametrize("kind", KINDS)
by_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS)
by_provider = pytest.mark.parametrize("name", PROVIDERS)


@pytest.fixture(scope="module")
def exim(server_pair: Any) -> Iterator[EximSubmission]:
    """A provider that offers early pipelining."""
    with exim_submission(server_pair) as server:
        yield server


@pytest.fixture(scope="module")
def postfix_with_users(server_pair: Any) -> Iterator[PostfixSubmission]:
    """One that does not."""
    with postfix_submission(server_pair) as server:
        yield server


@pytest.fixture(scope="module")
def providers(exim: EximSubmission, postfix_with_users: PostfixSubmission) -> dict[str, Submission]:
    """Both, by name."""
    return dict(zip(PROVIDERS, (exim, postfix_with_users), strict=True))


def ways(providers: dict[str, Submission], ca: str, folder: Path) -> Iterator[tuple[str, Way]]:
    """A route for each way to log in; with kept sessions; with a password that is wrong; to a server that is not who
    it should be.
    """
    for name, provider in providers.items():
        for (kind, mechanism), port in provider.ports_for.items():
            tls = {"mode": MODES[kind], "name": "mx.lab.test", "ca": ca}

            def login(word: str) -> dict[str, str]:
                return {"user": USER, "password_file": str(folder / word)}

            usual = {"tls": tls, "credentials": login("right")}
            there = f"{mechanism.lower()}.{kind}.{name}.test"
            yield there, Way(port, usual, direct=True)
            yield f"kept.{there}", Way(port, {**usual, "reuse": True}, direct=True)
            yield f"wrong.{there}", Way(port, {"tls": tls, "credentials": login("mended")}, direct=True)
            stranger = {"tls": {**tls, "name": "other.lab.test"}, "credentials": login("wrong")}
            yield f"stranger.{there}", Way(port, stranger, direct=True)


@pytest.fixture(scope="module")
def passwords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files that have a password each."""
    folder = tmp_path_factory.mktemp("passwords")
    for name, password in (("right", PASSWORD), ("wrong", WRONG), ("mended", WRONG)):
        (folder / name).write_text(f"{password}\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def house(providers: dict[str, Submission], lasting_pki: Any, passwords: Path) -> Iterator[Smarthost]:
    """A smarthost with a route for each; it writes transcripts, and no password into any of them."""
    with open_folder("smarthost") as folder:
        made = Smarthost(folder, [], arguments=("-v",))
        made.configure(dict(ways(providers, str(lasting_pki.root.path), passwords)), {}, {})
        with running(made):
            yield made
        assert "AUTH ****" in made.log()
        assert_no_password(made.log())


@pytest.fixture(scope="module")
def client(house: Smarthost) -> Iterator[RelayingPostfix]:
    """A mail server that hands everything to the smarthost."""
    with relaying_postfix(f"lmtp:inet:127.0.0.1:{house.lmtp}") as server:
        yield server


def assert_no_password(text: str) -> None:
    """AssertionError if there is one in it, in any of the forms that are on a line."""
    for password in (PASSWORD, WRONG):
        forms = [password.encode(), f"\0{USER}\0{password}".encode()]
        shown = [base64.b64encode(form).decode() for form in forms]
        for secret in (password, password[:6], *shown):
            assert secret not in text


def deliveries(house: Smarthost, recipient: str, number: int) -> list[dict[str, Any]]:
    """Wait for so many deliveries to a recipient."""

    def look() -> list[dict[str, Any]]:
        found = [event for event in house.events("delivery") if event["to"] == f"<{recipient}>"]
        return found if len(found) >= number else []

    found = wait_for(look, f"{number} deliveries to {recipient}")
    assert len(found) == number, found
    return found


def at_least(provider: Submission, number: int) -> bool:
    """Whether it has refused so many passwords."""
    return provider.refusals() >= number


def transcript(house: Smarthost, *done: dict[str, Any]) -> list[str]:
    """What was said in the sessions of some deliveries."""
    sessions = [delivery["session"] for delivery in done]
    return [event["line"] for event in house.events("transcript") if event["session"] in sessions]


def send(house: Smarthost, message: Sample, recipient: str) -> list[int]:
    """Send a message; gives the codes of the replies."""
    return send_at_once(house.port, burst(message, recipient))[1]


@by_kind
@by_mechanism
@by_provider
def test_a_login(house: Smarthost, providers: dict[str, Submission], name: str, mechanism: str, kind: str) -> None:
    """From the second session on AUTH goes with EHLO, where that is offered."""
    provider, to = providers[name], f"user@{mechanism.lower()}.{kind}.{name}.test"
    signs: list[str] = []
    for number in range(1, 4):
        before = len(provider.logins())
        message = sample()
        assert send(house, message, to) == TAKEN
        delivery = deliveries(house, to, number)[-1]
        early = provider.early and number > 1
        assert delivery.get("early", False) is early
        said = transcript(house, delivery)
        assert any(one.startswith("B> EHLO ") and two == "B> AUTH ****" for one, two in pairwise(said)) is early, said
        assert (delivery["tries"], delivery["accepted"], delivery["verdict"]) == (1, 1, "route: verified")
        assert_intact(provider.delivered(), message, (to,))
        assert provider.logins()[before:] == [(mechanism, USER)]
        signs += re.findall(rf"^.* <= .* id={message.token}@.*$", provider.log(), re.MULTILINE)
    if provider.early:
        # What is not there by the time of its greeting is not early for Exim: we may be late once.
        signs = [pipelining(line) for line in signs]
        assert signs[0] == "L."
        assert "L*" in signs[1:], signs


@by_provider
def test_a_kept_session_needs_no_other_login(house: Smarthost, providers: dict[str, Submission], name: str) -> None:
    """One session, and one login, for three messages."""
    to = f"user@kept.plain.starttls.{name}.test"
    for _ in range(3):
        message = sample()
        assert send(house, message, to) == TAKEN
        assert_intact(providers[name].delivered(), message, (to,))
    done = deliveries(house, to, 3)
    assert [delivery.get("reused", False) for delivery in done] == [False, True, True]
    said = transcript(house, *done)
    assert len([line for line in said if line.startswith("B> MAIL FROM:")]) == 3, said
    assert len([line for line in said if line == "B> AUTH ****"]) == 1, said


@by_kind
@by_provider
def test_no_password_for_a_stranger(house: Smarthost, providers: dict[str, Submission], name: str, kind: str) -> None:
    """It would be a wrong one, which the server's log would show."""
    provider, to = providers[name], f"user@stranger.plain.{kind}.{name}.test"
    before, message = provider.refusals(), sample()
    assert send(house, message, to) == [220, 250, 250, 451, 451, 221]
    (delivery,) = deliveries(house, to, 1)
    assert delivery["reply"] == "451 4.7.5 No TLS with the remote server as it has to be"
    assert delivery["failures"][0].endswith(": TLS: the certificate is not for other.lab.test")
    assert_intact(provider.delivered(), message, ())
    # What it says about this session it has said when the next one is over.
    assert send(house, sample(), f"user@plain.{kind}.{name}.test") == TAKEN
    assert provider.refusals() == before


def test_a_wrong_password(
    house: Smarthost, providers: dict[str, Submission], client: RelayingPostfix, passwords: Path
) -> None:
    """The mail server keeps the message, and it goes when the password has been mended."""
    message = sample()
    everybody = {
        name: tuple(
            f"user@wrong.{mechanism.lower()}.{kind}.{name}.test" for mechanism, kind in product(MECHANISMS, KINDS)
        )
        for name in PROVIDERS
    }
    before = {name: provider.refusals() for name, provider in providers.items()}
    post(client.port, message, *chain(*everybody.values()))
    for to in chain(*everybody.values()):
        assert client.outcome(message, to).startswith(f"status=deferred (host 127.0.0.1[127.0.0.1] said: {REFUSED} ")
        delivery = deliveries(house, to, 1)[0]
        assert (delivery["level"], delivery["reply"]) == ("warning", REFUSED)
        assert " AUTH: 535" in delivery["failures"][0]
    for name, provider in providers.items():
        refused = before[name] + len(everybody[name])
        wait_for(partial(at_least, provider, refused), f"{refused} refusals in the log of {name}")
        assert_intact(provider.delivered(), message, ())
    (passwords / "mended").write_text(PASSWORD, encoding="utf-8")
    house.signal(signal.SIGHUP)
    wait_for(lambda: house.events("reloaded"), "the new password")
    run(str(program("postqueue")), "-c", str(client.folder / "etc"), "-f")
    client.emptied()
    for name, provider in providers.items():
        assert_intact(provider.delivered(), message, everybody[name])

    assert_no_password(client.log())
