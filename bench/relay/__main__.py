"""The command line: `make bench-relay`, or PYTHONPATH=bench python -m relay."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from harness import tools
from harness.errors import BenchError, UnavailableError
from harness.folders import working_folder
from harness.lab import Lab
from harness.report import platform_facts, show_machine

from relay import cgroup, report
from relay.measure import Plan, Result, measure
from relay.relays import RELAYS


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure smtpproxy as a relay beside Postfix and Exim.")
    keys = ",".join(relay.key for relay in RELAYS)
    parser.add_argument("--relays", default=keys, help="which of %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is repeated (%(default)s)")
    parser.add_argument("--messages", type=int, default=1000, help="messages of one measurement (%(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="octets of a message (%(default)s)")
    parser.add_argument("--parallel", type=int, default=16, help="sessions at the same time (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures into a file as well")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="work in this new folder and keep all logs in it")
    arguments = parser.parse_args()
    chosen = arguments.relays.split(",")
    unknown = sorted(set(chosen) - set(keys.split(",")))
    if unknown:
        parser.error(f"no such relay: {', '.join(unknown)} (there are {keys})")
    arguments.relays = [relay for relay in RELAYS if relay.key in chosen]
    return arguments


def as_json(result: Result) -> dict[str, Any]:
    """Everything that was measured."""
    rows = [
        {"relay": key[0], "per_session": key[1], "cpu_milliseconds": values, "messages_per_second": result.rate[key]}
        for key, values in result.cpu.items()
    ]
    return {"relays": rows}


def run(arguments: argparse.Namespace) -> None:
    """Measure and print everything."""
    if os.geteuid() != 0:
        raise UnavailableError("only root can start private mail servers")
    cgroup.mount_point()
    for relay in arguments.relays:
        relay.check()
    plan = Plan(arguments.rounds, arguments.messages, arguments.size, arguments.parallel)
    facts = {**platform_facts(), **{relay.label: relay.version() for relay in arguments.relays}}
    show_machine(facts)
    with working_folder(arguments.folder) as folder:
        folder.chmod(0o755)  # mail servers run as users of their own
        with Lab(folder, tools.build(folder)) as lab:
            result = measure(lab, arguments.relays, plan)
    report.show(result, arguments.relays, plan)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": facts, **as_json(result)}, indent=2) + "\n")


def main() -> int:
    """Run it all. Gives the exit status: 0, also where something is missing; 1 if a message went wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        run(parse_arguments())
    except UnavailableError as error:
        print(f"benchmark skipped: {error}")
    except BenchError as error:
        print(f"benchmark failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
