"""What a relay knows: the state of one client's session with a backend, with no behaviour of its own.

``dialogue.py`` has the client's half; ``relay.py`` has the events that change what is here; ``commands.py``,
``answers.py``, ``message.py``, ``leaving.py`` and ``ending.py`` the rules by which they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .clientside import ClientSide

if TYPE_CHECKING:
    from smtpproxy.smtp.chunks import ChunkStuffer
    from smtpproxy.smtp.maildata import MailDataReader

    from .backend import Backend, ChunkSlot
    from .origin import Origin
    from .pipeline import Slot
    from .policy import ClientPolicy, Learned, RelayPolicy


NOTHING: Final[frozenset[bytes]] = frozenset()
"""One for all: Python would make an empty set of its own for each session."""


class RelayState(ClientSide):
    """The facts of one session beyond the client's half."""

    __slots__ = (
        "asked_who",
        "backend",
        "backend_fault",
        "backend_out",
        "binary",
        "chunk",
        "chunk_octets",
        "ehlo_slot",
        "forwarded",
        "learned",
        "missing",
        "once_only",
        "origin",
        "out_of_step",
        "promised",
        "quit_slot",
        "reader",
        "released",
        "spoiled",
        "stuffer",
    )

    policy: RelayPolicy

    def __init__(self, policy: RelayPolicy, client: ClientPolicy, learned: Learned | None) -> None:
        """``learned`` lets a session begin without its backend, where the policy is not eager (rule S18)."""
        super().__init__(policy, client)
        self.origin: Origin | None = None
        """Who the client is, as far as a backend was to be told; the owner gives it when it is asked."""
        self.asked_who = False
        self.forwarded: Slot | None = None
        """The last MAIL that XFORWARD went before."""
        self.learned = learned
        self.backend: Backend | None = None
        self.released: Backend | None = None
        """The backend that RELEASE_BACKEND is about."""
        self.backend_fault = ""
        """Why the last server could not serve."""
        self.backend_out: list[bytes] = []
        self.ehlo_slot: Slot | None = None
        """The client's EHLO that the backend refused, while HELO is tried."""
        self.once_only = False
        """Whether the backend was seen to take EHLO only once in a session."""
        self.quit_slot: Slot | None = None
        """The client's QUIT, after the backend was told of it and before all else has been answered."""
        self.promised: frozenset[bytes] = NOTHING
        """The backend's extensions that this client was told of."""
        self.missing: frozenset[bytes] = NOTHING
        """Those of them that the present backend has not (rule S18)."""
        self.spoiled = False
        """Whether no fresh backend session can take the place of the lost one: it had seen AUTH (rule S15)."""
        self.binary = False
        """Whether the MAIL of the transaction says BODY=BINARYMIME (RFC 3030, 3)."""
        self.reader: MailDataReader | None = None
        self.stuffer: ChunkStuffer | None = None
        self.chunk: ChunkSlot | None = None
        """The chunk whose octets are coming in."""
        self.chunk_octets = -1
        """Octets announced by BDAT for the message that comes in; -1 before its first chunk."""
        self.out_of_step = False
        """Whether the client was out of step behind a DATA that the backend has still to answer (rule S5)."""
