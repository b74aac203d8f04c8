"""Ways to cut a stream: whatever the pieces in which it arrives, the outcome must be the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from hypothesis import strategies as st


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The pieces of ``data`` when it is cut at ``places``; the same place twice gives an empty piece."""
    edges = [0, *sorted(places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def every_cut(data: bytes) -> Iterator[list[bytes]]:
    """One piece, two pieces in every way, octet by octet."""
    yield [data]
    for place in range(1, len(data)):
        yield cut(data, [place])
    yield cut(data, range(1, len(data)))


def every_partition(data: bytes) -> Iterator[list[bytes]]:
    """Every way at all to cut ``data``: two to the power of its length."""
    places = range(1, len(data))
    for number in range(len(data)):
        for chosen in itertools.combinations(places, number):
            yield cut(data, chosen)


@st.composite
def pieces_of(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> list[bytes]:
    """A stream in random pieces, empty ones among them."""
    data = draw(streams)
    places = draw(st.lists(st.integers(0, len(data)), max_size=12))
    return cut(data, places)


def words_over(alphabet: Sequence[bytes], longest: int) -> Iterator[bytes]:
    """Every string over an alphabet, up to a length in letters."""
    for length in range(longest + 1):
        for letters in itertools.product(alphabet, repeat=length):
            yield b"".join(letters)


def streams_of(fragments: Sequence[bytes], most: int = 30) -> st.SearchStrategy[bytes]:
    """Random streams made mostly of what matters."""
    return st.lists(st.sampled_from(fragments), max_size=most).map(b"".join)
