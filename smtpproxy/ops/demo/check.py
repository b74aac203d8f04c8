"""The check that every message arrived, once, and octet by octet as it was sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile

from smtpproxy.ops.demo.messages import message_id


def mistakes(sent: Mapping[bytes, tuple[str, bytes]], arrived: Iterable[bytes]) -> list[str]:
    """Return what is wrong, one sentence each; nothing if all is well.

    Args:
        sent: Message-ID to the message's name for humans and its octets.
        arrived: the octets of each message that arrived, in any order.
    """
    found: dict[bytes, int] = dict.fromkeys(sent, 0)
    wrong: list[str] = []
    for octets in arrived:
        key = message_id(octets)
        if key is None or key not in sent:
            wrong.append(f"A message of {len(octets)} octets arrived that the demo did not send.")
            continue
        found[key] += 1
        name, original = sent[key]
        if octets != original:
            wrong.append(f"{name}: changed on the way, from octet {_first_difference(original, octets)} on.")
    for key, times in found.items():
        if times != 1:
            wrong.append(f"{sent[key][0]}: {'did not arrive' if not times else f'arrived {times} times'}.")
    return wrong


def _first_difference(one: bytes, other: bytes) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
