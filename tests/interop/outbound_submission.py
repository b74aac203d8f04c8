"""Mail servers that take mail from users only, inside TLS: Exim with its plaintext authenticators, and Postfix that
asks Dovecot.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol

from freeports import free_port

from .exim_server import EximServer
from .lab import STARTING, Process, need_root, need_user, open_folder, program, unpacked, wait_for
from .messages import Stored
from .postfix import Postfix

USER = "us@lab.test"
PASSWORD = "s3same-öffne-dich"  # not in any other text of the tests
KINDS = ("starttls", "implicit")
MECHANISMS = ("PLAIN", "LOGIN")

EXIM = """\
exim_path = {program}
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
daemon_smtp_ports = {ports}
tls_on_connect_ports = {implicit}
local_interfaces = 127.0.0.1
primary_hostname = mx.lab.test
qualify_domain = lab.test
keep_environment =
host_lookup =
rfc1413_hosts =
disable_ipv6
tls_certificate = {folder}/cert.pem
tls_privatekey = {folder}/key.pem
log_selector = +pipelining +millisec +smtp_protocol_error +smtp_syntax_error
acl_smtp_connect = pause
acl_smtp_mail = ${{if def:authenticated_id{{accept}}{{deny}}}}
acl_smtp_rcpt = accept

begin acl
# It knows that a client is early only if what that says is here when it greets.
pause:
  accept  set acl_c0 = ${{run{{/bin/sleep 0.1}}}}

begin routers
everybody:
  driver = accept
  transport = box

begin transports
box:
  driver = appendfile
  maildir_format
  directory = {folder}/box
  envelope_to_add
  user = Debian-exim

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_advertise_condition = ${{if and{{ {{def:tls_in_cipher}} {{inlist{{$received_port}}{{{PLAIN}}}}} }}}}
  server_prompts = :
  server_condition = ${{if and{{ {{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}} }}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_advertise_condition = ${{if and{{ {{def:tls_in_cipher}} {{inlist{{$received_port}}{{{LOGIN}}}}} }}}}
  server_prompts = <| Username: | Password:
  server_condition = ${{if and{{ {{eq{{$auth1}}{{{user}}}}}{{eq{{$auth2}}{{{password}}}}} }}}}
  server_set_id = $auth1
"""


# Postfix asks it whether a password is right; no mail ever comes to it. Nobody is slowed down for a wrong one.
DOVECOT = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
protocols =
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}}
service auth {{
  unix_listener {folder}/auth {{
    mode = 0666
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""

Ports = dict[tuple[str, str], int]
"""By kind of TLS and mechanism."""


class Submission(Protocol):
    """A server with a port for each kind of TLS and mechanism, and one user."""

    @property
    def ports_for(self) -> Ports:
        """The ports."""

    @property
    def early(self) -> bool:
        """Whether it offers early pipelining."""

    def log(self) -> str:
        """Its log."""

    def delivered(self) -> list[Stored]:
        """Wait until all is delivered, and give everything ever delivered."""

    def logins(self) -> list[tuple[str, str]]:
        """The mechanism and the user of each message so far, as its log has them."""

    def refusals(self) -> int:
        """How often a password was wrong, as its log says."""


@dataclass
class EximSubmission(EximServer):
    """An Exim."""

    pair: Any = None
    ports_for: Ports = field(default_factory=lambda: {ports: free_port() for ports in product(KINDS, MECHANISMS)})
    early: bool = True

    def start(self) -> None:
        """Write the configuration and start; returns when the ports are listened on."""
        program = unpacked("exim/usr/sbin/exim4")
        for name in ("spool", "log", "box"):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, "Debian-exim", "Debian-exim")
        for name, path in (("cert.pem", self.pair.cert), ("key.pem", self.pair.key)):
            shutil.copy(path, self.folder / name)
            shutil.chown(self.folder / name, "Debian-exim")
        listed = {
            word: " : ".join(str(port) for names, port in self.ports_for.items() if word in ("", *names))
            for word in ("", *KINDS, *MECHANISMS)
        }
        names = {"program": program, "folder": self.folder, "user": USER, "password": PASSWORD, "ports": listed[""]}
        file = self.folder / "exim.conf"
        file.write_text(EXIM.format(**names, **listed), encoding="utf-8")
        self.process = Process([str(program), "-C", str(file), "-bdf"], self.folder / "start.log")
        for port in self.ports_for.values():
            self.process.wait_listening(port)

    def logins(self) -> list[tuple[str, str]]:
        """The mechanism and the user of each message so far."""
        return [(name.upper(), user) for name, user in re.findall(r" <= .* A=(\w+):(\S+) ", self.log())]

    def refusals(self) -> int:
        """How often a password was wrong."""
        return self.log().count(" authenticator failed for ")


@contextlib.contextmanager
def exim_submission(pair: Any) -> Iterator[EximSubmission]:
    """A started Exim with that certificate; stopped and removed at the end."""
    need_root("start a private Exim")
    need_user("Debian-exim")
    with open_folder("exim-submission") as folder:
        server = EximSubmission(folder, pair=pair)
        try:
            server.start()
            yield server
        finally:
            server.stop()


class PostfixSubmission(Postfix):
    """A Postfix."""

    early = False

    @property
    def ports_for(self) -> Ports:
        """The ports by kind of TLS and mechanism."""
        return {(kind, mechanism): self.ports[kind + mechanism] for kind, mechanism in product(KINDS, MECHANISMS)}

    def logins(self) -> list[tuple[str, str]]:
        """The mechanism and the user of each message so far."""
        return re.findall(r" sasl_method=(\w+), sasl_username=(\S+)$", self.log(), re.MULTILINE)

    def refusals(self) -> int:
        """How often a password was wrong."""
        return self.log().count(" authentication failed: ")


@contextlib.contextmanager
def postfix_submission(pair: Any) -> Iterator[PostfixSubmission]:
    """A started Postfix with that certificate, and its Dovecot; stopped and removed at the end."""
    need_root("start a private Postfix")
    need_user("postfix")
    with open_folder("submission") as folder:
        (folder / "dovecot.conf").write_text(DOVECOT.format(folder=folder), encoding="ascii")
        (folder / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n", encoding="utf-8")
        (folder / "state").mkdir()
        settings = {
            "smtpd_tls_cert_file": str(pair.cert),
            "smtpd_tls_key_file": str(pair.key),
            "smtpd_tls_security_level": "encrypt",
            "smtpd_tls_auth_only": "yes",
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": str(folder / "auth"),
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
        }
        doors = {
            kind + mechanism: {
                "smtpd_sasl_mechanism_filter": mechanism,
                "smtpd_tls_wrappermode": "yes" if kind == "implicit" else "no",
            }
            for kind, mechanism in product(KINDS, MECHANISMS)
        }
        server = PostfixSubmission(folder, settings, doors=doors)
        dovecot = Process([str(program("dovecot")), "-F", "-c", str(folder / "dovecot.conf")], folder / "start-dovecot")
        try:
            wait_for((folder / "auth").exists, f"Dovecot to listen\n{dovecot.text()}", STARTING)
            server.start()
            yield server
        finally:
            server.stop()
            dovecot.stop()
