"""A client, a submission and model remotes, with a network in between that carries octets until nothing moves."""

from __future__ import annotations

from collections.abc import Callable

from smtpproxy.smtp.replies import ReplyReader

from .owner import Connection, Output, Owner
from .server import Server
from .setup import Setup

STEPS = 400


class World:
    """Everything there is. What the client says is answered before it says more, or the session hangs."""

    def __init__(
        self, setup: Setup, serve: Callable[[Connection], Server], *, together: bool = True, tls_fails: int = 0
    ) -> None:
        """``serve`` makes the server of a connection; ``together``: its replies come in as few packets as possible.

        ``tls_fails``: how many handshakes with remotes come to nothing.
        """
        self.owner = Owner(setup)
        self.servers: dict[int, Server] = {}
        self._serve = serve
        self._together = together
        self._tls_fails = tls_fails
        self._reader = ReplyReader()
        self._replies: list[bytes] = []
        self._do(self.owner.start())
        self.run()

    # --- the client --------------------------------------------------------------------------------------------------

    def say(self, data: bytes, replies: int) -> list[bytes]:
        """Send as the client, and wait for so many replies; there must be no other."""
        self._do(self.owner.client_sends(data))
        return self.hear(replies)

    def hear(self, replies: int) -> list[bytes]:
        """Wait for so many replies; there must be no other."""
        self.run()
        heard, self._replies = self._replies, []
        assert len(heard) >= replies, f"S3: hangs, {len(heard)} replies of {replies}: {heard}"
        assert len(heard) == replies, f"S3: {len(heard)} replies, not {replies}: {heard}"
        return heard

    def _do(self, output: Output) -> None:
        self._replies += [reply.raw for reply in self._reader.receive(output.client)]
        assert not self._reader.fault, output.client

    # --- the network -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Carry octets until nothing moves any more, and then let time pass for those who are silent."""
        for _ in range(STEPS):
            moved = [self._carry(connection) for connection in self.owner.connections]
            if not (any(moved) or self._time_passes()):
                return
        raise AssertionError("it never ends")

    def _time_passes(self) -> bool:
        if self.owner.probing:
            self._do(self.owner.tell(self.owner.submission.client_quiet, 0.0))
            return True
        for connection in self.owner.connections:
            server = self.servers[connection.number]
            if connection.open and connection.delivery is not None and server.silent:
                server.closed = True
                self._do(self.owner.remote_lost(connection.number))
                return True
        return False

    def _carry(self, connection: Connection) -> bool:
        server = self.servers.get(connection.number)
        if server is None:
            server = self.servers[connection.number] = self._serve(connection)
        if not connection.open:
            data, connection.stream = b"".join(connection.stream), []
            if data and server.greeted and not server.closed:
                server.receive(data)
            return False
        if connection.handshaking:
            self._handshake(connection, server)
            return True
        if connection.stream:
            data, connection.stream = b"".join(connection.stream), []
            server.receive(data[: self._handed_over(connection, server)])
            return True
        if not server.greeted:
            server.greet()
            return True
        return self._answer(connection, server)

    @staticmethod
    def _handed_over(connection: Connection, server: Server) -> int | None:
        position = connection.remote.data_position
        if server.fault.kind != "unhanded" or position is None:
            return None
        server.silent = server.stops = True
        return max(0, position - server.received)

    def _handshake(self, connection: Connection, server: Server) -> None:
        if self._tls_fails:
            self._tls_fails -= 1
            self._do(self.owner.remote_lost(connection.number, tls=True))
            return
        if not server.implicit:
            server.inside_tls()
        self._do(self.owner.remote_inside_tls(connection.number))

    def _answer(self, connection: Connection, server: Server) -> bool:
        number = connection.number
        if server.stops and (not server.replies or server.given_count >= server.fault.at):
            server.closed = True
            self._do(self.owner.remote_lost(number, handed=False))
            return True
        if server.replies:
            size = len(server.replies) if self._together and not server.stops else 1
            leaving, server.replies = server.replies[:size], server.replies[size:]
            for verb, reply in leaving:
                server.given(verb, reply)
            self._do(self.owner.remote_sends(number, b"".join(reply for _, reply in leaving)))
            return True
        if server.lost and not server.closed:
            server.closed = True
            self._do(self.owner.remote_lost(number))
            return True
        return False
