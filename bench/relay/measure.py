"""Rounds in which the relays take turns: the CPU time of each, and how fast its messages reach the sink."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from harness.errors import BenchError, blaming
from harness.lab import Lab, Sink, free_port, wait_for_greeting

from relay.cgroup import Group, group
from relay.relays import Relay

OFFER = ("--pipelining", "--chunking", "--early")
PER_SESSION = (1, 10)
"""How many messages a client sends over one connection."""
WARM_UP = 0.2
"""Which part of the messages makes a relay warm."""
SETTLE_SECONDS = 0.5
"""A mail server still tidies up its queue when the message has arrived."""
MOST_SECONDS = 120
Key = tuple[str, int]  # relay, messages in a session


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    messages: int
    size: int
    parallel: int


@dataclass
class Result:
    """One value for each round: milliseconds of CPU for a message, and messages a second on one core."""

    cpu: dict[Key, list[float]] = field(default_factory=dict)
    rate: dict[Key, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A relay that is up."""

    relay: Relay
    group: Group
    port: int


@contextlib.contextmanager
def running(relay: Relay, lab: Lab, sink: Sink) -> Iterator[Running]:
    """Start a relay on the core of what is measured, in a control group."""
    with group(relay.key) as members:
        port = free_port()
        folder = lab.new_folder(f"{relay.key}-files")
        command = members.inside(relay.command(folder, port, sink.port))
        process = lab.start(relay.key, command, core=lab.cores.proxy)
        wait_for_greeting(process, port)
        yield Running(relay, members, port)


def measure(lab: Lab, relays: list[Relay], plan: Plan) -> Result:
    """Measure all relays, all up at the same time."""
    result = Result()
    with contextlib.ExitStack() as stack:
        sink = lab.sink(*OFFER)
        started = [stack.enter_context(running(relay, lab, sink)) for relay in relays]
        one_round(lab, sink, started, replace(plan, messages=int(plan.messages * WARM_UP)), Result())
        for number in range(plan.rounds):
            one_round(lab, sink, started, plan, result)
            print(f"round {number + 1} of {plan.rounds} done", flush=True)
    return result


def one_round(lab: Lab, sink: Sink, started: list[Running], plan: Plan, result: Result) -> None:
    """Measure everything once."""
    for per_session in PER_SESSION:
        for one in started:
            with blaming(one.relay.label):
                cpu, rate = once(lab, sink, one, per_session, plan)
            result.cpu.setdefault((one.relay.key, per_session), []).append(cpu)
            result.rate.setdefault((one.relay.key, per_session), []).append(rate)


def once(lab: Lab, sink: Sink, one: Running, per_session: int, plan: Plan) -> tuple[float, float]:
    """Send messages; gives milliseconds of CPU for each, and how many arrived in a second."""
    sessions = max(1, int(plan.messages * one.relay.effort / per_session))
    messages = sessions * per_session
    before, cpu, begun = sink.counters(), one.group.cpu_ns(), time.monotonic()
    lab.load(
        one.port,
        "pipelined",
        wait=MOST_SECONDS,
        messages=messages,
        size=plan.size,
        parallel=plan.parallel,
        per_session=per_session,
    )
    wait_for_arrival(sink, before, messages)
    seconds = time.monotonic() - begun
    time.sleep(SETTLE_SECONDS)
    used = one.group.cpu_ns() - cpu
    check_arrival(sink, before, messages)
    return used / 1e6 / messages, messages / seconds


def wait_for_arrival(sink: Sink, before: dict[str, int], messages: int) -> None:
    """Wait until so many messages more are at the sink."""
    deadline = time.monotonic() + MOST_SECONDS
    while (grown := sink.counters()["messages"] - before["messages"]) < messages:
        if time.monotonic() > deadline:
            raise BenchError(f"{grown} of {messages} messages have arrived")
        time.sleep(0.005)


def check_arrival(sink: Sink, before: dict[str, int], messages: int) -> None:
    """Raise BenchError if something arrived twice, or if the sink had to refuse anything."""
    after = sink.counters()
    grown = {name: after[name] - before[name] for name in after}
    if grown["messages"] != messages or grown["violations"] or grown["errors"]:
        raise BenchError(f"{messages} messages were sent, but the sink saw {grown}")
