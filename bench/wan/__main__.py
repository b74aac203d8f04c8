"""The command line: `make bench-wan`, or PYTHONPATH=bench python -m wan."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from harness import exim, postfix, tools
from harness.errors import BenchError, UnavailableError
from harness.folders import working_folder
from harness.report import platform_facts, show_machine

from wan import machines, report
from wan.rows import ROWS, Figures, Plan, Row, measure


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Count the round trips of deliveries over a long line.")
    keys = ",".join(row.key for row in ROWS)
    parser.add_argument("--rows", default=keys, help="which of %(default)s")
    parser.add_argument("--rtt", type=int, default=100, help="milliseconds of a round trip (%(default)s)")
    parser.add_argument("--messages", type=int, default=5, help="deliveries of each kind and size (%(default)s)")
    parser.add_argument("--sizes", default="1,100", help="KiB of the messages (%(default)s)")
    parser.add_argument("--quit-pause", action="store_true", help="leave Exim its pause (README.md)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures into a file as well")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="work in this new folder and keep all logs in it")
    arguments = parser.parse_args()
    chosen = arguments.rows.split(",")
    unknown = sorted(set(chosen) - set(keys.split(",")))
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)} (there are {keys})")
    arguments.rows = [row for row in ROWS if row.key in chosen]
    return arguments


def attempt(row: Row, folder: Path, program: Path, plan: Plan) -> Figures | None:
    """Measure a row; if it fails, the others are still worth having."""
    try:
        figures = measure(row, folder / row.key, program, plan)
    except UnavailableError:
        raise
    except BenchError as error:
        print(f"{row.label}: failed: {error}", flush=True)
        return None
    print(f"{row.label}: done", flush=True)
    return figures


def run(arguments: argparse.Namespace) -> bool:
    """Measure and print everything; tell whether all went well."""
    machines.check()
    exim.find()
    postfix.check()
    sizes = tuple(int(float(size) * 1024) for size in arguments.sizes.split(","))
    facts = {**platform_facts(), "Postfix": postfix.version(), "Exim": exim.version()}
    show_machine(facts)
    plan = Plan(arguments.rtt, arguments.messages, sizes, arguments.quit_pause)
    with working_folder(arguments.folder) as folder:
        folder.chmod(0o755)  # mail servers run as users of their own
        program = tools.compile_program("line", folder)
        tried = [attempt(row, folder, program, plan) for row in arguments.rows]
    measured = [figures for figures in tried if figures is not None]
    report.show(measured, plan)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": facts, **report.as_json(measured, plan)}, indent=2) + "\n")
    return len(measured) == len(tried)


def main() -> int:
    """Run it all. Gives the exit status: 0, also where something is missing; 1 if a message was not delivered."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return 0 if run(parse_arguments()) else 1
    except UnavailableError as error:
        print(f"benchmark skipped: {error}")
        return 0
    except BenchError as error:
        print(f"benchmark failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
