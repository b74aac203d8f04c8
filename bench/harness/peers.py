"""The proxies that are measured: how each is configured and started in front of a sink."""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from harness import tools
from harness.errors import UnavailableError
from harness.lab import HOST, Lab, free_port, wait_for_greeting
from harness.process import Process

ALL_MODES = ("lockstep", "pipelined", "early", "bdat")
POLITE_MODES = ("lockstep", "pipelined")
CONNECTIONS = 20_000


@dataclass(frozen=True)
class RunningPeer:
    """A proxy that is up, and the port it listens on."""

    peer: Peer
    process: Process
    port: int


class Peer(ABC):
    """A proxy that can be started in front of a sink."""

    key: str
    label: str
    modes: tuple[str, ...] = ALL_MODES
    """How a client may talk to it."""
    effort: float = 1.0
    """Which part of the usual number of messages one measurement takes."""
    crowd: int = 1
    """How many times the usual number of sessions run in parallel."""
    adapts: bool = False
    """Whether it serves an early client with a lock-step backend."""
    only_cpu: bool = False
    """Whether it differs from another peer in nothing but CPU per session."""

    @abstractmethod
    def command(self, lab: Lab, folder: Path, port: int, backend: int) -> list[str]:
        """Write the configuration into the folder and give the command that runs it in the foreground."""

    def check(self) -> None:
        """Raise UnavailableError if it is not installed here."""
        if tools.find(self.key) is None:
            raise UnavailableError(f"{self.key} is not installed")

    def start(self, lab: Lab, backend: int) -> RunningPeer:
        """Start it on the core of the proxy under test and wait until it serves."""
        self.check()
        port = free_port()
        command = self.command(lab, lab.new_folder(f"{self.key}-files"), port, backend)
        process = lab.start(self.key, command, core=lab.cores.proxy)
        wait_for_greeting(process, port)
        return RunningPeer(self, process, port)


def write(path: Path, text: str) -> str:
    """Write a configuration file and give its path."""
    path.write_text(text)
    return str(path)


class HAProxy(Peer):
    """HAProxy in TCP mode, one thread, without a log: octets are passed on unread."""

    key = "haproxy"
    label = "HAProxy, mode tcp"

    def command(self, lab: Lab, folder: Path, port: int, backend: int) -> list[str]:
        """See Peer."""
        configuration = f"""\
global
    nbthread 1
    maxconn {min(CONNECTIONS, lab.descriptors // 2 - 100)}
defaults
    mode tcp
    timeout connect 10s
    timeout client 5m
    timeout server 5m
listen bench
    bind {HOST}:{port}
    server sink {HOST}:{backend}
"""
        path = write(folder / "haproxy.cfg", configuration)
        return [str(tools.find("haproxy")), "-db", "-f", path]


class Nginx(Peer):
    """The mail proxy of nginx, one worker, with an authentication service that lets everybody in.

    It takes no early talk. Replies that it writes one by one wait for the client's delayed acknowledgements,
    about 40 ms for each session: so it gets more sessions at a time, which keep it busy, and fewer of them. Its
    client buffer must hold the whole message, or there would be such a wait for each message too.
    """

    key = "nginx"
    label = "nginx, mail proxy"
    modes = POLITE_MODES
    effort = 0.5
    crowd = 8

    def check(self) -> None:
        """Raise UnavailableError if it is not installed here."""
        super().check()
        if tools.nginx_mail_module() is None:
            raise UnavailableError("nginx has no mail module")

    def command(self, lab: Lab, folder: Path, port: int, backend: int) -> list[str]:
        """See Peer."""
        service = start_authentication(lab, backend)
        configuration = f"""\
{nginx_basics(folder)}
load_module {tools.nginx_mail_module()};
worker_rlimit_nofile {lab.descriptors};
events {{ worker_connections {min(CONNECTIONS, lab.descriptors - 100)}; }}
mail {{
    server_name proxy.example.org;
    auth_http {HOST}:{service}/;
    smtp_auth none;
    smtp_capabilities SIZE 8BITMIME PIPELINING ENHANCEDSTATUSCODES;
    xclient off;
    smtp_client_buffer 16k;
    timeout 5m;
    server {{ listen {HOST}:{port} backlog=4096; protocol smtp; }}
}}
"""
        return nginx_command(folder, configuration)


