"""Mistakes that concern several settings of outbound listeners and of routes at once."""

import base64
from collections.abc import Callable

import pytest

from smtpproxy.config import Config
from smtpproxy.config.checks import cross_check

Mistakes = Callable[[str], list[str]]
Loaded = Callable[[str], Config]

PIN = base64.b64encode(bytes(32)).decode()

OPEN_RELAY = (
    "would make an open relay, through which anybody sends mail to anybody; "
    "expected are the addresses of your own mail servers"
)
ANYBODYS_WORD = (
    "would make an open relay: whoever may send a PROXY header can claim any address; "
    "expected are the addresses of your load balancers"
)
NO_PASS = (
    "pass is not possible with mode: outbound: among the servers of the world are some that take a bare CR or LF "
    "for a line ending, and mail could be smuggled through them"
)
NO_ROUTES = (
    "expected is a list of routes, which say where an outbound listener delivers mail, "
    'such as [{domain: "*", lookup: mx}]'
)
NO_BACKENDS = "expected is a section with one entry for each backend: an inbound listener passes mail on to one"


# Which parts of the file are needed.


def without_routes(outbound: str) -> str:
    return outbound.partition("routes:")[0]


def test_an_outbound_listener_needs_routes(mistakes: Mistakes, outbound: str) -> None:
    text = without_routes(outbound)
    assert mistakes(text) == [f"c.yaml:1: routes: missing; {NO_ROUTES}"]
    assert mistakes(f"{text}routes: []\n") == [f"c.yaml:5: routes: {NO_ROUTES}"]


@pytest.mark.parametrize("way", ["redirect", "tproxy"])
def test_a_transparent_one_does_not(mistakes: Mistakes, loaded: Loaded, outbound: str, way: str) -> None:
    text = f"{without_routes(outbound)}    transparent: {way}\n"
    assert loaded(text).routes == ()
    other = "  - {name: other, mode: outbound, listen: ['[::1]:2526']}\n"
    assert mistakes(text + other) == [f"c.yaml:1: routes: missing; {NO_ROUTES}"]


def test_an_inbound_one_needs_backends(mistakes: Mistakes, loaded: Loaded, minimal: str, outbound: str) -> None:
    text = minimal.partition("backends:")[0]
    assert mistakes(text) == [f"c.yaml:1: backends: missing; {NO_BACKENDS}"]
    assert mistakes(f"{text}backends: {{}}\n") == [f"c.yaml:6: backends: {NO_BACKENDS}"]
    assert loaded(outbound).backends == {}
    assert loaded(f"{minimal}routes: [{{domain: '*'}}]\n").routes[0].lookup == "mx"


def test_names_and_addresses_are_unique_among_all(mistakes: Mistakes, minimal: str, outbound: str) -> None:
    out = outbound.partition("\n")[2].replace("name: out", "name: mx")
    assert mistakes(minimal.replace("backends:", f"{out}backends:")) == [
        "c.yaml:6: listeners[1].name: another listener has the name 'mx' already",
        "c.yaml:8: listeners[1].listen[0]: 127.0.0.1:2525 cannot be listened on beside 127.0.0.1:2525, which is in the file already",
    ]


# Listeners.


@pytest.mark.parametrize("network", ["all", "0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/7", "2000::/3", "2000::/15"])
def test_never_an_open_relay(sender_with: Mistakes, network: str) -> None:
    assert sender_with(f"relay_from: [127.0.0.1, '{network}']") == [f"relay_from[1]: {network} {OPEN_RELAY}"]
    assert sender_with(f"proxy_protocol: optional\ntrusted: {{proxy_protocol: ['{network}']}}") == [
        f"trusted.proxy_protocol[0]: {network} {ANYBODYS_WORD}"
    ]


@pytest.mark.parametrize("network", ["10.0.0.0/8", "100.0.0.0/8", "fc00::/7", "fd00::/8", "fe80::/10", "2001::/16"])
def test_a_large_network_of_ones_own(loaded: Loaded, outbound: str, network: str) -> None:
    text = outbound.replace("routes:", f"    relay_from: ['{network}']\nroutes:")
    assert loaded(text).outbound[0].relay_from


