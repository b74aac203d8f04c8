"""The client's own address as the source, with the very commands of docs/source-address.md: three machines (client,
proxy, server), each with a network of its own; curl as the client, smtp-sink as the server.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from .lab import Process, open_folder, program, wait_for
from .namespaces import Machine, machines

pytestmark = pytest.mark.interop

PAGE = Path(__file__).resolve().parents[2] / "docs/source-address.md"
CLIENTS = ("198.51.100.7", "2001:db8:7::7")
PROXIES = ("198.51.100.1", "2001:db8:7::1")
SAME, CONTAINER, ANOTHER = "On the same machine", "In a container", "On another machine"
MARKS = "If others reach the server through the proxy's machine"
ON_PROXY, ON_SERVER = "on the proxy's machine", "on the server's machine"
BOUND_TO_ADMIN = "-all,+net_bind_service,+net_admin"

both_families = pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])


def section(heading: str) -> str:
    """What the page says below a heading."""
    text = PAGE.read_text(encoding="utf-8")
    begin = text.index(f"\n### {heading}\n")
    return text[begin : text.index("\n##", begin + 1)]


def blocks(heading: str) -> dict[str, str]:
    """The commands below a heading, by the comments that they begin with."""
    found = re.findall(r"^```sh\n# ([^\n]+)\n(.*?)^```$", section(heading), re.MULTILINE | re.DOTALL)
    assert len(dict(found)) == len(found)
    return dict(found)


def nft_file(heading: str) -> str:
    """The rules for nftables below a heading."""
    (found,) = re.findall(r"^```nft\n(.*?)^```$", section(heading), re.MULTILINE | re.DOTALL)
    return str(found)


@dataclass
class Lab:
    """A client's machine, the proxy's, and the server's, which may be the proxy's too."""

    folder: Path
    client: Machine
    proxy: Machine
    server: Machine
    servers: tuple[str, str]
    port: int
    processes: list[Process] = field(default_factory=list)

    def start_server(self) -> None:
        """An smtp-sink for each family."""
        self.folder.chmod(0o777)  # they become another user, who writes the dumps
        for family, address in enumerate(self.servers):
            command = [str(program("smtp-sink")), "-u", "nobody", "-D", str(self.folder / f"dump{family}")]
            self._run(self.server.command(*command, f"inet:[{address}]:{self.port}", "100"), f"sink{family}")
        wait_for(lambda: all(self._listens(address) for address in self.servers), "the servers to listen")

    def _listens(self, address: str) -> bool:
        shown = subprocess.run(self.server.command("ss", "-Hltn"), capture_output=True, text=True, check=True).stdout
        return f"{address}:{self.port} " in shown or f"[{address}]:{self.port} " in shown

    def start_proxy(self, *, bounding_set: str = BOUND_TO_ADMIN, connect: str = "30 s") -> None:
        """smtpproxy, by root with these capabilities only; returns when it listens."""
        listen = [f"{PROXIES[0]}:25", f"[{PROXIES[1]}]:25"]
        backend = {
            "servers": [f"{self.servers[0]}:{self.port}", f"[{self.servers[1]}]:{self.port}"],
            "identity": "source-address",
            "timeouts": {"connect": connect},
        }
        settings = {
            "listeners": [{"name": "mx", "listen": listen, "backend": "legacy"}],
            "backends": {"legacy": backend},
            "log": {"format": "json", "to": "stderr", "level": "info"},
        }
        file = self.folder / "smtpproxy.yaml"
        file.write_text(yaml.safe_dump(settings), encoding="ascii")
        limited = [str(program("setpriv")), f"--bounding-set={bounding_set}"]
        command = [*limited, sys.executable, "-m", "smtpproxy", "run", "-c", str(file)]
        process = self._run(self.proxy.command(*command), "smtpproxy")
        wait_for(lambda: '"started"' in process.text() or process.popen.poll() is not None, "the proxy to start")
        assert process.popen.poll() is None, process.text()

    def _run(self, command: list[str], name: str) -> Process:
        process = Process(command, self.folder / f"{name}.log")
        self.processes.append(process)
        return process

    def send(self, server: str, port: int = 25) -> subprocess.CompletedProcess[str]:
        """Send a message from the client's machine."""
        host = f"[{server}]" if ":" in server else server
        options = [
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "--mail-from",
            "a@lab.test",
            "--mail-rcpt",
            "b@lab.test",
        ]
        command = self.client.command(
            str(program("curl")), *options, "-T", "-", f"smtp://{host}:{port}/client.lab.test"
        )
        message = "Subject: hello\r\n\r\nHello.\r\n"
        return subprocess.run(command, input=message, capture_output=True, text=True, check=False)

    def seen(self, family: int) -> list[str]:
        """The addresses of the clients that the server has taken messages from."""
        dump = self.folder / f"dump{family}"
        text = dump.read_text(encoding="latin-1") if dump.exists() else ""
        return re.findall(r"^X-Client-Addr: (?:IPv6:)?(.*)$", text, re.MULTILINE | re.IGNORECASE)

    def failures(self) -> set[str]:
        """Why servers could not be reached, as the proxy's log says."""
        text = (self.folder / "smtpproxy.log").read_text(encoding="utf-8")
        events: list[dict[str, Any]] = [yaml.safe_load(line) for line in text.splitlines()]
        return {event["why"] for event in events if event["event"] == "backend_failed"}

    def stop(self) -> None:
        """Stop everything."""
        for process in self.processes:
            process.stop()


