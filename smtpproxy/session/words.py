"""Replies of our own that more than one module gives, with CR LF; docs/protocol.md lists all replies of our own."""

from __future__ import annotations

from typing import Final

from smtpproxy.smtp.lineendings import DataFault

OK: Final = b"250 2.0.0 Ok\r\n"
"""To RSET and NOOP (RFC 5321, 4.1.1.5 and 4.1.1.9)."""
TOO_MANY_RECIPIENTS: Final = b"452 4.5.3 Too many recipients\r\n"
"""To a RCPT above ``limits.recipients`` (RFC 5321, 4.5.3.1.10)."""
BDAT_NOT_OFFERED: Final = b"502 5.5.1 BDAT not offered\r\n"
"""To a chunk where CHUNKING is not ours to take (rule S9)."""
AUTH_NOT_AVAILABLE: Final = b"503 5.5.1 AUTH not available\r\n"
"""To AUTH where we do not offer it (rule S6)."""
BAD_SEQUENCE: Final = b"503 5.5.1 Bad sequence of commands\r\n"
"""To a command whose turn it is not (RFC 5321, 4.1.4)."""
SEND_EHLO_FIRST: Final = b"503 5.5.1 Send EHLO first\r\n"
"""To a command that needs an EHLO (RFC 5321, 4.1.4)."""
MESSAGE_FAILED: Final = b"503 5.5.1 The message has failed, RSET first\r\n"
"""To a chunk behind one that was refused (rule S9; RFC 3030, 2)."""
BAD_CHUNK: Final = b"521 5.5.4 Bad chunk size, cannot go on\r\n"
"""To a BDAT of which nobody can say where it ends (rule S9)."""
STARTTLS_FIRST: Final = b"530 5.7.0 Must issue a STARTTLS command first\r\n"
"""To what has to wait for TLS (RFC 3207, 4)."""
RELAYING_DENIED: Final = b"550 5.7.1 Relaying denied\r\n"
"""To a recipient in a domain that is not ours (rule S14)."""
TOO_BIG: Final = b"552 5.3.4 Message too big\r\n"
"""To a message above ``limits.message_size``, or a MAIL whose SIZE is (RFC 1870, 6)."""
FAULTS: Final = {
    DataFault.BARE: b"550 5.6.11 Bare <CR> or <LF> in message\r\n",
    DataFault.NUL: b"554 5.6.11 NUL in message\r\n",
}
"""To a message with line endings or octets that are not passed on (rules S11, H2)."""
