"""Addresses of mailboxes on the command line."""

import argparse
import re
from typing import Final

__all__ = ["mailbox"]

_MAILBOX: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+", re.ASCII)


def mailbox(text: str, example: str) -> str:
    """Give ``text``, if it is a mailbox plain enough to be sent as it is: RFC 5321, 4.1.2, without quoting.

    Raises argparse.ArgumentTypeError, which shows ``example``, if not.
    """
    if not _MAILBOX.fullmatch(text):
        raise argparse.ArgumentTypeError(f"an address such as {example} is expected")
    return text
