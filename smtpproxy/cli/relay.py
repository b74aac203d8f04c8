"""Would a backend relay for whoever comes through the proxy?  Rule S14 tried out, without sending any mail.

The backend sees the proxy's address, often one that it trusts.  So each server is asked, from here, whether
it takes a foreign recipient, and the answer is held against what the listeners let through.  A server that is
told of clients (XCLIENT, PROXY) is asked in the name of one that nobody has, from a network for documentation.
"""

import contextlib
import enum
import re
import smtplib
import socket
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from smtpproxy.config import Backend, Config, Endpoint, Listener
from smtpproxy.smtp.proxyheader import Ends, v1_header, v2_header

__all__ = ["Answer", "Verdict", "ask", "check"]

_PATIENCE: Final = 30.0  # seconds for the connection and for each reply
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_LONGEST_REPLY: Final = 300
_STRANGER: Final = "192.0.2.1"  # RFC 5737
_ENDS: Final = Ends((_STRANGER, 12345), ("192.0.2.2", 25))
_PREAMBLES: Final = {"proxy-v1": v1_header(_ENDS), "proxy-v2": v2_header(_ENDS)}
_UNTRIED: Final = {
    "source-address": "clients connect to it from their own addresses",
    "implicit": "it is spoken to inside TLS",
    "starttls-required": "it is spoken to inside TLS",
}


class Verdict(enum.Enum):
    """What a server does with a foreign recipient, and how the line about it begins."""

    ACCEPTS = "accepts"
    REFUSES = "refuses"
    UNCLEAR = "cannot tell"
    UNTRIED = "cannot be tried"


class Answer(NamedTuple):
    """What a server did, and its reply or the fault that kept it from giving one."""

    verdict: Verdict
    detail: str


class _Client(smtplib.SMTP):
    """smtplib that may send a PROXY header first."""

    preamble = b""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = self._connect(host, port, timeout)
        connection.sendall(self.preamble)
        return connection

    def _connect(self, host: str, port: int, timeout: float) -> socket.socket:
        return socket.create_connection((host, port), timeout)


class _UnixClient(_Client):
    """The same over a Unix socket, whose path is given as the host."""

    def _connect(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002  (the other's)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(host)
        except OSError:
            connection.close()
            raise
        return connection


def check(config: Config, recipient: str) -> int:
    """Ask every server of every backend; print one line for each, and a warning for an open relay.

    Gives the exit status: 1 if a listener passes on every recipient to a backend that takes the foreign one,
    or if the recipient is not foreign and the test would say nothing; else 0.
    """
    problems: list[str] = []
    for name, backend in config.backends.items():
        listeners = [listener for listener in config.inbound if listener.backend == name]
        problems += _check_backend(name, backend, listeners, recipient)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _check_backend(name: str, backend: Backend, listeners: list[Listener], recipient: str) -> Iterator[str]:
    domain = recipient.rpartition("@")[2].lower()
    for listener in listeners:
        if listener.recipient_domains is not None and domain in listener.recipient_domains:
            yield (
                f"backend {name} is not tried: {recipient} is no foreign recipient for listener "
                f"{listener.name}; name another with --relay-recipient"
            )
            return
    untried = _UNTRIED.get(backend.identity) or _UNTRIED.get(backend.tls.mode)
    if untried is not None:
        print(f"backend {name} {Verdict.UNTRIED.value}: {untried}")
        return
    accepts = False
    hostname = listeners[0].hostname if listeners else "localhost"
    for server in backend.servers:
        verdict, detail = ask(server, recipient, hostname, identity=backend.identity)
        accepts = accepts or verdict is Verdict.ACCEPTS
        if verdict is Verdict.ACCEPTS:
            detail = f"the foreign recipient <{recipient}>: {detail}; keep recipient_domains strict"
            print(f"{server} (backend {name}): {verdict.value} {detail}")
        else:
            print(f"{server} (backend {name}): {verdict.value}: {detail}")
    for listener in listeners:
        if accepts and not listener.recipient_domains:
            why = "recipient_domains: any" if listener.recipient_domains is None else "no recipient_domains"
            yield (
                f"WARNING: OPEN RELAY: listener {listener.name} passes on every recipient ({why}), "
                f"and backend {name} takes foreign ones from this address. Write out recipient_domains."
            )


def ask(
    server: Endpoint, recipient: str, hostname: str, patience: float = _PATIENCE, *, identity: str = "none"
) -> Answer:
    """Ask one server, with EHLO ``hostname``, MAIL, RCPT, RSET and QUIT, whether it takes a recipient.

    ``patience`` is in seconds, for the connection and for each reply; ``identity`` is the backend's setting.
    Never raises for what the server or the network does: that is part of the answer.
    """
    client = (_UnixClient if server.kind == "unix" else _Client)(local_hostname=hostname, timeout=patience)
    client.preamble = _PREAMBLES.get(identity, b"")
    try:
        # smtplib takes a port 0 for "look for one in the host"; a Unix socket has none to give.
        greeting = client.connect(server.path or server.host, server.port or 1)
        if greeting[0] != 220:
            return Answer(Verdict.UNTRIED, f"it greets with {_shown(*greeting)}")
        return _converse(client, recipient, identity)
    except smtplib.SMTPResponseException as error:
        text = error.smtp_error if isinstance(error.smtp_error, bytes) else error.smtp_error.encode()
        return Answer(Verdict.UNTRIED, _shown(error.smtp_code, text))
    except (OSError, smtplib.SMTPException) as error:
        return Answer(Verdict.UNTRIED, _clean(getattr(error, "strerror", None) or str(error)))
    finally:
        client.close()


def _converse(client: smtplib.SMTP, recipient: str, identity: str) -> Answer:
    client.ehlo_or_helo_if_needed()
    trusted = "anybody" if identity in _PREAMBLES else "this address"
    if identity in {"auto", "xclient"} and client.has_extn("xclient"):
        trusted = "anybody"
        reply = client.docmd("XCLIENT", f"NAME=[UNAVAILABLE] ADDR={_STRANGER}")
        if not _good(reply):
            return Answer(Verdict.UNTRIED, f"XCLIENT gets {_shown(*reply)}")
        client.ehlo()
    reply = client.mail("")
    if not _good(reply):
        return Answer(Verdict.UNTRIED, f"MAIL FROM:<> gets {_shown(*reply)}")
    reply = client.rcpt(recipient)
    # The answer is known; how the server takes its leave does not change it.
    with contextlib.suppress(OSError, smtplib.SMTPException):
        client.rset()
        client.quit()
    if _good(reply):
        return Answer(Verdict.ACCEPTS, f"it trusts {trusted}")
    return Answer(Verdict.REFUSES if 500 <= reply[0] <= 599 else Verdict.UNCLEAR, _shown(*reply))


def _good(reply: tuple[int, bytes]) -> bool:
    return 200 <= reply[0] <= 299


def _shown(code: int, text: bytes) -> str:
    if code < 0:
        return "what is no reply of SMTP"
    return f"{code} {_clean(text.decode('utf-8', 'replace'))}"


def _clean(text: str) -> str:
    """One line, without anything that a terminal would obey (H8)."""
    return _CONTROL.sub(" ", text).strip()[:_LONGEST_REPLY]
