"""The texts of MTA-STS: TXT records, policies, patterns (RFC 8461, 3 and 4.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.net.stspolicy import LONGEST_AGE, StsError, StsPolicy, parse_policy, policy_id

GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"
POLICY = StsPolicy("enforce", 604800, ("mail.example.com", "*.example.net"))


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=1"], "1"),
        ([b"v=STSv1; extra=x; id=1 ; id=2"], "1"),
        ([b"something else", b"v=STSv1; id=1;"], "1"),
        ([b"v=STSv1; id=1;", b"v=STSv1; id=1;"], ""),
        ([b"v=STSv2; id=1;"], ""),
        ([b"V=STSv1; id=1;"], ""),
        ([b"id=1; v=STSv1;"], ""),
        ([b"v=STSv1;"], ""),
        ([b"v=STSv1; id="], ""),
        ([b"v=STSv1; id=a-b"], ""),
        ([b"v=STSv1; id=" + b"a" * 32], "a" * 32),
        ([b"v=STSv1; id=" + b"a" * 33], ""),
        ([b"v=STSv1; id=\xff"], ""),
        ([], ""),
    ],
)
def test_the_id_of_a_policy(texts: list[bytes], found: str) -> None:
    assert policy_id((text,) for text in texts) == found
    assert policy_id((text[:5], text[5:]) for text in texts) == found  # RFC 7208, 3.3: strings are put together


@pytest.mark.parametrize(
    ("content", "policy"),
    [
        (GOOD, POLICY),
        (GOOD.replace(b"\r\n", b"\n"), POLICY),
        (GOOD.removesuffix(b"\r\n"), POLICY),
        (GOOD.replace(b": ", b":  \t") + b"\r\n  \r\n", POLICY),
        (b"max_age:604800\nmx:MAIL.example.com.\nmode:enforce\nmx:*.Example.Net\nversion:STSv1", POLICY),
        (GOOD + "new_key: gr\u00fcn\n".encode(), POLICY),
        (GOOD + b"mode: none\nmax_age: 1\nversion: STSv2\nmx: mail.example.com\n", POLICY),
        (GOOD.replace(b"604800", b"9999999999"), POLICY._replace(max_age=LONGEST_AGE)),
        (GOOD.replace(b"enforce", b"testing"), POLICY._replace(mode="testing")),
        (b"version: STSv1\nmode: none\nmax_age: 0\n", StsPolicy("none", 0, ())),
    ],
)
def test_policies(content: bytes, policy: StsPolicy) -> None:
    assert parse_policy(content) == policy


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "its version is not STSv1"),
        (GOOD.replace(b"STSv1", b"STSv2"), "its version is not STSv1"),
        (GOOD.replace(b"version", b"Version"), "its version is not STSv1"),
        (GOOD.replace(b"mode: enforce\r\n", b""), "it has none of the modes enforce, testing and none"),
        (GOOD.replace(b"enforce", b"Enforce"), "it has none of the modes enforce, testing and none"),
        (GOOD.replace(b"max_age: 604800\r\n", b""), "its max_age is no number of seconds"),
        (GOOD.replace(b"604800", b"-1"), "its max_age is no number of seconds"),
        (GOOD.replace(b"604800", b"6 days"), "its max_age is no number of seconds"),
        (GOOD.replace(b"604800", b"12345678901"), "its max_age is no number of seconds"),
        (GOOD.replace(b"604800", "\u0661".encode()), "its max_age is no number of seconds"),
        (GOOD.replace(b"mx:", b"xm:"), "it names no MX host"),
        (GOOD.replace(b"mail.example.com", b"*"), "one of its MX hosts is no name of a host"),
        (GOOD.replace(b"mail.example.com", b"mail.*.com"), "one of its MX hosts is no name of a host"),
        (GOOD.replace(b"mail.example.com", b""), "one of its MX hosts is no name of a host"),
        (GOOD + b"<html>", "a line of it has no colon"),
        (GOOD + b"x: \xff", "it is no text in UTF-8"),
    ],
)
def test_what_is_no_policy(content: bytes, why: str) -> None:
    with pytest.raises(StsError, match=f"^{why}$"):
        parse_policy(content)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("mail.example.com", True),
        ("MAIL.example.com.", True),
        ("x.mail.example.com", False),
        ("example.com", False),
        ("mx.example.net", True),
        ("Mx.Example.Net", True),
        ("a.mx.example.net", False),
        ("example.net", False),
        ("net", False),
        ("", False),
    ],
)
def test_patterns(host: str, *, allowed: bool) -> None:
    """RFC 8461, 4.1: an asterisk stands for exactly one label."""
    assert POLICY.allows(host) == allowed


labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)


def test_a_policy_that_names_too_many_hosts_is_none() -> None:
    lines = ["version: STSv1", "mode: enforce", "max_age: 86400", *(f"mx: mx{n}.example.org" for n in range(200))]
    assert len(parse_policy("\n".join(lines).encode()).mx) == 200
    with pytest.raises(StsError, match="more than 200"):
        parse_policy("\n".join([*lines, "mx: another.example.org"]).encode())


patterns = st.one_of(names, names.map("*.{}".format))


@st.composite
def written(draw: st.DrawFn) -> tuple[bytes, StsPolicy]:
    """A policy as somebody may write it, and what it means."""
    mode = draw(st.sampled_from(["enforce", "testing", "none"]))
    mx = draw(st.lists(patterns, min_size=0 if mode == "none" else 1, max_size=5))
    age = draw(st.integers(0, LONGEST_AGE))
    lines = ["version: STSv1", f"mode: {mode}", f"max_age: {age}", *draw(st.lists(names.map("x_{}: y".format)))]
    order = draw(st.permutations([*lines, None]))
    at = order.index(None)  # the MX hosts stand together, anywhere
    everything = [*order[:at], *(f"mx: {pattern}" for pattern in mx), *order[at + 1 :]]
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = end.join(line for line in everything if line is not None) + draw(st.sampled_from(["", end]))
    return text.encode(), StsPolicy(mode, age, tuple(dict.fromkeys(mx)))


@given(written())
def test_every_policy_is_understood(made: tuple[bytes, StsPolicy]) -> None:
    content, policy = made
    assert parse_policy(content) == policy
    for pattern in policy.mx:
        assert policy.allows(pattern.replace("*", "any"))


@given(st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(GOOD.split(b"\r\n"))).map(b"\n".join)))
def test_nothing_else_breaks_the_parser(content: bytes) -> None:
    try:
        policy = parse_policy(content)
    except StsError:
        return
    assert policy.mode == "none" or policy.mx
    assert 0 <= policy.max_age <= LONGEST_AGE


@given(st.lists(st.lists(st.binary(max_size=40)).map(tuple)))
def test_nothing_breaks_the_reading_of_txt_records(records: list[tuple[bytes, ...]]) -> None:
    assert policy_id(records).isascii()
