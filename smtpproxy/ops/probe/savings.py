"""What early pipelining saves: round trips from the SYN to the reply to the message, counted step by step.

QUIT is not counted, and the message fits into one window (docs/protocol.md).
"""

from __future__ import annotations

from typing import Final

from smtpproxy.ops.probe.facts import Hello, Saving, Tls

__all__ = ["savings"]

_NOT_OFFERED: Final = "not offered"
_NO_CHUNKING: Final = "no CHUNKING"
# Everybody has these: the handshake of TCP; then, for who is polite, the greeting and the reply to EHLO.
_CONNECT: Final = 1
_POLITE: Final = 2
_ENVELOPE: Final = {True: 1, False: 3}  # MAIL, RCPT and DATA, in a group or not
_MESSAGE: Final = 1


def savings(clear: Hello, inside: Hello | None, tls: Tls | None) -> tuple[Saving, ...]:
    """Give the ways to send a message to a server, the slow ones first; those inside TLS if there was a handshake."""
    polite = "polite, pipelined" if clear.pipelining else "polite, lock-step (no PIPELINING)"
    group = _ENVELOPE[clear.pipelining]
    clear_missing = "" if clear.usable else _NOT_OFFERED
    clear_chunks = clear_missing or ("" if clear.chunking else _NO_CHUNKING)
    if inside is None or tls is None:
        return (
            Saving(polite, _CONNECT + _POLITE + group + _MESSAGE, None),
            Saving("early, then DATA", _CONNECT + 1 + _MESSAGE, None, clear_missing),
            Saving("early, message in the flight (BDAT)", _CONNECT + 1, None, clear_chunks),
            Saving("the same with TCP Fast Open", 1, None, clear_chunks),
        )
    # STARTTLS, the handshake, EHLO inside; early: EHLO and STARTTLS together, then the handshake.
    handshake = 1 if tls.version == "TLSv1.3" else 2
    inside_group = _ENVELOPE[inside.pipelining]
    slow = _CONNECT + _POLITE + 1 + handshake + 1 + inside_group + _MESSAGE
    fast = _CONNECT + 1 + handshake
    missing = clear_missing or ("" if inside.usable else "not offered inside TLS")
    chunks = missing or ("" if inside.chunking else _NO_CHUNKING)
    return (
        Saving(polite, _CONNECT + _POLITE + group + _MESSAGE, slow),
        Saving("early, then DATA", _CONNECT + 1 + _MESSAGE, fast + 1 + _MESSAGE, clear_missing, missing),
        Saving("early, message in the flight (BDAT)", _CONNECT + 1, fast + 1, clear_chunks, chunks),
        Saving("the same with TCP Fast Open", 1, fast, clear_chunks, chunks),
    )
