"""Which certificates answer for a name."""

from types import SimpleNamespace
from typing import Any

import pytest

from smtpproxy.net.tlsnames import Choice


def pair(kind: str, *names: str) -> Any:
    return SimpleNamespace(kind=kind, names=names)


class Pairs:
    """Stand-ins by a letter each, and the choice between them; what answers is given as letters."""

    def __init__(self, **pairs: Any) -> None:
        self.made: list[str] = []
        letters = {id(each): letter for letter, each in pairs.items()}

        def make(chosen: tuple[Any, ...]) -> str:
            self.made.append("".join(letters[id(each)] for each in chosen))
            return self.made[-1]

        hashable = [Hashable(each) for each in pairs.values()]
        letters = {id(each): letter for each, letter in zip(hashable, pairs, strict=True)}
        self.choice: Choice[str] = Choice(hashable, make)  # type: ignore[arg-type]  # stand-ins

    def find(self, name: bytes | None) -> str:
        return self.choice.find(name)


class Hashable:
    def __init__(self, namespace: Any) -> None:
        self.kind: str = namespace.kind
        self.names: tuple[str, ...] = namespace.names


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        (b"mx.example.org", "a"),
        (b"MX.EXAMPLE.ORG", "a"),
        (b"mx.example.org.", "a"),
        (b"mail.example.org", "b"),
        (b"exact.example.com", "d"),
        (b"other.example.com", "c"),
        (b"two.labels.example.com", "a"),
        (b"example.com", "a"),
        (b".example.com", "c"),
        (b"*.example.com", "c"),
        (b"", "a"),
        (None, "a"),
        (b"\xff\xfe", "a"),
        (b".", "a"),
        (b"192.0.2.7", "a"),
        (b"x" * 255, "a"),
    ],
)
def test_exact_then_wildcard_then_default(name: bytes | None, answer: str) -> None:
    pairs = Pairs(
        a=pair("ECDSA", "mx.example.org"),
        b=pair("ECDSA", "mail.example.org"),
        c=pair("ECDSA", "*.example.com"),
        d=pair("ECDSA", "exact.example.com"),
    )
    assert pairs.find(name) == answer


def test_one_of_each_kind_the_first_wins() -> None:
    pairs = Pairs(
        a=pair("RSA", "mx.example.org"),
        b=pair("ECDSA", "mx.example.org", "mail.example.org"),
        c=pair("ECDSA", "mx.example.org"),
        d=pair("RSA", "*.example.org"),
    )
    assert pairs.find(b"mx.example.org") == "ab"
    assert pairs.find(b"mail.example.org") == "bd"
    assert pairs.find(b"other.example.org") == "d"
    assert pairs.find(None) == "ab"


def test_the_default_is_the_first_with_what_shares_a_name() -> None:
    pairs = Pairs(
        a=pair("ECDSA", "mx.example.org"),
        b=pair("RSA", "mail.example.org"),
        c=pair("RSA", "mx.example.org", "old.example.org"),
    )
    assert pairs.find(None) == "ac"


def test_a_certificate_without_a_name_can_be_the_default_only() -> None:
    pairs = Pairs(a=pair("ECDSA"), b=pair("ECDSA", "mx.example.org"), c=pair("RSA"))
    assert pairs.find(None) == "a"
    assert pairs.find(b"mx.example.org") == "b"


def test_each_set_is_made_once() -> None:
    names = [f"mx{number}.example.org" for number in range(50)]
    pairs = Pairs(a=pair("ECDSA", *names), b=pair("RSA", *names), c=pair("RSA", "*.example.org"))
    assert pairs.made == ["ab", "c"]
