"""MTA-STS (RFC 8461) with an nginx that serves the policies by HTTPS on port 443, all on a machine of its own.

Each domain ``NAME.test`` has the MX host ``mx.NAME.test`` (one Exim is all of them) and the web server
``mta-sts.NAME.test`` (one nginx is all of these).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import smtplib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dnsserver import DnsServer

from .lab import Process, need_root, need_user, open_folder, program, wait_for
from .messages import Sample, sample
from .namespaces import Machine, machines
from .outbound_exim import EximRemote
from .proxy import LOG, Proxy, Settings, running

Made = TypeVar("Made")

CLONE_NEWNET = 0x40000000  # <linux/sched.h>
HTTPS = 443
POLICY = "version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 86400\r\n"
DOMAINS = {
    "enforced.test": ("enforce", "mx.enforced.test"),
    "wild.test": ("enforce", "*.wild.test"),
    "elsewhere.test": ("enforce", "mx.enforced.test"),
    "misnamed.test": ("enforce", "mx.misnamed.test"),
    "testing.test": ("testing", "mx.enforced.test"),
    "redirected.test": ("enforce", "mx.enforced.test"),
    "html.test": ("enforce", "mx.enforced.test"),
    "stranger.test": ("enforce", "mx.enforced.test"),
    "late.test": ("enforce", "mx.enforced.test"),
}
"""Mode and MX host of the policy of each domain."""
NAMED = ("mx.enforced.test", "mx.wild.test", "mx.elsewhere.test")
"""The hosts that Exim has a certificate for."""

NGINX = """\
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.err;
events {{ worker_connections 100; }}
http {{
  log_format names '$status $host $request_uri';
  access_log {folder}/access.log names;
  types {{ text/plain txt; }}
  ssl_certificate {cert};
  ssl_certificate_key {key};
  server {{
    listen 127.0.0.1:443 ssl http2;
    server_name ~^mta-sts\\.(?<domain>.+)$;
    root {folder}/$domain;
  }}
  server {{
    listen 127.0.0.1:443 ssl;
    server_name mta-sts.redirected.test;
    return 301 https://mta-sts.enforced.test$request_uri;
  }}
  server {{
    listen 127.0.0.1:443 ssl;
    server_name mta-sts.html.test;
    types {{ }}
    default_type text/html;
    root {folder}/html.test;
  }}
}}
"""


def on(machine: Machine, make: Callable[[], Made]) -> Made:
    """Do something in the network of a machine; sockets that are made belong to it."""

    def there() -> Made:
        with Path(f"/proc/{machine._popen.pid}/ns/net").open("rb") as network:
            if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        return make()

    with ThreadPoolExecutor(1) as thread:  # it moves into that network, and never comes back
        return thread.submit(there).result()


def listens(machine: Machine, port: int) -> bool:
    """Whether somebody listens on a port there."""
    command = machine.command(str(program("ss")), "-Hltn", f"sport = :{port}")
    return bool(subprocess.run(command, capture_output=True, check=True).stdout)


@dataclass
class There:
    """Starts programs on the machine."""

    machine: Machine

    def start(self, command: list[str], output: Path, *ports: int) -> Process:
        """Start one; returns when it listens on these ports."""
        process = Process(self.machine.command(*command), output)

        def ready() -> bool:
            assert process.popen.poll() is None, process.text()
            return all(listens(self.machine, port) for port in ports)

        try:
            wait_for(ready, f"a listener on {ports}")
        except BaseException:
            process.stop()
            raise
        return process


@dataclass
class EximThere(EximRemote):
    """The mail server."""

    there: There | None = None

    def start(self) -> None:
        """Start; returns when the port is listened on."""
        assert self.there is not None
        command = [str(self.program), "-C", str(self.configuration), "-bdf"]
        self.process = self.there.start(command, self.folder / "start.log", self.port)


@dataclass
class WebServer:
    """The nginx with the policies."""

    folder: Path
    there: There
    process: Process | None = None

    def configure(self, pair: Any) -> None:
        """Write its configuration and the policies."""
        for domain, (mode, mx) in DOMAINS.items():
            folder = self.folder / domain / ".well-known"
            folder.mkdir(parents=True)
            (folder / "mta-sts.txt").write_text(POLICY.format(mode=mode, mx=mx), encoding="ascii", newline="")
        text = NGINX.format(folder=self.folder, cert=pair.cert, key=pair.key)
        (self.folder / "nginx.conf").write_text(text, encoding="ascii")

    def start(self) -> None:
        """Start; returns when it listens."""
        command = [str(program("nginx")), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        self.process = self.there.start(command, self.folder / "start.log", HTTPS)

    def stop(self) -> None:
        """Stop it; harmless when it does not run."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def fetched(self, domain: str) -> int:
        """How often the policy of a domain was asked for."""
        return (self.folder / "access.log").read_text("ascii").count(f" mta-sts.{domain} ")


