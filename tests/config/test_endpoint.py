"""Addresses to listen on or to connect to."""

import pytest

from smtpproxy.config.endpoint import Endpoint, collide, parse_endpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("0.0.0.0:25", Endpoint("tcp", host="0.0.0.0", port=25)),
        ("[::]:25", Endpoint("tcp", host="::", port=25)),
        ("[2001:db8::1]:65535", Endpoint("tcp", host="2001:db8::1", port=65535)),
        ("mail.example.org:2525", Endpoint("tcp", host="mail.example.org", port=2525)),
        ("localhost:0", Endpoint("tcp", host="localhost", port=0)),
        ("unix:/run/smtp.sock", Endpoint("unix", path="/run/smtp.sock")),
        ("unix:/run/a:b", Endpoint("unix", path="/run/a:b")),
        ("systemd:smtp", Endpoint("systemd", path="smtp")),
    ],
)
def test_each_form_is_read_and_written(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == text


def test_different_spellings_of_one_address_are_equal() -> None:
    assert parse_endpoint("[0:0::1]:25") == parse_endpoint("[::1]:25")
    assert parse_endpoint("MAIL.example.org:25") == parse_endpoint("mail.example.org:25")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (25, "in quotes, not '25'"),
        (True, "in quotes, not yes"),
        ("25", "host:port, .* is expected, not '25'"),
        (":25", "host:port, .* is expected, not ':25'"),
        ("127.0.0.1:smtp", "a port from 1 to 65535"),
        ("127.0.0.1:65536", "a port from 1 to 65535"),
        ("127.0.0.1:-1", "a port from 1 to 65535"),
        ("127.0.0.1:\u0662\u0665", "a port from 1 to 65535"),
        ("127.0.0.1:" + "9" * 5000, "a port from 1 to 65535"),
        ("127.0.0.256:25", "is no IPv4 address"),
        ("127.1:25", "is no IPv4 address"),
        ("::1:25", r"written in brackets: '\[::1\]:port'"),
        ("[127.0.0.1]:25", "an IPv6 address is expected between the brackets"),
        ("[fe80::1:25", "an IPv6 address is written in brackets"),
        ("ho st:25", "neither an IP address nor the name of a host"),
        ("-a.example:25", "neither an IP address nor the name of a host"),
        ("a..example:25", "neither an IP address nor the name of a host"),
        ("unix:run/smtp.sock", "absolute path"),
        ("unix:/" + "x" * 107, "at most 107 octets"),
        ("systemd:", "systemd:name is expected"),
        ("systemd:a b", "systemd:name is expected"),
    ],
)
def test_what_is_no_address(text: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_endpoint(text)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("127.0.0.1:25", "127.0.0.1:25", True),
        ("127.0.0.1:25", "127.0.0.1:26", False),
        ("127.0.0.1:25", "127.0.0.2:25", False),
        ("0.0.0.0:25", "127.0.0.1:25", True),
        ("[::1]:25", "[::]:25", True),
        ("0.0.0.0:25", "[::]:25", False),
        ("0.0.0.0:0", "127.0.0.1:0", False),
        ("0.0.0.0:0", "0.0.0.0:0", True),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "systemd:a", False),
        ("unix:/a", "0.0.0.0:25", False),
    ],
)
def test_which_addresses_collide(one: str, other: str, *, expected: bool) -> None:
    first, second = parse_endpoint(one), parse_endpoint(other)
    assert collide(first, second) is collide(second, first) is expected
