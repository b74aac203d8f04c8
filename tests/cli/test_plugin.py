"""The plugin for ``twistd``, and the project as it is packaged."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.python import usage

PLUGIN = "twisted/plugins/smtpproxy_plugin.py"
RUN_TWISTD = "from twisted.scripts.twistd import run; run()"
LIMIT = 120


def quiet(*command: str | Path, folder: Path) -> str:
    """Run a command in a folder, without the user's Python settings, and give what it prints."""
    result = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from a copy without network access."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
    for name in ("smtpproxy", "twisted"):
        shutil.copytree(project / name, folder / name, ignore=ignored)
    for path in (*project.glob("README*"), *project.glob("LICEN*"), project / "pyproject.toml", project / "setup.py"):
        shutil.copy(path, folder)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    name = quiet(sys.executable, "-c", build, folder=folder).splitlines()[-1]
    return folder / name


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel in it.

    The dependencies are those that the tests run with: a path in a .pth file makes them importable, but not the
    editable installation among them, which needs a .pth file of its own to be read.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    site = Path(quiet(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet")
    quiet(*pip, "--no-index", "--no-deps", "--ignore-installed", wheel, folder=folder)
    return folder


def test_what_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {PLUGIN, "smtpproxy/py.typed", "smtpproxy/config/model.py", "smtpproxy/cli/run.py"} <= names
    assert not [name for name in names if name.endswith("/__init__.py") and not name.startswith("smtpproxy/")]


def test_every_module_is_in_the_wheel_and_nothing_else(wheel: Path, project: Path) -> None:
    folders = (project / "smtpproxy", project / "twisted")
    sources = {str(path.relative_to(project)) for folder in folders for path in folder.rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if name.endswith(".py")} == sources


def test_twistd_lists_the_plugin(installed: Path) -> None:
    where = "import smtpproxy; print(smtpproxy.__file__)"
    python = installed / "venv" / "bin" / "python"
    assert quiet(python, "-c", where, folder=installed).startswith(str(installed))
    listed = quiet(python, "-c", RUN_TWISTD, "--help", folder=installed)
    assert "    smtpproxy " in listed
    assert "early pipelining" in listed


def test_twistd_lists_the_reactor(installed: Path) -> None:
    python = installed / "venv" / "bin" / "python"
    assert "smtpproxy-lean" in quiet(python, "-c", RUN_TWISTD, "--help-reactors", folder=installed).split()


def test_the_command_is_installed(installed: Path, project: Path) -> None:
    smtpproxy = installed / "venv" / "bin" / "smtpproxy"
    assert quiet(smtpproxy, "--version", folder=installed).startswith("smtpproxy ")
    example = project / "etc" / "inbound.yaml"
    assert quiet(smtpproxy, "check", "-c", example, folder=installed) == f"{example}: no mistakes\n"


def service_maker() -> IServiceMaker:
    (maker,) = [plugin for plugin in getPlugins(IServiceMaker) if plugin.tapname == "smtpproxy"]
    return maker


def test_the_configuration_has_to_be_named() -> None:
    with pytest.raises(usage.UsageError, match="a configuration is needed: -c FILE"):
        service_maker().options().parseOptions([])


@pytest.mark.parametrize(("arguments", "verbose"), [(["-c", "x.yaml"], False), (["--config", "x.yaml", "-v"], True)])
def test_the_options_reach_the_service(monkeypatch: pytest.MonkeyPatch, arguments: list[str], *, verbose: bool) -> None:
    seen = []
    monkeypatch.setattr(
        "smtpproxy.service.make_service", lambda path, reactor, *, verbose: seen.append((path, verbose)) or reactor
    )
    maker = service_maker()
    options = maker.options()
    options.parseOptions(arguments)
    service = maker.makeService(options)
    from twisted.internet import reactor  # noqa: PLC0415  (the test may not choose it before others do)

    assert service is reactor
    assert seen == [("x.yaml", verbose)]


def test_mistakes_end_the_process_with_all_of_them(written: Callable[..., str]) -> None:
    file = written("192.0.2.1", more="tls: {}\n")
    maker = service_maker()
    options = maker.options()
    options.parseOptions(["-c", file])
    with pytest.raises(SystemExit) as caught:
        maker.makeService(options)
    first, second = str(caught.value.code).splitlines()
    assert first.startswith(f"{file}:3: backends.legacy.servers[0]: ")
    assert second.startswith(f"{file}:4: tls: unknown key")
