"""What the relay counts, bounds and shows: rules H9, H11, S3, S4, and what the logs are made of."""

from __future__ import annotations

import pytest

from smtpproxy.session.backend import Backend
from smtpproxy.session.origin import Origin
from smtpproxy.session.pipeline import Slot
from smtpproxy.session.relay import Relay
from smtpproxy.smtp.commands import BDAT, DATA, Wait

from .dialogue import Dialogue, Step, load
from .listener import Setup
from .owner import Owner
from .server import by_content
from .test_paces import SERVERS, TEXT, bdat, gist, hold, mail, world
from .world import World

KINDS = pytest.mark.parametrize("keywords", SERVERS.values(), ids=SERVERS)
EHLO = b"EHLO client.example\r\n"
QUIT = b"QUIT\r\n"
STUFFED = TEXT.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def played(name: str) -> Relay:
    """Play a dialogue that is checked elsewhere, and give the relay as it is at the end."""
    dialogue: Dialogue = load(name)
    owner = Owner(dialogue.setup)
    for step in dialogue.steps:
        step.play(owner)
    return owner.relay


# --- bounded bursts (H9) ---------------------------------------------------------------------------------------------


def connected(setup: Setup, keywords: tuple[str, ...]) -> World:
    made = World(setup, keywords, plan=by_content)
    made.connect()
    return made


@KINDS
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
def test_h09_more_commands_than_may_wait(keywords: tuple[str, ...], limit: int) -> None:
    """A burst of any length is answered, whatever the limit: reading stops, and goes on when there is room."""
    made = connected(Setup(burst_commands=limit), keywords)
    recipients = [b"RCPT TO:<b%d@example.org>\r\n" % number for number in range(60)]
    commands = [EHLO, mail(1)[0], *recipients, *bdat(TEXT, 20), QUIT]
    replies, messages = hold(made, [b"".join(commands)], wait=False)
    assert len(replies) == 1 + len(commands)
    assert len(messages[0].recipients) == 60


@KINDS
def test_h09_no_more_commands_are_read_than_may_wait(keywords: tuple[str, ...]) -> None:
    made = connected(Setup(burst_commands=5), keywords)
    made.send(EHLO + b"NOOP\r\n" * 50)
    assert made.owner.relay.stuffed
    assert len(made.owner.relay.pipeline.slots) == 5


@KINDS
@pytest.mark.parametrize("limit", [12288, 65536, 262144])
def test_h09_a_message_larger_than_may_wait(keywords: tuple[str, ...], limit: int) -> None:
    """A large message in the burst before the greeting: it waits at the client, and goes on with the server's pace."""
    made = connected(Setup(burst_octets=limit), keywords)
    text = (b"x" * 70 + b"\r\n") * 8000
    burst = b"".join([EHLO, *mail(1), *bdat(text, 300_000), *mail(2), *bdat(TEXT), QUIT])
    packets = [burst[start : start + 65536] for start in range(0, len(burst), 65536)]
    for packet in packets:
        made.send(packet)
        relay = made.owner.relay
        assert relay.frontend.waiting + (relay.backend.waiting if relay.backend else 0) <= limit + 65536
    assert relay.stuffed
    assert made.unread
    made.run()
    assert made.closed
    assert [message.text for message in made.messages] == [text, TEXT]


def test_h09_bytes_behind_auth_are_bounded() -> None:
    """What stands behind AUTH cannot be understood yet, and is not read without bound."""
    made = connected(Setup(burst_octets=12288), ())
    made.send(EHLO + b"AUTH PLAIN abcd\r\n" + b"NOOP\r\n" * 3000)
    assert made.owner.relay.stuffed
    made.run()
    assert made.to_client.count(b"250 noop\r\n") == 3000


def test_h09_mail_data_does_not_stay_here() -> None:
    """Mail data goes on as it comes; at most what may begin the end of data is kept."""
    owner = Owner(Setup())
    owner.start()
    for step in load("s10-client-vanishes-in-the-middle-of-mail-data").steps[1:-2]:
        step.play(owner)
    for _ in range(100):
        output = Step(0, "C:", b"x" * 65535 + b"\r").play(owner)
        assert 65535 <= len(output.server) <= 65537
        assert owner.relay.frontend.waiting == 0


