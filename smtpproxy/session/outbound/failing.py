"""What becomes of a delivery whose session is of no use any more: another try, another server, or an end (rule C7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .fault import Fault, Kind, not_closing
from .recipient import NOBODY
from .target import TlsWish

if TYPE_CHECKING:
    from .delivery import Delivery
    from .remote import Remote

LOST: Final = b"451 4.4.2 Connection with the remote server lost\r\n"
_WORDS: Final = {
    Kind.TLS: b"451 4.7.5 No TLS with the remote server as it has to be\r\n",
    Kind.LOGIN: b"451 4.7.8 The remote server did not let us log in\r\n",
    Kind.NONSENSE: b"451 4.5.0 The remote server broke the protocol\r\n",
}
# What would be no other if nothing had been sent early.
_DEFINITE: Final = frozenset({Kind.TLS, Kind.LOGIN})


def failed(delivery: Delivery, fault: Fault) -> None:
    """Deal with a session that is of no use any more."""
    remote = delivery.remote
    if remote is None:
        return
    early, borrowed = remote.early or bool(remote.used_early), remote.borrowed
    remote.fault = fault
    unknown = remote.data_position is not None and not remote.refused_at_once
    finished = delivery.progress.finished
    delivery.drop(fault)
    delivery.remember(_WORDS.get(fault.kind) or fault.reply or LOST)
    if unknown and fault.kind is Kind.CLOSING_AT_MAIL:
        # Nothing was taken, but another try is not ours any more.
        delivery.finish(not_closing(fault.reply))
    elif unknown:
        # With all of the message sent it may have been taken; else it was certainly not (RFC 1047).
        delivery.unknown = finished
        what = b"Connection lost, fate of the message unknown" if finished else b"Connection lost in the message"
        delivery.finish(b"451 4.4.2 " + what + b"\r\n")
    elif delivery.message.gone or delivery.spoken or delivery.owner is NOBODY:
        delivery.finish(delivery.best)
    elif borrowed:
        delivery.open_fresh()
    elif fault.kind is Kind.TLS and _may_do_without_tls(delivery, remote):
        # Politely: MAIL never leaves early in clear where TLS is wanted.
        delivery.in_clear = delivery.polite = True
        delivery.open()
    elif early and not delivery.polite and (fault.kind not in _DEFINITE or remote.tainted):
        delivery.again_politely()
    else:
        delivery.next_target()


def _may_do_without_tls(delivery: Delivery, remote: Remote) -> bool:
    tls = remote.target.tls
    return tls is TlsWish.OPPORTUNISTIC and not (delivery.in_clear or remote.policy.refuse_downgrade)
