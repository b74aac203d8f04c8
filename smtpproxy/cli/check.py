"""Print every mistake of a configuration, and the certificates; with --relay, also try the backends' relaying."""

import argparse
import sys
from datetime import UTC, datetime
from typing import Final

from smtpproxy.cli import relay
from smtpproxy.cli.mailbox import mailbox
from smtpproxy.config import Config, ConfigError, load

__all__ = ["add_arguments", "main"]

_FOREIGN: Final = "relay-test@example.net"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``smtpproxy check``."""
    parser.add_argument("-c", "--config", required=True, metavar="FILE", help="the configuration")
    parser.add_argument(
        "--relay",
        action="store_true",
        help="ask every backend whether it takes a foreign recipient from here (no mail is sent)",
    )
    parser.add_argument(
        "--relay-recipient",
        type=_recipient,
        default=_FOREIGN,
        metavar="ADDRESS",
        help="the foreign recipient to try (default: %(default)s)",
    )


def main(options: argparse.Namespace) -> int:
    """Check; give 0 if there is nothing to mend, else 1."""
    try:
        config = load(options.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.config}: no mistakes")
    from smtpproxy.cli import certificates  # noqa: PLC0415  (mistakes are to be seen even where OpenSSL fails)

    status = max(certificates.check(config, datetime.now(UTC)), _check_passwords(config))
    return max(status, relay.check(config, options.relay_recipient)) if options.relay else status


def _check_passwords(config: Config) -> int:
    """Look whether every password that routes need can be read; give 0 if so, else 1."""
    from smtpproxy.net.remoteroute import SecretError, read_credentials  # noqa: PLC0415  (as above)

    status = 0
    for route in config.routes:
        try:
            read_credentials(route)
        except SecretError as error:
            print(f"route {route.domain[0]}: {error}", file=sys.stderr)
            status = 1
    return status


def _recipient(text: str) -> str:
    return mailbox(text, _FOREIGN)
