"""What a transparent listener takes of the routes, and what listeners beside it take of what it has."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from twisted.internet.testing import MemoryReactorClock

from smtpproxy.config.load import parse
from smtpproxy.net.sweep import Sweep
from smtpproxy.net.transparent import Destination
from smtpproxy.outbound import Outbound
from smtpproxy.session.outbound.target import Target, TlsWish, Unroutable

WORLD = Destination("198.51.100.7", 25)
LISTENERS = """\
listeners:
  - {name: transparent, mode: outbound, transparent: redirect, mark: off, listen: ["127.0.0.1:2525"]}
  - {name: smarthost, mode: outbound, listen: ["127.0.0.1:2526"]}
cache: {store: "memory:"}
"""


@contextmanager
def outbound(text: str) -> Iterator[Outbound]:
    """What is made of a configuration."""
    reactor = MemoryReactorClock()
    config = parse("c.yaml", LISTENERS + text)
    sweep = Sweep(reactor, 1.0, time.monotonic)
    made = Outbound(config, reactor, Mock(), sweep, report=Mock(), server_tls={}, before=None)
    try:
        yield made
    finally:
        made.retire()
        made.stop([])


def target(made: Outbound) -> Target:
    """Where a message of the transparent listener goes."""
    found: list[list[Target] | Unroutable] = []
    session: Any = Mock(destination=WORLD)
    routed = made.contexts["transparent"].route("example.org", WORLD)
    assert routed is not None
    made.contexts["transparent"].targets(session, Mock(route=routed[0]), found.append)
    assert isinstance(found[0], list)
    (only,) = found[0]
    return only


def test_the_default_route_of_a_transparent_listener_is_for_nobody_else() -> None:
    with outbound('routes: [{domain: example.org, nexthops: ["203.0.113.9"]}]') as made:
        smarthost = made.contexts["smarthost"]
        assert smarthost.route("example.org", None) is not None
        assert smarthost.route("example.net", None) is None
        assert (target(made).name, target(made).tls) == ("198.51.100.7:25", TlsWish.OPPORTUNISTIC)


def test_a_password_is_for_the_next_hops_of_its_route_only(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("geheim\n")
    route = f"""\
routes:
  - domain: "*"
    nexthops: ["203.0.113.9"]
    tls: {{mode: verified, name: mail.example.net}}
    credentials: {{user: us, password_file: {tmp_path / "secret"}}}
"""
    with outbound(route) as made:
        found: list[Any] = []
        routed = made.contexts["smarthost"].route("example.org", None)
        assert routed is not None
        recipient = Mock(rcpt=Mock(domain="example.org"))
        delivery: Any = Mock(route=routed[0], recipients=[recipient])
        session: Any = Mock(destination=None)
        made.contexts["smarthost"].targets(session, delivery, found.append)
        assert found[0][0].credentials.password == "geheim"
        assert target(made).credentials is None
        assert target(made).tls is TlsWish.VERIFIED


@pytest.mark.parametrize(("star", "other"), [("no", "yes"), ("yes", "no")])
def test_only_the_route_for_all_domains_counts_for_what_is_offered(star: str, other: str) -> None:
    routes = f"""\
routes:
  - {{domain: example.org, nexthops: ["203.0.113.9"], dsn: {other}}}
  - {{domain: "*", lookup: mx, dsn: {star}}}
"""
    with outbound(routes) as made:
        assert made.contexts["transparent"].policy(secure=False).dsn is (star == "yes")
        assert made.contexts["smarthost"].policy(secure=False).dsn is False
