"""The types of the settings: each turns what the YAML file says into what the program uses.

A validator here takes either form, the file's (text, numbers, lists) or the finished value, so that a test
may build a model directly. It says what is wrong in words for an administrator, by raising ValueError.
"""

import logging.handlers
import re
from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StrictBool, StrictInt, StrictStr, TypeAdapter

from smtpproxy.config.domains import domain_spellings, is_hostname
from smtpproxy.config.endpoint import Endpoint, parse_endpoint
from smtpproxy.config.networks import Network, Networks, parse_network
from smtpproxy.config.problem import quoted
from smtpproxy.config.units import parse_duration, parse_size

__all__ = [
    "Count",
    "Domains",
    "Duration",
    "Endpoints",
    "Extensions",
    "Flag",
    "Hostname",
    "LogTarget",
    "Name",
    "NetworkSet",
    "QueueLength",
    "Servers",
    "Size",
    "SizeOrUnlimited",
    "TimeOut",
    "TimeOutOrOff",
    "TimeOutOrUnlimited",
    "switch",
    "word_off",
]

ANY: Final = "any"
OFF: Final = "off"
ON: Final = "on"
UNLIMITED: Final = "unlimited"

_LONGEST_QUEUE: Final = 65535
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_KEYWORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*", re.ASCII)  # ehlo-keyword, RFC 5321, 4.1.1.1
_NEVER_PASSED: Final = {
    "PIPELINING": "smtpproxy offers it by itself",
    "CHUNKING": "smtpproxy offers it by itself (setting chunking)",
    "PIPECONNECT": "it is a setting of early_pipelining",
    "PIPE_CONNECT": "it is a setting of early_pipelining",
    "X_PIPE_CONNECT": "it is a setting of early_pipelining",
    "STARTTLS": "smtpproxy offers it by itself (setting tls), the backend's own is never passed on",
    "XCLIENT": "it is never passed on",
    "XFORWARD": "it is never passed on",
}


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"a name of letters, digits, - and _ is expected, not {quoted(value)}")
    return value


def _positive_duration(value: object) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError("more than nothing is expected, such as '30 s'")
    return seconds


def _positive_size(value: object) -> int:
    octets = parse_size(value)
    if octets == 0:
        raise ValueError("more than nothing is expected, such as '50 MiB'")
    return octets


def _or_off(value: object) -> object:
    """YAML reads ``off`` as the truth value False."""
    if value is None or value is False or value == OFF:
        return None
    if value is True:
        raise ValueError("a duration such as '30 min' is expected, or the word off")
    return _positive_duration(value)


def word_off(value: object) -> object:
    """Give back the word ``off``, which YAML reads as the truth value False; anything else as it is."""
    return OFF if value is False else value


def switch(example: str) -> Callable[[Any], Any]:
    """Give what reads a section that may also be one of the words ``off`` (None) and ``on`` (with its defaults).

    YAML reads those as truth values. ``example`` is such a section, for the message.
    """

    def read(value: Any) -> Any:  # noqa: ANN401  (a validator's input is of any type)
        if value is False or value == OFF:
            return None
        if value is True or value == ON:
            return {}
        if isinstance(value, (BaseModel, dict)) or value is None:
            return value
        raise ValueError(f"off, on, or a section such as {example} is expected")

    return read


def _queue_length(value: object) -> int:
    if value is False or value == OFF:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LONGEST_QUEUE:
        raise ValueError(
            f"a number of connections from 0 to {_LONGEST_QUEUE} is expected, or the word off, not {quoted(value)}"
        )
    return value


def _duration_or_unlimited(value: object) -> object:
    return _or_unlimited(_positive_duration, value)


def _size_or_unlimited(value: object) -> object:
    return _or_unlimited(_positive_size, value)


def _or_unlimited(read: Callable[[object], object], value: object) -> object:
    if value is None or value == UNLIMITED:
        return None
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{error}; or the word unlimited") from None


def _endpoint(value: object) -> Endpoint:
    return value if isinstance(value, Endpoint) else parse_endpoint(value)


