"""The commands for sending by hand are complete and do what they say."""

import re
import shlex
import subprocess
from pathlib import Path

from smtpproxy.ops.demo.by_hand import Places, by_hand
from smtpproxy.ops.demo.style import Style

PLACES = Places(
    proxy=2001,
    far=2002,
    legacy=2003,
    milliseconds=100,
    maildir=Path("/tmp/m"),
    temporary=True,
    configuration=Path("/tmp/c"),
    log=Path("/tmp/l"),
)
TEXT = "\n".join(by_hand(PLACES, Style()))


def test_everything_is_named() -> None:
    for words in (
        "swaks --server 127.0.0.1 --port 2001",
        "--to user@demo.example",
        "telnet 127.0.0.1 2001",
        "nc -C 127.0.0.1 2001",
        "127.0.0.1 port 2002, at the far end of the 100 ms line",
        "/tmp/m (removed at the end)",
        "Ctrl-C",
    ):
        assert words in TEXT
    assert max(len(line) for line in TEXT.splitlines()) <= 80


def test_burst_by_hand_is_one_well_formed_session() -> None:
    (command,) = re.findall(r"(printf(?:[^|](?!printf))*?)\| nc 127.0.0.1 2001", TEXT, re.DOTALL)
    sent = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True, timeout=10).stdout
    assert shlex.split(command)[0] == "printf"
    assert sent == (
        b"EHLO client.example\r\nMAIL FROM:<me@client.example>\r\nRCPT TO:<user@demo.example>\r\n"
        b"BDAT 30 LAST\r\nSubject: one flight\r\n\r\nHello\r\nQUIT\r\n"
    )
    assert len(b"Subject: one flight\r\n\r\nHello\r\n") == 30
