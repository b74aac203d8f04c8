"""Clients of a smarthost inside TLS: Postfix, Exim, OpenSMTPD, msmtp; by STARTTLS, by TLS from the first octet on, and
by LMTP.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from freeports import free_port

from .clients import post
from .conftest import MakeExim
from .fronts import tls
from .lab import Process, lab_folder, open_folder, program, wait_for
from .messages import Sample, assert_intact, sample
from .opensmtpd import OpenSmtpd
from .outbound_clients import relaying_postfix
from .outbound_smarthost import Smarthost, Way
from .postfix import Postfix
from .programs import Finished, run, shown
from .proxy import Settings, running
from .test_exim import assert_delivered

pytestmark = pytest.mark.interop

KINDS = ("starttls", "implicit", "lmtp")
by_kind = pytest.mark.parametrize("kind", KINDS)


class TlsSmarthost(Smarthost):
    """One with a listener for each kind."""

    pair: Any

    def configuration(self) -> Settings:
        """What the YAML file says."""
        self.ports = {"starttls": self.port, "lmtp": self.lmtp, "implicit": free_port()}
        listeners = [
            {
                "name": kind,
                "listen": [f"127.0.0.1:{port}"],
                "mode": "outbound",
                "hostname": "smarthost.lab.test",
                "protocol": "lmtp" if kind == "lmtp" else "smtp",
                **tls("implicit" if kind == "implicit" else "starttls-required", self.pair),
            }
            for kind, port in self.ports.items()
        ]
        return {**super().configuration(), "listeners": listeners}

    def came(self, kind: str, message: Sample, server: Postfix, *recipients: str) -> None:
        """Wait for a message, and for the session of its client in the log, which was inside TLS."""

        def look() -> list[dict[str, Any]]:
            deliveries = [event for event in self.events("delivery") if event["to"][1:-1] in recipients]
            numbers = {event["session"] for event in deliveries}
            return [event for event in self.events("session") if event["session"] in numbers]

        assert_intact(server.delivered(), message, recipients)
        (session,) = wait_for(look, f"the session of {message.token} in the log")
        assert (session["listener"], session["tls"]) == (kind, "TLSv1.3")


@pytest.fixture(scope="module")
def house(postfix_plain: Postfix, server_pair: Any) -> Iterator[TlsSmarthost]:
    """A smarthost to whose remote all domains lead; each is a destination of its own."""
    with open_folder("smarthost") as folder:
        made = TlsSmarthost(folder, [])
        made.pair = server_pair
        clients = ("msmtp", "opensmtpd", "postfix", "exim")
        domains = [f"{name}.{client}.{kind}.test" for client in clients for kind in KINDS for name in ("one", "two")]
        made.configure({domain: Way(postfix_plain.port, direct=True) for domain in domains}, {}, {})
        with running(made):
            yield made


def recipients(client: str, kind: str) -> tuple[str, ...]:
    """Whom a client writes to: by LMTP at two domains."""
    return tuple(f"user@{name}.{client}.{kind}.test" for name in ("one", "two")[: 1 + (kind == "lmtp")])


def msmtp(house: TlsSmarthost, kind: str, anchor: Path, message: Sample) -> Finished:
    """One message by msmtp, which verifies the certificate."""
    settings = {
        "account": "default",
        "host": "localhost",
        "port": house.ports[kind],
        "protocol": "lmtp" if kind == "lmtp" else "smtp",
        "from": "sender@lab.test",
        "tls": "on",
        "tls_starttls": "off" if kind == "implicit" else "on",
        "tls_trust_file": anchor,
    }
    file = house.folder / "msmtprc"
    file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()), "ascii")
    return run(str(program("msmtp")), "-C", str(file), *recipients("msmtp", kind), data=message.text)


@by_kind
def test_msmtp(house: TlsSmarthost, postfix_plain: Postfix, lasting_pki: Any, pki: Any, kind: str) -> None:
    """It comes if it trusts us, and only then."""
    message = sample()
    done = msmtp(house, kind, pki.root.path, message)
    assert done.returncode == os.EX_UNAVAILABLE, shown(done)
    assert b"certificate" in done.stderr
    done = msmtp(house, kind, lasting_pki.root.path, message)
    assert (done.returncode, done.stderr) == (0, b"")
    house.came(kind, message, postfix_plain, *recipients("msmtp", kind))


@dataclass
class OpenSmtpdInsideTls(OpenSmtpd):
    """An OpenSMTPD that hands everything on to a URL, by TLS; of the authorities it knows only the system's."""

    url: str = ""

    def start(self) -> None:
        """Write the configuration and start; returns when the port is listened on."""
        listen = f"listen on 127.0.0.1 port {self.port} hostname client.lab.test\n"
        relay = f"action out relay host {self.url} tls no-verify\nmatch from any for any action out\n"
        (self.folder / "smtpd.conf").write_text(listen + relay, encoding="ascii")
        script = Path(__file__).with_name("opensmtpd_namespace.sh")
        command = [str(program("unshare")), "-m", "sh", str(script), str(lab_folder()), str(self.folder)]
        self.process = Process(command, self.folder / "smtpd.log")
        self.process.wait_listening(self.port)


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
def test_opensmtpd(house: TlsSmarthost, postfix_plain: Postfix, opensmtpd_plain: OpenSmtpd, kind: str) -> None:
    assert opensmtpd_plain.port  # it can be run here
    scheme = {"starttls": "smtp+tls", "implicit": "smtps"}[kind]
    with open_folder("opensmtpd") as folder:
        client = OpenSmtpdInsideTls(folder, url=f"{scheme}://127.0.0.1:{house.ports[kind]}")
        try:
            client.start()
            message = sample()
            post(client.port, message, *recipients("opensmtpd", kind))
            wait_for(lambda: 'result="Ok"' in client.log(), f"the delivery in\n{client.log()}")
            # It keeps its session open for a while.
            client.stop()
            house.came(kind, message, postfix_plain, *recipients("opensmtpd", kind))
        finally:
            client.stop()


