"""Which certificates answer for a name that a client asks for (SNI, RFC 6066, 3).

The exact name is looked for, then a wildcard, which stands for exactly one label (RFC 9525, 6.3); else the
default answers: an SMTP client seldom minds, and many name the domain of the mail and not the host. Of each
kind of key (ECDSA, RSA) the first pair of the configuration is taken, so that old and modern clients both find
theirs; where the exact name has no pair of a kind, the wildcard's is taken.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from .certificates import Pair

__all__ = ["Choice"]

C = TypeVar("C")


class Choice(Generic[C]):
    """From a name to what was made (a context) of the pairs that answer for it."""

    __slots__ = ("_default", "_exact", "_wildcard", "made")

    def __init__(self, pairs: Sequence[Pair], make: Callable[[tuple[Pair, ...]], C]) -> None:
        """Take at least one pair, the first being the default; ``make`` is called once for each distinct set."""
        self.made: dict[tuple[Pair, ...], C] = {}
        """What was made, by the pairs that it is made of."""

        def made_of(chosen: tuple[Pair, ...]) -> C:
            if chosen not in self.made:
                self.made[chosen] = make(chosen)
            return self.made[chosen]

        names = dict.fromkeys(name for pair in pairs for name in pair.names)
        answers = {name: made_of(_answering(name, pairs)) for name in names}
        self._exact = {name: answer for name, answer in answers.items() if not name.startswith("*.")}
        self._wildcard = {name[2:]: answer for name, answer in answers.items() if name.startswith("*.")}
        self._default = made_of(_default(pairs))

    def find(self, name: bytes | None) -> C:
        """Take the name as the client sent it, None if it sent none. Never raises."""
        if not name:
            return self._default
        text = name.decode("ascii", "replace").lower().removesuffix(".")
        found = self._exact.get(text)
        if found is None:
            found = self._wildcard.get(text.partition(".")[2])
        return self._default if found is None else found


def _answering(name: str, pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    wildcard = "*." + name.partition(".")[2]
    exact = [pair for pair in pairs if name in pair.names]
    return _one_of_each_kind([*exact, *(pair for pair in pairs if wildcard in pair.names)])


def _default(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The first pair, and those of other kinds that share a name with it."""
    names = set(pairs[0].names)
    return _one_of_each_kind([pairs[0], *(pair for pair in pairs if not names.isdisjoint(pair.names))])


def _one_of_each_kind(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    chosen: dict[str, Pair] = {}
    for pair in pairs:
        chosen.setdefault(pair.kind, pair)
    return tuple(chosen.values())
