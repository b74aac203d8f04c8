"""What docs/operations.md and docs/old-server-modern-tls.md tell other programs, word for word: Postfix behind
smtpproxy, HAProxy and nginx in front of it.
"""

from __future__ import annotations

import csv
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .lab import STARTING, Process, missing, open_folder, program, wait_for, whole_lines
from .namespaces import Machine, machines
from .postfix import postfix
from .proxy import proxy

pytestmark = pytest.mark.interop

DOCS = Path(__file__).resolve().parents[2] / "docs"
CLIENT, BALANCER, PROXY = "198.51.100.7", "192.0.2.1", "192.0.2.10"
MESSAGE = ("--from", "a@example.com", "--to", "b@example.org")

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Which setting of Postfix belongs to which identities of the backend.
IDENTITIES = {
    "smtpd_authorized_xclient_hosts": ("auto", "xclient"),
    "smtpd_upstream_proxy_protocol": ("proxy-v1", "proxy-v2"),
    "smtpd_authorized_xforward_hosts": ("xforward",),
}
NGINX = "daemon off; user root; worker_processes 1; pid nginx.pid; error_log error.log; events {}"
MODULES = Path("/usr/lib/nginx/modules")


def blocks(page: str, heading: str, language: str) -> list[str]:
    """The fenced blocks of a language below a heading."""
    text = (DOCS / page).read_text(encoding="utf-8")
    begin = text.index(f"\n{heading}\n")
    level = heading.partition(" ")[0]
    end = re.search(rf"^#{{2,{len(level)}}} ", text[begin + len(heading) + 2 :], re.MULTILINE)
    part = text[begin : begin + len(heading) + 2 + end.start()] if end else text[begin:]
    return [content for name, content in FENCED.findall(part) if name == language]


def ports_of_postfix() -> Iterator[tuple[str, dict[str, str]]]:
    """The ports in master.cf that the pages show, each with the identities of the backend that it is for."""
    shown = blocks("operations.md", "### Postfix", "")
    shown += blocks("old-server-modern-tls.md", "### 3. The old server moves to 127.0.0.1:2525", "")
    for block in shown:
        if block.startswith("127.0.0.1:2525 inet"):
            options = dict(re.findall(r"^    -o (\w+)=(.*)$", block, re.MULTILINE))
            for setting in options.keys() & IDENTITIES.keys():
                yield from ((identity, options) for identity in IDENTITIES[setting])


@pytest.mark.parametrize(("identity", "options"), list(ports_of_postfix()))
def test_postfix_learns_who_the_client_is(identity: str, options: dict[str, str]) -> None:
    with postfix(options) as server, proxy(server.port, backend={"identity": identity}) as running:
        sender = ("--local-interface", "127.0.0.7", "--from", "a@example.com", "--to", "b@lab.test")
        command = [str(program("swaks")), "--server", f"127.0.0.1:{running.port}", *sender]
        sent = subprocess.run(command, capture_output=True, text=True, check=False)
        assert sent.returncode == 0, sent.stdout
        server.delivered()
        told = "orig_client" if identity == "xforward" else "client"
        assert re.search(rf" {told}=\w+\[127\.0\.0\.7\]", server.log()), server.log()


def test_every_way_of_telling_postfix_is_tried() -> None:
    assert {identity for identity, _ in ports_of_postfix()} == {"auto", "xclient", "proxy-v1", "proxy-v2", "xforward"}


@dataclass
class Lab:
    """A machine with a client and a load balancer, and one with smtpproxy and a mail server."""

    front: Machine
    behind: Machine
    folder: Path
    processes: dict[str, Process] = field(default_factory=dict)

    def start(self, machine: Machine, *command: str, listening: str) -> None:
        """Start a program, in the folder of the lab; returns when it listens."""
        shell = ["sh", "-c", 'cd "$0" && exec "$@"', str(self.folder), *command]
        process = Process(machine.command(*shell), self.folder / f"{Path(command[0]).name}.log")
        self.processes[Path(command[0]).name] = process

        def ready() -> bool:
            assert process.popen.poll() is None, process.text()
            shown = subprocess.run(machine.command("ss", "-Hltn"), capture_output=True, text=True, check=True)
            return f"{listening} " in shown.stdout

        wait_for(ready, f"{command[0]} to listen", STARTING)

    def send(self, *options: str) -> None:
        """Send a message by way of the load balancer."""
        command = [str(program("swaks")), "--local-interface", CLIENT, *MESSAGE, *options]
        sent = subprocess.run(self.front.command(*command), capture_output=True, text=True, check=False)
        assert sent.returncode == 0, sent.stdout + self.log()

    def log(self) -> str:
        """What smtpproxy has written."""
        return self.processes[Path(sys.executable).name].text()

    def sessions(self, number: int) -> list[dict[str, Any]]:
        """Wait for the log lines of so many sessions that somebody has named the client of."""

        def look() -> list[dict[str, Any]]:
            events = [json.loads(line) for line in whole_lines(self.log())]
            found = [event for event in events if event["event"] == "session" and "via" in event]
            return found if len(found) >= number else []

        return wait_for(look, f"{number} sessions in\n{self.log()}")


