"""Before a server gets the client's commands: TLS with it, and who the client is (rules S5, S14, S18, S19).

A server that has to be prepared is a *stranger*, and is asked nothing but

    EHLO --STARTTLS offered--> STARTTLS, handshake, EHLO --XCLIENT offered--> XCLIENT, EHLO

where the client's own EHLO serves for each EHLO, so that a server which offers neither hears it only once.  XCLIENT
resets the server's session, so its 220 is waited for and EHLO said again.  Whatever the server answers to XCLIENT but
220 is about this client and goes to it (rule S19).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.commands import (
    AUTH,
    BDAT,
    DATA,
    EHLO,
    ETRN,
    EXPN,
    HELO,
    MAIL,
    OWN_EHLO,
    OWN_STARTTLS,
    OWN_XCLIENT,
    OWN_XFORWARD,
    RCPT,
    VRFY,
)
from smtpproxy.smtp.paths import POSTMASTER, recipient_domain
from smtpproxy.smtp.xclient import xclient_command, xforward_commands

from . import ending, leaving, words
from .actions import Action
from .backend import Event
from .pipeline import Slot
from .policy import BackendTls

if TYPE_CHECKING:
    from smtpproxy.smtp.extensions import Extensions
    from smtpproxy.smtp.replies import Reply

    from .backend import Backend
    from .core import RelayCore

NEED_EHLO: Final = frozenset({MAIL, RCPT, DATA, BDAT, AUTH, VRFY, EXPN, ETRN})
"""Commands that a session may not be asked under another client's EHLO (rule S18)."""
_NOT_TAKEN: Final = "backend does not take XCLIENT"


def meet(relay: RelayCore, backend: Backend, slot: Slot) -> bytes | bool:
    """Deal with the slot at the head of the queue of a stranger.

    Gives False where it has to stay there for now, True where it was dealt with or may be looked at again, or our own
    reply to it.
    """
    policy = relay.policy
    if slot.verb is not EHLO and slot.verb is not HELO and not relay.ehlo:
        return _nobody_yet(relay, backend, slot)
    if backend.secure and not policy.introduces:
        # TLS was all that it needed.
        _take_as_it_is(relay, backend)
        resume(relay, backend)
        return True
    extensions = backend.extensions
    if extensions is not None and b"ADDR" in extensions.xclient and _tls_is_settled(relay, backend):
        return _say_who(relay, backend, slot, extensions)
    if backend.introduced is not None:
        if backend.outstanding:
            return False
        _start_over(relay, backend)
        return True
    if slot.verb is EHLO:
        backend.drop(slot)
        backend.send(slot, relay.backend_out)
    elif slot.verb is HELO and relay.once_only and _may_skip(relay, backend):
        # An EHLO of ours would be the only one that this server takes.
        _take_as_it_is(relay, backend)
    else:
        backend.send(Slot(OWN_EHLO, b"EHLO" + (slot.raw if slot.verb is HELO else relay.ehlo)[4:]), relay.backend_out)
    return True


def _nobody_yet(relay: RelayCore, backend: Backend, slot: Slot) -> bytes | bool:
    """Deal with a command of a client that has not said EHLO."""
    if slot.verb in NEED_EHLO:
        return words.SEND_EHLO_FIRST
    backend.drop(slot)
    backend.send(slot, relay.backend_out)
    return True


def _may_skip(relay: RelayCore, backend: Backend) -> bool:
    """Say whether the server may serve the client without having been told of it, and in clear if it is so."""
    policy = relay.policy
    in_clear = policy.backend_tls is BackendTls.REQUIRED and not backend.secure
    return not (policy.introduction_required or in_clear)


def _tls_is_settled(relay: RelayCore, backend: Backend) -> bool:
    return backend.secure is not None or relay.policy.backend_tls is BackendTls.NONE


def _say_who(relay: RelayCore, backend: Backend, slot: Slot, extensions: Extensions) -> bool:
    origin = relay.origin
    if origin is None:
        return _ask_who(relay)
    ehlo = slot.raw if slot.verb is EHLO or slot.verb is HELO else relay.ehlo
    backend.send(Slot(OWN_XCLIENT, xclient_command(origin.attributes(ehlo), extensions.xclient)), relay.backend_out)
    return True


def _start_over(relay: RelayCore, backend: Backend) -> None:
    """Leave a session whose server takes no second XCLIENT: it would go on for the client before (rule S18).

    Postfix is such a server, unless the client itself is one of its XCLIENT clients.
    """
    pending, backend.queue = backend.queue, []
    leaving.leave_backend(relay)
    relay.ask_again(pending)


def knows_client(relay: RelayCore, backend: Backend) -> bool:
    """Say whether the server was told of this very client."""
    return backend.introduced is not None and relay.origin is not None and backend.introduced == relay.origin.key


def _ask_who(relay: RelayCore) -> bool:
    """Wait until the owner knows the client's name, which may take a look-up."""
    if not relay.asked_who:
        relay.asked_who = True
        relay.actions.append(Action.IDENTIFY_CLIENT)
    return False


