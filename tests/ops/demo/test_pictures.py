"""The pictures, drawn from made-up timelines: what the user sees, character by character."""

import io
from textwrap import dedent

from smtpproxy.ops.demo.captions import behind, headline, offers
from smtpproxy.ops.demo.ladder import ladder
from smtpproxy.ops.demo.legacy_commands import Answer
from smtpproxy.ops.demo.style import Style
from smtpproxy.ops.demo.summary import Result, bars, table
from smtpproxy.ops.demo.timeline import Direction, Event, Part, Timeline, Wait

SENT, RECEIVED = Direction.SENT, Direction.RECEIVED
PLAIN = Style()


def part(short: str, full: str = "") -> Part:
    """Return a part, the full form being the short one if not given."""
    return Part(short, full or short)


EARLY = Timeline(
    events=(
        Event(0, SENT, (part("SYN"),)),
        Event(100.2, RECEIVED, (part("SYN + ACK"),)),
        Event(100.4, SENT, (part("EHLO", "EHLO client.example"), part("MAIL", "MAIL " * 9), part("DATA"))),
        Event(206, RECEIVED, (part("220", "220 legacy.demo.example " + "x" * 30),)),
        Event(207, RECEIVED, (part("250 EHLO", "250 SIZE 8BITMIME"),)),
        Event(209.6, RECEIVED, (part("354 DATA", "354 go ahead"),)),
        Event(209.7, SENT, (part("mail data", "mail data, 1 octet"),)),
        Event(313, RECEIVED, (part("250 mail data", "250 " + "stored " * 12),)),
    ),
    waits=(Wait("TCP", 100.2), Wait("EHLO…", 209.6), Wait("text", 313)),
    extensions=(),
)
POLITE = Timeline(
    events=(),
    waits=(Wait("TCP", 100), Wait("220", 200), Wait("EHLO", 300), Wait("MAIL…", 400), Wait("text", 500)),
    extensions=(),
)


def drawn(picture: str) -> list[str]:
    """Return the lines of a picture that is indented in the source and has a bar in front of each line."""
    return [line.removeprefix("|") for line in dedent(picture).strip("\n").split("\n")]


def test_ladder() -> None:
    assert list(ladder(EARLY, PLAIN, server="smtpproxy")) == drawn(
        """
        |     ms  client                                                        smtpproxy
        |      0  │ SYN ──────────────────────────────────────────────────────────────→ │
        |    100  │ ←──────────────────────────────────────────────────────── SYN + ACK │
        |         │ EHLO · MAIL · DATA ───────────────────────────────────────────────→ │
        |    210  │ ←──────────────────────────────────────── 220 · 250 EHLO · 354 DATA │
        |         │ mail data, 1 octet ───────────────────────────────────────────────→ │
        |    313  │ ←──── 250 stored stored stored stored stored stored stored stored … │
        """
    )


def test_ladder_uses_the_width() -> None:
    for width in (80, 91, 100):
        assert {len(line) for line in ladder(EARLY, Style(width=width), server="x")} == {width}


def test_ladder_in_ascii_is_the_same_picture() -> None:
    ascii_only = Style(unicode=False)
    lines = [ascii_only.fit(line) for line in ladder(EARLY, ascii_only, server="smtpproxy")]
    assert lines[2:4] == drawn(
        """
        |    100  | <-------------------------------------------------------- SYN + ACK |
        |         | EHLO , MAIL , DATA -----------------------------------------------> |
        """
    )
    assert all(line.isascii() and len(line) == 80 for line in lines)


def test_colours_do_not_change_the_text() -> None:
    coloured = "\n".join(ladder(EARLY, Style(colour=True), server="x"))
    for code in ("\x1b[36m", "\x1b[32m", "\x1b[2m", "\x1b[0m"):
        assert code in coloured
        coloured = coloured.replace(code, "")
    assert coloured == "\n".join(ladder(EARLY, PLAIN, server="x"))


def test_captions() -> None:
    assert headline("early", EARLY, PLAIN) == f"early{'3 round trips, 313 ms':>75}"
    answers = [Answer("", 220, ("x",)), Answer("EHLO", 250, ("x",)), Answer("QUIT", 221, ("x",))]
    assert behind(answers, PLAIN) == "         behind it: 220, EHLO 250"


def test_offers_say_what_was_learned_and_only_if_it_was() -> None:
    servers = [("legacy MTA", ("SIZE",)), ("smtpproxy", ("SIZE", "PIPECONNECT"))]
    assert list(offers(servers, "PIPECONNECT", PLAIN)) == drawn(
        """
        |Offered in reply to EHLO:
        |  legacy MTA  SIZE
        |   smtpproxy  SIZE · PIPECONNECT
        |The client has learned PIPECONNECT: from now on it need not wait for the greeting.
        """
    )
    assert len(list(offers(servers, "X_PIPE_CONNECT", PLAIN))) == 3


RESULTS = [Result("polite", "one after the other", (POLITE,)), Result("early", "all at once", (EARLY, EARLY))]


def test_bars_share_one_scale() -> None:
    assert list(bars(RESULTS, PLAIN)) == drawn(
        """
        |  polite        ├── TCP ───┼── 220 ───┼── EHLO ──┼─ MAIL… ──┼── text ──┤ 500 ms
        |  early         ├── TCP ───┼── EHLO… ──┼── text ──┤ 313 ms
        """
    )


def test_bar_of_a_round_trip_that_is_too_short_for_its_label() -> None:
    hasty = Timeline((), (Wait("TCP", 1), Wait("EHLO", 2), Wait("text", 1000)), ())
    (line,) = bars([Result("x", "x", (hasty,))], PLAIN)
    assert line.startswith("  x             ├T┼E┼─")


def test_table_shows_medians_and_what_is_saved_against_the_first() -> None:
    assert list(table(RESULTS, PLAIN)) == drawn(
        """
        |  way                                   round trips  ms per message        saved
        |  ──────────────────────────────────────────────────────────────────────────────
        |  one after the other                             5             500
        |  all at once                                     3             313  187 ms  37%
        """
    )


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Yes."""
        return True


class Latin(io.StringIO):
    """A stream that cannot encode what the pictures are made of."""

    encoding = "latin-1"


def test_style_has_colours_only_on_a_terminal_without_no_color() -> None:
    assert Style.of(Terminal(), {}).colour
    assert Style.of(Terminal(), {"NO_COLOR": ""}).colour  # no-color.org: only when not empty
    assert not Style.of(Terminal(), {"NO_COLOR": "1"}).colour
    assert not Style.of(Terminal(), {"TERM": "dumb"}).colour
    assert not Style.of(io.StringIO(), {}).colour


def test_style_knows_what_the_stream_can_encode() -> None:
    assert Style.of(Terminal(), {}).unicode
    assert not Style.of(Latin(), {}).unicode
    assert not Style.of(io.StringIO(), {}).unicode  # encoding None: who knows
