"""The recipes of docs/smarthost.md and of the README, word for word: Postfix, Exim, OpenSMTPD and msmtp hand their mail
to smtpproxy, which runs as the pages say.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtpproxy.cli import main

from . import transparent_exim as exim
from .lab import STARTING, Process, lab_folder, open_folder, program, unpacked, wait_for
from .machine_postfix import MachinePostfix, give, postfix_on
from .messages import Sample, sample
from .namespaces import Machine
from .opensmtpd import OpenSmtpd
from .outbound_page_scene import EVERYBODY, NOWHERE, REFUSED, House, blocks
from .outbound_page_scene import house as made_house
from .outbound_smarthost import harmless
from .postfix import Settings

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def house(server_pair: Any) -> Iterator[House]:
    """smtpproxy, by the five-minute way."""
    configuration, commands = blocks("## The five-minute way")
    with made_house(server_pair) as made:
        made.serve(configuration, commands)
        yield made


# --- Postfix --------------------------------------------------------------------------------------------------------


def main_cf(text: str) -> Settings:
    """The settings in lines of main.cf."""
    return dict(re.findall(r"^(\w+) = (.*)$", text, re.MULTILINE))


@pytest.fixture(scope="module", params=["lmtp", "smtp"])
def postfix(request: pytest.FixtureRequest, house: House) -> Iterator[MachinePostfix]:
    """Postfix, as the page has it; TLS that it would like to have does no harm."""
    settings = main_cf(blocks("### Postfix")[("lmtp", "smtp").index(request.param)])
    assert next(iter(settings)) == {"lmtp": "default_transport", "smtp": "relayhost"}[request.param]
    with postfix_on(house.machine, {**settings, "smtp_tls_security_level": "may"}) as server:
        yield server


def test_postfix(house: House, postfix: MachinePostfix) -> None:
    """Everybody has the message at once, and a verdict of their own with the words of their server."""
    message = sample()
    postfix.take(message, *EVERYBODY, "bob@one.example", REFUSED, NOWHERE)
    for to in (*EVERYBODY, "bob@one.example"):
        assert postfix.outcome(message, to).startswith("status=sent (250"), postfix.log()
    assert " said: 550 5.1.1 no such user " in postfix.outcome(message, REFUSED)
    assert " said: 550 5.1.2 nowhere.example: no such domain " in postfix.outcome(message, NOWHERE)
    done = house.delivered(message, *EVERYBODY, "bob@one.example")
    # By SMTP a message to many people at one domain is sent once for each.
    assert len(done) == (3 if "lmtp" in postfix.settings["default_transport"] else 4)
    assert "status=deferred" not in postfix.log()


# --- Exim -----------------------------------------------------------------------------------------------------------


def exim_at(house: House, folder: Path, changes: dict[str, str]) -> exim.EximThere:
    """Exim with the router and the transport of the page, and its changes."""
    text = blocks("### Exim")[0]
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    text = text.replace("# begin", "begin")
    settings = "local_from_check = false\ndomainlist local_domains = mail.example.org\n"
    return exim.EximThere(house.machine, folder, f"primary_hostname = mail.example.org\n{settings}{text}")


def hand_to(client: exim.EximThere, message: Sample, *recipients: str) -> list[str]:
    """Let it try once to deliver a message; gives what it has logged."""
    before = len(client.log())
    command = client.command("-odf", "-oi", "-f", "sender@lab.test", *recipients)
    subprocess.run(command, input=message.text, capture_output=True, check=True)
    return client.log()[before:]


def verdicts(log: list[str]) -> dict[str, str]:
    """What became of each recipient of the message that came first, as a line of Exim's log says."""
    number = log[0].split()[2]
    found = [re.search(rf" {number} (=>|->|==|\*\*) (\S+@\S+) ", line) for line in log]
    return {seen[2]: seen[1] for seen in found if seen}


SMTP = {"  protocol = lmtp\n": "", "port = 2526\n": "port = 2525\n" + blocks("### Exim")[1]}


@pytest.mark.parametrize("changes", [{}, SMTP], ids=["lmtp", "smtp"])
def test_exim(house: House, changes: dict[str, str]) -> None:
    """Everybody has the message at once."""
    with open_folder("exim") as folder:
        client = exim_at(house, folder, changes)
        message = sample()
        log = hand_to(client, message, *EVERYBODY, REFUSED)
        found = verdicts(log)
        assert found.pop(REFUSED) == "**", log
        assert set(found) == set(EVERYBODY), log
        assert set(found.values()) <= {"=>", "->"}, log
        assert any("550 5.1.1 no such user" in line for line in log)
        house.delivered(message, *EVERYBODY)


def test_exim_pipelines_early_with_us(house: House) -> None:
    """With the setting that the page has in its text."""
    (setting,) = re.findall(r"`(hosts_pipe_connect =\s127\.0\.0\.1)`", page())
    changes = {**SMTP, "  allow_localhost\n": f"  allow_localhost\n  {' '.join(setting.split())}\n"}
    with open_folder("exim") as folder:
        client = exim_at(house, folder, changes)
        for number in range(2):
            message = sample()
            (line,) = [line for line in hand_to(client, message, EVERYBODY[0]) if " => " in line]
            assert (" L* " in line) is bool(number), line
            house.delivered(message, EVERYBODY[0])


def page() -> str:
    """The part of the page about Exim."""
    text = Path(__file__).resolve().parents[2].joinpath("docs/smarthost.md").read_text("utf-8")
    return text[text.index("### Exim") : text.index("### OpenSMTPD")]