def test_s04_replies_are_not_held_back_without_bound() -> None:
    """A group waits for its last reply, but not with more than 8 KiB of replies."""
    made = connected(Setup(), ())
    made.wait()
    made.run()
    made.send(EHLO)
    made.run()
    before = len(made.to_client)
    made.send(b"NOOP\r\n" * 1000)
    longest = 0
    while made.waiting:
        made.deliver()
        if len(made.to_client) > before:
            longest = max(longest, len(made.to_client) - before)
            before = len(made.to_client)
    assert 8192 <= longest <= 8192 + len(b"250 noop\r\n")
    assert made.owner.relay.pipeline.replies == 1002
    assert made.owner.relay.pipeline.groups == 4


# --- what is waited for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "client", "server"),
    [
        ("s08-nothing-before-the-greeting", Wait.NOTHING, Wait.GREETING),
        ("s17-quit-alone", Wait.NOTHING, Wait.NOTHING),
        ("s07-helo", Wait.COMMAND, Wait.NOTHING),
        ("s10-only-the-servers-own-verdict-counts", Wait.COMMAND, Wait.NOTHING),
    ],
)
def test_who_is_waited_for_at_the_end(name: str, client: Wait, server: Wait) -> None:
    relay = played(name)
    assert (relay.client_wait, relay.backend_wait) == (client, server)


def test_who_is_waited_for_step_by_step() -> None:
    """Each time-out of RFC 5321, 4.5.3.2 in its turn; while one side is waited for, the other is not."""
    made = connected(Setup(), ())
    seen = []

    def note() -> None:
        relay = made.owner.relay
        seen.append((relay.client_wait.name, relay.backend_wait.name))

    note()
    made.run()
    note()
    for packet in (
        EHLO,
        b"MAIL FROM:<a@client.example>\r\n",
        b"RCPT TO:<b@example.org>\r\n",
        b"DATA\r\n",
        b"Hello\r\n.",
        b"\r\n",
        b"NOOP\r\n",
        b"MAIL FROM:<a@client.example>\r\n",
        b"RCPT TO:<b@example.org>\r\n",
        b"BDAT 10 LAST\r\n1234",
    ):
        made.send(packet)
        note()
        made.run()
        note()
    made.send(b"567890")
    note()
    assert seen == [
        ("NOTHING", "GREETING"),
        ("COMMAND", "NOTHING"),
        ("NOTHING", "EHLO"),
        ("COMMAND", "NOTHING"),
        ("NOTHING", "MAIL"),
        ("COMMAND", "NOTHING"),
        ("NOTHING", "RCPT"),
        ("COMMAND", "NOTHING"),
        ("NOTHING", "DATA"),
        ("DATA_BLOCK", "NOTHING"),
        ("DATA_BLOCK", "NOTHING"),
        ("DATA_BLOCK", "NOTHING"),
        ("NOTHING", "END_OF_DATA"),
        ("COMMAND", "NOTHING"),
        ("NOTHING", "OTHER"),
        ("COMMAND", "NOTHING"),
        ("NOTHING", "MAIL"),
        ("COMMAND", "NOTHING"),
        ("NOTHING", "RCPT"),
        ("COMMAND", "NOTHING"),
        ("DATA_BLOCK", "DATA"),
        ("DATA_BLOCK", "NOTHING"),
        ("NOTHING", "END_OF_DATA"),
    ]


# --- what the logs are made of ---------------------------------------------------------------------------------------


