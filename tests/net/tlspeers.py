"""TLS in memory: two connections that talk to each other without a socket, and who is told of certificates."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from OpenSSL import SSL

from smtpproxy.config import BackendTls, ListenerTls
from smtpproxy.net.tlsclient import ClientTls
from smtpproxy.net.tlsfacts import TlsFacts, facts_of
from smtpproxy.net.tlsserver import ServerTls


class Report:
    """A TlsReport that writes down; what is told is a tuple of the function's name and its arguments."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def certificate_loaded(self, owner: str, cert_path: str, names: Sequence[str], not_after: datetime) -> None:
        self.told.append(("loaded", owner, cert_path, tuple(names), not_after))

    def certificate_refused(self, owner: str, cert_path: str, why: str) -> None:
        self.told.append(("refused", owner, cert_path, why))

    def certificate_expires(self, owner: str, cert_path: str, not_after: datetime, days: int) -> None:
        self.told.append(("expires", owner, cert_path, not_after, days))

    def tls_profile_old(self, owner: str) -> None:
        self.told.append(("old", owner))

    def take(self, *kinds: str) -> list[tuple[Any, ...]]:
        """What was told, of these kinds or of all; then forget everything."""
        told, self.told = self.told, []
        return [each for each in told if not kinds or each[0] in kinds]


def now() -> datetime:
    return datetime.now(UTC)


def days_from_now(days: int) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + timedelta(days=days)


def listener_tls(*pairs: Any, **settings: Any) -> ListenerTls:
    """Settings with the files of some pairs."""
    certificates = [{"cert": str(pair.cert), "key": str(pair.key)} for pair in pairs]
    return ListenerTls.model_validate({"mode": "starttls", "certificates": certificates, **settings})


def server_tls(
    *pairs: Any, report: Report | None = None, before: ServerTls | None = None, **settings: Any
) -> ServerTls:
    return ServerTls(listener_tls(*pairs, **settings), "listener mx", report or Report(), now, before)


def client_tls(*, report: Report | None = None, **settings: Any) -> ClientTls:
    return ClientTls(BackendTls.model_validate(settings), "backend legacy", report or Report(), now)


def a_client(
    *,
    versions: tuple[int, int] = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION),
    ciphers: bytes = b"",
    alpn: Sequence[bytes] = (),
    certificate: Any = None,
) -> SSL.Context:
    """The context of a client that believes every server; ``certificate`` is what it shows itself."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(versions[0])
    context.set_max_proto_version(versions[1])
    if ciphers:
        context.set_cipher_list(ciphers)
    if alpn:
        context.set_alpn_protos(list(alpn))
    if certificate is not None:
        context.use_certificate_chain_file(str(certificate.cert))
        context.use_privatekey(certificate.private)
    return context


def a_connection(context: SSL.Context, name: bytes = b"", session: SSL.Session | None = None) -> SSL.Connection:
    connection = SSL.Connection(context)
    connection.set_connect_state()
    if name:
        connection.set_tlsext_host_name(name)
    if session is not None:
        connection.set_session(session)
    return connection


def carry(source: SSL.Connection, target: SSL.Connection) -> bytes:
    """Take what one side has to send to the other; give it."""
    sent = b""
    while True:
        try:
            sent += source.bio_read(65536)
        except SSL.WantReadError:
            break
    if sent:
        target.bio_write(sent)
    return sent


def shake(client: SSL.Connection, server: SSL.Connection) -> None:
    """Do the handshake; raises what either side raises, after its alert has been carried to the other."""
    steps = ((client, server), (server, client))
    done = set[int]()
    for _ in range(20):
        moved = False
        for number, (one, other) in enumerate(steps):
            try:
                one.do_handshake()
                done.add(number)
            except SSL.WantReadError:
                pass
            finally:
                moved = bool(carry(one, other)) or moved
        if not moved and len(done) == len(steps):
            return
    raise AssertionError("the handshake does not end")


def say(sender: SSL.Connection, receiver: SSL.Connection, text: bytes) -> bytes:
    """Send a text; give what the other side reads. Session tickets come along."""
    sender.send(text)
    carry(sender, receiver)
    return receiver.recv(65536)


class Met:
    """What came of a handshake: both connections, the client's session for the next time, and the server's facts."""

    def __init__(self, client: SSL.Connection, server: SSL.Connection) -> None:
        self.client = client
        self.server = server
        self.facts: TlsFacts = facts_of(server)
        shown = client.get_peer_certificate(as_cryptography=True)
        assert shown is not None
        self.shown = shown
        self.chain = client.get_peer_cert_chain(as_cryptography=True) or []
        self.session = client.get_session()


def meet(
    tls: ServerTls, context: SSL.Context | None = None, name: bytes = b"", session: SSL.Session | None = None
) -> Met:
    """Let a client connect, have it read something, and leave as one should."""
    client = a_connection(context or a_client(), name, session)
    server = tls.connection()
    shake(client, server)
    assert say(server, client, b"220 hello\r\n") == b"220 hello\r\n"
    assert say(client, server, b"EHLO me\r\n") == b"EHLO me\r\n"
    met = Met(client, server)
    client.shutdown()
    return met


def meet_backend(tls: ClientTls, server: ServerTls, host: str = "mx.example.org") -> SSL.Connection:
    """Connect as a client, read something, remember the session, and go without a close_notify of either side."""
    client, other = tls.connection(host), server.connection()
    shake(client, other)
    assert say(other, client, b"220 hello\r\n") == b"220 hello\r\n"
    tls.remember(client, host)
    tls.ended(client)
    return client


def meet_and_judge(tls: ClientTls, server: ServerTls, host: str = "mx.example.org") -> str:
    return tls.judge(meet_backend(tls, server, host), host)
