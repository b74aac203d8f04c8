"""Load balancers that tell smtpproxy who the client is: HAProxy by the PROXY protocol, nginx by XCLIENT."""

from __future__ import annotations

import contextlib
import csv
import io
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from freeports import free_port

from .lab import Process, missing, open_folder, program

HAPROXY_CFG = """\
global
  stats socket {folder}/control level admin
defaults
  mode tcp
  timeout connect 10s
  timeout client 30s
  timeout server 30s
  timeout check 10s
{listens}
"""

NGINX_CONF = """\
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log info;
load_module {module};
events {{ worker_connections 200; }}
http {{
  access_log off;
  server {{
    # Where nginx's mail proxy asks for the server: nginx itself answers.
    listen 127.0.0.1:{asked};
    location / {{
      add_header Auth-Status OK;
      add_header Auth-Server 127.0.0.1;
      add_header Auth-Port {target};
      return 200 "";
    }}
  }}
}}
mail {{
  server_name nginx.lab.test;
  auth_http 127.0.0.1:{asked}/;
  smtp_auth none;
  proxy_pass_error_message on;
  xclient on;
  server {{ listen 127.0.0.1:{port}; protocol smtp; }}
}}
"""


@dataclass
class HAProxy:
    """A running HAProxy; `ports` are where it listens, by the names of what it was given."""

    folder: Path
    ports: dict[str, int]

    def health(self, name: str) -> str:
        """How the last health check of a server went, in HAProxy's words: L4OK, L7OK, L7TOUT and the like."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.folder / "control"))
            control.sendall(b"show stat\n")
            with control.makefile("r", encoding="ascii") as answer:
                rows = list(csv.DictReader(io.StringIO(answer.read().removeprefix("# "))))
        (row,) = [row for row in rows if (row["pxname"], row["svname"]) == (name, "behind")]
        return row["check_status"]


@contextlib.contextmanager
def haproxy(servers: dict[str, tuple[int, str]]) -> Iterator[HAProxy]:
    """A started HAProxy with a port for each server: its port of 127.0.0.1 and HAProxy's options for it.

    The option `check` becomes a check every 50 ms; `option` lines stand in front of a semicolon.
    """
    path = program("haproxy")
    with open_folder("haproxy") as folder:
        ports = {name: free_port() for name in servers}
        listens = ""
        for name, (target, words) in servers.items():
            option, _, rest = words.rpartition(";")
            listens += f"listen {name}\n  bind 127.0.0.1:{ports[name]}\n  {option}\n"
            listens += f"  server behind 127.0.0.1:{target} {rest.replace('check ', 'check inter 50ms ')}\n"
        file = folder / "haproxy.cfg"
        file.write_text(HAPROXY_CFG.format(folder=folder, listens=listens), encoding="ascii")
        process = Process([str(path), "-db", "-f", str(file)], folder / "haproxy.log")
        try:
            for port in ports.values():
                process.wait_listening(port)
            yield HAProxy(folder, ports)
        finally:
            process.stop()


@contextlib.contextmanager
def nginx(target: int) -> Iterator[int]:
    """A started nginx, as a mail proxy to a port of 127.0.0.1; gives its own port."""
    path = program("nginx")
    modules = Path("/usr/lib/nginx/modules/ngx_mail_module.so")
    if not modules.exists():
        missing("nginx has no mail module: run tests/interop/install.sh as root")
    with open_folder("nginx") as folder:
        port, asked = free_port(), free_port()
        text = NGINX_CONF.format(folder=folder, module=modules, port=port, asked=asked, target=target)
        (folder / "nginx.conf").write_text(text, encoding="ascii")
        process = Process([str(path), "-p", str(folder), "-c", str(folder / "nginx.conf")], folder / "start.log")
        try:
            process.wait_listening(port)
            process.wait_listening(asked)
            yield port
        finally:
            process.stop()
