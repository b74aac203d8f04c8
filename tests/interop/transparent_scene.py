"""What docs/transparent.md is tried on: the machine of a mail server, a router, and a machine out in the world, each
with a network of its own; curl as the mail server, smtp-sink as the world, and smtpproxy as a user runs it.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .clients import RECIPIENT
from .lab import STARTING, Process, need_user, open_folder, program, wait_for, whole_lines
from .namespaces import HELLO, Lab, Machine, machines

PAGE = Path(__file__).resolve().parents[2] / "docs/transparent.md"
ON_ITS_OWN, BY_USER, GATEWAY = "On the mail server's own machine", "By user, without a mark", "On a gateway"

MAIL_SERVERS = ("192.0.2.20", "2001:db8:2::20")
NEIGHBOURS = ("192.0.2.21", "2001:db8:2::21")
ROUTERS = ("198.51.100.1", "2001:db8:7::1")
WORLD = ("198.51.100.7", "2001:db8:7::7")
ELSEWHERE = ("198.51.100.8", "2001:db8:7::8")
PARTNERS = ("203.0.113.7", "2001:db8:3::7")

CAPABLE = "-all,+net_bind_service,+net_admin"
USER = "postfix"  # the one that the page names

# Beside the listener of the page.
OTHERS = 'cache: {store: "memory:"}\nlog: {format: json, to: stderr}\n'


def section(heading: str) -> str:
    """What the page says below a heading, up to the next one."""
    (found,) = re.findall(
        rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return str(found)


def block(heading: str, language: str, comment: str = "") -> str:
    """The only block of a language below a heading, or the one that begins with this comment."""
    begin = rf"# {re.escape(comment)}\n" if comment else ""
    (found,) = re.findall(rf"^```{language}\n{begin}(.*?)^```$", section(heading), re.MULTILINE | re.DOTALL)
    return str(found)


class Scene:
    """The machines, and the one of them that smtpproxy is on."""

    def __init__(self, made: Lab, way: str) -> None:
        self.made = made
        self.way = way
        """The heading of the page that is followed."""
        self.user = USER if way == BY_USER else ""
        """Who the mail server is; empty for root."""
        self._running: tuple[tuple[str, str], Process] | None = None
        self._seen = [0] * len(WORLD)
        self._read = 0

    @property
    def machine(self) -> Machine:
        """Where smtpproxy is."""
        return self.made.proxy

    # --- the page ------------------------------------------------------------------------------------------------

    def load(self, rules: str) -> None:
        """Load rules as the page says."""
        (self.made.folder / "nft").write_text(rules, encoding="ascii")
        self.machine.sh(f"{program('nft')} -f {self.made.folder / 'nft'}")

    def follow_the_page(self) -> None:
        """Do everything that the page says but for starting."""
        if self.way == GATEWAY:
            self.machine.sh(block(self.way, "sh", "on the gateway"))
        for _ in range(2):  # it can be loaded again at any time
            self.load(block(self.way, "nft"))

    def configuration(self, more: str) -> str:
        """The listener of the page, and `more` behind it."""
        settings = block(GATEWAY if self.way == GATEWAY else ON_ITS_OWN, "yaml")
        return settings + ("    mark: off\n" if self.way == BY_USER else "") + more + OTHERS

    # --- smtpproxy -----------------------------------------------------------------------------------------------

    def begin(self, more: str = "", capabilities: str = CAPABLE) -> Process:
        """Run the listener of the page, by root with these capabilities only."""
        self.stop()
        file = self.made.folder / "transparent.yaml"
        file.write_text(self.configuration(more), encoding="ascii")
        limited = [str(program("setpriv")), f"--bounding-set={capabilities}"]
        run = [sys.executable, "-m", "smtpproxy", "run", "-c", str(file)]
        process = self.made._run(self.machine.command(*limited, *run), "proxy")
        self._running = (self.configuration(more), capabilities), process
        return process

    def start(self, more: str = "", capabilities: str = CAPABLE) -> None:
        """The same, and it listens; one that runs already will do if it was started in the same way."""
        if self._running is None or self._running[0] != (self.configuration(more), capabilities):
            process = self.begin(more, capabilities)
            wait_for(lambda: self.events("started") or process.popen.poll() is not None, "the proxy to start", STARTING)
            assert process.popen.poll() is None, process.text()
        else:
            self._wait_for_the_log()
        self._read = len(self._lines())

    def reload(self) -> None:
        """Let it read the listener of the way that is followed now."""
        assert self._running is not None
        _, process = self._running
        settings = self.configuration("")
        (self.made.folder / "transparent.yaml").write_text(settings, encoding="ascii")
        process.popen.send_signal(signal.SIGHUP)
        self.event("reloaded")
        self._running = (settings, CAPABLE), process

    def _wait_for_the_log(self) -> None:
        """Return when everything is in the log that was before this: one client more, who is turned away."""
        self._read = len(self._lines())
        why = "the connection was meant for 127.0.0.1:2525, which is smtpproxy itself"
        self.send("127.0.0.1", port=2525, machine=self.machine)
        wait_for(lambda: why in [event["why"] for event in self.events("session_refused")], why)

    def stop(self) -> None:
        """Stop it, if it runs; it was not in trouble."""
        if self._running is not None:
            _, process = self._running
            self._running = None
            process.stop()
            assert "Traceback" not in process.text(), process.text()
        self._read = len(self._lines())

    def _lines(self) -> list[str]:
        log = self.made.folder / "proxy.log"
        return whole_lines(log.read_text("utf-8")) if log.exists() else []

    def events(self, *names: str) -> list[dict[str, Any]]:
        """What was logged under these names since the last start, or since the test began."""
        found = [json.loads(line) for line in self._lines()[self._read :]]
        return [event for event in found if event["event"] in names]

    def event(self, name: str, number: int = 1) -> dict[str, Any]:
        """Wait for the event with that number, and give it."""
        return wait_for(lambda: self.events(name)[number - 1 : number], f"{name} in the log")[0]

    def untouched(self) -> bool:
        """Whether no client has come to smtpproxy."""
        return not self.events("session", "session_refused", "delivery")

    # --- the mail server -----------------------------------------------------------------------------------------

    def send(
        self, server: str, *, port: int = 25, source: str = "", machine: Machine | None = None, to: str = RECIPIENT
    ) -> subprocess.CompletedProcess[str]:
        """Send a message, from the mail server's machine unless another one is given."""
        url = f"smtp://{f'[{server}]' if ':' in server else server}:{port}/client.lab.test"
        curl = [str(program("curl")), "--silent", "--show-error", "--verbose", "--max-time", "30", "-T", "-", url]
        curl += ["--mail-from", "sender@lab.test"]
        for recipient in to.split(","):
            curl += ["--mail-rcpt", recipient]
        if source:
            curl += ["--interface", source]
        if self.user:
            as_user = [f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
            curl = [str(program("setpriv")), *as_user, "--", *curl]
        done = subprocess.run(
            (machine or self.made.client).command(*curl), input=HELLO, capture_output=True, check=False
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def delivers(self, server: str, source: str = "") -> str:
        """Send a message, which has to succeed; gives the conversation."""
        sent = self.send(server, source=source)
        assert sent.returncode == 0, f"{server}: {sent.stderr}\n{self._lines()[self._read :]}"
        return sent.stderr

    # --- what can be seen ------------------------------------------------------------------------------------------

    def seen(self, family: int) -> list[str]:
        """The addresses of the clients that the world has taken messages from in this test."""
        return self.made.seen(family)[self._seen[family] :]

    def machine_rules(self) -> str:
        """The rules of the firewall and of the routing."""
        script = "nft list ruleset; for f in -4 -6; do ip $f rule; ip $f route show table 100 2>/dev/null || true; done"
        command = self.machine.command("sh", "-c", script)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def counted(self) -> list[int]:
        """What the rules have caught, by the command of the page."""
        (command,) = re.findall(r"`(nft list [^`]*)`", section("How to check"))
        shown = subprocess.run(self.machine.command(*command.split()), capture_output=True, text=True, check=True)
        return [int(packets) for packets in re.findall(r"counter packets (\d+)", shown.stdout)]

    # --- one test after the other ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def used(self, way: str) -> Iterator[Scene]:
        """Lend it to a test, which may treat it as another way with the same machines."""
        before = self.way, self.user
        self.way = way
        self._seen = [len(self.made.seen(family)) for family in range(len(WORLD))]
        self._read = len(self._lines())
        try:
            yield self
        finally:
            self.way, self.user = before
            forget = "nft flush ruleset; for f in -4 -6; do ip $f rule del fwmark 1 2>/dev/null || true"
            self.machine.sh(f"{forget}; ip $f route flush table 100 2>/dev/null || true; done")


@contextlib.contextmanager
def scene(way: str) -> Iterator[Scene]:
    """The machines, connected, and the world's servers; without the rules of the page, and smtpproxy does not run."""
    for name in ("ip", "ss", "nft", "sysctl"):
        program(name)
    need_user(USER)
    with open_folder("transparent") as folder, machines(3) as (mail_server, router, world):
        mail_server.connect("eth0", router, "lan")
        router.connect("wan", world, "eth0")
        for family, (bits, route) in enumerate([(24, "ip route"), (64, "ip -6 route")]):
            mail_server.address("eth0", f"{MAIL_SERVERS[family]}/{bits}", f"{NEIGHBOURS[family]}/{bits}")
            gate = ("192.0.2.1", "2001:db8:2::1")[family]
            router.address("lan", f"{gate}/{bits}")
            router.address("wan", f"{ROUTERS[family]}/{bits}")
            world.address("eth0", f"{WORLD[family]}/{bits}", f"{ELSEWHERE[family]}/{bits}")
            world.address("lo", f"{PARTNERS[family]}/{(32, 128)[family]}")
            mail_server.sh(f"{route} add default via {gate} src {MAIL_SERVERS[family]}")
            router.sh(f"{route} add default via {WORLD[family]}")
            world.sh(f"{route} add default via {ROUTERS[family]}")
        router.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        proxy = router if way == GATEWAY else mail_server
        made = Lab(folder, mail_server, proxy, world, WORLD, 25)
        there = Scene(made, way)
        try:
            made.start_sinks()
            yield there
        finally:
            made.stop()
