"""XCLIENT and XFORWARD: who the client is, as commands (H6, S18; Postfix's XCLIENT_README and XFORWARD_README)."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpproxy.smtp import xtext
from smtpproxy.smtp.xclient import (
    ATTRIBUTES,
    TEMPUNAVAIL,
    UNAVAILABLE,
    address_value,
    parse_address,
    parse_xclient,
    plain_address,
    xclient_command,
    xforward_commands,
)

XFORWARD_ATTRIBUTES = (b"NAME", b"ADDR", b"PORT", b"PROTO", b"HELO", b"IDENT", b"SOURCE")

CLIENT = {
    b"NAME": b"spike.example.org",
    b"ADDR": b"192.0.2.1",
    b"PORT": b"49152",
    b"PROTO": b"ESMTP",
    b"HELO": b"helo.example.org",
    b"LOGIN": b"jo+e=x",
    b"DESTADDR": b"IPV6:2001:db8::1",
    b"DESTPORT": b"25",
}

# --- addresses --------------------------------------------------------------------------------------------------------

ADDRESSES = [
    ("192.0.2.1", b"192.0.2.1"),
    ("2001:DB8:0:0::1", b"IPV6:2001:db8::1"),
    ("::", b"IPV6:::"),
    ("::ffff:192.0.2.1", b"192.0.2.1"),
    ("::FFFF:c000:201", b"192.0.2.1"),
    ("fe80::1%eth0", b"IPV6:fe80::1"),
    ("", UNAVAILABLE),
]


@pytest.mark.parametrize(("address", "value"), ADDRESSES)
def test_an_address_as_a_value(address: str, value: bytes) -> None:
    assert address_value(address) == value


@pytest.mark.parametrize("address", ["mail.example.org", "192.0.2", "/run/socket", "192.0.2.1/32", " 192.0.2.1"])
def test_what_is_no_address_is_a_fault_of_ours(address: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        address_value(address)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (b"192.0.2.1", "192.0.2.1"),
        (b"0.0.0.0", "0.0.0.0"),
        (b"IPV6:2001:DB8:0:0::1", "2001:db8::1"),
        (b"ipv6:::1", "::1"),
        (b"IpV6:::ffff:192.0.2.1", "192.0.2.1"),
        (b"IPV6:::ffff:c000:201", "192.0.2.1"),
        (UNAVAILABLE, ""),
        (TEMPUNAVAIL, ""),
        (b"[unavailable]", ""),
        (b"[TempUnavail]", ""),
    ],
)
def test_a_value_as_an_address(value: bytes, address: str) -> None:
    assert parse_address(value) == address


NO_ADDRESSES = [
    b"", b"192.0.2", b"192.0.2.1.1", b"192.0.2.256", b"192.0.2.01", b"192.0.02.1", b"0xc0.0.2.1", b"3221225985",
    b"192.0.2.1 ", b"192.0.2.1/24", b"[192.0.2.1]", b"192.0.2.\xb2", b"192.0.2.-1", b"2001:db8::1", b"IPV6",
    b"IPV6:", b"IPV6:192.0.2.1", b"IPV6: ::1", b"IPV6:::1%eth0", b"IPV6:::1%", b"IPV6:::1::", b"IPV6:2001:db8::12345",
    b"IPV6:1:2:3:4:5:6:7", b"IPV6:IPV6:::1", b"IPV6:[::1]", b"IPV6:::1/64", b"IPV6:::ffff:192.0.2.256",
    b"IPV4:192.0.2.1", b"localhost", b"UNAVAILABLE", b"[UNKNOWN]", b"[]", b"[UNAVAILABLE] ", "\u0661.1.1.1".encode(),
]  # fmt: skip


@pytest.mark.parametrize("value", NO_ADDRESSES, ids=repr)
def test_h6_what_is_no_address_is_none(value: bytes) -> None:
    assert parse_address(value) is None


@given(st.ip_addresses())
def test_an_address_comes_back_in_its_normal_form(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert parse_address(address_value(str(address))) == str(plain_address(str(address)))


@given(st.ip_addresses(v=4))
def test_an_ipv4_client_on_an_ipv6_socket_is_an_ipv4_client(address: ipaddress.IPv4Address) -> None:
    assert address_value(f"::ffff:{address}") == str(address).encode()
    assert parse_address(f"IPV6:::ffff:{address}".encode()) == str(address)


@given(st.binary(max_size=50) | st.binary(max_size=45).map(b"IPV6:".__add__))
def test_h6_any_octets_at_all_as_an_address(value: bytes) -> None:
    address = parse_address(value)
    if address:
        assert str(ipaddress.ip_address(address)) == address


# --- the XCLIENT that we send -----------------------------------------------------------------------------------------


def test_all_that_is_on_offer_in_its_order() -> None:
    line = (
        b"XCLIENT NAME=spike.example.org ADDR=192.0.2.1 PORT=49152 PROTO=ESMTP HELO=helo.example.org LOGIN=jo+2Be+3Dx"
        b" DESTADDR=IPV6:2001:db8::1 DESTPORT=25\r\n"
    )
    assert xclient_command(CLIENT, ATTRIBUTES) == line
    assert xclient_command(dict(reversed(CLIENT.items())), set(ATTRIBUTES)) == line
    assert xclient_command(CLIENT, [name.lower() for name in ATTRIBUTES]) == line


def test_only_what_is_on_offer() -> None:
    assert xclient_command(CLIENT, [b"PROTO", b"ADDR", b"NAME"]) == (
        b"XCLIENT NAME=spike.example.org ADDR=192.0.2.1 PROTO=ESMTP\r\n"
    )
    assert xclient_command(CLIENT, [b"ADDR", b"SESSION", b"TTL"]) == b"XCLIENT ADDR=192.0.2.1\r\n"


def test_without_an_address_there_is_no_command() -> None:
    assert xclient_command(CLIENT, []) == b""
    assert xclient_command(CLIENT, [name for name in ATTRIBUTES if name != b"ADDR"]) == b""
    assert xclient_command({b"NAME": b"spike.example.org"}, ATTRIBUTES) == b""
    assert xclient_command({b"ADDR": b""}, ATTRIBUTES) == b""
    assert xclient_command({}, ATTRIBUTES) == b""


def test_s18_what_is_not_known_is_said_to_be_so() -> None:
    """A server may keep what the XCLIENT for the session's former client said: a login above all."""
    assert xclient_command({b"ADDR": b"192.0.2.1", b"LOGIN": b""}, ATTRIBUTES) == (
        b"XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=[UNAVAILABLE] HELO=[UNAVAILABLE] LOGIN=[UNAVAILABLE]"
        b" DESTADDR=[UNAVAILABLE] DESTPORT=[UNAVAILABLE]\r\n"
    )
    assert b" NAME=[TEMPUNAVAIL] " in xclient_command({**CLIENT, b"NAME": TEMPUNAVAIL}, ATTRIBUTES)
    assert b" ADDR=[UNAVAILABLE] " in xclient_command({**CLIENT, b"ADDR": UNAVAILABLE}, ATTRIBUTES)


