"""The envelope of a client of an outbound listener: MAIL and RCPT taken apart, and put together for a remote.

The syntax is that of RFC 5321, 4.1.2, with the narrow reading of domains in ``paths``; the dots of a local part may
stand anywhere, as they do in real addresses, and what a recipient's local part means is the remote's business.
Whatever passes is made of checked parts: a line for a remote holds no control character and is bounded, whatever the
client sent.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from . import xtext
from .offer import Offer
from .paths import recipient_domain

MAX_PATH: Final = 500
"""Octets of a path with its brackets: what fits into a command line of 512 (RFC 5321, 4.5.3.1.4)."""

BAD_SENDER: Final = b"501 5.1.7 Bad sender address\r\n"
BAD_RECIPIENT: Final = b"501 5.1.3 Bad recipient address\r\n"
NEEDS_SMTPUTF8: Final = b"553 5.6.7 Address needs SMTPUTF8\r\n"
UNKNOWN_PARAMETER: Final = b"555 5.5.4 Parameter not known or malformed\r\n"
REPEATED_PARAMETER: Final = b"501 5.5.4 Parameter given twice\r\n"
TOO_BIG: Final = b"552 5.3.4 Message too big for the remote server\r\n"
NO_BINARYMIME: Final = b"554 5.6.1 Remote server takes no binary message\r\n"
NO_SMTPUTF8: Final = b"550 5.6.7 Remote server does not know SMTPUTF8\r\n"

# A sender leads nowhere, so it may be all that RFC 5321 and 6531 allow, with % and ! (VERP, SRS), but no source route.
_LOCAL_PART: Final = (
    rb"(?:[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.\x80-\xff]+"
    rb'|"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*")'
)
_LABEL: Final = rb"[A-Za-z0-9\-_\x80-\xff]+"
_DOMAIN: Final = rb"(?:" + _LABEL + rb"(?:\." + _LABEL + rb")*|\[[A-Za-z0-9:.\-]+\])"
_MAIL: Final = re.compile(
    rb"FROM:[ \t]*(<(?:" + _LOCAL_PART + rb"@" + _DOMAIN + rb")?>)(?:[ \t]+(.*))?\Z", re.IGNORECASE
)
_RCPT: Final = re.compile(
    rb"TO:[ \t]*(<(?:" + _LOCAL_PART + rb"@" + _DOMAIN + rb"|postmaster)>)(?:[ \t]+(.*))?\Z", re.IGNORECASE
)

_XTEXT_100: Final = re.compile(rb"[!-~]{1,100}")  # RFC 3461, 4.4
_XTEXT_500: Final = re.compile(rb"[!-~]{1,500}")  # RFC 4954, 5
_ORCPT: Final = re.compile(rb"[A-Za-z0-9-]{1,63};[!-~\x80-\xff]{1,436}")  # RFC 3461, 4.2; RFC 6533, 3
_CONDITION: Final = rb"(?:SUCCESS|FAILURE|DELAY)"

# The form of each parameter's value; None: it has none.
_FORMS: Final[dict[bytes, re.Pattern[bytes] | None]] = {
    b"SIZE": re.compile(rb"[0-9]{1,20}"),  # RFC 1870, 3
    b"BODY": re.compile(rb"7BIT|8BITMIME|BINARYMIME", re.IGNORECASE),  # RFC 6152, 2; RFC 3030, 3
    b"SMTPUTF8": None,  # RFC 6531, 3.4
    b"RET": re.compile(rb"FULL|HDRS", re.IGNORECASE),  # RFC 3461, 4.3
    b"ENVID": _XTEXT_100,
    b"AUTH": _XTEXT_500,
    b"NOTIFY": re.compile(rb"NEVER|" + _CONDITION + rb"(?:," + _CONDITION + rb"){0,2}", re.IGNORECASE),  # RFC 3461, 4.1
    b"ORCPT": _ORCPT,
}
_IN_XTEXT: Final = frozenset({b"ENVID", b"AUTH"})
# What a listener must have offered for each. AUTH= is taken in any case, as it is never passed on.
_OF_MAIL: Final[dict[bytes, bytes]] = {
    b"SIZE": b"SIZE",
    b"BODY": b"8BITMIME",
    b"SMTPUTF8": b"SMTPUTF8",
    b"RET": b"DSN",
    b"ENVID": b"DSN",
    b"AUTH": b"",
}
_OF_RCPT: Final[dict[bytes, bytes]] = {b"NOTIFY": b"DSN", b"ORCPT": b"DSN"}

Parameters = list[tuple[bytes, bytes]]
"""Parameters in the order in which they came: keyword in upper case, value as it came (empty: there is none)."""


class Refusal(NamedTuple):
    """Why a command cannot be given to a remote."""

    reply: bytes
    """The whole reply for the client, with CR LF."""


class Mail:
    """A MAIL command that passed."""

    __slots__ = ("body", "parameters", "path", "size", "smtputf8")

    def __init__(self, path: bytes, parameters: Parameters) -> None:
        values = dict(parameters)
        self.path = path
        """The reverse path with its brackets, as it came; ``<>`` for a bounce."""
        self.parameters = parameters
        self.size = int(values[b"SIZE"]) if b"SIZE" in values else None
        """Octets that the client declared (RFC 1870); None: it did not."""
        self.body = values.get(b"BODY", b"").upper()
        """The value of BODY in upper case; empty if there is none (RFC 6152)."""
        self.smtputf8 = b"SMTPUTF8" in values
        """Whether the transaction is an internationalised one (RFC 6531)."""


class Rcpt:
    """A RCPT command that passed."""

    __slots__ = ("domain", "parameters", "path")

    def __init__(self, path: bytes, domain: str, parameters: Parameters) -> None:
        self.path = path
        """The forward path with its brackets, as it came."""
        self.domain = domain
        """As ``paths.recipient_domain`` gives it: lower case, or ``postmaster``."""
        self.parameters = parameters


def parse_mail(argument: bytes, offered: frozenset[bytes]) -> Mail | bytes:
    """Take the argument of MAIL apart; give the reply that refuses it, with CR LF, if it cannot be passed on.

    ``offered``: the extensions that the listener offered, in upper case; parameters of any other are refused
    (RFC 5321, 4.1.1.11), and so is REQUIRETLS, which a relay without a queue cannot answer for.
    """
    match = _MAIL.match(argument)
    if match is None or len(match[1]) > MAX_PATH or not _is_utf8(match[1]):
        return BAD_SENDER
    parameters = _parameters(match[2] or b"", _OF_MAIL, offered)
    if isinstance(parameters, bytes):
        return parameters
    mail = Mail(match[1], parameters)
    if mail.body == b"BINARYMIME" and not offered >= {b"BINARYMIME", b"CHUNKING"}:
        return UNKNOWN_PARAMETER
    if not mail.smtputf8 and not mail.path.isascii():
        return NEEDS_SMTPUTF8
    return mail


def parse_rcpt(argument: bytes, offered: frozenset[bytes], *, smtputf8: bool) -> Rcpt | bytes:
    """Take the argument of RCPT apart, as ``parse_mail`` does; ``smtputf8``: whether MAIL had that parameter.

    A recipient without a domain that all servers would read alike is refused (``paths.recipient_domain``).
    """
    match = _RCPT.match(argument)
    if match is None or len(match[1]) > MAX_PATH or not _is_utf8(match[1]):
        return BAD_RECIPIENT
    # Where it leads decides its domain alone: what the local part may mean is the remote's business.
    local, _, host = match[1][1:-1].rpartition(b"@")
    domain = recipient_domain(b"TO:<" + (b"x@" if local else b"") + host + b">")
    if domain is None:
        return BAD_RECIPIENT
    parameters = _parameters(match[2] or b"", _OF_RCPT, offered)
    if isinstance(parameters, bytes):
        return parameters
    if not smtputf8 and not match[1].isascii():
        return NEEDS_SMTPUTF8
    if not smtputf8 and not all(value.isascii() for _, value in parameters):
        return UNKNOWN_PARAMETER
    return Rcpt(match[1], domain, parameters)


def mail_line(mail: Mail, offer: Offer, message_octets: int | None) -> bytes | Refusal:
    """Give the MAIL command, with CR LF, for a remote with this offer; or why that remote cannot have the message.

    ``message_octets``: the size of the message (RFC 1870, 3: each line end two octets, no stuffed dots), None if it
    is not wholly here; then the size that the client declared counts.

    What the remote does not offer is treated so:

    - SIZE, BODY=7BIT and BODY=8BITMIME are left out: an 8-bit message is sent as it is, as most relays do.
    - BODY=BINARYMIME and SMTPUTF8 are refused: the message itself would be damaged or misread (RFC 3030, 3; RFC 6531,
      3.6). SMTPUTF8 is refused even where the envelope is plain ASCII, as the header may need it.
    - RET and ENVID are left out (and NOTIFY and ORCPT of RCPT): RFC 3461, 5.2.2 then asks the relay for a "relayed"
      notification, which one without a queue cannot promise; so DSN is offered to clients only where a route says
      that its remotes know it.

    AUTH= is left out: without authentication towards the remote it would not be trusted (RFC 4954, 5).
    """
    size = mail.size if message_octets is None else message_octets
    if size is not None and offer.size and size > offer.size:
        return Refusal(TOO_BIG)
    if mail.body == b"BINARYMIME" and not offer.binarymime:
        return Refusal(NO_BINARYMIME)
    if mail.smtputf8 and not offer.smtputf8:
        return Refusal(NO_SMTPUTF8)
    return _line(b"MAIL FROM:" + mail.path, _for_remote(mail, offer, message_octets))


def rcpt_line(rcpt: Rcpt, offer: Offer) -> bytes:
    """Give the RCPT command, with CR LF, for a remote with this offer; NOTIFY and ORCPT only where it has DSN.

    That the remote has SMTPUTF8, if the transaction needs it, is seen to by ``mail_line``.
    """
    return _line(b"RCPT TO:" + rcpt.path, rcpt.parameters if offer.dsn else [])


def extensions_needed(
    mail: Mail, rcpts: list[Rcpt], offer: Offer, message_octets: int | None = None
) -> frozenset[bytes]:
    """Give the extensions that the lines made for this (assumed) offer make use of (rule C3).

    The lines may stand if the remote's true offer has them all, and its limit of SIZE allows the message.
    """
    used = {_OF_MAIL[keyword] for keyword, _ in _for_remote(mail, offer, message_octets)}
    if mail.body == b"BINARYMIME":
        used = used - {b"8BITMIME"} | {b"BINARYMIME", b"CHUNKING"}
    if offer.dsn and any(rcpt.parameters for rcpt in rcpts):
        used.add(b"DSN")
    return frozenset(used)


def _for_remote(mail: Mail, offer: Offer, message_octets: int | None) -> Parameters:
    """Give the parameters of MAIL that go to a remote with this offer."""
    known = {
        b"SIZE": offer.size is not None,
        b"BODY": offer.eightbitmime or mail.body == b"BINARYMIME",
        b"SMTPUTF8": True,
        b"RET": offer.dsn,
        b"ENVID": offer.dsn,
        b"AUTH": False,
    }
    passed = [(keyword, value) for keyword, value in mail.parameters if known[keyword]]
    if message_octets is None or offer.size is None:
        return passed
    others = [(keyword, value) for keyword, value in passed if keyword != b"SIZE"]
    return [(b"SIZE", b"%d" % message_octets), *others]


def _parameters(text: bytes, known: dict[bytes, bytes], offered: frozenset[bytes]) -> Parameters | bytes:
    """Give the parameters in ``text``, or the reply that refuses them (RFC 5321, 4.1.2)."""
    parameters: Parameters = []
    seen = set()
    for word in text.split():
        keyword, equals, value = word.partition(b"=")
        keyword = keyword.upper()
        extension = known.get(keyword)
        if extension is None or (extension and extension not in offered) or not _is_well_formed(keyword, equals, value):
            return UNKNOWN_PARAMETER
        if keyword in seen:
            return REPEATED_PARAMETER
        seen.add(keyword)
        parameters.append((keyword, value))
    return parameters


def _is_well_formed(keyword: bytes, equals: bytes, value: bytes) -> bool:
    form = _FORMS[keyword]
    if form is None:
        return not equals
    if form.fullmatch(value) is None or not _is_utf8(value):
        return False
    return keyword not in _IN_XTEXT or xtext.decode(value) is not None


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _line(command: bytes, parameters: Parameters) -> bytes:
    return b"".join([command, *(b" %s=%s" % p if p[1] else b" " + p[0] for p in parameters), b"\r\n"])
