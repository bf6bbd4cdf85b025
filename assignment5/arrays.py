"""Images that lie in an .npz or .npy file as arrays.

Shape letters: N images, H, W height and width, C channels, S side of the square.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from assignment5.collection import DAMAGE, ZIP, first_bytes
from assignment5.layout import PARTS
from assignment5.pixels import Picture, Span, as_rgb, reduced, scale_words, span_of, to_bytes
from common.cli import InputError

NPY = b"\x93NUMPY"
CHANNELS = (1, 3, 4)
ALLOWED = (
    "allowed are arrays of numbers (N, H, W) or (N, H, W, C), with labels (N,) beside them where "
    "there are any"
)
PARTNERS = (("images", "labels"), ("image", "label"), ("x", "y"), ("X", "y"), ("X", "Y"))
LABELS = ("labels", "label", "targets", "y", "arr_1")


@dataclass(frozen=True)
class Stack:
    """One array of images (N, H, W, C), with its key, its labels (N,) and the part it is."""

    key: str
    images: np.ndarray
    labels: np.ndarray | None
    part: str

    def named(self) -> list[PurePosixPath]:
        """Names of the images: the key and the row."""
        return [PurePosixPath(f"{self.key}[{row}]") for row in range(len(self.images))]


def holds_arrays(path: Path) -> bool:
    """Whether a file is an .npy, or a zip of nothing but those."""
    if not path.is_file():
        return False
    head = first_bytes(path)
    if head.startswith(NPY):
        return True
    if not head.startswith(ZIP):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return path.suffix.lower() == ".npz"
    return bool(names) and all(name.endswith(".npy") for name in names)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by their keys. Raises InputError for a damaged file and for objects."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"images": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except DAMAGE as error:
        raise InputError(f"{path} is not a readable npz ({error}); {ALLOWED}") from None


def stacks_of(path: Path) -> list[Stack]:
    """The arrays of images of a file, the training part first.

    Raises InputError where there is none, and where it is not clear which of several are images.
    """
    arrays = read_arrays(path)
    found = {key: channels_last(array) for key, array in arrays.items()}
    images = {key: array for key, array in found.items() if array is not None and len(array)}
    if not images:
        shapes = ", ".join(f"{key} {array.dtype} {array.shape}" for key, array in arrays.items())
        raise InputError(f"{path} holds no images but {shapes or 'nothing'}; {ALLOWED}")

    parts = {key: part_of(key) for key in images}
    if len(images) > 1 and not all(parts.values()):
        named = [key for key in images if key in ("images", "x", "X", "data")]
        if len(named) != 1:
            keys = ", ".join(images)
            raise InputError(f'{path}: which of {keys} are the images? name one of them "images"')
        images = {named[0]: images[named[0]]}
    stacks = [
        Stack(key, array, labels_beside(path, key, len(array), arrays), parts[key])
        for key, array in images.items()
    ]
    return sorted(stacks, key=lambda stack: (stack.part != "train", stack.part, stack.key))


def channels_last(array: np.ndarray) -> np.ndarray | None:
    """(N, H, W, C) of an array of images in any order of axes; None for another kind of array."""
    if array.dtype.kind not in "buif":
        return None
    if array.ndim == 3:
        return array[..., None]
    if array.ndim != 4:
        return None
    if array.shape[3] in CHANNELS:
        return array
    return np.moveaxis(array, 1, 3) if array.shape[1] in CHANNELS else None


def part_of(key: str) -> str:
    """The part that a key names (train_images, x_test), or nothing."""
    words = [PARTS[word] for word in key.lower().split("_") if word in PARTS]
    return words[0] if words else ""


def labels_beside(
    path: Path, key: str, count: int, arrays: dict[str, np.ndarray]
) -> np.ndarray | None:
    """The labels (N,) that belong to an array of images. Raises InputError for another number."""
    names = [key.replace(images, labels) for images, labels in PARTNERS if images in key]
    if not part_of(key):
        names += LABELS
    for name in names:
        if name == key or name not in arrays:
            continue
        labels = arrays[name]
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.shape != (count,) or labels.dtype.kind not in "buiUS":
            raise InputError(
                f"{path}: {name} is {labels.dtype} {labels.shape}; one label for each of the "
                f"{count} images of {key} is needed, as a whole number or a word"
            )
        return labels
    return None


def pictures_of(path: Path, stacks: list[Stack], side: int) -> tuple[Iterator[Picture], str]:
    """(each image at side x side, how their numbers were read in words or nothing).

    Raises InputError for images that are too small and for numbers that are not finite.
    """
    for stack in stacks:
        height, width = stack.images.shape[1:3]
        if min(height, width) < side:
            raise InputError(
                f"{path}: the images of {stack.key} have {width} x {height} pixels; at least "
                f"{side} x {side} are needed (or a smaller --side)"
            )
    if all(stack.images.dtype == np.uint8 for stack in stacks):
        return pictures_from(stacks, None, side), ""
    span = Span(np.inf, -np.inf)
    for stack in stacks:
        span = span.joined(span_of(stack.images, f"{path}: {stack.key}"))
    whole = stacks[0].images.dtype.kind in "iu"
    return pictures_from(stacks, span, side), scale_words(span, whole)


def pictures_from(stacks: list[Stack], span: Span | None, side: int) -> Iterator[Picture]:
    """Each image at side x side, by the span of all of their numbers."""
    for stack in stacks:
        for values in stack.images:  # (H, W, C)
            pixels = np.ascontiguousarray(values)
            if pixels.dtype == bool:
                pixels = pixels.astype(np.float32)
            if span is not None:
                pixels = to_bytes(pixels, span)
            shown = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            rgb, see_through = as_rgb(shown, None)
            yield Picture(reduced(rgb, side), f"{stack.images.dtype}", see_through=see_through)
