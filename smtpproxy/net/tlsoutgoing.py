"""TLS as a client, towards backends and remotes: one context, the files that it is made of, sessions to resume.

Whom to believe is decided by the classes that build upon it: ``ClientTls`` for a backend, ``RemoteTls`` for the
remotes of a route. One context serves all connections of either, because a session may only be resumed in the
context that it comes from; so it is never resumed under other authorities or another certificate of ours.
"""

from collections.abc import Callable, Hashable
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from OpenSSL import SSL

from smtpproxy.config import CertificatePair, Protection

from .certificates import Authorities, Pair, TlsError, read_authorities, read_pair
from .tlsfiles import InUse, TlsReport
from .tlsprofiles import is_old, make_context

__all__ = ["MOST_SESSIONS", "OutgoingTls"]

MOST_SESSIONS: Final = 1000
"""Servers of one backend or one route whose last session is remembered."""


class OutgoingTls:
    """A context, its files, and sessions. The app data of its connections is taken (``verify_error_of``)."""

    def __init__(
        self,
        settings: Protection,
        owner: str,
        report: TlsReport,
        now: Callable[[], datetime],
        *,
        anchors: Path | Literal["system"] | None,
        certificate: CertificatePair | None,
    ) -> None:
        """Read every file; ``now`` gives the time with its zone. Raises TlsError if something cannot be used.

        ``anchors``: who is believed: the system's authorities, those of a file, or nobody, where no chain is verified.
        ``certificate``: our own.
        """
        self._protection = settings
        self._owner = owner
        self._report = report
        self._now = now
        self._behind = False  # whether files are read that the context is not made of yet
        self._sessions: dict[Hashable, tuple[SSL.Session, str]] = {}
        make_context(SSL.TLS_CLIENT_METHOD, settings)  # so that a bad setting is not taken for a bad certificate
        self._anchors = anchors
        self._authorities: InUse[Authorities] | None = None
        if isinstance(anchors, Path):
            self._authorities = InUse((anchors,), lambda: read_authorities(anchors), None, owner, report)
        self._pair: InUse[Pair] | None = None
        if certificate is not None:
            files = certificate
            self._pair = InUse((files.cert, files.key), lambda: self._usable_pair(files), None, owner, report)
        self._context = self._make_context()
        if is_old(settings):
            report.tls_profile_old(owner)

    def ended(self, connection: SSL.Connection) -> None:
        """To be called when a connection is over, however it ended, unless it has failed.

        Without a close_notify of either side OpenSSL takes the session for spoiled and does not resume it. That
        was a rule of TLS 1.0, which TLS 1.1 dropped (RFC 4346, 7.2.1), and SMTP servers often just close.
        """
        connection.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)

    def reread(self) -> None:
        """Look at the files, as ServerTls does. After a change no session is resumed that began before it."""
        changed = [file.renew() for file in (self._authorities, self._pair) if file is not None]
        if any(changed) or self._behind:
            try:
                self._context = self._make_context()
            except TlsError as error:  # such as no room for a file; to be tried again
                self._behind = True
                self._report.certificate_refused(self._owner, error.path, error.why)
            else:
                self._behind = False
                self._sessions.clear()

    def warn_of_expiry(self) -> None:
        """Report our own certificate and the CA file, if they have less than 14 days left, or have ended."""
        now = self._now()
        for file in (self._authorities, self._pair):
            if file is not None:
                file.warn_of_expiry(now)

    def _resume(self, connection: SSL.Connection, key: Hashable) -> str | None:
        """Offer the last session with a server; give what was noted with it, None if there is none."""
        kept = self._sessions.get(key)
        if kept is None:
            return None
        session, note = kept
        connection.set_session(session)
        return note

    def _keep(self, connection: SSL.Connection, key: Hashable, note: str = "") -> None:
        """Keep the session of a connection for the next one with the same key, with a note."""
        session = connection.get_session()
        if session is None or connection.get_context() is not self._context:
            return
        self._sessions.pop(key, None)
        self._sessions[key] = session, note
        if len(self._sessions) > MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]

    def _usable_pair(self, files: CertificatePair) -> Pair:
        """Read our own pair and try it. Raises TlsError."""
        pair = read_pair(files.cert, files.key)
        pair.install(make_context(SSL.TLS_CLIENT_METHOD, self._protection))
        return pair

    def _make_context(self) -> SSL.Context:
        """Make a context that knows whom to believe, but does not ask yet. Raises TlsError."""
        context = make_context(SSL.TLS_CLIENT_METHOD, self._protection)
        if self._authorities is not None:
            self._authorities.value.install(context)
        elif self._anchors is not None:
            context.set_default_verify_paths()
        if self._pair is not None:
            self._pair.value.install(context)
        return context