@KINDS
def test_a_transaction_by_data(keywords: tuple[str, ...]) -> None:
    made = connected(Setup(), keywords)
    recipients = [b"RCPT TO:<b%d@example.org>\r\n" % number for number in range(7)]
    made.send(b"".join([EHLO, mail(1)[0], *recipients, b"RCPT TO:<never@example.org>\r\n", b"DATA\r\n"]))
    made.run()
    made.send(b"one\r\n..two\nthree\r\n.\r\n" + QUIT)
    made.run()
    relay = made.owner.relay
    (transaction,) = relay.ended
    assert transaction.mail == mail(1)[0]
    assert (transaction.accepted, transaction.refused) == (7, 1)
    assert transaction.recipients == recipients[:5]
    assert transaction.verb is DATA
    assert transaction.octets == len(b"one\r\n..two\nthree\r\n")
    assert transaction.bare_seen
    assert transaction.reply == made.messages[0].reply
    assert (relay.recipients_accepted, relay.recipients_refused, relay.errors) == (7, 1, 1)
    assert relay.octets == transaction.octets + len(b".\r\n")
    assert relay.command_count == 12
    assert relay.reason == "quit"
    assert relay.pace == ("pipelined" if "PIPELINING" in keywords else "lockstep")


@KINDS
def test_transactions_by_chunks(keywords: tuple[str, ...]) -> None:
    made = connected(Setup(), keywords)
    text = b"one\r\n.two\nthree"
    made.send(b"".join([EHLO, *mail(1)[:2], *bdat(text, 3, 4), *mail(2)[:2], *bdat(b"")]))
    made.run()
    made.send(b"".join([*mail(3)[:2], *bdat(text, 5)[:1], b"RSET\r\n", mail(4)[0], QUIT]))
    made.run()
    first, second, third, fourth = made.owner.relay.ended
    assert (first.verb, first.octets, first.reply) == (BDAT, len(text), made.messages[0].reply)
    assert first.bare_seen == ("CHUNKING" not in keywords)
    assert (second.verb, second.octets, second.reply) == (BDAT, 0, made.messages[1].reply)
    assert (third.mail, third.octets, third.reply) == (mail(3)[0], 5, b"")
    assert (fourth.mail, fourth.verb, fourth.reply) == (mail(4)[0], None, b"")
    assert made.owner.relay.octets == len(text) + 5


def test_a_transaction_that_we_refuse() -> None:
    (transaction,) = played("h02-nul-in-mail-data").ended
    assert transaction.reply == b"554 5.6.11 NUL in message\r\n"
    assert transaction.verb is DATA


def test_a_transaction_whose_server_is_lost() -> None:
    (transaction,) = played("s10-end-of-data-never-answered").ended
    assert transaction.reply == b"421 4.4.2 proxy.example Backend connection lost\r\n"


def test_a_transaction_whose_client_is_lost() -> None:
    (transaction,) = played("s10-client-vanishes-in-the-middle-of-mail-data").ended
    assert transaction.reply == b""


@pytest.mark.parametrize(
    ("early", "packets", "turns", "replies"),
    [
        (False, [EHLO, *mail(1)[:2], b"DATA\r\n", STUFFED + QUIT], 6, 7),
        (False, [EHLO, b"".join([*mail(1)[:2], b"DATA\r\n"]), STUFFED + QUIT], 4, 7),
        (True, [b"".join([EHLO, *mail(1)[:2], b"DATA\r\n"]), STUFFED + QUIT], 2, 7),
        (True, [b"".join([EHLO, *mail(1)[:2], *bdat(TEXT), QUIT])], 1, 6),
    ],
    ids=["lock-step", "pipelined", "early, DATA", "early, BDAT"],
)
def test_turns(packets: list[bytes], turns: int, replies: int, *, early: bool) -> None:
    """The round trips of a message by the way it is sent, without the one that the connection takes: 7, 5, 3 and 2."""
    made = connected(Setup(), ("PIPELINING", "CHUNKING"))
    if not early:
        made.run()
    for packet in packets:
        made.send(packet)
        made.run()
    relay = made.owner.relay
    assert made.closed
    assert len(made.messages) == 1
    assert relay.early == early
    assert relay.turns == turns
    assert relay.pipeline.replies == replies


def test_turns_are_not_packets() -> None:
    """A command that comes octet by octet is one turn."""
    made = connected(Setup(), ())
    made.run()
    for octet in (b"N", b"O", b"O", b"P", b"\r", b"\n"):
        made.send(octet)
    made.run()
    assert made.owner.relay.turns == 2


