"""Outbound listeners, and the sections cache, dns and mta_sts: how each setting is written, the words for mistakes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from smtpproxy.config import (
    Cache,
    Config,
    Dns,
    EarlyPipelining,
    Endpoint,
    InboundListener,
    Listener,
    ListenerTimeouts,
    ListenerTls,
    MtaSts,
    Networks,
    OutboundListener,
    Speculate,
    TrustedProxies,
)

Mistakes = Callable[[str], list[str]]
Loaded = Callable[[str], Config]

NETWORK = "a network such as 192.0.2.0/24 or 2001:db8::/32 is expected, or the word all"
ONE_HOST = "the address of one host is expected, in quotes, such as '192.0.2.5'"
NO_MARK = "a number from 1 to 0xffffffff is expected, or the word off"
NO_DURATION = "a number with a unit is expected: ms, s, min, h or d, such as '30 s' or '5 min'"
NO_SECTION = "a section is expected (settings, indented below it)"


def sender(loaded: Loaded, text: str, setting: str = "") -> OutboundListener:
    (listener,) = loaded(text.replace("routes:", f"    {setting}\nroutes:")).outbound
    return listener


def test_the_defaults(loaded: Loaded, outbound: str) -> None:
    listener = sender(loaded, outbound)
    assert (listener.name, listener.mode, listener.protocol) == ("out", "outbound", "smtp")
    assert listener.listen == (Endpoint("tcp", host="127.0.0.1", port=2525),)
    assert "127.0.0.1" in listener.relay_from
    assert "::1" in listener.relay_from
    assert "::ffff:127.0.0.1" in listener.relay_from
    assert "192.0.2.1" not in listener.relay_from
    assert "" not in listener.relay_from
    assert (listener.own_addresses, listener.transparent, listener.mark) == ((), "off", None)
    assert listener.speculate == Speculate(size=262144, confirmed=2, patience=0.05)
    assert (listener.tls, listener.proxy_protocol, listener.trusted) == (ListenerTls(), "off", TrustedProxies())
    assert (listener.early_pipelining, listener.chunking, listener.nul) == (EarlyPipelining(), True, "reject")
    assert (listener.bare_line_endings, listener.bare_line_endings_exceptions) == ("normalize", ())
    assert (listener.backlog, listener.fast_open, listener.trace_header) == (1024, 256, False)
    assert (listener.limits.sessions_per_client, listener.limits.recipients) == (1000, 1000)
    assert listener.timeouts == ListenerTimeouts()


def test_the_defaults_of_the_other_sections(loaded: Loaded, outbound: str) -> None:
    config = loaded(outbound)
    assert (config.backends, config.cache, config.dns, config.mta_sts) == ({}, Cache(), Dns(), MtaSts())
    cache, dns, mta_sts = Cache(), Dns(), MtaSts()
    assert (cache.store, cache.ttl, cache.entries) == ("sqlite:/var/lib/smtpproxy/cache.db", 86400.0, 100_000)
    assert (cache.hold_back, cache.hold_back_most, cache.password_env) == (3600.0, 86400.0, None)
    assert (dns.servers, dns.timeout, dns.lifetime, dns.entries) == ("system", 5.0, 20.0, 10_000)
    assert (dns.ttl_most, dns.ttl_negative_most, dns.trust_ad) == (86400.0, 900.0, "auto")
    assert (mta_sts.timeout, mta_sts.entries, mta_sts.ca) == (10.0, 10_000, "system")


def test_both_kinds_of_listeners(loaded: Loaded, minimal: str, outbound: str) -> None:
    text = minimal.replace("  - name: mx\n", "  - name: mx\n    mode: inbound\n").replace(
        "backends:", outbound.partition("\n")[2].replace("2525", "2526") + "backends:"
    )
    config = loaded(text)
    assert [listener.name for listener in config.listeners] == ["mx", "out"]
    assert [listener.name for listener in config.inbound] == ["mx"]
    assert [listener.name for listener in config.outbound] == ["out"]
    assert isinstance(config.listeners[0], Listener)
    assert InboundListener is Listener


def test_a_reload_of_the_same_file_is_equal(loaded: Loaded, project: Path) -> None:
    text = (project / "etc/smarthost.yaml").read_text()
    config = loaded(text)
    assert config == loaded(text)
    assert len({*config.routes, *loaded(text).routes}) == len(config.routes)
    assert config != loaded(text.replace("idle: 30 s ", "idle: 31 s "))
    assert config != loaded(text.replace("patience: 50 ms ", "patience: 51 ms "))


def test_every_kind_of_value(loaded: Loaded, outbound: str) -> None:
    settings = """\
    protocol: lmtp
    hostname: mail.example.org
    own_addresses: [203.0.113.5, "2001:DB8:0::5"]
    relay_from: [10.0.0.0/8, fc00::/7, 192.0.2.1]
    speculate: {size: 1 MiB, confirmed: 0, patience: 0 s}
    tls: {mode: starttls, certificates: [{cert: a.pem, key: a.key}]}
    proxy_protocol: optional
    trusted: {proxy_protocol: [10.0.0.1]}
    trace_header: yes
    early_pipelining: {advertise_to: []}
    chunking: no
    bare_line_endings: reject
    bare_line_endings_exceptions: [{networks: [10.0.0.0/8], policy: normalize}]
    nul: pass
    backlog: 5
    fast_open: off
    limits: {sessions_per_client: 7, recipients: 9}
    timeouts: {command: 10 min}
