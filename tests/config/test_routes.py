"""Routes: how each setting is written, the words for what is wrong."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from smtpproxy.config import (
    CertificatePair,
    Config,
    Credentials,
    Endpoint,
    RemoteReuse,
    RemoteTimeouts,
    RemoteTls,
    Route,
    Source,
)

Mistakes = Callable[[str], list[str]]
Loaded = Callable[[str], Config]

PIN = base64.b64encode(bytes(range(32))).decode()
TEXT = "text is expected (a number or a word like 'no' is written in quotes)"
NO_MARK = "a number from 1 to 0xffffffff is expected, or the word off"
NO_FILE = "the name of a file is expected"
NO_VARIABLE = "the name of an environment variable is expected (letters, digits and _), not what is in it"
SERVER = "host, host:port or [IPv6 address]:port is expected"
SWITCH = "off, on, or a section such as {idle: 30 s, uses: 100, sessions: 20} is expected"
SMART = "nexthops: [mx.example]\ntls: {mode: verified}\n"


def route(loaded: Loaded, text: str, settings: str = "") -> Route:
    return loaded(text + "".join(f"    {line}\n" for line in settings.splitlines())).routes[0]


def test_the_defaults(loaded: Loaded, outbound: str) -> None:
    default = route(loaded, outbound)
    assert (default.domain, default.lookup, default.nexthops, default.port) == (("*",), "mx", (), 25)
    assert (default.order, default.addresses, default.most_addresses, default.rest) == (
        "listed",
        "any",
        10,
        60.0,
    )
    tls = default.tls
    assert (tls.mode, tls.dane, tls.mta_sts, tls.downgrade) == ("opportunistic", True, True, "log")
    assert (tls.name, tls.sni, tls.ca, tls.pins, tls.certificate) == (None, None, "system", (), None)
    assert (tls.profile, tls.versions, tls.ciphers, tls.ciphersuites) == ("intermediate", None, None, None)
    assert (default.credentials, default.early_pipelining, default.pace) == (None, True, "auto")
    assert (default.fast_open, default.flush_on, default.dsn) == ("on", "any-error", False)
    assert default.reuse == RemoteReuse(idle=30.0, uses=100, sessions=20)
    assert (default.source, default.mark) == (Source(ipv4=None, ipv6=None), None)
    assert default.timeouts == RemoteTimeouts(
        connect=30.0,
        greeting=300.0,
        ehlo=300.0,
        mail=300.0,
        rcpt=300.0,
        data=120.0,
        data_block=180.0,
        end_of_data=600.0,
        other=300.0,
        tls_handshake=30.0,
        others_left=60.0,
        others_done=300.0,
        delivery=240.0,
    )
    assert default == Route(domain=("*",))


def test_a_route_with_servers_looks_none_up(loaded: Loaded, outbound: str) -> None:
    assert route(loaded, outbound, "nexthops: [mx.example]").lookup is None
    assert Route(domain=("*",), nexthops=(Endpoint("tcp", host="h", port=1),)).lookup is None
    assert route(loaded, outbound, "lookup: mx").lookup == "mx"


def test_every_kind_of_value(loaded: Loaded, outbound: str, tmp_path: Path) -> None:
    settings = """\
nexthops: ["smtp.example:465", "[2001:db8::1]:465"]
order: shuffle
addresses: prefer-ipv6
most_addresses: 3
tls:
  mode: implicit
  dane: off
  mta_sts: off
  name: mail.example
  sni: sni.example
  ca: ca.pem
  certificate: {cert: a.pem, key: a.key}
  downgrade: refuse
  profile: modern
  versions: [TLSv1.3]