def test_violations_are_counted() -> None:
    assert played("s05-bytes-behind-data-in-one-packet").violations == 1
    assert played("s05-bytes-behind-data-that-was-passed-on").violations == 1
    assert played("s05-auth-with-bytes-waiting-at-the-challenge").violations == 1
    assert played("h04-refused-data-with-bytes-in-the-kernel").violations == 1


def test_the_faults_of_a_server_are_kept_for_the_log() -> None:
    assert played("s19-greeting-421").backend_fault == "greeting: b'421 4.3.2 Busy\\r\\n'"
    assert played("s19-server-lost-or-late-before-the-greeting").backend_fault == "connection reset"


# --- transcripts (H11) -----------------------------------------------------------------------------------------------


def transcript(name: str) -> list[tuple[str, bytes]]:
    """Play a dialogue, and give what the trace was told."""
    dialogue = load(name)
    owner = Owner(dialogue.setup)
    lines: list[tuple[str, bytes]] = []
    for step in dialogue.steps:
        step.play(owner)
        if step.event == "next client":
            owner.relay.trace = lambda direction, line: lines.append((direction, line))
    return lines


def test_h11_a_transcript_has_everything() -> None:
    expected = load("s07-ehlo-refused-helo-instead")
    lines = transcript("s07-ehlo-refused-helo-instead")
    for direction in ("S:", "B<"):
        sent = b"".join(step.octets for step in expected.steps if step.event == direction)
        sent += b"".join(step.expected.client for step in expected.steps if direction == "S:")
        assert b"".join(line for mark, line in lines if mark == direction) == sent
    assert [line for mark, line in lines if mark == "C:"] == [
        EHLO,
        b"MAIL FROM:<a@client.example>\r\n",
        b"RCPT TO:<b@example.org>\r\n",
        b"BDAT 4 LAST\r\n",
        b"(2 octets of mail data)\r\n",
        b"(2 octets of mail data)\r\n",
    ]
    assert [line for mark, line in lines if mark == "B>"] == [
        EHLO,
        b"HELO client.example\r\n",
        b"MAIL FROM:<a@client.example>\r\n",
        b"RCPT TO:<b@example.org>\r\n",
        b"DATA\r\n",
        b".\r\n",
    ]


def test_h11_what_we_say_for_ourselves_is_in_the_transcript() -> None:
    lines = transcript("s18-kept-session-dirty")
    assert ("B>", b"RSET\r\n") in lines
    lines = transcript("s18-ehlo-refused-helo-instead")
    assert [line for mark, line in lines if mark == "B>"][:2] == [EHLO, b"HELO client.example\r\n"]


SECRETS = [
    [b"AUTH PLAIN c2VjcmV0\r\n"],
    [b"auth plain c2VjcmV0\r\n"],
    [b" AUTH PLAIN c2VjcmV0\r\n"],
    [b"AUTH\tPLAIN c2VjcmV0\r\n"],
    [b"AUTH PLAIN c2VjcmV0\0\r\n"],
    [b"AUTH PLAIN c2VjcmV0" + b"x" * 13000 + b"\r\n"],
    [b"AUTH LOGIN\r\n", b"c2VjcmV0\r\n", b"c2VjcmV0\r\n"],
    [b"AUTH LOGIN\r\n", b"c2VjcmV0\x01\r\n"],
    [b"AUTH LOGIN\r\n", b"c2VjcmV0" + b"x" * 13000 + b"\r\n"],
    [b"AUTH LOGIN\r\n", b"\x16c2VjcmV0\r\n"],
    [b"AUTH LOGIN never\r\n", b"c2VjcmV0\r\n", b"c2VjcmV0\r\n"],
    [b"AUTH LOGIN never\r\nc2VjcmV0\r\nc2VjcmV0\r\n"],
]


