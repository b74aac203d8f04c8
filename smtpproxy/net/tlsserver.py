"""TLS towards clients: the contexts of one listener, made of its settings and files, and renewed with the files.

A connection begins with a context that has no certificate. OpenSSL asks our callback in every handshake,
whether the client sends a name or not, and the callback sets the context with the certificates for that name.
The keys of session tickets belong to the first context, which stays when certificates change: so sessions can
be resumed after a renewal, and after a reload that changes nothing else of TLS. They cannot be set (pyOpenSSL
has no function for it), so a ticket is good for one process. Early data (0-RTT) is never accepted: OpenSSL
takes none unless it is told how much.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from OpenSSL import SSL

from smtpproxy.config import CertificatePair, ListenerTls

from .certificates import Authorities, Pair, TlsError, read_authorities, read_pair
from .tlsfacts import Seen, TlsFacts, Trust, facts_of, go_on, note, verify_error_of
from .tlsfiles import InUse, TlsReport
from .tlsnames import Choice
from .tlsprofiles import is_old, make_context

__all__ = ["ForeignProtocolError", "ServerTls", "TlsError", "TlsFacts", "TlsReport", "facts_of", "verify_error_of"]

_VERIFY: Final = {
    "ask": (SSL.VERIFY_PEER, go_on),
    "require": (SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, note),
}

_SESSION_ID_OCTETS: Final = 32  # as many as OpenSSL takes
_LONGEST_OFFER: Final = 100


class ForeignProtocolError(Exception):
    """A client offers names of protocols (ALPN), and none of them is ours.

    ``SSL.Connection.do_handshake`` raises it (``recv`` too, where that does the handshake). The fatal alert
    no_application_protocol (RFC 7301, 3.2) then waits in ``bio_read``.
    """


class _Front:
    """What is the same for every name: how contexts are made, and the first context, which has the ticket keys."""

    __slots__ = ("_authorities", "_session_id", "_settings", "_trust", "context", "policy")

    def __init__(self, policy: object, settings: ListenerTls, authorities: Authorities | None) -> None:
        """``policy``: what sessions depend on; with another one they must not be resumed. Raises TlsError."""
        self.policy = policy
        self._settings = settings
        self._authorities = authorities
        self._trust = Trust(always=settings.client_certificates.mode == "require")
        self._session_id = os.urandom(_SESSION_ID_OCTETS)
        self.context = self.make(())
        self.context.set_tlsext_servername_callback(_set_context)

    def make(self, pairs: tuple[Pair, ...]) -> SSL.Context:
        """Make the context with these certificates. Raises TlsError."""
        settings = self._settings
        context = make_context(SSL.TLS_SERVER_METHOD, settings)
        context.set_app_data(self._trust)
        context.set_alpn_select_callback(_protocol_chooser(settings.alpn))
        # A session is in its ticket; with certificates of clients OpenSSL demands to know whose sessions they are.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_session_id(self._session_id)
        if not settings.tickets:
            context.set_options(SSL.OP_NO_TICKET)
        mode = settings.client_certificates.mode
        if mode != "off":
            context.set_verify(*_VERIFY[mode])
        if self._authorities is not None:
            self._authorities.install(context)
            for certificate in self._authorities.certificates:
                context.add_client_ca(certificate)
        for pair in pairs:
            pair.install(context)
        return context


class _Parts(NamedTuple):
    """What one ServerTls has in use, as the next one wants to know it."""

    pairs: Sequence[InUse[Pair]]
    authorities: InUse[Authorities] | None
    front: _Front
    choice: Choice[SSL.Context]


class ServerTls:
    """TLS as one listener offers it. The app data of its connections and contexts is taken (``tlsfacts``)."""

    def __init__(
        self,
        settings: ListenerTls,
        owner: str,
        report: TlsReport,
        now: Callable[[], datetime],
        before: "ServerTls | None" = None,
    ) -> None:
        """Read every file; ``now`` gives the time with its zone; ``before`` is what served the listener until now.

        Raises TlsError if a file or a setting cannot be used. Of a file that ``before`` has in use and that
        cannot be used now, ``before``'s contents are used, and the report says why.
        """
        if not settings.certificates:
            raise TlsError("certificates", "none, but a server needs one")
        clients = settings.client_certificates
        self.logins: Mapping[str, str] = clients.logins
        """From fingerprints of clients' certificates to logins. Use ``login``: a fingerprint proves nothing alone."""
        self._settings = settings
        self._owner = owner
        self._report = report
        self._now = now
        make_context(SSL.TLS_SERVER_METHOD, settings)  # so that a bad setting is not taken for a bad certificate
        parts = None if before is None else before.parts
        self._authorities = None
        if clients.mode != "off" and clients.ca is not None:
            self._authorities = self._authorities_in_use(clients.ca, parts)
        self._pairs = [self._pair_in_use(files, parts) for files in settings.certificates]
        self.parts: _Parts = self._make_parts(parts)
        """For the next ServerTls only."""
        self._behind = False  # whether files are read that no context is made of yet
        if is_old(settings):
            report.tls_profile_old(owner)

    def connection(self) -> SSL.Connection:
        """Give a new connection on memory BIOs, as a server. ``do_handshake`` may raise ForeignProtocolError."""
        connection = SSL.Connection(self.parts.front.context)
        connection.set_app_data(Seen(self.parts.choice))
        connection.set_accept_state()
        return connection

    def login(self, facts: TlsFacts) -> str:
        """Give the login that the configuration maps the client's verified certificate to; "" if there is none."""
        return self.logins.get(facts.fingerprint, "") if facts.verified else ""

    def reread(self) -> None:
        """Look at the files. What changed and then stood still for one look is loaded, or refused and reported.

        Connections that exist keep what they have. Never raises for what is in the files.
        """
        changed = [pair.renew() for pair in self._pairs]
        if self._authorities is not None:
            changed.append(self._authorities.renew())
        if any(changed) or self._behind:
            try:
                self.parts = self._make_parts(self.parts)
            except TlsError as error:  # such as no room for a file; to be tried again
                self._behind = True
                self._report.certificate_refused(self._owner, error.path, error.why)
            else:
                self._behind = False

    def warn_of_expiry(self) -> None:
        """Report each certificate that has less than 14 days left, or has ended; CA files too."""
        now = self._now()
        for pair in self._pairs:
            pair.warn_of_expiry(now)
        if self._authorities is not None:
            self._authorities.warn_of_expiry(now)

    def _pair_in_use(self, files: CertificatePair, before: _Parts | None) -> InUse[Pair]:
        paths = (files.cert, files.key)
        known = [] if before is None else [pair.value for pair in before.pairs]
        fallback = next((pair for pair in known if (pair.path, pair.key_path) == paths), None)
        return InUse(paths, lambda: self._usable_pair(files), fallback, self._owner, self._report)

    def _authorities_in_use(self, path: Path, before: _Parts | None) -> InUse[Authorities]:
        known = None if before is None or before.authorities is None else before.authorities.value
        fallback = known if known is not None and known.path == path else None
        return InUse((path,), lambda: read_authorities(path), fallback, self._owner, self._report)

    def _usable_pair(self, files: CertificatePair) -> Pair:
        """Read a pair and try it: OpenSSL refuses what is too weak for the ciphers' level. Raises TlsError."""
        pair = read_pair(files.cert, files.key)
        pair.install(make_context(SSL.TLS_SERVER_METHOD, self._settings))
        return pair

    def _policy(self) -> object:
        """What sessions depend on: with another policy they must not be resumed."""
        authorities = None if self._authorities is None else self._authorities.value
        clients = self._settings.client_certificates
        kept = self._settings.model_dump(include={"profile", "versions", "ciphers", "ciphersuites", "tickets", "alpn"})
        return self._owner, kept, clients.mode, authorities

    def _make_parts(self, before: _Parts | None) -> _Parts:
        """Make the contexts that are not made already, with the same policy. Raises TlsError."""
        policy = self._policy()
        known: Mapping[tuple[Pair, ...], SSL.Context] = {}
        if before is not None and before.front.policy == policy:
            front, known = before.front, before.choice.made
        else:
            front = _Front(policy, self._settings, None if self._authorities is None else self._authorities.value)
        pairs = [pair.value for pair in self._pairs]
        choice = Choice(pairs, lambda chosen: known[chosen] if chosen in known else front.make(chosen))
        return _Parts(self._pairs, self._authorities, front, choice)


def _set_context(connection: SSL.Connection) -> None:
    """For the first context: set the one with the certificates. It never raises: that would end the handshake."""
    seen: Seen = connection.get_app_data()
    connection.set_context(seen.choice.find(connection.get_servername()))


def _protocol_chooser(names: Sequence[str]) -> Callable[[SSL.Connection, list[bytes]], bytes]:
    """For contexts: take the first of our names that the client offers. Not called if it offers none."""
    ours = [name.encode() for name in names]

    def choose(_connection: SSL.Connection, offered: list[bytes]) -> bytes:
        for name in ours:
            if name in offered:
                return name
        others = b", ".join(offered)[:_LONGEST_OFFER].decode("ascii", "backslashreplace")
        raise ForeignProtocolError(f"the client offers only other protocols (ALPN): {others}")

    return choose
