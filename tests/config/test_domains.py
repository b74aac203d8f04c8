"""Names of hosts and recipient domains."""

import pytest

from smtpproxy.config.domains import domain_spellings, is_hostname


@pytest.mark.parametrize(
    ("text", "spellings"),
    [
        ("example.org", ("example.org",)),
        ("Example.ORG", ("example.org",)),
        ("localhost", ("localhost",)),
        ("bücher.example", ("xn--bcher-kva.example", "bücher.example")),
        ("BÜCHER.example", ("xn--bcher-kva.example", "bücher.example")),
        ("xn--bcher-kva.example", ("xn--bcher-kva.example", "bücher.example")),
        ("XN--BCHER-KVA.example", ("xn--bcher-kva.example", "bücher.example")),
        ("straße.example", ("xn--strae-oqa.example", "straße.example")),
        ("例え.example", ("xn--r8jz45g.example", "例え.example")),
        ("[192.0.2.1]", ("[192.0.2.1]",)),
        ("[IPv6:2001:DB8::1]", ("[ipv6:2001:db8::1]",)),
    ],
)
def test_every_spelling_of_a_domain(text: str, spellings: tuple[str, ...]) -> None:
    assert domain_spellings(text) == spellings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no domain"),
        ("a..b", "is no domain"),
        ("example.org.", "is no domain"),
        ("a b", "is no domain"),
        ("-a.example", "is no domain"),
        ("a" * 64 + ".example", "is no domain"),
        ("a." * 126 + "abc", "is no domain"),
        ("bü cher.example", "is no domain"),
        ("xn--zz-.example", "is no domain"),
        ("user@example.org", "not the address 'user@example.org'"),
        ("*.example.org", "without wildcard"),
        (".example.org", "without wildcard"),
        ("[192.0.2]", "is no address literal"),
        ("[2001:db8::1]", "is no address literal"),
        ("[IPv6:1]", "is no address literal"),
    ],
)
def test_what_is_no_domain(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        domain_spellings(text)


def test_host_names() -> None:
    assert is_hostname("mail.example.org")
    assert is_hostname("my_container")
    assert is_hostname(".".join(["a" * 63] * 3 + ["b" * 61]))
    assert not is_hostname(".".join(["a" * 63] * 3 + ["b" * 62]))
    assert not is_hostname("")
    assert not is_hostname("bücher.example")
    assert not is_hostname("mail.example.org\n")
