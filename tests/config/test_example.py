"""etc/inbound.yaml and etc/smarthost.yaml show every setting, each with its default."""

import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from smtpproxy.config import (
    Backend,
    BareLineEndingsException,
    Cache,
    CertificatePair,
    Config,
    Credentials,
    Dns,
    Listener,
    ListenerBase,
    MtaSts,
    OutboundListener,
    Reuse,
    Route,
    Source,
    load,
)
from smtpproxy.config.load import parse
from smtpproxy.config.problem import dotted
from smtpproxy.config.source import Source as Yaml
from smtpproxy.config.source import read_yaml

# What has no default, or is shown with a value that makes more sense.
NOT_AS_DEFAULT = {"name", "listen", "backend", "recipient_domains", "servers"}

# Sections that are off by default, or of which there is none: they are shown in the explanation.
IN_COMMENTS = {Reuse, BareLineEndingsException, CertificatePair, Credentials, Source}

# What etc/smarthost.yaml shows of the settings that all listeners have; etc/inbound.yaml has the others.
SHOWN_AGAIN = {"name", "mode", "listen", "hostname"}

# Either of two: which of them a file shows, the other one is only named in its explanation.
ONLY_NAMED = {("routes", "credentials", "password_env")}

# A setting without a default that a file could show stands in a comment: "# key: example  # what it does (default)".
COMMENTED_OUT = re.compile(r"^( +)# ([a-z_0-9]+: .*  # .*)$", re.MULTILINE)

# What has to be changed for all that stands in comments to be right.
WITH_COMMENTS = [
    ("transparent: off  ", "transparent: redirect  "),
    ('"sqlite:/var/lib/smtpproxy/cache.db"', '"redis://h:1"'),
]

SAMPLES = ["inbound.yaml", "smarthost.yaml"]


@pytest.fixture(scope="module", params=SAMPLES)
def file(project: Path, request: pytest.FixtureRequest) -> Path:
    return project / "etc" / str(request.param)


@pytest.fixture(scope="module")
def complete(file: Path) -> str:
    """The text with the settings that stand in comments."""
    return with_comments(file.read_text())


def with_comments(text: str) -> str:
    for shown, needed in WITH_COMMENTS:
        text = text.replace(shown, needed)
    return COMMENTED_OUT.sub(r"\1\2", text)


@pytest.fixture(scope="module")
def source(complete: str) -> Yaml:
    return read_yaml("complete", complete)


def test_the_inbound_one_can_be_loaded(project: Path) -> None:
    config = load(project / "etc/inbound.yaml")
    assert config.inbound[0].recipient_domains == ("example.org",)
    assert str(config.backends["legacy"].servers[0]) == "127.0.0.1:2525"


def test_the_smarthost_can_be_loaded(project: Path) -> None:
    config = load(project / "etc/smarthost.yaml")
    assert [(listener.protocol, str(listener.listen[0])) for listener in config.outbound] == [
        ("smtp", "127.0.0.1:2525"),
        ("lmtp", "127.0.0.1:2526"),
    ]
    assert [route.domain for route in config.routes] == [("example.net", ".example.net"), ("*",)]
    assert config.routes[0].tls.mode == "verified"


def test_every_default_shown_is_the_default(project: Path, loaded: Callable[[str], Config], minimal: str) -> None:
    shown, default = load(project / "etc/inbound.yaml"), loaded(minimal)
    for one, other in (
        (shown.listeners[0], default.listeners[0]),
        (shown.backends["legacy"], default.backends["legacy"]),
    ):
        assert one.model_dump(exclude=NOT_AS_DEFAULT) == other.model_dump(exclude=NOT_AS_DEFAULT)
    assert shown.log == default.log
    assert shown.service == default.service


def test_every_default_of_the_smarthost_is_the_default(project: Path) -> None:
    config = load(project / "etc/smarthost.yaml")
    default = OutboundListener(name="x", listen=config.listeners[0].listen)
    assert config.listeners[0].model_dump(exclude=NOT_AS_DEFAULT) == default.model_dump(exclude=NOT_AS_DEFAULT)
    assert config.routes[1] == Route(domain=("*",))
    assert config.routes[0].order == Route(domain=("*",)).order
    assert (config.cache, config.dns, config.mta_sts) == (Cache(), Dns(), MtaSts())


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from models_in(part)


