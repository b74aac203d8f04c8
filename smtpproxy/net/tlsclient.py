"""TLS towards a backend: who it must be, and sessions to resume.

The chain of its certificates is verified in the handshake (``verify: ca`` and ``name``), its name or its public
key after it, by ``judge``. A session is only resumed with the host that it comes from, and in the context of one
backend (``tlsoutgoing``); so it is never resumed under another policy, name or CA.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from OpenSSL import SSL

from smtpproxy.config import BackendTls

from .servernames import ask_for, misnamed, spki_pin
from .tlsfacts import Verified, note, verify_error_of
from .tlsfiles import TlsReport
from .tlsoutgoing import MOST_SESSIONS, OutgoingTls

__all__ = ["MOST_SESSIONS", "ClientTls", "spki_pin", "verify_error_of"]


# Ways to verify in which the chain has to lead to an authority.
_CHAIN: Final = frozenset({"ca", "name"})


class ClientTls(OutgoingTls):
    """TLS as it is spoken with one backend. The app data of its connections is taken (``verify_error_of``)."""

    def __init__(self, settings: BackendTls, owner: str, report: TlsReport, now: Callable[[], datetime]) -> None:
        """Read every file; ``now`` gives the time with its zone. Raises TlsError if something cannot be used."""
        self._settings = settings
        anchors = settings.ca if settings.verify in _CHAIN else None
        super().__init__(settings, owner, report, now, anchors=anchors, certificate=settings.certificate)

    def connection(self, host: str) -> SSL.Connection:
        """Give a new connection on memory BIOs, as a client.

        ``host`` is the server's name or address as the configuration has it. Its last session is resumed, if the
        server still takes it.
        """
        connection = SSL.Connection(self._context)
        connection.set_app_data(Verified())
        ask_for(connection, self._settings.sni or self._name(host))
        self._resume(connection, host)
        connection.set_connect_state()
        return connection

    def judge(self, connection: SSL.Connection, host: str) -> str:
        """After the handshake: "" if the server is who it should be, else why not, for the log."""
        try:
            why = self._objection(connection, host)
        except Exception as error:  # OpenSSL understands certificates that cryptography does not
            why = f"the certificate cannot be understood: {error}"
        if why:
            connection.get_app_data().error = why
        return why

    def _objection(self, connection: SSL.Connection, host: str) -> str:
        verify = self._settings.verify
        if verify == "none":
            return ""
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            return "the server shows no certificate"
        if verify == "pins":
            pin = spki_pin(certificate)
            return "" if pin in self._settings.pins else f"the public key {pin} is none of the pins"
        return "" if verify == "ca" else misnamed(certificate, self._name(host))

    def remember(self, connection: SSL.Connection, host: str) -> None:
        """Keep the session of a connection for the next one with ``host``, unless it was judged to be the wrong server.

        To be called when the first application data has come: TLS 1.3 sends its tickets behind the handshake.
        """
        if not verify_error_of(connection):
            self._keep(connection, host)

    def _make_context(self) -> SSL.Context:
        context = super()._make_context()
        if self._settings.verify in _CHAIN:
            context.set_verify(SSL.VERIFY_PEER, note)
        return context

    def _name(self, host: str) -> str:
        return self._settings.name or host.removesuffix(".")
