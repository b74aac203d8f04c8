"""What the documentation says is held against the code: tables, replies, log fields, settings, commands, links."""

import ast
import os
import re
import shlex
import stat
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from smtpproxy import cli
from smtpproxy.config import Cache, Config, Dns, MtaSts, OutboundListener, Route
from smtpproxy.config.load import parse
from smtpproxy.config.units import parse_duration, parse_size
from smtpproxy.ops.counters import Counters
from smtpproxy.session import backend, frontend
from smtpproxy.session.outbound import delivery, states
from smtpproxy.session.outbound.fault import Kind
from smtpproxy.session.outbound.notes import Finding
from smtpproxy.smtp.commands import VERBS

PROJECT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TICKED = re.compile(r"`([^`\n]+)`")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))


def text_of(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def prose(text: str) -> str:
    return BLOCK.sub("", text)


def tables(text: str, *head: str) -> Iterator[list[list[str]]]:
    """The rows of every table whose head begins with these cells."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if cells(line)[: len(head)] == list(head) and lines[number + 1].startswith("| ---"):
            rows = []
            for row in lines[number + 2 :]:
                if not row.startswith("|"):
                    break
                rows.append(cells(row))
            yield rows


def table(text: str, *head: str) -> list[list[str]]:
    found = list(tables(text, *head))
    assert len(found) == 1, head
    return found[0]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")] if line.startswith("|") else []


def section(text: str, heading: str) -> str:
    begin = text.index(f"\n## {heading}\n")
    end = text.find("\n## ", begin + 1)
    return text[begin:end] if end >= 0 else text[begin:]


def trees(*folders: str) -> Iterator[ast.AST]:
    for folder in folders:
        for path in sorted((PROJECT / "smtpproxy" / folder).glob("*.py")):
            yield ast.parse(path.read_text(encoding="utf-8"))


CORE = ("smtp", "session", "session/outbound", "net")
"""Where replies and reasons come from."""


# --- states ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "module"),
    [("The frontend's states", frontend), ("The backend's states", backend), ("The remote's states", states)],
)
def test_the_tables_of_states_are_those_of_the_code(heading: str, module: typing.Any) -> None:
    shown = set()
    for state, event, following in table(section(text_of("docs/architecture.md"), heading), "state", "event", "next"):
        states = [s.name for s in module.State] if state == "any" else [state]
        shown |= {(name, event, following) for name in states}
    code = {(state.name, event.name, after.name) for (state, event), after in module.TRANSITIONS.items()}
    assert shown == code


@pytest.mark.parametrize(
    ("head", "kind"),
    [("stage", delivery.Stage), ("errand", delivery.Errand), ("finding", Finding), ("fault", Kind)],
)
def test_what_a_delivery_does_and_meets_is_listed(head: str, kind: Iterator[typing.Any]) -> None:
    rows = table(text_of("docs/architecture.md"), head)
    assert [row[0] for row in rows] == [member.name for member in kind]
    assert all(row[1] for row in rows)


def test_the_command_table_is_that_of_the_code() -> None:
    shown = {verb: ends == "yes" for verb, ends, *_ in table(text_of("docs/protocol.md"), "verb", "ends a group")}
    assert shown == {verb.name.decode(): verb.ends_group for verb in VERBS.values()}


def test_every_module_has_its_place() -> None:
    package = PROJECT / "smtpproxy"
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", text_of("docs/architecture.md")))
    modules = {str(path.relative_to(package)) for path in package.rglob("[a-z]*.py")}
    small = ("ops/demo/", "ops/probe/")
    named = {name for name in named if not name.startswith("tests/")}
    assert named == {module for module in modules if not module.startswith(small)}


# --- rules and replies -------------------------------------------------------------------------------------------


def test_every_rule_that_the_code_cites_has_its_place() -> None:
    known = set(re.findall(r"^### ([SCH]\d+)\. ", text_of("docs/protocol.md"), re.MULTILINE))
    cited = set()
    for path in (PROJECT / "smtpproxy").rglob("*.py"):
        for citation in re.findall(r"\(?rules? [^.;:)\n]*|\((?:[SCH]\d+(?:, )?)+\)", path.read_text(encoding="utf-8")):
            cited |= set(re.findall(r"\b[SCH]\d+\b", citation))
    assert cited > {"S5", "C7", "H8"}
    assert cited <= known
    assert known >= {f"C{number}" for number in range(1, 17)}


COMPLETE = re.compile(rb"([2-5]\d\d [245]\.\d+\.\d+) (.+)\r\n")
BEGINNING = re.compile(rb"([2-5]\d\d [245]\.\d+\.\d+) ?(.*)")


def replies_in_code() -> tuple[set[tuple[str, str]], set[tuple[str, str]], set[str]]:
    """Replies of our own: those that stand in one piece, the beginnings of the others, and the words of the others."""
    complete, begun, words = set(), set(), set()
    for tree in trees(*CORE):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "text":
                code, text = node.args
                if isinstance(code, ast.Constant) and isinstance(text, ast.Constant):
                    complete.add((code.value.decode(), f"*name* {text.value.decode()}"))
            elif isinstance(node, ast.Constant) and isinstance(node.value, bytes):
                if match := COMPLETE.fullmatch(node.value):
                    complete.add((match[1].decode(), match[2].decode().replace("%d", "*n*")))
                elif match := BEGINNING.fullmatch(node.value):
                    begun.add((match[1].decode(), match[2].decode()))
                elif re.fullmatch(rb",? [A-Za-z ]{9,}\r\n", node.value):
                    words.add(node.value.decode().strip(", \r\n"))
    return complete, begun, words


def unroutable_in_code() -> Iterator[tuple[str, str]]:
    """Why there is no way for a recipient: code, and text as a pattern, with whatever is put in as ``*name*``."""
    for tree in trees("net"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "unroutable":
                code, text = node.args
                if isinstance(text, ast.Constant):
                    yield ast.literal_eval(code).decode(), re.escape(text.value)
                elif isinstance(text, ast.JoinedStr):
                    yield ast.literal_eval(code).decode(), pattern_of(text)


def pattern_of(text: ast.JoinedStr) -> str:
    return "".join(re.escape(part.value) if isinstance(part, ast.Constant) else r"\*[a-z]+\*" for part in text.values)


def test_every_reason_why_there_is_no_way_is_listed() -> None:
    listed = [(row[0], row[1]) for row in replies_listed()]
    found = list(unroutable_in_code())
    assert len(found) > 10
    for code, pattern in found:
        assert any(code == other and re.fullmatch(pattern, text) for other, text in listed), (code, pattern)


def test_the_list_of_our_own_replies_is_complete_and_true() -> None:
    complete, begun, words = replies_in_code()
    listed = {(row[0], row[1].replace("&lt;", "<").replace("&gt;", ">")) for row in replies_listed()}
    assert complete <= listed
    in_pieces = listed - complete
    assert {code for code, _ in in_pieces} <= {code for code, _ in begun} | {"220", "250", "354"}
    for code, beginning in begun:
        assert any(code == other and text.startswith(beginning) for other, text in listed), (code, beginning)
    for word in words:
        assert any(word in text for _, text in in_pieces), word
    sources = "".join(ast.unparse(tree) for tree in trees(*CORE)).lower()
    for code, text in in_pieces:
        if " " in code:
            words = max(re.split(r",|\*[a-z]+\*", text.removeprefix("*name* ")), key=len)
            assert words.strip().lower() in sources, text


def replies_listed() -> list[list[str]]:
    first, outbound = tables(text_of("docs/protocol.md"), "code", "text")
    assert len(first) > 30
    assert len(outbound) > 30
    return [*first, *outbound]


# --- the log -----------------------------------------------------------------------------------------------------


def events_in_code() -> dict[str, set[str] | None]:
    """Every event and its fields; None where they are not written out at the call."""
    events: dict[str, set[str] | None] = {}
    for tree in trees("ops", "."):
        given = dict(dictionaries_given(tree))
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            arguments = node.args[1:] if called == "_emit" else node.args
            if called not in {"debug", "info", "warning", "error", "write", "_emit"} or len(arguments) != 2:
                continue
            name, fields = arguments
            if isinstance(name, ast.Constant):
                known = isinstance(fields, ast.Dict)
                keys = keys_of(fields, given) if isinstance(fields, ast.Dict) else set()
                events[name.value] = events.get(name.value, set()) | keys if known else None
    return events


def dictionaries_given(tree: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """The functions that return a dictionary, and its keys."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for statement in node.body:
                if isinstance(statement, ast.Return) and isinstance(statement.value, ast.Dict):
                    yield node.name, keys_of(statement.value, {})


def keys_of(dictionary: ast.Dict, given: dict[str, set[str]]) -> set[str]:
    """The keys that are written out, and those of functions whose dictionaries are put in with ``**``."""
    keys = set()
    for key, value in zip(dictionary.keys, dictionary.values, strict=True):
        if key is not None:
            keys.add(ast.literal_eval(key))
        else:
            called = {
                node.func.id for node in ast.walk(value) if isinstance(node, ast.Call) and hasattr(node.func, "id")
            }
            keys |= set().union(*(given[name] for name in called))
    return keys


def test_every_event_and_field_of_the_log_is_explained() -> None:
    chapter = section(text_of("docs/operations.md"), "The log")
    code = events_in_code()
    assert {"session", "transaction", "log_lines_lost"} <= code.keys()
    explained = set()
    for part in chapter.split("\n### ")[1:]:
        names = TICKED.findall(part.splitlines()[0])
        explained |= set(names)
        fields = {field for row in next(tables(part, "field"), []) for field in TICKED.findall(row[0])}
        if all(code.get(name) is not None for name in names) and names:
            assert fields == set().union(*(code[name] or set() for name in names)), names
    assert explained == code.keys()


def test_every_counter_is_explained() -> None:
    rows = table(text_of("docs/operations.md"), "counter")
    assert {row[0].strip("`") for row in rows} == set(Counters.__slots__)


def test_every_reason_why_a_session_ends_is_one() -> None:
    sources = "".join(ast.unparse(tree) for tree in trees(*CORE))
    reasons = {reason for row in table(text_of("docs/operations.md"), "`end`") for reason in TICKED.findall(row[0])}
    assert len(reasons) > 10
    for reason in reasons:
        assert repr(reason) in sources or f'"{reason}"' in sources, reason


# --- settings ----------------------------------------------------------------------------------------------------


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for part in sections(field.annotation):
            yield from settings(part, f"{prefix}{name}.")


def sections(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from sections(argument)


SETTINGS = [f".{name}" for name in settings(Config)]


def defaults(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, field in model.model_fields.items():
        yield f".{prefix}{name}", field.default
        for part in sections(field.annotation):
            yield from defaults(part, f"{prefix}{name}.")


def is_setting(name: str) -> bool:
    return any(known.endswith(f".{name}") for known in SETTINGS)


@each_page
def test_every_setting_that_is_named_exists(page: Path) -> None:
    text = prose(page.read_text(encoding="utf-8"))
    first = {part for name in SETTINGS for part in name.split(".")}
    for name in re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+)`", text):
        assert is_setting(name) or name.split(".")[0] not in first or name.endswith(".py"), name
    for rows in tables(text, "setting"):
        for row in rows:
            for name in TICKED.findall(row[0]):
                assert is_setting(name.partition(":")[0]) or name in {"lazy", "on", "lockstep"}, name


@pytest.mark.parametrize("model", [OutboundListener, Route, Cache, Dns, MtaSts])
def test_every_setting_for_mail_to_the_world_is_explained(model: type[BaseModel]) -> None:
    """Those of listeners that both kinds have may be explained with the inbound ones."""
    page = prose(text_of("docs/configuration.md"))
    explained = {name for ticked in TICKED.findall(page) for name in re.split(r"[.:, {}]+", ticked)}
    for name in model.model_fields:
        assert name in explained, name
    for part in {part for field in model.model_fields.values() for part in sections(field.annotation)}:
        assert part.__name__ in _BY_ITSELF or set(part.model_fields) <= explained, part.__name__


# What each setting of these is for is said by its name and one line in the samples.
_BY_ITSELF = {"BareLineEndingsException", "EarlyPipelining", "OutboundLimits", "ListenerTimeouts", "RemoteTimeouts"}


NAMED = re.compile(r"`([a-z_]+(?:\.[a-z_]+)+)`\s\((\d+(?: (?:ms|s|min|h|d|KiB|MiB))?)[;)\s]")


@each_page
def test_every_default_that_is_named_is_one(page: Path) -> None:
    """What stands in brackets behind a setting, such as `cache.ttl` (24 h)."""
    for name, value in NAMED.findall(page.read_text(encoding="utf-8")):
        of_that_name = [default for known, default in defaults(Config) if known.endswith(f".{name}")]
        assert in_units(value) in of_that_name, name


def in_units(value: str) -> float:
    number, _, unit = value.partition(" ")
    if not unit:
        return float(number)
    return parse_size(value) if "B" in unit else parse_duration(value)


@each_page
def test_every_configuration_that_is_shown_has_no_mistake(page: Path) -> None:
    for language, content in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "yaml":
            parse(page.name, content)


@pytest.mark.parametrize("sample", sorted((PROJECT / "etc").glob("*.yaml")), ids=lambda sample: sample.name)
def test_every_sample_has_no_mistake(sample: Path) -> None:
    parse(sample.name, sample.read_text(encoding="utf-8"))


# --- commands and links ------------------------------------------------------------------------------------------


@each_page
def test_every_command_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(" ".join(re.findall(r"^([a-z -]+):", text_of("Makefile"), re.MULTILINE)).split())
    lines = [line for _, block in BLOCK.findall(text) for line in block.splitlines()]
    for command in [*lines, *TICKED.findall(prose(text))]:
        words = shlex.split(command, comments=True) if re.match(r"(make|smtpproxy) [a-z]", command) else []
        if words[:1] == ["make"]:
            assert words[1] in targets, command
        elif words and (command in lines or "-c" in words):
            cli._parser(words[1:]).parse_args(words[1:])


def test_the_deploy_hook_puts_a_renewed_pair_where_the_service_may_read_it(tmp_path: Path) -> None:
    chapter = section(text_of("docs/operations.md"), "TLS and certificates")
    (hook,) = [content for language, content in BLOCK.findall(chapter) if content.startswith("#!/bin/sh\n")]
    renewed, to = tmp_path / "live", tmp_path / "etc/tls"
    renewed.mkdir()
    hook = hook.replace("/etc/smtpproxy/tls", str(to)).replace("smtpproxy-tls", str(os.getgid()))
    for contents in ("old", "new"):
        for name in ("fullchain", "privkey"):
            (renewed / f"{name}.pem").write_text(f"{contents} {name}", encoding="ascii")
        environment = {"PATH": os.environ["PATH"], "RENEWED_LINEAGE": str(renewed)}
        subprocess.run(["sh", "-c", hook], env=environment, check=True)
        assert {file.name: file.read_text(encoding="ascii") for file in to.iterdir()} == {
            "fullchain.pem": f"{contents} fullchain",
            "privkey.pem": f"{contents} privkey",
        }
    assert {stat.S_IMODE(file.stat().st_mode) for file in to.iterdir()} == {0o640}
    assert stat.S_IMODE(to.stat().st_mode) == 0o750


def test_the_readme_says_how_to_begin() -> None:
    readme = text_of("README.md")
    for command in ("make demo", "make test", "smtpproxy check", "--relay", "smtpproxy run", "twistd -n smtpproxy"):
        assert command in readme
    outbound = section(readme, "A smarthost, in five minutes")
    for command in ("smtpproxy check", "smtpproxy run", "default_transport = lmtp:inet:", "smtpproxy cache list"):
        assert command in outbound


@each_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert PROJECT in file.parents, target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """The anchors that a heading gets on the usual hosts: lower case, spaces as hyphens, nothing else but letters."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