def test_an_inbound_listener_may_trust_whom_it_wants(loaded: Loaded, minimal: str) -> None:
    text = minimal.replace("backends:", "    proxy_protocol: required\n    trusted: {proxy_protocol: [all]}\nbackends:")
    assert loaded(text).inbound[0].trusted.proxy_protocol.everyone


def test_no_bare_line_endings_for_the_world(sender_with: Mistakes) -> None:
    assert sender_with("bare_line_endings: pass") == [f"bare_line_endings: {NO_PASS}"]
    exceptions = "[{networks: [10.0.0.0/8], policy: reject}, {networks: [all], policy: pass}]"
    assert sender_with(f"bare_line_endings_exceptions: {exceptions}") == [
        f"bare_line_endings_exceptions[1].policy: {NO_PASS}"
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("protocol: lmtp", "protocol: smtp is expected with transparent: redirect: that is what the client believes to speak"),
        (
            "tls: {mode: starttls, certificates: [{cert: a, key: b}]}",
            "tls.mode: none is expected with transparent: redirect: we have no certificate of the server that the client wants",
        ),
        (
            "proxy_protocol: required\ntrusted: {proxy_protocol: [10.0.0.1]}",
            "proxy_protocol: off is expected with transparent: redirect: a client that does not know of us sends no PROXY header",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_with_transparent(
    sender_with: Mistakes, loaded: Loaded, outbound: str, settings: str, message: str
) -> None:
    assert sender_with(f"transparent: redirect\n{settings}") == [message]
    lines = "".join(f"    {line}\n" for line in settings.splitlines())
    assert loaded(outbound.replace("routes:", f"{lines}routes:")).outbound


def test_a_transparent_listener_has_ports(mistakes: Mistakes, outbound: str) -> None:
    text = outbound.replace(
        '["127.0.0.1:2525"]', '["127.0.0.1:2525", "systemd:out", "unix:/run/out"]\n    transparent: tproxy'
    )
    assert mistakes(text) == [
        "c.yaml:4: listeners[0].listen[2]: a Unix socket cannot be meant for another server; transparent: tproxy needs a TCP port"
    ]


@pytest.mark.parametrize("mark", ["25", "0x19"])
def test_a_mark_is_for_transparent_listeners(sender_with: Mistakes, mark: str) -> None:
    assert sender_with(f"mark: {mark}") == [
        "mark: looked at only with transparent: redirect or tproxy; a route has a mark of its own"
    ]


def test_an_outbound_listener_with_tls_has_a_certificate(sender_with: Mistakes) -> None:
    assert sender_with("tls: {mode: starttls}") == [
        "tls.certificates: missing; with mode: starttls at least one is expected, such as {cert: mx.pem, key: mx.key}"
    ]
    assert sender_with("proxy_protocol: optional") == [
        "trusted.proxy_protocol: with proxy_protocol: optional at least one network is expected, from which a PROXY header is taken"
    ]


def test_what_needs_our_own_sockets(mistakes: Mistakes, loaded: Loaded, outbound: str) -> None:
    listener = "    transparent: redirect\n"
    route = "    mark: 7\n    fast_open: whole_message\n"
    text = outbound.replace("routes:", f"{listener}routes:") + route
    assert mistakes(f"{text}service: {{transport: stock}}\n") == [
        "c.yaml:5: listeners[0].transparent: redirect needs service.transport: lean",
        "c.yaml:8: routes[0].mark: a mark needs service.transport: lean",
        "c.yaml:9: routes[0].fast_open: whole_message needs service.transport: lean",
    ]
    assert loaded(f"{text}service: {{transport: lean}}\n").routes[0].mark == 7
    for setting in ("mark: off", "fast_open: on", "source: {ipv4: 192.0.2.1}"):
        stock = loaded(f"{outbound}    {setting}\nservice: {{transport: stock}}\n")
        assert stock.service.transport == "stock"


# Routes.


def test_one_route_for_a_domain(mistakes: Mistakes, loaded: Loaded, outbound: str) -> None:
    more = """\
  - domain: [a.example, .a.example]
  - domain: [b.example, A.example]
  - domain: bücher.example
  - domain: [xn--bcher-kva.example, wrong-.example]
  - domain: XN--bcher-kva.example
  - domain: [.a.example, "*"]
"""
    assert mistakes(outbound + more) == [
        "c.yaml:8: routes[2].domain: another route is for 'a.example' already, so this one would never be taken",
        "c.yaml:10: routes[4].domain[1]: 'wrong-.example' is no domain: letters, digits and hyphens are expected, with dots between",
        "c.yaml:11: routes[5].domain: another route is for 'xn--bcher-kva.example' already, so this one would never be taken",
        "c.yaml:12: routes[6].domain: another route is for '.a.example' already, so this one would never be taken",
    ]
    assert len(loaded(outbound + "  - domain: [a.example, a.example]\n  - domain: .a.example\n").routes) == 3


NEXTHOPS = "nexthops: [mx.example]\n"
VERIFIED = NEXTHOPS + "tls: {mode: verified}\n"
BOTH = "lookup: not possible with nexthops: either the servers are listed, or the DNS is asked for them"
PORT = "port: looked at only with lookup: mx; each of nexthops has its own, such as host:2525"
LISTED = "looked at only with lookup: mx; a server that is listed is verified by tls.mode"
ORDER = "order: looked at only with nexthops; servers that the DNS prefers equally are always shuffled"
ANY = "which takes any certificate"
IMPLICIT = "TLS from the first octet on (tls.mode: implicit) is not spoken on port 25"
WHOM = "credentials: possible only with nexthops: a password is not for whichever server the DNS names"


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        ("lookup: mx\nnexthops: [mx.example]", [BOTH]),
        (NEXTHOPS + "port: 26", [PORT]),
        (NEXTHOPS + "port: 25", []),
        ("port: 26", []),
        (NEXTHOPS + "order: shuffle", []),
        ("order: shuffle", [ORDER]),
        ("order: listed", []),
        (NEXTHOPS + "tls: {dane: on, mta_sts: on}", [f"tls.dane: {LISTED}", f"tls.mta_sts: {LISTED}"]),
        (NEXTHOPS + "tls: {dane: off, mta_sts: off}", []),
        ("tls: {dane: on, mta_sts: on}", []),
        ("tls: {mode: none, dane: on}", ["tls.dane: not looked at with mode: none"]),
        ("tls: {mode: none, mta_sts: on, dane: off}", ["tls.mta_sts: not looked at with mode: none"]),
        ("tls: {name: mx.example}", [f"tls.name: not looked at with mode: opportunistic, {ANY}"]),
        ("tls: {mode: required, sni: mx.example, ca: ca.pem}", []),
        (f"tls: {{mode: required, pins: ['{PIN}']}}", [f"tls.pins: not looked at with mode: required, {ANY}"]),
        (f"tls: {{mode: verified, sni: mx.example, pins: ['{PIN}']}}", []),
        ("tls: {mode: verified, ca: ca.pem, name: mx.example, dane: off}", []),
        ("tls: {mode: verified, ca: system, dane: on, mta_sts: on, pins: []}", []),
        ("tls: {mode: required, ca: ca.pem, dane: on, mta_sts: on}", []),
        ("tls: {mode: verified, name: mx.example, dane: on}", ["tls.dane: not looked at where name says who the remotes are"]),
        ("tls: {mode: verified, ca: ca.pem, mta_sts: on}", ["tls.mta_sts: not looked at where ca says who the remotes are"]),
        (
            f"tls: {{mode: verified, pins: ['{PIN}'], name: mx.example, ca: ca.pem, dane: on, mta_sts: on}}",
            [
                "tls.ca: not looked at with pins: whoever signed it, the key counts",
                "tls.name: not looked at with pins; the name that is sent is the setting sni",
                "tls.dane: not looked at where pins says who the remotes are",
                "tls.mta_sts: not looked at where pins says who the remotes are",
            ],
        ),
        ("tls: {mode: implicit}\nport: 465", []),
        ("tls: {mode: implicit}\nport: 25", [f"port: {IMPLICIT}"]),
        ("tls: {mode: implicit}", [f"port: {IMPLICIT}"]),
        (
            "nexthops: ['a:465', b, '[::1]']\ntls: {mode: implicit}",
            [
                f"nexthops[1]: {IMPLICIT}; expected is a port such as b:465",
                f"nexthops[2]: {IMPLICIT}; expected is a port such as [::1]:465",
            ],
        ),
        (VERIFIED + "credentials: {user: us, password_file: a}", []),
        ("nexthops: ['h:465']\ntls: {mode: implicit}\ncredentials: {user: us, password_env: A}", []),
        (
            VERIFIED + "credentials: {user: us}",
            ["credentials.password_file: missing; expected is password_file (a file that holds nothing else) or password_env (a variable's name)"],
        ),
        (
            VERIFIED + "credentials: {user: us, password_file: a, password_env: B}",
            ["credentials.password_env: only one of password_file and password_env is possible"],
        ),
        (
            NEXTHOPS + "credentials: {user: us, password_env: B}",
            ["credentials: tls.mode: verified or implicit is expected, not opportunistic: the password would go to anybody"],
        ),
        (
            NEXTHOPS + "tls: {mode: required}\ncredentials: {user: us, password_env: B}",
            ["credentials: tls.mode: verified or implicit is expected, not required: the password would go to anybody"],
        ),
        ("tls: {mode: verified}\ncredentials: {user: us, password_env: B}", [WHOM]),
    ],
)  # fmt: skip
def test_what_goes_with_what(
    loaded: Loaded, route_with: Mistakes, outbound: str, settings: str, messages: list[str]
) -> None:
    if messages:
        assert route_with(settings) == messages
    else:
        assert loaded(outbound + "".join(f"    {line}\n" for line in settings.splitlines())).routes


