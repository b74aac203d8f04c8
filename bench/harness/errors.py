"""What can go wrong in a benchmark."""

import contextlib
from collections.abc import Iterator


class BenchError(Exception):
    """The benchmark cannot go on: a program failed, or a figure would be worthless."""


class UnavailableError(BenchError):
    """Something that this part of the benchmark needs is not installed here."""


@contextlib.contextmanager
def blaming(whom: str) -> Iterator[None]:
    """Put a name in front of the BenchError that the body raises."""
    try:
        yield
    except BenchError as error:
        raise BenchError(f"{whom}: {error}") from error
