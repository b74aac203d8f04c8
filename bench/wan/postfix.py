"""A Postfix at the near end, which sends everything to the remote, or to smtpproxy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness import postfix, tools

from wan.machines import Machine

PORT = 2500
STARTTLS = "smtp_tls_security_level = encrypt\nsmtp_tls_session_cache_database = btree:{folder}/data/sessions"


@dataclass(frozen=True)
class Client:
    """A running instance."""

    machine: Machine

    def send(self, message: bytes) -> None:
        """Hand it a message of that length; returns before it is sent on."""
        source = [str(tools.find("smtp-source")), "-m", "1", "-l", str(len(message))]
        self.machine.run([*source, "-f", "a@near.test", "-t", "b@lab.test", f"127.0.0.1:{PORT}"])


def client(folder: Path, machine: Machine, relayhost: str, *, starttls: bool) -> Client:
    """Start an instance at the near end."""
    extra = STARTTLS.format(folder=folder) if starttls else ""
    command = postfix.configure(folder, relayhost, port=PORT, extra=extra)
    machine.start("postfix", command, PORT)
    return Client(machine)