routes:"""
    others = """\
cache:
  store: redis://us@127.0.0.1:6379/2
  ttl: 2 d
  entries: 5
  hold_back: 5 min
  hold_back_most: 5 min
  password_env: CACHE_PASSWORD
dns:
  servers: ["127.0.0.1", "::1", "[::1]:5353", "192.0.2.1:53"]
  timeout: 1 s
  lifetime: 1 s
  entries: 1
  ttl_most: 1 h
  ttl_negative_most: 1 min
  trust_ad: yes
mta_sts: {timeout: 1 s, entries: 1, ca: /ca.pem}
"""
    config = loaded(outbound.replace("routes:", settings) + others)
    (listener,) = config.outbound
    assert (listener.protocol, listener.hostname) == ("lmtp", "mail.example.org")
    assert listener.own_addresses == ("203.0.113.5", "2001:db8::5")
    assert listener.relay_from == Networks(["10.0.0.0/8", "fc00::/7", "192.0.2.1"])
    assert listener.speculate == Speculate(size=2**20, confirmed=0, patience=0.0)
    assert (listener.tls.mode, listener.proxy_protocol, listener.trace_header) == ("starttls", "optional", True)
    assert listener.trusted == TrustedProxies(proxy_protocol=Networks(["10.0.0.1"]))
    assert not listener.early_pipelining.advertise_to
    assert (listener.chunking, listener.bare_line_endings, listener.nul) == (False, "reject", "pass")
    assert listener.bare_line_endings_exceptions[0].policy == "normalize"
    assert (listener.backlog, listener.fast_open) == (5, 0)
    assert (listener.limits.sessions_per_client, listener.limits.recipients) == (7, 9)
    assert listener.timeouts.command == 600.0
    assert config.cache == Cache(
        store="redis://us@127.0.0.1:6379/2",
        ttl=172800.0,
        entries=5,
        hold_back=300.0,
        hold_back_most=300.0,
        password_env="CACHE_PASSWORD",
    )
    assert isinstance(config.dns.servers, tuple)
    assert list(map(str, config.dns.servers)) == ["127.0.0.1:53", "[::1]:53", "[::1]:5353", "192.0.2.1:53"]
    assert (config.dns.timeout, config.dns.lifetime, config.dns.entries) == (1.0, 1.0, 1)
    assert (config.dns.ttl_most, config.dns.ttl_negative_most, config.dns.trust_ad) == (3600.0, 60.0, "yes")
    assert config.mta_sts == MtaSts(timeout=1.0, entries=1, ca=Path("/ca.pem"))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("off", None),
        ("'off'", None),
        ("on", Speculate()),
        ("{}", Speculate()),
        ("{confirmed: 5}", Speculate(confirmed=5)),
    ],
)
def test_speculate_is_a_switch_or_a_section(
    loaded: Loaded, outbound: str, setting: str, expected: Speculate | None
) -> None:
    assert sender(loaded, outbound, f"speculate: {setting}").speculate == expected


@pytest.mark.parametrize(
    ("setting", "way", "mark"),
    [
        ("transparent: off", "off", None),
        ("transparent: 'off'", "off", None),
        ("transparent: redirect", "redirect", 25),
        ("transparent: tproxy", "tproxy", 25),
        ("{transparent: redirect, mark: off}", "redirect", None),
        ("{transparent: redirect, mark: 0x5350}", "redirect", 0x5350),
        ("{transparent: tproxy, mark: 4294967295}", "tproxy", 0xFFFFFFFF),
        ("{mark: off}", "off", None),
    ],
)
def test_a_transparent_listener_marks_its_connections(
    loaded: Loaded, outbound: str, setting: str, way: str, mark: int | None
) -> None:
    text = outbound.replace("    listen:", f"    {setting.strip('{}').replace(', ', chr(10) + '    ')}\n    listen:")
    listener = sender(loaded, text)
    assert (listener.transparent, listener.mark) == (way, mark)


def test_a_model_can_be_built_without_a_file() -> None:
    endpoints = (Endpoint("tcp", host="::1", port=25),)
    assert OutboundListener(name="x", listen=endpoints, transparent="redirect").mark == 25
    assert OutboundListener(name="x", listen=endpoints, transparent="redirect", mark=7, fast_open=0).mark == 7
    assert Dns(servers=endpoints, trust_ad="no").servers == endpoints


@pytest.mark.parametrize("fast_open", [0, 1, 65535])
def test_the_queue_of_fast_open(loaded: Loaded, minimal: str, fast_open: int) -> None:
    text = minimal.replace("backends:", f"    fast_open: {fast_open}\nbackends:")
    assert loaded(text).listeners[0].fast_open == fast_open


@pytest.mark.parametrize("store", ["memory:", "sqlite:/a b/c", "redis://h:1", "redis://u@[::1]:6379/0", "unix:/run/v"])
def test_where_the_cache_can_be(loaded: Loaded, outbound: str, store: str) -> None:
    assert loaded(f"{outbound}cache: {{store: '{store}'}}\n").cache.store == store


@pytest.mark.parametrize(("setting", "seconds"), [("off", 0.0), ("'off'", 0.0), ("0 s", 0.0), ("1 min", 60.0)])
def test_hold_back(loaded: Loaded, outbound: str, setting: str, seconds: float) -> None:
    assert loaded(f"{outbound}cache: {{hold_back: {setting}}}\n").cache.hold_back == seconds


@pytest.mark.parametrize(
    ("setting", "word"), [("yes", "yes"), ("no", "no"), ("'no'", "no"), ("auto", "auto"), ("on", "yes")]
)
def test_whether_a_resolver_is_believed(loaded: Loaded, outbound: str, setting: str, word: str) -> None:
    assert loaded(f"{outbound}dns: {{trust_ad: {setting}}}\n").dns.trust_ad == word


# Mistakes.


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("protocol: esmtp", "protocol: smtp or lmtp is expected, not 'esmtp'"),
        ("transparent: on", "transparent: off, redirect or tproxy is expected, not yes"),
        ("transparent: nat", "transparent: off, redirect or tproxy is expected, not 'nat'"),
        ("own_addresses: 203.0.113.5", "own_addresses: a list is expected, such as [one, two], not '203.0.113.5'"),
        ("own_addresses: [203.0.113.0/24]", f"own_addresses[0]: {ONE_HOST}, not '203.0.113.0/24'"),
        ("own_addresses: [203.0.113.5, mail.example.org]", f"own_addresses[1]: {ONE_HOST}, not 'mail.example.org'"),
        ("own_addresses: [0.0.0.0]", f"own_addresses[0]: {ONE_HOST}, not '0.0.0.0'"),
        ("own_addresses: ['ff02::1']", f"own_addresses[0]: {ONE_HOST}, not 'ff02::1'"),
        ("own_addresses: [25]", f"own_addresses[0]: {ONE_HOST}, not '25'"),
        ("relay_from: 10.0.0.0/8", "relay_from: a list is expected, such as [one, two], not '10.0.0.0/8'"),
        ("relay_from: [here]", f"relay_from[0]: {NETWORK}, not 'here'"),
        ("relay_from:", "relay_from: a list is expected, such as [one, two], not nothing"),
        ("relay_from: [10.0.0.1/8]", "relay_from[0]: '10.0.0.1/8' has bits set behind the prefix: the network is '10.0.0.0/8'"),
        ("{transparent: redirect, mark: 0}", f"mark: {NO_MARK}, not '0'"),
        ("{transparent: redirect, mark: on}", f"mark: {NO_MARK}, not yes"),
        ("{transparent: redirect, mark: 0x100000000}", f"mark: {NO_MARK}, not '0x100000000'"),
        ("{transparent: redirect, mark: 4294967296}", f"mark: {NO_MARK}, not '4294967296'"),
        ("{transparent: redirect, mark: -1}", f"mark: {NO_MARK}, not '-1'"),
        ("{transparent: redirect, mark: '25'}", f"mark: {NO_MARK}, not '25'"),
        ("{transparent: redirect, mark: }", f"mark: {NO_MARK}, not nothing"),
        ("speculate: always", "speculate: off, on, or a section such as {size: 256 KiB, confirmed: 2, patience: 50 ms} is expected"),
        ("speculate:", "speculate: off, on, or a section such as {size: 256 KiB, confirmed: 2, patience: 50 ms} is expected"),
        ("speculate: {confirmed: -1}", "speculate.confirmed: at least 0 is expected, not '-1'"),
        ("speculate: {confirmed: 1001}", "speculate.confirmed: at most 1000 is expected, not '1001'"),
        ("speculate: {patience: 50}", f"speculate.patience: {NO_DURATION}, not '50'"),
        ("speculate: {paitence: 50 ms}", "speculate.paitence: unknown key; did you mean patience?"),
        ("patience: 50 ms", "patience: unknown key; it belongs into speculate"),
        ("fast_open: on", "fast_open: a number of connections from 0 to 65535 is expected, or the word off, not yes"),
        ("fast_open: 65536", "fast_open: a number of connections from 0 to 65535 is expected, or the word off, not '65536'"),
        ("fast_open: ", "fast_open: a number of connections from 0 to 65535 is expected, or the word off, not nothing"),
        ("trusted: {xclient: [10.0.0.0/8]}", "trusted.xclient: unknown key; known here are proxy_protocol"),
        ("bare_line_endings: keep", "bare_line_endings: normalize, reject or pass is expected, not 'keep'"),
        ("limits: {sessions_per_client: 0}", "limits.sessions_per_client: at least 1 is expected, not '0'"),
        ("limits: {burst_octets: 12287}", "limits: burst_octets must be at least as much as line and as auth_line"),
        ("timeouts: {comand: 1 s}", "timeouts.comand: unknown key; did you mean command?"),
        ("backend: legacy", "backend: unknown key here; it belongs to a listener with mode: inbound"),
        ("recipient_domains: any", "recipient_domains: unknown key here; it belongs to a listener with mode: inbound"),
        ("auth: never", "auth: unknown key here; it belongs to a listener with mode: inbound"),
        ("backend-immune: yes", "backend-immune: unknown key here; it belongs to a listener with mode: inbound"),
        ("relayfrom: []", "relayfrom: unknown key; did you mean relay_from?"),
        ("xyz: 1", "xyz: unknown key; known here are name, mode, listen, hostname, tls, proxy_protocol, trusted, trace_header, early_pipelining, chunking, bare_line_endings, bare_line_endings_exceptions, nul, backlog, fast_open, limits, timeouts, protocol, own_addresses, relay_from, transparent, mark, speculate"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_outbound_listener(sender_with: Mistakes, setting: str, message: str) -> None:
    lines = setting.strip("{}").replace("redirect, ", "redirect\n") if setting.startswith("{") else setting
    assert sender_with(lines) == [message]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("own_addresses: []", "own_addresses: unknown key here; it belongs to a listener with mode: outbound"),
        ("relay_from: []", "relay_from: unknown key here; it belongs to a listener with mode: outbound"),
        ("speculate: on", "speculate: unknown key here; it belongs to a listener with mode: outbound"),
        ("mark: 25", "mark: unknown key here; it belongs to a listener with mode: outbound"),
        ("mode:", "mode: inbound or outbound is expected, not nothing"),
        ("mode: on", "mode: inbound or outbound is expected, not yes"),
        ("mode: [outbound]", "mode: inbound or outbound is expected, not a list"),
        ("mode: Outbound", "mode: inbound or outbound is expected, not 'Outbound'"),
        ("mode: sideways\nrelay_from: 5\nbackend: 7", "mode: inbound or outbound is expected, not 'sideways'"),
    ],
)
def test_a_mistake_in_an_inbound_listener(mistakes: Mistakes, minimal: str, setting: str, message: str) -> None:
    text = minimal.replace("    backend: legacy\n", "" if "backend:" in setting else "    backend: legacy\n")
    lines = "".join(f"    {line}\n" for line in setting.splitlines())
    assert mistakes(text.replace("    recipient_domains:", f"{lines}    recipient_domains:"))[0].endswith(
        f": listeners[0].{message}"
    )


def test_every_mistake_has_its_line(mistakes: Mistakes) -> None:
    text = """\
