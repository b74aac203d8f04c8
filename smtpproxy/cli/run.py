"""Run the service in the foreground: SIGTERM stops it gracefully, SIGHUP reloads the configuration."""

import argparse
import importlib
import select
import sys
from typing import Any, Final

from smtpproxy.config import ConfigError, load

__all__ = ["add_arguments", "main"]

# Each a module whose install() makes its reactor the one that everything imports.
_REACTORS: Final = {
    "lean": "smtpproxy.net.reactor",
    "epoll": "twisted.internet.epollreactor",
    "default": None,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``smtpproxy run``."""
    parser.add_argument("-c", "--config", required=True, metavar="FILE", help="the configuration")
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="log a transcript of every session, with secrets masked",
    )
    parser.add_argument(
        "--reactor",
        choices=tuple(_REACTORS),
        default="lean",
        help="the event loop (default: %(default)s; where there is no epoll it is Twisted's default one)",
    )


def main(options: argparse.Namespace) -> int:
    """Run until stopped; give the exit status: 1 if the service could not begin."""
    try:
        load(options.config)  # before anything of the service is loaded: a mistake is what most often is wrong
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    _install_reactor(options.reactor)
    reactor = _reactor()
    from smtpproxy.net.certificates import TlsError  # noqa: PLC0415  (not before the reactor is chosen)
    from smtpproxy.service import make_service  # noqa: PLC0415  (the same)

    try:
        service: Any = make_service(options.config, reactor, verbose=options.verbose)
        service.privilegedStartService()
        service.startService()
    except (ConfigError, OSError, TlsError) as error:
        print(_failure(error), file=sys.stderr)
        return 1
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return 0


def _reactor() -> Any:  # noqa: ANN401  (the reactor has many interfaces; Twisted types it as one of them)
    """Not imported at the top: that would install the default one, unless one is installed already."""
    from twisted.internet import reactor  # noqa: PLC0415  (see above)

    return reactor


def _install_reactor(name: str) -> None:
    module = _REACTORS[name] if hasattr(select, "epoll") else None
    if module is not None:
        importlib.import_module(module).install()


def _failure(error: Exception) -> str:
    """Why the service could not begin: one line, except for the mistakes of a configuration."""
    if isinstance(error, ConfigError):
        return str(error)
    if not isinstance(error, OSError):
        return f"smtpproxy: {error}"
    reason = error.strerror or str(error)
    return f"smtpproxy: {error.filename}: {reason}" if error.filename else f"smtpproxy: {reason}"
