"""The command ``smtpproxy``: run the service, check a configuration, see what is known of remotes, probe one, demo.

Exit statuses: 0 done, 1 something is wrong (said on standard error), 2 the command line is wrong.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final

import smtpproxy

__all__ = ["main"]

# Each command: its module (with add_arguments(parser) and main(options)), and a line for --help. A module is
# loaded only if its command is given, so that the running service carries no dead weight.
_COMMANDS: Final = {
    "run": ("smtpproxy.cli.run", "run the service in the foreground"),
    "check": ("smtpproxy.cli.check", "check a configuration, or whether the backends are open to relaying"),
    "cache": ("smtpproxy.cli.cache", "show what is known of remotes, or make it forgotten"),
    "probe": ("smtpproxy.cli.probe", "visit a mail server: what it offers, its TLS, what early pipelining saves"),
    "demo": ("smtpproxy.ops.demo", "show what early pipelining saves, against an embedded mail server"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says (default: the process's own); give the exit status.

    Raises SystemExit for a wrong command line, ``--help`` and ``--version``, as argparse does.
    """
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser(given).parse_args(given)
    status: int = options.main(options)
    return status


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="smtpproxy",
        description="An SMTP proxy that gives early pipelining to mail servers that do not know it.",
    )
    parser.add_argument("--version", action="version", version=f"smtpproxy {smtpproxy.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (module_name, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text)
        if name in given:
            module = importlib.import_module(module_name)
            command.description = module.__doc__
            module.add_arguments(command)
            command.set_defaults(main=module.main)
    return parser
