"""etc/inbound.yaml shows every setting, each with its default."""

import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from smtpproxy.config import Backend, BareLineEndingsException, CertificatePair, Config, Listener, Reuse, load
from smtpproxy.config.load import parse
from smtpproxy.config.problem import dotted
from smtpproxy.config.source import Source, read_yaml

# What has no default, or is shown with a value that makes more sense.
NOT_AS_DEFAULT = {"name", "listen", "backend", "recipient_domains", "servers"}

# Sections that are off by default, or of which there is none: they are shown in the explanation.
IN_COMMENTS = {Reuse, BareLineEndingsException, CertificatePair}

# A setting without a default that a file could show stands in a comment: "# key: example  # what it does (default)".
COMMENTED_OUT = re.compile(r"^( +)# ([a-z_]+: .*  # .*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def file(project: Path) -> Path:
    return project / "etc" / "inbound.yaml"


@pytest.fixture(scope="module")
def complete(file: Path) -> str:
    """The text with the settings that stand in comments."""
    return COMMENTED_OUT.sub(r"\1\2", file.read_text())


@pytest.fixture(scope="module")
def source(complete: str) -> Source:
    return read_yaml("complete", complete)


def test_it_can_be_loaded(file: Path) -> None:
    config = load(file)
    assert config.listeners[0].recipient_domains == ("example.org",)
    assert str(config.backends["legacy"].servers[0]) == "127.0.0.1:2525"


def test_every_default_shown_is_the_default(file: Path, loaded: Callable[[str], Config], minimal: str) -> None:
    shown, default = load(file), loaded(minimal)
    for one, other in (
        (shown.listeners[0], default.listeners[0]),
        (shown.backends["legacy"], default.backends["legacy"]),
    ):
        assert one.model_dump(exclude=NOT_AS_DEFAULT) == other.model_dump(exclude=NOT_AS_DEFAULT)
    assert shown.log == default.log
    assert shown.service == default.service


def keys_of(model: type[BaseModel]) -> Iterator[str]:
    """Every key of a model and of the models in it."""
    for name, field in model.model_fields.items():
        yield name
        for inner in models_in(field.annotation):
            yield from keys_of(inner)


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


def test_every_setting_is_in_it(source: Source) -> None:
    shown = {tuple(step for step in path if isinstance(step, str) and step != "legacy") for path in source.lines}
    assert set(paths_of(Config)) - shown == set()
    assert len(shown) > 100


def value_at(config: Config, path: tuple[str | int, ...]) -> object:
    value: Any = config
    for step in path:
        value = getattr(value, step) if isinstance(value, BaseModel) else value[step]
    return value


def test_what_is_in_comments_can_be_set_and_has_no_default_to_be_shown(
    file: Path, source: Source, complete: str
) -> None:
    as_it_is, without = parse("complete", complete), load(file)
    shown = read_yaml(str(file), file.read_text()).lines
    added = {path for path in source.lines if path not in shown and path[:-1] in shown}
    assert {dotted(path) for path in added} >= {"listeners[0].hostname", "backends.legacy.tls.certificate"}
    assert len(added) == len(COMMENTED_OUT.findall(file.read_text()))
    for path in added:
        assert value_at(as_it_is, path) is not None
        assert value_at(without, path) is None or path[-1] == "hostname", path


def test_every_setting_is_explained(complete: str, source: Source) -> None:
    lines = complete.splitlines()
    unexplained = {
        f"{number}: {lines[number - 1]}"
        for path, number in source.lines.items()
        if path and isinstance(path[-1], str) and "  # " not in lines[number - 1]
    }
    assert unexplained == set()


def test_what_is_in_comments_names_its_default(file: Path) -> None:
    commented = COMMENTED_OUT.findall(file.read_text())
    assert len(commented) > 10
    for _, setting in commented:
        assert re.search(r"\(default: .+\)$|\(no default\)$", setting), setting


def test_a_section_in_a_comment_is_right(file: Path, minimal: str, loaded: Callable[[str], Config]) -> None:
    text = file.read_text()
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


def test_required_is_what_has_no_default(file: Path) -> None:
    required = {
        name
        for model in (Config, Listener, Backend)
        for name, field in model.model_fields.items()
        if field.is_required()
    }
    marked = set(re.findall(r"^ *(?:- )?(\w+):.*# REQUIRED", file.read_text(), re.MULTILINE))
    assert marked == required