@pytest.mark.parametrize(
    ("listen", "server"),
    [
        ("127.0.0.1:2525", "127.0.0.1:2525"),
        ("127.0.0.1:25", "127.0.0.1"),
        ("0.0.0.0:2525", "localhost:2525"),
        ("[::]:25", "::1"),
        ("192.0.2.1:25", "192.0.2.1"),
    ],
)
def test_a_route_does_not_lead_back(mistakes: Mistakes, outbound: str, listen: str, server: str) -> None:
    text = outbound.replace("127.0.0.1:2525", listen) + f"    nexthops: [mx.example, '{server}']\n"
    assert mistakes(text) == [
        f"c.yaml:7: routes[0].nexthops[1]: smtpproxy itself listens on {listen}: it would talk to itself"
    ]


def test_a_route_may_lead_to_our_own_inbound_listener(loaded: Loaded, minimal: str, outbound: str) -> None:
    out = outbound.partition("\n")[2].replace("2525", "2526")
    text = minimal.replace("backends:", f"{out}    nexthops: ['127.0.0.1:2525']\nbackends:")
    assert str(loaded(text).routes[0].nexthops[0]) == "127.0.0.1:2525"


OUT = {"mode": "outbound"}


@pytest.mark.parametrize(
    "data",
    [
        {"listeners": ({"mode": {}}, {"mode": "x"}, {"mode": 5, "relay_from": ("all",)}), "routes": 5},
        {"listeners": (OUT | {"transparent": {}, "trusted": 5, "mark": False},), "routes": ({"domain": 5}, 5)},
        {"listeners": (OUT | {"relay_from": 5, "trusted": {"proxy_protocol": (5, "x")}},), "routes": {}},
        {"listeners": (OUT | {"transparent": "tproxy", "tls": 5, "listen": (5,), "protocol": {}},)},
        {"listeners": (OUT | {"bare_line_endings": {}, "bare_line_endings_exceptions": (5,)},), "routes": 5},
        {"routes": ({"tls": 5, "nexthops": 5, "credentials": 5, "port": {}},), "cache": 5, "backends": 5},
        {"routes": ({"tls": {"mode": {}}, "nexthops": (5, {}), "credentials": {"password_env": 5}},)},
        {"routes": ({"tls": {"mode": "x", "name": 5}, "order": {}, "lookup": {}},), "cache": {"store": 5}},
        {"cache": {"store": {}, "password_env": 5}, "service": {"transport": {}}},
    ],
)
def test_what_is_wrong_in_itself_is_passed_over(data: object) -> None:
    assert list(cross_check(data)) == []