@by_kind
def test_postfix(house: TlsSmarthost, postfix_plain: Postfix, lasting_pki: Any, kind: str) -> None:
    """It verifies the certificate."""
    protocol = "lmtp" if kind == "lmtp" else "smtp"
    nexthop = {"lmtp": f"inet:127.0.0.1:{house.lmtp}"}.get(kind, f"[127.0.0.1]:{house.ports[kind]}")
    settings = {
        f"{protocol}_tls_security_level": "secure",
        f"{protocol}_tls_secure_cert_match": "mx.lab.test",
        f"{protocol}_tls_CAfile": str(lasting_pki.root.path),
        f"{protocol}_tls_wrappermode": "yes" if kind == "implicit" else "no",
        f"{protocol}_tls_loglevel": "1",
    }
    with relaying_postfix(f"{protocol}:{nexthop}", settings) as client:
        message = sample()
        post(client.port, message, *recipients("postfix", kind))
        client.emptied()
        house.came(kind, message, postfix_plain, *recipients("postfix", kind))
        assert "Verified TLS connection established to 127.0.0.1" in client.log()


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
def test_exim(
    house: TlsSmarthost, make_exim: MakeExim, postfix_plain: Postfix, lasting_pki: Any, kind: Literal["starttls"]
) -> None:
    """It verifies the certificate, and pipelines early with us from the second session on."""
    client = make_exim(house.ports[kind], tls=kind, anchor=lasting_pki.root.path)
    for number, name in enumerate(("one", "two")):
        message, to = sample(), f"user@{name}.exim.{kind}.test"
        delivery = client.send(message, to)
        assert_delivered(delivery, client)
        assert delivery.early is bool(number)
        house.came(kind, message, postfix_plain, to)