HOST_NAMES = [
    b"a", b"mx", b"mail.example.org", b"MX_1.example.org", b"1-2-3-4.example.net", b"_a_.b", b"x" * 63 + b".example",
    b"3com", b".".join([b"a"] * 128), b"1.2.3.a",
]  # fmt: skip
NO_HOST_NAMES = [
    b".", b"a.", b".a", b"a..b", b"-a", b"a-", b"a.-b", b"a-.b", b"x" * 64, b".".join([b"a"] * 129), b"192.0.2.1",
    b"1", b"a b", b"a\n", b"a\r\nRSET", b"a\0", b"a=b", b"a+b", b"a/b", b"<a>", b"a:b", b"[192.0.2.1]",
    "bücher.example".encode(), b"\xff", b"*.example.org", b"[a]",
]  # fmt: skip


@pytest.mark.parametrize("name", HOST_NAMES, ids=repr)
def test_a_host_name_is_sent_and_taken_as_it_is(name: bytes) -> None:
    assert xclient_command({b"ADDR": b"192.0.2.1", b"NAME": name}, [b"NAME", b"ADDR"]) == (
        b"XCLIENT NAME=%s ADDR=192.0.2.1\r\n" % name
    )
    assert parse_xclient(b"NAME=" + name) == {b"NAME": name}


