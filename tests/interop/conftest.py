"""Fixtures of the interoperation tests: private mail servers that a whole run shares, and clients that a
test has for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from .doors import DOORS, settings_of_doors
from .exim import Exim
from .exim_server import EximServer, exim_server
from .lab import open_folder
from .opensmtpd import OpenSmtpd, opensmtpd
from .postfix import LOCKSTEP, NO_CHUNKING, Postfix, postfix
from .proxy import Proxy, Settings, proxy
from .relay import RecordingRelay, recording_relay

Backend = Postfix | OpenSmtpd | EximServer
Serve = Callable[..., Proxy]
MakeExim = Callable[..., Exim]

# How the proxy keeps its backend sessions (`backends.NAME` of the configuration).
CONNECT_MODES: dict[str, dict[str, Any]] = {
    "eager": {"connect": "eager"},
    "lazy": {"connect": "lazy"},
    "reuse": {"connect": "lazy", "reuse": True},
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what the smtpproxies that it may have used have logged last."""
    report = yield
    if report.failed and item.get_closest_marker("interop"):
        report.sections += [
            (f"smtpproxy on port {instance.port}", instance.log()[-3000:]) for instance in Proxy.running
        ]
    return report


@pytest.fixture(scope="session")
def serve() -> Iterator[Serve]:
    """Gives a running smtpproxy for the arguments of `proxy`: the same one for the same arguments.

    One process serves many tests, as it would in earnest; all are stopped at the end of the run, each with
    exit status 0. Tests that stop servers have a proxy of their own.
    """
    with ExitStack() as stack:
        shared: dict[str, Proxy] = {}

        def give(*backends: int, backend: Settings | None = None, listener: Settings | None = None) -> Proxy:
            key = repr((backends, backend, listener))
            if key not in shared:
                shared[key] = stack.enter_context(proxy(*backends, backend=backend, listener=listener))
            return shared[key]

        yield give


@pytest.fixture(scope="session")
def postfix_plain() -> Iterator[Postfix]:
    """A Postfix with everything that it offers, PIPELINING and CHUNKING included."""
    with postfix() as server:
        yield server


@pytest.fixture(scope="session")
def server_pair(lasting_pki: Any) -> Any:
    """A certificate for all names that servers go by here, and its key."""
    return lasting_pki.pair(["mx.lab.test", "proxy.lab.test", "localhost", "127.0.0.1"])


@pytest.fixture(scope="session")
def postfix_doors(lasting_pki: Any, server_pair: Any) -> Iterator[Postfix]:
    """A Postfix that trusts the client 127.0.0.66 alone, and has a port for each way to be told of clients, and of
    TLS.
    """
    with postfix(settings_of_doors(lasting_pki.root, server_pair), DOORS) as server:
        yield server


@pytest.fixture(scope="session")
def postfix_lockstep() -> Iterator[Postfix]:
    """A Postfix that hides PIPELINING and CHUNKING."""
    with postfix(LOCKSTEP) as server:
        yield server


@pytest.fixture(scope="session")
def postfix_without_chunking() -> Iterator[Postfix]:
    """A Postfix that hides CHUNKING only."""
    with postfix(NO_CHUNKING) as server:
        yield server


@pytest.fixture(scope="session")
def opensmtpd_plain() -> Iterator[OpenSmtpd]:
    """An OpenSMTPD."""
    with opensmtpd() as server:
        yield server


@pytest.fixture(scope="session")
def exim_backend() -> Iterator[EximServer]:
    """An Exim with users."""
    with exim_server() as server:
        yield server


@pytest.fixture(params=["postfix_plain", "postfix_lockstep", "opensmtpd_plain"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each kind of server that does not know early pipelining, in turn."""
    server: Backend = request.getfixturevalue(request.param)
    return server


@pytest.fixture(params=["postfix_plain", "postfix_lockstep", "opensmtpd_plain", "exim_backend"])
def any_backend(request: pytest.FixtureRequest) -> Backend:
    """Each kind of mail server in turn."""
    server: Backend = request.getfixturevalue(request.param)
    return server


@pytest.fixture(params=list(CONNECT_MODES))
def connect_mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each way of keeping backend sessions in turn, as settings of the backend."""
    return CONNECT_MODES[request.param]


@pytest.fixture(scope="module")
def switch() -> Iterator[RecordingRelay]:
    """A relay whose target a test sets: so that one client has several servers, or one proxy several
    backends.
    """
    with recording_relay(0) as relay:
        yield relay


@pytest.fixture
def make_exim() -> Iterator[MakeExim]:
    """Makes Exims (same arguments as the class, less the folder) that know nothing yet; their folders are
    removed at the end.
    """
    with ExitStack() as stack:
        yield lambda port, **options: Exim(stack.enter_context(open_folder("exim")), port, **options)
