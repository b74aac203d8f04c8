"""What happened, told to the log and to the counters: one line per session and per transaction (rule H11)."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from smtpproxy.net.inbound import InboundSession
from smtpproxy.session.outbound.notes import Finding
from smtpproxy.smtp.paths import path_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.net.clientsession import ClientSession
    from smtpproxy.net.remoteside import RemoteSide
    from smtpproxy.net.tlsfacts import TlsFacts
    from smtpproxy.session.outbound.notes import Note
    from smtpproxy.session.outbound.target import Target
    from smtpproxy.session.transaction import Transaction

    from .counters import Counters
    from .log import EventLog

_SHOWN = 1000
_RECIPIENTS_SHOWN = 5


class Journal:
    """Hears of every end of a session or transaction, and of whatever is out of the ordinary."""

    def __init__(self, log: EventLog, counters: Counters, *, transcripts: bool) -> None:
        """``transcripts`` writes every line of every session."""
        self._log = log
        self._counters = counters
        self._transcripts = transcripts

    def use(self, log: EventLog) -> None:
        """Write to another log from now on."""
        self._log = log

    def transaction_ended(self, session: ClientSession, transaction: Transaction) -> None:
        """Write and count a mail transaction."""
        counters, reply = self._counters, transaction.reply
        counters.transactions += 1
        counters.octets += transaction.octets
        counters.messages_accepted += reply[:1] == b"2"
        counters.messages_refused += reply[:1] in (b"4", b"5")
        counters.smuggling_lines += transaction.bare_seen
        counters.recipients_split += transaction.split
        if transaction.split:
            self._log.warning(
                "several_destinations",
                {
                    "session": session.number,
                    "listener": session.context.settings.name,
                    "client": session.address or "unix",
                    "from": path_of(transaction.mail),
                    "put_off": transaction.split,
                },
            )
        if not self._log.enabled("info"):
            return
        self._log.info(
            "transaction",
            {
                "session": session.number,
                "listener": session.context.settings.name,
                "client": session.address or "unix",
                "from": path_of(transaction.mail),
                "to": b",".join(map(path_of, transaction.recipients)),
                "accepted": transaction.accepted,
                "refused": transaction.refused,
                "octets": transaction.octets,
                "by": transaction.verb.name if transaction.verb is not None else None,
                "bare_line_endings": transaction.bare_seen or None,
                "reply": reply[:_SHOWN].rstrip(b"\r\n") or None,
                "duration": session.context.clock() - transaction.started,
            },
        )

    def session_ended(self, session: ClientSession) -> None:
        """Write and count a session."""
        relay = session.dialogue
        pipeline = relay.pipeline
        inbound = session if isinstance(session, InboundSession) else None
        saved = max(0, pipeline.replies - relay.turns)
        self._count(session, saved)
        if not self._log.enabled("info"):
            return
        facts, vouched = session.facts, session.vouched
        self._log.info(
            "session",
            {
                "session": session.number,
                "listener": session.context.settings.name,
                "client": session.address or "unix",
                "via": vouched.via if vouched is not None else None,
                "login": session.certified_login or (vouched.login if vouched is not None else None) or None,
                **(_tls_fields(facts) if facts is not None else {}),
                "ehlo": (relay.ehlo or relay.heard)[5:-2] or None,
                "backend": inbound.server.name if inbound is not None and inbound.server is not None else None,
                "reused": (inbound is not None and inbound.reused) or None,
                "commands": relay.command_count,
                "replies": pipeline.replies,
                "errors": relay.errors,
                "accepted": relay.recipients_accepted,
                "refused": relay.recipients_refused + relay.relay_refused,
                "octets": relay.octets,
                "early": relay.early,
                "pace": relay.pace or None,
                "round_trips_saved": saved,
                "duration": session.context.clock() - session.started,
                "end": relay.reason,
            },
        )

    def _count(self, session: ClientSession, saved: int) -> None:
        counters, relay = self._counters, session.dialogue
        counters.sessions += 1
        counters.sessions_early += relay.early
        counters.sessions_fast_open += session.fast_open
        counters.pregreet_violations += relay.reason == "pregreet"
        counters.synchronisation_violations += relay.violations
        counters.command_errors += relay.errors
        counters.recipients_accepted += relay.recipients_accepted
        counters.recipients_refused += relay.recipients_refused + relay.relay_refused
        counters.relay_refused += relay.relay_refused
        counters.round_trips_saved += saved
        if isinstance(session, InboundSession):
            counters.backend_reuses += session.reused
            counters.backend_connects += relay.reply_count > 0 and not session.reused
        counters.timeouts += relay.reason.endswith("timed out")

    def delivery_ended(self, session: ClientSession, side: RemoteSide) -> None:
        """Write and count a delivery: one message, one destination, all tries."""
        delivery, target, counters = side.delivery, side.delivery.target, self._counters
        accepted = delivery.accepted and delivery.reply[:1] == b"2"
        counters.deliveries += 1
        counters.deliveries_accepted += accepted
        counters.deliveries_unknown += delivery.unknown
        counters.deliveries_early += delivery.was_early
        counters.deliveries_one_flight += delivery.rode
        counters.remote_connects += side.connects
        counters.remote_reuses += side.reuses
        counters.remote_fast_open += side.fast_open
        given_up = not delivery.reply
        if not self._log.enabled("info") or (given_up and not delivery.tries):
            return
        # What a remote refuses is between it and the sender; what we could not do, or do not know, is ours.
        write = self._log.warning if delivery.unknown or delivery.why or delivery.errors else self._log.info
        write(
            "delivery",
            {
                "session": session.number,
                "listener": session.context.settings.name,
                "from": delivery.mail.path,
                "to": b",".join(recipient.rcpt.path for recipient in delivery.recipients[:_RECIPIENTS_SHOWN]),
                "recipients": len(delivery.recipients),
                "accepted": sum(recipient.accepted for recipient in delivery.recipients),
                "host": target.host if target is not None else None,
                "remote": target.name if target is not None else None,
                "tls": side.tls or None,
                "verdict": side.verdict or None,
                "early": delivery.was_early or None,
                "one_flight": delivery.rode or None,
                "fast_open": side.fast_open or None,
                "reused": side.reused or None,
                "tries": delivery.tries,
                "failures": delivery.errors or None,
                "why": delivery.why or None,
                "octets": delivery.message.octets,
                "reply": delivery.reply[:_SHOWN].rstrip(b"\r\n") or None,
                "duration": session.context.clock() - delivery.started,
            },
        )

    def flushed(self, session: ClientSession, target: Target, note: Note) -> None:
        """Write and count that early pipelining with a remote has failed (rules C3, C4, C6)."""
        held = note.finding is Finding.HELD_BACK
        self._counters.cache_flushes += 1
        self._log.info(
            "early_pipelining_failed",
            {"session": session.number, "remote": target.name, "inside_tls": note.secure or None, "held_back": held},
        )

    def downgraded(self, session: ClientSession, target: Target) -> None:
        """Write and count a remote that offered STARTTLS before, and does not now (rule C16)."""
        self._counters.tls_downgrades += 1
        self._log.warning("starttls_gone", {"session": session.number, "host": target.host, "remote": target.name})

    def host_left_out(self, domain: str, host: str, why: str) -> None:
        """Write that a mail host must not be used for a domain, by DANE or MTA-STS."""
        self._counters.hosts_left_out += 1
        self._log.warning("mail_host_left_out", {"domain": domain, "host": host, "why": why})

    def policy_fetch_failed(self, domain: str, why: str) -> None:
        """Write that a domain's MTA-STS policy could not be had (RFC 8461, 3.3)."""
        self._log.warning("mta_sts_fetch_failed", {"domain": domain, "why": why})

    def cache_trouble(self, what: str) -> None:
        """Write that the store of the EHLO cache is in trouble, or out of it."""
        self._log.warning("cache_store", {"what": what})

    def session_refused(self, listener: str, address: str | None, why: str) -> None:
        """Write and count a client that there was no room for."""
        client = "unix" if address == "" else address
        self._counters.sessions_refused += 1
        self._log.warning("session_refused", {"listener": listener, "client": client, "why": why})

    def backend_failed(self, backend: str, server: str, why: str) -> None:
        """Write and count a server that could not serve (rule S19)."""
        self._counters.backend_failures += 1
        self._log.warning("backend_failed", {"backend": backend, "server": server or None, "why": why})

    def tls_secured(self, session: ClientSession) -> None:
        """Count a handshake with a client; the session's line has the rest."""
        self._counters.tls_handshakes += 1
        self._counters.tls_resumed += session.facts is not None and session.facts.resumed

    def tls_failed(self, session: ClientSession, why: str) -> None:
        """Write and count a handshake with a client that failed."""
        self._counters.tls_failures += 1
        self._log.warning(
            "tls_failed",
            {
                "session": session.number,
                "listener": session.context.settings.name,
                "client": session.address or "unix",
                "why": why,
            },
        )

    def internal_error(self, session: ClientSession) -> None:
        """Write and count the exception that is being handled (rule H10)."""
        self._counters.internal_errors += 1
        self._log.error(
            "internal_error",
            {
                "session": session.number,
                "listener": session.context.settings.name,
                "client": session.address or "unix",
                "traceback": traceback.format_exc(),
            },
        )

    def extensions_dropped(self, listener: str, keywords: list[bytes]) -> None:
        """Write which EHLO keywords of a backend are not passed on (rule S7)."""
        if keywords:
            self._log.info("extensions_not_passed_on", {"listener": listener, "keywords": keywords})

    def tracer(self, session: ClientSession) -> Callable[[str, bytes], None] | None:
        """Give what writes the lines of a transcript, if transcripts are wanted."""
        if not self._transcripts:
            return None
        number = session.number

        def trace(direction: str, text: bytes) -> None:
            for line in text[:-2].split(b"\r\n"):
                shown = b"334 ****" if line[:3] == b"334" else line[:_SHOWN]
                self._log.info("transcript", {"session": number, "line": direction.encode() + b" " + shown})

        return trace


def _tls_fields(facts: TlsFacts) -> dict[str, str | bool | None]:
    return {
        "tls": facts.version,
        "cipher": facts.cipher,
        "resumed": facts.resumed or None,
        "sni": facts.servername or None,
        "certificate": facts.subject or None,
        "fingerprint": facts.fingerprint or None,
        "certificate_error": facts.verify_error or None,
    }
