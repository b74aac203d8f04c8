"""From a file to the model, and the words for what is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from smtpproxy.config import Config, ConfigError, Endpoint, Limits, ListenerTimeouts, Networks, Reuse, load
from smtpproxy.config import listeners as listeners_module

Mistakes = Callable[[str], list[str]]
Loaded = Callable[[str], Config]


def test_the_required_settings_are_enough(loaded: Loaded, minimal: str) -> None:
    config = loaded(minimal)
    (listener,) = config.listeners
    assert listener.name == "mx"
    assert listener.listen == (Endpoint("tcp", host="127.0.0.1", port=2525),)
    assert listener.recipient_domains == ("example.org",)
    assert listener.early_pipelining.advertise_to.everyone
    assert listener.limits.burst_octets == 256 * 1024
    assert listener.timeouts.session == 4 * 3600
    assert config.backends["legacy"].servers == (Endpoint("tcp", host="192.0.2.1", port=25),)
    assert config.backends["legacy"].reuse is None
    assert config.service.drain == 60


def test_a_configuration_cannot_be_changed(loaded: Loaded, minimal: str) -> None:
    config = loaded(minimal)
    with pytest.raises(ValidationError, match="frozen"):
        config.listeners[0].limits.errors = 5


def test_every_kind_of_value(loaded: Loaded, minimal: str) -> None:
    text = minimal.replace(
        "    backend: legacy\n    recipient_domains: [example.org]\n",
        """\
    backend: legacy
    recipient_domains: any
    hostname: mx.example.org
    early_pipelining:
      advertise_to: [10.0.0.0/8]
      keywords: [X_PIPE_CONNECT]
      unlicensed: reject
      prior_offer: 2 d
    chunking: off
    extensions: [size, X-NEW]
    bare_line_endings: pass
    backend_immune: on
    bare_line_endings_exceptions: [{networks: [all], policy: reject}]
    nul: pass
    limits: {message_size: 50 MiB, minimum_progress: 0}
    timeouts: {session: unlimited, command: 500 ms}
""",
    ).replace(
        '    servers: ["192.0.2.1:25"]', '    {servers: ["unix:/run/mx"], reuse: {uses: 7}, rest: 0 s, pace: lockstep}'
    )
    config = loaded(
        text + "log: {format: keyvalue, to: 'file:/var/log/x', level: debug}\nservice: {transport: stock}\n"
    )
    (listener,) = config.listeners
    assert listener.recipient_domains is None
    assert listener.hostname == "mx.example.org"
    assert listener.early_pipelining.advertise_to == Networks(["10.0.0.0/8"])
    assert listener.early_pipelining.keywords == ("X_PIPE_CONNECT",)
    assert listener.early_pipelining.prior_offer == 172800
    assert listener.chunking is False
    assert listener.extensions == ("SIZE", "X-NEW")
    assert listener.backend_immune is True
    assert listener.bare_line_endings_exceptions[0].networks.everyone
    assert listener.limits.message_size == 52_428_800
    assert listener.limits.minimum_progress == 0
    assert listener.timeouts.session is None
    assert listener.timeouts.command == 0.5
    backend = config.backends["legacy"]
    assert backend.servers == (Endpoint("unix", path="/run/mx"),)
    assert backend.reuse == Reuse(idle=30.0, uses=7, sessions=50)
    assert (config.log.format, config.log.to, config.log.level) == ("keyvalue", "file:/var/log/x", "debug")
    assert config.service.transport == "stock"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("off", None),
        ("on", Reuse()),
        ("'off'", None),
        ("'on'", Reuse()),
        ("{}", Reuse()),
        ("{sessions: 1}", Reuse(sessions=1)),
    ],
)
def test_reuse_is_a_switch_or_a_section(loaded: Loaded, minimal: str, setting: str, expected: Reuse | None) -> None:
    assert loaded(minimal + f"    reuse: {setting}\n").backends["legacy"].reuse == expected


@pytest.mark.parametrize("setting", ["off", "'off'", "no"])
def test_prior_offer_off(loaded: Loaded, minimal: str, setting: str) -> None:
    text = minimal.replace("backends:", f"    early_pipelining: {{prior_offer: {setting}}}\nbackends:")
    assert loaded(text).listeners[0].early_pipelining.prior_offer is None


def test_recipient_domains_come_in_every_spelling_once(loaded: Loaded, minimal: str) -> None:
    text = minimal.replace("[example.org]", "[Example.ORG, bücher.example, xn--bcher-kva.example, example.org]")
    assert loaded(text).listeners[0].recipient_domains == ("example.org", "xn--bcher-kva.example", "bücher.example")


@pytest.mark.parametrize(
    ("found", "used"), [("mx.example.org", "mx.example.org"), ("a b", "localhost"), ("", "localhost")]
)
def test_the_default_hostname(monkeypatch: pytest.MonkeyPatch, found: str, used: str) -> None:
    listeners_module.machine_name.cache_clear()
    monkeypatch.setattr("socket.getfqdn", lambda: found)
    assert listeners_module.machine_name() == used
    listeners_module.machine_name.cache_clear()


def test_a_model_can_be_built_without_a_file() -> None:
    assert ListenerTimeouts(command=0.1).command == 0.1
    assert Limits(line=1000, burst_octets=100_000).line == 1000


# Whole files.


def test_all_mistakes_at_once_with_their_lines(mistakes: Mistakes) -> None:
    text = """\
