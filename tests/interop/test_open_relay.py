"""S14, the open-relay test: a backend that trusts the proxy's address must not relay for the proxy's
clients.
"""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Serve
from .conversation import codes, conversation
from .messages import assert_intact, sample
from .postfix import Postfix, postfix

pytestmark = pytest.mark.interop

# Spellings of a foreign recipient; the last ones name a local domain, but a server to which that domain is
# its own relays them to foreign.test: routing characters in the local part (Postfix: allow_percent_hack,
# swap_bangpath, resolve_dequoted_address).
OUTRIGHT = [
    "victim@foreign.test",
    "victim@FOREIGN.test",
    "victim@sub.lab.test",
    "victim@[192.0.2.1]",
    "victim@lab.test.foreign.test",
]
ROUTED = ["@lab.test:victim@foreign.test", "@lab.test,@lab.test:victim@foreign.test"]
IN_LOCAL_PART = [
    "victim%foreign.test@lab.test",
    "foreign.test!victim@lab.test",
    '"victim@foreign.test"@lab.test',
]


@pytest.fixture(scope="module")
def trusting_postfix() -> Iterator[Postfix]:
    """Trusts loopback, and lab.test is one of its own names (mydestination), as on a small server."""
    with postfix(
        {
            "virtual_mailbox_domains": "",
            "mydestination": "lab.test",
            "local_transport": "virtual",
            "local_recipient_maps": "",
        }
    ) as server:
        yield server


@pytest.mark.parametrize("recipient", ["victim@foreign.test", *IN_LOCAL_PART])
def test_without_the_proxy_it_relays(trusting_postfix: Postfix, recipient: str) -> None:
    """Or the tests below would prove nothing."""
    message = sample()
    with smtplib.SMTP("127.0.0.1", trusting_postfix.port, "client.lab.test", timeout=30) as client:
        client.mail("sender@lab.test")
        assert client.docmd(f"RCPT TO:<{recipient}>")[0] == 250
        assert client.data(message.wire)[0] == 250
    trusting_postfix.delivered()
    assert "to=<victim@foreign.test>" in trusting_postfix.log().split(f"message-id=<{message.token}@")[1]


@pytest.mark.parametrize("recipient", OUTRIGHT + ROUTED + IN_LOCAL_PART)
def test_a_foreign_recipient_never_reaches_the_backend(
    trusting_postfix: Postfix, connect_mode: dict[str, Any], recipient: str, serve: Serve
) -> None:
    """550 5.7.1 from the proxy, in lock-step and in an early burst; a local recipient of the same
    transaction gets the message.
    """
    message = sample()
    before = trusting_postfix.log()
    front = serve(trusting_postfix.port, backend=connect_mode)
    with conversation(front.port) as client:
        assert client.reply().code == 220
        client.ask(b"EHLO client.lab.test")
        assert client.ask(b"MAIL FROM:<sender@lab.test>").code == 250
        refusal = client.ask(b"RCPT TO:<" + recipient.encode("ascii") + b">")
        assert (refusal.code, refusal.text[:5]) == (550, "5.7.1")
        assert client.ask(b"DATA").code in (503, 554)
        client.send(b"QUIT")
    with conversation(front.port) as client:
        client.send(
            b"EHLO client.lab.test",
            b"MAIL FROM:<sender@lab.test>",
            b"RCPT TO:<" + recipient.encode("ascii") + b">",
            b"RCPT TO:<recipient@lab.test>",
        )
        client.send_octets(b"BDAT %d LAST\r\n" % len(message.wire) + message.wire + b"QUIT\r\n")
        assert codes(client.replies()) == [220, 250, 250, 550, 250, 250, 221]
    assert_intact(trusting_postfix.delivered(), message)
    assert "foreign" not in trusting_postfix.log()[len(before) :]


def test_any_must_be_written_out_and_then_passes_everything(trusting_postfix: Postfix, serve: Serve) -> None:
    """`recipient_domains: any` is the administrator's word that the backend looks after itself."""
    message = sample()
    front = serve(trusting_postfix.port, listener={"recipient_domains": "any"})
    with smtplib.SMTP("127.0.0.1", front.port, "client.lab.test", timeout=30) as client:
        assert client.sendmail("sender@lab.test", ["someone@foreign.test"], message.wire) == {}
    assert_intact(trusting_postfix.delivered(), message, ("someone@foreign.test",))


def test_postmaster_without_a_domain_is_always_accepted(trusting_postfix: Postfix, serve: Serve) -> None:
    """RFC 5321, 4.5.1 and 2.3.5: the one recipient that needs no domain."""
    front = serve(trusting_postfix.port)
    with conversation(front.port) as client:
        client.send(b"EHLO client.lab.test", b"MAIL FROM:<sender@lab.test>", b"RCPT TO:<Postmaster>", b"RSET", b"QUIT")
        assert codes(client.replies()) == [220, 250, 250, 250, 250, 221]
