"""What is wrong with a configuration: one mistake, and the exception that carries all of them."""

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["NOTHING", "ConfigError", "Finding", "Nothing", "Path", "Problem", "dotted", "quoted"]

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_LONGEST_QUOTE: Final = 60
_PEM: Final = "-----BEGIN"

# The way to a setting: keys of mappings and indices of lists.
Path = tuple[str | int, ...]

# A mistake of which the place in the file is not looked up yet: the setting, and the message.
Finding = tuple[Path, str]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it stands, and what is expected there instead.

    ``line`` counts from 1; 0 means the file as a whole. ``key`` is the dotted path of the setting
    (``listeners[0].limits.line``), empty where no setting is concerned.
    """

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        """The mistake as one line: ``file:line: key: message``, without the parts that do not apply."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return _CONTROL.sub(_escaped, ": ".join(part for part in (place, self.key, self.message) if part))


class Nothing(enum.Enum):
    """A value that was left empty in the file.

    Not None, which means unlimited, off or any in the model: a list whose entries were all commented out must
    not come to mean that by accident.
    """

    NOTHING = enum.auto()


NOTHING: Final = Nothing.NOTHING


class ConfigError(Exception):
    """A configuration that cannot be used; ``problems`` holds every mistake, by line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Takes the mistakes found, in any order."""
        self.problems: tuple[Problem, ...] = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: Path) -> str:
    """Write a path as it is read: ``("listeners", 0, "listen")`` becomes ``listeners[0].listen``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def quoted(value: object) -> str:
    """Name a value of the file in a message, in a few words; never what looks like a key."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (dict, list, tuple)):
        return "a section" if isinstance(value, dict) else "a list"
    if value is NOTHING:
        return "nothing"
    text = str(value)
    return "the text of a key or certificate" if _PEM in text else f"'{text[:_LONGEST_QUOTE]}'"
