"""One client's session goes on as another: inside TLS, or for the client that a trusted proxy has named.

Everything that the client said before is forgotten with the relay that heard it; a new one takes its place (rules S5,
S6).  What the session has counted, and its backend where that is at rest, goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from smtpproxy.session.origin import Origin
from smtpproxy.session.relay import Relay
from smtpproxy.smtp.xclient import UNAVAILABLE, parse_address

from .policies import CONNECTION_BOUND
from .vouched import Vouched

if TYPE_CHECKING:
    from .backendside import BackendSide
    from .inbound import InboundSession


def inside_tls(session: InboundSession) -> None:
    """Begin anew inside TLS (RFC 3207, 4.2)."""
    session.store_learned()
    old = session.relay
    relay = session.dialogue = _new_relay(session)
    relay.succeed(old, session.context.clock(), same_client=not session.certified_login)
    relay.begin_secure()


def change_client(session: InboundSession) -> None:
    """Go on with the client that XCLIENT has named: limits, log and offers are about it from now on (rule H6)."""
    context, old = session.context, session.relay
    said = old.named or {}
    address, counted = session.address, session.counted
    if b"ADDR" in said:
        address = counted = parse_address(said[b"ADDR"]) or ""
    full = context.readmit(session.counted, counted)
    if full:
        context.journal.session_refused(context.settings.name, address, full)
        old.client_refused(full)
        return
    session.store_learned()
    before = session.vouched or Vouched(session.address)
    session.address, session.counted = address, counted
    session.vouched = before._replace(
        port=int(said.get(b"PORT") or 0) if said.get(b"PORT", b"").isdigit() else 0,
        destination=_destination(said) or before.destination,
        name=said.get(b"NAME", b""),
        login=_known(said.get(b"LOGIN", b"")),
    )
    relay = _new_relay(session)
    keep = context.pool.settings.identity not in CONNECTION_BOUND
    relay.succeed(old, context.clock(), same_client=False, keep_backend=keep)
    session.dialogue = relay
    relay.start(context.clock())


def _new_relay(session: InboundSession) -> Relay:
    context, address = session.context, session.address
    secure = session.facts is not None
    policy = context.policy(address, secure=secure, trusted=session.relay.policy.trusts_xclient)
    relay = Relay(policy, context.client_policy(address, secure=secure), context.learned(policy, address))
    relay.once_only = context.pool.once_only
    return relay


def _destination(said: dict[bytes, bytes]) -> tuple[str, int] | None:
    address = parse_address(said.get(b"DESTADDR", b""))
    port = said.get(b"DESTPORT", b"")
    return (address, int(port)) if address and port.isdigit() else None


def _known(value: bytes) -> bytes:
    return b"" if value.startswith(b"[") else value


def identify(session: InboundSession) -> None:
    """Find out who the client is, its name by a look-up where one is wanted, and tell the relay."""
    context, vouched = session.context, session.vouched
    name = b"" if vouched is None else vouched.name
    names = context.names if context.pool.settings.client_name == "lookup" else None
    if name:
        _identified(session, name)
    elif names is None or not session.address:
        _identified(session, UNAVAILABLE)
    else:
        names.find(session.address, lambda found: _identified(session, found))


def _identified(session: InboundSession, name: bytes) -> None:
    if not session.relay.over:
        port, destination = ends_of(session)
        login = session.certified_login or (b"" if session.vouched is None else session.vouched.login)
        session.identified(Origin(session.address, port, destination, name, login))


def ends_of(session: BackendSide) -> tuple[int, tuple[str, int] | None]:
    """Give the client's port (0 if unknown), and the address and port that it connected to."""
    transport: Any = session.transport
    port, destination = getattr(transport.getPeer(), "port", 0), None
    if session.vouched is not None:
        port, destination = session.vouched.port, session.vouched.destination
    if destination is None and hasattr(host := transport.getHost(), "port"):
        destination = _plain(host.host), host.port
    return port, destination


def common_name(subject: str) -> str:
    """Give the common name in a subject (RFC 4514), empty if there is none."""
    if not subject:
        return ""
    try:
        names = x509.Name.from_rfc4514_string(subject).get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        # Certificates hold names that no rule allows.
        return ""
    return str(names[0].value) if names else ""


def _plain(host: str) -> str:
    return host[7:] if host.startswith("::ffff:") and "." in host else host
