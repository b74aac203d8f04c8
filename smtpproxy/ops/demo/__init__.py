"""`smtpproxy demo`: what early pipelining does for an old mail server, on one machine, with real sockets.

An embedded lock-step mail server, smtpproxy in front of it as a process of its own, an emulated long line,
and a client that sends the same messages in four ways and draws each conversation.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Final

from smtpproxy.ops.demo.run import run
from smtpproxy.ops.demo.show import Options

_LONGEST_ROUND_TRIP: Final = 5000.0
_HIGHEST_PORT: Final = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `smtpproxy demo` to `parser`."""
    parser.add_argument("--once", action="store_true", help="end after the check; exit status 0 if all arrived intact")
    parser.add_argument(
        "--rtt",
        type=_milliseconds,
        default=100.0,
        metavar="MS",
        help="emulated round trip, 1 to 5000 (default: 100)",
    )
    parser.add_argument("--maildir", type=Path, metavar="DIR", help="keep the messages there (default: temporary)")
    for name, what in (
        ("--port", "smtpproxy's port"),
        ("--far-port", "port of the emulated line that leads to smtpproxy"),
        ("--legacy-port", "the legacy MTA's port"),
    ):
        parser.add_argument(name, type=_port, default=0, metavar="PORT", help=f"{what} (default: any free one)")


def main(args: argparse.Namespace) -> int:
    """Run the demo with the parsed options, return the exit status."""
    options = Options(
        once=args.once,
        round_trip=args.rtt / 1000,
        maildir=args.maildir,
        proxy_port=args.port,
        far_port=args.far_port,
        legacy_port=args.legacy_port,
    )
    try:
        return asyncio.run(run(options, sys.stdout))
    except BrokenPipeError:
        # Whoever read our output has gone. Keep the interpreter from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _milliseconds(text: str) -> float:
    value = float(text)
    if not 1 <= value <= _LONGEST_ROUND_TRIP:
        raise argparse.ArgumentTypeError(f"{text}: 1 to {_LONGEST_ROUND_TRIP:g} milliseconds")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"{text}: not a port")
    return value
