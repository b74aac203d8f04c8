"""What a probe has found, fit to be shown: without anything that a terminal obeys (rule H8), and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from smtpproxy.ops.escape import escape
from smtpproxy.ops.probe.facts import Found, Host, Server, Sts
from smtpproxy.ops.probe.verdicts import is_fine, problems

__all__ = ["document", "escaped"]

T = TypeVar("T")


def escaped(value: T) -> T:
    """Give the same value with every text in it escaped; goes through tuples and our dataclasses."""
    result: Any = value
    if isinstance(value, str):
        result = escape(value)
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
