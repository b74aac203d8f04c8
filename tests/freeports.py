"""TCP ports for servers that a test starts, when several tests run at a time.

They are below those that the kernel gives to clients (net.ipv4.ip_local_port_range begins at 32768), or a client of
another test might have taken one before its server listens; and each process that runs tests has a range of its own.
"""

import itertools
import os
import socket
from collections.abc import Iterator
from typing import Final

_FIRST: Final = 10_000
_OF_A_WORKER: Final = 2_500
_WORKERS: Final = 8


def _candidates() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    begin = os.getpid() * 37  # two runs of the same tests do not begin at the same place
    for number in itertools.count(begin):
        yield _FIRST + worker * _OF_A_WORKER + number % _OF_A_WORKER


_ports: Final = _candidates()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on; this process gives it again only after all others."""
    for port in itertools.islice(_ports, _OF_A_WORKER):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")
