"""Visit a mail server, or all that take mail for a domain: what they offer, their TLS, how long each step takes.

Nothing is sent before the greeting, and never a message. --try sends EHLO MAIL RCPT RSET in one early flight.
Exit status: 0 all is well, 1 something is wrong (and shown), 2 the command line is wrong.
"""

import argparse
import contextlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from smtpproxy.cli.mailbox import mailbox
from smtpproxy.config import Config, ConfigError, Dns, MtaSts, RemoteTls, load
from smtpproxy.config.listeners import machine_name
from smtpproxy.ops.probe.destination import Destination

if TYPE_CHECKING:
    from smtpproxy.ops.probe.facts import Found
    from smtpproxy.ops.probe.run import Probe

__all__ = ["add_arguments", "main"]

_LONGEST: Final = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``smtpproxy probe``."""
    parser.add_argument("what", metavar="HOST[:PORT]|DOMAIN", help="a domain, for all its MX hosts, or one host")
    parser.add_argument("-c", "--config", metavar="FILE", help="take hostname, dns and mta_sts from a configuration")
    parser.add_argument("--try", dest="recipient", type=_recipient, metavar="RECIPIENT", help="send an early flight")
    parser.add_argument(
        "--from", dest="sender", type=_sender, default="", metavar="SENDER", help="its sender (default: <>)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--port", type=_port, metavar="N", help="the port, where none is written (default: 25)")
    parser.add_argument("--no-tls", action="store_true", help="leave STARTTLS alone")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="believe these authorities, not those of the system")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="for the connection, and for each reply (default: 30)",
    )


def main(options: argparse.Namespace) -> int:
    """Probe; give the exit status."""
    try:
        where = Destination.parse(options.what, options.port)
    except ValueError as error:
        print(f"smtpproxy probe: {error}", file=sys.stderr)
        return 2
    try:
        config = None if options.config is None else load(options.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    from smtpproxy.net.certificates import TlsError  # noqa: PLC0415  (mistakes are to be seen without waiting)
    from smtpproxy.ops.probe.document import document  # noqa: PLC0415  (the same)
    from smtpproxy.ops.probe.verdicts import is_fine  # noqa: PLC0415  (the same)

    try:
        found = _found(where, options, config)
    except TlsError as error:
        print(f"smtpproxy probe: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone. Keep the interpreter from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if found is None:
        return 1
    if options.json:
        print(document(found))
    return 0 if is_fine(found) else 1


def _found(where: Destination, options: argparse.Namespace, config: Config | None) -> "Found | None":
    """Probe, in the reactor; None where it was interrupted."""
    from twisted.internet import reactor as chosen  # noqa: PLC0415  (the reactor is not imported before it is needed)
    from twisted.internet.defer import CancelledError, Deferred  # noqa: PLC0415  (the same)
    from twisted.internet.error import ReactorNotRunning  # noqa: PLC0415  (the same)
    from twisted.python.failure import Failure  # noqa: PLC0415  (the same)

    from smtpproxy.ops.probe.run import Look, probe  # noqa: PLC0415  (the same)
    from smtpproxy.ops.probe.show import Show  # noqa: PLC0415  (the same)

    reactor: Any = chosen
    order = _order(reactor, options, config)
    look = Look() if options.json else Show(sys.stdout)
    outcome: list[Any] = []

    def interrupted(failure: Failure) -> None:
        failure.trap(CancelledError)

    def stop(_: object) -> None:
        with contextlib.suppress(ReactorNotRunning):  # it is being stopped
            reactor.stop()

    def begin() -> None:
        probing = Deferred.fromCoroutine(probe(where, order, look, asked=options.what))
        # Ctrl-C ends it; else the connections that the reactor closes then would look like the server's doing.
        reactor.addSystemEventTrigger("before", "shutdown", probing.cancel)
        probing.addErrback(interrupted)
        probing.addBoth(outcome.append)
        probing.addBoth(stop)

    reactor.callWhenRunning(begin)
    reactor.run()
    if not outcome:
        return None
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    found: Found | None = outcome[0]
    return found


def _order(reactor: Any, options: argparse.Namespace, config: Config | None) -> "Probe":  # noqa: ANN401  (see above)
    """Put together what the probe needs. Raises TlsError."""
    from smtpproxy.net.resolver import Resolver  # noqa: PLC0415  (see above)
    from smtpproxy.ops.probe.run import Probe  # noqa: PLC0415  (the same)
    from smtpproxy.ops.probe.tlsview import TlsView, policy_fetcher  # noqa: PLC0415  (the same)
    from smtpproxy.ops.probe.trial import Envelope  # noqa: PLC0415  (the same)
    from smtpproxy.ops.probe.visit import Tools  # noqa: PLC0415  (the same)

    resolver = Resolver(reactor, reactor, Dns() if config is None else config.dns)
    settings = RemoteTls() if options.ca is None else RemoteTls(ca=options.ca)
    view = None if options.no_tls else TlsView(settings, _now)
    return Probe(
        Tools(reactor, _hostname(config), options.timeout, view),
        resolver,
        policy_fetcher(reactor, resolver, MtaSts() if config is None else config.mta_sts, _now),
        None if options.recipient is None else Envelope(options.sender, options.recipient),
    )


def _hostname(config: Config | None) -> str:
    """Our name: that of the first listener for mail to the world, else of the first one."""
    if config is None:
        return machine_name()
    return (*config.outbound, *config.listeners)[0].hostname


def _now() -> datetime:
    return datetime.now(UTC)


def _recipient(text: str) -> str:
    return mailbox(text, "postmaster@example.org")


def _sender(text: str) -> str:
    return "" if text in {"", "<>"} else _recipient(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError("a port is from 1 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= _LONGEST:
        raise argparse.ArgumentTypeError("more than 0 and at most 3600 seconds")
    return value
