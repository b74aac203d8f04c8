"""Listening sockets: how they are made, and how clients are accepted from them, many per wake-up."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory
from zope.interface import implementer

from . import fastopen
from .gate import ProxyGate
from .refusal import refusal
from .transparent import make_transparent
from .transport import LeanTransport

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from smtpproxy.config import Endpoint

    from .clientcontext import ClientContext
    from .inherited import Inherited

_ACCEPTS_PER_TURN: Final = 64
_PAUSE_WITHOUT_DESCRIPTORS: Final = 1.0
_OUT_OF_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def open_socket(
    endpoint: Endpoint, backlog: int, inherited: Inherited, *, fast_open: int = 0, foreign: bool = False
) -> socket.socket:
    """Give a listening socket, not blocking. Raises OSError.

    ``fast_open``: how many clients may wait that sent data in their SYN (RFC 7413); ``foreign``: take connections to
    addresses that are not ours (TPROXY).
    """
    if endpoint.kind == "systemd":
        sock = inherited.take(endpoint.path)
    elif endpoint.kind == "unix":
        sock = _unix_socket(endpoint.path)
    else:
        sock = _tcp_socket(endpoint, foreign=foreign)
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        # Accepted sockets inherit it, which saves a system call for each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if fast_open:
            fastopen.enable(sock, fast_open)
    sock.listen(backlog)
    return sock


def adapt(sock: socket.socket, *, fast_open: int, foreign: bool) -> None:
    """Let a listening socket do what ``open_socket`` was not asked for when it was made. Raises OSError."""
    if sock.family == socket.AF_UNIX:
        return
    fastopen.enable(sock, fast_open)
    if foreign:
        make_transparent(sock)


def _tcp_socket(endpoint: Endpoint, *, foreign: bool) -> socket.socket:
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # So that 0.0.0.0 and [::] can stand side by side.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if foreign:
            make_transparent(sock)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _unix_socket(path: str) -> socket.socket:
    _remove_dead(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_dead(path: str) -> None:
    """Remove a socket file that a process left behind which is no more."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Where it is alive and its queue is full, that must not hold us up.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            return


def client_address(peer: Any) -> str:
    """Give the address of a client as text: IPv4-mapped ones as IPv4; empty for a Unix socket."""
    if not isinstance(peer, tuple):
        return ""
    host: str = peer[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host


@implementer(IReadDescriptor)
class LeanPort:
    """A listening socket whose clients get lean transports."""

    def __init__(self, reactor: Any, sock: socket.socket, context: ClientContext) -> None:
        self._reactor = reactor
        self._socket = sock
        self._family = int(sock.family)
        self.context = context
        """What new sessions begin with; a reload puts another one here."""

    def start(self) -> None:
        """Begin to accept."""
        self._reactor.addReader(self)

    def adapt(self, *, fast_open: int, foreign: bool) -> None:
        """Listen as another reading of the configuration says; as ``open_socket``. Raises OSError."""
        adapt(self._socket, fast_open=fast_open, foreign=foreign)

    def stop(self) -> None:
        """Accept no more and close the socket."""
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()

    def doRead(self) -> None:
        """Accept all that are waiting, up to a bound: the ones accepted before want to be served too."""
        listening, family = self._socket, self._family
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                # What socket.accept() does, less its detour by way of enumerations.
                descriptor, peer = listening._accept()  # type: ignore[attr-defined]  # noqa: SLF001  # the same
            except OSError as problem:
                if problem.errno in _OUT_OF_DESCRIPTORS:
                    self._rest(problem)
                # Else nobody is waiting, or the one who was has gone: accept(2) names a dozen ways to say so.
                return
            sock = socket.socket(family, socket.SOCK_STREAM, 0, descriptor)
            sock.setblocking(False)
            transport = LeanTransport(self._reactor, sock, peer)
            transport.start(session_for(self.context, client_address(peer)))

    def _rest(self, problem: OSError) -> None:
        """Leave clients in the queue of the kernel for a while: there is no room for them here."""
        self.context.journal.session_refused(self.context.settings.name, None, problem.strerror or str(problem))
        self._reactor.removeReader(self)
        self._reactor.callLater(_PAUSE_WITHOUT_DESCRIPTORS, self._accept_again)

    def _accept_again(self) -> None:
        if self._socket.fileno() >= 0:
            self._reactor.addReader(self)

    def fileno(self) -> int:
        """Give the descriptor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Name this socket in Twisted's log."""
        return f"listener {self.context.settings.name}"

    def connectionLost(self, _reason: Any) -> None:
        """Hear from the reactor that the socket is of no use any more."""
        self.stop()


class StockPort:
    """The same with Twisted's own port and transports."""

    def __init__(self, reactor: Any, sock: socket.socket, context: ClientContext) -> None:
        self._reactor = reactor
        self._socket = sock
        self._port: Any = None
        self.context = context

    def start(self) -> None:
        """Begin to accept."""
        factory = _StockFactory(self)
        self._port = self._reactor.adoptStreamPort(self._socket.fileno(), self._socket.family, factory)
        self._socket.close()

    def adapt(self, *, fast_open: int, foreign: bool) -> None:
        """Listen as another reading of the configuration says; as ``open_socket``. Raises OSError."""
        if self._port is not None:
            adapt(self._port.socket, fast_open=fast_open, foreign=foreign)

    def stop(self) -> None:
        """Accept no more and close the socket."""
        if self._port is not None:
            port, self._port = self._port, None
            port.stopListening()


class _StockFactory(Factory):
    noisy = False

    def __init__(self, port: StockPort) -> None:
        self._port = port

    def buildProtocol(self, addr: IAddress | None) -> Any:
        host = getattr(addr, "host", None)
        return session_for(self._port.context, client_address((host,)) if host else "")


def session_for(context: ClientContext, address: str) -> Any:
    """Give the protocol for a new client: a session, or a refusal where there is no room (421).

    Where a PROXY header may come first, it is read before there is a session.
    """
    if context.settings.proxy_protocol != "off":
        if address in context.settings.trusted.proxy_protocol:
            why = context.admit("")
            return refusal(context, address, why) if why else ProxyGate(context, address)
        if context.settings.proxy_protocol == "required":
            return refusal(context, address, "not allowed to connect")
    if denied := context.may_connect(address):
        return refusal(context, address, denied, for_good=True)
    # Who speaks for many is not one client (rule H6).
    counted = "" if context.trusts(address) else address
    why = context.admit(counted)
    return refusal(context, address, why) if why else context.session(address, counted)
