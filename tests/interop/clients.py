"""What clients in the tests do most often: send one message from an address of their own."""

from __future__ import annotations

import smtplib

from .conversation import codes, conversation
from .messages import Sample

RECIPIENT = "recipient@lab.test"


def post(port: int, message: Sample, *recipients: str, source: str = "") -> int:
    """Send a message politely, command by command; gives the client's port. Raises smtplib's exceptions."""
    address = (source, 0) if source else None
    with smtplib.SMTP("127.0.0.1", port, name_for(message), timeout=30, source_address=address) as client:
        assert client.sock is not None
        client_port: int = client.sock.getsockname()[1]
        client.sendmail("sender@lab.test", recipients or (RECIPIENT,), message.wire)
        return client_port


def name_for(message: Sample) -> str:
    """The name by which the client with that message says EHLO: its session in the log has it."""
    return f"{message.token}.lab.test"


def hello(message: Sample) -> bytes:
    """A session that says EHLO and QUIT, with nothing but the name of that message."""
    return f"EHLO {name_for(message)}\r\nQUIT\r\n".encode()


def burst(message: Sample, *recipients: str, verb: bytes = b"EHLO") -> bytes:
    """A whole session with one message, as early pipelining can send it before it has heard a word."""
    return b"".join(
        [
            b"%s %s\r\nMAIL FROM:<sender@lab.test>\r\n" % (verb, name_for(message).encode()),
            *(b"RCPT TO:<%s>\r\n" % recipient.encode() for recipient in recipients or (RECIPIENT,)),
            b"BDAT %d LAST\r\n" % len(message.wire) + message.wire,
            b"QUIT\r\n",
        ]
    )


def send_at_once(port: int, octets: bytes, *, source: str = "") -> tuple[int, list[int]]:
    """Send everything in one flight; gives the client's port and the reply codes."""
    with conversation(port, source=source) as client:
        client_port: int = client.socket.getsockname()[1]
        client.send_octets(octets)
        return client_port, codes(client.replies())
