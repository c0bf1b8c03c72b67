"""Choices that bytes make: what a fuzzer, hypothesis and the kept corpus drive the readers with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """Bytes taken one after the other; when they are used up, every choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, below: int) -> int:
        """Return a number from 0 on."""
        size = (max(below - 1, 1).bit_length() + 7) // 8
        taken = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(taken, "little") % below

    def choice(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.number(len(items))]

    def rest(self) -> bytes:
        """Return the bytes that are left."""
        taken, self._at = self._data[self._at :], len(self._data)
        return taken
