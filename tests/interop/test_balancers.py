"""Load balancers in front of smtpproxy: HAProxy by the PROXY protocol, nginx by XCLIENT, another smtpproxy by either.
Limits, the log and the Postfix behind are about the real client.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from .balancers import HAProxy, haproxy, nginx
from .clients import RECIPIENT, burst, name_for, post, send_at_once
from .conversation import codes, conversation
from .doors import FRIEND, STRANGER
from .fronts import Front, Way, fronts, tls
from .lab import wait_for
from .messages import assert_intact, sample
from .postfix import Postfix

pytestmark = pytest.mark.interop

UNNAMED = {"client_name": "unavailable"}
BALANCER = "127.0.0.99"
BEHIND_HAPROXY = {"recipient_domains": None, "trusted": {"proxy_protocol": ["127.0.0.1", BALANCER]}}
EARLY_REPLIES = [220, 250, 250, 250, 250, 221]


@pytest.fixture(scope="module")
def way(postfix_doors: Postfix, server_pair: Any) -> Iterator[dict[str, Front]]:
    """Listeners behind load balancers, all with the Postfix that takes XCLIENT behind them."""
    port = postfix_doors.ports["xclient"]
    required = {**BEHIND_HAPROXY, "proxy_protocol": "required"}
    named = {"recipient_domains": None, "trusted": {"xclient": ["127.0.0.1", BALANCER]}}
    ways = {
        "required": Way(port, UNNAMED, {**required, **tls("starttls", server_pair)}),
        "implicit": Way(port, UNNAMED, {**required, **tls("implicit", server_pair)}),
        "optional": Way(port, UNNAMED, {**BEHIND_HAPROXY, "proxy_protocol": "optional"}),
        "limited": Way(port, UNNAMED, {**required, "limits": {"sessions_per_client": 1}}),
        "xclient": Way(port, UNNAMED, named),
        "xclient-lazy": Way(port, {**UNNAMED, "connect": "lazy"}, named),
    }
    anybody = {"recipient_domains": None}
    with fronts(ways) as made:
        in_front = {
            "first-v1": Way(made["required"].port, {"identity": "proxy-v1"}, anybody),
            "first-v2": Way(made["required"].port, {"identity": "proxy-v2"}, anybody),
            "first-xclient": Way(made["xclient"].port, UNNAMED, anybody),
        }
        with fronts(in_front) as more:
            yield made | more


@pytest.fixture(scope="module")
def balancer(way: dict[str, Front]) -> Iterator[HAProxy]:
    """An HAProxy in front of them."""
    smtp_check = "option smtpchk EHLO haproxy.lab.test;check send-proxy-v2"
    servers = {
        "v1": (way["required"].port, "send-proxy"),
        "v2": (way["required"].port, "send-proxy-v2"),
        "optional": (way["optional"].port, "send-proxy-v2"),
        "implicit": (way["implicit"].port, "send-proxy-v2"),
        "limited": (way["limited"].port, "send-proxy-v2"),
        "tcp-check": (way["required"].port, "check send-proxy-v2"),
        "smtp-check": (way["required"].port, smtp_check),
        "tls-check": (way["implicit"].port, f"{smtp_check} check-ssl verify none"),
    }
    with haproxy(servers) as made:
        yield made


@pytest.fixture(scope="module")
def mail_proxy(way: dict[str, Front]) -> Iterator[int]:
    """An nginx in front of them."""
    with nginx(way["xclient"].port) as port:
        yield port


@pytest.mark.parametrize("name", ["v1", "v2", "optional"])
def test_haproxy_tells_who_the_client_is(
    postfix_doors: Postfix, way: dict[str, Front], balancer: HAProxy, name: str
) -> None:
    """Polite and in one flight; the log has the client and the load balancer, Postfix the client and its port."""
    front = way["optional" if name == "optional" else "required"]
    for early in (False, True):
        message = sample()
        if early:
            port, answers = send_at_once(balancer.ports[name], burst(message), source=STRANGER)
            assert answers == EARLY_REPLIES
        else:
            port = post(balancer.ports[name], message, source=STRANGER)
        assert postfix_doors.arrival(message) == f"unknown[{STRANGER}]:{port}"
        assert_intact(postfix_doors.delivered(), message)
        session = front.session(message)
        assert (session["client"], session["via"], session["end"]) == (STRANGER, "127.0.0.1", "quit")


def test_a_server_behind_haproxy_judges_by_the_client(postfix_doors: Postfix, balancer: HAProxy) -> None:
    for source, expected in ((FRIEND, 250), (STRANGER, 554)):
        message = sample()
        octets = burst(message, "somebody@foreign.test", RECIPIENT)
        assert send_at_once(balancer.ports["v2"], octets, source=source)[1] == [220, 250, 250, expected, 250, 250, 221]
        taken = ("somebody@foreign.test", RECIPIENT) if source == FRIEND else (RECIPIENT,)
        assert_intact(postfix_doors.delivered(), message, taken)


@pytest.mark.parametrize("name", ["v1", "v2", "implicit"])
def test_tls_behind_haproxy(
    postfix_doors: Postfix, way: dict[str, Front], balancer: HAProxy, lasting_pki: Any, name: str
) -> None:
    """The header comes before the handshake, and the client is known inside TLS too."""
    message = sample()
    context = ssl.create_default_context(cafile=str(lasting_pki.root.path))
    options: dict[str, Any] = {"local_hostname": name_for(message), "timeout": 30, "source_address": (STRANGER, 0)}
    if name == "implicit":
        client: smtplib.SMTP = smtplib.SMTP_SSL("127.0.0.1", balancer.ports[name], context=context, **options)
    else:
        client = smtplib.SMTP("127.0.0.1", balancer.ports[name], **options)
        client.starttls(context=context)
    with client:
        client.sendmail("sender@lab.test", [RECIPIENT], message.wire)
    assert postfix_doors.arrival(message).startswith(f"unknown[{STRANGER}]:")
    assert_intact(postfix_doors.delivered(), message)
    session = way["implicit" if name == "implicit" else "required"].session(message)
    assert (session["client"], session["via"], session["tls"]) == (STRANGER, "127.0.0.1", "TLSv1.3")


@pytest.mark.parametrize(
    ("name", "status"), [("tcp-check", "L4OK"), ("smtp-check", "L7OK"), ("tls-check", "L7OK")], ids=str
)
def test_health_checks_of_haproxy(way: dict[str, Front], balancer: HAProxy, name: str, status: str) -> None:
    """They come as LOCAL, which is nobody's connection; HAProxy is content, and the log is not loud about them."""
    front = way["implicit" if name == "tls-check" else "required"]
    watch = front.watch()
    wait_for(lambda: balancer.health(name) == status, f"{status} of HAProxy, which says {balancer.health(name)}")
    sessions = wait_for(lambda: watch.events("session"), "a check in the log")
    for session in sessions:
        if "via" not in session:
            assert session["client"] == "127.0.0.1"
    assert [event for event in front.events() if event["level"] not in {"info", "debug"}] == []


