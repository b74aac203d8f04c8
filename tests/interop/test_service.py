"""Signals: a graceful stop and a reload, with mail under way."""

from __future__ import annotations

import signal

import pytest
import yaml

from .conversation import codes, conversation, dot_stuffed
from .lab import is_listening, wait_for
from .messages import assert_intact, sample
from .postfix import Postfix
from .proxy import proxy

pytestmark = pytest.mark.interop

ENVELOPE = (b"EHLO client.lab.test", b"MAIL FROM:<sender@lab.test>", b"RCPT TO:<recipient@lab.test>")


@pytest.mark.parametrize("form", ["DATA", "BDAT"])
def test_sigterm_lets_a_transaction_end(postfix_plain: Postfix, form: str) -> None:
    """Nobody new is let in, the message is finished, an idle session gets 421, the exit status is 0."""
    message = sample(size=300_000)
    octets = dot_stuffed(message.wire) if form == "DATA" else message.wire
    with proxy(postfix_plain.port) as front, conversation(front.port) as busy, conversation(front.port) as idle:
        assert idle.reply().code == 220
        busy.send(*ENVELOPE)
        assert [busy.reply().code for _ in range(4)] == [220, 250, 250, 250]
        if form == "DATA":
            assert busy.ask(b"DATA").code == 354
        else:
            busy.send(b"BDAT %d LAST" % len(octets))
        busy.send_octets(octets[:100_000])
        front.signal(signal.SIGTERM)
        assert codes(idle.replies()) == [421]
        wait_for(lambda: not is_listening(front.port), "the end of listening")
        busy.send_octets(octets[100_000:])
        assert busy.reply().code == 250
        busy.socket.close()
        idle.socket.close()
        front.ended()
    assert_intact(postfix_plain.delivered(), message)


def test_sigterm_twice(postfix_plain: Postfix) -> None:
    """The second one, while a transaction is still let end, leaves no traceback in the log."""
    with proxy(postfix_plain.port) as front, conversation(front.port) as busy:
        busy.send(*ENVELOPE)
        assert [busy.reply().code for _ in range(4)] == [220, 250, 250, 250]
        front.signal(signal.SIGTERM)
        wait_for(lambda: front.events("stopping"), "the first signal to arrive")
        front.signal(signal.SIGTERM)
        busy.socket.close()
        front.ended()


def test_sighup_changes_the_configuration_of_new_sessions(postfix_plain: Postfix) -> None:
    """A session that is under way keeps what it began with; a configuration with a mistake changes nothing."""
    foreign = b"RCPT TO:<somebody@foreign.test>"

    def greeted_as_new() -> bool:
        with conversation(front.port) as client:
            client.send(*ENVELOPE[:2], foreign, b"QUIT")
            return codes(client.replies()) == [220, 250, 250, 250, 221]

    with proxy(postfix_plain.port) as front, conversation(front.port) as old:
        old.send(*ENVELOPE[:2])
        assert [old.reply().code for _ in range(3)] == [220, 250, 250]
        file = front.folder / "smtpproxy.yaml"
        settings = front.configuration()
        settings["listeners"][0]["recipient_domains"] = ["lab.test", "foreign.test"]
        file.write_text(yaml.safe_dump(settings), encoding="ascii")
        assert not greeted_as_new()
        front.signal(signal.SIGHUP)
        wait_for(greeted_as_new, "the new configuration")
        assert old.ask(foreign).code == 550
        file.write_text("listeners: 17\n", encoding="ascii")
        front.signal(signal.SIGHUP)
        wait_for(lambda: any(event["level"] == "error" for event in front.events()), "the complaint")
        assert greeted_as_new()