@pytest.mark.parametrize("name", NO_HOST_NAMES, ids=repr)
def test_h6_what_is_no_host_name_is_neither_sent_nor_taken(name: bytes) -> None:
    assert xclient_command({b"ADDR": b"192.0.2.1", b"NAME": name}, [b"NAME", b"ADDR"]) == (
        b"XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.1\r\n"
    )
    assert parse_xclient(b"NAME=" + xtext.encode(name)) == "bad value of NAME"


@pytest.mark.parametrize("helo", [*HOST_NAMES, b"[192.0.2.1]", b"[IPv6:2001:db8::1]"], ids=repr)
def test_a_helo_that_servers_take_is_sent(helo: bytes) -> None:
    assert xclient_command({b"ADDR": b"192.0.2.1", b"HELO": helo}, [b"HELO", b"ADDR"]) == (
        b"XCLIENT ADDR=192.0.2.1 HELO=%s\r\n" % helo
    )


@pytest.mark.parametrize(
    "helo",
    [
        *(name for name in NO_HOST_NAMES if name != b"[192.0.2.1]"), b"[192.0.2.256]", b"[192.0.2.1", b"192.0.2.1]",
        b"[]", b"[", b"]", b"[2001:db8::1]", b"[[UNAVAILABLE]]", TEMPUNAVAIL, UNAVAILABLE,
    ],
    ids=repr,
)  # fmt: skip
def test_a_helo_for_which_a_server_could_refuse_the_client_is_not_sent(helo: bytes) -> None:
    """Dovecot answers 501 to an XCLIENT with a HELO that is no name; the client's own EHLO comes later anyway."""
    assert xclient_command({b"ADDR": b"192.0.2.1", b"HELO": helo}, [b"HELO", b"ADDR"]) == (
        b"XCLIENT ADDR=192.0.2.1 HELO=[UNAVAILABLE]\r\n"
    )


def test_a_value_too_long_for_servers_is_not_sent() -> None:
    for length, value in ((255, b"x" * 255), (256, UNAVAILABLE)):
        line = xclient_command({b"ADDR": b"192.0.2.1", b"LOGIN": b"x" * length}, [b"ADDR", b"LOGIN"])
        assert line == b"XCLIENT ADDR=192.0.2.1 LOGIN=%s\r\n" % value
    # Postfix counts the octets of the xtext.
    for length, value in ((85, b"+2B" * 85), (86, UNAVAILABLE)):
        line = xclient_command({b"ADDR": b"192.0.2.1", b"LOGIN": b"+" * length}, [b"ADDR", b"LOGIN"])
        assert line == b"XCLIENT ADDR=192.0.2.1 LOGIN=%s\r\n" % value


def test_a_line_too_long_loses_helo_then_the_name_and_never_login_or_address() -> None:
    name, login = b".".join([b"x" * 63] * 3), b"y" * 255
    values = {**CLIENT, b"NAME": name, b"HELO": name}
    assert xclient_command(values, ATTRIBUTES).count(b"=" + name) == 2
    values[b"NAME"] = longer = name + b"." + b"a" * 60
    line = xclient_command(values, ATTRIBUTES)
    assert b" HELO=[UNAVAILABLE] " in line
    assert b" NAME=%s " % longer in line
    line = xclient_command({**values, b"LOGIN": login}, ATTRIBUTES)
    assert b" NAME=[UNAVAILABLE] " in line
    assert b" HELO=[UNAVAILABLE] " in line
    assert b" LOGIN=%s " % login in line


def test_a_line_of_512_octets_is_no_longer_than_allowed() -> None:
    longest = {**CLIENT, b"NAME": b".".join([b"x" * 63] * 3), b"HELO": b".".join([b"z" * 63] * 3), b"LOGIN": b"y"}
    room = 512 - len(xclient_command(longest, ATTRIBUTES))
    for length, kept in ((room + 1, True), (room + 2, False)):
        line = xclient_command({**longest, b"LOGIN": b"y" * length}, ATTRIBUTES)
        assert (len(line) == 512) is kept
        assert (b"HELO=[UNAVAILABLE]" in line) is not kept


def test_where_helo_is_not_on_offer_a_long_line_loses_the_name() -> None:
    values = {**CLIENT, b"NAME": b".".join([b"x" * 62] * 4), b"LOGIN": b"y" * 255}
    line = xclient_command(values, [name for name in ATTRIBUTES if name != b"HELO"])
    assert line.startswith(b"XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=49152 PROTO=ESMTP LOGIN=y")


