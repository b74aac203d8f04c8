"""Shows what a probe finds while it is being found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from smtpproxy.ops.demo.style import Style
from smtpproxy.ops.probe.document import escaped
from smtpproxy.ops.probe.facts import Found, Host, Server, Sts
from smtpproxy.ops.probe.run import Look
from smtpproxy.ops.probe.text import heading, host_lines, server_lines

__all__ = ["Show"]


class Show(Look):
    """Prints; nothing of a server's gets to the terminal as it came (rule H8)."""

    def __init__(self, stream: TextIO, style: Style | None = None) -> None:
        """``style``: that of the stream by default."""
        self._stream = stream
        self._style = style or Style.of(stream)
        self._sts = Sts("not asked")

    def known(self, found: Found) -> None:
        """Print the heading."""
        clean = escaped(found)
        self._sts = clean.sts
        self._print(heading(clean, self._style))

    def host(self, host: Host) -> None:
        """Print the name of a host."""
        self._print(host_lines(escaped(host), self._style))

    def server(self, host: Host, server: Server) -> None:
        """Print all of an address."""
        self._print(server_lines(self._sts, escaped(host), escaped(server), self._style))

    def _print(self, lines: Iterable[str]) -> None:
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()
