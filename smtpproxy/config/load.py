"""From a file to a Config, or to the list of all its mistakes."""

import os
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from smtpproxy.config.checks import cross_check
from smtpproxy.config.messages import explain
from smtpproxy.config.model import Config
from smtpproxy.config.problem import ConfigError, Problem
from smtpproxy.config.source import read_yaml
from smtpproxy.config.tlsfields import FOLDER

__all__ = ["LARGEST_FILE", "load", "parse"]

LARGEST_FILE: Final = 1024 * 1024
"""Octets; a larger file is no configuration."""


def load(path: str | os.PathLike[str]) -> Config:
    """Read and check a configuration file.

    Raises ConfigError with every mistake that there is, also if the file cannot be read.
    """
    file = os.fspath(path)
    return parse(file, _text(file))


def parse(file: str, text: str) -> Config:
    """The same for a configuration that is read already.

    ``file`` is its name in the messages; file names in the configuration belong to the folder of that file.
    """
    source = read_yaml(file, text)
    if source.data is None and not source.problems:
        source.report(1, (), "the file is empty: listeners and backends are expected")
    config: Config | None = None
    findings = list(cross_check(source.data))
    if source.data is not None:
        try:
            config = Config.model_validate(source.data, context={FOLDER: Path(file).absolute().parent})
        except ValidationError as error:
            findings.extend(explain(error, source.data))
    for key_path, message in findings:
        source.report(source.line_of(key_path), key_path, message)
    if source.problems or config is None:
        raise ConfigError(source.problems)
    return config


def _text(file: str) -> str:
    """The file's text; raises ConfigError if there is none to be had."""
    try:
        with Path(file).open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError([Problem(file, 0, "", f"cannot be read: {error.strerror}")]) from error
    if len(content) > LARGEST_FILE:
        raise ConfigError([Problem(file, 0, "", "larger than 1 MiB: this is no configuration file")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, line, "", "not UTF-8 text")]) from error
