"""The trace header that goes on top of a message, where the configuration asks for it (RFC 5321, 4.4)."""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .clientsession import ClientSession

_ATEXT: Final = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_HELO: Final = re.compile(rb"%b(?:\.%b)*|\[[!-Z^-~]+\]" % (_ATEXT, _ATEXT))  # RFC 5322, 3.2.3 and 3.4.1
_LONGEST_HELO: Final = 255


def received(session: ClientSession, now: float) -> bytes:
    """Give the Received header of a message that this session brings; ``now`` in seconds since the epoch."""
    relay, settings, facts = session.dialogue, session.context.settings, session.facts
    helo = relay.heard[5:].strip()
    name = helo if len(helo) <= _LONGEST_HELO and _HELO.fullmatch(helo) else b"unknown"
    address = session.address.partition("%")[0]
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    lines = [
        f"from {name.decode('ascii')} ({literal if address else 'local socket'})",
        f"by {session.context.hostname.decode()} (smtpproxy, listener {settings.name})",
        f"with {_protocol(session)} id {session.number}" + (_tls(facts.version, facts.cipher) if facts else "") + ";",
        formatdate(now, localtime=True),
    ]
    return ("Received: " + "\r\n\t".join(lines) + "\r\n").encode("ascii", "replace")


def _protocol(session: ClientSession) -> str:
    """Give the keyword of RFC 3848."""
    relay = session.dialogue
    first = relay.heard[:1].upper()
    if first not in (b"E", b"L"):
        return "SMTP"
    return (
        ("ESMTP" if first == b"E" else "LMTP")
        + ("S" if session.facts is not None else "")
        + ("A" if relay.authenticated else "")
    )


def _tls(version: str, cipher: str) -> str:
    return f"\r\n\t({version} {cipher})"
