"""A listener for redirected connections that carries octets: what `transparent` does with sockets, less the mail.

    python transparent_standin.py FILE

FILE: a configuration with one transparent listener.  Each connection is written to standard output: its client and its
destination, or why it got 421.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
from pathlib import Path

from smtpproxy.config import OutboundListener
from smtpproxy.config.load import parse
from smtpproxy.net.dialling import begin, remote_socket
from smtpproxy.net.ownaddresses import OwnAddresses
from smtpproxy.net.transparent import Destination, OwnConnections, end_of, make_transparent, original_destination


class Carrier:
    """All that the connections of a listener share."""

    def __init__(self, settings: OutboundListener) -> None:
        self.settings = settings
        self.listening = [self.listen(endpoint.host, endpoint.port) for endpoint in settings.listen]
        self.own_addresses = OwnAddresses([end_of(sock.getsockname()) for sock in self.listening])
        self.own_connections = OwnConnections()
        self.lock = threading.Lock()

    def listen(self, host: str, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if self.settings.transparent == "tproxy":
            make_transparent(sock)
        sock.bind((host, port))
        sock.listen()
        return sock

    def accept(self, listening: socket.socket) -> None:
        while True:
            sock, name = listening.accept()
            threading.Thread(target=self.serve, args=(sock, name), daemon=True).start()

    def serve(self, sock: socket.socket, name: tuple[str, int]) -> None:
        assert self.settings.transparent != "off"
        destination, peer = original_destination(sock, self.settings.transparent), end_of(name)
        why = ""
        with self.lock:
            came_back = self.own_connections.has(peer, destination)
        if came_back or self.own_addresses(*destination):
            why = "it would come back"
        elif peer.address not in self.settings.relay_from:
            why = "not allowed"
        sys.stdout.write(f"{peer.address} {destination.address} {destination.port} {why}\n")
        sys.stdout.flush()
        with sock:
            if why:
                sock.sendall(b"421 4.3.0 %s\r\n" % why.encode())
            else:
                self.carry(sock, destination)

    def carry(self, client: socket.socket, destination: Destination) -> None:
        family = socket.AF_INET6 if ":" in destination.address else socket.AF_INET
        with remote_socket(family, source="", mark=self.settings.mark, fast_open=False) as remote:
            with self.lock:  # the other end may be accepted before we know of this one
                begin(remote, destination)
                ends = self.own_connections.add(remote, destination)
            select.select([], [remote], [])
            remote.settimeout(None)
            back = threading.Thread(target=copy, args=(remote, client), daemon=True)
            back.start()
            copy(client, remote)
            back.join()
            self.own_connections.discard(ends)


def copy(one: socket.socket, other: socket.socket) -> None:
    """Carry octets one way until the end."""
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


def main() -> None:
    """Serve until somebody ends it."""
    (settings,) = parse(sys.argv[1], Path(sys.argv[1]).read_text(encoding="ascii")).listeners
    assert isinstance(settings, OutboundListener)
    carrier = Carrier(settings)
    threads = [threading.Thread(target=carrier.accept, args=(sock,), daemon=True) for sock in carrier.listening]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
