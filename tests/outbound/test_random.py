"""Random clients, random remotes, random accidents: the core never raises, hangs or forgets a connection.

What must hold after every event stands in ``owner.check``; and in the end, when the client is gone, every connection is
left as soon as its remote has had its say.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpproxy.session.outbound.target import Credentials, TlsWish, Unroutable
from smtpproxy.smtp.commands import Wait
from smtpproxy.smtp.lineendings import BarePolicy

from .dialogue import LOST, QUIET
from .owner import Owner
from .setup import USUAL, Setup
from .test_dialogues import play_to_the_end

CLIENT = [
    b"EHLO client.example\r\n",
    b"LHLO client.example\r\n",
    b"MAIL FROM:<a@client.example>\r\n",
    b"MAIL FROM:<a@client.example> SIZE=20 BODY=8BITMIME SMTPUTF8\r\n",
    b"RCPT TO:<b@one.example>\r\n",
    b"RCPT TO:<c@one.example>\r\n",
    b"RCPT TO:<d@two.example>\r\n",
    b"RCPT TO:<e@nowhere.example>\r\n",
    b"DATA\r\n",
    b"hello\r\n.\r\n",
    b"x\n.\0\r\n.\r\n",
    b"BDAT 3\r\nx\r\n",
    b"BDAT 3 LAST\r\nx\r\n",
    b"BDAT 20 LAST\r\n",
    b"quit\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT x\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"STARTTLS\r\n",
    b"QUIT\r\n",
    b"AUTH LOGIN\r\n",
    b"\0\r\n",
    b"\r",
    b"x" * 5000,
    b"EHLO c\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@one.example>\r\nDATA\r\n",
    b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@one.example>\r\nBDAT 3 LAST\r\nx\r\n",
    b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@one.example>\r\nRCPT TO:<c@one.example>\r\nBDAT 9\r\nx\r\n",
]
EHLO = "".join(f"250-{line}\r\n" for line in ("mx.example", *USUAL)).encode()
REMOTE = [
    b"220 mx.example\r\n",
    EHLO + b"250 STARTTLS\r\n",
    EHLO + b"250 AUTH PLAIN LOGIN\r\n",
    b"250-mx.example\r\n250 PIPELINING\r\n",
    b"250 2.0.0 Ok\r\n",
    b"250 2.0.0 Ok\r\n" * 3,
    b"250 2.0.0 Ok\r\n550 5.1.1 No\r\n",
    b"220 mx.example\r\n" + EHLO + b"250 STARTTLS\r\n220 Go\r\n",
    b"220 mx.example\r\n" + EHLO + b"250 OK\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok\r\n",
    b"220 Go\r\n",
    b"235 Welcome\r\n",
    b"334 VXNlcm5hbWU6\r\n",
    b"354 Go\r\n",
    b"421 Bye\r\n",
    b"450 No\r\n",
    b"503 No\r\n",
    b"554-No\r\n554 no\r\n",
    b"25",
    b"0 Ok\r\n",
    b"what?\r\n",
    b"250-\0\r\n250 \x7f\r\n",
    b"\xff" * 5000,
]
SETUPS = st.builds(
    Setup,
    lmtp=st.booleans(),
    speculate=st.booleans(),
    size=st.sampled_from([None, 30]),
    burst_octets=st.sampled_from([50, 256 * 1024]),
    burst_commands=st.sampled_from([3, 1000]),
    bare=st.sampled_from(BarePolicy),
    client_tls=st.sampled_from(["none", "starttls", "starttls-required"]),
    tls=st.sampled_from(TlsWish),
    targets=st.integers(0, 3),
    found=st.sampled_from(["at once", "later"]),
    connected=st.sampled_from(["at once", "later"]),
    credentials=st.sampled_from([None, None, Credentials("user", "secret")]),
    lockstep=st.booleans(),
    downgrade=st.sampled_from(["log", "refuse"]),
    clear=st.sampled_from([None, USUAL, (*USUAL, "STARTTLS"), USUAL[:-1]]),
    inside=st.sampled_from([None, USUAL, (*USUAL, "AUTH PLAIN")]),
    confirmed=st.sampled_from([0, 3]),
    keeps=st.booleans(),
)
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("client"), st.integers(0, len(CLIENT) - 1)),
        st.tuples(st.just("client"), st.integers(0, len(CLIENT) - 1)),
        st.tuples(st.just("remote"), st.integers(0, 3 * len(REMOTE) - 1)),
        st.tuples(st.just("remote"), st.integers(0, 3 * len(REMOTE) - 1)),
        st.tuples(st.just("right"), st.integers(0, 2)),
        st.tuples(st.just("right"), st.integers(0, 2)),
        st.tuples(st.just("shell"), st.integers(0, 20)),
        st.tuples(st.just("shell"), st.integers(0, 20)),
        st.tuples(st.just("accident"), st.integers(0, 30)),
    ),
    max_size=40,
)
RIGHT = {
    b"greeting": b"220 mx.example\r\n",
    b"EHLO": EHLO + b"250 STARTTLS\r\n",
    b"STARTTLS": b"220 Go\r\n",
    b"AUTH": b"235 Welcome\r\n",
    b"DATA": b"354 Go\r\n",
}


class Play:
    """A session, as moves come."""

    def __init__(self, setup: Setup) -> None:
        self.owner = Owner(setup)
        self.owner.start()
        self.half_closed = False

    def move(self, kind: str, number: int) -> None:
        """Make one, as far as it is possible now."""
        owner = self.owner
        if owner.probing:
            QUIET.play(owner)
        if kind == "client":
            if not (owner.closed or self.half_closed or owner.submission.stuffed):
                owner.client_sends(CLIENT[number])
        elif kind == "remote":
            self._remote(number // len(REMOTE), REMOTE[number % len(REMOTE)])
        elif kind == "right":
            self._remote(number, b"")
        elif kind == "shell":
            self._shell(number)
        elif not owner.closed:
            self._accident(number)

    def _living(self) -> list[int]:
        return [c.number for c in self.owner.connections if c.open and c.delivery is not None]

    def _remote(self, index: int, data: bytes) -> None:
        living = self._living()
        if not living:
            return
        connection = self.owner.remote(living[index % len(living)])
        if connection.handshaking:
            self.owner.remote_inside_tls(connection.number)
            return
        asked = connection.remote.outstanding
        if not data and asked:
            data = b"".join(RIGHT.get(slot.verb.name, b"250 2.0.0 Ok\r\n") for slot in asked)
        if data:
            self.owner.remote_sends(connection.number, data)

    def _shell(self, number: int) -> None:
        owner = self.owner
        if owner.searching and number % 2:
            owner.find_targets(Unroutable(b"451 4.4.3 No\r\n", "no") if number == 1 else None)
        elif owner.opening:
            if number == 2:
                owner.no_connection()
            else:
                owner.connect()
        elif owner.handshaking and not owner.closed:
            owner.client_inside_tls()
        elif number < 5 and not owner.closed:
            owner.tell(owner.submission.patience_ended, 0.0)
        else:
            owner.settle(hold=False)

    def _accident(self, number: int) -> None:
        owner, living = self.owner, self._living()
        if number < 15 and living:
            lost = living[number % len(living)]
            owner.remote_lost(lost, handed=number % 2 == 0, reached=number % 5 != 0, tls=number % 7 == 0)
        elif number < 22 and living:
            connection = owner.remote(living[number % len(living)])
            owner.remote_reads(connection.number, full=not connection.remote.full)
        elif number == 23:
            owner.tell(owner.submission.shut_down)
        elif number == 24 and not (self.half_closed or owner.handshaking):
            self.half_closed = True
            owner.tell(owner.submission.client_eof, 0.0)
        elif number in _LAST:
            owner.tell(getattr(owner.submission, _LAST[number]))


_LAST = {25: "end_now", 26: "internal_error", 27: "client_timed_out"}


@given(setup=SETUPS, moves=MOVES, gone=st.booleans())
@settings(derandomize=True, max_examples=600, deadline=None)
def test_anything(setup: Setup, moves: list[tuple[str, int]], *, gone: bool) -> None:
    if setup.credentials is not None and not setup.tls.verifies:
        setup = replace(setup, credentials=None)
    played = Play(setup)
    for kind, number in moves:
        played.move(kind, number)
    owner = played.owner
    if not gone:
        play_to_the_end(owner, b"550 5.0.0 No\r\n")
        assert owner.closed or owner.handshaking or owner.submission.client_wait is not Wait.NOTHING
    if not owner.closed:
        LOST.play(owner)
    play_to_the_end(owner, b"550 5.0.0 No\r\n")
    assert owner.closed
    assert all(connection.delivery is None for connection in owner.connections)
