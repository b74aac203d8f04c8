"""pydantic's findings in the words of somebody who administers a mail server."""

import difflib
import typing
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from smtpproxy.config.model import Config
from smtpproxy.config.problem import Path, quoted

__all__ = ["explain"]

# The last step of pydantic's path where a key is wrong, not its value.
_KEY_ITSELF: Final = "[key]"

_SECTION: Final = "a section is expected (settings, indented below it)"

# What a setting without a default is for: shown where it is missing.
_REQUIRED: Final = {
    "listeners": "a list of listeners",
    "backends": "a section with one entry for each backend",
    "name": "a name for this listener, of letters, digits, - and _",
    "listen": 'a list of addresses to listen on, such as ["0.0.0.0:25", "[::]:25"]',
    "backend": "the name of one of the backends",
    "servers": 'a list of addresses of the mail server, such as ["127.0.0.1:2525"]',
    "networks": "a list of networks, such as [10.0.0.0/8]",
    "policy": "normalize, reject or pass",
    "cert": "the name of a file with the certificate and those between it and the authority, in PEM form",
    "key": "the name of a file with the certificate's private key, in PEM form",
}


def explain(error: ValidationError, data: object) -> Iterator[tuple[Path, str]]:
    """Give each mistake of a validation as the path of the setting and what is wrong and expected there.

    ``data`` is what was validated; paths lead into it (a path's last step may be missing there).
    """
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and details["input"]:
            continue  # pydantic counts only the entries without a mistake; the others are reported already
        path = _into(details["loc"], data)
        yield path, _message(details, path)


def _into(loc: Path, data: Any) -> Path:  # noqa: ANN401  (a file's data)
    """Drop what pydantic adds to a path (names of branches and of validators).

    The steps that exist in the data stay, and the first that does not where a mapping lacks it.
    """
    path: list[str | int] = []
    for step in loc:
        if isinstance(data, dict) and isinstance(step, str):
            if step == _KEY_ITSELF:
                break
            path.append(step)
            if step not in data:
                break
            data = data[step]
        elif isinstance(data, (list, tuple)) and isinstance(step, int):
            path.append(step)
            data = data[step]
        else:
            break
    return tuple(path)


def _message(details: ErrorDetails, path: Path) -> str:
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    match kind:
        case "missing":
            message = f"missing; expected is {_REQUIRED[str(path[-1])]}"
        case "extra_forbidden":
            message = f"unknown key{_hint(path)}"
        case "value_error":
            message = str(context["error"])
        case "too_short":
            message = "at least one entry is expected"
        case _:
            message = f"{_expected(kind, context)}, not {quoted(given)}"
    return message


def _expected(kind: str, context: dict[str, Any]) -> str:
    """What is expected, for pydantic's errors that concern the value alone."""
    phrases = {
        "bool_type": "yes or no is expected",
        "dict_type": _SECTION,
        "model_type": _SECTION,
        "int_type": "a whole number is expected",
        "string_type": "text is expected (a number or a word like 'no' is written in quotes)",
        "tuple_type": "a list is expected, such as [one, two]",
        "literal_error": f"{context.get('expected', '')} is expected".replace("'", ""),
        "greater_than_equal": f"at least {context.get('ge')} is expected",
        "less_than_equal": f"at most {context.get('le')} is expected",
    }
    return phrases[kind]


def _hint(path: Path) -> str:
    """Where the key belongs, or which one may have been meant, else which there are."""
    key = str(path[-1]).lower().replace("-", "_")
    known = _section_at(path[:-1]).model_fields
    homes = [name for name, field in known.items() if _is_in(key, field.annotation)]
    if homes:
        return f"; it belongs into {' or '.join(homes)}"
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known here are {', '.join(known)}"


def _is_in(key: str, annotation: object) -> bool:
    return any(key in section.model_fields for section in _models_in(annotation))


def _section_at(path: Path) -> type[BaseModel]:
    """The model of a section, found by following the annotations along a path."""
    section: type[BaseModel] = Config
    named = False  # whether the next step is a name that the administrator gave
    for step in path:
        if named or not isinstance(step, str):
            named = False
        else:
            annotation = section.model_fields[step].annotation
            named = typing.get_origin(annotation) is dict
            section = next(_models_in(annotation), section)
    return section


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models_in(part)
