"""Where the records of TLS begin and end in a stream of octets (RFC 8446, 5.1)."""

from __future__ import annotations

from typing import Final

_HEADER: Final = 5


class RecordCounter:
    """Follows the boundaries of records in a stream (RFC 8446, 5.1), whatever the pieces it arrives in."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._left = 0
        """Octets of the present record that have not come."""
        self._head = b""
        """The beginning of the present record, as long as its length is not known."""

    @property
    def in_record(self) -> bool:
        """Whether part of a record has come."""
        return bool(self._left or self._head)

    def count(self, data: bytes) -> int:
        """Give how many records end in ``data``."""
        records, at, size = 0, self._left, len(data)
        if self._head:
            data, size, at = self._head + data, size + len(self._head), 0
            self._head = b""
        elif at:
            if at > size:
                self._left = at - size
                return 0
            records = 1
        while at + _HEADER <= size:
            at += _HEADER + (data[at + 3] << 8) + data[at + 4]
            if at > size:
                break
            records += 1
        else:
            self._head = data[at:]
            at = size
        self._left = at - size
        return records