def test_limits_are_the_clients_not_the_balancers(way: dict[str, Front], balancer: HAProxy) -> None:
    """One session for each client: a second one of the same client is turned away, another client is not."""
    watch = way["limited"].watch()
    port = balancer.ports["limited"]
    with conversation(port, source=STRANGER) as first:
        assert first.reply().code == 220
        with conversation(port, source=STRANGER) as second:
            assert codes(second.replies()) == [421]
        with conversation(port, source=FRIEND) as other:
            assert other.reply().code == 220
        assert first.ask(b"NOOP").code == 250
    refused = watch.one("session_refused")
    assert (refused["client"], refused["why"]) == (STRANGER, "too many sessions from this client")


@pytest.mark.parametrize(
    "header",
    [b"PROXY TCP4 127.0.0.66 127.0.0.1 4242 25\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", b""],
    ids=["v1", "v2 LOCAL", "none"],
)
def test_who_is_not_the_balancer_is_turned_away(way: dict[str, Front], header: bytes) -> None:
    """H6: where the header is required only those who may send one get in; `optional` does not believe them."""
    watch = way["required"].watch()
    answers = send_at_once(way["required"].port, header + burst(sample()), source=STRANGER)[1]
    assert answers == [421]
    refused = watch.one("session_refused")
    assert (refused["client"], refused["why"]) == (STRANGER, "not allowed to connect")


