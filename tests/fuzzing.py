"""Damaged and hostile inputs, drawn by hypothesis, and what a loader may do with them."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from common.cli import InputError

MORE = int(os.environ.get("ADL_FUZZ", "1"))  # how many times the usual number of examples


def few(examples: int) -> settings:
    """The same examples at every call."""
    options = {
        "deadline": None,
        "derandomize": True,
        "database": None,
        "suppress_health_check": [HealthCheck.function_scoped_fixture],
    }
    return settings(max_examples=examples * MORE, **options)


def contents(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }


def refused_or(load: Callable[[], object], place: Path, valid: Callable[[object], bool]) -> None:
    """InputError or a valid result, never another exception, and nothing written in `place`."""
    before, refusal = contents(place), None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a library's warning is no failure of ours
        try:
            assert valid(load())
        except InputError as error:
            refusal = str(error)
    assert refusal is None or refusal.strip()
    assert contents(place) == before


HARM = st.tuples(
    st.lists(st.tuples(st.integers(0, 10**5), st.integers(1, 255)), max_size=6),
    st.sampled_from(["whole", "cut", "doubled"]),
    st.integers(0, 10**5),
)


def harm(raw: bytes, drawn: tuple[list[tuple[int, int]], str, int]) -> bytes:
    """The bytes as HARM says."""
    harmed, (flips, kind, at) = bytearray(raw), drawn
    for place, flip in flips:
        harmed[place % len(raw)] ^= flip
    at %= len(raw)
    return (
        bytes(harmed)
        if kind == "whole"
        else bytes(harmed[:at]) + (b"" if kind == "cut" else bytes(harmed[at // 2 :]))
    )


TYPES = ("?", "u1", "i2", "i8", "f2", "f8", "c16", "U3", "S8", "M8[s]", "m8[s]", "O", "V4", "i4,f8")


SHAPES = (
    (),
    (0,),
    (1,),
    (4,),
    (4, 1),
    (4, 7),
    (4, 8),
    (0, 7),
    (4, 12, 12),
    (0, 12, 12),
    (4, 12, 11),
    (4, 48, 48),
    (0, 48, 48),
    (4, 48, 48, 1),
    (256, 8),
    (4, 2304),
)


VALUES = (0, 1, 6, 7, -1, 255, 256, 0.5, 2.0**70, float("nan"), float("inf"), "train")


@st.composite
def strange(draw: st.DrawFn, usual: np.ndarray | None = None) -> np.ndarray:
    """An array of any type and shape with one odd value in it.

    Now and then the usual array in another type, or as it is.
    """
    kind, shape = draw(st.sampled_from(TYPES)), draw(st.sampled_from(SHAPES))
    as_is = usual is not None and draw(st.booleans())
    array = usual.copy() if as_is else np.zeros(shape, kind)
    with contextlib.suppress(ValueError, TypeError, OverflowError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = array.astype(kind) if as_is and draw(st.booleans()) else array
        if array.size and draw(st.booleans()):
            array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from(VALUES))
    return array
