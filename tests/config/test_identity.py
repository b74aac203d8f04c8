"""Who the client is: what the backend is told, whose word is taken, and what follows for recipient_domains (S14)."""

from collections.abc import Callable

import pytest

from smtpproxy.config import Config, Networks, Trusted

Mistakes = Callable[[str], list[str]]
Loaded = Callable[[str], Config]

NO_DOMAINS = (
    "recipient_domains: missing; expected is a list of the domains that the backend receives mail for, or the word any. "
    "It may be left out where the backend learns who the client is (its setting identity: "
    "auto, xclient, proxy-v1, proxy-v2 or source-address), not with identity: "
)
EMPTY_DOMAINS = (
    "recipient_domains: at least one domain is expected, or the word any; where the backend learns who the client is "
    "(its setting identity), recipient_domains may be left out"
)


def without_domains(minimal: str) -> str:
    return minimal.replace("    recipient_domains: [example.org]\n", "")


def test_the_defaults(loaded: Loaded, minimal: str) -> None:
    config = loaded(minimal)
    (listener,) = config.listeners
    assert (listener.proxy_protocol, listener.trusted, listener.trace_header) == ("off", Trusted(), False)
    assert not listener.trusted.proxy_protocol
    assert not listener.trusted.xclient
    assert listener.auth == "tls"
    assert listener.early_pipelining.advertise_to_tls is None
    assert listener.timeouts.proxy_header == 5.0
    backend = config.backends["legacy"]
    assert (backend.identity, backend.client_name) == ("auto", "lookup")


def test_every_setting(loaded: Loaded, minimal: str) -> None:
    settings = """\
    auth: never
    proxy_protocol: required
    trusted: {proxy_protocol: [10.0.0.0/8], xclient: [all]}
    trace_header: yes
    early_pipelining: {advertise_to_tls: [192.0.2.0/24]}
    timeouts: {proxy_header: 500 ms, tls_handshake: 1 min}
backends:"""
    text = minimal.replace("backends:", settings) + "    identity: proxy-v2\n    client_name: unavailable\n"
    config = loaded(f"{text}    timeouts: {{tls_handshake: 2 s}}\n")
    (listener,) = config.listeners
    assert listener.auth == "never"
    assert listener.proxy_protocol == "required"
    assert listener.trusted == Trusted(proxy_protocol=Networks(["10.0.0.0/8"]), xclient=Networks(["all"]))
    assert listener.trace_header is True
    assert listener.early_pipelining.advertise_to_tls == Networks(["192.0.2.0/24"])
    assert listener.early_pipelining.advertise_to.everyone
    assert (listener.timeouts.proxy_header, listener.timeouts.tls_handshake) == (0.5, 60.0)
    backend = config.backends["legacy"]
    assert (backend.identity, backend.client_name, backend.timeouts.tls_handshake) == ("proxy-v2", "unavailable", 2.0)


@pytest.mark.parametrize("setting", ["off", "'off'", "no"])
def test_no_proxy_header(loaded: Loaded, minimal: str, setting: str) -> None:
    text = minimal.replace("backends:", f"    proxy_protocol: {setting}\nbackends:")
    assert loaded(text).listeners[0].proxy_protocol == "off"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("auth: off", "auth: tls, always or never is expected, not no"),
        ("proxy_protocol: on", "proxy_protocol: off, optional or required is expected, not yes"),
        ("proxy_protocol: v2", "proxy_protocol: off, optional or required is expected, not 'v2'"),
        ("trace_header: maybe", "trace_header: yes or no is expected, not 'maybe'"),
        ("trusted: [10.0.0.0/8]", "trusted: a section is expected (settings, indented below it), not a list"),
        ("trusted: {proxy: []}", "trusted.proxy: unknown key; known here are proxy_protocol, xclient"),
        (
            "trusted: {xclient: [10.0.0.1/8]}",
            "trusted.xclient[0]: '10.0.0.1/8' has bits set behind the prefix: the network is '10.0.0.0/8'",
        ),
        (
            "early_pipelining: {advertise_to_tls: }",
            "early_pipelining.advertise_to_tls: a list is expected, such as [one, two], not nothing",
        ),
        ("xclient: [10.0.0.0/8]", "xclient: unknown key; it belongs into trusted"),
        ("timeouts: {proxy_header: 0 s}", "timeouts.proxy_header: more than nothing is expected, such as '30 s'"),
    ],
)
def test_a_mistake_in_a_listener(listener_with: Mistakes, setting: str, message: str) -> None:
    assert listener_with(setting) == [message]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "identity: proxy",
            "identity: auto, xclient, proxy-v1, proxy-v2, source-address, xforward or none is expected, not 'proxy'",
        ),
        ("client_name: dns", "client_name: lookup or unavailable is expected, not 'dns'"),
    ],
)
def test_a_mistake_in_a_backend(backend_with: Mistakes, setting: str, message: str) -> None:
    assert backend_with(setting) == [message]