@contextlib.contextmanager
def lab(layout: str) -> Iterator[Lab]:
    """The machines of a layout, connected, with addresses and routes but without the rules of the page."""
    for name in ("ip", "ss", "sysctl"):
        if shutil.which(name) is None:
            pytest.skip(f"the command {name} is not installed")
    with open_folder("source-address") as folder, machines(3) as (client, proxy, server):
        client.connect("eth0", proxy, "wan")
        client.address("eth0", f"{CLIENTS[0]}/24", f"{CLIENTS[1]}/64")
        proxy.address("wan", f"{PROXIES[0]}/24", f"{PROXIES[1]}/64")
        client.sh(f"ip route add 192.0.2.0/24 via {PROXIES[0]}\nip route add 2001:db8:2::/64 via {PROXIES[1]}")
        if layout == SAME:
            made = Lab(folder, client, proxy, proxy, ("127.0.0.1", "::1"), 2525)
        elif layout == CONTAINER:
            made = Lab(folder, client, proxy, server, ("172.18.0.2", "2001:db8:18::2"), 25)
            proxy.sh("ip link add br0 type bridge\nip link set br0 up")
            proxy.connect("container", server, "eth0")
            proxy.sh("ip link set container master br0")
            proxy.address("br0", "172.18.0.1/16", "2001:db8:18::1/64")
            server.address("eth0", "172.18.0.2/16", "2001:db8:18::2/64")
            server.sh("ip route add default via 172.18.0.1\nip route add default via 2001:db8:18::1")
        else:
            made = Lab(folder, client, proxy, server, ("192.0.2.20", "2001:db8:2::20"), 25)
            proxy.connect("eth0", server, "eth0")
            proxy.address("eth0", "192.0.2.10/24", "2001:db8:2::10/64")
            server.address("eth0", "192.0.2.20/24", "2001:db8:2::20/64")
            # Its ordinary way to the client is another one; and it is strict about that.
            server.connect("other", client, "other")
            server.address("other", "203.0.113.2/24", "2001:db8:3::2/64")
            client.address("other", "203.0.113.1/24", "2001:db8:3::1/64")
            server.sh("ip route add default via 203.0.113.1\nip route add default via 2001:db8:3::1")
            server.sh("sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=1")
        try:
            made.start_server()
            yield made
        finally:
            made.stop()


def follow_the_page(made: Lab, layout: str) -> None:
    commands = blocks(layout)
    if layout == SAME:
        made.proxy.sh(commands.pop("on the machine"))
    else:
        made.proxy.sh(commands.pop(ON_PROXY))
    if layout == ANOTHER:
        made.server.sh(commands.pop(ON_SERVER) + commands.pop(f"{ON_SERVER}, if rp_filter is strict"))
    assert commands == {}, "every command of the page is tried"


@pytest.mark.parametrize("layout", [SAME, CONTAINER, ANOTHER])
def test_the_server_sees_the_client(layout: str) -> None:
    with lab(layout) as made:
        follow_the_page(made, layout)
        made.start_proxy()
        for family, address in enumerate(CLIENTS):
            sent = made.send(PROXIES[family])
            assert sent.returncode == 0, f"{sent.stderr}{made.failures()}"
            assert made.seen(family) == [address]


@pytest.mark.parametrize("way", ["nft", "iptables"])
def test_with_marks_others_reach_the_server_too(way: str) -> None:
    for name in ("nft",) if way == "nft" else ("iptables", "ip6tables"):
        if shutil.which(name) is None:
            pytest.skip(f"the command {name} is not installed")
    with lab(ANOTHER) as made:
        routing = blocks(ANOTHER)
        made.server.sh(routing[ON_SERVER] + routing[f"{ON_SERVER}, if rp_filter is strict"])
        commands = blocks(MARKS)
        made.proxy.sh(commands[ON_PROXY])
        if way == "nft":
            (made.folder / "nft").write_text(nft_file(MARKS), encoding="ascii")
            made.proxy.sh(f"nft -f {made.folder / 'nft'}")
        else:
            made.proxy.sh(commands["with iptables"])
        made.proxy.sh("sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        made.start_proxy()
        for family, address in enumerate(CLIENTS):
            for server in (PROXIES[family], made.servers[family]):
                sent = made.send(server)
                assert sent.returncode == 0, f"{server}: {sent.stderr}{made.failures()}"
            assert made.seen(family) == [address, address]


@both_families
def test_without_the_rules_no_connection_comes_about(family: int) -> None:
    with lab(CONTAINER) as made:
        made.start_proxy(connect="1 s")
        assert "421" in made.send(PROXIES[family]).stderr
        assert made.seen(family) == []


@both_families
def test_without_the_capability_the_log_says_so(family: int) -> None:
    with lab(SAME) as made:
        follow_the_page(made, SAME)
        made.start_proxy(bounding_set="-all,+net_bind_service")
        assert "421" in made.send(PROXIES[family]).stderr
        why = "connecting from the client's address needs the capability CAP_NET_ADMIN or CAP_NET_RAW"
        wait_for(lambda: why in made.failures(), "the complaint")
        assert made.seen(family) == []


def test_the_smaller_capability_is_enough() -> None:
    with lab(SAME) as made:
        follow_the_page(made, SAME)
        made.start_proxy(bounding_set="-all,+net_bind_service,+net_raw")
        for family, address in enumerate(CLIENTS):
            assert made.send(PROXIES[family]).returncode == 0
            assert made.seen(family) == [address]
