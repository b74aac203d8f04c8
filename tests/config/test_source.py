"""Reading YAML: plain data with line numbers, and nothing that could surprise or explode."""

import pytest

from smtpproxy.config.problem import NOTHING
from smtpproxy.config.source import Source, read_yaml


def mistakes(text: str) -> list[str]:
    return [str(problem) for problem in read_yaml("f", text).problems]


def test_plain_data_and_its_lines() -> None:
    source = read_yaml("f", "a:\n  b: [x,\n   5]\n\nc: {d: yes}\n")
    assert source.problems == []
    assert source.data == {"a": {"b": ("x", 5)}, "c": {"d": True}}
    assert source.lines == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "b", 0): 2,
        ("a", "b", 1): 3,
        ("c",): 5,
        ("c", "d"): 5,
    }


def test_the_line_of_something_missing_is_that_of_what_is_around_it() -> None:
    source = read_yaml("f", "\n\na:\n  - b: 1\n")
    assert source.line_of(("a", 0, "c")) == 4
    assert source.line_of(("x", "y")) == 1
    assert Source("f").line_of(("x",)) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", False),
        ("On", True),
        ("NO", False),
        ("true", True),
        ("25", 25),
        ("-3", -3),
        ("", NOTHING),
        ("~", NOTHING),
        ("'off'", "off"),
        ('"25"', "25"),
        ("5.0", "5.0"),
        ("22:22", "22:22"),
        ("0x10", "0x10"),
        ("2001-01-01", "2001-01-01"),
        ("5 min", "5 min"),
        ("y", "y"),
        ("!!str 25", "25"),
    ],
)
def test_what_a_scalar_means(text: str, value: object) -> None:
    source = read_yaml("f", f"a: {text}\n")
    assert source.problems == []
    assert source.data == {"a": value}
    assert type(source.data["a"]) is type(value)


def test_an_empty_file_is_no_mistake_of_yaml() -> None:
    assert read_yaml("f", "# nothing\n").data is None
    assert mistakes("") == []


def test_a_key_given_twice() -> None:
    text = "a: 1\nb:\n  c: 1\n  c: 2\na: 3\n"
    assert mistakes(text) == [
        "f:4: b.c: given twice; the first is in line 3",
        "f:5: a: given twice; the first is in line 1",
    ]
    assert read_yaml("f", text).data == {"a": 1, "b": {"c": 1}}


def test_a_key_that_is_no_word() -> None:
    assert mistakes("a:\n  [b, c]: 1\n") == ["f:2: a: a key must be a word"]


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not valid YAML"),
        ("a:\n\tb: 1\n", 2, "indent with spaces, not with tabs"),
        ("a: b: c\n", 1, "is a text with ': ' in quotes?"),
        ("a: 'b\n", 2, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "a single document"),
        ("a: 1\nb: \x00\n", 2, "does not allow (#x0000)"),
        ("%YAML 9.9\n---\na: 1", 1, "not valid YAML"),
        ("a: @b\n", 1, "not valid YAML"),
    ],
)
def test_a_mistake_of_syntax_has_its_line(text: str, line: int, part: str) -> None:
    (message,) = mistakes(text)
    assert message.startswith(f"f:{line}: ")
    assert part in message


def test_half_a_character_is_refused_in_a_value_and_in_a_key() -> None:
    source = read_yaml("f", 'a: "x\\ud800"\n"b\\udfff":\n  c: 1\n')
    message = "an escape such as \\ud800 stands for no character"
    assert [str(problem) for problem in source.problems] == [f"f:1: a: {message}", f"f:2: {message}"]
    assert source.data == {"a": "x?", "b?": {"c": 1}}


def test_aliases_are_refused_one_and_all() -> None:
    text = "a: &x [1]\nb: *x\nc: *x\n"
    message = "aliases (*name) are not supported: write the value out"
    assert mistakes(text) == [f"f:2: {message}", f"f:3: {message}"]


def test_a_bomb_of_aliases_stays_small() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    assert len(mistakes("\n".join(lines))) == 78


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 5000, "- " * 50_000])
def test_deep_nesting_is_cut_off(text: str) -> None:
    (message,) = mistakes(text)
    assert message.startswith("f:1: nested deeper than 20 levels")


def test_the_line_of_deep_nesting() -> None:
    text = "a: 1\nb:\n" + "".join("  " * depth + "-\n" for depth in range(1, 30))
    (message,) = mistakes(text)
    assert message.startswith("f:2")
    assert "nested deeper" in message


@pytest.mark.parametrize("value", ["!!python/name:os.system x", "!mine x", "!!binary aGk=", "!!set {a}"])
def test_tags_are_refused(value: str) -> None:
    assert mistakes(f"a: 1\nb: {value}\n") == ["f:2: b: tags (!name) are not supported"]
