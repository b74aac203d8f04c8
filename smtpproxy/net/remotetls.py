"""TLS with the remotes of a route: what each of them has to prove, and sessions to resume.

What is demanded differs from target to target (``Security``), the context does not. The chain of certificates is
verified in the handshake: where it has to be right, the handshake fails; where nothing has to be proved, what came of
it is only noted for the log. Public keys, TLSA records and names are judged after it, in resumed sessions too: they
have the certificates of the handshake that they come from.

A session is only resumed where address, port and everything that is demanded are the same (rule C15), and only if its
first connection was judged and found right; so none that was begun under a weaker policy ever counts as verified. TLS
early data (0-RTT) is never sent: OpenSSL does that only when asked to (rule C10).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from OpenSSL import SSL

from . import dane
from .security import Security, security_by_route
from .servernames import ask_for, misnamed_all, spki_pin
from .tlsfacts import Verified, note, verify_error_of
from .tlsoutgoing import OutgoingTls

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from OpenSSL.crypto import X509

    from smtpproxy.config import RemoteTls as Settings
    from smtpproxy.session.outbound.target import Target

    from .tlsfiles import TlsReport

__all__ = ["RemoteTls", "Security", "TlsVerdict"]


class TlsVerdict(NamedTuple):
    """What a handshake has shown of a remote, for the log and the status of a session."""

    policy: str
    """Whose rule was applied: ``route``, ``dane`` or ``mta-sts``."""
    verified: bool
    """Whether the remote has proved who it is, demanded or not."""
    why: str
    """Why not; "" if it has."""
    note: str = ""
    """More for the log; "" mostly."""

    def describe(self) -> str:
        """Give a line for a person, such as ``dane: verified``."""
        told = f"{self.policy}: verified" if self.verified else f"{self.policy}: not verified ({self.why})"
        return f"{told}; {self.note}" if self.note else told


class _Judged(Verified):
    """What is known of the remote at the other end of a connection: its app data."""

    __slots__ = ("_earlier", "noted", "policy", "verdict")

    def __init__(self, policy: str, earlier: str | None) -> None:
        """``policy``: whose rule is applied; ``earlier``: what was noted with the session to be resumed, if any."""
        super().__init__()
        self.policy = policy
        self._earlier = earlier
        self.noted: str | None = None
        """Why the chain is not verified, where it need not be; "" if it is; None if this handshake had no chain."""
        self.verdict: TlsVerdict | None = None

    @property
    def chain_error(self) -> str:
        """Why the chain is not verified, in this handshake or in that of the session that was resumed."""
        known = self._earlier if self.noted is None else self.noted
        return "nobody has looked at the certificates" if known is None else known


class RemoteTls(OutgoingTls):
    """TLS as it is spoken with the remotes of one route."""

    def __init__(self, settings: Settings, owner: str, report: TlsReport, now: Callable[[], datetime]) -> None:
        """Read every file; ``now`` gives the time with its zone. Raises TlsError if something cannot be used.

        ``owner`` is such as ``route example.org``.
        """
        self._settings = settings
        super().__init__(settings, owner, report, now, anchors=settings.ca, certificate=settings.certificate)

    def connection(self, target: Target) -> SSL.Connection:
        """Give a new connection on memory BIOs, as a client; a session with this target is resumed if there is one."""
        security = self.security(target)
        connection = SSL.Connection(self._context)
        if security.proof == "pkix":
            connection.set_verify(SSL.VERIFY_PEER, note)
        elif security.proof == "nothing":
            connection.set_verify(SSL.VERIFY_PEER, _note_and_go_on)
        ask_for(connection, security.sni)
        earlier = self._resume(connection, _session_key(target, security))
        connection.set_app_data(_Judged(security.policy, earlier))
        connection.set_connect_state()
        return connection

    def judge(self, connection: SSL.Connection, target: Target) -> str:
        """After the handshake: "" if the remote has proved what it has to, else why not, for the log."""
        security = self.security(target)
        judged: _Judged = connection.get_app_data()
        check = self._noted if security.proof == "nothing" else self._objection
        try:
            why = check(connection, security)
        except Exception as error:  # OpenSSL understands certificates that cryptography does not
            why = f"the certificate cannot be understood: {error}"
        judged.verdict = TlsVerdict(security.policy, not why, why, security.note)
        if security.proof == "nothing":
            return ""
        if why:
            judged.error = why
        return why

    def verdict(self, connection: SSL.Connection) -> TlsVerdict:
        """Give what ``judge`` has found, or why the handshake has failed, for the log."""
        judged: _Judged = connection.get_app_data()
        return judged.verdict or TlsVerdict(judged.policy, verified=False, why=judged.error or "no handshake")

    def security(self, target: Target) -> Security:
        """Give what is demanded of a target: what its own ``security`` says, else the route."""
        security = target.security
        return security if isinstance(security, Security) else security_by_route(self._settings, target.host)

    def remember(self, connection: SSL.Connection, target: Target) -> None:
        """Keep the session of a connection for the next one with the target, unless it was judged to be wrong.

        To be called when the first application data has come: TLS 1.3 sends its tickets behind the handshake.
        """
        judged: _Judged = connection.get_app_data()
        if judged.verdict is not None and not verify_error_of(connection):
            self._keep(connection, _session_key(target, self.security(target)), judged.chain_error)

    def _objection(self, connection: SSL.Connection, security: Security) -> str:
        """Say what the remote has not proved; "" if it has proved everything."""
        if security.proof == "dane":
            chain = connection.get_peer_cert_chain(as_cryptography=True) or []
            return dane.objection(chain, security.tlsa, security.names, self._now())
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            return "the server shows no certificate"
        if security.proof == "pins":
            pin = spki_pin(certificate)
            return "" if pin in self._settings.pins else f"the public key {pin} is none of the pins"
        return misnamed_all(certificate, security.names)

    def _noted(self, connection: SSL.Connection, security: Security) -> str:
        """Say what the remote would not have proved if it had had to."""
        judged: _Judged = connection.get_app_data()
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            return "the server shows no certificate"
        return judged.chain_error or misnamed_all(certificate, security.names)


def _session_key(target: Target, security: Security) -> tuple[str, int, Security]:
    """Name and policy are in the security; the authorities and our own certificate belong to the whole RemoteTls."""
    return target.address, target.port, security


def _note_and_go_on(connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
    """Write down the first error of a certificate, where it is not the reason for anything; never raises."""
    note(connection, certificate, error, depth, ok)
    judged: Any = connection.get_app_data()
    judged.noted, judged.error = judged.noted or judged.error, None
    return True
