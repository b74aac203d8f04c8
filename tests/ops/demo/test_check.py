"""The final check: what it finds wrong, and that it finds nothing wrong with what is right."""

from smtpproxy.ops.demo.check import mistakes
from smtpproxy.ops.demo.flights import WAYS
from smtpproxy.ops.demo.messages import message_id, messages

SENT = {message.key: (f"way, {message.name}", message.data) for message in messages("way")}
DATA = [data for _, data in SENT.values()]


def test_all_there_in_any_order() -> None:
    assert mistakes(SENT, reversed(DATA)) == []


def test_lost_doubled_changed_and_foreign_messages_are_each_named() -> None:
    short, dots, eight_bit, large = DATA
    changed = large[:50_000] + b"#" + large[50_001:]
    assert mistakes(SENT, [dots, dots, eight_bit[:-2], changed, b"Subject: x\r\n\r\n"]) == [
        f"way, 8-bit: changed on the way, from octet {len(eight_bit) - 2} on.",
        "way, 100 KiB: changed on the way, from octet 50000 on.",
        "A message of 14 octets arrived that the demo did not send.",
        "way, short: did not arrive.",
        "way, dots: arrived 2 times.",
    ]
    assert short not in (dots, eight_bit, large)


def test_messages_are_of_the_kinds_that_get_damaged() -> None:
    short, dots, eight_bit, large = DATA
    assert short.isascii()
    assert b"\r\n.\r\n" in dots
    assert b"\r\n..\r\n" in dots
    assert set(range(128, 256)) <= set(eight_bit)
    assert len(large) > 100 * 1024
    for data in DATA:
        assert data.endswith(b"\r\n")
        assert data.count(b"\n") == data.count(b"\r") == data.count(b"\r\n")


def test_message_ids_differ_between_ways_and_kinds() -> None:
    keys = [message.key for way in WAYS for message in messages(way.key)]
    assert len(set(keys)) == len(keys) == 16
    assert [message_id(data) for data in DATA] == list(SENT)
    assert message_id(b"Subject: x\r\n\r\nMessage-ID: <no>\r\n") is None
