"""Names: of hosts, of recipient domains (in each spelling that a client may use)."""

import ipaddress
import re
from typing import Final

import idna

from smtpproxy.config.problem import quoted

__all__ = ["domain_spellings", "is_hostname"]

_LONGEST_NAME: Final = 253
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)


def is_hostname(text: str) -> bool:
    """Tell whether a text is an ASCII host name: labels of letters, digits, hyphens (RFC 1123, 2.1).

    Underscores are let through: they are no better than they should be, but they exist.
    """
    return 0 < len(text) <= _LONGEST_NAME and all(map(_LABEL.fullmatch, text.split(".")))


def domain_spellings(text: str) -> tuple[str, ...]:
    """Give every spelling, in lower case, in which a recipient's domain may arrive.

    That is one for a domain in ASCII or an address literal (``[192.0.2.1]``, RFC 5321, 4.1.3), and two for
    an internationalised one: the A-label form and the U-label form (RFC 5890; RFC 6531, 3.2), whichever was
    written. Raises ValueError, in words for an administrator, if the text is no domain.
    """
    if text.startswith("[") and text.endswith("]"):
        return (_literal(text),)
    if "@" in text:
        raise ValueError(f"a domain is expected, the part behind the @, not the address {quoted(text)}")
    if text.startswith((".", "*")):
        raise ValueError(f"each domain is written out, without wildcard: {quoted(text)} is none")
    try:
        ascii_form = idna.encode(text, uts46=True).decode("ascii").lower() if _international(text) else text.lower()
        unicode_form = idna.decode(ascii_form) if "xn--" in ascii_form else ascii_form
    except idna.IDNAError as error:
        raise ValueError(f"{quoted(text)} is no domain: {error}") from None
    if not is_hostname(ascii_form):
        raise ValueError(f"{quoted(text)} is no domain: letters, digits and hyphens are expected, with dots between")
    return (ascii_form,) if unicode_form == ascii_form else (ascii_form, unicode_form)


def _international(text: str) -> bool:
    return not text.isascii()


def _literal(text: str) -> str:
    inner = text[1:-1].lower()
    try:
        if inner.startswith("ipv6:"):
            ipaddress.IPv6Address(inner.removeprefix("ipv6:"))
        else:
            ipaddress.IPv4Address(inner)
    except ValueError:
        raise ValueError(
            f"{quoted(text)} is no address literal: [192.0.2.1] or [IPv6:2001:db8::1] is expected"
        ) from None
    return text.lower()