credentials: {user: "us\u00e9r", password_file: secret}
early_pipelining: off
pace: lockstep
fast_open: whole_message
flush_on: session-error
dsn: yes
reuse: {idle: 1 s, uses: 2}
source: {ipv4: 192.0.2.5, ipv6: "2001:DB8::5"}
mark: 0xff
timeouts: {connect: 1 s, delivery: 1 h}
"""
    found = route(loaded, outbound, settings)
    assert list(map(str, found.nexthops)) == ["smtp.example:465", "[2001:db8::1]:465"]
    assert (found.lookup, found.order, found.addresses, found.most_addresses) == (None, "shuffle", "prefer-ipv6", 3)
    assert found.tls == RemoteTls(
        mode="implicit",
        dane=False,
        mta_sts=False,
        name="mail.example",
        sni="sni.example",
        ca=tmp_path / "ca.pem",
        certificate=CertificatePair(cert=tmp_path / "a.pem", key=tmp_path / "a.key"),
        downgrade="refuse",
        profile="modern",
        versions=("TLSv1.3",),
    )
    assert found.credentials == Credentials(user="us\u00e9r", password_file=tmp_path / "secret")
    assert (found.early_pipelining, found.pace, found.fast_open) == (False, "lockstep", "whole_message")
    assert (found.flush_on, found.dsn, found.mark) == ("session-error", True, 255)
    assert found.reuse == RemoteReuse(idle=1.0, uses=2)
    assert found.source == Source(ipv4="192.0.2.5", ipv6="2001:db8::5")
    assert found.timeouts == RemoteTimeouts(connect=1.0, delivery=3600.0)


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("'*'", ("*",)),
        ("Example.ORG", ("example.org",)),
        ("[example.org, .example.org]", ("example.org", ".example.org")),
        ("bücher.example", ("xn--bcher-kva.example", "bücher.example")),
        (".Bücher.example", (".xn--bcher-kva.example", ".bücher.example")),
        ("[b.example, B.example, '*']", ("b.example", "*")),
        ("'[192.0.2.1]'", ("[192.0.2.1]",)),
    ],
)
def test_the_domains_of_a_route(loaded: Loaded, outbound: str, text: str, domain: tuple[str, ...]) -> None:
    assert route(loaded, outbound.replace('"*"', text)).domain == domain


def test_pins(loaded: Loaded, outbound: str) -> None:
    assert route(loaded, outbound, f"tls: {{mode: verified, pins: ['{PIN}']}}").tls.pins == (PIN,)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("mx.example", "mx.example:25"),
        ("MX.example:587", "mx.example:587"),
        ("192.0.2.1", "192.0.2.1:25"),
        ("192.0.2.1:26", "192.0.2.1:26"),
        ("[2001:db8::1]", "[2001:db8::1]:25"),
        ("[2001:db8::1]:26", "[2001:db8::1]:26"),
        ("2001:db8::1", "[2001:db8::1]:25"),
    ],
)
def test_a_next_hop(loaded: Loaded, outbound: str, text: str, server: str) -> None:
    assert list(map(str, route(loaded, outbound, f"nexthops: ['{text}']").nexthops)) == [server]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("fast_open: on", "on"),
        ("fast_open: yes", "on"),
        ("fast_open: 'on'", "on"),
        ("fast_open: off", "off"),
        ("fast_open: whole_message", "whole_message"),
        ("reuse: on", RemoteReuse()),
        ("reuse: off", None),
        ("reuse: 'off'", None),
        ("mark: off", None),
        ("mark: 25", 25),
        ("early_pipelining: off", False),
        ("dsn: on", True),
        ("source: {}", Source()),
    ],
)
def test_words_that_yaml_takes_for_something_else(
    loaded: Loaded, outbound: str, setting: str, expected: object
) -> None:
    assert getattr(route(loaded, outbound, setting), setting.partition(":")[0]) == expected


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ("[]", ": at least one entry is expected"),
        ("5", ': a domain is expected, or a list of them: example.org, .example.org (each name below it) or "*", not \'5\''),
        ("{a: b}", ': a domain is expected, or a list of them: example.org, .example.org (each name below it) or "*", not a section'),
        ("", ': a domain is expected, or a list of them: example.org, .example.org (each name below it) or "*", not nothing'),
        ("[a.example, no]", "[1]: a domain such as example.org is expected; a number or a word like 'no' is written in quotes"),
        ("a@b.example", ": a domain is expected, the part behind the @, not the address 'a@b.example'"),
        ("'*.example.org'", ": every name below a domain is written with a dot in front: '.example.org'"),
        ("..example.org", ": each domain is written out, without wildcard: '.example.org' is none"),
        (".", ": '' is no domain: letters, digits and hyphens are expected, with dots between"),
        ("'.[192.0.2.1]'", ": '.[192.0.2.1]' is no domain: there is nothing below an address"),
        ("a b", ": 'a b' is no domain: letters, digits and hyphens are expected, with dots between"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_domain(mistakes: Mistakes, outbound: str, domain: str, message: str) -> None:
    assert mistakes(outbound.replace('"*"', domain)) == [f"c.yaml:6: routes[0].domain{message}"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lookup: a", "lookup: mx is expected, not 'a'"),
        ("lookup: off", "lookup: mx is expected, not no"),
        ("lookup:", "lookup: mx is expected, not nothing"),
        ("nexthops: mx.example", "nexthops: a list is expected, such as [one, two], not 'mx.example'"),
        ("nexthops: []", "nexthops: at least one entry is expected"),
        ("nexthops: [mx.example, 5]", f"nexthops[1]: {SERVER}, in quotes, not '5'"),
        ("nexthops: ['']", f"nexthops[0]: {SERVER}, in quotes, not ''"),
        ("nexthops: ['unix:/run/lmtp']", f"nexthops[0]: a remote is reached by TCP: {SERVER}, not 'unix:/run/lmtp'"),
        ("nexthops: ['systemd:x']", f"nexthops[0]: a remote is reached by TCP: {SERVER}, not 'systemd:x'"),
        ("nexthops: ['mx.example:0']", "nexthops[0]: a port from 1 to 65535 is expected behind the last colon, not '0'"),
        ("nexthops: ['mx.example:smtp']", "nexthops[0]: a port from 1 to 65535 is expected behind the last colon, not 'smtp'"),
        ("nexthops: ['a b']", "nexthops[0]: 'a b' is neither an IP address nor the name of a host"),
        ("nexthops: ['[::1']", "nexthops[0]: a closing bracket is expected behind the IPv6 address, not '[::1'"),
        ("port: 0", "port: at least 1 is expected, not '0'"),
        ("port: 65536", "port: at most 65535 is expected, not '65536'"),
        ("port: smtp", "port: a whole number is expected, not 'smtp'"),
        ("order: random", "order: listed or shuffle is expected, not 'random'"),
        ("addresses: ipv5", "addresses: any, ipv4, ipv6, prefer-ipv4 or prefer-ipv6 is expected, not 'ipv5'"),
        ("most_addresses: 0", "most_addresses: at least 1 is expected, not '0'"),
        ("tls: off", "tls: a section is expected (settings, indented below it), not no"),
        ("tls: {mode: starttls}", "tls.mode: none, opportunistic, required, verified or implicit is expected, not 'starttls'"),
        ("tls: {dane: maybe}", "tls.dane: yes or no is expected, not 'maybe'"),
        ("tls: {downgrade: on}", "tls.downgrade: log or refuse is expected, not yes"),
        ("tls: {verify: ca}", "tls.verify: unknown key; known here are profile, versions, ciphers, ciphersuites, mode, dane, mta_sts, name, sni, ca, pins, certificate, downgrade"),
        ("tls: {ca: }", "tls.ca: the name of a file is expected, in quotes if it is a number or a word like 'no'"),
        ("tls: {versions: [TLSv1.1, TLSv1.3]}", "tls.versions: versions without a gap are expected: TLSv1.2 is missing"),
        ("dane: on", "dane: unknown key; it belongs into tls"),
        ("early_pipelining: {}", "early_pipelining: yes or no is expected, not a section"),
        ("pace: fast", "pace: auto or lockstep is expected, not 'fast'"),
        ("fast_open: always", "fast_open: on, off or whole_message is expected, not 'always'"),
        ("fast_open: 256", "fast_open: on, off or whole_message is expected, not '256'"),
        ("flush_on: error", "flush_on: any-error or session-error is expected, not 'error'"),
        ("dsn: never", "dsn: yes or no is expected, not 'never'"),
        ("reuse: often", f"reuse: {SWITCH}"),
        ("reuse:", f"reuse: {SWITCH}"),
        ("reuse: {idle: 0 s}", "reuse.idle: more than nothing is expected, such as '30 s'"),
        ("reuse: {use: 1}", "reuse.use: unknown key; did you mean uses?"),
        ("source: 192.0.2.1", "source: a section is expected (settings, indented below it), not '192.0.2.1'"),
        ("source: {ipv4: '::1'}", "source.ipv4: an IPv4 address of this machine is expected, not '::1'"),
        ("source: {ipv4: 0.0.0.0}", "source.ipv4: an IPv4 address of this machine is expected, not '0.0.0.0'"),
        ("source: {ipv6: 192.0.2.1}", "source.ipv6: an IPv6 address of this machine is expected, not '192.0.2.1'"),
        ("source: {ipv6: 'ff02::1'}", "source.ipv6: an IPv6 address of this machine is expected, not 'ff02::1'"),
        ("source: {ipv6: 5}", "source.ipv6: an IPv6 address of this machine is expected, not '5'"),
        ("mark: 0", f"mark: {NO_MARK}, not '0'"),
        ("mark: 0xfffffffff", f"mark: {NO_MARK}, not '0xfffffffff'"),
        ("timeouts: {delivery: unlimited}", "timeouts.delivery: a number with a unit is expected: ms, s, min, h or d, such as '30 s' or '5 min', not 'unlimited'"),
        ("timeouts: {conect: 5 s}", "timeouts.conect: unknown key; did you mean connect?"),
        ("ipv4: 192.0.2.1", "ipv4: unknown key; it belongs into source"),
        ("connect: 5 s", "connect: unknown key; it belongs into timeouts"),
        (SMART + "credentials: secret", "credentials: a section is expected (settings, indented below it), not 'secret'"),
        (SMART + "credentials: {password_file: a}", "credentials.user: missing; expected is the name that the remote knows us by"),
        (SMART + "credentials: {user: '', password_file: a}", "credentials.user: a user name of 1 to 255 octets without control characters is expected"),
        (SMART + 'credentials: {user: "a\\nb", password_file: a}', "credentials.user: a user name of 1 to 255 octets without control characters is expected"),
        (SMART + f"credentials: {{user: {'é' * 128}, password_file: a}}", "credentials.user: a user name of 1 to 255 octets without control characters is expected"),
        (SMART + "credentials: {user: 5, password_file: a}", f"credentials.user: {TEXT}, not '5'"),
        (SMART + "credentials: {user: a, password_file: ''}", f"credentials.password_file: {NO_FILE}, not an empty text"),
        (SMART + "credentials: {user: a, password_env: my-secret}", f"credentials.password_env: {NO_VARIABLE}"),
        (SMART + "credentials: {user: a, password_env: }", f"credentials.password_env: {NO_VARIABLE}"),
        (SMART + "credentials: {user: a, password_env: A, password: secret}", "credentials.password: unknown key; did you mean password_env?"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_route(route_with: Mistakes, setting: str, message: str) -> None:
    assert route_with(setting) == [message]


def test_an_unknown_key_of_a_route(route_with: Mistakes) -> None:
    known = ", ".join(Route.model_fields)
    assert route_with("xyz: 1") == [f"xyz: unknown key; known here are {known}"]


def test_routes_are_a_list(mistakes: Mistakes, outbound: str) -> None:
    text = outbound.replace('routes:\n  - domain: "*"', "routes: {domain: '*'}")
    assert mistakes(text) == ["c.yaml:5: routes: a list is expected, such as [one, two], not a section"]


def test_what_may_be_a_password_is_not_shown(route_with: Mistakes) -> None:
    text = "credentials: {user: 'hush\\n', password_env: 'hush hush', password: hush}"
    assert not any("hush'" in message or "hush hush" in message for message in route_with(SMART + text))
