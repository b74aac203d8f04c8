"""A client's session in front of a mail server of ours (inbound): feeds the relay from two connections."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from smtpproxy.session.actions import Action
from smtpproxy.session.relay import Relay

from . import succession
from .backendside import ACTIONS as BACKEND_ACTIONS
from .backendside import BackendSide
from .clientsession import CLIENT_ACTIONS
from .stamp import received

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.session.origin import Origin

    from .context import Context
    from .vouched import Vouched


class InboundSession(BackendSide):
    """The protocol of the client's connection."""

    __slots__ = ()

    def __init__(self, context: Context, address: str, counted: str, vouched: Vouched | None = None) -> None:
        """As ClientSession."""
        super().__init__(context, address, counted, vouched)
        secure = context.settings.tls.mode == "implicit"
        policy = context.policy(address, secure=secure, trusted=context.trusts(address))
        relay = Relay(policy, context.client_policy(address, secure=secure), context.learned(policy, address))
        relay.once_only = context.pool.once_only
        relay.trace = context.journal.tracer(self)
        if context.settings.trace_header:
            relay.stamp = self._stamp
        self.dialogue = relay

    def identified(self, origin: Origin) -> None:
        """Tell the relay who the client is."""
        self._tell(self.relay.client_identified, origin)

    def _stamp(self) -> bytes:
        return received(self, time.time())

    @property
    def _speaks_at_once(self) -> bool:
        return self.relay.backend is None

    def _begin_anew(self) -> None:
        succession.inside_tls(self)

    def _write_to_servers(self) -> None:
        out = self.relay.backend_out
        if out and self.leg is not None:
            self.leg.transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()

    def _pause_servers(self) -> None:
        if self.leg is not None:
            self.leg.pause_reading()

    def _resume_servers(self) -> None:
        if self.leg is not None:
            self.leg.resume_reading()

    def _abandon_servers(self) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
            leg.close(reset=True)

    def _act(self) -> None:
        if self.relay.once_only:
            self.context.pool.once_only = True
        while self.dialogue.actions:
            actions, self.dialogue.actions = self.dialogue.actions, []
            for action in actions:
                _ACTIONS[action](self)

    def _change_client(self) -> None:
        succession.change_client(self)
        self._settle()

    def _identify_client(self) -> None:
        succession.identify(self)

    def _before_closing(self) -> None:
        self.store_learned()

    def store_learned(self) -> None:
        """Keep what the backend has said of itself for other sessions (rule S18)."""
        relay, context = self.relay, self.context
        learned = relay.learned
        if learned is not None and learned is not context.learned(relay.policy, self.address):
            told = relay.policy.introduces and relay.origin is not None
            context.learn(relay.policy, self.address, learned, told=told)


_ACTIONS: Final[dict[Action, Callable[[Any], None]]] = {
    **CLIENT_ACTIONS,
    **BACKEND_ACTIONS,
    Action.CHANGE_CLIENT: InboundSession._change_client,  # noqa: SLF001  # the table of this class
    Action.IDENTIFY_CLIENT: InboundSession._identify_client,  # noqa: SLF001  # the same
}
