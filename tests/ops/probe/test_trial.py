"""Early flights that are really sent: never a message, replies compared with polite ones, TLS as it is offered."""

from __future__ import annotations

from typing import Any

import pytest
from probeserver import MailServer

from smtpproxy.ops.probe.facts import Found, Trial
from smtpproxy.ops.probe.verdicts import is_fine

RECIPIENT = "postmaster@example.org"
ENVELOPE = ["MAIL FROM:<>", f"RCPT TO:<{RECIPIENT}>", "RSET", "QUIT"]
EHLO = "EHLO me.example.net"
IN_TLS = [f"*{command}" for command in (EHLO, *ENVELOPE)]


def trial_of(found: Found) -> Trial:
    trial = found.hosts[0].servers[0].trial
    assert trial is not None
    return trial


def test_in_clear(do: Any) -> None:
    with MailServer(early=[3]) as mx:
        found = do(f"127.0.0.1:{mx.port}", recipient=RECIPIENT)
    trial = trial_of(found)
    assert (trial.early_clear, trial.early_inside, trial.skipped, trial.problems) == (True, False, "", ())
    codes = [("greeting", 220), ("EHLO", 250), ("MAIL", 250), ("RCPT", 250), ("RSET", 250), ("QUIT", 221)]
    assert [(answer.command, answer.code) for answer in trial.answers] == codes
    assert trial.polite == trial.answers
    assert trial.seconds is not None
    assert trial.polite_seconds is not None
    visit, polite, early = mx.sessions
    assert visit.commands == [EHLO, "QUIT"]
    assert (polite.before_greeting, polite.commands) == (b"", [EHLO, *ENVELOPE])
    assert early.before_greeting == "".join(f"{line}\r\n" for line in (EHLO, *ENVELOPE[:-1])).encode()
    assert early.commands == polite.commands
    assert is_fine(found)


def test_inside_tls(do: Any, pki: Any) -> None:
    """The envelope never leaves in clear where TLS is offered."""
    with MailServer(pair=pki.pair(["127.0.0.1"]), early=[3]) as mx:
        found = do(f"127.0.0.1:{mx.port}", recipient=RECIPIENT)
    trial = trial_of(found)
    assert (trial.early_clear, trial.early_inside, trial.problems) == (True, True, ())
    _, polite, early = mx.sessions
    assert (polite.before_greeting, polite.commands) == (b"", [EHLO, "STARTTLS", *IN_TLS])
    assert early.before_greeting == f"{EHLO}\r\nSTARTTLS\r\n".encode()
    assert early.commands == polite.commands
    assert is_fine(found)


def test_early_in_clear_only(do: Any, pki: Any) -> None:
    """C2: what is offered in clear says nothing of TLS."""
    with MailServer(pair=pki.pair(["127.0.0.1"]), inside=[b"PIPELINING"]) as mx:
        trial = trial_of(do(f"127.0.0.1:{mx.port}", recipient=RECIPIENT))
    assert (trial.early_clear, trial.early_inside, trial.problems) == (True, False, ())
    assert mx.sessions[2].commands == [EHLO, "STARTTLS", *IN_TLS]


def test_early_inside_only(do: Any, pki: Any) -> None:
    with MailServer(pair=pki.pair(["127.0.0.1"]), clear=[b"PIPELINING"]) as mx:
        trial = trial_of(do(f"127.0.0.1:{mx.port}", recipient=RECIPIENT))
    assert (trial.early_clear, trial.early_inside, trial.problems) == (False, True, ())
    assert [session.before_greeting for session in mx.sessions] == [b"", b"", b""]


def test_where_it_is_not_offered_nothing_is_sent(do: Any) -> None:
    with MailServer(clear=[b"PIPECONNECT"]) as mx:  # without PIPELINING
        found = do(f"127.0.0.1:{mx.port}", recipient=RECIPIENT)
    assert trial_of(found).skipped == "early pipelining is not offered"
    assert len(mx.sessions) == 1
    assert is_fine(found)