RAW = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([b"a.example", b"[192.0.2.1]", UNAVAILABLE, TEMPUNAVAIL, b"x\r\nRSET\r\n", b"+" * 300]),
    st.integers(60, 64).map(lambda length: b".".join([b"x" * length] * 3)),
)


@st.composite
def clients(draw: st.DrawFn) -> dict[bytes, bytes]:
    """What may be known of a client; its name, its HELO and its login are anything."""
    address = st.ip_addresses().map(str).map(address_value)
    port = st.integers(0, 65535).map(lambda number: b"%d" % number)
    values = {
        b"NAME": RAW,
        b"ADDR": address,
        b"PORT": port,
        b"PROTO": st.sampled_from([b"SMTP", b"ESMTP"]),
        b"HELO": RAW,
        b"LOGIN": RAW,
        b"DESTADDR": address,
        b"DESTPORT": port,
        b"IDENT": RAW,
        b"SOURCE": st.sampled_from([b"LOCAL", b"REMOTE"]),
    }
    return {name: draw(value) for name, value in values.items() if draw(st.booleans())}


@given(clients(), st.sets(st.sampled_from([*ATTRIBUTES, b"SESSION"])))
def test_h1_whatever_a_client_says_of_itself_one_line_goes_out(values: dict[bytes, bytes], offered: set[bytes]) -> None:
    line = xclient_command(values, offered)
    if b"ADDR" not in values or b"ADDR" not in offered:
        assert line == b""
        return
    assert line.startswith(b"XCLIENT ")
    assert line.endswith(b"\r\n")
    assert len(line) <= 512
    words = dict(word.split(b"=") for word in line[8:-2].split(b" "))
    may_be_missing = {b"SESSION"} if b"PROTO" in values else {b"SESSION", b"PROTO"}
    assert offered - may_be_missing <= words.keys() <= offered
    assert list(words) == sorted(words, key=ATTRIBUTES.index)
    for name, text in words.items():
        assert xtext.decode(text) in {values.get(name, UNAVAILABLE), UNAVAILABLE}


@given(clients(), st.sets(st.sampled_from(ATTRIBUTES)))
def test_our_own_commands_are_understood_by_us(values: dict[bytes, bytes], offered: set[bytes]) -> None:
    login = values.get(b"LOGIN", b"")
    values[b"LOGIN"] = bytes(octet for octet in login if octet >= 32 and octet != 127)
    if values[b"LOGIN"] == TEMPUNAVAIL:
        del values[b"LOGIN"]
    line = xclient_command(values, offered)
    if line:
        attributes = parse_xclient(line[8:-2])
        assert isinstance(attributes, dict)
        assert attributes[b"ADDR"] == values[b"ADDR"]


# --- XFORWARD ---------------------------------------------------------------------------------------------------------


def test_xforward() -> None:
    values = {**CLIENT, b"IDENT": b"s1", b"SOURCE": b"REMOTE"}
    line = (
        b"XFORWARD NAME=spike.example.org ADDR=192.0.2.1 PORT=49152 PROTO=ESMTP HELO=helo.example.org IDENT=s1"
        b" SOURCE=REMOTE\r\n"
    )
    assert xforward_commands(values, XFORWARD_ATTRIBUTES) == [line]
    assert xforward_commands(values, [b"helo", b"name", b"LOGIN"]) == [
        b"XFORWARD NAME=spike.example.org HELO=helo.example.org\r\n"
    ]


def test_xforward_says_nothing_of_what_it_does_not_know() -> None:
    assert xforward_commands({b"ADDR": b"192.0.2.1", b"NAME": b""}, XFORWARD_ATTRIBUTES) == [
        b"XFORWARD ADDR=192.0.2.1\r\n"
    ]
    assert xforward_commands({}, XFORWARD_ATTRIBUTES) == []
    assert xforward_commands(CLIENT, []) == []
    assert xforward_commands({b"LOGIN": b"joe"}, XFORWARD_ATTRIBUTES) == []


def test_xforward_takes_several_lines_where_one_is_too_short() -> None:
    name = b".".join([b"x" * 62] * 4)
    lines = xforward_commands({**CLIENT, b"NAME": name, b"HELO": name, b"IDENT": b"i" * 255}, XFORWARD_ATTRIBUTES)
    assert lines == [
        b"XFORWARD NAME=" + name + b" ADDR=192.0.2.1 PORT=49152 PROTO=ESMTP\r\n",
        b"XFORWARD HELO=" + name + b"\r\n",
        b"XFORWARD IDENT=" + b"i" * 255 + b"\r\n",
    ]


