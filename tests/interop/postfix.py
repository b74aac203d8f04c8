"""A private Postfix: own configuration, queue and data folders, one loopback port, delivery to a Maildir.

It trusts loopback (mynetworks), as many real ones do, and delivers every recipient of whatever domain into
the Maildir: so what it would have relayed to a foreign domain can be counted as well, and nothing ever
leaves the machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from freeports import free_port

from .lab import Process, files_below, need_root, need_user, open_folder, program, wait_for
from .messages import Maildir, Sample, Stored

# No limits that would make a volume test measure Postfix, and nothing that reaches out (no DNS, no bounces
# that linger). Recipients refused@ and later@ are refused for good and for now.
MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file_prefixes = {folder}
maillog_file = {folder}/mail.log
myhostname = mx.lab.test
mydestination =
alias_maps =
alias_database =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
virtual_mailbox_domains = lab.test
virtual_mailbox_base = {folder}
virtual_mailbox_maps = static:box/
virtual_mailbox_limit = 0
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_transport = virtual
default_transport = virtual
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access inline:{{
  {{ refused@lab.test = 550 5.1.1 no such user }},
  {{ later@lab.test = 450 4.2.0 come back later }} }}
message_size_limit = 104857600
mailbox_size_limit = 0
in_flow_delay = 0
queue_run_delay = 1s
minimal_backoff_time = 2s
maximal_backoff_time = 5s
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
virtual_destination_concurrency_limit = 8
"""

MASTER_CF = """\
{doors}
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
tlsmgr    unix  - - n 1000? 1 tlsmgr
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
virtual   unix  - n n - - virtual
anvil     unix  - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
"""

# A server that hides PIPELINING, and ends the session of a client that sends something behind EHLO at once.
LOCKSTEP = {"smtpd_discard_ehlo_keywords": "pipelining, chunking", "smtpd_forbid_unauth_pipelining": "yes"}
NO_CHUNKING = {"smtpd_discard_ehlo_keywords": "chunking"}


def master_program() -> Path:
    """Postfix's supervisor; skips if Postfix is not installed."""
    shown = subprocess.run(
        [str(program("postconf")), "-d", "-h", "daemon_directory"], capture_output=True, text=True, check=True
    )
    return Path(shown.stdout.strip()) / "master"


Settings = dict[str, str]


def _with(main: str, settings: Settings) -> str:
    """The text of main.cf with other settings, each name once.

    Each of Postfix's programs would warn of one that is there twice, and all of them together fill the socket of the
    one that writes the log, before that one has started; it never does then.
    """
    entries: dict[str, str] = {}
    name = ""
    for line in main.splitlines(keepends=True):
        if line[:1].isspace():
            entries[name] += line
        else:
            name = line.partition("=")[0].strip()
            entries[name] = line
    entries |= {name: f"{name} = {value}\n" for name, value in settings.items()}
    return "".join(entries.values())


@dataclass
class Postfix:
    """One private instance; `start` and `stop` as often as a test wants, always on the same ports.

    `doors` are more ports, by name, each with settings of its own.
    """

    folder: Path
    settings: Settings = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: Process | None = None
    doors: dict[str, Settings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The Maildir that it delivers to."""
        self.box = Maildir(self.folder / "box")
        self.ports = {name: free_port() for name in self.doors}

    def start(self) -> None:
        """Write the configuration and start; returns when the port is listened on."""
        for name in ("etc", "queue", "data", "box"):
            (self.folder / name).mkdir(exist_ok=True)
        main = _with(MAIN_CF.format(folder=self.folder), self.settings)
        for name, text in (("main.cf", main), ("master.cf", MASTER_CF.format(doors=self._doors()))):
            file = self.folder / "etc" / name
            file.write_text(text, encoding="ascii")
            # A file that has just been changed may change again: each of Postfix's programs would wait for
            # two seconds before it believed in it.
            os.utime(file, (0, 0))
        shutil.chown(self.folder / "data", "postfix")
        os.chown(self.folder / "box", 65534, 65534)
        if not (self.folder / "queue/pid").exists():
            self._make_queue()
        # Its master itself, attached (-d): "postfix start-fg" would put a shell and a process group between
        # us and it.
        command = [str(master_program()), "-c", str(self.folder / "etc"), "-d"]
        self.process = Process(command, self.folder / "start.log")
        for port in (self.port, *self.ports.values()):
            self.process.wait_listening(port)

    def _doors(self) -> str:
        """The lines of master.cf for the ports."""
        lines = [f"127.0.0.1:{self.port} inet n - n - 100 smtpd"]
        for name, settings in self.doors.items():
            lines.append(f"127.0.0.1:{self.ports[name]} inet n - n - 100 smtpd")
            lines += [f"  -o {{ {setting} = {value} }}" for setting, value in settings.items()]
        return "\n".join(lines)

    def _make_queue(self) -> None:
        """Let Postfix make the folders of its queue."""
        command = [str(program("postfix")), "-c", str(self.folder / "etc"), "check"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def stop(self) -> None:
        """Stop all of its processes; harmless when it does not run.

        What it was in the middle of receiving is removed: files that are not executable are no messages yet,
        and Postfix itself leaves them lying for a day.
        """
        if self.process is not None:
            self.process.stop()
            self.process = None
            for path in self.queued():
                if not path.stat().st_mode & stat.S_IXUSR:
                    path.unlink()

    def log(self) -> str:
        """Its mail log."""
        path = self.folder / "mail.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def arrival(self, message: Sample) -> str:
        """What its log says of the client that a message came from: `client=` of the queue file, and what follows."""

        def look() -> str:
            log = self.log()
            queue_ids = set(re.findall(rf": (\w+): message-id=<{message.token}@", log))
            assert len(queue_ids) <= 1, f"{message.token} came more than once"
            found = [re.search(rf": {queue_id}: client=(.*)", log) for queue_id in queue_ids]
            return found[0][1] if found and found[0] else ""

        return wait_for(look, f"{message.token} in Postfix's log")

    def queued(self) -> list[Path]:
        """The queue files of messages not yet delivered, and of sessions in the middle of one."""
        # Once more: what is tried again goes from the last folder to one before it, and none would have it then.
        folders = ("maildrop", "incoming", "active", "deferred")
        return list(dict.fromkeys(files_below(self.folder / "queue", *folders, *folders)))

    def delivered(self, seconds: float = 30.0) -> list[Stored]:
        """Wait until the queue is empty, and give everything ever delivered."""
        wait_for(lambda: not self.queued(), f"an empty queue of Postfix\n{self.log()[-2000:]}", seconds)
        return self.box.messages()


@contextlib.contextmanager
def postfix(settings: Settings | None = None, doors: dict[str, Settings] | None = None) -> Iterator[Postfix]:
    """A started Postfix with additional main.cf settings, and more ports; stopped and removed at the end."""
    need_root("start a private Postfix")
    need_user("postfix")
    program("postfix")
    with open_folder("postfix") as folder:
        server = Postfix(folder, settings or {}, doors=doors or {})
        try:
            server.start()
            yield server
        finally:
            server.stop()
