"""Questions to DNS servers, which block: for a thread.

dnspython asks: one server after the other, by UDP, and by TCP where a reply was cut off.  Here is which servers, what
their answers mean, and whether their word on DNSSEC is taken.
"""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import dns.exception
import dns.flags
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
from dns.rdtypes.ANY.TLSA import TLSA

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dns.message

    from smtpproxy.config import Dns

Kind: TypeAlias = Literal["MX", "A", "AAAA", "TLSA", "TXT"]

# What fits into every path's packets, so that no reply is cut by fragmentation (DNS flag day 2020).
_PAYLOAD: Final = 1232
_PORT: Final = 53
_MOST_RECORDS: Final = 100
_MOST_OCTETS: Final = 16 * 1024

# A digest of the wrong length makes a record unusable, which is for DANE to say (RFC 6698, 4.1).  dnspython would throw
# the whole reply away, and no mail could be sent to a domain with such a mistake.
TLSA._cert_length_by_mtype = {}  # noqa: SLF001  # there is no other way in


class Mx(NamedTuple):
    """An MX record, its host written as ``text_of`` does it: once, not each time that the answer is used."""

    preference: int
    exchange: str
    """"" where there is no host (null MX)."""


class Answer(NamedTuple):
    """What DNS says to one question."""

    status: Literal["ok", "nodata", "nxdomain", "tempfail"]
    """Records; a name without such records; no such name; not to be found out now."""
    records: tuple[Any, ...] = ()
    """``Mx``; all others as dnspython has them: ``.address``; ``.usage``, …; ``.strings``."""
    secure: bool = False
    """Whether a validating resolver that is trusted vouches for it (AD, RFC 4035, 3.2.3): for the whole chain of
    CNAMEs, and where there is nothing, for that."""
    name: str = ""
    """The name that has the records, behind all CNAMEs: an A-label in lower case without final dot."""
    aliases: tuple[str, ...] = ()
    """The names before it, if there are CNAMEs; the first is what was asked for."""
    alias_secure: bool = False
    """Where the whole is not secure: whether at least the first CNAME is (RFC 7672, 2.2.2). Only for addresses."""


class Lookup:
    """Asks; blocks.  May be called in several threads at a time."""

    def __init__(self, settings: Dns, resolv_conf: str = "/etc/resolv.conf") -> None:
        """``resolv_conf``: the file in which the system's servers stand (resolv.conf(5)), read anew when it changes."""
        self._settings = settings
        self._resolv_conf = resolv_conf
        self._fixed = None
        if settings.servers != "system":
            self._fixed = self._resolver([(server.host, server.port) for server in settings.servers])
        self._read: tuple[Any, _Resolver] | None = None

    def __call__(self, name: str, kind: Kind) -> tuple[Answer, float]:
        """Ask for records; ``name``: A-labels.  Gives the answer, and for how many seconds it is good (RFC 2308)."""
        resolver = self._fixed or self._of_the_system()
        try:
            return resolver.ask(name, kind)
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, dns.name.BadEscape):
            return Answer("nxdomain", name=name), 0.0  # what is no name exists nowhere
        except dns.exception.DNSException:
            return Answer("tempfail", name=name), 0.0

    def _of_the_system(self) -> _Resolver:
        stamp = _stamp(self._resolv_conf)
        known = self._read
        if known is None or known[0] != stamp:
            known = self._read = (stamp, self._resolver(_servers_of(self._resolv_conf)))
        return known[1]

    def _resolver(self, servers: Sequence[tuple[str, int]]) -> _Resolver:
        settings = self._settings
        trusted = settings.trust_ad == "yes"
        if settings.trust_ad == "auto":  # nobody can sit in between
            trusted = all(ip_address(address).is_loopback for address, _ in servers)
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = [dns.nameserver.Do53Nameserver(address, port) for address, port in servers]
        resolver.timeout = settings.timeout
        resolver.lifetime = settings.lifetime
        resolver.use_edns(0, dns.flags.DO if trusted else 0, _PAYLOAD)
        # AD in a question asks for AD in the answer (RFC 6840, 5.7); some resolvers heed the one, some the other.
        resolver.set_flags(dns.flags.RD | (dns.flags.AD if trusted else 0))
        return _Resolver(resolver, trusted=trusted)


class _Resolver:
    """dnspython's, and whether it is trusted."""

    __slots__ = ("_resolver", "_trusted")

    def __init__(self, resolver: dns.resolver.Resolver, *, trusted: bool) -> None:
        self._resolver = resolver
        self._trusted = trusted

    def ask(self, name: str, kind: str) -> tuple[Answer, float]:
        question = dns.name.from_text(name)
        try:
            found = self._resolver.resolve(question, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as nothing:
            response = nothing.kwargs["responses"][question]
            return self._nothing("nxdomain", response)
        if found.rrset is None:
            return self._nothing("nodata", found.response)
        aliases = tuple(text_of(link.name) for link in found.chaining_result.cnames)
        secure = self._vouched(found.response)
        alias_secure = bool(aliases) and not secure and kind in {"A", "AAAA"} and self._is_secure_alias(question)
        records = tuple(_plain(record) for record in found.rrset) if kind == "MX" else tuple(found.rrset)
        answer = Answer("ok", records, secure, text_of(found.canonical_name), aliases, alias_secure)
        return answer, 0.0 if _is_large(found.rrset) else float(found.chaining_result.minimum_ttl)

    def _nothing(
        self, status: Literal["nodata", "nxdomain"], response: dns.message.QueryMessage
    ) -> tuple[Answer, float]:
        chain = response.resolve_chaining()
        aliases = tuple(text_of(link.name) for link in chain.cnames)
        answer = Answer(status, (), self._vouched(response), text_of(chain.canonical_name), aliases)
        # Without a SOA record nobody has said for how long (RFC 2308, 5).
        said = any(records.rdtype == dns.rdatatype.SOA for records in response.authority)
        return answer, float(chain.minimum_ttl) if said else 0.0

    def _vouched(self, response: dns.message.Message) -> bool:
        return self._trusted and bool(response.flags & dns.flags.AD)

    def _is_secure_alias(self, name: dns.name.Name) -> bool:
        """Ask whether a CNAME record is secure where what it leads to is not."""
        if not self._trusted:
            return False
        try:
            found = self._resolver.resolve(name, dns.rdatatype.CNAME, raise_on_no_answer=False, search=False)
        except dns.exception.DNSException:
            return False
        return self._vouched(found.response)


def _is_large(records: dns.rrset.RRset) -> bool:
    """Say whether an answer is too large to be remembered: anybody may have zones full of such."""
    return len(records) > _MOST_RECORDS or sum(len(record.to_digestable()) for record in records) > _MOST_OCTETS


def _plain(record: Any) -> Mx:
    return Mx(record.preference, text_of(record.exchange))


def text_of(name: dns.name.Name) -> str:
    """Write a name as the rest of the program has it: lower case, without the final dot; the root is ""."""
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


def _stamp(path: str) -> Any:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _servers_of(path: str) -> list[tuple[str, int]]:
    """Read the servers from a resolv.conf(5); where it names none, there is one on this machine."""
    servers = []
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                words = line.split()
                if len(words) > 1 and words[0] == "nameserver" and _is_address(words[1]):
                    servers.append((words[1], _PORT))
    except OSError:
        pass
    return servers or [("127.0.0.1", _PORT)]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
