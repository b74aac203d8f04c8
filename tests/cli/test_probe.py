"""``smtpproxy probe`` as a process: what it prints, its exit status, and what it takes from a configuration."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dnsserver import DnsServer
from freeports import free_port
from probeserver import MailServer

from smtpproxy.cli import main


def probe(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "smtpproxy", "probe", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def configuration(tmp_path: Path) -> Callable[[DnsServer], str]:
    def write(dns: DnsServer) -> str:
        file = tmp_path / "smarthost.yaml"
        file.write_text(
            "listeners: [{name: out, mode: outbound, hostname: out.example.net, listen: ['127.0.0.1:0']}]\n"
            "routes: [{domain: '*'}]\n"
            "cache: {store: 'memory:'}\n"
            f"dns: {{servers: ['{dns.address}:{dns.port}'], trust_ad: yes}}\n"
        )
        return str(file)

    return write


def test_a_host_in_words(pki: Any) -> None:
    pair = pki.pair(["127.0.0.1"])
    with MailServer(pair=pair, greeting=b"220 mx \x1b[31mESMTP\r\n", early=[3]) as mx:
        run = probe(f"127.0.0.1:{mx.port}", "--ca", str(pki.root.path), "--try", "postmaster@example.org")
    assert (run.stderr, run.returncode) == ("", 0)
    for words in (
        f"127.0.0.1:{mx.port}: a mail host",
        "220 mx ?[31mESMTP",
        "TCP connect",
        "PIPECONNECT, and PIPELINING beside it: usable",
        "TLS: TLSv1.3",
        "chain: leads to an authority that is believed here",
        "What early pipelining saves here",
        "every reply came as it must",
    ):
        assert words in run.stdout
    assert "\x1b" not in run.stdout
    assert len(mx.sessions) == 3


def test_a_domain_as_json(configuration: Any, pki: Any) -> None:
    with MailServer(pair=pki.pair(["mx.example.org"])) as mx:
        zones = {"example.org": {"MX": ["10 mx.example.org."]}, "mx.example.org": {"A": ["127.0.0.1"]}}
        with DnsServer(zones) as dns:
            run = probe("example.org", "--port", str(mx.port), "-c", configuration(dns), "--json")
    assert (run.stderr, run.returncode) == ("", 0)
    content = json.loads(run.stdout)
    assert (content["kind"], content["ehlo"], content["fine"]) == ("domain", "out.example.net", True)
    assert content["sts"]["status"] == "none"
    (host,) = content["hosts"]
    (server,) = host["servers"]
    assert (host["name"], host["preference"], server["address"]) == ("mx.example.org", 10, "127.0.0.1")
    assert server["inside"]["keywords"] == ["PIPECONNECT"]
    assert server["tls"]["name_error"] == ""
    assert server["tls"]["chain_error"] == "unable to get issuer cert locally"
    assert mx.sessions[0].commands[0] == "EHLO out.example.net"


def test_what_is_wrong_is_shown() -> None:
    port = free_port()
    run = probe(f"127.0.0.1:{port}")
    assert run.returncode == 1
    assert "cannot connect: " in run.stdout
    with MailServer(EHLO=b"421 4.3.2 later\r\n") as mx:
        run = probe(f"127.0.0.1:{mx.port}", "--json", "--no-tls", "--timeout", "10")
    assert run.returncode == 1
    assert json.loads(run.stdout)["hosts"][0]["servers"][0]["problems"] == ["EHLO is refused: 421 4.3.2 later"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["mx", "--try", "nobody"],
        ["mx", "--try", "a@b.example\r\nDATA"],
        ["mx", "--from", "x y@b.example"],
        ["mx", "--port", "0"],
        ["mx", "--timeout", "0"],
        ["mx", "--timeout", "nan"],
    ],
)
def test_a_wrong_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["probe", *arguments])
    assert "usage:" in capsys.readouterr().err


def test_what_is_no_destination(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "mx:1:2"]) == 2
    assert "is expected" in capsys.readouterr().err


def test_files_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing")
    assert main(["probe", "127.0.0.1", "-c", missing]) == 1
    assert missing in capsys.readouterr().err
    run = probe("127.0.0.1:1", "--ca", missing)
    assert run.returncode == 1
    assert missing in run.stderr
    assert "Traceback" not in run.stderr


def test_nobody_reads_it_any_more() -> None:
    with MailServer() as mx:
        command = [sys.executable, "-m", "smtpproxy", "probe", f"127.0.0.1:{mx.port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == ""
            assert process.wait(60) == 1


def test_it_can_be_interrupted() -> None:
    """Nothing is said of a server that has done nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "smtpproxy", "probe", where]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                shown, errors = process.communicate(timeout=60)
    assert process.returncode not in {0, 2}
    assert "connection" not in shown
    assert errors == ""
