"""etc/inbound.yaml shows every setting, each with its default."""

import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from smtpproxy.config import Backend, BareLineEndingsException, Config, Listener, Reuse, load
from smtpproxy.config.source import Source, read_yaml

# What has no default, or (the name of this machine) none that a file could show.
REQUIRED = {"name", "listen", "backend", "recipient_domains", "servers", "networks", "policy"}
NOT_SHOWN = {"hostname"}

# Sections that are off by default: they are shown in the explanation.
IN_COMMENTS = {Reuse, BareLineEndingsException}


@pytest.fixture(scope="module")
def file(project: Path) -> Path:
    return project / "etc" / "inbound.yaml"


@pytest.fixture(scope="module")
def source(file: Path) -> Source:
    return read_yaml(str(file), file.read_text())


def test_it_can_be_loaded(file: Path) -> None:
    config = load(file)
    assert config.listeners[0].recipient_domains == ("example.org",)
    assert str(config.backends["legacy"].servers[0]) == "127.0.0.1:2525"


def test_every_default_shown_is_the_default(file: Path, loaded: Callable[[str], Config], minimal: str) -> None:
    shown, default = load(file), loaded(minimal)
    assert shown.listeners[0].model_dump(exclude=REQUIRED) == default.listeners[0].model_dump(exclude=REQUIRED)
    assert shown.backends["legacy"].model_dump(exclude=REQUIRED) == default.backends["legacy"].model_dump(
        exclude=REQUIRED
    )
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
    missing = {path for path in paths_of(Config) if path not in shown and path[-1] not in NOT_SHOWN}
    assert missing == set()
    assert len(shown) > 60


def test_the_name_of_the_machine_is_in_it_as_a_comment(file: Path) -> None:
    assert re.search(r"^    # hostname: .*default: the machine's full name", file.read_text(), re.MULTILINE)
    assert set(Listener.model_fields) >= NOT_SHOWN


def test_every_setting_is_explained(file: Path, source: Source) -> None:
    lines = file.read_text().splitlines()
    unexplained = {
        f"{number}: {lines[number - 1]}"
        for path, number in source.lines.items()
        if path and isinstance(path[-1], str) and "  # " not in lines[number - 1]
    }
    assert unexplained == set()


def test_a_section_in_a_comment_is_right(file: Path, minimal: str, loaded: Callable[[str], Config]) -> None:
    text = file.read_text()
    reuse = re.search(r"on = (\{.*?\})", text)
    exceptions = re.search(r"such as (\[\{networks.*\}\])", text)
    assert reuse is not None
    assert exceptions is not None
    assert set(re.findall(r"(\w+):", reuse[1])) == set(Reuse.model_fields)
    assert loaded(f"{minimal}    reuse: {reuse[1]}\n").backends["legacy"].reuse == Reuse()
    with_exceptions = minimal.replace("backends:", f"    bare_line_endings_exceptions: {exceptions[1]}\nbackends:")
    (exception,) = loaded(with_exceptions).listeners[0].bare_line_endings_exceptions
    assert exception.model_fields_set == set(BareLineEndingsException.model_fields)


def test_required_is_what_has_no_default(file: Path) -> None:
    required = {
        name
        for model in (Config, Listener, Backend)
        for name, field in model.model_fields.items()
        if field.is_required()
    }
    marked = set(re.findall(r"^ *(?:- )?(\w+):.*# REQUIRED", file.read_text(), re.MULTILINE))
    assert marked == required
