"""Whatever the pace, the server gets the same transactions, and the client the same replies (rules S3, S8, S9).

The same conversation is held lock-step, in RFC 2920's groups, and in one burst before the greeting; with servers of
every kind, eagerly and lazily.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .listener import Setup
from .server import Message, by_content
from .world import World

SERVERS = {
    "nothing": (),
    "pipelining": ("PIPELINING",),
    "chunking": ("CHUNKING",),
    "both": ("PIPELINING", "CHUNKING"),
}
GREETING = b"\r\n220 mail.example ESMTP\r\n"


def mail(number: int) -> list[bytes]:
    """Give the commands of an envelope with two recipients, of which one is unknown."""
    return [
        b"MAIL FROM:<a%d@client.example>\r\n" % number,
        b"RCPT TO:<b%d@example.org>\r\n" % number,
        b"RCPT TO:<c%d@foreign.example>\r\n" % number,
    ]


def bdat(text: bytes, *cuts: int) -> list[bytes]:
    """Give a message as BDAT commands, cut at these places."""
    edges = [0, *cuts, len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    last = len(pieces) - 1
    return [
        b"BDAT %d%s\r\n%s" % (len(piece), b" LAST" if index == last else b"", piece)
        for index, piece in enumerate(pieces)
    ]


TEXT = b"Subject: x\r\n\r\n.dot\r\nMAIL FROM:<smuggled@client.example>\r\n..\r\n.\r\nend\r\n"
CONVERSATION = [
    b"EHLO client.example\r\n",
    *mail(1),
    *bdat(TEXT, 5, 11, 12, 30),
    *mail(2),
    b"RSET\r\n",
    b"NOOP\r\n",
    *mail(3),
    *bdat(b""),
    b"VRFY b\r\n",
    b"XFROB\r\n",
    *mail(4),
    *bdat(TEXT),
    *mail(5),
    *bdat(TEXT[:-2], 2, 2, 9)[:2],
    b"RSET\r\n",
    *mail(6),
    *bdat(TEXT, len(TEXT)),
    b"QUIT\r\n",
]


def world(keywords: tuple[str, ...], *, lazy: bool, lockstep: bool = False) -> World:
    setup = Setup(
        eager=not lazy, learned=keywords if lazy else None, domains=("example.org",), errors=1000, lockstep=lockstep
    )
    made = World(setup, keywords, plan=by_content, guards_domains=True)
    made.connect()
    return made


def hold(made: World, packets: list[bytes], *, wait: bool) -> tuple[list[bytes], list[Message]]:
    """Hold a conversation, waiting after each packet or not; give the codes of its replies, and the messages."""
    if wait:
        made.wait()
        made.run()
    for packet in packets:
        made.send(packet)
        if wait:
            made.run()
    made.run()
    assert made.closed
    return replies_of(made), made.messages


def gist(messages: list[Message]) -> list[tuple[bytes, list[bytes], bytes]]:
    """Give what matters of messages: all but the server's reply."""
    return [(message.mail, message.recipients, message.text) for message in messages]


def replies_of(made: World) -> list[bytes]:
    """Give the codes of the replies, without the text that a server numbers."""
    lines = made.to_client.split(b"\r\n")
    assert lines.pop() == b""
    return [line[:3] for line in lines if line[3:4] == b" "]


def groups(commands: list[bytes]) -> list[bytes]:
    """Give the packets of a client that pipelines as RFC 2920 allows it."""
    packets = [b""]
    for command in commands:
        packets[-1] += command
        if command[:4] in (b"EHLO", b"NOOP", b"VRFY", b"QUIT") or command[:5] == b"XFROB":
            packets.append(b"")
    return [packet for packet in packets if packet]


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("keywords", SERVERS.values(), ids=SERVERS)
def test_s08_every_pace_gives_the_same(keywords: tuple[str, ...], *, lazy: bool) -> None:
    lockstep = hold(world(keywords, lazy=lazy), CONVERSATION, wait=True)
    grouped = hold(world(keywords, lazy=lazy), groups(CONVERSATION), wait=True)
    streamed = hold(world(keywords, lazy=lazy), CONVERSATION, wait=False)
    burst = hold(world(keywords, lazy=lazy), [b"".join(CONVERSATION)], wait=False)
    slow = hold(world(keywords, lazy=lazy, lockstep=True), [b"".join(CONVERSATION)], wait=False)
    replies, messages = lockstep
    assert len(replies) == 1 + len(CONVERSATION)
    assert [message.text for message in messages] == [TEXT, b"", TEXT, TEXT]
    assert [message.mail[11:13] for message in messages] == [b"a1", b"a3", b"a4", b"a6"]
    assert [message.recipients for message in messages] == [
        [b"RCPT TO:<b%d@example.org>" % number] for number in (1, 3, 4, 6)
    ]
    for other in (grouped, streamed, burst, slow):
        assert other[0] == replies
        assert gist(other[1]) == gist(messages)


