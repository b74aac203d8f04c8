"""The direction of the imports, read from the source: a package imports only what stands below it."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

# From the top. A package may import itself and what stands further down.
FLOORS = ("cli", "service", "generation", "outbound", "ops", "net", "store", "session", "smtp")

# config stands beside the floors.
CONFIG_IMPORTS = {"config", "smtp"}
CONFIG_IMPORTERS = {"cli", "service", "generation", "outbound", "ops", "net", "config"}

# The core gets time as an argument, and bytes, and gives bytes.
CORE = {"session", "smtp"}
NOT_IN_CORE = {
    "asyncio", "datetime", "dns", "http", "logging", "os", "select", "selectors", "signal", "socket", "ssl",
    "subprocess", "syslog", "threading", "time", "twisted", "zope", "OpenSSL", "cryptography", "service_identity",
}  # fmt: skip

# There is one TLS in the process, pyOpenSSL's, and one layer of ours upon it (net/tls.py).
OTHER_TLS = ("ssl", "twisted.internet.ssl", "twisted.internet._sslverify", "twisted.protocols.tls")


class Import(NamedTuple):
    """One imported module: by whom, its full name, where."""

    floor: str
    module: str
    place: str


def imports_of(source: str, module: str, *, is_package: bool) -> Iterator[tuple[str, int]]:
    """Every module that a source imports, also inside functions, by full name, with the line.

    ``from package import name`` counts as ``package.name``: the name may be a module.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


def all_imports(project: Path) -> list[Import]:
    found = []
    for path in sorted((project / "smtpproxy").rglob("*.py")):
        relative = path.relative_to(project)
        is_package = path.name == "__init__.py"
        module = ".".join(relative.parent.parts if is_package else relative.with_suffix("").parts)
        floor = [*module.split("."), ""][1]
        for name, line in imports_of(path.read_text(), module, is_package=is_package):
            found.append(Import(floor, name, f"{relative}:{line}"))
    return found


@pytest.fixture(scope="module")
def found(project: Path) -> list[Import]:
    imports = all_imports(project)
    assert {"cli", "config", "session", "smtp"} <= {item.floor for item in imports}
    return imports


def may_import(importer: str, imported: str) -> bool:
    """Whether one part of the package may import another."""
    if importer == "config":
        return imported in CONFIG_IMPORTS
    if imported == "config":
        return importer in CONFIG_IMPORTERS
    if importer == "__main__":
        return imported == "cli"
    return FLOORS.index(importer) <= FLOORS.index(imported)


def test_imports_point_downwards(found: list[Import]) -> None:
    parts = {*FLOORS, "config"}
    wrong = []
    for item in found:
        package, _, rest = item.module.partition(".")
        imported = rest.partition(".")[0]
        if package == "smtpproxy" and imported in parts and not may_import(item.floor, imported):
            wrong.append(f"{item.place}: {item.floor} imports {item.module}")
    assert wrong == []


def test_the_core_knows_no_clock_and_no_outside(found: list[Import]) -> None:
    wrong = [
        f"{item.place}: {item.module}"
        for item in found
        if item.floor in CORE and item.module.partition(".")[0] in NOT_IN_CORE
    ]
    assert wrong == []


def test_there_is_one_tls(found: list[Import]) -> None:
    assert any(item.module.startswith("OpenSSL") for item in found)
    assert [
        f"{item.place}: {item.module}"
        for item in found
        if any(f"{item.module}.".startswith(f"{other}.") for other in OTHER_TLS)
    ] == []


def test_only_the_command_line_imports_the_reactor(found: list[Import]) -> None:
    wrong = [
        item.place
        for item in found
        if item.floor != "cli" and f"{item.module}.".startswith("twisted.internet.reactor.")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b", ["a.b"]),
        ("from a import b, c", ["a.b", "a.c"]),
        ("from . import b", ["smtpproxy.net.b"]),
        ("from .b import c", ["smtpproxy.net.b.c"]),
        ("from ..smtp import c", ["smtpproxy.smtp.c"]),
        ("def f():\n    from twisted.internet import reactor", ["twisted.internet.reactor"]),
    ],
)
def test_every_form_of_import_is_seen(source: str, expected: list[str]) -> None:
    seen = imports_of(source, "smtpproxy.net.lean", is_package=False)
    assert [name for name, _ in seen] == expected
    in_package = imports_of("from . import b\nfrom ..smtp import c", "smtpproxy.net", is_package=True)
    assert [name for name, _ in in_package] == ["smtpproxy.net.b", "smtpproxy.smtp.c"]


def test_the_rule_itself() -> None:
    assert may_import("cli", "smtp")
    assert may_import("net", "net")
    assert may_import("net", "config")
    assert not may_import("smtp", "session")
    assert not may_import("session", "config")
    assert not may_import("config", "net")
