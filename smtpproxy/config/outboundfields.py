"""The types of the settings that concern mail to the world: next hops, domains of routes, marks, stores, resolvers.

Like ``fields``, they take the file's form or the finished value and raise ValueError in words for an
administrator. What stands where the name of a secret belongs is never quoted: it may be the secret.
"""

import ipaddress
import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr, TypeAdapter

from smtpproxy.config.domains import domain_spellings
from smtpproxy.config.endpoint import Endpoint, parse_endpoint
from smtpproxy.config.fields import OFF
from smtpproxy.config.problem import quoted
from smtpproxy.config.tlsfields import SYSTEM
from smtpproxy.config.units import parse_duration

__all__ = [
    "EVERYWHERE",
    "SMTP_PORT",
    "Addresses",
    "DnsServers",
    "DurationOrOff",
    "Mark",
    "NextHops",
    "RouteDomains",
    "SourceIPv4",
    "SourceIPv6",
    "StoreAddress",
    "UserName",
    "VariableName",
    "parse_next_hop",
    "parse_route_domains",
    "word_on_off",
    "word_yes_no",
]

EVERYWHERE: Final = "*"
"""The domain of the route for all that no other is for."""

SMTP_PORT: Final = 25
"""The port of a remote that has none of its own in the file."""

_DNS_PORT: Final = 53
_HIGHEST_MARK: Final = 0xFFFFFFFF
_HEXADECIMAL: Final = re.compile(r"0[xX][0-9A-Fa-f]{1,8}", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)
_REDIS: Final = re.compile(r"redis://(?:(?P<user>[^:@/]{1,128})@)?(?P<place>[^@/]+)(?:/[0-9]{1,5})?", re.ASCII)
_LONGEST_USER: Final = 255


def word_on_off(value: object) -> object:
    """Give back the words ``on`` and ``off``, which YAML reads as truth values; anything else as it is."""
    return ("on" if value else "off") if isinstance(value, bool) else value


def word_yes_no(value: object) -> object:
    """The same for ``yes`` and ``no``."""
    return ("yes" if value else "no") if isinstance(value, bool) else value


def _with_port(text: str, port: int) -> str:
    """Add a port to an address that has none; a bare IPv6 address gets its brackets.

    Raises ValueError where brackets are not closed.
    """
    if text.startswith("["):
        if "]" not in text:
            raise ValueError(f"a closing bracket is expected behind the IPv6 address, not {quoted(text)}")
        return f"{text}:{port}" if text.endswith("]") else text
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return text if ":" in text else f"{text}:{port}"
    return f"[{text}]:{port}"


def parse_next_hop(value: object) -> Endpoint:
    """Read one server of ``nexthops``; raises ValueError, in words for an administrator."""
    if isinstance(value, Endpoint):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError(f"host, host:port or [IPv6 address]:port is expected, in quotes, not {quoted(value)}")
    endpoint = parse_endpoint(_with_port(value, SMTP_PORT))
    if endpoint.kind != "tcp":
        raise ValueError(
            f"a remote is reached by TCP: host, host:port or [IPv6 address]:port is expected, not {quoted(value)}"
        )
    if endpoint.port == 0:
        raise ValueError("a port from 1 to 65535 is expected behind the last colon, not '0'")
    return endpoint


def _dns_server(value: object) -> Endpoint:
    if isinstance(value, Endpoint):
        return value
    expected = 'the address of a resolver is expected, in quotes, such as "127.0.0.1" or "[::1]:5353"'
    if not isinstance(value, str) or not value:
        raise ValueError(f"{expected}, not {quoted(value)}")
    endpoint = parse_endpoint(_with_port(value, _DNS_PORT))
    if endpoint.kind != "tcp" or endpoint.port == 0 or not (":" in endpoint.host or _is_ipv4(endpoint.host)):
        raise ValueError(f"{expected}, not {quoted(value)}")
    return endpoint


def _is_ipv4(host: str) -> bool:
    return host.replace(".", "").isdigit()


_RESOLVER_LIST: Final = TypeAdapter(tuple[Annotated[Endpoint, BeforeValidator(_dns_server)], ...])


def _dns_servers(value: object) -> object:
    if value == SYSTEM:
        return SYSTEM
    if isinstance(value, str):
        raise ValueError(
            f'the word system or a list of addresses is expected, such as ["127.0.0.1"], not {quoted(value)}'
        )
    servers = _RESOLVER_LIST.validate_python(value)
    if not servers:
        raise ValueError("at least one address is expected, or the word system")
    return servers


def _route_domain(value: object) -> tuple[str, ...]:
    if not isinstance(value, str):
        raise ValueError("a domain such as example.org is expected; a number or a word like 'no' is written in quotes")
    if value == EVERYWHERE:
        return (EVERYWHERE,)
    if value.startswith("*."):
        raise ValueError(f"every name below a domain is written with a dot in front: {quoted(value[1:])}")
    if value.startswith("."):
        if value.startswith(".["):
            raise ValueError(f"{quoted(value)} is no domain: there is nothing below an address")
        return tuple(f".{spelling}" for spelling in domain_spellings(value[1:]))
    return domain_spellings(value)