@pytest.mark.parametrize("packets", SECRETS, ids=range(len(SECRETS)))
def test_h11_no_secrets_in_a_transcript(packets: list[bytes]) -> None:
    """Not in any form, not of an exchange that went wrong, on neither side."""
    made = connected(Setup(), ("AUTH LOGIN PLAIN",))
    lines: list[tuple[str, bytes]] = []
    made.owner.relay.trace = lambda direction, line: lines.append((direction, line))
    for packet in [EHLO, *packets, b"NOOP\r\n"]:
        made.run()
        if not made.closed:
            made.send(packet)
    made.run()
    shown = b"".join(line for _, line in lines)
    assert b"c2VjcmV0" not in shown
    assert ("C:", EHLO) in lines
    assert sum(direction == "C:" for direction, _ in lines) >= 2
    assert made.closed or ("C:", b"NOOP\r\n") in lines


def test_h11_a_commands_line_is_shown_as_it_is_where_there_is_no_secret() -> None:
    lines = transcript("h01-bare-line-endings-in-commands")
    assert ("C:", b"MAIL FROM:<a\0@client.example>\r\n") in lines


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "s17-quit-alone",
        "s10-client-vanishes-in-the-middle-of-mail-data",
        "h08-unasked-421",
        "s06-handshake-fails",
        "s10-client-vanishes-in-the-servers-handshake",
        "s10-client-vanishes-in-its-look-up",
    ],
)
def test_events_that_come_too_late_change_nothing(name: str) -> None:
    """What happens to connections that are being closed is nobody's business, in whatever order it is told."""
    relay = played(name)
    reason = relay.reason
    assert relay.over
    kept = Backend(lockstep=False)
    for event in (
        lambda: relay.client_received(EHLO, 0.0),
        lambda: relay.client_quiet(0.0),
        lambda: relay.client_eof(0.0),
        lambda: relay.client_lost("reset"),
        relay.client_timed_out,
        lambda: relay.client_identified(Origin("192.0.2.7", 25, None, b"client.example")),
        lambda: relay.client_refused("no room"),
        lambda: relay.backend_secured(0.0),
        lambda: relay.backend_received(b"250 2.0.0 Late\r\n", 0.0),
        lambda: relay.backend_borrowed(kept),
        lambda: relay.backend_lost("reset"),
        lambda: relay.backend_failed("no server"),
        relay.backend_timed_out,
        relay.shut_down,
        relay.end_now,
        relay.internal_error,
    ):
        event()
        assert (relay.take_replies(), relay.backend_out, relay.actions) == (b"", [], [])
    assert relay.over
    assert relay.reason == reason


def test_what_a_debugger_shows() -> None:
    slot = Slot(DATA, b"DATA\r\n")
    assert repr(slot) == "Slot(b'DATA', b'')"
    assert repr(DATA) == "<DATA>"


# --- keeping sessions (S18) ------------------------------------------------------------------------------------------


def test_s18_uses_are_counted_and_the_kept_session_serves_again_and_again() -> None:
    made = World(Setup(eager=False, reuse=True), ("PIPELINING", "CHUNKING"))
    for number in range(5):
        made.connect()
        made.send(b"".join([EHLO, *mail(number)[:2], *bdat(TEXT), QUIT]))
        made.run()
        assert made.closed
    assert len(made.servers) == 1
    assert made.kept is made.servers[0]
    assert len(made.messages) == 5
    assert made.owner.kept is not None
    assert made.owner.kept.uses == 5
    assert made.servers[0].commands.count(EHLO.strip()) == 1


def test_s18_what_is_learned_is_the_servers_name_and_keywords() -> None:
    made = World(Setup(eager=False), ("SIZE 1000", "XCLIENT ADDR", "STARTTLS"))
    made.connect()
    made.send(EHLO)
    made.run()
    learned = made.owner.relay.learned
    assert learned is not None
    assert learned.host == b"mail.example"
    assert learned.extensions.keywords == {b"SIZE"}
    assert learned.extensions.dropped == [b"XCLIENT", b"STARTTLS"]


def test_s14_every_transaction_of_the_whole_conversation_is_ours() -> None:
    """The referee in server.py has seen all of them; here is that it was asked to."""
    made = world((), lazy=False)
    _, messages = hold(made, [b"".join([EHLO, *mail(1), *bdat(TEXT), QUIT])], wait=False)
    assert made.guards_domains
    assert gist(messages) == [(mail(1)[0].strip(), [mail(1)[1].strip()], TEXT)]
    assert made.owner.relay.relay_refused == 1
