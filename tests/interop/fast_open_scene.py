"""Two machines with a cable between them, and smtpproxy at both ends: as a smarthost, and in front of a server.

Whoever looks at the cable sees what is in a SYN.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from .lab import STARTING, Process, open_folder, program, wait_for, whole_lines
from .namespaces import HELLO, Machine, machines

CLONE_NEWNET = 0x40000000  # <linux/sched.h>
ETH_P_ALL = 0x0003
SYN, ACK = 0x02, 0x10

HERE = ("192.0.2.1", "2001:db8:2::1")
THERE = ("192.0.2.2", "2001:db8:2::2")
ALSO_THERE = "192.0.2.3"
SUBMISSION, BACKEND = 2525, 2526
USUAL, ENCRYPTED, SHY = 25, 26, 27
"""Ports there: in clear text, with STARTTLS, and one that takes no data with a SYN."""

LOG = {"format": "json", "to": "stderr"}
ROUTES: dict[str, dict[str, Any]] = {
    "four.test": {"nexthops": [f"{THERE[0]}:{USUAL}"]},
    "six.test": {"nexthops": [f"[{THERE[1]}]:{USUAL}"]},
    "shy.test": {"nexthops": [f"{THERE[0]}:{SHY}"]},
    "encrypted.test": {"nexthops": [f"{THERE[0]}:{ENCRYPTED}"], "tls": {"mode": "required"}},
    "off.test": {"nexthops": [f"{ALSO_THERE}:{USUAL}"], "fast_open": "off"},
    "risky.test": {"nexthops": [f"{ALSO_THERE}:{USUAL}"], "fast_open": "whole_message"},
}


def smarthost() -> dict[str, Any]:
    """What it is told here: the message rides as soon as a remote is known, and no session is kept."""
    usual: dict[str, Any] = {"tls": {"mode": "none"}, "reuse": False}
    return {
        "listeners": [
            {
                "name": "smarthost",
                "mode": "outbound",
                "listen": [f"127.0.0.1:{SUBMISSION}"],
                "hostname": "smarthost.test",
                "speculate": {"confirmed": 0},
            }
        ],
        "routes": [{"domain": domain, **usual, **route} for domain, route in ROUTES.items()],
        "cache": {"store": "memory:"},
        "log": LOG,
    }


def receiver(cert: Path, key: Path) -> dict[str, Any]:
    """What it is told there."""

    def listener(name: str, port: int, **more: Any) -> dict[str, Any]:
        addresses = [f"{THERE[0]}:{port}", f"[{THERE[1]}]:{port}", f"{ALSO_THERE}:{port}"]
        usual = {
            "name": name,
            "listen": addresses,
            "backend": "sink",
            "hostname": "mx.test",
            "recipient_domains": "any",
        }
        return {**usual, "early_pipelining": {"advertise_to": ["all"]}, **more}

    tls = {"mode": "starttls", "certificates": [{"cert": str(cert), "key": str(key)}]}
    return {
        "listeners": [
            listener("usual", USUAL),
            listener("encrypted", ENCRYPTED, tls=tls),
            listener("shy", SHY, fast_open="off"),
        ],
        "backends": {"sink": {"servers": [f"127.0.0.1:{BACKEND}"]}},
        "log": LOG,
    }


class Running:
    """An smtpproxy of one machine."""

    def __init__(self, machine: Machine, file: Path, settings: dict[str, Any]) -> None:
        file.write_text(json.dumps(settings), encoding="ascii")
        command = machine.command(sys.executable, "-m", "smtpproxy", "run", "-c", str(file))
        self.process = Process(command, file.with_suffix(".log"))

    def events(self, name: str) -> list[dict[str, Any]]:
        """What was logged under this name."""
        found = [json.loads(line) for line in whole_lines(self.process.text())]
        return [event for event in found if event["event"] == name]

    def wait(self) -> None:
        """Return when it listens."""
        wait_for(
            lambda: self.process.popen.poll() is not None or self.events("started"), "an smtpproxy to start", STARTING
        )
        assert self.process.popen.poll() is None, self.process.text()


def socket_on(machine: Machine, family: int, kind: int) -> socket.socket:
    """A socket of the machine's network, for anybody's use."""

    def make() -> socket.socket:
        descriptor = os.open(f"/proc/{machine._popen.pid}/ns/net", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)
        return socket.socket(family, kind)

    with ThreadPoolExecutor(1) as thread:  # it moves into that network, and never comes back
        return thread.submit(make).result()


class Cable:
    """What a machine's interface has seen."""

    def __init__(self, machine: Machine) -> None:
        self._socket = socket_on(machine, socket.AF_PACKET, socket.SOCK_DGRAM)
        self._socket.bind(("eth0", ETH_P_ALL))
        self._socket.settimeout(0.0)

    def syns(self) -> list[bytes]:
        """The data in each SYN (but for the answers) that was on the cable since the last look."""
        found = []
        while True:
            try:
                packet = self._socket.recv(65535)
            except BlockingIOError:
                return found
            data = _data_of_syn(packet)
            if data is not None:
                found.append(data)

    def close(self) -> None:
        """Look no more."""
        self._socket.close()


