"""smtpproxy at the near end, with a Postfix that hands everything to it."""

from __future__ import annotations

import sys
from pathlib import Path

from wan import exim, postfix
from wan.machines import FAR, Machine

PORT = 2525

# Its cache need not outlive this run. A session is kept only where that is what is measured.
CONFIGURATION = """\
listeners:
  - {{name: smarthost, mode: outbound, listen: ["127.0.0.1:{port}"], hostname: near.test}}
routes:
  - domain: "*"
    nexthops: ["{remote}:{remote_port}"]
    tls: {{mode: {tls}}}
    fast_open: {fast_open}
    reuse: {reuse}
cache: {{store: "memory:"}}
log: {{format: json, to: stderr, level: info}}
"""


def client(
    folder: Path, machine: Machine, *, starttls: bool = False, fast_open: str = "off", reuse: bool = False
) -> postfix.Client:
    """Start both in a new folder; `fast_open` is smtpproxy's setting of that name."""
    folder.mkdir()
    file = folder / "smtpproxy.yaml"
    text = CONFIGURATION.format(
        port=PORT,
        remote=FAR,
        remote_port=exim.PORT,
        tls="required" if starttls else "none",
        fast_open=fast_open,
        reuse="on" if reuse else "off",
    )
    file.write_text(text)
    machine.start("smtpproxy", [sys.executable, "-m", "smtpproxy", "run", "-c", str(file)], PORT)
    return postfix.client(folder / "postfix", machine, f"[127.0.0.1]:{PORT}", starttls=False)
