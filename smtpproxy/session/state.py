"""What a relay knows: the state of one client's session, with no behaviour of its own.

``relay.py`` has the events that change it; ``commands.py``, ``answers.py``, ``message.py`` and ``ending.py`` the rules
by which they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .frontend import Frontend
from .pipeline import ReplyPipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.smtp.chunks import ChunkStuffer
    from smtpproxy.smtp.maildata import MailDataReader

    from .actions import Action
    from .backend import Backend, ChunkSlot
    from .origin import Origin
    from .pipeline import Slot
    from .policy import ClientPolicy, Learned, RelayPolicy
    from .transaction import Transaction


NOTHING: Final[frozenset[bytes]] = frozenset()
"""One for all: Python would make an empty set of its own for each session."""


class RelayState:
    """The facts of one session. ``now`` is always in seconds of a monotonic clock."""

    __slots__ = (
        "actions",
        "asked_who",
        "authenticated",
        "backend",
        "backend_fault",
        "backend_out",
        "binary",
        "chunk",
        "chunk_octets",
        "client",
        "closing",
        "command_count",
        "confidential",
        "draining",
        "early",
        "ehlo",
        "ehlo_slot",
        "ended",
        "envelope",
        "eof",
        "errors",
        "forwarded",
        "frontend",
        "handed_over",
        "heard",
        "learned",
        "message_failed",
        "missing",
        "named",
        "now",
        "octets",
        "offered",
        "once_only",
        "origin",
        "out_of_step",
        "over",
        "pace",
        "pipeline",
        "policy",
        "promised",
        "quit_slot",
        "reader",
        "reason",
        "recipients_accepted",
        "recipients_asked",
        "recipients_refused",
        "refused_data",
        "relay_refused",
        "released",
        "reply_count",
        "spoiled",
        "stamp",
        "stuffed",
        "stuffer",
        "trace",
        "transaction",
        "turns",
        "verdict",
        "violations",
    )

    def __init__(  # noqa: PLR0915  # a session has that many facts
        self, policy: RelayPolicy, client: ClientPolicy, learned: Learned | None
    ) -> None:
        """``learned`` lets a session begin without its backend, where the policy is not eager (rule S18)."""
        limits = policy.limits
        self.policy = policy
        self.client = client
        self.origin: Origin | None = None
        """Who the client is, as far as a backend was to be told; the owner gives it when it is asked."""
        self.asked_who = False
        self.forwarded: Slot | None = None
        """The last MAIL that XFORWARD went before."""
        self.learned = learned
        self.frontend = Frontend(limits.line, limits.auth_line)
        self.pipeline = ReplyPipeline()
        self.backend: Backend | None = None
        self.released: Backend | None = None
        """The backend that RELEASE_BACKEND is about."""
        self.backend_fault = ""
        """Why the last server could not serve."""
        self.backend_out: list[bytes] = []
        self.actions: list[Action] = []
        self.trace: Callable[[str, bytes], None] | None = None
        """Told a direction (``C:``, ``S:`` towards the client, ``B>``, ``B<`` at the backend) and what went there."""
        self.stamp: Callable[[], bytes] | None = None
        """Makes the trace header that goes on top of a message (RFC 5321, 4.4)."""
        self.now = 0.0

        self.heard = b""
        """The client's last EHLO or HELO line, accepted or not."""
        self.ehlo = b""
        """The client's EHLO or HELO line, once accepted."""
        self.named: dict[bytes, bytes] | None = None
        """Who the client is, as a trusted proxy says by XCLIENT."""
        self.ehlo_slot: Slot | None = None
        """The client's EHLO that the backend refused, while HELO is tried."""
        self.once_only = False
        """Whether the backend was seen to take EHLO only once in a session."""
        self.offered = False
        """Whether the client is being sent the keyword of early pipelining (rule S1)."""
        self.quit_slot: Slot | None = None
        """The client's QUIT, after the backend was told of it and before all else has been answered."""
        self.promised: frozenset[bytes] = NOTHING
        """The backend's extensions that this client was told of."""
        self.missing: frozenset[bytes] = NOTHING
        """Those of them that the present backend has not (rule S18)."""
        self.confidential = False
        """Whether AUTH was seen, so that what is no command may be a secret (rule H11)."""
        self.authenticated = False
        self.spoiled = False
        """Whether no fresh backend session can take the place of the lost one: it had seen AUTH (rule S15)."""
        self.early = False
        """Whether the client spoke before the greeting was written (rule S2)."""
        self.eof = False
        self.stuffed = False
        """Whether no more of the client should be read until the backend has answered (bounded bursts)."""
        self.closing = False
        """Whether the session ends as soon as every owed reply has left."""
        self.handed_over = False
        """Whether another relay takes the place of this one, inside TLS or for another client."""
        self.over = False
        self.draining = False
        """Whether the service is going down."""
        self.reason = ""
        """Why the session ended."""

        self.transaction: Transaction | None = None
        self.ended: tuple[Transaction, ...] = ()
        """Transactions that have ended and were not fetched by the owner."""
        self.envelope = False
        """Whether a transaction may be open at the point up to which the client has been read."""
        self.binary = False
        """Whether its MAIL says BODY=BINARYMIME (RFC 3030, 3)."""
        self.recipients_asked = 0
        self.reader: MailDataReader | None = None
        self.stuffer: ChunkStuffer | None = None
        self.chunk: ChunkSlot | None = None
        """The chunk whose octets are coming in."""
        self.chunk_octets = -1
        """Octets announced by BDAT for the message that comes in; -1 before its first chunk."""
        self.verdict = b""
        """Why the message that comes in by DATA will not be taken; its data is thrown away (rule S15)."""
        self.message_failed = False
        """Whether a chunk was refused, so that no other of this message may follow."""
        self.refused_data: tuple[Slot, bytes] | None = None
        """A refusal of DATA that waits for the last look at the client's input (rule H4)."""

        self.command_count = 0
        self.reply_count = 0
        self.octets = 0
        self.errors = 0
        self.turns = 1
        """Round trips that the client has waited: one for the greeting or the first flight, then one each time that
        it sent something while nothing was owed to it."""
        self.violations = 0
        """Times that the client was out of step (rule S5)."""
        self.out_of_step = False
        """Whether it was so behind a DATA that the backend has still to answer."""
        self.relay_refused = 0
        """Recipients refused for their domain (rule S14)."""
        self.recipients_accepted = 0
        self.recipients_refused = 0
        self.pace = ""
