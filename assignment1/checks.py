"""Checks that every reader of faces shares: whole numbers, labels, parts.

Shape letters: N rows, H W = 48 x 48 grey levels, k = 7 classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assignment1.listing import count
from assignment1.words import (
    CLASSES,
    CONTEMPT,
    IN_ORDER,
    LEFT_OUT,
    OTHERS,
    PART_WORDS,
    counts_from_one,
    digit_of,
    label_of,
    letters,
    part_of,
)
from common.cli import InputError


@dataclass(frozen=True)
class Pictures:
    """Checked pictures: images uint8 (N, H, W), labels int64 (N,) or None, part (N,) or None.

    `names` are those of the files (N,) where each picture is one; `inside` is the file of a folder
    or an archive that was read; `left_out` says in words what was not read.
    """

    images: np.ndarray
    labels: np.ndarray | None
    part: np.ndarray | None
    names: tuple[str, ...] | None = None
    inside: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Labels:
    """Labels int64 (N,) in 0..6, or LEFT_OUT for a face of no such class; the latter in words."""

    values: np.ndarray
    left_out: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------- labels


def labels_of(values: np.ndarray, path: Path, rows: int) -> Labels:
    """Numbers 0..6 in FER-2013's order, or words for expressions, of so many rows.

    A 7 beside zeros is contempt (CK+ in FER-2013's format), and is left out as the words for
    contempt are. Raises InputError.
    """
    if np.shape(values) != (rows,):
        raise InputError(
            f"{path}: labels of shape {np.shape(values)} for {rows} images; "
            "one label per image is needed"
        )
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind in "OUT":
        return worded(values, path)
    if values.dtype.kind not in "biuf":
        raise InputError(f"{path}: labels of type {values.dtype}; allowed are words and numbers")
    largest = CONTEMPT if np.isin((0, CONTEMPT), values).all() else len(CLASSES) - 1
    try:
        numbers = whole_numbers(values, path, largest, "label").astype(np.int64)
    except InputError as error:
        raise InputError(f"{error} ({IN_ORDER}); or write the words") from None
    if counts_from_one(numbers.tolist()):
        raise InputError(
            f"{path}: labels 1..6 without a 0: are they in FER-2013's order ({IN_ORDER})? write "
            "the words"
        )
    return with_contempt(numbers)


def worded(values: np.ndarray, path: Path) -> Labels:
    """Labels as text: words for expressions, or the digits of numbers."""
    texts, index = np.unique([str(value) for value in values], return_inverse=True)
    digits = [digit_of(text) for text in texts]
    if all(digit is not None for digit in digits):
        return labels_of(np.array(digits)[index], path, len(values))
    found = []
    counts: Counter[str] = Counter()
    for number, (text, digit) in enumerate(zip(texts, digits, strict=True)):
        label = digit if digit is not None else label_of(text)
        if label is None or label >= len(CLASSES):
            raise InputError(
                f"{path}: label {text[:40]!r}; allowed are {', '.join(CLASSES)} or their numbers "
                f"0..{len(CLASSES) - 1}"
            )
        found.append(label)
        if label == LEFT_OUT:
            counts[OTHERS[letters(text)]] += int((index == number).sum())
    return Labels(np.array(found, dtype=np.int64)[index], others_left_out(counts))


def with_contempt(numbers: np.ndarray) -> Labels:
    """Labels 0..7 with those of contempt as LEFT_OUT."""
    contempt = numbers == CONTEMPT
    labels = np.where(contempt, LEFT_OUT, numbers)
    return Labels(labels, others_left_out({f"contempt (label {CONTEMPT})": int(contempt.sum())}))


def others_left_out(counts: Mapping[str, int]) -> tuple[str, ...]:
    """How many faces of classes beside the seven are left out, in words."""
    return tuple(f"{count(number, 'face')} of {name}" for name, number in counts.items() if number)


def checked(
    path: Path, images: np.ndarray, labels: np.ndarray | None, usage: np.ndarray | None
) -> Pictures:
    """Images with checked labels and parts, less those of no class. Raises InputError."""
    found = None if labels is None else labels_of(np.asarray(labels), path, len(images))
    part = None if usage is None else parts_of(usage, path, len(images))
    if found is None:
        return Pictures(images, None, part)
    keep = found.values != LEFT_OUT
    if not keep.any():
        raise InputError(f"{path}: no face of {', '.join(CLASSES)}; {'; '.join(found.left_out)}")
    return Pictures(
        images[keep],
        found.values[keep],
        None if part is None else part[keep],
        left_out=found.left_out,
    )


# -------------------------------------------------------------------------------------- parts


def parts_of(usage: np.ndarray, path: Path, rows: int) -> np.ndarray:
    """Words for the parts -> (N,) of "train" | "validation" | "test" | "private".

    Raises InputError for any other word.
    """
    if np.shape(usage) != (rows,):
        raise InputError(f"{path}: usage of shape {np.shape(usage)} for {rows} images")
    try:
        words = np.asarray(usage).astype(str)
    except (ValueError, TypeError):
        raise InputError(
            f"{path}: usage of type {np.asarray(usage).dtype}; words are needed"
        ) from None
    texts, index = np.unique(words, return_inverse=True)
    parts = [part_of(str(text)) for text in texts]
    for text, part in zip(texts, parts, strict=True):
        if part is None:
            raise InputError(f"{path}: usage {str(text)[:40]!r}; allowed are {PART_WORDS}")
    return np.array(parts, dtype="U10")[index]


# ------------------------------------------------------------------------------------ numbers


def whole_numbers(values: np.ndarray, path: Path, largest: int, what: str = "value") -> np.ndarray:
    """The values, if all are whole numbers in 0..largest. Raises InputError otherwise."""
    needed = f"whole numbers 0..{largest} are needed"
    if values.dtype.kind not in "biuf":
        raise InputError(f"{path}: {what}s of type {values.dtype}; {needed}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{path}: a {what} is NaN or infinite; {needed}")
    wrong = (values < 0) | (values > largest) | (values != np.floor(values))
    if wrong.any():
        raise InputError(f"{path}: {what} {values[wrong].flat[0]}; {needed}")
    return values
