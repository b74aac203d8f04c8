"""TLSA records of a mail host (RFC 7672): whether to ask for them at all, under which name, and what answers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from .dane import Tlsa, usable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .resolver import Answer, Resolver
    from .tlspolicy import MxHost

__all__ = ["NO_DANE", "TlsaFound", "base_domains", "find_tlsa"]


class TlsaFound(NamedTuple):
    """What DNS says of a host's TLSA records."""

    status: Literal["none", "found", "failed"]
    """There are none that count; there are some; it could not be found out, so the host must not be used (C16)."""
    records: tuple[Tlsa, ...] = ()
    """The usable ones; there may be none of these where some were found: TLS is then needed, and proves nothing."""
    base: str = ""
    """The TLSA base domain: the name that they belong to, and what they are found under without port and protocol."""
    why: str = ""
    """What has failed, for the log."""


NO_DANE: Final = TlsaFound("none")


def base_domains(host: MxHost) -> tuple[str, ...]:
    """Give the names to look for TLSA records under, the best first; none where DNSSEC does not vouch for the host.

    RFC 7672, 2.2.1: the MX records have to be secure; 2.2.2: the addresses too, and 2.2.3: the name behind CNAMEs comes
    first if all of them are secure. Where only the first CNAME is, the name before it remains.
    """
    if not host.mx_secure:
        return ()
    if host.secure:
        return tuple(dict.fromkeys((host.canonical, host.name)))
    return (host.name,) if host.alias_secure and host.canonical != host.name else ()


def find_tlsa(resolver: Resolver, host: MxHost, found: Callable[[TlsaFound], None]) -> None:
    """Look for the TLSA records of a host; ``found`` is called exactly once, perhaps before this function returns."""
    _try(resolver, host, base_domains(host), found)


def _try(resolver: Resolver, host: MxHost, bases: tuple[str, ...], found: Callable[[TlsaFound], None]) -> None:
    if not bases:
        found(NO_DANE)
        return
    base, others = bases[0], bases[1:]
    name = f"_{host.port}._tcp.{base}"

    def answered(answer: Answer) -> None:
        if answer.status == "tempfail":
            # RFC 7672, 2.1.2: else whoever can suppress the answer could take DANE away.
            found(TlsaFound("failed", base=base, why=f"no answer about the TLSA records of {name}"))
        elif answer.status == "ok" and answer.secure:
            records = (Tlsa(each.usage, each.selector, each.mtype, bytes(each.cert)) for each in answer.records)
            found(TlsaFound("found", usable(records), base))
        else:  # there are none, or nobody vouches for them
            _try(resolver, host, others, found)

    resolver.query(name, "TLSA", answered)