class StsSmarthost(Proxy):
    """The smarthost."""

    def configure(self, place: Place, ca: Any) -> None:
        """Take the servers, and the file of the authorities."""
        self.place, self.ca = place, str(ca)

    def configuration(self) -> Settings:
        """What the YAML file says."""
        tls = {"mode": "opportunistic", "ca": self.ca}
        listener = {"name": "smarthost", "mode": "outbound", "hostname": "smarthost.lab.test"}
        return {
            "listeners": [{**listener, "listen": [f"127.0.0.1:{self.port}"]}],
            "routes": [{"domain": "*", "lookup": "mx", "port": self.place.exim.port, "tls": tls, "reuse": False}],
            "cache": {"store": "memory:"},
            "dns": {"servers": [f"127.0.0.1:{self.place.dns.port}"]},
            "mta_sts": {"ca": self.ca},
            "log": LOG,
        }

    def start(self) -> None:
        """Write the files and start; returns when the port is listened on."""
        file = self.folder / "smtpproxy.yaml"
        file.write_text(json.dumps(self.configuration()), encoding="ascii")
        command = [sys.executable, "-m", "smtpproxy", "run", "-c", str(file)]
        self.process = self.place.there.start(command, self.folder / "smtpproxy.log", self.port)


class _Client(smtplib.SMTP):
    """A client on the machine."""

    machine: Machine

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        sock = on(self.machine, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        sock.settimeout(timeout)
        sock.connect((host, port))
        return sock


@dataclass
class Place:
    """All of it."""

    there: There
    dns: DnsServer
    exim: EximThere
    web: WebServer

    def hand_over(self, port: int, recipient: str) -> tuple[Sample, int]:
        """Give a message to a smarthost, as a mail server does; gives the code of the reply to the recipient."""
        message = sample()
        with _Client(timeout=30) as client:
            client.machine = self.there.machine
            client.connect("127.0.0.1", port)
            client.ehlo("client.lab.test")
            client.mail("sender@lab.test")
            code, _ = client.rcpt(recipient)
            if code == 250:
                code, _ = client.data(message.wire)
        return message, code


def zones() -> dict[str, dict[str, Any]]:
    """The names; who asks has to ask again each time."""
    made: dict[str, dict[str, Any]] = {}
    for domain in DOMAINS:
        made[domain] = {"MX": [f"10 mx.{domain}."]}
        made[f"mx.{domain}"] = made[f"mta-sts.{domain}"] = {"A": ["127.0.0.1"]}
        made[f"_mta-sts.{domain}"] = {"TXT": ['"v=STSv1; id=1;"'], "ttl": 0}
    return made


@contextlib.contextmanager
def place(pki: Any) -> Iterator[Place]:
    """The machine with all servers, stopped at the end."""
    need_root("start a private Exim")
    need_user("Debian-exim")
    web_names = [f"mta-sts.{domain}" for domain in DOMAINS if domain != "stranger.test"]
    with contextlib.ExitStack() as stack:
        (machine,) = stack.enter_context(machines(1))
        there = There(machine)
        server = DnsServer(zones())
        on(machine, server.__enter__)
        stack.callback(server.__exit__)
        exim = EximThere(stack.enter_context(open_folder("exim-sts")), pki.pair(NAMED), there=there)
        web = WebServer(stack.enter_context(open_folder("nginx-sts")), there)
        web.configure(pki.pair(web_names))
        for each in (exim, web):
            stack.callback(each.stop)
            each.start()
        yield Place(there, server, exim, web)


@contextlib.contextmanager
def sts_smarthost(there: Place, ca: Any) -> Iterator[StsSmarthost]:
    """A started smtpproxy; stopped at the end, which is part of the test."""
    with open_folder("sts") as folder:
        instance = StsSmarthost(folder, [])
        instance.configure(there, ca)
        with running(instance):
            yield instance
