"""A world of signed names on loopback: zones that ldns-signzone has really signed, from a root of their own down, NSD
that serves them, and Unbound that validates them and knows nothing but that root.

Everything is in a folder, on free ports; neither Debian's own root key nor the system's resolver has a part in it.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from freeports import free_port

from .lab import Process, need_root, open_folder, program, unpacked

ALGORITHM = "ECDSAP256SHA256"
EXPIRED = ("-i", "20200101000000", "-e", "20200201000000")
HEAD = "$ORIGIN {origin}\n$TTL 300\n@ SOA ns.test. hostmaster.test. 1 3600 900 604800 60\n@ NS ns.test.\n"

NSD = """\
server:
  ip-address: 127.0.0.1@{port}
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  database: ""
  logfile: "{folder}/nsd.out"
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
  xfrdir: "{folder}"
remote-control:
  control-enable: no
"""

# By itself it refuses to ask servers on loopback, and says that nothing below `test` exists (RFC 6761).
UNBOUND = """\
server:
  interface: 127.0.0.1@{port}
  do-ip6: no
  do-not-query-localhost: no
  local-zone: "test." nodefault
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: "{folder}/unbound.pid"
  use-syslog: no
  val-log-level: 2
  module-config: "validator iterator"
  trust-anchor-file: "{folder}/root.ds"
remote-control:
  control-enable: no
"""

# Whom to ask about each zone: it would follow the NS records, and those lead to port 53.
STUB = """\
stub-zone:
  name: "{name}"
  stub-addr: 127.0.0.1@{port}
"""


@dataclass
class Zone:
    """A zone; its parent is the nearest zone above."""

    name: str
    records: Sequence[str] | None
    """As in a zone file, names relative to that of the zone; SOA and NS are there anyway. None: the server has lost the
    file, and can say nothing (SERVFAIL)."""
    signing: Sequence[str] | None = ()
    """Options for ldns-signzone, such as ``-n`` for NSEC3; None: unsigned, and without a DS record above."""
    tampered: Callable[[str], str] = str
    """What somebody has made of the signed file."""
    delegations: list[str] = field(default_factory=list)
    """The records about its children."""


@dataclass
class SignedDns:
    """Both servers, running; ``port`` is the resolver's."""

    folder: Path
    zones: Sequence[Zone]
    port: int = field(default_factory=free_port)
    authority: int = field(default_factory=free_port)
    processes: list[Process] = field(default_factory=list)

    def start(self) -> None:
        """Sign the zones, children first, and start; returns when both listen."""
        for zone in sorted(self.zones, key=_depth, reverse=True):
            self._write(zone)
        served = [f'zone:\n  name: "{zone.name}"\n  zonefile: "{_file(zone.name)}"\n' for zone in self.zones]
        nsd = NSD.format(port=self.authority, folder=self.folder) + "".join(served)
        stubs = [STUB.format(name=zone.name, port=self.authority) for zone in self.zones]
        unbound = UNBOUND.format(port=self.port, folder=self.folder) + "".join(stubs)
        # They would become users that are not here.
        as_nobody = [str(program("setpriv")), "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        self.folder.chmod(0o777)
        for name, text, option, port in (("nsd", nsd, "-d", self.authority), ("unbound", unbound, "-dp", self.port)):
            (self.folder / f"{name}.conf").write_text(text, encoding="ascii")
            command = [*as_nobody, "--pdeathsig=TERM", "--", str(tool(f"sbin/{name}"))]
            process = Process([*command, option, "-c", str(self.folder / f"{name}.conf")], self.folder / f"{name}.log")
            self.processes.append(process)
            process.wait_listening(port)

    def stop(self) -> None:
        """Stop both."""
        for process in self.processes:
            process.stop()

    def log(self) -> str:
        """What the resolver has written to its log."""
        return (self.folder / "unbound.log").read_text(encoding="utf-8", errors="replace")

    def _write(self, zone: Zone) -> None:
        file = self.folder / _file(zone.name)
        origin = f"{zone.name.rstrip('.')}."
        above = f"{origin} NS ns.test."
        if zone.records is not None:
            lines = [*zone.records, *zone.delegations, ""]
            file.write_text(HEAD.format(origin=origin) + "\n".join(lines), encoding="ascii")
            if zone.signing is not None:
                above += f"\n{self._sign(zone, origin, file)}"
        if zone.name != ".":
            self._parent(zone).delegations.append(above)

    def _sign(self, zone: Zone, origin: str, file: Path) -> str:
        """Sign a zone's file; gives the DS record, which is the trust anchor if it is the root."""
        key = self._run("ldns-keygen", "-r", "/dev/urandom", "-a", ALGORITHM, "-k", origin).strip()
        self._run("ldns-signzone", *(zone.signing or ()), "-o", origin, "-f", file.name, file.name, key)
        text = file.read_text("ascii")
        file.write_text(zone.tampered(text), encoding="ascii")
        record = (self.folder / f"{key}.ds").read_text("ascii")
        if zone.name == ".":
            (self.folder / "root.ds").write_text(record, encoding="ascii")
        return record

    def _parent(self, zone: Zone) -> Zone:
        above = [each for each in self.zones if each.name == "." or zone.name.endswith(f".{each.name}")]
        return max(above, key=_depth)

    def _run(self, name: str, *arguments: str) -> str:
        command = [str(tool(f"bin/{name}")), *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


def tool(relative: str) -> Path:
    """The path of one of the programs; skips if it is not there."""
    return unpacked(f"dnssec/usr/{relative}")


def _depth(zone: Zone) -> int:
    return len([label for label in zone.name.split(".") if label])


def _file(name: str) -> str:
    return f"{name.rstrip('.') or 'root'}.zone"


@contextlib.contextmanager
def signed_dns(zones: Sequence[Zone]) -> Iterator[SignedDns]:
    """Started servers for these zones; the root has to be among them. Stopped at the end."""
    need_root("start servers as another user")
    with open_folder("signed-dns") as folder:
        servers = SignedDns(folder, zones)
        try:
            servers.start()
            yield servers
        finally:
            servers.stop()
