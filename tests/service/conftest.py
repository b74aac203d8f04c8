"""Mail servers and proxies for one test each, all ended with it; and one proxy with many listeners for many tests."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .mta import Mta, Script
from .process import Process

TRANSPORTS = ("lean", "stock")
MakeMta = Callable[..., Mta]
MakeProxy = Callable[..., Process]


def serving(stack: ExitStack, address: Any = ("127.0.0.1", 0), receive_buffer: int = 0, **script: Any) -> Mta:
    """A server at that address until the stack is unwound."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listening = socket.socket(family)
    if receive_buffer:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    listening.bind(address)
    listening.listen()
    mta = Mta(listening, Script(**script))
    stack.callback(mta.close)
    return mta


@pytest.fixture
def mta() -> Iterator[MakeMta]:
    """Start a server: ``mta(greeting=…, extensions=…, replies={…})``."""
    with ExitStack() as stack:
        yield lambda address=("127.0.0.1", 0), **script: serving(stack, address, **script)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[MakeProxy]:
    """Prepare a proxy, which the test configures and starts: ``proxy(arguments=["-v"])``."""
    made: list[Process] = []

    def make(**options: Any) -> Process:
        made.append(Process(tmp_path / str(len(made)), **options))
        return made[-1]

    yield make
    for process in made:
        process.kill()
