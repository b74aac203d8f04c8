"""Show what the EHLO cache knows of remotes, or make it forget: in the store that the configuration names.

Safe while the service runs.  What is forgotten is met politely and learned anew; hold-backs are forgotten as well.
"""

import argparse
import contextlib
import ipaddress
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from smtpproxy.config import Config, ConfigError, load
from smtpproxy.ops.escape import escape
from smtpproxy.smtp.offer import Offer
from smtpproxy.store.opening import make_redis, sqlite_path
from smtpproxy.store.record import Key, Record
from smtpproxy.store.rules import Rules
from smtpproxy.store.sqlitefile import SqliteFile

__all__ = ["add_arguments", "main"]

_Records = list[tuple[Key, Record]]
_PATIENCE: Final = 5.0  # seconds for the lock of the service


class _CacheError(Exception):
    """Why nothing can be done; says so."""


class _Access(Protocol):
    """What a command needs of a store, see ``Store``."""

    def all(self, found: Callable[[_Records | None], None]) -> None:
        """All that is stored."""

    def forget(self, keys: list[Key] | None, done: Callable[[bool], None]) -> None:
        """Some of it, or all for None."""


# A piece of work: it calls back once, with records or None if it failed.
_Work = Callable[[_Access, Callable[[_Records | None], None]], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``smtpproxy cache``."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-c", "--config", required=True, metavar="FILE", help="the configuration")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="a line for each remote, those used last at the end")
    listing.set_defaults(act=_list)
    show = actions.add_parser("show", parents=[common], help="all that is known of one address")
    show.set_defaults(act=_show)
    show.add_argument("address", type=_address, metavar="ADDRESS", help="the remote's IP address")
    for reading in (listing, show):
        reading.add_argument("--json", action="store_true", help="print JSON")
    flush = actions.add_parser("flush", parents=[common], help="forget one address, or all")
    flush.set_defaults(act=_flush)
    which = flush.add_mutually_exclusive_group(required=True)
    which.add_argument("address", type=_address, nargs="?", metavar="ADDRESS", help="the remote's IP address")
    which.add_argument("--all", action="store_true", help="forget all of them")


def main(options: argparse.Namespace) -> int:
    """Do it; give 0 if it was done, 1 if the store cannot be used, or nothing is known of the address to show."""
    try:
        config = load(options.config)
        status: int = options.act(options, config)
    except (ConfigError, _CacheError) as error:
        print(error, file=sys.stderr)
        return 1
    return status


def _list(options: argparse.Namespace, config: Config) -> int:
    records = _done(config, lambda access, found: access.all(found))
    rules, now = _rules(config), time.time()
    if options.json:
        _print_json(records, rules, now)
        return 0
    for key, record in records:
        where = f"{key.address} port {key.port} {_phase(key)} as {key.ehlo}"
        print(escape(f"{where}: {_state(record, rules, now)}{_seen(record, now)}"))
    return 0


def _show(options: argparse.Namespace, config: Config) -> int:
    records = _of(options.address, _done(config, lambda access, found: access.all(found)))
    rules, now = _rules(config), time.time()
    if options.json:
        _print_json(records, rules, now)
    else:
        for key, record in records:
            print("\n".join(map(escape, _description(key, record, rules, now))))
    if not records:
        print(f"nothing is known of {options.address}", file=sys.stderr)
        return 1
    return 0


def _flush(options: argparse.Namespace, config: Config) -> int:
    def forget_all(access: _Access, found: Callable[[_Records | None], None]) -> None:
        access.forget(None, lambda fine: found([] if fine else None))

    def forget_one(access: _Access, found: Callable[[_Records | None], None]) -> None:
        def listed(records: _Records | None) -> None:
            known = _of(options.address, records or [])
            if known:
                access.forget([key for key, _ in known], lambda fine: found(known if fine else None))
            else:
                found(None if records is None else [])

        access.all(listed)

    if options.all:
        _done(config, forget_all)
        print("all is forgotten")
    elif _done(config, forget_one):
        print(f"{options.address} is forgotten")
    else:
        print(f"nothing was known of {options.address}")
    return 0


def _done(config: Config, work: _Work) -> _Records:
    """Have work done on the store; raises _CacheError where that fails."""
    address = config.cache.store
    if address == "memory:":
        raise _CacheError("cache.store is memory: only the running process has what it knows; a restart forgets it")
    path = sqlite_path(address)
    records = _done_in_redis(config, work) if path is None else _done_in_file(path, work)
    if records is None:
        raise _CacheError(f"{address}: Redis has refused it")
    return records


