"""Machines with networks of their own: network namespaces, and cables (veth pairs) between them; and the three
(client, proxy, server) that docs/source-address.md is tried on.

A namespace lives as long as the processes in it.  The first one waits for the end of its input, so it goes also when
the test run is killed.
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

from .clients import RECIPIENT
from .lab import STARTING, Process, missing, need_root, open_folder, program, wait_for, whole_lines

CLIENTS = ("198.51.100.7", "2001:db8:7::7")
PROXIES = ("198.51.100.1", "2001:db8:7::1")
SAME, CONTAINER, ANOTHER = "On the same machine", "In a container", "On another machine"
BOUND_TO_ADMIN = "-all,+net_bind_service,+net_admin"
HELLO = b"Subject: hello\r\n\r\nHello.\r\n"


class Machine:
    """A network namespace, at first with a loopback interface only."""

    def __init__(self) -> None:
        """Skips where no namespace can be made."""
        need_root("make network namespaces")
        script = "ip link set lo up && echo ready && exec cat"
        arguments = [str(program("unshare")), "--net", "sh", "-c", script]
        self._popen = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._enter = [str(program("nsenter")), f"--target={self._popen.pid}", "--net", "--"]
        assert self._popen.stdout is not None
        if self._popen.stdout.readline() != b"ready\n":
            _, error = self._popen.communicate()
            missing(f"no network namespace can be made here: {error.decode().strip()}")

    def command(self, *arguments: str) -> list[str]:
        """The command that runs `arguments` on this machine."""
        return [*self._enter, *arguments]

    def sh(self, script: str) -> None:
        """Run shell commands on this machine; AssertionError at the first that fails."""
        done = subprocess.run(self.command("sh", "-e", "-c", script), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}\n{done.stderr}"

    def connect(self, interface: str, other: Machine, other_interface: str) -> None:
        """Lay a cable to another machine."""
        self.sh(
            f"ip link add {interface} type veth peer name {other_interface} netns {other._popen.pid}\n"
            f"ip link set {interface} up"
        )
        other.sh(f"ip link set {other_interface} up")

    def address(self, interface: str, *addresses: str) -> None:
        """Give an interface addresses with prefix lengths; they can be used at once."""
        for address in addresses:
            # An IPv6 address waits for a moment otherwise, in case that somebody else has it.
            self.sh(f"ip addr add {address} dev {interface} {'nodad' if ':' in address else ''}")

    def stop(self) -> None:
        """Let it go; what still runs on it keeps it alive."""
        self._popen.communicate()


@contextlib.contextmanager
def machines(number: int) -> Iterator[list[Machine]]:
    """So many machines, gone at the end."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(number):
            made.append(Machine())
            stack.callback(made[-1].stop)
        yield made


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

    def start_sinks(self) -> None:
        """An smtp-sink for each family, as the server."""
        self.folder.chmod(0o777)  # they become another user, who writes the dumps
        for family, address in enumerate(self.servers):
            command = [str(program("smtp-sink")), "-u", "nobody", "-D", str(self.folder / f"dump{family}")]
            self._run(self.server.command(*command, f"inet:[{address}]:{self.port}", "100"), f"sink{family}")
        self.wait_for_server()

    def wait_for_server(self) -> None:
        """Return when the server listens on its address of each family."""
        wait_for(lambda: all(self._listens(address) for address in self.servers), "the server to listen", STARTING)

    def _listens(self, address: str) -> bool:
        shown = subprocess.run(self.server.command("ss", "-Hltn"), capture_output=True, text=True, check=True).stdout
        return f"{address}:{self.port} " in shown or f"[{address}]:{self.port} " in shown

    def start_proxy(
        self, *, bounding_set: str = BOUND_TO_ADMIN, connect: str = "30 s", identity: str = "source-address"
    ) -> None:
        """smtpproxy, by root with these capabilities only; returns when it listens."""
        listen = [f"{PROXIES[0]}:25", f"[{PROXIES[1]}]:25"]
        listener = {"name": "mx", "listen": listen, "backend": "legacy"}
        if identity == "none":
            listener["recipient_domains"] = ["lab.test"]
        backend = {
            "servers": [f"{self.servers[0]}:{self.port}", f"[{self.servers[1]}]:{self.port}"],
            "identity": identity,
            "timeouts": {"connect": connect},
        }
        settings = {
            "listeners": [listener],
            "backends": {"legacy": backend},
            "log": {"format": "json", "to": "stderr", "level": "info"},
        }
        file = self.folder / "smtpproxy.yaml"
        file.write_text(yaml.safe_dump(settings), encoding="ascii")
        limited = [str(program("setpriv")), f"--bounding-set={bounding_set}"]
        command = [*limited, sys.executable, "-m", "smtpproxy", "run", "-c", str(file)]
        process = self._run(self.proxy.command(*command), "smtpproxy")
        wait_for(
            lambda: '"started"' in process.text() or process.popen.poll() is not None, "the proxy to start", STARTING
        )
        assert process.popen.poll() is None, process.text()

    def _run(self, command: list[str], name: str) -> Process:
        process = Process(command, self.folder / f"{name}.log")
        self.processes.append(process)
        return process

    def send(self, server: str, port: int = 25, message: bytes = HELLO) -> subprocess.CompletedProcess[str]:
        """Send a message, with CR LF, from the client's machine."""
        url = f"smtp://{f'[{server}]' if ':' in server else server}:{port}/client.lab.test"
        envelope = ["--mail-from", "sender@lab.test", "--mail-rcpt", RECIPIENT]
        curl = [str(program("curl")), "--silent", "--show-error", "--max-time", "60", *envelope, "-T", "-", url]
        done = subprocess.run(self.client.command(*curl), input=message, capture_output=True, check=False)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def seen(self, family: int) -> list[str]:
        """The addresses of the clients that the server has taken messages from."""
        dump = self.folder / f"dump{family}"
        text = dump.read_text(encoding="latin-1") if dump.exists() else ""
        return re.findall(r"^X-Client-Addr: (?:IPv6:)?(.*)$", text, re.MULTILINE | re.IGNORECASE)

    def failures(self) -> set[str]:
        """Why servers could not be reached, as the proxy's log says."""
        text = (self.folder / "smtpproxy.log").read_text(encoding="utf-8")
        events: list[dict[str, Any]] = [yaml.safe_load(line) for line in whole_lines(text)]
        return {event["why"] for event in events if event["event"] == "backend_failed"}

    def stop(self) -> None:
        """Stop the sinks and the proxy."""
        for process in self.processes:
            process.stop()


@contextlib.contextmanager
def lab(layout: str) -> Iterator[Lab]:
    """The machines of a layout (a heading of the page), connected, with addresses and routes; without the rules of the
    page, and nothing runs there yet.
    """
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
            yield made
        finally:
            made.stop()
