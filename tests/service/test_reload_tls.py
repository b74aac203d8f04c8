"""Certificates that come and go: at a start, at a reload, and when their files change."""

from __future__ import annotations

import shutil
import signal
import ssl
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from .client import Client
from .conftest import MakeMta, MakeProxy
from .process import Process
from .tlstools import client_context, with_tls
from .waiting import STARTING


class Files:
    """A certificate and its key in one place, where others can be put."""

    def __init__(self, folder: Path, pair: Any) -> None:
        self.cert = folder / "mx.pem"
        self.key = folder / "mx.key"
        self.put(pair)

    def put(self, pair: Any) -> None:
        """Renew both, as an administrator does who copies them."""
        shutil.copy(pair.cert, self.cert)
        shutil.copy(pair.key, self.key)


def shown(process: Process, context: ssl.SSLContext) -> bytes:
    """The certificate that a new client sees."""
    with Client(process.address()) as client:
        client.secure(context)
        certificate = client.tls.getpeercert(binary_form=True)
        assert certificate is not None
        assert client.begin().code(b"QUIT") == 221
        return certificate


def der(pair: Any) -> bytes:
    certificate: bytes = pair.certificate.public_bytes(Encoding.DER)
    return certificate


def test_sighup_with_a_new_pair_with_a_broken_one_and_with_one_that_is_gone(
    proxy: MakeProxy, mta: MakeMta, pki: Any, tmp_path: Path
) -> None:
    """The old one stays until there is a better one; sessions of before go on, and can be resumed after."""
    first, second = pki.pair(), pki.pair()
    files, server, process = Files(tmp_path, first), mta(), proxy()
    tls = with_tls(files, "implicit", reread="1 h")
    process.simple([server.endpoint], tls=tls)
    process.start()
    context = client_context(pki)
    assert shown(process, context) == der(first)
    with Client(process.address()) as live:
        live.secure(context).begin()
        session = live.tls.session

        files.put(second)
        process.signal(signal.SIGHUP)
        process.wait_for("reloaded")
        assert shown(process, context) == der(second)
        assert live.code(b"NOOP") == 250
        with Client(process.address()) as client:
            client.secure(context, session=session)
            assert client.tls.session_reused, "by the ticket of before"

        files.key.write_text(first.key.read_text())
        process.signal(signal.SIGHUP)
        process.wait_for("reloaded", 2)
        (refused,) = process.wait_for("certificate_refused")
        assert refused["owner"] == "listener mx"
        assert str(tmp_path) in refused["file"]
        assert refused["why"]
        assert refused["level"] == "error"
        assert shown(process, context) == der(second)

        files.cert.unlink()
        process.signal(signal.SIGHUP)
        process.wait_for("certificate_refused", 2)
        process.wait_for("reloaded", 3)
        assert shown(process, context) == der(second)

        process.simple([server.endpoint], tls={**tls, "ciphersuites": "TLS_NO_SUCH"})
        process.signal(signal.SIGHUP)
        (refusal,) = process.wait_for("reload_refused")
        assert "ciphersuites" in refusal["why"]
        assert live.code(b"NOOP") == 250
        assert live.code(b"QUIT") == 221
    process.stop()
    assert process.events("internal_error") == []
    assert [event["names"] for event in process.events("certificate_loaded")] == [["mx.example.org"]] * 2


def test_files_are_read_again_when_they_change(proxy: MakeProxy, mta: MakeMta, pki: Any, tmp_path: Path) -> None:
    """Without a signal; as certbot renews them, by other links, one after the other; and not while they do not fit."""
    first, second = pki.pair(), pki.pair(days=5)
    cert, key = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    cert.symlink_to(first.cert)
    key.symlink_to(first.key)
    process = proxy()
    tls = {"mode": "implicit", "certificates": [{"cert": str(cert), "key": str(key)}], "reread": "100 ms"}
    process.simple([mta().endpoint], tls=tls)
    process.start()
    context = client_context(pki)
    assert shown(process, context) == der(first)
    link_anew(cert, second.cert)
    process.wait_for("certificate_refused")
    assert shown(process, context) == der(first)
    link_anew(key, second.key)
    process.wait_for("certificate_loaded", 2)
    assert shown(process, context) == der(second)
    process.stop()
    assert len(process.events("certificate_refused")) == 1, "what is no good is refused once"


def link_anew(link: Path, target: Path) -> None:
    """Let a link lead elsewhere; there is never none, which would be another reason to refuse."""
    other = link.with_suffix(".new")
    other.symlink_to(target)
    other.replace(link)


def test_a_certificate_that_ends_soon_is_warned_of_at_the_start(proxy: MakeProxy, mta: MakeMta, pki: Any) -> None:
    soon, late = pki.pair(days=10), pki.pair(["other.example.org"], days=15)
    process = proxy()
    tls = with_tls(soon, "starttls")
    tls["certificates"].append({"cert": str(late.cert), "key": str(late.key)})
    process.simple([mta().endpoint], tls={**tls, "profile": "old"})
    process.start()
    (warning,) = process.wait_for("certificate_expires")
    assert (warning["owner"], warning["file"], warning["days"]) == ("listener mx", str(soon.cert), 10)
    assert datetime.fromisoformat(warning["until"]) == soon.certificate.not_valid_after_utc
    (old,) = process.wait_for("tls_profile_old")
    assert (old["owner"], old["level"]) == ("listener mx", "warning")
    process.stop()


def run(process: Process) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "smtpproxy", "run", "-c", str(process.file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=STARTING, check=False)


@pytest.mark.parametrize("fault", ["no file", "another key", "the ca of the server"])
def test_what_prevents_a_start_is_said_in_one_line(
    proxy: MakeProxy, mta: MakeMta, pki: Any, tmp_path: Path, fault: str
) -> None:
    files, process = Files(tmp_path, pki.pair()), proxy()
    backend: dict[str, Any] = {}
    named = files.cert
    if fault == "no file":
        files.key.unlink()
        named = files.key
    elif fault == "another key":
        files.key.write_text(pki.pair().key.read_text())
    else:
        named = tmp_path / "ca.pem"
        backend["tls"] = {"mode": "starttls", "ca": str(named)}
    process.simple([mta().endpoint], tls=with_tls(files, "starttls"), backend=backend)
    outcome = run(process)
    assert outcome.returncode == 1
    assert str(named) in outcome.stderr.splitlines()[-1]
    assert "Traceback" not in outcome.stderr
    mistakes = [line for line in outcome.stderr.splitlines() if not line.startswith("{")]
    assert len(mistakes) == 1