def test_a_line_of_xforward_has_512_octets_at_most() -> None:
    rest = 512 - len(b"XFORWARD HELO=" + b"h" * 250 + b" IDENT=\r\n")
    helo = b".".join([b"h" * 62, b"h" * 62, b"h" * 62, b"h" * 61])
    for length, lines in ((rest, 1), (rest + 1, 2)):
        sent = xforward_commands({b"HELO": helo, b"IDENT": b"i" * length}, XFORWARD_ATTRIBUTES)
        assert len(sent) == lines


@given(clients(), st.sets(st.sampled_from([*XFORWARD_ATTRIBUTES, b"LOGIN"])))
def test_h1_xforward_is_lines_and_says_each_thing_once(values: dict[bytes, bytes], offered: set[bytes]) -> None:
    lines = xforward_commands(values, offered)
    sent = []
    for line in lines:
        assert line.startswith(b"XFORWARD ")
        assert line.endswith(b"\r\n")
        assert len(line) <= 512
        sent += [word.split(b"=") for word in line[9:-2].split(b" ")]
    known = {name for name, value in values.items() if value}
    assert [name for name, _ in sent] == [name for name in XFORWARD_ATTRIBUTES if name in known & offered]
    for name, text in sent:
        assert xtext.decode(text) in {values[name], UNAVAILABLE}


# --- the XCLIENT that we are sent -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "attributes"),
    [
        # as nginx and swaks write it
        (b"ADDR=192.0.2.1 LOGIN=joe NAME=[UNAVAILABLE]", [b"192.0.2.1", b"joe", UNAVAILABLE]),
        (b"addr=192.0.2.1 Name=spike.example.org", [b"192.0.2.1", b"spike.example.org"]),
        (b"ADDR=IPV6:2001:DB8::1", [b"IPV6:2001:DB8::1"]),
        (b"ADDR=[unavailable] DESTADDR=[TempUnavail]", [UNAVAILABLE, TEMPUNAVAIL]),
        (b"NAME=[tempunavail]", [TEMPUNAVAIL]),
        (b"PORT=0 DESTPORT=65535", [b"0", b"65535"]),
        (b"PORT=00025 DESTPORT=[unavailable]", [b"25", UNAVAILABLE]),
        (b"PROTO=esmtp", [b"ESMTP"]),
        (b"PROTO=SMTP", [b"SMTP"]),
        (b"HELO=[Unavailable] LOGIN=[unavailable]", [UNAVAILABLE, UNAVAILABLE]),
        (b"HELO=my+20pc", [b"my pc"]),
        (b"HELO=+FC LOGIN=j+C3+B6rg", [b"\xfc", "jörg".encode()]),
        (b"LOGIN=a=b+2bc", [b"a=b+c"]),
        (b"ADDR=1+2E2.3.4", [b"1.2.3.4"]),
        (b"HELO=" + b"x" * 255 + b" LOGIN=" + b"+78" * 255, [b"x" * 255, b"x" * 255]),
    ],
)
def test_h6_what_a_proxy_says(argument: bytes, attributes: list[bytes]) -> None:
    parsed = parse_xclient(argument)
    assert isinstance(parsed, dict)
    assert list(parsed.values()) == attributes
    assert list(parsed) == [word.partition(b"=")[0].upper() for word in argument.split(b" ")]


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        (b"", "attribute=value expected"),
        (b" ", "attribute=value expected"),
        (b"ADDR", "attribute=value expected"),
        (b"ADDR=", "attribute=value expected"),
        (b"ADDR=192.0.2.1 ", "attribute=value expected"),
        (b"ADDR=192.0.2.1  PORT=1", "attribute=value expected"),
        (b"ADDR=192.0.2.1 PORT", "attribute=value expected"),
        (b"ADDR =192.0.2.1", "attribute=value expected"),
        (b"=192.0.2.1", "unknown attribute"),
        (b"IDENT=1", "unknown attribute"),
        (b"REVERSE_NAME=a.example", "unknown attribute"),
        (b"\xff\r\n=1", "unknown attribute"),
        (b"ADDR=192.0.2.1\tPORT=1", "bad value of ADDR"),
        (b"ADDR=192.0.2.1 addr=192.0.2.1", "ADDR given twice"),
        (b"LOGIN=[UNAVAILABLE] LOGIN=joe", "LOGIN given twice"),
        (b"ADDR=2001:db8::1", "bad value of ADDR"),
        (b"DESTADDR=mail.example.org", "bad value of DESTADDR"),
        (b"PORT=65536", "bad value of PORT"),
        (b"PORT=-1", "bad value of PORT"),
        (b"PORT=+2B1", "bad value of PORT"),
        (b"PORT=1_0", "bad value of PORT"),
        (b"PORT=1+20", "bad value of PORT"),
        (b"PORT=+B2", "bad value of PORT"),
        (b"PORT=[TEMPUNAVAIL]", "bad value of PORT"),
        (b"DESTPORT=0x19", "bad value of DESTPORT"),
        (b"PROTO=LMTP", "bad value of PROTO"),
        (b"PROTO=ESMTPS", "bad value of PROTO"),
        (b"PROTO=[UNAVAILABLE]", "bad value of PROTO"),
        (b"HELO=[TEMPUNAVAIL]", "bad value of HELO"),
        (b"LOGIN=[tempunavail]", "bad value of LOGIN"),
        (b"HELO=" + b"x" * 256, "bad value of HELO"),
        (b"LOGIN=" + b"+78" * 256, "bad value of LOGIN"),
        (b"NAME=" + b".".join([b"a"] * 129), "bad value of NAME"),
        (b"LOGIN=+", "bad value of LOGIN"),
        (b"LOGIN=+zz", "bad value of LOGIN"),
        (b"LOGIN=j\xc3\xb6rg", "bad value of LOGIN"),
        (b"LOGIN=a\0", "bad value of LOGIN"),
        (b"LOGIN=a\r\nRSET", "bad value of LOGIN"),
    ],
)
def test_h6_what_is_malformed_is_refused_whole(argument: bytes, why: str) -> None:
    assert parse_xclient(argument) == why