@pytest.mark.parametrize("mode", ["optional", "required"])
@pytest.mark.parametrize("trusted", ["", "trusted: {}", "trusted: {proxy_protocol: [], xclient: [all]}"])
def test_a_proxy_header_is_taken_from_somebody(listener_with: Mistakes, mode: str, trusted: str) -> None:
    assert listener_with(f"proxy_protocol: {mode}\n{trusted}") == [
        f"trusted.proxy_protocol: with proxy_protocol: {mode} at least one network is expected, from which a PROXY header is taken"
    ]


@pytest.mark.parametrize("identity", [None, "auto", "xclient", "proxy-v1", "proxy-v2", "source-address"])
def test_recipient_domains_may_be_left_out(loaded: Loaded, minimal: str, identity: str | None) -> None:
    setting = f"    identity: {identity}\n" if identity else ""
    assert loaded(without_domains(minimal) + setting).listeners[0].recipient_domains == ()
    assert loaded(minimal + setting).listeners[0].recipient_domains == ("example.org",)


@pytest.mark.parametrize("identity", ["xforward", "none"])
def test_recipient_domains_are_needed(mistakes: Mistakes, loaded: Loaded, minimal: str, identity: str) -> None:
    setting = f"    identity: {identity}\n"
    assert mistakes(without_domains(minimal) + setting) == [f"c.yaml:2: listeners[0].{NO_DOMAINS}{identity}"]
    assert loaded(minimal.replace("[example.org]", "any") + setting).listeners[0].recipient_domains is None


@pytest.mark.parametrize("identity", ["auto", "xforward"])
def test_an_empty_list_of_recipient_domains_is_a_mistake(mistakes: Mistakes, minimal: str, identity: str) -> None:
    text = minimal.replace("[example.org]", "[]")
    assert mistakes(f"{text}    identity: {identity}\n") == [f"c.yaml:5: listeners[0].{EMPTY_DOMAINS}"]


def test_the_backend_of_the_listener_counts(mistakes: Mistakes, minimal: str) -> None:
    text = without_domains(minimal)
    other = "  other: {servers: ['192.0.2.2:25'], identity: none}\n"
    assert mistakes(f"{text.replace('backend: legacy', 'backend: other')}{other}") == [
        f"c.yaml:2: listeners[0].{NO_DOMAINS}none"
    ]
    assert mistakes(f"{text}{other}log: 5\n") == [
        "c.yaml:9: log: a section is expected (settings, indented below it), not '5'"
    ]


@pytest.mark.parametrize("identity", ["proxy-v1", "proxy-v2", "source-address"])
@pytest.mark.parametrize("reuse", ["on", "'on'", "{}", "{idle: 1 s}"])
def test_no_reuse_of_a_session_for_one_client(backend_with: Mistakes, identity: str, reuse: str) -> None:
    assert backend_with(f"identity: {identity}\nreuse: {reuse}") == [
        f"reuse: off is expected with identity: {identity}, because such a session can serve no other client"
    ]


@pytest.mark.parametrize(
    ("identity", "reuse"),
    [("auto", "on"), ("xclient", "on"), ("none", "on"), ("proxy-v1", "off"), ("proxy-v1", "'off'")],
)
def test_reuse_elsewhere(loaded: Loaded, minimal: str, identity: str, reuse: str) -> None:
    backend = loaded(f"{minimal}    identity: {identity}\n    reuse: {reuse}\n").backends["legacy"]
    assert (backend.reuse is not None) == (reuse == "on")


def test_a_source_address_needs_our_own_sockets_and_a_port(mistakes: Mistakes, loaded: Loaded, minimal: str) -> None:
    text = f"{minimal}    identity: source-address\n"
    unix = text.replace('["192.0.2.1:25"]', '["192.0.2.1:25", "unix:/run/smtp"]')
    assert mistakes(f"{unix}service: {{transport: stock}}\n") == [
        "c.yaml:8: backends.legacy.servers[1]: a Unix socket shows no source address; identity: source-address needs a TCP port",
        "c.yaml:9: backends.legacy.identity: source-address needs service.transport: lean",
    ]
    assert loaded(f"{text}service: {{transport: lean}}\n").backends["legacy"].identity == "source-address"
    stock = loaded(f"{text}service: {{transport: stock}}\n".replace("source-address", "proxy-v1"))
    assert stock.service.transport == "stock"
