"""How to send to the running demo by hand: exact commands, with the ports in use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smtpproxy.ops.demo.messages import RECIPIENT
from smtpproxy.ops.demo.style import Style

_SENDER: Final = "me@client.example"
_EHLO: Final = "EHLO client.example"
_MAIL: Final = f"MAIL FROM:<{_SENDER}>"
_RCPT: Final = f"RCPT TO:<{RECIPIENT}>"
_TEXT: Final = ("Subject: one flight", "", "Hello")


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is: ports on loopback, and files.

    Attributes:
        proxy: port of smtpproxy.
        far: port at which smtpproxy is behind the long line.
        legacy: port of the legacy MTA.
        milliseconds: round trip of the line.
        maildir: where the messages are.
        temporary: whether the Maildir is removed at the end.
        configuration: smtpproxy's configuration file.
        log: smtpproxy's log.
    """

    proxy: int
    far: int
    legacy: int
    milliseconds: float
    maildir: Path
    temporary: bool
    configuration: Path
    log: Path


def by_hand(places: Places, style: Style) -> Iterator[str]:
    """Yield the lines that tell how to send."""
    server = f"127.0.0.1 {places.proxy}"
    yield style.paint("title", "Now send something yourself. Ctrl-C ends the demo.")
    yield ""
    yield from _where(places)
    for purpose, *command in (
        (
            "With swaks:",
            f"swaks --server 127.0.0.1 --port {places.proxy} \\",
            f"  --from {_SENDER} --to {RECIPIENT}",
        ),
        (
            f"To see the greeting and the EHLO reply (type {_EHLO}, then QUIT):",
            f"telnet {server}      or      nc -C {server}",
        ),
        (
            "Early, a whole session in one flight, nothing waited for:",
            *_printf(_EHLO, _MAIL, _RCPT),
            f"  {_quoted(f'BDAT {_octets()} LAST', *_TEXT, 'QUIT')} | nc {server}",
        ),
        (
            "The same impatience towards the legacy MTA itself gets a 554:",
            *_printf(_EHLO),
            f"  {_quoted(_MAIL)} | nc 127.0.0.1 {places.legacy}",
        ),
    ):
        yield ""
        yield f"  {purpose}"
        yield from ("    " + style.paint("sent", line) for line in command)
    yield ""


def _where(places: Places) -> Iterator[str]:
    yield f"  smtpproxy    127.0.0.1 port {places.proxy}"
    yield f"               127.0.0.1 port {places.far}, at the far end of the {places.milliseconds:g} ms line"
    yield f"  legacy MTA   127.0.0.1 port {places.legacy}"
    yield f"  Maildir      {places.maildir}{' (removed at the end)' if places.temporary else ''}"
    yield f"  settings     {places.configuration}"
    yield f"  log          {places.log}"


def _printf(*commands: str) -> Iterator[str]:
    # printf repeats its format for each further argument: no escapes to read, no long line.
    yield r"printf '%s\r\n' \ ".rstrip()
    yield from (f"  {_quoted(command)} \\" for command in commands)


def _quoted(*words: str) -> str:
    return " ".join(f"'{word}'" for word in words)


def _octets() -> int:
    return sum(len(line) + len("\r\n") for line in _TEXT)