def _done_in_file(path: Path, work: _Work) -> _Records:
    outcome: list[_Records | None] = []
    try:
        with contextlib.closing(SqliteFile(path, create=False, patience=_PATIENCE)) as file:
            work(_FileAccess(file), outcome.append)
    except FileNotFoundError:
        raise _CacheError(f"{path}: there is no such file; nothing was remembered yet") from None
    except OSError as error:
        raise _CacheError(f"{path}: {error.strerror}") from None
    except sqlite3.Error as error:
        raise _CacheError(f"{path}: {error}") from None
    return outcome[0] or []


class _FileAccess:
    """The same for a file, which raises sqlite3.Error."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def all(self, found: Callable[[_Records | None], None]) -> None:
        found(self._file.all(time.time()))

    def forget(self, keys: list[Key] | None, done: Callable[[bool], None]) -> None:
        self._file.forget(keys)
        done(True)  # noqa: FBT003  (a callback of one argument)


def _done_in_redis(config: Config, work: _Work) -> _Records | None:
    from twisted.internet import reactor as chosen  # noqa: PLC0415  (imported only where it is needed)

    reactor: Any = chosen
    settings = config.cache
    password = None if settings.password_env is None else os.environ.get(settings.password_env)
    if settings.password_env is not None and password is None:
        raise _CacheError(f"{settings.password_env}, which cache.password_env names, is not in the environment")
    said: list[str] = []
    outcome: list[_Records | None] = []
    try:
        store = make_redis(settings.store, reactor, said.append, password=password)
    except ImportError:
        raise _CacheError("Redis needs the Python package txredisapi, which is not installed") from None

    def finish(records: _Records | None) -> None:
        outcome.append(records)
        store.close()
        reactor.stop()

    def begin() -> None:
        store.begin(_rules(config), settings.entries, time.time)
        store.whether_up(lambda up: work(store, finish) if up else finish(None))

    reactor.callWhenRunning(begin)
    reactor.run()
    if said:
        raise _CacheError(f"{settings.store}: {said[0]}")
    return outcome[0]


def _of(address: str, records: _Records) -> _Records:
    return [item for item in records if _plain(item[0].address) == address]


def _description(key: Key, record: Record, rules: Rules, now: float) -> Iterator[str]:
    yield f"{key.address} port {key.port}, {_phase(key)}, our name {key.ehlo}"
    yield f"  {_state(record, rules, now)}"
    if record.lines is not None:
        yield f"  learned {_moment(record.learned)}, last seen {_moment(record.touched)}, confirmed {record.confirmed}"
    if record.flushed:
        yield f"  last flush {_moment(record.flushed)}; flushes in quick succession: {record.flaps}"
    if record.holds:
        yield f"  held back until {_moment(record.held)}; {record.holds} times in a row"
    for line in record.lines or ():
        yield f"    {line.decode('latin-1')}"


def _state(record: Record, rules: Rules, now: float) -> str:
    """In a few words what a session would do now."""
    if rules.is_held(record, now):
        return f"held back for {_span(record.held - now)}"
    entry = rules.entry(record, now)
    if entry is None:
        return "nothing is known any more"
    if not Offer(entry.lines).early:
        return "polite, it offers no early pipelining"
    return "early" if entry.early else "polite, it was flushed"


def _seen(record: Record, now: float) -> str:
    if record.lines is None:
        return ""
    return f"; last seen {_span(now - record.touched)} ago, confirmed {record.confirmed}"


def _print_json(records: _Records, rules: Rules, now: float) -> None:
    print(json.dumps([_fields(key, record, rules, now) for key, record in records], indent=2))


def _fields(key: Key, record: Record, rules: Rules, now: float) -> dict[str, Any]:
    return {
        **key._asdict(),
        "state": _state(record, rules, now),
        "early": (entry := rules.entry(record, now)) is not None and entry.early and bool(Offer(entry.lines).early),
        "lines": None if record.lines is None else [line.decode("latin-1") for line in record.lines],
        "learned": record.learned,
        "last_seen": record.touched,
        "confirmed": record.confirmed,
        "last_flush": record.flushed,
        "flaps": record.flaps,
        "held_until": record.held,
        "holds": record.holds,
    }


def _phase(key: Key) -> str:
    return "inside TLS" if key.tls else "in clear"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _moment(unix_time: float) -> str:
    try:
        return f"{datetime.fromtimestamp(unix_time, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):
        return "at no real time"


def _plain(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise argparse.ArgumentTypeError("an IP address is expected") from None


def _rules(config: Config) -> Rules:
    return Rules(config.cache.ttl, config.cache.hold_back, config.cache.hold_back_most)