def _take_as_it_is(relay: RelayCore, backend: Backend) -> None:
    """Go on with a server that will not learn who the client is."""
    backend.familiar()
    settled(relay, backend)


def has_more_to_do(relay: RelayCore, backend: Backend, extensions: Extensions) -> bool:
    """Say whether an EHLO reply calls for a step: a stranger's always, else one that offers what was not to be had.

    Else a client that has an EHLO of its own refused, so that HELO is tried, could stay unknown to the server.
    """
    if backend.stranger:
        return True
    policy = relay.policy
    tls = extensions.starttls and not _tls_is_settled(relay, backend)
    if tls or (policy.introduces and b"ADDR" in extensions.xclient and not knows_client(relay, backend)):
        backend.estrange()
        return True
    return False


def next_step(relay: RelayCore, backend: Backend, slot: Slot, extensions: Extensions, reply: Reply) -> bool:
    """Take a stranger's EHLO reply; say whether more has to be done before ``slot``, which it answers, is done with."""
    policy = relay.policy
    if not _tls_is_settled(relay, backend):
        if extensions.starttls:
            backend.attempt = (slot, reply)
            backend.move(Event.STARTTLS)
            relay.send_now(backend, Slot(OWN_STARTTLS, b"STARTTLS\r\n"))
            return True
        if policy.backend_tls is BackendTls.REQUIRED:
            backend.ask_again(slot)
            relay.retry("backend does not offer STARTTLS")
            return True
        if extensions is not policy.extensions.nothing:
            # HELO tells nothing: a later EHLO may.
            backend.secure = False
    if policy.introduces and b"ADDR" in extensions.xclient:
        backend.ask_again(slot)
        backend.extensions = extensions
        return True
    if policy.introduction_required:
        ending.fail(relay, relay.text(b"421 4.3.5", b"Mail server not prepared, try again later"), _NOT_TAKEN)
        return True
    backend.familiar()
    return False


def is_stranger(relay: RelayCore, kept: Backend) -> bool:
    """Say whether a kept session has to be told who the client is, the one before having been another."""
    if kept.introduced is None:
        return kept.stranger or relay.policy.introduction_required
    return not knows_client(relay, kept)


def introduced(relay: RelayCore, backend: Backend) -> None:
    """Go on after the server has taken XCLIENT: its session is as new."""
    backend.familiar()
    # What it offered before is no offer to the next client.
    backend.extensions = None
    backend.introduced = relay.origin and relay.origin.key
    backend.ehlo = b""
    resume(relay, backend)


def resume(relay: RelayCore, backend: Backend) -> None:
    """Say EHLO again for the client, unless that is what it asks for next."""
    if not (backend.queue and (backend.queue[0].verb is EHLO or backend.queue[0].verb is HELO)):
        relay.resume_identity(backend)


def settled(relay: RelayCore, backend: Backend) -> None:
    """See what has to be decided about commands to a server that has accepted an EHLO or HELO (rule S14)."""
    policy = relay.policy
    if policy.introduces and policy.fallback_domains is not None and not knows_client(relay, backend):
        backend.decisions |= {RCPT}
    if policy.forwards and backend.extensions is not None and backend.extensions.xforward:
        backend.decisions |= {MAIL}


def may_not_relay(relay: RelayCore, backend: Backend, slot: Slot) -> bool:
    """Say whether a recipient is not ours, for a server that has not learned who the client is (rule S14)."""
    domains = relay.policy.fallback_domains
    if slot.verb is not RCPT or domains is None or not relay.policy.introduces or knows_client(relay, backend):
        return False
    return not relay.authenticated and not is_ours(slot.argument, domains)


def is_ours(argument: bytes, domains: frozenset[str]) -> bool:
    """Say whether the argument of a RCPT is a recipient in one of ``domains``, or the postmaster."""
    domain = recipient_domain(argument)
    return domain is not None and (domain == POSTMASTER or domain in domains)


def wants_forward(relay: RelayCore, backend: Backend, slot: Slot) -> bool:
    """Say whether the server's log has to be told who the client is before this command (XFORWARD)."""
    if slot.verb is not MAIL or not relay.policy.forwards or relay.forwarded is slot:
        return False
    return backend.extensions is not None and bool(backend.extensions.xforward)


def forward(relay: RelayCore, backend: Backend, slot: Slot) -> bool:
    """Let XFORWARD go before a MAIL, at the pace that the server can bear; give False where that has to wait."""
    extensions, origin = backend.extensions, relay.origin
    if origin is None or extensions is None:
        return _ask_who(relay)
    lines = xforward_commands(origin.attributes(relay.ehlo), extensions.xforward)
    backend.queue[0:0] = [Slot(OWN_XFORWARD, line) for line in lines]
    backend.waiting += sum(map(len, lines))
    relay.forwarded = slot
    return True
