"""A list of layers whose type is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar, cast

from torch import nn

M = TypeVar("M", bound=nn.Module)


class Layers(nn.ModuleList, Generic[M]):
    """A ModuleList that says what it holds: torch's own gives back modules of unknown type."""

    def __iter__(self) -> Iterator[M]:
        return cast(Iterator[M], super().__iter__())