def test_h6_no_control_character_comes_in_as_xtext() -> None:
    for octet in range(256):
        for before, behind in ((b"", b""), (b"a", b""), (b"", b"b")):
            for name in ATTRIBUTES:
                parsed = parse_xclient(b"%s=%s+%02X%s" % (name, before, octet, behind))
                if octet < 32 or octet == 127:
                    assert parsed == f"bad value of {name.decode()}"
                elif name in (b"HELO", b"LOGIN"):
                    assert parsed == {name: before + bytes([octet]) + behind}


@pytest.mark.parametrize("value", [value for value in NO_ADDRESSES if value], ids=repr)
def test_h6_no_client_without_an_address(value: bytes) -> None:
    assert parse_xclient(b"ADDR=" + xtext.encode(value)) == "bad value of ADDR"


WORDS = st.one_of(
    st.sampled_from(
        [
            *(name + b"=" for name in ATTRIBUTES),
            b" ",
            b"=",
            b"+",
            b"192.0.2.1",
            b"IPV6:::1",
            UNAVAILABLE,
            b"25",
            b"ESMTP",
        ]
    ),
    st.binary(max_size=4),
)


@given(st.lists(WORDS, max_size=12).map(b"".join))
@example(b"NAME=a ADDR=192.0.2.1 PORT=1 PROTO=SMTP HELO=a LOGIN=a DESTADDR=IPV6:::1 DESTPORT=1")
def test_h6_anything_at_all(argument: bytes) -> None:
    parsed = parse_xclient(argument)
    if isinstance(parsed, str):
        assert parsed.isascii()
        assert parsed.isprintable()
        assert parsed
        return
    assert set(parsed) <= set(ATTRIBUTES)
    for name, value in parsed.items():
        assert 0 < len(value) <= 255
        assert not any(octet < 32 or octet == 127 for octet in value)
        assert name not in (b"ADDR", b"DESTADDR") or parse_address(value) is not None
        assert name not in (b"PORT", b"DESTPORT") or value == UNAVAILABLE or 0 <= int(value) <= 65535
    again = parse_xclient(b" ".join(b"%s=%s" % (name, xtext.encode(value)) for name, value in parsed.items()))
    assert again == parsed