def _data_of_syn(packet: bytes) -> bytes | None:
    if packet[0] >> 4 == 4:
        protocol, begin, end = packet[9], (packet[0] & 15) * 4, int(struct.unpack_from("!H", packet, 2)[0])
    else:
        protocol, begin, end = packet[6], 40, 40 + int(struct.unpack_from("!H", packet, 4)[0])
    if protocol != socket.IPPROTO_TCP or packet[begin + 13] & (SYN | ACK) != SYN:
        return None
    return packet[begin + (packet[begin + 12] >> 4) * 4 : end]


class Line:
    """Both machines."""

    def __init__(self, here: Machine, there: Machine, smarthost: Running, receiver: Running) -> None:
        self.here = here
        self.there = there
        self.smarthost = smarthost
        self.receiver = receiver
        self.cable = Cable(there)

    def send(self, domain: str) -> tuple[dict[str, Any], list[bytes]]:
        """Send a message by way of both; gives what the smarthost has logged of it, and what was in the SYNs."""
        self.cable.syns()
        before = len(self.smarthost.events("delivery"))
        envelope = b"MAIL FROM:<sender@lab.test>\r\nRCPT TO:<user@%s>\r\n" % domain.encode()
        message = b"BDAT %d LAST\r\n" % len(HELLO) + HELLO
        with socket_on(self.here, socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(30.0)
            sock.connect(("127.0.0.1", SUBMISSION))
            with sock.makefile("rb") as replies:
                for said, number in ((b"", 1), (b"EHLO client.test\r\n", 1), (envelope + message, 3), (b"QUIT\r\n", 1)):
                    sock.sendall(said)
                    for _ in range(number):
                        reply = _last_line(replies)
                        assert reply.startswith(b"2"), reply
        found = wait_for(lambda: self.smarthost.events("delivery")[before:], "the delivery in the log")
        return found[0], self.cable.syns()

    def counters(self) -> tuple[int, int]:
        """How many connections were opened fast: as the kernel here counts, and the one there."""
        return _counter(self.here, "TCPFastOpenActive"), _counter(self.there, "TCPFastOpenPassive")


def _last_line(replies: BinaryIO) -> bytes:
    """Read a reply; gives its last line."""
    while (line := replies.readline())[3:4] == b"-":
        pass
    return line


def _counter(machine: Machine, name: str) -> int:
    shown = subprocess.run(machine.command("cat", "/proc/net/netstat"), capture_output=True, text=True, check=True)
    names, values = (line.split() for line in shown.stdout.splitlines() if line.startswith("TcpExt:"))
    return int(dict(zip(names, values, strict=True))[name])


def _listens(machine: Machine, port: int) -> bool:
    command = machine.command(str(program("ss")), "-Hltn", f"sport = :{port}")
    return bool(subprocess.run(command, capture_output=True, check=True).stdout)


@contextlib.contextmanager
def line(cert: Path, key: Path) -> Iterator[Line]:
    """The machines, with both smtpproxies and the backend; all are gone at the end."""
    for name in ("ip", "sysctl"):
        program(name)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(open_folder("fast-open"))
        here, there = stack.enter_context(machines(2))
        here.connect("eth0", there, "eth0")
        here.address("eth0", f"{HERE[0]}/24", f"{HERE[1]}/64")
        there.address("eth0", f"{THERE[0]}/24", f"{THERE[1]}/64", f"{ALSO_THERE}/24")
        for machine in (here, there):
            machine.sh("sysctl -qw net.ipv4.tcp_fastopen=3")
        # Whoever becomes another user hears no more of the end of the test run, unless asked again.
        as_nobody = [str(program("setpriv")), "--reuid=nobody", "--clear-groups", "--pdeathsig=TERM", "--"]
        sink = [*as_nobody, str(program("smtp-sink")), f"inet:127.0.0.1:{BACKEND}", "100"]
        stack.callback(Process(there.command(*sink), folder / "sink").stop)
        both = []
        for machine, name, settings in (
            (there, "receiver", receiver(cert, key)),
            (here, "smarthost", smarthost()),
        ):
            both.append(Running(machine, folder / f"{name}.yaml", settings))
            stack.callback(both[-1].process.stop)
        for one in both:
            one.wait()
        wait_for(lambda: _listens(there, BACKEND), "the backend to listen", STARTING)
        made = Line(here, there, both[1], both[0])
        stack.callback(made.cable.close)
        yield made
