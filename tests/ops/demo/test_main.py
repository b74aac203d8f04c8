"""`smtpproxy demo` as a whole: with a stand-in for the proxy, with the real one, and when things go wrong."""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from smtpproxy.ops import demo
from smtpproxy.ops.demo.maildir import Maildir

HERE = Path(__file__).parent
FAKE = (sys.executable, os.fspath(HERE / "fake_proxy.py"))
FAST = "--once", "--rtt", "10"
LIMIT = 60  # seconds for what a busy machine does in a few


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the demo put its temporary folder where the test can see it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(folder))
    return folder


def run(*words: str) -> int:
    """Return the exit status of `smtpproxy demo` with these arguments."""
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return demo.main(parser.parse_args(words))


def fake(monkeypatch: pytest.MonkeyPatch, *extra: str) -> None:
    """Let the demo start the stand-in instead of smtpproxy."""
    monkeypatch.setattr("smtpproxy.ops.demo.proxy.COMMAND", (*FAKE, *extra))


def test_once_with_the_real_proxy(tmp_path: Path, temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maildir = tmp_path / "Maildir"
    status = run(*FAST, "--maildir", os.fspath(maildir))
    shown = capsys.readouterr().out
    assert status == 0, shown
    assert "All 16 messages arrived intact, each exactly once." in shown
    assert re.findall(r"\b([2-9]) round trips, ", shown) == ["7", "5", "3", "2"]
    assert len(Maildir(maildir).names()) == 16
    assert list(temporary.iterdir()) == []


def test_once_with_a_stand_in(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch)
    status = run(*FAST)
    shown = capsys.readouterr().out
    assert status == 0, shown
    assert "behind it: 220, EHLO 250, MAIL 250, RCPT 250, DATA 354, mail data 250" in shown
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("--damage", "early, BDAT, short: changed on the way"),
        ("--double", "early, BDAT, short: arrived 2 times."),
        ("--hide", "not allowed, EHLO does not offer PIPECONNECT"),
        ("--hasty", "the legacy MTA hung up|554 5.5.0 One thing at a time"),
        ("--bad-end", "smtpproxy ended with status 3."),
        ("--no-start", "smtpproxy did not start, status 4.\nIt said:\nno, I will not"),
    ],
)
def test_faults_of_the_proxy_are_found(
    fault: str,
    complaint: str,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake(monkeypatch, fault)
    assert run(*FAST) == 1
    shown = capsys.readouterr().out
    assert "The demo failed." in shown
    assert re.search(complaint, shown)
    (kept,) = temporary.iterdir()
    assert f"Its files are kept in {kept}" in shown


def test_port_that_is_taken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for option in ("--port", "--far-port", "--legacy-port"):
            assert run(*FAST, option, port) == 1
            assert "Cannot start: " in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--rtt", "0"], ["--rtt", "5001"], ["--rtt", "x"], ["--port", "65536"]])
def test_impossible_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_in_good_order(number: signal.Signals, temporary: Path) -> None:
    with started(temporary) as process:
        assert process.stdout
        shown = ""
        while "Ctrl-C ends the demo" not in shown:
            line = process.stdout.readline()
            assert line, shown
            shown += line
        process.send_signal(number)
        rest, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, rest
    assert rest.endswith("Stopped.\n")
    assert list(temporary.iterdir()) == []


def test_signal_before_the_end_is_no_success(temporary: Path) -> None:
    with started(temporary, round_trip=5000) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert rest.endswith("Stopped before all messages had been sent.\n")
    assert list(temporary.iterdir()) == []


def test_message_sent_by_hand_is_announced(temporary: Path) -> None:
    with started(temporary) as process:
        assert process.stdout
        port = 0
        for line in process.stdout:
            if found := re.search(r"^  legacy MTA   127.0.0.1 port (\d+)$", line):
                port = int(found[1])
            if "gets a 554" in line:
                break
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client:
            for command in ("EHLO c", "MAIL FROM:<a\x01@b>", "RCPT TO:<user@demo.example>", "DATA", "x\r\n."):
                client.recv(1000)
                client.sendall(f"{command}\r\n".encode())
            client.recv(1000)
        announced = next(line for line in process.stdout if "→" in line)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT)
    assert re.match(r"\d\d:\d\d:\d\d  <a\?@b> → <user@demo\.example>: 3 octets, new/\d", announced)


def test_reader_that_goes_away(temporary: Path) -> None:
    with started(temporary) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=LIMIT) == 1
    assert errors == ""
    assert list(temporary.iterdir()) == []


def started(temporary: Path, *, round_trip: int = 10) -> subprocess.Popen[str]:
    """Start the demo with the stand-in as a process of its own, `round_trip` in milliseconds; it must be ended."""
    program = (
        "import argparse, sys; from smtpproxy.ops import demo; from smtpproxy.ops.demo import proxy\n"
        "proxy.COMMAND = tuple(sys.argv[1:3]); parser = argparse.ArgumentParser()\n"
        "demo.add_arguments(parser); sys.exit(demo.main(parser.parse_args(sys.argv[3:])))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *FAKE, "--rtt", f"{round_trip}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": os.fspath(temporary), "PYTHONIOENCODING": "utf-8"},
        text=True,
        encoding="utf-8",
    )
