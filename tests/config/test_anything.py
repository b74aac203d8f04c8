"""Whatever stands in the file: a Config comes out, or mistakes in words, never another exception."""

import copy
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.config import Config, ConfigError, Problem
from smtpproxy.config.load import parse

SAMPLES = Path(__file__).resolve().parent.parent.parent / "etc"
COMPLETE: dict[str, Any] = yaml.safe_load((SAMPLES / "inbound.yaml").read_text())
OUTBOUND: dict[str, Any] = yaml.safe_load((SAMPLES / "smarthost.yaml").read_text())
COMPLETE["backends"]["legacy"]["reuse"] = {"idle": "30 s", "uses": 100, "sessions": 50}
COMPLETE["listeners"][0]["bare_line_endings_exceptions"] = [{"networks": ["10.0.0.0/8"], "policy": "reject"}]
COMPLETE["listeners"][0]["tls"] |= {
    "mode": "starttls",
    "versions": ["TLSv1.3"],
    "ciphers": "HIGH",
    "ciphersuites": "TLS_X",
}
COMPLETE["listeners"][0]["tls"]["certificates"] = [{"cert": "a.pem", "key": "a.key"}]
COMPLETE["listeners"][0]["tls"]["client_certificates"] = {"mode": "ask", "ca": "ca.pem", "logins": {"0" * 64: "alice"}}
COMPLETE["backends"]["legacy"]["tls"] |= {"mode": "starttls", "name": "mx.example", "sni": "mx.example", "ca": "ca.pem"}
COMPLETE["backends"]["legacy"]["tls"]["certificate"] = {"cert": "a.pem", "key": "a.key"}
COMPLETE["listeners"] += OUTBOUND.pop("listeners")
COMPLETE |= OUTBOUND
COMPLETE["listeners"][1] |= {"transparent": "redirect", "mark": 25, "trusted": {"proxy_protocol": ["10.0.0.1"]}}
COMPLETE["listeners"][1]["listen"] = ["127.0.0.1:2527"]
COMPLETE["routes"][0] |= {"credentials": {"user": "a", "password_file": "b"}, "source": {"ipv4": "192.0.2.1"}}
COMPLETE["routes"][0]["tls"] |= {"name": "mx.example", "sni": "mx.example", "ca": "ca.pem"}
COMPLETE["dns"]["servers"] = ["127.0.0.1"]


def places(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else []
    return [path, *(place for key, value in children for place in places(value, (*path, key)))]


WORDS = ["off", "any", "unlimited", "5 min", "-1 KiB", "[::]:25", "unix:/x", "1e9", "", "\u0130.example", "9" * 30]
WORDS += ["none", "system", "starttls", "pins", "xforward", "source-address", "optional", "TLSv1", "A" * 43 + "="]
WORDS += [
    "a\ud800",
    "outbound",
    "(outbound)",
    "(inbound)",
    "*",
    ".x.example",
    "redirect",
    "verified",
    "implicit",
    "::/0",
]
WORDS += ["redis://a:b@c:1", "mx", "mode", "lookup", "nexthops", "credentials", "0xff"]

words = st.sampled_from(WORDS)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | words
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
changes = st.lists(st.tuples(st.sampled_from(places(COMPLETE)), values), min_size=1, max_size=4)


def changed(data: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """The data with one place replaced, if it is still there."""
    if not path:
        return value
    if isinstance(data, dict) or (isinstance(data, list) and isinstance(path[0], int) and path[0] < len(data)):
        data[path[0]] = changed(data[path[0]] if isinstance(data, list) else data.get(path[0]), path[1:], value)
    return data


def outcome(text: str) -> Config | tuple[Problem, ...]:
    try:
        return parse("c.yaml", text)
    except ConfigError as error:
        return error.problems


def test_what_is_changed_has_no_mistake_yet() -> None:
    assert isinstance(outcome(yaml.safe_dump(COMPLETE, allow_unicode=True)), Config)


@given(changes)
def test_any_value_anywhere(replacements: list[tuple[tuple[str | int, ...], Any]]) -> None:
    data = copy.deepcopy(COMPLETE)
    for path, value in replacements:
        data = changed(data, path, value)
    text = yaml.safe_dump(data, allow_unicode=True)
    lines = text.count("\n") + 1
    found = outcome(text)
    assert found
    for problem in found if isinstance(found, tuple) else ():
        assert 1 <= problem.line <= lines
        assert "\n" not in str(problem)
        assert problem.message


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    assert outcome(text)
