"""The trace header that goes on top of a message, where the configuration asks for it (RFC 5321, 4.4)."""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .inbound import InboundSession

_HELO: Final = re.compile(rb"[!-'*-:<-\[\]-~]{1,255}")  # printable, without what would open a comment or end the field


def received(session: InboundSession, now: float) -> bytes:
    """Give the Received header of a message that this session brings; ``now`` in seconds since the epoch."""
    relay, settings, facts = session.relay, session.context.settings, session.facts
    helo = relay.heard[5:].strip()
    name = helo if _HELO.fullmatch(helo) else b"unknown"
    address = session.address.partition("%")[0]
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    lines = [
        f"from {name.decode('ascii')} ({literal if address else 'local socket'})",
        f"by {session.context.hostname.decode()} (smtpproxy, listener {settings.name})",
        f"with {_protocol(session)} id {session.number}" + (_tls(facts.version, facts.cipher) if facts else "") + ";",
        formatdate(now, localtime=True),
    ]
    return ("Received: " + "\r\n\t".join(lines) + "\r\n").encode("ascii", "replace")


def _protocol(session: InboundSession) -> str:
    """Give the keyword of RFC 3848."""
    relay = session.relay
    if relay.heard[:1] not in (b"E", b"e"):
        return "SMTP"
    return "ESMTP" + ("S" if session.facts is not None else "") + ("A" if relay.authenticated else "")


def _tls(version: str, cipher: str) -> str:
    return f"\r\n\t({version} {cipher})"
