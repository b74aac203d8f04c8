"""A configuration file made of a few words, and its mistakes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from smtpproxy.config import Config, ConfigError, load

MINIMAL = """\
listeners:
  - name: mx
    listen: ["127.0.0.1:2525"]
    backend: legacy
    recipient_domains: [example.org]
backends:
  legacy:
    servers: ["192.0.2.1:25"]
"""

OUTBOUND = """\
listeners:
  - name: out
    mode: outbound
    listen: ["127.0.0.1:2525"]
routes:
  - domain: "*"
"""


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[[str], Config]:
    """Load a configuration from its text."""

    def read(text: str) -> Config:
        file = tmp_path / "c.yaml"
        file.write_text(text)
        return load(file)

    return read


@pytest.fixture
def mistakes(loaded: Callable[[str], Config], tmp_path: Path) -> Callable[[str], list[str]]:
    """The mistakes of a configuration, without the folder in front."""

    def read(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            loaded(text)
        return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]

    return read


@pytest.fixture
def minimal() -> str:
    """A configuration with the required settings only; a setting of the listener can be put at its end."""
    return MINIMAL


@pytest.fixture
def listener_with(mistakes: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """The mistakes of the minimal configuration with more settings of its listener, from line 6 on.

    Line and ``listeners[0].`` are left out.
    """

    def read(settings: str) -> list[str]:
        indented = "".join(f"    {line}\n" for line in settings.splitlines())
        found = mistakes(MINIMAL.replace("backends:", f"{indented}backends:"))
        return [line.partition(": ")[2].removeprefix("listeners[0].") for line in found]

    return read


@pytest.fixture
def backend_with(mistakes: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """The same for the settings of the backend."""

    def read(settings: str) -> list[str]:
        indented = "".join(f"    {line}\n" for line in settings.splitlines())
        found = mistakes(MINIMAL + indented)
        return [line.partition(": ")[2].removeprefix("backends.legacy.") for line in found]

    return read


@pytest.fixture
def outbound() -> str:
    """A configuration for mail to the world; a setting of its route can be put at its end."""
    return OUTBOUND


def indented(settings: str) -> str:
    return "".join(f"    {line}\n" for line in settings.splitlines())


@pytest.fixture
def sender_with(mistakes: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """The mistakes of the configuration for mail to the world with more settings of its listener, from line 5 on.

    Line and ``listeners[0].`` are left out.
    """

    def read(settings: str) -> list[str]:
        found = mistakes(OUTBOUND.replace("routes:", f"{indented(settings)}routes:"))
        return [line.partition(": ")[2].removeprefix("listeners[0].") for line in found]

    return read


@pytest.fixture
def route_with(mistakes: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """The same for the settings of the route."""

    def read(settings: str) -> list[str]:
        found = mistakes(OUTBOUND + indented(settings))
        return [line.partition(": ")[2].removeprefix("routes[0].") for line in found]

    return read
