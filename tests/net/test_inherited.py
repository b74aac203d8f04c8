"""Sockets handed over by systemd, in a process that has them (sd_listen_fds_with_names(3))."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

CHILD = """
import json, os, sys
for target, source in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(source, target)
from smtpproxy.net.inherited import Inherited
environment = json.loads(sys.argv[2])
if environment.get("LISTEN_PID") == "mine":
    environment["LISTEN_PID"] = str(os.getpid())
found = {}
inherited = Inherited(environment, os.getpid())
for name in ("one", "two", "three", "", "unknown"):
    try:
        with inherited.take(name) as sock:
            found[name] = sock.getsockname()[1]
    except OSError as problem:
        found[name] = str(problem)
print(json.dumps(found))
"""


class Given:
    """What a child process found under which name: 1, 2 for the first and the second socket, or a message."""

    def __init__(self, environment: dict[str, str]) -> None:
        one, two = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
        reading, writing = os.pipe()
        with one, two:
            numbers = [one.fileno(), reading, two.fileno()]
            command = [sys.executable, "-c", CHILD, ",".join(map(str, map(os.dup, numbers))), json.dumps(environment)]
            inherited = [int(number) for number in command[3].split(",")]
            output = subprocess.run(command, pass_fds=inherited, capture_output=True, check=True, timeout=60).stdout
            ports = {one.getsockname()[1]: 1, two.getsockname()[1]: 2}
        for descriptor in (reading, writing, *inherited):
            os.close(descriptor)
        self.found = {name: ports.get(what, what) for name, what in json.loads(output).items()}


def test_sockets_by_their_names() -> None:
    given = Given({"LISTEN_PID": "mine", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "one:three:two"}).found
    assert (given["one"], given["two"]) == (1, 2)
    assert "no socket of that name" in given["three"], "a pipe listens to nobody"
    assert "one, two" in given["unknown"]


def test_a_name_that_is_empty_still_stands_for_a_descriptor() -> None:
    given = Given({"LISTEN_PID": "mine", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "one::two"}).found
    assert (given["one"], given["two"]) == (1, 2)


def test_the_first_of_two_with_one_name() -> None:
    given = Given({"LISTEN_PID": "mine", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "one:unknown:one"}).found
    assert given["one"] == 1


@pytest.mark.parametrize("environment", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "one:three:two"}])
def test_nothing_for_us(environment: dict[str, str]) -> None:
    given = Given(environment).found
    assert all("there are: none" in str(what) for what in given.values())


def test_under_twistd_only_the_names_are_left() -> None:
    """Twisted takes the other two variables away before anything of ours runs."""
    given = Given({"LISTEN_FDNAMES": "one:three:two"}).found
    assert (given["one"], given["two"]) == (1, 2)
