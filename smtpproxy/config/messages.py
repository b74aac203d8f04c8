"""pydantic's findings in the words of somebody who administers a mail server."""

import difflib
import typing
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from smtpproxy.config.listeners import Listener
from smtpproxy.config.model import MODE_TAGS, Config
from smtpproxy.config.outbound import OutboundListener
from smtpproxy.config.problem import Path, quoted

__all__ = ["explain"]

# The last step of pydantic's path where a key is wrong, not its value.
_KEY_ITSELF: Final = "[key]"

_SECTION: Final = "a section is expected (settings, indented below it)"

# What a setting without a default is for: shown where it is missing.
_REQUIRED: Final = {
    "listeners": "a list of listeners",
    "name": "a name for this listener, of letters, digits, - and _",
    "listen": 'a list of addresses to listen on, such as ["0.0.0.0:25", "[::]:25"]',
    "backend": "the name of one of the backends",
    "domain": 'a domain or a list of them: example.org, .example.org (each name below it) or "*"',
    "user": "the name that the remote knows us by",
    "servers": 'a list of addresses of the mail server, such as ["127.0.0.1:2525"]',
    "networks": "a list of networks, such as [10.0.0.0/8]",
    "policy": "normalize, reject or pass",
    "cert": "the name of a file with the certificate and those between it and the authority, in PEM form",
    "key": "the name of a file with the certificate's private key, in PEM form",
}

# The models behind pydantic's names for the kinds of listeners; and for each the others, by mode.
_KINDS: Final[dict[str | int, type[BaseModel]]] = {
    MODE_TAGS["inbound"]: Listener,
    MODE_TAGS["outbound"]: OutboundListener,
}
_OTHER_KIND: Final[dict[type[BaseModel], dict[str, type[BaseModel]]]] = {
    Listener: {"outbound": OutboundListener},
    OutboundListener: {"inbound": Listener},
}


def explain(error: ValidationError, data: object) -> Iterator[tuple[Path, str]]:
    """Give each mistake of a validation as the path of the setting and what is wrong and expected there.

    ``data`` is what was validated; paths lead into it (a path's last step may be missing there).
    """
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and details["input"]:
            continue  # pydantic counts only the entries without a mistake; the others are reported already
        loc = details["loc"]
        if details["type"] == "union_tag_not_found":
            loc = (*loc, "mode")
        path = _into(loc, data)
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
            if step in _KINDS and step not in data:
                continue
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
            message = f"unknown key{_hint(details['loc'])}"
        case "union_tag_not_found":
            message = f"{' or '.join(MODE_TAGS)} is expected, not {quoted(given['mode'])}"
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


def _hint(loc: Path) -> str:
    """Where the key belongs, or which one may have been meant, else which there are."""
    key = str(loc[-1]).lower().replace("-", "_")
    section = _section_at(loc[:-1])
    known = section.model_fields
    homes = [name for name, field in known.items() if _is_in(key, field.annotation)]
    if homes:
        return f"; it belongs into {_listed(homes)}"
    for mode, other in _OTHER_KIND.get(section, {}).items():
        if key in other.model_fields:
            return f" here; it belongs to a listener with mode: {mode}"
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known here are {', '.join(known)}"


def _listed(names: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _is_in(key: str, annotation: object) -> bool:
    return any(key in section.model_fields for section in _models_in(annotation))


def _section_at(loc: Path) -> type[BaseModel]:
    """The model of a section, found by following the annotations along a path of pydantic's."""
    section: type[BaseModel] = Config
    named = False  # whether the next step is a name that the administrator gave
    for step in loc:
        if named or not isinstance(step, str):
            named = False
        elif step in _KINDS:
            section = _KINDS[step]
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
