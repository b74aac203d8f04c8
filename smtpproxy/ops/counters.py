"""What a running service counts: plain integers, cheap enough for every session."""

from __future__ import annotations


class Counters:
    """Totals since the start of the process. Whoever sees something happen adds to it; nothing locks.

    Each attribute is an int that starts at 0 and only grows; the comment beside it says what one more means.
    """

    __slots__ = (
        "backend_connects",  # connection to a backend established
        "backend_failures",  # backend that refused, stalled, answered garbage or vanished (S19)
        "backend_reuses",  # idle backend session lent to another client
        "cache_flushes",  # remote with whom early pipelining has failed, so that it is polite again (C3, C4, C6)
        "command_errors",  # command answered with 4xx or 5xx of our own making
        "deliveries",  # message given to one destination, or tried to, however often
        "deliveries_accepted",  # of these, one that a remote took
        "deliveries_early",  # one whose first flight left before the remote had spoken
        "deliveries_one_flight",  # one whose message was in that flight, or in one with its envelope
        "deliveries_unknown",  # one that may have been taken or not: the answer never came (C7)
        "hosts_left_out",  # mail host that DANE or MTA-STS forbids
        "internal_errors",  # exception of ours that ended a session with 421
        "messages_accepted",  # message whose end of data the backend answered with 2xx
        "messages_refused",  # message whose end of data was answered with 4xx or 5xx
        "octets",  # octet of mail data taken from a client
        "pregreet_violations",  # client that sent before the greeting without licence (S1, S2)
        "recipients_accepted",  # RCPT answered with 2xx
        "recipients_refused",  # RCPT answered with 4xx or 5xx, S14 included
        "recipients_split",  # RCPT answered with 452 because its transaction has another destination already
        "relay_refused",  # recipient of a foreign domain refused (S14)
        "remote_connects",  # connection with a remote begun
        "remote_fast_open",  # of these, one whose SYN carried data
        "remote_reuses",  # kept session with a remote lent to another delivery
        "round_trips_saved",  # round trip that the client did not have to wait for
        "sessions",  # client connection taken
        "sessions_early",  # of these, session that began with early pipelining
        "sessions_fast_open",  # of these, session whose first octets came with the SYN (RFC 7413)
        "sessions_refused",  # client connection turned away with 421, because a limit is reached
        "smuggling_lines",  # mail data with a bare CR or LF seen in it (S11)
        "synchronisation_violations",  # bytes behind a command that ends a burst (S5)
        "timeouts",  # session that a time-out ended, of the client or of the backend
        "tls_downgrades",  # remote that offered STARTTLS before, and does not now
        "tls_failures",  # TLS handshake with a client that failed
        "tls_handshakes",  # TLS handshake with a client that succeeded
        "tls_resumed",  # of these, one that resumed a session
        "transactions",  # mail transaction begun: MAIL answered with 2xx
    )

    backend_connects: int
    backend_failures: int
    backend_reuses: int
    cache_flushes: int
    command_errors: int
    deliveries: int
    deliveries_accepted: int
    deliveries_early: int
    deliveries_one_flight: int
    deliveries_unknown: int
    hosts_left_out: int
    internal_errors: int
    messages_accepted: int
    messages_refused: int
    octets: int
    pregreet_violations: int
    recipients_accepted: int
    recipients_refused: int
    recipients_split: int
    relay_refused: int
    remote_connects: int
    remote_fast_open: int
    remote_reuses: int
    round_trips_saved: int
    sessions: int
    sessions_early: int
    sessions_fast_open: int
    sessions_refused: int
    smuggling_lines: int
    synchronisation_violations: int
    timeouts: int
    tls_downgrades: int
    tls_failures: int
    tls_handshakes: int
    tls_resumed: int
    transactions: int

    def __init__(self) -> None:
        """Begin with every counter at 0."""
        for name in self.__slots__:
            setattr(self, name, 0)

    def as_dict(self) -> dict[str, int]:
        """Give the present values by name, in alphabetical order: a copy that does not change any more."""
        return {name: getattr(self, name) for name in self.__slots__}