listeners:
  - name: m x
    listen: ["0.0.0.0:25", "::1:25"]
    backend: legcy
    limits:
      eror: 5
      errors: many
    errors: 3
  - foo
backends:
  legacy:
    servers: []
    timeouts: {mail: 5}
tls: {}
"""
    assert mistakes(text) == [
        "c.yaml:2: listeners[0].name: a name of letters, digits, - and _ is expected, not 'm x'",
        "c.yaml:3: listeners[0].listen[1]: an IPv6 address is written in brackets: '[::1]:port'",
        "c.yaml:4: listeners[0].backend: there is no backend 'legcy'; known are legacy",
        "c.yaml:6: listeners[0].limits.eror: unknown key; did you mean errors?",
        "c.yaml:7: listeners[0].limits.errors: a whole number is expected, not 'many'",
        "c.yaml:8: listeners[0].errors: unknown key; it belongs into limits",
        "c.yaml:9: listeners[1]: a section is expected (settings, indented below it), not 'foo'",
        "c.yaml:12: backends.legacy.servers: at least one entry is expected",
        "c.yaml:13: backends.legacy.timeouts.mail: a number with a unit is expected: ms, s, min, h or d, such as '30 s' or '5 min', not '5'",
        "c.yaml:14: tls: unknown key; it belongs into listeners, backends or routes",
    ]


def test_missing_parts_are_reported_where_they_belong(mistakes: Mistakes) -> None:
    assert mistakes("listeners:\n\n  - name: mx\n\nbackends:\n  legacy: {}\n") == [
        'c.yaml:3: listeners[0].listen: missing; expected is a list of addresses to listen on, such as ["0.0.0.0:25", "[::]:25"]',
        "c.yaml:3: listeners[0].backend: missing; expected is the name of one of the backends",
        'c.yaml:6: backends.legacy.servers: missing; expected is a list of addresses of the mail server, such as ["127.0.0.1:2525"]',
    ]
    assert mistakes("log: {}\n") == [
        "c.yaml:1: listeners: missing; expected is a list of listeners",
    ]


def test_mistakes_of_yaml_and_of_settings_come_together(mistakes: Mistakes, minimal: str) -> None:
    assert mistakes(minimal + "log: {level: loud}\nlog: {}\n") == [
        "c.yaml:9: log.level: debug, info, warning or error is expected, not 'loud'",
        "c.yaml:10: log: given twice; the first is in line 9",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "c.yaml:1: the file is empty: listeners and backends are expected"),
        ("# nothing\n", "c.yaml:1: the file is empty: listeners and backends are expected"),
        ("- a\n", "c.yaml:1: a section is expected (settings, indented below it), not a list"),
        ("foo\n", "c.yaml:1: a section is expected (settings, indented below it), not 'foo'"),
    ],
)
def test_a_file_that_is_no_configuration(mistakes: Mistakes, text: str, expected: str) -> None:
    assert mistakes(text) == [expected]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"/none.yaml: cannot be read: No such file or directory$"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        load(tmp_path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match=r"c.yaml:2: not UTF-8 text$"):
        load(str(file))


def test_a_file_with_a_byte_order_mark(tmp_path: Path, minimal: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + minimal.encode())
    assert load(file).listeners[0].name == "mx"


@pytest.mark.parametrize("octets", [1024 * 1024, 1024 * 1024 + 1])
def test_a_file_is_at_most_a_mebibyte(tmp_path: Path, minimal: str, octets: int) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(minimal + "#" * (octets - len(minimal)))
    if octets == 1024 * 1024:
        assert load(file).listeners[0].name == "mx"
    else:
        with pytest.raises(ConfigError, match="larger than 1 MiB"):
            load(file)


def test_a_mistake_is_one_line_whatever_it_quotes(mistakes: Mistakes, minimal: str) -> None:
    (message,) = mistakes(minimal + 'log: {to: "a\\nb\\e[31m"}\n')
    assert message.endswith(r"is expected, not 'a\x0ab\x1b[31m'")


# One setting of a listener each.


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("mode: sideways", "mode: inbound or outbound is expected, not 'sideways'"),
        ("hostname: a b", "hostname: the full name of a host is expected, such as mail.example.org, not 'a b'"),
        ("chunking: maybe", "chunking: yes or no is expected, not 'maybe'"),
        ("chunking: 1", "chunking: yes or no is expected, not '1'"),
        ("chunking:", "chunking: yes or no is expected, not nothing"),
        ("nul: keep", "nul: reject or pass is expected, not 'keep'"),
        ("backlog: 0", "backlog: at least 1 is expected, not '0'"),
        ("extensions: SIZE", "extensions: a list is expected, such as [one, two], not 'SIZE'"),
        ("extensions: [no]", "extensions[0]: text is expected (a number or a word like 'no' is written in quotes), not no"),
        ("extensions: [STARTTLS]", "extensions[0]: STARTTLS cannot be in this list: smtpproxy offers it by itself (setting tls), the backend's own is never passed on"),
        ("extensions: [xclient]", "extensions[0]: XCLIENT cannot be in this list: it is never passed on"),
        ("extensions: [XFORWARD]", "extensions[0]: XFORWARD cannot be in this list: it is never passed on"),
        ("extensions: [chunking]", "extensions[0]: CHUNKING cannot be in this list: smtpproxy offers it by itself (setting chunking)"),
        ("extensions: [AUTH=LOGIN]", "extensions[0]: the keyword of an EHLO extension is expected (letters, digits and -), not 'AUTH=LOGIN'"),
        ("early_pipelining: off", "early_pipelining: a section is expected (settings, indented below it), not no"),
        ("early_pipelining: {keywords: []}", "early_pipelining.keywords: at least one entry is expected"),
        (
            "early_pipelining: {keywords: [PIPE]}",
            "early_pipelining.keywords[0]: PIPECONNECT, PIPE_CONNECT or X_PIPE_CONNECT is expected, not 'PIPE'",
        ),
        ("early_pipelining: {advertise_to: all}", "early_pipelining.advertise_to: a list is expected, such as [one, two], not 'all'"),
        (
            "early_pipelining: {advertise_to: [all, here]}",
            "early_pipelining.advertise_to[1]: a network such as 192.0.2.0/24 or 2001:db8::/32 is expected, or the word all, not 'here'",
        ),
        (
            "early_pipelining: {prior_offer: on}",
            "early_pipelining.prior_offer: a duration such as '30 min' is expected, or the word off",
        ),
        ("bare_line_endings_exceptions: [{networks: [3], policy: reject}]",
         "bare_line_endings_exceptions[0].networks[0]: a network such as 192.0.2.0/24 or 2001:db8::/32 is expected, or the word all, not '3'"),
        ("bare_line_endings_exceptions: [{networks: [all]}]",
         "bare_line_endings_exceptions[0].policy: missing; expected is normalize, reject or pass"),
        ("limits: {line: 511}", "limits.line: at least 512 is expected, not '511'"),
        ("limits: {line: '1000'}", "limits.line: a whole number is expected, not '1000'"),
        ("limits: {errors: yes}", "limits.errors: a whole number is expected, not yes"),
        ("limits: {client_prefix_ipv4: 33}", "limits.client_prefix_ipv4: at most 32 is expected, not '33'"),
        ("limits: {message_size: 0}", "limits.message_size: more than nothing is expected, such as '50 MiB'; or the word unlimited"),
        ("limits: {sessions: unlimited}", "limits.sessions: a whole number is expected, not 'unlimited'"),
        ("limits: {burst_octets: 12287}", "limits: burst_octets must be at least as much as line and as auth_line"),
        ("limits: [5]", "limits: a section is expected (settings, indented below it), not a list"),
        ("timeouts: {close: 0 s}", "timeouts.close: more than nothing is expected, such as '30 s'"),
        ("timeouts: {close: {}}", "timeouts.close: a number with a unit is expected: ms, s, min, h or d, such as '30 s' or '5 min', not a section"),
        ("timeouts: {Dat-block: 1 s}", "timeouts.Dat-block: unknown key; did you mean data_block?"),
        ("timeouts: {tls: 1 s}", "timeouts.tls: unknown key; known here are command, data_block, minimum_progress, write, session, close, tls_handshake, proxy_header"),
        ("protocol: lmtp", "protocol: unknown key here; it belongs to a listener with mode: outbound"),
        ("xyz: 1", "xyz: unknown key; known here are name, mode, listen, hostname, tls, proxy_protocol, trusted, trace_header, early_pipelining, chunking, bare_line_endings, bare_line_endings_exceptions, nul, backlog, fast_open, limits, timeouts, backend, recipient_domains, auth, extensions, backend_immune"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_listener(listener_with: Mistakes, setting: str, message: str) -> None:
    assert listener_with(setting) == [message]


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ("example.org", ": a list of domains is expected, such as [example.org], or the word any, not 'example.org'"),
        ("[example.org, any]", "[1]: to accept every domain write the word any alone, without a list"),
        ("[no]", "[0]: a domain such as example.org is expected; a number or a word like 'no' is written in quotes"),
        ("[a.example, b@a.example]", "[1]: a domain is expected, the part behind the @, not the address 'b@a.example'"),
        ("5", ": a list is expected, such as [one, two], not '5'"),
    ],
)
def test_a_mistake_in_the_recipient_domains(mistakes: Mistakes, minimal: str, domains: str, message: str) -> None:
    expected = f"c.yaml:5: listeners[0].recipient_domains{message}"
    assert mistakes(minimal.replace("[example.org]", domains)) == [expected]


def test_recipient_domains_left_empty_are_not_any(mistakes: Mistakes, minimal: str) -> None:
    assert mistakes(minimal.replace(" [example.org]", "\n      # - example.org")) == [
        "c.yaml:5: listeners[0].recipient_domains: a list is expected, such as [one, two], not nothing"
    ]


@pytest.mark.parametrize("empty", ["", "~", "null"])
def test_a_value_left_empty_is_neither_off_nor_unlimited(
    listener_with: Mistakes, backend_with: Mistakes, empty: str
) -> None:
    settings = ["limits: {{message_size: {}}}", "timeouts: {{session: {}}}", "early_pipelining: {{prior_offer: {}}}"]
    for setting in settings:
        (message,) = listener_with(setting.format(empty))
        assert "expected" in message
    assert backend_with(f"reuse: {empty}") == [
        "reuse: off, on, or a section such as {idle: 30 s, uses: 100, sessions: 50} is expected"
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("connect: soon", "connect: eager or lazy is expected, not 'soon'"),
        ("pace: fast", "pace: auto or lockstep is expected, not 'fast'"),
        ("reuse: often", "reuse: off, on, or a section such as {idle: 30 s, uses: 100, sessions: 50} is expected"),
        ("reuse: {uses: 0}", "reuse.uses: at least 1 is expected, not '0'"),
        ("reuse: {use: 5}", "reuse.use: unknown key; did you mean uses?"),
        ("timeouts: {dat: 5 s}", "timeouts.dat: unknown key; did you mean data?"),
        (
            "xyz: {}",
            "xyz: unknown key; known here are servers, identity, client_name, tls, connect, pace, reuse, rest, resolve, timeouts",
        ),
    ],
)
def test_a_mistake_in_a_backend(backend_with: Mistakes, setting: str, message: str) -> None:
    assert backend_with(setting) == [message]


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("systemd:smtp", "a socket inherited from systemd can be listened on, but is no server to connect to"),
        ("192.0.2.1:0", "a port from 1 to 65535 is expected behind the last colon, not '0'"),
        ("192.0.2.1", "host:port, [IPv6 address]:port or unix:/path is expected, not '192.0.2.1'"),
    ],
)
def test_a_mistake_in_a_server(mistakes: Mistakes, minimal: str, server: str, message: str) -> None:
    assert mistakes(minimal.replace("192.0.2.1:25", server)) == [f"c.yaml:8: backends.legacy.servers[0]: {message}"]


def test_a_hint_goes_by_the_place_and_not_by_the_name_of_a_backend(mistakes: Mistakes, minimal: str) -> None:
    text = minimal.replace("legacy", "timeouts") + "    pac: auto\n    tls: {verfy: none}\n"
    assert mistakes(text) == [
        "c.yaml:9: backends.timeouts.pac: unknown key; did you mean pace?",
        "c.yaml:10: backends.timeouts.tls.verfy: unknown key; did you mean verify?",
    ]


def test_the_text_of_a_key_is_never_quoted(mistakes: Mistakes, minimal: str) -> None:
    (message,) = mistakes(minimal + '    connect: "-----BEGIN PRIVATE KEY-----\\nMIIE"\n')
    assert message.endswith("eager or lazy is expected, not the text of a key or certificate")


def test_the_name_of_a_backend(mistakes: Mistakes, minimal: str) -> None:
    assert mistakes(minimal + "  'a b': {servers: ['192.0.2.2:25']}\n") == [
        "c.yaml:9: backends.a b: a name of letters, digits, - and _ is expected, not 'a b'"
    ]


@pytest.mark.parametrize("target", ["syslog:nowhere", "file:relative", "stdout", "syslog", "''"])
def test_where_the_log_cannot_go(mistakes: Mistakes, minimal: str, target: str) -> None:
    assert mistakes(minimal + f"log: {{to: {target}}}\n") == [
        "c.yaml:9: log.to: stderr, file:/path or syslog:facility (such as syslog:mail) is expected, not "
        + (target if target == "''" else f"'{target}'")
    ]


@pytest.mark.parametrize("target", ["stderr", "file:/var/log/x", "syslog:mail", "syslog:local7"])
def test_where_the_log_can_go(loaded: Loaded, minimal: str, target: str) -> None:
    assert loaded(minimal + f"log: {{to: {target}}}\n").log.to == target