listeners:
  - mode: outbound
    limits:
      errors: many
  - name: in
    listen: ["[::1]:25"]
    relay_from: []
routes:
  - domain: a.example
    tls:
      mode: strong
  - nexthop: [h]
  - foo
cache:
  ttl: 5
dns: []
mta_sts:
  time-out: 5 s
"""
    assert mistakes(text) == [
        "c.yaml:1: backends: missing; expected is a section with one entry for each backend: an inbound listener passes mail on to one",
        "c.yaml:2: listeners[0].name: missing; expected is a name for this listener, of letters, digits, - and _",
        'c.yaml:2: listeners[0].listen: missing; expected is a list of addresses to listen on, such as ["0.0.0.0:25", "[::]:25"]',
        "c.yaml:4: listeners[0].limits.errors: a whole number is expected, not 'many'",
        "c.yaml:5: listeners[1].backend: missing; expected is the name of one of the backends",
        "c.yaml:7: listeners[1].relay_from: unknown key here; it belongs to a listener with mode: outbound",
        "c.yaml:11: routes[0].tls.mode: none, opportunistic, required, verified or implicit is expected, not 'strong'",
        'c.yaml:12: routes[1].domain: missing; expected is a domain or a list of them: example.org, .example.org (each name below it) or "*"',
        "c.yaml:12: routes[1].nexthop: unknown key; did you mean nexthops?",
        f"c.yaml:13: routes[2]: {NO_SECTION}, not 'foo'",
        f"c.yaml:15: cache.ttl: {NO_DURATION}, not '5'",
        f"c.yaml:16: dns: {NO_SECTION}, not a list",
        "c.yaml:18: mta_sts.time-out: unknown key; did you mean timeout?",
    ]


STORES = "memory:, sqlite:/path, redis://host:port or unix:/path (Redis at a Unix socket) is expected"
REDIS = "redis://host:port is expected, with user@ in front of the host and /number of the database if needed"
RESOLVER = 'the address of a resolver is expected, in quotes, such as "127.0.0.1" or "[::1]:5353"'
VARIABLE = "the name of an environment variable is expected (letters, digits and _), not what is in it"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("cache: {store: memory}", f"cache.store: {STORES}, not 'memory'"),
        ("cache: {store: 'memory:x'}", f"cache.store: {STORES}, not 'memory:x'"),
        ("cache: {store: 'sqlite:cache.db'}", f"cache.store: {STORES}, not 'sqlite:cache.db'"),
        ("cache: {store: off}", f"cache.store: {STORES}, not no"),
        ("cache: {store: 'unix:run'}", "cache.store: unix: is followed by an absolute path, not by 'run'"),
        ("cache: {store: 'redis:h:1'}", f"cache.store: {REDIS}"),
        ("cache: {store: 'redis://h:1/x'}", f"cache.store: {REDIS}"),
        ("cache: {store: 'redis://h:0'}", f"cache.store: {REDIS}"),
        ("cache: {store: 'redis://unix:/x'}", f"cache.store: {REDIS}"),
        ("cache: {store: 'redis://h'}", "cache.store: host:port, [IPv6 address]:port or unix:/path is expected, not 'h'"),
        ("cache: {store: 'redis://u:secret@h:1'}", "cache.store: a password does not belong into this file: put it into the environment, see password_env"),
        ("cache: {store: 'redis://:secret@h:1'}", "cache.store: a password does not belong into this file: put it into the environment, see password_env"),
        ("cache: {hold_back: on}", f"cache.hold_back: {NO_DURATION}, not yes"),
        ("cache: {hold_back: 2 d}", "cache: hold_back_most must be at least as much as hold_back"),
        ("cache: {ttl: 0 s}", "cache.ttl: more than nothing is expected, such as '30 s'"),
        ("cache: {entries: 0}", "cache.entries: at least 1 is expected, not '0'"),
        ("cache: {store: 'redis://h:1', password_env: 'se cret'}", f"cache.password_env: {VARIABLE}"),
        ("cache: {store: 'redis://h:1', password_env: 5}", f"cache.password_env: {VARIABLE}"),
        ("cache: {store: 'redis://h:1', password: x}", "cache.password: unknown key; did you mean password_env?"),
        ("cache: {password_env: A}", "cache.password_env: looked at only where store is a Redis, such as redis://127.0.0.1:6379"),
        ("cache: {store: 'memory:', password_env: A}", "cache.password_env: looked at only where store is a Redis, such as redis://127.0.0.1:6379"),
        ("cache: off", f"cache: {NO_SECTION}, not no"),
        ("dns: {servers: 127.0.0.1}", 'dns.servers: the word system or a list of addresses is expected, such as ["127.0.0.1"], not \'127.0.0.1\''),
        ("dns: {servers: []}", "dns.servers: at least one address is expected, or the word system"),
        ("dns: {servers: [h]}", f"dns.servers[0]: {RESOLVER}, not 'h'"),
        ("dns: {servers: [system]}", f"dns.servers[0]: {RESOLVER}, not 'system'"),
        ("dns: {servers: ['192.0.2.1', 'unix:/x']}", f"dns.servers[1]: {RESOLVER}, not 'unix:/x'"),
        ("dns: {servers: ['192.0.2.1:0']}", f"dns.servers[0]: {RESOLVER}, not '192.0.2.1:0'"),
        ("dns: {servers: ['192.0.2.256']}", "dns.servers[0]: '192.0.2.256' is no IPv4 address"),
        ("dns: {servers: ['[192.0.2.1]']}", "dns.servers[0]: an IPv6 address is expected between the brackets, not '192.0.2.1'"),
        ("dns: {servers: [53]}", f"dns.servers[0]: {RESOLVER}, not '53'"),
        ("dns: {servers: ['']}", f"dns.servers[0]: {RESOLVER}, not ''"),
        ("dns: {servers: }", "dns.servers: a list is expected, such as [one, two], not nothing"),
        ("dns: {lifetime: 4 s}", "dns: lifetime must be at least as much as timeout"),
        ("dns: {trust_ad: maybe}", "dns.trust_ad: auto, yes or no is expected, not 'maybe'"),
        ("mta_sts: {ca: no}", "mta_sts.ca: the name of a file is expected, in quotes if it is a number or a word like 'no'"),
        ("mta_sts: off", f"mta_sts: {NO_SECTION}, not no"),
        ("ttl: 5 s", "ttl: unknown key; it belongs into cache"),
    ],
)  # fmt: skip
def test_a_mistake_in_another_section(mistakes: Mistakes, outbound: str, setting: str, message: str) -> None:
    assert mistakes(f"{outbound}{setting}\n") == [f"c.yaml:7: {message}"]
