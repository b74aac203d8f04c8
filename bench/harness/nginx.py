"""The mail proxy of nginx, with the HTTP service that tells it where mail goes."""

from __future__ import annotations

import os
from pathlib import Path

from harness import tools
from harness.errors import UnavailableError
from harness.lab import HOST, Lab, free_port
from harness.peer import CONNECTIONS, PLAIN, POLITE_MODES, Peer, write


class Nginx(Peer):
    """The mail proxy of nginx, one worker, with an authentication service that lets everybody in.

    It takes no early talk. Replies that it writes one by one wait for the client's delayed acknowledgements,
    about 40 ms for each session: so it gets more sessions at a time, which keep it busy, and fewer of them. Its
    client buffer must hold the whole message, or there would be such a wait for each message too.
    """

    program = "nginx"
    modes = POLITE_MODES
    effort = 0.5
    crowd = 8

    def __init__(self, key: str, label: str, *, wires: tuple[str, ...] = PLAIN) -> None:
        """With or without TLS."""
        self.key = key
        self.label = label
        self.wires = wires

    def check(self) -> None:
        """Raise UnavailableError if it is not installed here."""
        super().check()
        if tools.nginx_mail_module() is None:
            raise UnavailableError("nginx has no mail module")

    def command(self, lab: Lab, folder: Path, ports: dict[str, int], backend: int) -> list[str]:
        """See Peer."""
        service = start_authentication(lab, backend)
        servers = "\n".join(nginx_server(lab, wire, port) for wire, port in ports.items())
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
{servers}
}}
"""
        return nginx_command(folder, configuration)


def nginx_server(lab: Lab, wire: str, port: int) -> str:
    """The block of one listener. Its sessions live longer than this run, as with the others."""
    listen = f"listen {HOST}:{port} backlog=4096; protocol smtp;"
    if wire == "none":
        return f"    server {{ {listen} }}"
    certificate = lab.certificate
    listen = listen.replace(" backlog", " ssl backlog") if wire == "implicit" else f"{listen} starttls on;"
    return f"""\
    server {{
        {listen}
        ssl_certificate {certificate.chain};
        ssl_certificate_key {certificate.key};
        ssl_protocols TLSv1.3;
        ssl_session_timeout {tools.TICKET_SECONDS}s;
    }}"""


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
