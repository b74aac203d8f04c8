"""What passes over the line, as line.c tells it, and the round trips that a delivery took.

A delivery begins with its SYN; one on a kept connection begins with the first octets that the client sends. It is
over when the server's reply to the end of mail data leaves the line at the near end. That reply is known by its length,
which also TLS shows: the remote's is padded (exim.py), and nothing else that a server says is as long but a
certificate, which comes before it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BenchError

REPLY_OCTETS = 400
"""The padded reply is longer than this; everything else behind the handshake of TLS is shorter."""


@dataclass(frozen=True)
class Packet:
    """A TCP packet: when it passed the near end of the line (ns), which way, and what it was."""

    when: int
    out: bool
    port: int
    flags: str
    octets: int


@dataclass(frozen=True)
class Delivery:
    """How long one delivery took, what its first packet was, and how many connections were opened meanwhile."""

    seconds: float
    kept: bool
    octets_in_syn: int
    opened: int


class Trace:
    """The packets of one line."""

    def __init__(self, log: Path) -> None:
        """Read the packets from the file that line.c writes."""
        self._log = log
        self._offset = 0
        self._rest = b""
        self._packets: list[Packet] = []

    def count(self) -> int:
        """How many packets have passed."""
        with self._log.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        self._offset += len(text)
        *lines, self._rest = (self._rest + text).split(b"\n")
        self._packets += [packet for line in lines if (packet := parse(line.decode())) is not None]
        return len(self._packets)

    def wait_for_silence(self, seconds: float, most: float) -> None:
        """Wait until nothing has passed for so long. Raises BenchError if that takes more than `most` seconds."""
        deadline = time.monotonic() + most
        while self.count() == 0 or time.monotonic_ns() - self._packets[-1].when < seconds * 1e9:
            if time.monotonic() > deadline:
                raise BenchError("the line does not fall silent")
            time.sleep(seconds / 10)

    def delivery(self, begun: int) -> Delivery:
        """The one delivery among the packets behind the first `begun`. Raises BenchError if there is none."""
        self.count()
        packets = self._packets[begun:]
        long = [packet for packet in packets if not packet.out and packet.octets >= REPLY_OCTETS]
        if not long:
            raise BenchError("no reply to the end of mail data has come back over the line")
        reply = long[-1]
        sent = [packet for packet in packets if packet.out and packet.port == reply.port]
        first = next(packet for packet in sent if packet.octets > 0 or "S" in packet.flags)
        kept = "S" not in first.flags
        opened = {packet.port for packet in packets if packet.out and "S" in packet.flags}
        return Delivery((reply.when - first.when) / 1e9, kept, 0 if kept else first.octets, len(opened))


def parse(line: str) -> Packet | None:
    """Read one line of line.c; None for its first, which only says that it is ready."""
    fields = line.split()
    if len(fields) != 6:
        return None
    when, direction, port, _, flags, octets = fields
    return Packet(int(when), direction == ">", int(port), flags, int(octets))
