"""Mistakes that concern several settings at once."""

from collections.abc import Callable

import pytest

from smtpproxy.config import Config
from smtpproxy.config.checks import cross_check

Mistakes = Callable[[str], list[str]]


def file(*listeners: str, backends: str = "legacy: {servers: ['192.0.2.1:25']}") -> str:
    """A file with these listeners, one in each line, and with the settings that they need."""
    lines = [f"  - {{backend: legacy, recipient_domains: any, {listener}}}" for listener in listeners]
    return "\n".join(["listeners:", *lines, "backends:", f"  {backends}", ""])


def test_names_are_unique(mistakes: Mistakes) -> None:
    text = file("name: a, listen: ['[::]:1']", "name: b, listen: ['[::]:2']", "name: a, listen: ['[::]:3']")
    assert mistakes(text) == ["c.yaml:4: listeners[2].name: another listener has the name 'a' already"]


def test_the_backend_is_there(mistakes: Mistakes) -> None:
    text = file("name: a, listen: ['[::]:1']", backends="x: {servers: ['h:1']}\n  y: {servers: ['h:1']}")
    assert mistakes(text) == ["c.yaml:2: listeners[0].backend: there is no backend 'legacy'; known are x, y"]


def test_an_address_is_listened_on_once(mistakes: Mistakes) -> None:
    text = file(
        "name: a, listen: ['0.0.0.0:25', '[::]:25', 'unix:/a']",
        "name: b, listen: ['127.0.0.1:25', '127.0.0.1:26', 'unix:/a', 'systemd:a']",
        "name: c, listen: ['systemd:a', '127.0.0.1:26', wrong]",
    )
    assert mistakes(text) == [
        "c.yaml:3: listeners[1].listen[0]: 127.0.0.1:25 cannot be listened on beside 0.0.0.0:25, which is in the file already",
        "c.yaml:3: listeners[1].listen[2]: unix:/a cannot be listened on beside unix:/a, which is in the file already",
        "c.yaml:4: listeners[2].listen[0]: systemd:a cannot be listened on beside systemd:a, which is in the file already",
        "c.yaml:4: listeners[2].listen[1]: 127.0.0.1:26 cannot be listened on beside 127.0.0.1:26, which is in the file already",
        "c.yaml:4: listeners[2].listen[2]: host:port, [IPv6 address]:port or unix:/path is expected, not 'wrong'",
    ]


SMUGGLING = (
    "pass lets mail be smuggled through a backend that takes a bare CR or LF for a line ending; "
    "if yours surely does not, say so with backend_immune: yes"
)


@pytest.mark.parametrize("immune", ["", "backend_immune: no, "])
def test_pass_needs_an_immune_backend(mistakes: Mistakes, immune: str) -> None:
    exceptions = "[{networks: [10.0.0.0/8], policy: reject}, {networks: [all], policy: pass}]"
    text = file(
        f"name: a, listen: ['[::]:1'], {immune}bare_line_endings: pass",
        f"name: b, listen: ['[::]:2'], {immune}bare_line_endings_exceptions: {exceptions}",
    )
    assert mistakes(text) == [
        f"c.yaml:2: listeners[0].bare_line_endings: {SMUGGLING}",
        f"c.yaml:3: listeners[1].bare_line_endings_exceptions[1].policy: {SMUGGLING}",
    ]


def test_with_an_immune_backend_pass_is_fine(loaded: Callable[[str], Config]) -> None:
    exceptions = "bare_line_endings_exceptions: [{networks: [all], policy: pass}]"
    config = loaded(file(f"name: a, listen: ['[::]:1'], backend_immune: yes, bare_line_endings: pass, {exceptions}"))
    assert config.listeners[0].bare_line_endings == "pass"


@pytest.mark.parametrize(
    ("listen", "server"),
    [
        ("127.0.0.1:25", "127.0.0.1:25"),
        ("0.0.0.0:25", "127.0.0.1:25"),
        ("192.0.2.1:25", "192.0.2.1:25"),
        ("[::]:25", "[::1]:25"),
        ("unix:/a", "unix:/a"),
    ],
)
def test_the_proxy_does_not_talk_to_itself(mistakes: Mistakes, listen: str, server: str) -> None:
    text = file(f"name: a, listen: ['{listen}']", backends=f"legacy: {{servers: ['h:1', '{server}']}}")
    assert mistakes(text) == [
        f"c.yaml:4: backends.legacy.servers[1]: smtpproxy itself listens on {listen}: it would talk to itself"
    ]


@pytest.mark.parametrize(
    ("listen", "server"),
    [
        ("0.0.0.0:25", "192.0.2.1:25"),
        ("0.0.0.0:25", "127.0.0.1:26"),
        ("127.0.0.1:25", "[::1]:25"),
        ("unix:/a", "unix:/b"),
    ],
)
def test_a_backend_elsewhere_is_fine(loaded: Callable[[str], Config], listen: str, server: str) -> None:
    assert loaded(file(f"name: a, listen: ['{listen}']", backends=f"legacy: {{servers: ['{server}']}}"))


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        {},
        {"listeners": 5, "backends": 5},
        {"listeners": ({"name": 5, "listen": 5, "backend": 5, "bare_line_endings_exceptions": (5,)}, 5)}
        | {"backends": {"a": {}}},
        {"listeners": ({"name": (), "backend": {}, "listen": ({}, 25)},), "backends": {"a": 5, "b": {"servers": 5}}},
        {"listeners": ({"backend": "a", "trusted": 5, "proxy_protocol": {}, "tls": 5, "recipient_domains": {}},)}
        | {"backends": {"a": {"identity": {}, "reuse": 5, "tls": 5}}, "service": 5},
        {
            "listeners": ({"proxy_protocol": "optional", "trusted": 5},),
            "backends": {"a": {"identity": 5, "reuse": True}},
        },
    ],
)
def test_what_is_wrong_in_itself_is_passed_over(data: object) -> None:
    assert list(cross_check(data)) == []