def _server(value: object) -> Endpoint:
    endpoint = _endpoint(value)
    if endpoint.kind == "systemd":
        raise ValueError("a socket inherited from systemd can be listened on, but is no server to connect to")
    if endpoint.kind == "tcp" and endpoint.port == 0:
        raise ValueError("a port from 1 to 65535 is expected behind the last colon, not '0'")
    return endpoint


_NETWORK_LIST: Final = TypeAdapter(tuple[Annotated[Any, BeforeValidator(parse_network)], ...])


def _networks(value: object) -> Networks:
    """Through a TypeAdapter, so that a mistake is reported at its own place in the list."""
    if isinstance(value, Networks):
        return value
    entries: tuple[Network | str, ...] = _NETWORK_LIST.validate_python(value)
    return Networks(entries)


def _domain(value: object) -> tuple[str, ...]:
    if not isinstance(value, str):
        raise ValueError("a domain such as example.org is expected; a number or a word like 'no' is written in quotes")
    if value == ANY:
        raise ValueError("to accept every domain write the word any alone, without a list")
    return domain_spellings(value)


_DOMAIN_LIST: Final = TypeAdapter(tuple[Annotated[tuple[str, ...], BeforeValidator(_domain)], ...])


def _domains(value: object) -> tuple[str, ...] | None:
    if value == ANY or value is None:
        return None
    if isinstance(value, str):
        raise ValueError(f"a list of domains is expected, such as [example.org], or the word any, not {quoted(value)}")
    return tuple(dict.fromkeys(spelling for spellings in _DOMAIN_LIST.validate_python(value) for spelling in spellings))


def _extension(value: str) -> str:
    keyword = value.upper()
    if keyword in _NEVER_PASSED:
        raise ValueError(f"{keyword} cannot be in this list: {_NEVER_PASSED[keyword]}")
    if not _KEYWORD.fullmatch(value):
        raise ValueError(f"the keyword of an EHLO extension is expected (letters, digits and -), not {quoted(value)}")
    return keyword


def _hostname(value: str) -> str:
    if not is_hostname(value):
        raise ValueError(f"the full name of a host is expected, such as mail.example.org, not {quoted(value)}")
    return value


def _log_target(value: str) -> str:
    kind, _, rest = value.partition(":")
    known = (
        value == "stderr"
        or (kind == "file" and rest.startswith("/"))
        or (kind == "syslog" and rest in logging.handlers.SysLogHandler.facility_names)
    )
    if not known:
        raise ValueError(
            f"stderr, file:/path or syslog:facility (such as syslog:mail) is expected, not {quoted(value)}"
        )
    return value


Flag = StrictBool
Count = Annotated[StrictInt, Field(ge=1)]
Size = Annotated[int, BeforeValidator(parse_size)]
SizeOrUnlimited = Annotated[int | None, BeforeValidator(_size_or_unlimited)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
TimeOut = Annotated[float, BeforeValidator(_positive_duration)]
TimeOutOrOff = Annotated[float | None, BeforeValidator(_or_off)]
TimeOutOrUnlimited = Annotated[float | None, BeforeValidator(_duration_or_unlimited)]
Name = Annotated[StrictStr, AfterValidator(_name)]
Hostname = Annotated[StrictStr, AfterValidator(_hostname)]
LogTarget = Annotated[StrictStr, AfterValidator(_log_target)]
Endpoints = Annotated[tuple[Annotated[Endpoint, BeforeValidator(_endpoint)], ...], Field(min_length=1)]
Servers = Annotated[tuple[Annotated[Endpoint, BeforeValidator(_server)], ...], Field(min_length=1)]
QueueLength = Annotated[int, BeforeValidator(_queue_length)]
NetworkSet = Annotated[Networks, BeforeValidator(_networks)]
Domains = Annotated[tuple[str, ...] | None, BeforeValidator(_domains)]
Extensions = tuple[Annotated[StrictStr, AfterValidator(_extension)], ...]