@contextmanager
def lab(pki: Any, configuration: str) -> Iterator[Lab]:
    """The machines, with smtpproxy as configured, and a mail server behind it."""
    with open_folder("balancer") as folder, machines(2) as (front, behind):
        pair = pki.pair(["mail.example.org"])
        (folder / "tls").mkdir()
        (folder / "tls/fullchain.pem").write_bytes(pair.cert.read_bytes())
        (folder / "tls/privkey.pem").write_bytes(pair.key.read_bytes())
        (folder / "smtpproxy.yaml").write_text(configuration, encoding="utf-8")
        front.connect("eth0", behind, "eth0")
        front.address("eth0", f"{BALANCER}/24")
        front.address("lo", f"{CLIENT}/32")
        behind.address("eth0", f"{PROXY}/24")
        made = Lab(front, behind, folder)
        try:
            sink = str(program("smtp-sink"))
            made.start(behind, sink, "-u", "nobody", "127.0.0.1:2525", "100", listening="127.0.0.1:2525")
            run = (sys.executable, "-m", "smtpproxy", "run", "-c", "smtpproxy.yaml")
            made.start(behind, *run, listening=f"{PROXY}:25")
            yield made
        finally:
            for process in made.processes.values():
                process.stop()


def test_haproxy_says_who_the_client_is(pki: Any) -> None:
    configuration, _ = blocks("operations.md", "## Behind a load balancer", "yaml")
    (balancer,) = blocks("operations.md", "## Behind a load balancer", "haproxy")
    with lab(pki, configuration) as made:
        control = f"global\n    stats socket {made.folder}/control\n"
        (made.folder / "haproxy.cfg").write_text(control + balancer, encoding="ascii")
        made.start(made.front, str(program("haproxy")), "-db", "-f", "haproxy.cfg", listening=f"{BALANCER}:25")
        send_both_ways(made)
        wait_for(lambda: checks(made.folder / "control") == ["L4OK", "L4OK"], "both servers to be checked")
        # The checks have left no trace: every session is one of the client's.
        assert made.log().count('"event":"session"') == 2
        assert '"warning"' not in made.log()


def checks(control: Path) -> list[str]:
    """How HAProxy's last check of each server went."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(control))
        connection.sendall(b"show stat\n")
        with connection.makefile("r", encoding="ascii") as answer:
            rows = list(csv.DictReader(answer))
    return [row["check_status"] for row in rows if row["svname"] == "one"]


def test_nginx_passes_connections_on_with_a_header(pki: Any) -> None:
    configuration, _ = blocks("operations.md", "## Behind a load balancer", "yaml")
    balancer, _ = blocks("operations.md", "## Behind a load balancer", "nginx")
    with lab(pki, configuration) as made:
        start_nginx(made, "stream", balancer)
        send_both_ways(made)


def test_nginx_as_a_mail_proxy_says_it_by_xclient(pki: Any) -> None:
    _, configuration = blocks("operations.md", "## Behind a load balancer", "yaml")
    _, balancer = blocks("operations.md", "## Behind a load balancer", "nginx")
    with lab(pki, configuration) as made:
        start_nginx(made, "mail", balancer)
        made.send("--server", BALANCER)
        (session,) = made.sessions(1)
        assert (session["client"], session["via"]) == (CLIENT, BALANCER)


def start_nginx(made: Lab, module: str, configuration: str) -> None:
    path = MODULES / f"ngx_{module}_module.so"
    if not path.exists():
        missing(f"nginx has no module for {module}")
    (made.folder / "nginx.conf").write_text(f"load_module {path};\n{NGINX}\n{configuration}", encoding="ascii")
    command = (str(program("nginx")), "-p", str(made.folder), "-c", "nginx.conf")
    made.start(made.front, *command, listening=f"{BALANCER}:25")


def send_both_ways(made: Lab) -> None:
    made.send("--server", BALANCER, "--tls")
    made.send("--server", f"{BALANCER}:465", "--tls-on-connect")
    for session, listener in zip(made.sessions(2), ("mx", "smtps"), strict=True):
        assert (session["client"], session["via"], session["listener"]) == (CLIENT, BALANCER, listener)
        assert session["tls"] == "TLSv1.3"
