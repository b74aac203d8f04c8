"""The table of what may happen to a message: ways to send it, ways to speak with the remote, faults; and the verdict.

``cases`` gives all combinations, ``play`` plays one, and ``judge`` says what must hold in each (rules C3 to C7, C13,
C14): no message is lost, doubled, or reported otherwise than it fared, and the cache learns what it should.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

from smtpproxy.session.outbound.notes import Finding
from smtpproxy.session.outbound.target import TlsWish

from .owner import Connection
from .server import EARLY_KINDS, NO_FAULT, Fault, Server
from .setup import USUAL, Setup
from .world import World

TEXT = b"Subject: x\r\n\r\nhello\r\n.dot\r\n"
STUFFED = b"Subject: x\r\n\r\nhello\r\n..dot\r\n.\r\n"
PLAIN = tuple(word for word in USUAL if word != "CHUNKING")


class Way(NamedTuple):
    """How a client sends its message."""

    recipients: tuple[bytes, ...] = (b"b@one.example",)
    lmtp: bool = False
    bdat: bool = False
    burst: bool = True
    """Whether it sends as much at once as it may, or one command at a time."""
    chunks: int = 1


WAYS = {
    "DATA": Way(),
    "DATA in lock-step": Way(burst=False),
    "DATA, two recipients": Way((b"b@one.example", b"c@one.example")),
    "BDAT": Way(bdat=True),
    "BDAT, two recipients": Way((b"b@one.example", b"c@one.example"), bdat=True),
    "BDAT in lock-step": Way(bdat=True, burst=False, chunks=2),
    "LMTP": Way((b"b@one.example", b"d@two.example", b"c@one.example"), lmtp=True),
    "LMTP with BDAT": Way((b"b@one.example", b"d@two.example"), lmtp=True, bdat=True),
}


class Pace(NamedTuple):
    """What is known of the remote, and how it is spoken to."""

    known: tuple[str, ...] | None = None
    live: tuple[str, ...] = USUAL
    confirmed: int = 3
    lockstep: bool = False
    knows_ehlo: bool = True


PACES = {
    "early, the message rides": Pace(USUAL),
    "early": Pace(USUAL, confirmed=0),
    "early, DATA": Pace(PLAIN, PLAIN),
    "pipelined": Pace(),
    "pipelined, DATA": Pace(live=PLAIN),
    "lock-step": Pace(lockstep=True),
    "no EHLO": Pace(live=(), knows_ehlo=False),
}
CHANGED = {
    "the keyword is gone": Pace(USUAL, USUAL[:-1]),
    "CHUNKING is gone": Pace(USUAL, PLAIN),
    "PIPELINING is gone": Pace(USUAL, USUAL[1:]),
    "everything is gone": Pace(USUAL, (), knows_ehlo=False),
    "SIZE is smaller": Pace(USUAL, ("PIPELINING", "CHUNKING", "SIZE 10", "8BITMIME", "PIPECONNECT")),
    "SIZE is gone": Pace(USUAL, ("PIPELINING", "CHUNKING", "8BITMIME", "PIPECONNECT")),
    "CHUNKING is new": Pace(PLAIN, USUAL),
    "an unknown word": Pace(USUAL, (*USUAL, "XNEW")),
}
TRANSPORTS = {
    "clear": TlsWish.NONE,
    "STARTTLS": TlsWish.OPPORTUNISTIC,
    "STARTTLS required": TlsWish.VERIFIED,
    "implicit TLS": TlsWish.IMPLICIT,
}
KINDS = ("lost", "cut", "stall", "4xx", "5xx", "421", "garbage", "surplus", "3xx", "half", "unhanded")
KINDS_WHERE_CHANGED = ("lost", "cut", "4xx", "unhanded")
TRANSACTION = frozenset({b"MAIL", b"RCPT", b"DATA", b"BDAT", b"end of data"})
NO_HARM = ("3xx", b"DATA")
SESSION_FAULTS = frozenset({"lost", "cut", "stall", "421", "garbage", "surplus", "3xx", "half", *EARLY_KINDS})


@dataclass(frozen=True)
class Case:
    """One combination."""

    way: Way
    pace: Pace
    tls: TlsWish
    fault: Fault = NO_FAULT
    together: bool = True
    messages: int = 1
    always: bool = False
    """Whether the fault hits every session, not only the first one with the first destination."""
    session_error: bool = False
    tls_fails: int = 0

    def setup(self) -> Setup:
        """Give the settings."""
        pace = self.pace
        has_tls = self.tls is not TlsWish.NONE
        starttls = has_tls and self.tls is not TlsWish.IMPLICIT
        known = pace.known
        return Setup(
            lmtp=self.way.lmtp,
            tls=self.tls,
            clear=known and (*known, "STARTTLS") if starttls else known,
            inside=known if has_tls else None,
            confirmed=pace.confirmed,
            lockstep=pace.lockstep,
            flush="session-error" if self.session_error else "any-error",
        )

    def server(self, connection: Connection, fault: Fault) -> Server:
        """Give the server of a connection."""
        pace = self.pace
        starttls = self.tls in (TlsWish.OPPORTUNISTIC, TlsWish.VERIFIED)
        remote = connection.remote
        return Server(
            (*pace.live, "STARTTLS") if starttls else pace.live,
            pace.live,
            fault,
            implicit=self.tls is TlsWish.IMPLICIT,
            wants_tls=self.tls is TlsWish.VERIFIED,
            may_be_early=remote._may_be_early and any(a and a.early for a in remote.assumptions.values()),
            lockstep=pace.lockstep,
            knows_ehlo=pace.knows_ehlo,
            goes_ahead=pace.live == PLAIN,
        )


@dataclass
class Story:
    """What came of a case."""

    case: Case
    world: World
    verdicts: list[dict[bytes, bytes]] = field(default_factory=list)
    """By message: the reply that each recipient has in the end."""
    heard: list[bytes] = field(default_factory=list)

    def servers(self, domain: str) -> list[tuple[Connection, Server]]:
        """Give the sessions with a destination, in order."""
        return [
            (connection, self.world.servers[connection.number])
            for connection in self.world.owner.connections
            if connection.target.host.endswith(domain)
        ]


def play(case: Case) -> Story:
    """Play a case from the greeting to QUIT."""
    hit: list[str] = []

    def serve(connection: Connection) -> Server:
        first = not hit and connection.target.host.endswith("one.example")
        if first:
            hit.append(connection.target.host)
        return case.server(connection, case.fault if first or case.always else NO_FAULT)

    world = World(case.setup(), serve, together=case.together, tls_fails=case.tls_fails)
    story = Story(case, world)
    (greeting,) = world.hear(1)
    story.heard += [greeting, *world.say(b"LHLO c\r\n" if case.way.lmtp else b"EHLO c\r\n", 1)]
    for number in range(case.messages):
        _send(story, case.way, number)
    story.heard += world.say(b"QUIT\r\n", 1)
    assert world.owner.closed
    return story


def _send(story: Story, way: Way, number: int) -> None:
    world = story.world
    mail = b"MAIL FROM:<a%d@client.example>\r\n" % number
    rcpts = [b"RCPT TO:<%s>\r\n" % recipient for recipient in way.recipients]
    size = -(-len(TEXT) // way.chunks)
    pieces = [TEXT[start : start + size] for start in range(0, len(TEXT), size)]
    chunks = [b"BDAT %d\r\n%s" % (len(piece), piece) for piece in pieces]
    chunks[-1] = b"BDAT %d LAST\r\n%s" % (len(pieces[-1]), pieces[-1])
    if way.burst and way.bdat and not way.lmtp:
        replies = world.say(b"".join([mail, *rcpts, *chunks]), 1 + len(rcpts) + len(chunks))
        story.heard += replies
        answers, last = replies[1 : 1 + len(rcpts)], replies[-1:]
    elif way.burst and not way.bdat:
        replies = world.say(b"".join([mail, *rcpts, b"DATA\r\n"]), 2 + len(rcpts))
        story.heard += replies
        answers, last = replies[1:-1], replies[-1:]
    else:
        story.heard += world.say(mail, 1)
        answers = [world.say(rcpt, 1)[0] for rcpt in rcpts]
        story.heard += answers
        last = [] if way.bdat else world.say(b"DATA\r\n", 1)
        story.heard += last
    accepted = [r for r, answer in zip(way.recipients, answers, strict=True) if answer[:1] == b"2"]
    if not last:
        for chunk in chunks[:-1]:
            story.heard += world.say(chunk, 1)
        last = world.say(chunks[-1], max(len(accepted), 1) if way.lmtp else 1)
    elif last[0][:3] == b"354":
        last = world.say(STUFFED, max(len(accepted), 1) if way.lmtp else 1)
    story.heard += last
    verdicts = dict(zip(way.recipients, answers, strict=True))
    verdicts.update(zip(accepted, last if way.lmtp else last * len(accepted), strict=False))
    if not accepted:
        assert last[0][:1] in b"45", "S17: a success for nobody"
    story.verdicts.append(verdicts)


@lru_cache(maxsize=2000)
def replies_of(case: Case) -> int:
    """Say how many replies the first session has where nothing goes wrong."""
    return play(replace(case, fault=NO_FAULT)).servers("one.example")[0][1].count


def cases(way: Way, tls: TlsWish, paces: dict[str, Pace]) -> Iterator[Case]:
    """Give all combinations with a way and a transport."""
    kinds = KINDS if paces is PACES else KINDS_WHERE_CHANGED
    for pace in paces.values():
        plain = Case(way, pace, tls)
        yield plain
        for at in range(replies_of(plain)):
            for number, kind in enumerate(kinds):
                hit = replace(plain, fault=Fault(kind, at), together=(at + number) % 2 == 0)
                yield hit
                if number % 3 == at % 3:
                    yield replace(hit, always=True, together=not hit.together)
                if kind in ("4xx", "5xx") and pace.known and paces is PACES:
                    yield replace(hit, session_error=True)
        for kind in EARLY_KINDS:
            yield replace(plain, fault=Fault(kind, 0))
        if tls is not TlsWish.NONE:
            yield replace(plain, tls_fails=1)
            yield replace(plain, tls_fails=9)


def cases_of_kept_sessions(way: Way) -> Iterator[Case]:
    """Give all combinations with a fault in the second transaction of a session."""
    for tls in (TlsWish.NONE, TlsWish.OPPORTUNISTIC):
        for pace in PACES.values():
            plain = Case(way, pace, tls, messages=2)
            yield plain
            for at in range(replies_of(replace(plain, messages=1)), replies_of(plain)):
                for number, kind in enumerate(KINDS):
                    yield replace(plain, fault=Fault(kind, at), together=(at + number) % 2 == 0)


# --- the verdict -----------------------------------------------------------------------------------------------------


def judge(story: Story) -> None:
    """See that what must hold does."""
    for number, verdicts in enumerate(story.verdicts):
        for recipient, verdict in verdicts.items():
            _judge_recipient(story, number, recipient, verdict)
    for connections in (story.servers("one.example"), story.servers("two.example")):
        _judge_tries(connections)
    _judge_refusals(story)
    for connection in story.world.owner.connections:
        _judge_notes(story.case, connection, story.world.servers[connection.number])


def _judge_recipient(story: Story, number: int, recipient: bytes, verdict: bytes) -> None:
    """Exactly once, as far as that can be: rule C7."""
    domain = recipient.partition(b"@")[2].decode()
    accepted = told = 0
    for _, server in story.servers(domain):
        for message in server.accepted:
            mine = any(recipient in rcpt for rcpt in message.recipients) and message.sender == b"a%d" % number
            if mine:
                accepted += 1
                told += message in server.told
                assert message.text == TEXT, f"another message: {message.text!r}"
    assert accepted <= 1, f"C7: {recipient!r} has message {number} twice"
    if verdict[:1] == b"2":
        # Behind a reply too many every reply may stand for the command before.
        assert accepted or story.case.fault.kind == "surplus", f"{recipient!r} was reported, and has nothing"
    elif accepted:
        assert not told, f"{recipient!r} has it, and {verdict!r} was reported"
        assert verdict.startswith(b"451 4.4.2 ") or story.case.fault.kind == "surplus", (
            f"C7: fate unknown, and {verdict!r} was reported"
        )


def _judge_tries(connections: list[tuple[Connection, Server]]) -> None:
    """After mail data was handed over there is no other try, but behind a definite refusal to begin (C7)."""
    for (_, server), (_, after) in itertools.pairwise(connections):
        if server.has_data & after.asked_for and server.fault.kind != "surplus":
            begun = [verb for verb, _ in server.refusals if verb in (b"greeting", b"EHLO")]
            assert begun, "C7: another try, and the message had begun to leave"


def _judge_refusals(story: Story) -> None:
    """A refusal of the transaction that is about this client reaches it, code and text (C13)."""
    fault = story.case.fault
    if fault.kind not in ("4xx", "5xx") or story.case.always or story.case.pace in CHANGED.values():
        return
    _, server = story.servers("one.example")[0]
    for verb, reply in server.refusals:
        if verb == b"MAIL" and fault.kind == "4xx" and len(story.servers("one.example")) > 1:
            continue  # a kept session that takes no more messages is no verdict: another one was asked
        if b"says the fault" in reply and verb in TRANSACTION:
            assert reply in story.heard, f"C13: {reply!r} to {verb!r} is lost: {story.heard}"


def _judge_notes(case: Case, connection: Connection, server: Server) -> None:
    """What is noted for the cache is what the rules say (C1 to C6)."""
    found = {(note.finding, note.secure) for note in connection.notes}
    bad = {secure for finding, secure in found if finding in (Finding.FLUSHED, Finding.REFUSED, Finding.HELD_BACK)}
    kind = server.fault.kind
    dropped = kind in EARLY_KINDS and server.lost
    reached = kind not in EARLY_KINDS and 0 <= server.fault.at < server.count
    hit = dropped or (reached and (kind, server.verbs[server.fault.at]) != NO_HARM)
    assert len(found) == len(connection.notes), f"noted twice: {connection.notes}"
    if kind == "surplus" and not (case.together and server.fault.at == server.count - 1):
        return
    if case.messages > 1 or case.tls_fails or case.pace in CHANGED.values() or kind in ("unhanded", "none"):
        return
    if not server.early:
        # A keyword that is gone is noted in a polite session too (C3).
        bad -= {secure for finding, secure in found if finding is Finding.LEARNED}
        assert not bad, f"C4: nothing was early, and {found}"
    elif hit and kind in SESSION_FAULTS:
        assert server.early <= bad, f"C4: {kind} at {server.fault.at}, and {found} (early: {server.early})"
    elif hit and server.verbs[server.fault.at] in TRANSACTION:
        assert bool(bad) is not case.session_error, f"C4: a refusal, and {found}"
    if dropped and server.early and not server.implicit:
        assert (Finding.HELD_BACK, False) in found, f"C6: dropped for early talk, and {found}"
