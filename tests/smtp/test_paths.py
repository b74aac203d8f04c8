"""Forward paths read so narrowly that no server can read another address in them (S14), and parameters."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpproxy.smtp.paths import POSTMASTER, parameters, path_of, recipient_domain

# --- S14: what has a domain -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "domain"),
    [
        (b"TO:<a@example.org>", "example.org"),
        (b"to:<a@EXAMPLE.Org>", "example.org"),
        (b"To: <a@example.org>", "example.org"),
        (b"TO:\t<a@example.org>", "example.org"),
        (b"TO:<a@example.org> NOTIFY=NEVER ORCPT=rfc822;other@else.example", "example.org"),
        (b"TO:<a@example.org>\tNOTIFY=NEVER", "example.org"),
        (b"TO:<first.last+tag@example.org>", "example.org"),
        (b"TO:<#$&'*+-/=?^_`{|}~@example.org>", "example.org"),
        (b'TO:<"two words"@example.org>', "example.org"),
        (b'TO:<"a,b;c(d)"@example.org>', "example.org"),
        (b"TO:<a@[192.0.2.1]>", "[192.0.2.1]"),
        (b"TO:<a@[IPv6:2001:db8::1]>", "[ipv6:2001:db8::1]"),
        (b"TO:<a@sub_domain.example.org>", "sub_domain.example.org"),
        ("TO:<jörg@bücher.example>".encode(), "bücher.example"),
        ("TO:<a@BÜCHER.example>".encode(), "bücher.example"),
        (b"TO:<a@example.org.>", "example.org."),
        (b"TO:<a@.example.org>", ".example.org"),
        (b"TO:<postmaster>", POSTMASTER),
        (b"to:<PostMaster> NOTIFY=NEVER", POSTMASTER),
        (b"TO:<postmaster@example.org>", "example.org"),
    ],
)
def test_s14_the_domain_of_a_plain_path(argument: bytes, domain: str) -> None:
    assert recipient_domain(argument) == domain


# Each of these names somebody else to some server; or it is malformed, and every server reads it in its own way.
OTHERS_COULD_READ = [
    # source routes (RFC 5321, appendix C)
    b"TO:<@example.org:victim@else.example>", b"TO:<@else.example:a@example.org>",
    b"TO:<@example.org,@else.example:a@example.org>",
    # the percent hack, bang paths, and both
    b"TO:<victim%else.example@example.org>", b"TO:<else.example!victim@example.org>", b"TO:<a%b!c@example.org>",
    b"TO:<victim%else.example>", b"TO:<else.example!victim>",
    # a second address in a quoted local part
    b'TO:<"victim@else.example"@example.org>', b'TO:<"victim%else.example"@example.org>',
    b'TO:<"else.example!victim"@example.org>',
    b'TO:<"@else.example:victim"@example.org>', b'TO:<"a>"@example.org>', b'TO:<"<victim"@example.org>',
    b'TO:<"a\\"@else.example\\""@example.org>',
    b'TO:<"a\\b"@example.org>', b'TO:<"victim"@else.example@example.org>', b'TO:<a."b"@example.org>',
    b'TO:<"a"b@example.org>',
    b'TO:<"a"."b"@example.org>', b'TO:<"a@example.org>', b'TO:<a"@example.org>',
    # several at signs, or none
    b"TO:<victim@else.example@example.org>", b"TO:<a@example.org@else.example>", b"TO:<@example.org>",
    b"TO:<a@@example.org>",
    b"TO:<a@>", b"TO:<@>", b"TO:<a>", b"TO:<>", b"TO:<example.org>", b"TO:<postmaster@>", b"TO:<postmasterx>",
    b"TO:<xpostmaster>",
    # quoted pairs outside quotes
    b"TO:<victim\\@else.example@example.org>", b"TO:<a\\b@example.org>", b"TO:<a@example\\.org>",
    # lists, comments, phrases, spaces
    b"TO:<a@example.org,victim@else.example>", b"TO:<a@example.org>,<victim@else.example>",
    b"TO:<a@example.org><victim@else.example>",
    b"TO:<a@example.org(@else.example)>", b"TO:<a(comment)@example.org>", b"TO:<(a@else.example)a@example.org>",
    b"TO:a group:<a@example.org>;", b"TO:victim@else.example <a@example.org>", b"TO:Somebody <a@example.org>",
    b"TO:<a @example.org>", b"TO:< a@example.org>", b"TO:<a@example.org >", b"TO:<a@ example.org>",
    b"TO:<a b@example.org>",
    b"TO:<a@example.org> <victim@else.example>", b"TO:<a@example.org> X=<victim@else.example>",
    b"TO:<a@example.org> >",
    # brackets missing, doubled, turned round
    b"TO:a@example.org", b"TO:<a@example.org", b"TO:a@example.org>", b"TO:<<a@example.org>>", b"TO:<a@example.org>>",
    b"TO:>a@example.org<",
    b"TO:<a@example.org>victim@else.example", b"TO:<a@example.org>x",
    # no RCPT argument at all
    b"", b"TO", b"TO:", b"<a@example.org>", b"FROM:<a@example.org>", b"TO :<a@example.org>", b"TO <a@example.org>",
    b" TO:<a@example.org>",
    b"TO:TO:<a@example.org>", b"XTO:<a@example.org>",
    # address literals that hold more
    b"TO:<a@[192.0.2.1]else.example>", b"TO:<a@[192.0.2.1>", b"TO:<a@192.0.2.1]>", b"TO:<a@[]>", b"TO:<a@[a@b]>",
    b"TO:<a@[1]@example.org>",
    b"TO:<a@[example.org!x]>", b"TO:<a@x[192.0.2.1]>",
    # characters that no domain has
    b"TO:<a@example.org/else.example>", b"TO:<a@example.org:25>", b"TO:<a@example.org|sh>", b"TO:<a@example.org;x>",
    b"TO:<a@example.org%x>",
    b"TO:<a@example.org?x>", b"TO:<a@exam\tple.org>", b"TO:<a@#1>", b"TO:<a@*>",
    # octets that are no text
    b"TO:<a@example.org\xff>", b"TO:<a@\xc3(x>", b"TO:<a@b\xc3>", b"TO:<a\xc1\x80else.example@example.org>",
    b"TO:<a\xff@example.org>",
    # control characters (a command line has none, but this is the grammar's own promise)
    b"TO:<a@example.org>\n", b"TO:<a@example.org>\r\n", b"TO:<a@example.org>\n<victim@else.example>",
    b"TO:<a\0@example.org>",
    b"TO:<a@example.org\0>", b"TO:<a@example.org>\0", b'TO:<"a\nb"@example.org>', b"TO:<a@example.org\n>",
    b"TO:<postmaster>\n",
]  # fmt: skip


@pytest.mark.parametrize("argument", OTHERS_COULD_READ, ids=repr)
def test_s14_what_some_server_could_read_as_another_address_has_no_domain(argument: bytes) -> None:
    assert recipient_domain(argument) is None


@pytest.mark.parametrize(
    "disguised",
    ["\u212aiosk.example", "kiosk.e\u017fample", "\uff4biosk.example", "k\u0131osk.example", "K\u0130OSK.example"],
)
def test_s14_no_letter_beyond_ascii_turns_into_an_ascii_one(disguised: str) -> None:
    """Lower case of U+212A KELVIN SIGN is an ASCII k; the backend that compares octets sees another domain."""
    domain = recipient_domain(b"TO:<a@" + disguised.encode() + b">")
    assert domain is None or not domain.isascii()


# --- S14: against lax readers -----------------------------------------------------------------------------------------


def lax_readings(argument: bytes) -> set[bytes]:
    """The domains that servers might see: by the last brackets, without quotes, by the first @, by routes."""
    texts: set[bytes] = set()
    for pattern in (rb"<(.*)>", rb"<([^>]*)>", rb".*<([^>]*)>", rb".*<(.*)>"):
        texts |= {match.group(1) for match in re.finditer(pattern, argument, re.DOTALL)}
    texts |= {re.sub(rb"\(.*?\)", b"", text) for text in texts}
    texts |= {text.replace(b'"', b"").replace(b"\\", b"") for text in texts}
    paths = {
        part.strip(b"<> ,;") for text in texts for part in re.split(rb"[ ,]", text) if b"@" in part and b"=" not in part
    }
    domains: set[bytes] = set()
    for path in paths:
        domains |= {
            path.partition(b"@")[2],
            path.rpartition(b"@")[2],
            path.rpartition(b":")[2].rpartition(b"@")[2] or path,
        }
        local = path.rpartition(b"@")[0].replace(b'"', b"")
        domains |= {b"routed"} if b"%" in local or b"!" in local else set()
    return {domain.partition(b">")[0].lower() for domain in domains}


PARTS = (
    b"TO:", b"<", b">", b"@", b"a", b"b.c", b"example.org", b"else.example", b'"', b"\\", b"%", b"!", b":", b",",
    b" ", b"(", b")", b"[1.2.3.4]",
    b"postmaster", b"\t", b";", b"=", b".",
)  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), max_size=9).map(b"".join))
@example(b" <b@else.example>")
def test_s14_what_has_a_domain_has_it_for_every_reader(text: bytes) -> None:
    for argument in (
        b"TO:<" + text,
        b"TO:<a" + text,
        b"TO:<a@example.org>" + text,
        b"TO:<a@example.org" + text + b">",
        b"TO:" + text,
    ):
        domain = recipient_domain(argument)
        if domain is not None and domain != POSTMASTER:
            assert lax_readings(argument) <= {domain.encode()}, argument


# --- parameters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"FROM:<>", []),
        (b"FROM:<> SIZE=100", [(b"SIZE", b"100")]),
        (b"FROM:<a@b> size=1 Body=8BITMIME", [(b"SIZE", b"1"), (b"BODY", b"8BITMIME")]),
        (b"FROM:<a@b> SMTPUTF8", [(b"SMTPUTF8", b"")]),
        (b"FROM:<a@b>\tSIZE=1", [(b"SIZE", b"1")]),
        (b"FROM:<a@b>   SIZE=1  RET=HDRS ", [(b"SIZE", b"1"), (b"RET", b"HDRS")]),
        (b"FROM:<a@b>SIZE=1", [(b"SIZE", b"1")]),
        (b'FROM:<"a> SIZE=9"@b> SIZE=1', [(b"SIZE", b"1")]),
        (b'FROM:<"a\\"> SIZE=9"@b> SIZE=1', [(b"SIZE", b"1")]),
        (b"FROM:<a\\>b@c> SIZE=1", [(b"SIZE", b"1")]),
        (b"TO:<a@b> ORCPT=rfc822;x@y NOTIFY=a=b", [(b"ORCPT", b"rfc822;x@y"), (b"NOTIFY", b"a=b")]),
        (b"FROM:a@b SIZE=1", [(b"SIZE", b"1")]),
        (b"FROM: a@b SIZE=1", [(b"SIZE", b"1")]),
        (b"FROM:a@b", []),
        (b"FROM:", []),
        (b"", []),
    ],
)
def test_parameters(argument: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    assert parameters(argument) == expected


KEYWORDS = st.from_regex(rb"[A-Z0-9][A-Z0-9-]{0,8}", fullmatch=True)
VALUES = st.from_regex(rb"[!-;?-~]{0,12}", fullmatch=True)
LOCAL_PARTS = st.one_of(
    st.from_regex(rb"[a-z0-9.]{1,8}", fullmatch=True),
    st.lists(st.sampled_from([b"a", b" ", b">", b"<", b"@", b"\\\\", b'\\"', b"SIZE=7"]), max_size=6).map(
        lambda parts: b'"' + b"".join(parts) + b'"'
    ),
)


@given(LOCAL_PARTS, st.lists(st.tuples(KEYWORDS, VALUES), max_size=5))
def test_parameters_stand_behind_whatever_path(local: bytes, given_parameters: list[tuple[bytes, bytes]]) -> None:
    words = [keyword + (b"=" + value if value else b"") for keyword, value in given_parameters]
    assert parameters(b" ".join([b"FROM:<" + local + b"@example.org>", *words])) == given_parameters


@given(st.binary(max_size=100))
def test_parameters_of_anything_at_all(argument: bytes) -> None:
    for keyword, value in parameters(argument):
        assert keyword == keyword.upper()
        assert keyword + value
        assert b" " not in keyword + value


# --- paths for the log ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"MAIL FROM:<a@b> SIZE=1\r\n", b"a@b"),
        (b"mail from:<>\r\n", b""),
        (b"RCPT TO: <a@b>\r\n", b"a@b"),
        (b"RCPT  TO:<a@b>\r\n", b"a@b"),
        (b"MAIL FROM:a@b SIZE=1\r\n", b"a@b"),
        (b'RCPT TO:<"x> y"@b> NOTIFY=NEVER\r\n', b'"x> y"@b'),
        (b"RCPT TO:<@r:a@b>\r\n", b"@r:a@b"),
        (b"RCPT nonsense\r\n", b""),
    ],
)
def test_the_path_for_a_log(raw: bytes, path: bytes) -> None:
    assert path_of(raw) == path
