"""Shares of a run's work, each for a process of its own, on one machine or on many."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from common.cli import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `count` shares, counted from 0."""

    number: int = 0
    count: int = 1

    @classmethod
    def of(cls, text: str) -> Shard:
        """The share that an option names as i/n. Raises InputError."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or int(match[1]) >= int(match[2]):
            raise InputError(f"--shard {text}: allowed is i/n with 0 <= i < n")
        return cls(int(match[1]), int(match[2]))

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the work."""
        return self.count == 1

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Every `count`-th item."""
        return items[self.number :: self.count]

    @property
    def last_words(self) -> str:
        """What a process says when it has done this share of a run."""
        return f"shard {self} is finished; the command without --shard takes it over"

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


WHOLE = Shard()
