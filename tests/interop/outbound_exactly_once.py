"""Many messages from a Postfix through a smarthost to an Exim that is killed and started again, and a balance of what
became of each of them.
"""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .lab import files_below, program, wait_for
from .outbound_clients import RelayingPostfix, relaying_postfix
from .outbound_exim import EximRemote, exim_remote
from .outbound_smarthost import Smarthost, Way, smarthost
from .sink import numbered

TO = "user@lab.test"
# Other replies that begin with 451 4.4.2 are for messages that were certainly not taken.
UNKNOWN = "451 4.4.2 Connection lost, fate of the message unknown"


@dataclass(frozen=True)
class Balance:
    """What is known of each recipient at the end; each message has one of its own."""

    expected: Counter[str]
    stored: Counter[str]
    """How often the remote has it."""
    accepted: Counter[str]
    """How often smtpproxy has told its client that the remote has it."""
    unknown: Counter[str]
    """How often it has told that the answer never came (451 4.4.2, rule C7)."""
    kills: int
    early: int
    one_flight: int
    seconds: float

    @property
    def lost(self) -> list[str]:
        """Those that have not arrived, or that the client was never told of."""
        return [to for to in self.expected if not self.stored[to] or not self.accepted[to]]

    @property
    def doubled(self) -> Counter[str]:
        """How often too many the remote has some."""
        return self.stored - self.expected

    @property
    def unexplained(self) -> Counter[str]:
        """Those that are there more often than unknown outcomes can explain: sent twice by the proxy itself."""
        return self.doubled - self.unknown

    def __str__(self) -> str:
        return (
            f"{self.expected.total()} messages, {self.kills} kills, {self.seconds:.1f} s: lost {len(self.lost)}, "
            f"doubled {self.doubled.total()}, of them not explained {self.unexplained.total()}; answers that never "
            f"came {self.unknown.total()}; early {self.early}, in one flight {self.one_flight}"
        )


class Run:
    """The three of them."""

    def __init__(self, remote: EximRemote, house: Smarthost, client: RelayingPostfix) -> None:
        """All are running."""
        self.remote, self.house, self.client = remote, house, client
        self.kills = 0
        self.sent: subprocess.CompletedProcess[str]

    def balance(self, messages: int, kills: int) -> Balance:
        """Send so many messages, and kill the remote so often in the meantime; AssertionError if that does not end."""
        begun = time.monotonic()
        sender = threading.Thread(target=self._send, args=(messages,))
        sender.start()
        for number in range(1, kills + 1):
            # Evenly over the messages, each somewhere in the middle of a few.
            self._wait_for_deliveries(messages * number // (kills + 1))
            self._kill()
        sender.join()
        assert (self.sent.returncode, self.sent.stderr) == (0, "")
        self.client.emptied(60.0 + messages / 10)
        took = time.monotonic() - begun
        self.house.stop()
        events = self.house.events("delivery")
        return Balance(
            expected=numbered(messages, TO),
            stored=self._stored(),
            accepted=_recipients(event for event in events if event["reply"][:1] == "2"),
            unknown=_recipients(event for event in events if event["reply"] == UNKNOWN),
            kills=self.kills,
            early=sum(event.get("early", False) for event in events),
            one_flight=sum(event.get("one_flight", False) for event in events),
            seconds=took,
        )

    def _send(self, messages: int) -> None:
        # With -N each message has a recipient of its own: 1user@, 2user@, ...
        size = ["-s", "5", "-m", str(messages), "-l", "1024", "-N"]
        command = [str(program("smtp-source")), *size, "-f", "sender@lab.test", "-t", TO]
        command.append(f"127.0.0.1:{self.client.port}")
        self.sent = subprocess.run(command, capture_output=True, text=True, check=False)

    def _wait_for_deliveries(self, number: int) -> None:
        log = self.house.folder / "smtpproxy.log"
        reader = _Counting(log, b'"event":"delivery"')
        wait_for(lambda: reader.count() >= number, f"{number} deliveries", 600.0)
        time.sleep(random.uniform(0.0, 0.05))

    def _kill(self) -> None:
        self.remote.kill()
        self.kills += 1
        time.sleep(random.uniform(0.0, 0.3))
        self.remote.start()

    def _stored(self) -> Counter[str]:
        """The recipients of what is in the spool of the remote: a file with the envelope of each message."""
        files = [file for file in files_below(self.remote.folder / "spool", "input") if file.name.endswith("-H")]
        found: Counter[str] = Counter()
        for file in files:
            recipients = re.findall(rf"^(\d+{re.escape(TO)})$", file.read_text("latin-1"), re.MULTILINE)
            assert len(recipients) == 1, (file, recipients)
            found.update(recipients)
        return found


class _Counting:
    """How often some octets stand in a file that grows."""

    def __init__(self, path: Path, what: bytes) -> None:
        self._path, self._what = path, what
        self._read = self._found = 0

    def count(self) -> int:
        """So often, in whole lines, so far."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        self._found += new.count(self._what)
        return self._found


def _recipients(events: Any) -> Counter[str]:
    return Counter(event["to"].strip("<>") for event in events)


@contextlib.contextmanager
def exactly_once(pair: Any, *, tls: bool, reuse: bool) -> Iterator[Run]:
    """Start Postfix, smtpproxy and Exim; all is stopped at the end."""
    # Trouble does not hold early pipelining back, so that there is as much of it as can be.
    others = {"cache": {"store": "memory:", "hold_back": "off"}}
    route = {"tls": {"mode": "required" if tls else "none"}, "reuse": reuse}
    with (
        exim_remote(pair, queue=True) as remote,
        smarthost({"lab.test": Way(remote.port, route, direct=True)}, others=others) as house,
        relaying_postfix(f"smtp:[127.0.0.1]:{house.port}") as client,
    ):
        yield Run(remote, house, client)
