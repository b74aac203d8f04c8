"""Every message arrives, and none is sent twice by smtpproxy, however often the remote dies (rule C7).

`SMTPPROXY_EXACTLY_ONCE=MESSAGES/KILLS pytest -s` on this file makes it a longer run than usual, and shows the figures.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from .outbound_exactly_once import exactly_once

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(
    ("tls", "reuse", "usual"),
    [(False, True, "600/4"), (False, False, "120/2"), (True, False, "80/2")],
    ids=["kept", "clear", "starttls"],
)
def test_nothing_lost_and_nothing_doubled_by_us(server_pair: Any, *, tls: bool, reuse: bool, usual: str) -> None:
    """Every duplicate is one whose answer was cut off, and the log says so; on kept sessions, and on one for each
    message, which is early.
    """
    messages, kills = map(int, os.environ.get("SMTPPROXY_EXACTLY_ONCE", usual).split("/"))
    with exactly_once(server_pair, tls=tls, reuse=reuse) as run:
        balance = run.balance(messages, kills)
    if "SMTPPROXY_EXACTLY_ONCE" in os.environ:
        sys.stderr.write(f"\n{balance}\n")
    assert balance.lost == [], balance
    assert not balance.unexplained, (balance, balance.unexplained)
    assert set(balance.accepted.values()) == {1}, balance
    assert balance.kills == kills
    assert balance.early, balance
