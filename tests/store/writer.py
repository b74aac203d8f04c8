"""A process that writes to a store in a file: ``python writer.py FILE WHAT``.

It says a line when something is in the file, and ends at the end of its standard input unless it is killed.
"""

import sys
import time
from pathlib import Path

from smtpproxy.store.ehlo import EhloCache, Key
from smtpproxy.store.sqlite import SqliteStore

LINES = (b"PIPELINING", b"PIPECONNECT")


def main() -> None:
    store = SqliteStore(Path(sys.argv[1]), say)
    cache = EhloCache(store, clock=time.time)
    if sys.argv[2] == "flush":
        cache.flush(Key("192.0.2.1", 25, tls=False, ehlo="me"), hold_back=True)
        said(store, "flushed")
    elif sys.argv[2] == "count":
        for _ in range(100):
            cache.confirmed(Key("192.0.2.1", 25, tls=False, ehlo="me"))
        said(store, "counted")
    else:  # until it is killed
        for port in range(1, 65536):
            cache.learned(Key("192.0.2.1", port, tls=False, ehlo="me"), LINES)
            if port % 100 == 0:
                said(store, str(port))
    sys.stdin.read()
    cache.close()


def said(store: SqliteStore, word: str) -> None:
    """Say it when all is written."""
    if store.settle(30):
        say(word)


def say(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


main()