# --- OpenSMTPD ------------------------------------------------------------------------------------------------------


class OpenSmtpdThere(OpenSmtpd):
    """One on the machine of the page, which does as that says."""

    machine: Machine

    def start(self) -> None:
        """Write the configuration and start; returns when its port is listened on there."""
        (recipe,) = blocks("### OpenSMTPD")
        listen = f"listen on 127.0.0.1 port {self.port} hostname mail.example.org\n"
        (self.folder / "smtpd.conf").write_text(listen + recipe, "ascii")
        script = Path(__file__).with_name("opensmtpd_namespace.sh")
        command = [str(program("unshare")), "-m", "sh", str(script), str(lab_folder()), str(self.folder)]
        self.process = process = Process(self.machine.command(*command), self.folder / "smtpd.log")

        def listens() -> bool:
            assert process.popen.poll() is None, process.text()
            shown = subprocess.run(self.machine.command("ss", "-Hltn"), capture_output=True, text=True, check=True)
            return f"127.0.0.1:{self.port} " in shown.stdout

        wait_for(listens, "OpenSMTPD to listen", STARTING)


def test_opensmtpd(house: House) -> None:
    """The recipients of one domain at once, the others are told to wait."""
    unpacked("opensmtpd/usr/sbin/smtpd")
    with open_folder("opensmtpd") as folder:
        server = OpenSmtpdThere(folder)
        server.machine = house.machine
        try:
            server.start()
            message, everybody = sample(), {*EVERYBODY[:2], "bob@one.example"}
            give(house.machine, server.port, message, *everybody)

            def told() -> dict[str, str]:
                found = dict(re.findall(r" to=<(\S+)> .* result=\"(\w+)\"", server.log()))
                return found if set(found) == everybody else {}

            verdicts = wait_for(told, f"a verdict for everybody in\n{server.log()}")
            assert set(verdicts.values()) == {"Ok", "TempFail"}, server.log()
            assert "452 4.5.3" in server.log()
            there = [to for to, verdict in verdicts.items() if verdict == "Ok"]
            assert len({to.partition("@")[2] for to in there}) == 1
            house.delivered(message, *there)
        finally:
            server.stop()


# --- msmtp ----------------------------------------------------------------------------------------------------------


def by_msmtp(
    house: House, message: Sample, *recipients: str, changes: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Send with msmtp as the page has it."""
    (recipe,) = blocks("### msmtp")
    for old, new in (changes or {}).items():
        assert old in recipe
        recipe = recipe.replace(old, new)
    file = house.folder / "msmtprc"
    file.write_text(recipe, "ascii")
    command = house.machine.command(str(program("msmtp")), "-C", str(file), *recipients)
    return subprocess.run(command, input=message.text, capture_output=True, check=False)


def test_msmtp(house: House) -> None:
    """By LMTP to several domains, and it says whose server has refused; by SMTP to one domain only."""
    by_smtp = {"port 2526\n": "port 2525\n", "protocol lmtp\n": ""}
    message = sample()
    assert by_msmtp(house, message, *EVERYBODY).returncode == 0
    house.delivered(message, *EVERYBODY)
    refused = by_msmtp(house, sample(), EVERYBODY[0], REFUSED)
    assert (refused.returncode, REFUSED.encode() in refused.stderr) == (os.EX_UNAVAILABLE, True), refused.stderr
    unsent = sample()
    assert b"452 4.5.3" in by_msmtp(house, unsent, *EVERYBODY, changes=by_smtp).stderr
    message = sample()
    assert by_msmtp(house, message, EVERYBODY[0], changes=by_smtp).returncode == 0
    house.delivered(message, EVERYBODY[0])
    assert not house.stored(unsent)


# --- the rest of the page, and the README ---------------------------------------------------------------------------


def test_the_other_configurations_have_no_mistakes(
    pki: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor has that of the README; its commands and its lines for Postfix are those of the page."""
    pair = pki.pair(["mail.example.org"])
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls/fullchain.pem").write_bytes(pair.cert.read_bytes())
    (tmp_path / "tls/privkey.pem").write_bytes(pair.key.read_bytes())
    (tmp_path / "provider-password").write_text("secret\n", "ascii")
    configuration, commands, settings = blocks("## A smarthost, in five minutes", "README.md")
    for text in (*blocks("## Who may send"), *blocks("## Servers with a login"), configuration):
        (tmp_path / "smarthost.yaml").write_text(text, "utf-8")
        assert main(["check", "-c", str(tmp_path / "smarthost.yaml")]) == 0, capsys.readouterr()
    assert commands == blocks("## The five-minute way")[1]
    assert main_cf(settings).items() <= main_cf(blocks("### Postfix")[0]).items()


def test_what_the_readme_says_of_visits(house: House) -> None:
    """The first one is polite, the second one early, and with the fourth one the message goes."""
    settings = main_cf(blocks("## A smarthost, in five minutes", "README.md")[2])
    with postfix_on(house.machine, settings) as postfix:
        for visit in range(1, 5):
            house.close_kept_sessions()
            message = harmless(sample())
            postfix.take(message, "ann@four.example")
            (delivery,) = house.delivered(message, "ann@four.example")
            assert (delivery.get("early", False), delivery.get("reused", False)) == (visit > 1, False)
        assert (delivery["tls"][:7], delivery["one_flight"]) == ("TLSv1.3", True)
