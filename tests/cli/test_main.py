"""The command line as such."""

import subprocess
import sys
from pathlib import Path

import pytest

import smtpproxy
from smtpproxy.cli import main

Capture = pytest.CaptureFixture[str]


def test_the_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"smtpproxy {smtpproxy.__version__}\n"


def test_help_names_every_command(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    words = capsys.readouterr().out.split()
    assert {"run", "check", "demo"} <= set(words)


@pytest.mark.parametrize("command", ["run", "check", "demo"])
def test_each_command_has_help(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: smtpproxy {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["walk"], ["check"], ["run"], ["run", "-c", "x", "--reactor", "none"]])
def test_a_wrong_command_line(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: smtpproxy")


def test_the_demo_gets_its_options_and_gives_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpproxy.ops.demo.main", lambda options: 7 if options.once else 8)
    assert main(["demo", "--once"]) == 7
    assert main(["demo"]) == 8


def test_as_a_module(project: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "smtpproxy", "check", "-c", "none.yaml"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == "none.yaml: cannot be read: No such file or directory\n"


def test_checking_loads_no_part_of_the_service() -> None:
    """The configuration is checked where the service runs, before anything that could fail for other reasons."""
    script = "import sys; from smtpproxy.cli import main; main(['check', '-c', 'none']); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    loaded = result.stdout.split()
    assert "smtpproxy.config" in loaded
    assert not [name for name in loaded if name.startswith(("twisted", "smtpproxy.net", "smtpproxy.ops"))]