def paths_of(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        for inner in models_in(field.annotation):
            if inner not in IN_COMMENTS:
                yield from paths_of(inner, (*prefix, name))


def shown_in(text: str) -> set[tuple[str, ...]]:
    lines = read_yaml("complete", with_comments(text)).lines
    return {tuple(step for step in path if isinstance(step, str) and step != "legacy") for path in lines}


def test_every_setting_is_in_one_of_them(project: Path) -> None:
    inbound, smarthost = (shown_in((project / "etc" / name).read_text()) for name in SAMPLES)
    assert set(paths_of(Listener, ("listeners",))) - inbound == set()
    own = {name for name in OutboundListener.model_fields if name not in ListenerBase.model_fields} | SHOWN_AGAIN
    assert {path for path in paths_of(OutboundListener, ("listeners",)) if path[1] in own} - smarthost == set()
    assert {path for path in paths_of(Config) if path[0] != "listeners"} - inbound - smarthost == set()
    for key in Route.model_fields:
        assert ("routes", key) in smarthost
    for section, model in (("credentials", Credentials), ("source", Source)):
        assert set(paths_of(model, ("routes", section))) - smarthost <= ONLY_NAMED
    assert len(inbound) > 100
    assert len(smarthost) > 70


def value_at(config: Config, path: tuple[str | int, ...]) -> object:
    value: Any = config
    for step in path:
        value = getattr(value, step) if isinstance(value, BaseModel) else value[step]
    return value


def test_what_is_in_comments_can_be_set_and_has_no_default_to_be_shown(file: Path, source: Yaml, complete: str) -> None:
    as_it_is, without = parse("complete", complete), load(file)
    shown = read_yaml(str(file), file.read_text()).lines
    added = {path for path in source.lines if path not in shown and path[:-1] in shown}
    assert {dotted(path) for path in added} >= {"listeners[0].hostname"}
    assert len(added) == len(COMMENTED_OUT.findall(file.read_text())) > 9
    for path in added:
        value = value_at(without, path)
        assert value_at(as_it_is, path) not in (None, value)
        assert value in (None, Source()) or path[-1] == "hostname", path


def test_every_setting_is_explained(complete: str, source: Yaml) -> None:
    lines = complete.splitlines()
    said = {
        path[-1]
        for path, number in source.lines.items()
        if path and "  # " in lines[number - 1] and isinstance(path[-1], str)
    }
    unexplained = {
        f"{number}: {lines[number - 1]}"
        for path, number in source.lines.items()
        if path and isinstance(path[-1], str) and "  # " not in lines[number - 1] and again(path) not in said
    }
    assert unexplained == set()


def again(path: tuple[str | int, ...]) -> str | int | None:
    """The key of a second listener or of an earlier route: what it means is said where it has its default."""
    return path[-1] if path[:2] in (("listeners", 1), ("routes", 0)) else None


def test_what_is_in_comments_names_its_default(file: Path) -> None:
    for _, setting in COMMENTED_OUT.findall(file.read_text()):
        assert re.search(r"\(default: .+\)$|\(no default\)$", setting), setting


def test_a_section_in_a_comment_is_right(project: Path, minimal: str, loaded: Callable[[str], Config]) -> None:
    text = (project / "etc/inbound.yaml").read_text()
    reuse = re.search(r"on = (\{.*?\})", text)
    exceptions = re.search(r"such as (\[\{networks.*\}\])", text)
    certificates = re.search(r"as (\[\{cert.*\}\])", text)
    assert reuse is not None
    assert exceptions is not None
    assert certificates is not None
    assert set(re.findall(r"(\w+):", reuse[1])) == set(Reuse.model_fields)
    assert loaded(f"{minimal}    reuse: {reuse[1]}\n").backends["legacy"].reuse == Reuse()
    with_exceptions = minimal.replace("backends:", f"    bare_line_endings_exceptions: {exceptions[1]}\nbackends:")
    (exception,) = loaded(with_exceptions).listeners[0].bare_line_endings_exceptions
    assert exception.model_fields_set == set(BareLineEndingsException.model_fields)
    with_certificates = minimal.replace("backends:", f"    tls: {{certificates: {certificates[1]}}}\nbackends:")
    (pair,) = loaded(with_certificates).listeners[0].tls.certificates
    assert pair.model_fields_set == set(CertificatePair.model_fields)


# What the cross-checks ask for, though the model has a default.
REQUIRED_BY_CHECKS = {"inbound.yaml": {"backends"}, "smarthost.yaml": {"routes", "mode"}}


@pytest.mark.parametrize(
    ("name", "models"),
    [("inbound.yaml", [Config, Listener, Backend]), ("smarthost.yaml", [Config, OutboundListener, Route])],
)
def test_required_is_what_has_no_default(project: Path, name: str, models: list[type[BaseModel]]) -> None:
    required = {key for model in models for key, field in model.model_fields.items() if field.is_required()}
    text = (project / "etc" / name).read_text()
    assert set(re.findall(r"^ *(?:- )?(\w+):.*# REQUIRED", text, re.MULTILINE)) == required | REQUIRED_BY_CHECKS[name]
