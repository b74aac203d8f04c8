"""A small DNS server with invented names, for tests: in threads of the test's process, or as a program of its own.

    with DnsServer({"example.org": {"MX": ["10 mx.example.org."]}, "mx.example.org": {"A": ["127.0.0.2"]}}) as server:
        ...  # server.address, server.port

    python tests/dnsserver.py --port 5353 zones.json

It answers as a resolver does, whole chains of CNAMEs at a time, by UDP and TCP.  A zone is plain data:

- ``{"example.org": {"MX": ["10 mx.example.org."], "A": ["192.0.2.1"], "CNAME": ["other.example.org."]}}``: records as
  in a zone file, with absolute names; any type that dnspython knows;
- ``"ttl": 60`` beside them for these records; ``"secure": True``: DNSSEC has found them in order, so AD is set if the
  whole chain is secure and the client asked for it;
- instead of a list, or of all that stands at a name, a word for what goes wrong: ``"SERVFAIL"``, ``"REFUSED"``, or
  ``"TIMEOUT"`` for no answer at all.

Names not listed do not exist, but for those between listed ones (RFC 8020).  What does not exist in a zone whose listed
part above says ``"secure": True`` is securely not there.  ``server.zones`` may be changed at any time;
``server.asked`` has the questions that came: name without final dot, type, "udp" or "tcp".
"""

from __future__ import annotations

import argparse
import json
import socket
import socketserver
import struct
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Records = Sequence[str] | str
Zones = Mapping[str, Mapping[str, Any] | str]

_TTL: Final = 300
_SETTINGS: Final = {"ttl", "secure"}
_LONGEST_CHAIN: Final = 8
_WITHOUT_EDNS: Final = 512


class DnsServer:
    """The server; listens from the beginning of ``with`` to its end."""

    def __init__(
        self,
        zones: Zones,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        negative_ttl: int = 60,
        always_ad: bool = False,
    ) -> None:
        """``port``: 0 for any free one; ``negative_ttl``: that of the SOA records; -1 for none.

        ``always_ad``: says AD of all that is secure, whether it was asked for that or not.
        """
        self.zones: dict[str, Mapping[str, Any] | str] = dict(zones)
        self.asked: list[tuple[str, str, str]] = []
        self.address = address
        self.port = port
        self._negative_ttl = negative_ttl
        self._always_ad = always_ad
        self._servers: list[socketserver.BaseServer] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.port = self._listen()
        for server in self._servers:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> int:
        """The same port for both, which may need a few tries."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        udp_kind = type("Udp", (_UdpServer,), {"address_family": family})
        tcp_kind = type("Tcp", (_TcpServer,), {"address_family": family})
        for _ in range(50):
            udp = udp_kind((self.address, self.port), _Udp)
            port: int = udp.server_address[1]
            try:
                tcp = tcp_kind((self.address, port), _Tcp)
            except OSError:
                udp.server_close()
                if self.port:
                    raise
                continue
            udp.answer_to = tcp.answer_to = self.answer_to
            self._servers = [udp, tcp]
            return port
        raise RuntimeError("no port is free")

    def answer_to(self, wire: bytes, by: str) -> bytes | None:
        """Give the reply to a question; None for no reply."""
        try:
            question = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        asked = question.question[0]
        kind = dns.rdatatype.to_text(asked.rdtype)
        self.asked.append((_text(asked.name), kind, by))
        reply = self._reply(question, asked.name, kind)
        if reply is None:
            return None
        most = 65535 if by == "tcp" else max(question.payload, _WITHOUT_EDNS) if question.edns >= 0 else _WITHOUT_EDNS
        try:
            return reply.to_wire(max_size=most, want_shuffle=False)
        except dns.exception.TooBig:
            short = dns.message.make_response(question, recursion_available=True)
            short.flags |= dns.flags.TC
            return short.to_wire()

    def _reply(self, question: dns.message.Message, name: dns.name.Name, kind: str) -> dns.message.Message | None:
        reply = dns.message.make_response(question, recursion_available=True)
        secure = True
        for _ in range(_LONGEST_CHAIN):
            here = self.zones.get(_text(name), {})
            records: Records = here if isinstance(here, str) else here.get(kind, here.get("CNAME", ()))
            if isinstance(records, str):
                return _trouble(reply, records)
            secure = secure and self._is_secure(name)
            is_alias = bool(records) and kind not in here and "CNAME" in here
            if not records:
                self._nothing(reply, name)
                break
            ttl = here.get("ttl", _TTL) if isinstance(here, Mapping) else _TTL
            found = dns.rrset.from_text_list(name, ttl, "IN", "CNAME" if is_alias else kind, list(records))
            reply.answer.append(found)
            if not is_alias:
                break
            name = found[0].target
        if secure and (self._always_ad or question.flags & dns.flags.AD or question.ednsflags & dns.flags.DO):
            reply.flags |= dns.flags.AD
        return reply

    def _nothing(self, reply: dns.message.Message, name: dns.name.Name) -> None:
        """No such records, or no such name."""
        text = _text(name)
        if text not in self.zones and not any(other.endswith(f".{text}") for other in self.zones):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        if self._negative_ttl >= 0:
            zone = name if name == dns.name.root else name.parent()
            soa = f"ns.invalid. hostmaster.invalid. 1 3600 900 604800 {self._negative_ttl}"
            reply.authority.append(dns.rrset.from_text(zone, _TTL * 1000, "IN", "SOA", soa))

    def _is_secure(self, name: dns.name.Name) -> bool:
        """What the nearest name says that is listed."""
        while name != dns.name.root:
            here = self.zones.get(_text(name))
            if here is not None:
                return isinstance(here, Mapping) and bool(here.get("secure"))
            name = name.parent()
        return False


class _UdpServer(socketserver.ThreadingUDPServer):
    daemon_threads = True
    answer_to: Any


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    answer_to: Any


class _Udp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        wire, sock = self.request
        reply = self.server.answer_to(wire, "udp")  # type: ignore[attr-defined]  # of the classes above
        if reply is not None:
            sock.sendto(reply, self.client_address)


class _Tcp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while len(length := self.rfile.read(2)) == 2:
            wire = self.rfile.read(struct.unpack("!H", length)[0])
            reply = self.server.answer_to(wire, "tcp")  # type: ignore[attr-defined]  # of the classes above
            if reply is None:
                return
            self.wfile.write(struct.pack("!H", len(reply)) + reply)


def _trouble(reply: dns.message.Message, word: str) -> dns.message.Message | None:
    if word == "TIMEOUT":
        return None
    reply.set_rcode(dns.rcode.from_text(word))
    return reply


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def main() -> None:
    """Serve the zones of a file until killed; the first line of the output has the port."""
    arguments = argparse.ArgumentParser(description="a DNS server with invented names")
    arguments.add_argument("--address", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("zones", help="a JSON file")
    given = arguments.parse_args()
    zones = json.loads(Path(given.zones).read_text(encoding="utf-8"))
    with DnsServer(zones, address=given.address, port=given.port) as server:
        print(server.port, flush=True)  # noqa: T201  # whoever started it reads this
        threading.Event().wait()


if __name__ == "__main__":
    main()
