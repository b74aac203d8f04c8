"""TCP ports for servers that a test starts, when several tests run at a time.

They are below those that the kernel gives to clients (net.ipv4.ip_local_port_range begins at 32768 mostly), or a client
of another test might have taken one before its server listens; and each process that runs tests has a range of its own.

Where that is not enough (another range of the kernel, two runs at the same time), a port is kept besides: a socket
stays bound to it, which keeps out everybody but those who set SO_REUSEADDR and listen, as servers do.  Until somebody
listens, connections to it are refused.
"""

import contextlib
import itertools
import os
import socket
from collections import deque
from collections.abc import Iterator
from typing import Final

_FIRST: Final = 10_000
_OF_A_WORKER: Final = 2_500
_WORKERS: Final = 8
_MOST_KEPT: Final = 100
"""Descriptors; no test has so many servers."""


def _candidates() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    begin = os.getpid() * 37  # two runs of the same tests do not begin at the same place
    for number in itertools.count(begin):
        yield _FIRST + worker * _OF_A_WORKER + number % _OF_A_WORKER


_ports: Final = _candidates()
_kept: Final = deque[socket.socket]()


def has_ipv6() -> bool:
    """Whether this machine can talk to itself by IPv6."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on; this process gives it again only after all others."""
    for port in itertools.islice(_ports, _OF_A_WORKER):
        keeper = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            keeper.bind((host, port))
        except OSError:
            keeper.close()
            continue
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _kept.append(keeper)
        if len(_kept) > _MOST_KEPT:
            _kept.popleft().close()
        return port
    raise RuntimeError("no port is free")
