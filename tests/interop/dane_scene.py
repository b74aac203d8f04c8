"""Domains with and without DANE, each a case of RFC 7672, in zones that are really signed; one Exim that all of their
MX hosts are; and smtpproxies that find it by MX look-up.

A domain's name says what is special, and its host has the same: ``wrong.dane.test`` has ``mx.wrong.dane.test``.
"""

from __future__ import annotations

import contextlib
import re
import smtplib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .clients import post
from .lab import open_folder
from .messages import Sample, sample
from .outbound_exim import EximRemote, exim_remote
from .proxy import LOG, Proxy, Settings, running
from .relay import RecordingRelay, recording_relay
from .signed_dns import EXPIRED, SignedDns, Zone, signed_dns, tool
from .sink import Sink, smtp_sink

NAMED = ("mx.anchor-cert.dane.test", "mx.anchor-key.dane.test", "anchor-domain.dane.test")
"""The names in Exim's certificate: two hosts, and a domain whose host has another name."""

NSEC3 = ("-n", "-t", "0")
OPT_OUT = "-p"
WRONG = f"3 1 1 {'00' * 32}"
OTHER = f"3 1 1 {'11' * 32}"


class Records:
    """Writes the records of domains whose hosts are on one port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.port = port

    def at(self, host: str, *tlsa: str) -> list[str]:
        """TLSA records of a host."""
        return [f"_{self.port}._tcp.{host} TLSA {each}" for each in tlsa]

    def domain(self, name: str, *tlsa: str) -> list[str]:
        """A domain with one MX host, which has these TLSA records."""
        return [f"{name} MX 10 mx.{name}", *self.host(f"mx.{name}", *tlsa)]

    def host(self, name: str, *tlsa: str) -> list[str]:
        """A host with these TLSA records."""
        return [f"{name} A 127.0.0.1", *self.at(name, *tlsa)]


def tlsa(usage: int, selector: int, matching: int, certificate: Any) -> str:
    """The data of a TLSA record about a certificate (a file), as ldns-dane writes it."""
    # It would look for the certificate of an anchor in the system's store; the hash is made in the same way.
    create = ["create", "any.test", "25", "3", str(selector), str(matching)]
    command = [str(tool("bin/ldns-dane")), "-n", "-c", str(certificate), *create]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"{usage} {selector} {matching} {made.split()[-1]}"


def signed_domains(exim: Records, clear: Records, pair: Any, anchor: Any) -> list[str]:
    """All that is in ``dane.test``; ``clear``: a server that has no TLS. ``anchor``: the authority of ``pair``."""
    right, below = tlsa(3, 1, 1, pair.cert), tlsa(2, 1, 1, anchor.path)
    return [
        # DANE-EE, and DANE-TA where the certificate has the name of the host or of the domain
        *exim.domain("key", right),
        *exim.domain("certificate", tlsa(3, 0, 2, pair.cert)),
        *exim.domain("renewal", WRONG, right),
        *exim.domain("anchor-cert", tlsa(2, 0, 1, anchor.path)),
        *exim.domain("anchor-key", below),
        *exim.domain("anchor-domain", below),
        # CNAMEs: of the domain, of the host (RFC 7672, 2.2.2 and 2.2.3), of the TLSA records; wildcards
        "moved CNAME anchor-domain",
        *["alias MX 10 www.alias", "www.alias CNAME mx.alias"],
        *[*exim.host("mx.alias", right), *exim.at("www.alias", WRONG)],
        *["first-name MX 10 www.first-name", "www.first-name CNAME mx.first-name"],
        *[*exim.host("mx.first-name"), *exim.at("www.first-name", right)],
        *["half MX 10 www.half", "www.half CNAME mx.plain.test.", *exim.at("www.half", right)],
        *[line.replace(" TLSA ", " CNAME ") for line in exim.domain("pointing", "tlsa.pointing")],
        f"tlsa.pointing TLSA {right}",
        *[*exim.domain("star"), f"*._tcp.mx.star TLSA {right}"],
        # hosts: the domain itself; the second one
        *exim.host("itself", right),
        *["second MX 10 mx.wrong", "second MX 20 mx.key"],
        # nothing to go by: none; no usable ones; ones that nobody vouches for; and who has none need not be asked
        *exim.domain("without"),
        *exim.domain("useless", tlsa(1, 1, 1, pair.cert)),
        *exim.domain("loose"),
        "lame MX 10 mx.lame.plain.test.",
        # what must not be used
        *exim.domain("wrong", WRONG),
        *exim.domain("anchor-misnamed", below),
        *exim.domain("anchor-other", "2" + OTHER[1:]),
        *clear.domain("clear", right),
        *exim.domain("mute"),
        # what somebody has changed: see `forge`
        *exim.domain("forged-tlsa", OTHER),
        *exim.domain("hidden-tlsa", right),
        *["forged-mx MX 10 mx.forged-mx", *exim.host("mx.forged-mx", right)],
        *["forged-address MX 10 mx.forged-address", "mx.forged-address A 127.0.0.2"],
    ]


def forge(text: str) -> str:
    """Change the signed zone ``dane.test``, as somebody would who wants the mail."""
    text = re.sub(r"(?m)^(\S+\.mx\.forged-tlsa\.\S+\s.*TLSA\s+3 1 1 )\S+$", rf"\g<1>{'22' * 32}", text)
    text = re.sub(r"(?m)^\S+\.mx\.hidden-tlsa\.\S+\s+\d+\s+IN\s+(RRSIG\s+)?TLSA\s.*\n", "", text)
    text = text.replace("10 mx.forged-mx.dane.test.", "10 mx.plain.test.")
    return text.replace("127.0.0.2", "127.0.0.1")


def all_zones(exim: Records, clear: Records, pair: Any, anchor: Any) -> list[Zone]:
    """From the root down."""
    right = tlsa(3, 1, 1, pair.cert)
    hashed = [*exim.domain("key", right), *exim.domain("without"), *exim.domain("wrong", WRONG)]
    plain = ["@ MX 10 mx", *exim.host("mx", WRONG), *exim.host("mx.lame"), "borrowing MX 10 mx.wrong.dane.test."]
    return [
        Zone(".", []),
        Zone("test", ["ns A 127.0.0.1"]),
        Zone("dane.test", signed_domains(exim, clear, pair, anchor), tampered=forge),
        Zone("hashed.test", hashed, signing=NSEC3),
        Zone("optout.test", hashed, signing=(*NSEC3, OPT_OUT)),
        Zone("expired.test", ["@ MX 10 mx", *exim.host("mx", right)], signing=EXPIRED),
        Zone("plain.test", plain, signing=None),
        Zone("_tcp.mx.lame.plain.test", None),
        Zone("_tcp.mx.mute.dane.test", None),
        Zone("_tcp.mx.loose.dane.test", [f"_{exim.port} TLSA {WRONG}"], signing=None),
    ]


class DaneSmarthost(Proxy):
    """A running smtpproxy that looks everything up."""

    def configure(self, scene: Scene, trust: str, ca: Any) -> None:
        """Take the servers, `dns.trust_ad`, and the file of the authorities that count without DANE."""
        self.scene, self.trust, self.ca = scene, trust, ca

    def configuration(self) -> Settings:
        """What the YAML file says."""
        usual = {"lookup": "mx", "reuse": False, "tls": {"mode": "opportunistic", "ca": str(self.ca)}}
        listener = {"name": "smarthost", "mode": "outbound", "hostname": "smarthost.lab.test"}
        return {
            "listeners": [{**listener, "listen": [f"127.0.0.1:{self.port}"]}],
            "routes": [
                {"domain": "clear.dane.test", "port": self.scene.sink.port, **usual},
                {"domain": "*", "port": self.scene.line.port, **usual},
            ],
            "cache": {"store": "memory:"},
            "dns": {"servers": [f"127.0.0.1:{self.scene.dns.port}"], "trust_ad": self.trust},
            "log": LOG,
        }


@dataclass
class Scene:
    """The servers. Exim is reached through a recorder, whose port is that of the hosts."""

    dns: SignedDns
    exim: EximRemote
    line: RecordingRelay
    sink: Sink

    @contextlib.contextmanager
    def smarthost(self, trust: str, ca: Any) -> Iterator[DaneSmarthost]:
        """A started smtpproxy; stopped at the end, which is part of the test."""
        with open_folder("dane") as folder:
            instance = DaneSmarthost(folder, [])
            instance.configure(self, trust, ca)
            with running(instance):
                yield instance


@contextlib.contextmanager
def scene(pki: Any) -> Iterator[Scene]:
    """All of it, but for the smtpproxies; stopped at the end."""
    anchor = pki.ca("Anchor", parent=pki.root)
    pair = pki.pair(NAMED, ca=anchor)
    with contextlib.ExitStack() as stack:
        exim = stack.enter_context(exim_remote(pair))
        sink = stack.enter_context(smtp_sink())
        line = stack.enter_context(recording_relay(exim.port))
        zones = all_zones(Records(line.port), Records(sink.port), pair, anchor)
        yield Scene(stack.enter_context(signed_dns(zones)), exim, line, sink)


@dataclass
class Outcome:
    """What became of a message: the last reply to it."""

    message: Sample
    code: int
    text: str


def hand_over(smarthost: Proxy, recipient: str) -> Outcome:
    """Give a message to an smtpproxy, as a mail server does."""
    message = sample()
    try:
        post(smarthost.port, message, recipient)
    except smtplib.SMTPRecipientsRefused as refused:
        code, text = refused.recipients[recipient]
    except smtplib.SMTPDataError as refused:
        code, text = refused.smtp_code, refused.smtp_error
    else:
        return Outcome(message, 250, "")
    return Outcome(message, code, text.decode() if isinstance(text, bytes) else text)
