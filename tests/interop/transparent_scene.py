"""What docs/transparent.md is tried on: the machine of a mail server, a router, and a machine out in the world, each
with a network of its own; curl as the mail server, smtp-sink as the world.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from . import transparent_standin
from .clients import RECIPIENT
from .lab import Process, need_user, open_folder, program, wait_for
from .namespaces import HELLO, Lab, Machine, machines

PAGE = Path(__file__).resolve().parents[2] / "docs/transparent.md"
ON_ITS_OWN, BY_USER, GATEWAY = "On the mail server's own machine", "By user, without a mark", "On a gateway"

MAIL_SERVERS = ("192.0.2.20", "2001:db8:2::20")
NEIGHBOURS = ("192.0.2.21", "2001:db8:2::21")
ROUTERS = ("198.51.100.1", "2001:db8:7::1")
WORLD = ("198.51.100.7", "2001:db8:7::7")
PARTNERS = ("203.0.113.7", "2001:db8:3::7")

CAPABLE = "-all,+net_bind_service,+net_admin"
USER = "postfix"  # the one that the page names


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
        self.chain = "prerouting" if way == GATEWAY else "output"
        self.user = USER if way == BY_USER else ""
        """Who the mail server is; empty for root."""
        self.proxy: Process | None = None

    @property
    def machine(self) -> Machine:
        return self.made.proxy

    def load(self, rules: str) -> None:
        (self.made.folder / "nft").write_text(rules, encoding="ascii")
        self.machine.sh(f"{program('nft')} -f {self.made.folder / 'nft'}")

    def follow_the_page(self) -> None:
        if self.way == GATEWAY:
            self.machine.sh(block(self.way, "sh", "on the gateway"))
        for _ in range(2):  # it can be loaded again at any time
            self.load(block(self.way, "nft"))

    def start(self, capabilities: str = CAPABLE) -> Process:
        """The listener of the page, by root with these capabilities only."""
        settings = block(GATEWAY if self.way == GATEWAY else ON_ITS_OWN, "yaml")
        if self.way == BY_USER:
            settings += "    mark: off\n"
        file = self.made.folder / "transparent.yaml"
        file.write_text(settings, encoding="ascii")
        limited = [str(program("setpriv")), f"--bounding-set={capabilities}"]
        command = [*limited, sys.executable, str(transparent_standin.__file__), str(file)]
        self.proxy = self.made._run(self.machine.command(*command), "proxy")
        return self.proxy

    def start_and_wait(self, capabilities: str = CAPABLE) -> None:
        process = self.start(capabilities)
        listening = self.machine.command(str(program("ss")), "-Hltn", "sport = :2525")

        def ready() -> bool:
            assert process.popen.poll() is None, process.text()
            shown = subprocess.run(listening, capture_output=True, text=True, check=True).stdout
            return len(shown.splitlines()) == len(WORLD)

        wait_for(ready, "the proxy to listen")

    def log(self) -> list[list[str]]:
        assert self.proxy is not None
        return [line.split() for line in self.proxy.text().splitlines()]

    def send(
        self, server: str, *, port: int = 25, source: str = "", machine: Machine | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Send a message, from the mail server's machine unless another one is given."""
        url = f"smtp://{f'[{server}]' if ':' in server else server}:{port}/client.lab.test"
        curl = [str(program("curl")), "--silent", "--show-error", "--max-time", "30", "-T", "-", url]
        curl += ["--mail-from", "sender@lab.test", "--mail-rcpt", RECIPIENT]
        if source:
            curl += ["--interface", source]
        if self.user:
            as_user = [f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
            curl = [str(program("setpriv")), *as_user, "--", *curl]
        done = subprocess.run(
            (machine or self.made.client).command(*curl), input=HELLO, capture_output=True, check=False
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def delivers(self, server: str, source: str = "") -> None:
        sent = self.send(server, source=source)
        assert sent.returncode == 0, f"{server}: {sent.stderr}{self.proxy.text() if self.proxy else ''}"

    def machine_rules(self) -> str:
        """The rules of the firewall and of the routing."""
        script = "nft list ruleset; for f in -4 -6; do ip $f rule; ip $f route show table 100 2>/dev/null || true; done"
        command = self.machine.command("sh", "-c", script)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def counted(self) -> list[int]:
        """What the rules have caught."""
        command = self.machine.command(str(program("nft")), "list", "table", "inet", "smtpproxy")
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return [int(packets) for packets in re.findall(r"counter packets (\d+)", shown)]


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
            world.address("eth0", f"{WORLD[family]}/{bits}")
            world.address("lo", f"{PARTNERS[family]}/{(32, 128)[family]}")
            mail_server.sh(f"{route} add default via {gate} src {MAIL_SERVERS[family]}")
            router.sh(f"{route} add default via {WORLD[family]}")
            world.sh(f"{route} add default via {ROUTERS[family]}")
        router.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        proxy = router if way == GATEWAY else mail_server
        made = Lab(folder, mail_server, proxy, world, WORLD, 25)
        try:
            made.start_sinks()
            yield Scene(made, way)
        finally:
            made.stop()
