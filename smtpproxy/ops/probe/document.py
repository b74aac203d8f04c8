"""What a probe has found, fit to be shown: without anything that a terminal obeys (rule H8), and as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, Final, TypeVar, cast

from smtpproxy.ops.probe.facts import Found, Host, Server, Sts
from smtpproxy.ops.probe.verdicts import is_fine, problems

__all__ = ["document", "escaped"]

T = TypeVar("T")

_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]|\\")


def escaped(value: T) -> T:
    r"""Give the same value with every text in it escaped: octets outside of ASCII, control characters, backslashes.

    An octet becomes ``\x1b``, a character beyond them ``\u200f``.  Goes through tuples and our dataclasses.
    """
    result: Any = value
    if isinstance(value, str):
        result = _UNPRINTABLE.sub(_code, value)
    elif isinstance(value, tuple):
        result = tuple(map(escaped, value))
    elif is_dataclass(value) and not isinstance(value, type):
        result = replace(value, **{each.name: escaped(getattr(value, each.name)) for each in fields(value)})
    return cast("T", result)


def document(found: Found) -> str:
    """Write all of it as JSON, escaped too: one object, whose keys are the attributes of ``facts``.

    ``fine`` says whether there is nothing to mend; each server has its ``problems`` and whether early pipelining is
    ``usable``.
    """
    clean = escaped(found)
    content = asdict(clean) | {"fine": is_fine(found)}
    for host, host_content in zip(clean.hosts, content["hosts"], strict=True):
        for server, server_content in zip(host.servers, host_content["servers"], strict=True):
            server_content.update(_verdict(clean.sts, host, server))
    return json.dumps(content, indent=2)


def _verdict(sts: Sts, host: Host, server: Server) -> dict[str, Any]:
    return {"usable": server.usable, "problems": problems(sts, host, server)}


def _code(found: re.Match[str]) -> str:
    number = ord(found[0])
    if number < 256:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