def test_a_recipient_that_is_refused_both_times(do: Any) -> None:
    with MailServer(early=[3], RCPT=b"550 5.1.1 nobody\r\n") as mx:
        trial = trial_of(do(f"127.0.0.1:{mx.port}", recipient=RECIPIENT))
    assert trial.problems == ()
    assert [answer.text for answer in trial.answers if answer.command == "RCPT"] == ["550 5.1.1 nobody"]


@pytest.mark.parametrize(
    ("replies", "problems"),
    [
        ({b"RCPT": b"550 5.1.1 no\r\n"}, ["RCPT got 550 early, and 250 politely"]),
        ({b"MAIL": b""}, ["it closed the connection (replies so far: 2)"]),
        ({b"greeting": b"554 5.5.0 you talk early\r\n"}, ["greeting got 554 5.5.0 you talk early (replies so far: 1)"]),
        ({b"RSET": b"503 5.5.1 no\r\n"}, ["RSET got 503 5.5.1 no"]),
        ({b"QUIT": b"221 bye\r\n250 surplus\r\n"}, ["it spoke unasked: 250 surplus"]),
        (
            {b"RCPT": b"421 4.3.2 later\r\n"},
            ["RCPT got 421 4.3.2 later (replies so far: 4)", "RCPT got 421 early, and 250 politely"],
        ),
        (
            {b"EHLO": b"250-mx\r\n250 PIPELINING\r\n"},
            ["the reply to EHLO is another one than before"],
        ),
    ],
)
def test_what_is_not_as_it_must_be(do: Any, replies: dict[bytes, bytes], problems: list[str]) -> None:
    with MailServer(early=[3], early_replies=replies) as mx:
        found = do(f"127.0.0.1:{mx.port}", recipient=RECIPIENT)
    assert list(trial_of(found).problems) == problems
    assert not is_fine(found)


def test_a_server_that_does_not_answer_early_talk(do: Any) -> None:
    """It reads, and keeps its greeting to itself."""
    with MailServer(early=[3], early_replies={b"greeting": b"220-wait\r\n"}) as mx:
        trial = trial_of(do(f"127.0.0.1:{mx.port}", recipient=RECIPIENT, patience=1.0))
    assert trial.seconds is None
    assert trial.polite_seconds is not None


def test_no_envelope_in_clear_where_starttls_does_not_work(do: Any, pki: Any) -> None:
    """The visit has shown it, so that nothing is tried."""
    with MailServer(pair=pki.pair(), STARTTLS=b"454 4.7.0 no\r\n") as mx:
        found = do(f"127.0.0.1:{mx.port}", recipient=RECIPIENT)
    assert found.hosts[0].servers[0].trial is None
    assert len(mx.sessions) == 1


def test_without_tls_the_envelope_is_tried_in_clear(do: Any, pki: Any) -> None:
    with MailServer(pair=pki.pair(), early=[3]) as mx:
        trial = trial_of(do(f"127.0.0.1:{mx.port}", recipient=RECIPIENT, tls=False))
    assert trial.problems == ()
    assert mx.sessions[2].commands == [EHLO, *ENVELOPE]


def test_a_server_that_does_not_pipeline_in_clear(do: Any, pki: Any) -> None:
    with MailServer(pair=pki.pair(["127.0.0.1"]), clear=[], inside=[b"PIPELINING", b"PIPE_CONNECT"]) as mx:
        trial = trial_of(do(f"127.0.0.1:{mx.port}", recipient=RECIPIENT))
    assert (trial.early_clear, trial.early_inside, trial.problems) == (False, True, ())


def test_a_server_that_has_gone_in_the_meantime(do: Any) -> None:
    with MailServer(most=1) as mx:
        found = do(f"127.0.0.1:{mx.port}", recipient=RECIPIENT)
    polite, early = trial_of(found).problems
    assert polite.startswith("polite: cannot connect: ")
    assert early.startswith("cannot connect: ")
    assert not is_fine(found)