def test_s08_servers_of_every_kind_get_the_same() -> None:
    """What the server can do changes nothing of what arrives, for text that ends in CR LF."""
    arrived = [
        gist(hold(world(keywords, lazy=False), [b"".join(CONVERSATION)], wait=False)[1])
        for keywords in SERVERS.values()
    ]
    assert arrived[0]
    assert arrived == arrived[:1] * len(SERVERS)


@pytest.mark.parametrize("keywords", SERVERS.values(), ids=SERVERS)
def test_s09_data_and_chunks_bring_the_same(keywords: tuple[str, ...]) -> None:
    """A message by DATA, by one chunk, and by chunks of every size."""
    begin = [b"EHLO client.example\r\n", *mail(1)]
    stuffed = TEXT.replace(b"\r\n.", b"\r\n..")
    ways = [[b"DATA\r\n", stuffed + b".\r\n"], bdat(TEXT), bdat(TEXT, *range(1, len(TEXT)))]
    arrived = [gist(hold(world(keywords, lazy=False), [*begin, *way, b"QUIT\r\n"], wait=True)[1]) for way in ways]
    assert arrived[0][0][2] == TEXT
    assert arrived == arrived[:1] * len(ways)


COMMANDS = st.one_of(
    st.sampled_from(
        [
            b"EHLO client.example\r\n",
            b"EHLO other.example\r\n",
            b"HELO client.example\r\n",
            b"RSET\r\n",
            b"NOOP\r\n",
            b"VRFY b\r\n",
            b"HELP never\r\n",
            b"XFROB\r\n",
            b"NOOP \0\r\n",
        ]
    ).map(lambda command: [command]),
    st.sampled_from([b"MAIL FROM:<a@client.example>\r\n", b"MAIL FROM:<later@client.example>\r\n"]).map(
        lambda command: [command]
    ),
    st.sampled_from(
        [b"RCPT TO:<b@example.org>\r\n", b"RCPT TO:<never@example.org>\r\n", b"RCPT TO:<b@foreign.example>\r\n"]
    ).map(lambda command: [command]),
    st.tuples(st.just(mail(1)), st.integers(0, len(TEXT)).map(lambda cut: bdat(TEXT, cut))).map(
        lambda parts: parts[0] + parts[1]
    ),
    st.integers(1, len(TEXT)).map(lambda cut: bdat(TEXT, cut)[:1]),
    st.integers(0, len(TEXT)).map(lambda cut: bdat(TEXT[:cut])),
)


@pytest.mark.parametrize("keywords", SERVERS.values(), ids=SERVERS)
@given(parts=st.lists(COMMANDS, max_size=12), lazy=st.booleans())
@settings(derandomize=True)
def test_s08_every_pace_gives_the_same_whatever_the_conversation(
    keywords: tuple[str, ...], parts: list[list[bytes]], *, lazy: bool
) -> None:
    commands = [b"EHLO client.example\r\n", *(command for part in parts for command in part), b"QUIT\r\n"]
    replies, messages = hold(world(keywords, lazy=lazy), commands, wait=True)
    assert len(replies) == 1 + len(commands)
    for packets, wait in ((groups(commands), True), (commands, False), ([b"".join(commands)], False)):
        other = hold(world(keywords, lazy=lazy), packets, wait=wait)
        assert other[0] == replies
        assert gist(other[1]) == gist(messages)
