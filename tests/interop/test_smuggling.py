"""S11 with servers that are not immune: a bare line end never ends a message, so no second one is smuggled in."""

from __future__ import annotations

import pytest

from .conftest import Backend, Serve
from .conversation import Conversation, conversation
from .messages import sample
from .postfix import Postfix

pytestmark = pytest.mark.interop

# What some server or other takes for the end of data; the first three work with Postfix before 3.9.
FALSE_ENDS = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r\n.\r\r\n"]


def bait(token: str, false_end: bytes) -> bytes:
    """A message that contains a false end of data and, behind it, a transaction from somebody else."""
    return (
        b"Subject: bait\r\nX-Token: " + token.encode() + b"\r\n\r\nfirst" + false_end + b"MAIL FROM:<evil@lab.test>\r\n"
        b"RCPT TO:<target@lab.test>\r\nDATA\r\nX-Token: smuggled" + token.encode() + b"\r\n\r\nsecond\r\n"
    )


def envelope(client: Conversation) -> None:
    """Everything up to the message, politely."""
    assert client.reply().code == 220
    for line in (b"EHLO client.lab.test", b"MAIL FROM:<sender@lab.test>", b"RCPT TO:<recipient@lab.test>"):
        assert client.ask(line).code == 250


def arrived(server: Backend, token: str) -> list[str]:
    """The recipients of the messages that came of it."""
    return [stored.recipient for stored in server.delivered() if token.encode() in stored.header(b"X-Token")]


@pytest.mark.parametrize("false_end", FALSE_ENDS[:3], ids=repr)
def test_without_the_proxy_a_message_is_smuggled(postfix_plain: Postfix, false_end: bytes) -> None:
    """Or the tests below would prove nothing."""
    token = sample().token
    with conversation(postfix_plain.port) as client:
        envelope(client)
        assert client.ask(b"DATA").code == 354
        client.send_octets(bait(token, false_end) + b".\r\nQUIT\r\n")
        client.replies()
    assert sorted(arrived(postfix_plain, token)) == ["recipient@lab.test", "target@lab.test"]


@pytest.mark.parametrize("false_end", FALSE_ENDS, ids=repr)
@pytest.mark.parametrize("form", ["DATA", "BDAT"])
def test_normalized_it_stays_one_message(any_backend: Backend, serve: Serve, form: str, false_end: bytes) -> None:
    """The default: the bait arrives whole, as text."""
    token = sample().token
    message = bait(token, false_end)
    with conversation(serve(any_backend.port).port) as client:
        envelope(client)
        if form == "DATA":
            assert client.ask(b"DATA").code == 354
            client.send_octets(message + b".\r\n")
        else:
            client.send_octets(b"BDAT %d LAST\r\n" % len(message) + message)
        assert client.reply().code == 250
        assert client.ask(b"QUIT").code == 221
    assert arrived(any_backend, token) == ["recipient@lab.test"]
    (stored,) = [found for found in any_backend.delivered() if token.encode() in found.header(b"X-Token")]
    assert b"MAIL FROM:<evil@lab.test>" in stored.body
    assert stored.body.endswith(b"second\n")


@pytest.mark.parametrize("false_end", FALSE_ENDS, ids=repr)
def test_rejected_nothing_arrives(postfix_plain: Postfix, serve: Serve, false_end: bytes) -> None:
    """`bare_line_endings: reject`: 550 5.6.11 to the true end of data, and the session goes on."""
    token = sample().token
    front = serve(postfix_plain.port, listener={"bare_line_endings": "reject"})
    with conversation(front.port) as client:
        envelope(client)
        assert client.ask(b"DATA").code == 354
        client.send_octets(bait(token, false_end) + b".\r\n")
        reply = client.reply()
        assert (reply.code, reply.text[:6]) == (550, "5.6.11")
        assert client.ask(b"QUIT").code == 221
    assert arrived(postfix_plain, token) == []
