"""What random clients say, and the listeners and servers that they meet."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from smtpproxy.session.policy import BackendTls
from smtpproxy.smtp.lineendings import BarePolicy

from .listener import Setup
from .server import FOREIGN, MARK
from .test_paces import SERVERS

OUTCOMES = st.sampled_from((*["ok"] * 8, "4xx", "4xx", "5xx", "5xx", "421", "close", "garbage", "surplus"))
LINES = st.sampled_from(
    [
        b"Subject: hello\r\n",
        b"\r\n",
        b".\r\n",
        b"..\r\n",
        b".x\r\n",
        b"MAIL FROM:<%s@client.example>\r\n" % MARK,
        b"RSET %s\r\n" % MARK,
        b"QUIT %s\r\n" % MARK,
        b"bare\nLF %s\n.\nRCPT TO:<%s@foreign.example>\n" % (MARK, MARK),
        b"bare\rCR\r.\r\r\n",
        b"NUL \0\r\n",
        b"no end %s" % MARK,
    ]
)
TEXTS = st.lists(LINES, max_size=6).map(b"".join)
LINES_OF_COMMANDS = st.sampled_from(
    [
        ("EHLO", b"EHLO client.example"),
        ("EHLO", b"ehlo other.example"),
        ("EHLO", b"EHLO"),
        ("HELO", b"HELO client.example"),
        ("MAIL", b"MAIL FROM:<a@client.example>"),
        ("MAIL", b"MAIL FROM:<a@client.example> SIZE=10 BODY=8BITMIME"),
        ("MAIL", b"MAIL FROM:<a@client.example> RET=HDRS"),
        ("RCPT", b"RCPT TO:<b@example.org>"),
        ("RCPT", b"RCPT TO:<c@example.org>"),
        ("RCPT", b"RCPT TO:<b" + FOREIGN + b">"),
        ("RSET", b"RSET"),
        ("RSET", b"RSET now"),
        ("NOOP", b"NOOP"),
        ("VRFY", b"VRFY b"),
        ("HELP", b"HELP"),
        ("bad", b"XFROB"),
        ("bad", b"NOOP \n"),
        ("bad", b"NOOP " + b"x" * 5000),
        ("bad", b""),
        ("bad", b"STARTTLS now"),
        ("XCLIENT", b"XCLIENT ADDR=192.0.2.9"),
        ("bad", b"XCLIENT ADDR=nowhere"),
    ]
)
XCLIENTS = st.sampled_from(
    [
        b"XCLIENT ADDR=192.0.2.7",
        b"XCLIENT NAME=far.example ADDR=192.0.2.8 PORT=25 LOGIN=someone",
        b"xclient name=[UNAVAILABLE] addr=192.0.2.9 helo=far.example",
        b"XCLIENT LOGIN=someone",
    ]
)
MOSTLY = st.sampled_from([True, True, True, False])
SOMETIMES = st.sampled_from([True, False, False])
ENVELOPE = [("MAIL", b"MAIL FROM:<a@client.example>"), ("RCPT", b"RCPT TO:<b@example.org>")]


def normal(text: bytes) -> bytes:
    """Give what a text is for a server that gets it as DATA (S9, S11)."""
    text = re.sub(rb"\r\n|\n|\r", lambda match: b" " if match[0] == b"\r" else b"\r\n", text)
    return text if not text or text.endswith(b"\r\n") else text + b"\r\n"


@st.composite
def offers(draw: st.DrawFn) -> tuple[str, ...]:
    """Draw what a server lists in its EHLO reply."""
    keywords = ["SIZE 1000", "8BITMIME", "AUTH LOGIN PLAIN", *draw(st.sampled_from(sorted(SERVERS.values())))]
    if draw(st.booleans()):
        keywords.append("STARTTLS")
    who = draw(
        st.sampled_from(["", "XCLIENT ADDR HELO", "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR", "XFORWARD ADDR"])
    )
    return (*keywords, who) if who else tuple(keywords)


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a listener and the servers behind it, as arguments of World."""
    servers = draw(st.lists(offers(), min_size=1, max_size=3))
    identity = draw(st.sampled_from(["none", "none", "auto", "auto", "xclient", "xforward", "bound"]))
    domains: tuple[str, ...] | None = ("example.org",)
    if identity in ("xclient", "bound"):
        domains = None
    elif identity == "auto" and draw(SOMETIMES):
        domains = ()
    tight, limited = draw(SOMETIMES), draw(SOMETIMES)
    # More than the server really has.
    learned = ("DSN", "CHUNKING", *servers[0])
    setup = Setup(
        eager=draw(st.booleans()),
        reuse=identity != "bound" and draw(st.booleans()),
        learned=learned if draw(st.booleans()) else None,
        learned_tls=learned if draw(st.booleans()) else None,
        domains=domains,
        bare=draw(st.sampled_from(BarePolicy)),
        pass_nul=limited,
        size=60 if limited else None,
        recipients=2 if limited else 1000,
        errors=8 if limited else 1000,
        line=120 if tight else 4096,
        auth_line=120 if tight else 12288,
        burst_commands=3 if tight else 1000,
        burst_octets=130 if tight else 262144,
        tls=draw(st.sampled_from(["none", "starttls", "starttls", "starttls-required", "implicit"])),
        auth=draw(st.sampled_from(["always", "tls"])),
        trusted=draw(st.booleans()),
        trace_header=draw(SOMETIMES),
        identity=identity,
        backend_tls=draw(st.sampled_from(BackendTls)),
        clients=("192.0.2.7", "192.0.2.8", "192.0.2.7", "192.0.2.9"),
        lookup=draw(st.sampled_from(["at once", "later", "never"])),
        login=b"someone" if draw(SOMETIMES) else b"",
    )
    return {
        "setup": setup,
        "keywords": servers[0],
        "others": tuple(servers[1:]),
        "guards_domains": domains is not None,
        "once": draw(SOMETIMES),
        "forgetful": draw(st.booleans()),
    }
