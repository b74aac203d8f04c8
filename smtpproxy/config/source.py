"""The YAML file as plain data, with the line of everything in it.

Only the plain part of YAML is understood: mappings, lists, text, whole numbers, truth values. Anything that
could make a small file large (aliases, deep nesting) or surprising (tags, dates, fractions, numbers to the
base of 60, duplicate keys) is a mistake or is text.
"""

import re
from typing import Any, Final

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from smtpproxy.config.problem import NOTHING, Nothing, Path, Problem, dotted

__all__ = ["Source", "read_yaml"]

_DEEPEST: Final = 20
_BOOL: Final = "tag:yaml.org,2002:bool"
_INT: Final = "tag:yaml.org,2002:int"
_NULL: Final = "tag:yaml.org,2002:null"
_STR: Final = "tag:yaml.org,2002:str"


class _TooDeepError(Exception):
    """Nesting beyond what any configuration needs; carries the line."""

    def __init__(self, line: int) -> None:
        self.line = line
        super().__init__(line)


class _PlainResolver(BaseResolver):
    """What an unquoted scalar means: a truth value, a whole number, nothing, or else text."""


for _tag, _pattern, _first in (
    (_BOOL, r"(?i:yes|no|true|false|on|off)", "yYnNtTfFoO"),
    (_INT, r"[-+]?[0-9]{1,18}", "-+0123456789"),
    (_NULL, r"~|null|Null|NULL|", "~nN"),
):
    _PlainResolver.add_implicit_resolver(
        _tag, re.compile(rf"(?:{_pattern})\Z"), [*_first, ""] if _tag == _NULL else list(_first)
    )


class _Loader(Reader, Scanner, Parser, Composer, _PlainResolver):
    """PyYAML's composer, without aliases and with bounded depth."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _PlainResolver.__init__(self)
        self.alias_lines: list[int] = []
        self._depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]  # types-PyYAML leaves it untyped
            self.alias_lines.append(event.start_mark.line + 1)
            return ScalarNode(_NULL, "", event.start_mark, event.end_mark)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _TooDeepError(self.line + 1)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class Source:
    """A file's data, the line of each path in it, and the mistakes found on the way.

    ``data`` is made of dict, tuple, str, int, bool and NOTHING; it is None where there is no document.
    """

    def __init__(self, file: str) -> None:
        """Starts empty; ``read_yaml`` fills it."""
        self.file = file
        self.data: Any = None
        self.lines: dict[Path, int] = {(): 1}
        self.problems: list[Problem] = []

    def line_of(self, path: Path) -> int:
        """The line of a path, or of the nearest thing around it that is in the file."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def report(self, line: int, path: Path, message: str) -> None:
        """Note a mistake."""
        self.problems.append(Problem(self.file, line, dotted(path), message))


def read_yaml(file: str, text: str) -> Source:
    """Read one YAML document.

    Takes the file's name (for the messages) and its text. Gives its data and lines; mistakes are in
    ``problems`` and do not keep the rest from being read, except for a mistake of syntax, after which
    ``data`` is None.
    """
    source = Source(file)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except _TooDeepError as error:
        source.report(error.line, (), f"nested deeper than {_DEEPEST} levels, which no setting needs")
        return source
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        source.report(line, (), f"a character that YAML does not allow (#x{error.character:04x})")
        return source
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        source.report(mark.line + 1 if mark else 1, (), _syntax(error))
        return source
    for line in loader.alias_lines:
        source.report(line, (), "aliases (*name) are not supported: write the value out")
    if root is not None:
        source.data = _plain(root, (), source)
    return source


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "not understood"
    if "'\\t'" in problem:
        problem += "; indent with spaces, not with tabs"
    elif "mapping values are not allowed" in problem:
        problem += "; is the indentation right, is a text with ': ' in quotes?"
    context = f" ({error.context})" if error.context else ""
    return f"not valid YAML: {problem}{context}"


def _plain(node: Node, path: Path, source: Source) -> Any:  # noqa: ANN401  (whatever the file holds)
    """A node's data; notes its line (unless its key has noted it already) and its mistakes."""
    line = node.start_mark.line + 1
    source.lines.setdefault(path, line)
    if isinstance(node, MappingNode) and node.tag == "tag:yaml.org,2002:map":
        return _mapping(node, path, source)
    if isinstance(node, SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return tuple(_plain(item, (*path, index), source) for index, item in enumerate(node.value))
    if isinstance(node, ScalarNode) and node.tag in {_BOOL, _INT, _NULL, _STR}:
        return _scalar(node, path, source)
    source.report(line, path, "tags (!name) are not supported")
    return None


def _text(node: ScalarNode, path: Path, source: Source) -> str:
    """A scalar as it is written, made printable; notes a half of a surrogate pair, which no file could hold."""
    text: str = node.value
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode(errors="replace").decode()
        source.report(node.start_mark.line + 1, path, "an escape such as \\ud800 stands for no character")
    return text


def _scalar(node: ScalarNode, path: Path, source: Source) -> str | int | bool | Nothing | None:
    text = _text(node, path, source)
    if node.tag == _BOOL:
        return SafeConstructor.bool_values.get(text.lower())
    if node.tag == _INT:
        return int(text)
    return NOTHING if node.tag == _NULL else text


def _mapping(node: MappingNode, path: Path, source: Source) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            source.report(line, path, "a key must be a word")
            continue
        key = _text(key_node, path, source)
        key_path = (*path, key)
        if key in data:
            source.report(line, key_path, f"given twice; the first is in line {source.lines[key_path]}")
            continue
        source.lines[key_path] = line
        data[key] = _plain(value_node, key_path, source)
    return data