_DOMAIN_LIST: Final = TypeAdapter(tuple[Annotated[tuple[str, ...], BeforeValidator(_route_domain)], ...])


def parse_route_domains(value: object) -> tuple[str, ...]:
    """Read a route's ``domain``, one or a list; raises ValueError, in words for an administrator."""
    if isinstance(value, str):
        return _route_domain(value)
    if not isinstance(value, (list, tuple)):
        raise ValueError(
            'a domain is expected, or a list of them: example.org, .example.org (each name below it) or "*", '
            f"not {quoted(value)}"
        )
    if not value:
        raise ValueError("at least one entry is expected")
    return tuple(dict.fromkeys(spelling for spellings in _DOMAIN_LIST.validate_python(value) for spelling in spellings))


def _mark(value: object) -> int | None:
    """A mark of the kernel's (SO_MARK): 32 bits, 0 being none."""
    if value is None or value is False or value == OFF:
        return None
    number = int(value, 16) if isinstance(value, str) and _HEXADECIMAL.fullmatch(value) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _HIGHEST_MARK:
        raise ValueError(f"a number from 1 to 0xffffffff is expected, or the word off, not {quoted(value)}")
    return number


def _duration_or_off(value: object) -> float:
    return 0.0 if value is False or value == OFF else parse_duration(value)


def _variable(value: object) -> str:
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise ValueError("the name of an environment variable is expected (letters, digits and _), not what is in it")
    return value


def _user(value: str) -> str:
    if not value or not value.isprintable() or len(value.encode()) > _LONGEST_USER:
        raise ValueError(f"a user name of 1 to {_LONGEST_USER} octets without control characters is expected")
    return value


def _source(value: object, family: type[ipaddress.IPv4Address | ipaddress.IPv6Address], expected: str) -> str:
    try:
        address = family(value) if isinstance(value, str) else None
    except ValueError:
        address = None
    if address is None or address.is_unspecified or address.is_multicast:
        raise ValueError(f"{expected} of this machine is expected, not {quoted(value)}")
    return str(address)


def _source_ipv4(value: object) -> str:
    return _source(value, ipaddress.IPv4Address, "an IPv4 address")


def _source_ipv6(value: object) -> str:
    return _source(value, ipaddress.IPv6Address, "an IPv6 address")


def _own_address(value: object) -> str:
    try:
        address = ipaddress.ip_address(value) if isinstance(value, str) else None
    except ValueError:
        address = None
    if address is None or address.is_unspecified or address.is_multicast:
        raise ValueError(f"the address of one host is expected, in quotes, such as '192.0.2.5', not {quoted(value)}")
    return str(address)


_STORES: Final = "memory:, sqlite:/path, redis://host:port or unix:/path (Redis at a Unix socket) is expected"


def _store(value: object) -> str:
    """Never quotes what may hold a password."""
    if not isinstance(value, str):
        raise ValueError(f"{_STORES}, not {quoted(value)}")
    kind, _, rest = value.partition(":")
    if kind == "redis":
        return _redis(value)
    if kind == "unix":
        parse_endpoint(value)
    elif not (value == "memory:" or (kind == "sqlite" and rest.startswith("/") and rest.isprintable())):
        raise ValueError(f"{_STORES}, not {quoted(value)}")
    return value


def _redis(value: str) -> str:
    user_part, at, _ = value.removeprefix("redis://").rpartition("@")
    if at and ":" in user_part:
        raise ValueError("a password does not belong into this file: put it into the environment, see password_env")
    match = _REDIS.fullmatch(value)
    place = parse_endpoint(match["place"]) if match else None
    if place is None or place.kind != "tcp" or place.port == 0:
        raise ValueError(
            "redis://host:port is expected, with user@ in front of the host and /number of the database if needed"
        )
    return value


Addresses = tuple[Annotated[str, BeforeValidator(_own_address)], ...]
Mark = Annotated[int | None, BeforeValidator(_mark)]
NextHops = Annotated[tuple[Annotated[Endpoint, BeforeValidator(parse_next_hop)], ...], Field(min_length=1)]
RouteDomains = Annotated[tuple[str, ...], BeforeValidator(parse_route_domains)]
DnsServers = Annotated[Literal["system"] | tuple[Endpoint, ...], BeforeValidator(_dns_servers)]
DurationOrOff = Annotated[float, BeforeValidator(_duration_or_off)]
StoreAddress = Annotated[str, BeforeValidator(_store)]
VariableName = Annotated[str, BeforeValidator(_variable)]
UserName = Annotated[StrictStr, AfterValidator(_user)]
SourceIPv4 = Annotated[str, BeforeValidator(_source_ipv4)]
SourceIPv6 = Annotated[str, BeforeValidator(_source_ipv6)]