def nginx_basics(folder: Path) -> str:
    """The settings that every nginx here needs: in the foreground, one worker, files in a folder."""
    user = "user root;" if os.geteuid() == 0 else ""
    return f"{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;"


def nginx_command(folder: Path, configuration: str) -> list[str]:
    """Write a configuration of nginx and give the command that runs it."""
    path = write(folder / "nginx.conf", configuration)
    return [str(tools.find("nginx")), "-e", f"{folder}/error.log", "-p", str(folder), "-c", path]


def start_authentication(lab: Lab, backend: int) -> int:
    """Start an HTTP service on the other core that sends every mail client to the backend; gives its port."""
    folder = lab.new_folder("nginx-auth-files")
    port = free_port()
    headers = {"Auth-Status": "OK", "Auth-Server": HOST, "Auth-Port": str(backend)}
    answer = " ".join(f"add_header {name} {value};" for name, value in headers.items())
    configuration = f"""\
{nginx_basics(folder)}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    server {{ listen {HOST}:{port} backlog=4096; location / {{ {answer} return 200; }} }}
}}
"""
    lab.start("nginx-auth", nginx_command(folder, configuration), core=lab.cores.others)
    return port


class SmtpProxy(Peer):
    """smtpproxy with its defaults, but for the settings that make the variant, the limits of sessions and the log.

    HAProxy and nginx write no log here, so that the variants beside them write no line per session either; what the log
    costs is seen in the variants that have it.
    """

    adapts = True

    def __init__(
        self, key: str, label: str, *, connect: str, reuse: str, transport: str = "lean", log: bool = False
    ) -> None:
        """`connect`, `reuse` and `transport` are the settings of these names; `log` writes a line per session."""
        self.key = key
        self.label = label
        self._connect = connect
        self._reuse = reuse
        self._transport = transport
        self._level = "info" if log else "warning"
        self.only_cpu = log

    def check(self) -> None:
        """Raise UnavailableError if this Python cannot run it."""
        probe = [sys.executable, "-m", "smtpproxy", "run", "--help"]
        done = subprocess.run(probe, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            reason = next(iter(done.stderr.strip().splitlines()[-1:]), "no reason given")
            raise UnavailableError(f"this Python cannot run smtpproxy ({reason})")

    def command(self, lab: Lab, folder: Path, port: int, backend: int) -> list[str]:  # noqa: ARG002 -- see Peer
        """See Peer."""
        configuration = f"""\
listeners:
  - name: bench
    mode: inbound
    listen: ["{HOST}:{port}"]
    backend: sink
    recipient_domains: [example.org]
    hostname: proxy.example.org
    limits: {{sessions: {CONNECTIONS}, sessions_per_client: {CONNECTIONS}}}
backends:
  sink: {{servers: ["{HOST}:{backend}"], connect: {self._connect}, reuse: {self._reuse}}}
log: {{format: json, to: "file:{folder}/sessions.log", level: {self._level}}}
service: {{transport: {self._transport}}}
"""
        path = write(folder / "smtpproxy.yaml", configuration)
        return [sys.executable, "-m", "smtpproxy", "run", "-c", path]


EAGER = SmtpProxy("eager", "smtpproxy, dials for each session", connect="eager", reuse="off")
LAZY = SmtpProxy("lazy", "smtpproxy, lazy and reuse", connect="lazy", reuse="on")
STOCK = SmtpProxy("stock", "smtpproxy, stock transports", connect="eager", reuse="off", transport="stock")
EAGER_LOG = SmtpProxy("eager-log", "the same with its log", connect="eager", reuse="off", log=True)
LAZY_LOG = SmtpProxy("lazy-log", "the same with its log", connect="lazy", reuse="on", log=True)
PEERS: dict[str, Peer] = {peer.key: peer for peer in (HAProxy(), Nginx(), EAGER, EAGER_LOG, LAZY, LAZY_LOG, STOCK)}
DEFAULT_PEERS = ("haproxy", "nginx", "eager", "eager-log", "lazy", "lazy-log")


def installed(keys: list[str]) -> list[Peer]:
    """The peers of these keys that can run here; says which ones cannot."""
    peers = []
    for key in keys:
        try:
            PEERS[key].check()
        except UnavailableError as error:
            print(f"skipped: {PEERS[key].label}: {error}")
        else:
            peers.append(PEERS[key])
    return peers