def test_optional_serves_direct_clients_too(postfix_doors: Postfix, way: dict[str, Front]) -> None:
    """One who is no load balancer, and one at the load balancer's address who sends no header."""
    for source in (STRANGER, BALANCER):
        message = sample()
        port, answers = send_at_once(way["optional"].port, burst(message), source=source)
        assert answers == EARLY_REPLIES
        assert postfix_doors.arrival(message) == f"unknown[{source}]:{port}"
        assert_intact(postfix_doors.delivered(), message)


@pytest.mark.parametrize("source", [STRANGER, FRIEND])
def test_nginx_tells_who_the_client_is(
    postfix_doors: Postfix, way: dict[str, Front], mail_proxy: int, source: str
) -> None:
    """By XCLIENT, behind an EHLO of its own; it says neither the client's port nor its name."""
    message = sample()
    with smtplib.SMTP("127.0.0.1", mail_proxy, name_for(message), timeout=30, source_address=(source, 0)) as client:
        refused = client.sendmail("sender@lab.test", [RECIPIENT, "somebody@foreign.test"], message.wire)
    assert [reply[0] for reply in refused.values()] == ([] if source == FRIEND else [554])
    assert postfix_doors.arrival(message) == f"unknown[{source}]:unknown"
    taken = (RECIPIENT, "somebody@foreign.test") if source == FRIEND else (RECIPIENT,)
    assert_intact(postfix_doors.delivered(), message, taken)
    session = way["xclient"].session(message)
    assert (session["client"], session["via"]) == (source, "127.0.0.1")


@pytest.mark.parametrize("name", ["xclient", "xclient-lazy"])
@pytest.mark.parametrize("helo", [True, False], ids=["with an EHLO of its own", "at once"])
def test_a_trusted_proxy_that_the_backend_would_not_believe(
    postfix_doors: Postfix, way: dict[str, Front], name: str, *, helo: bool
) -> None:
    """Postfix takes XCLIENT once in a session, and from us alone: what we told it of the proxy must not be the end."""
    for source in (STRANGER, FRIEND):
        message = sample()
        xclient = b"XCLIENT ADDR=%s PORT=4242 NAME=[UNAVAILABLE]" % source.encode()
        with conversation(way[name].port, source=BALANCER) as client:
            assert client.reply().code == 220
            if helo:
                assert client.ask(b"EHLO balancer.lab.test").code == 250
            assert client.ask(xclient).code == 220
            client.send_octets(burst(message, "somebody@foreign.test", RECIPIENT))
            answers = codes(client.replies())
        assert answers == [250, 250, 250 if source == FRIEND else 554, 250, 250, 221]
        assert postfix_doors.arrival(message) == f"unknown[{source}]:4242"
        postfix_doors.delivered()


@pytest.mark.parametrize("name", ["first-v1", "first-v2", "first-xclient"])
def test_two_of_us_in_a_row(postfix_doors: Postfix, way: dict[str, Front], name: str) -> None:
    """What the first one says, the second one understands and says to Postfix."""
    for early in (False, True):
        message = sample()
        if early:
            port, answers = send_at_once(way[name].port, burst(message), source=STRANGER)
            assert answers == EARLY_REPLIES
        else:
            port = post(way[name].port, message, source=STRANGER)
        assert postfix_doors.arrival(message) == f"unknown[{STRANGER}]:{port}"
        assert_intact(postfix_doors.delivered(), message)
