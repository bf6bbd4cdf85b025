"""Image files -> grey 48 x 48 faces.

Shape letters: N files, H W = 48 x 48 grey levels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from assignment1.listing import Item, some
from common.cli import InputError
from common.run import progress

SIDE = 48
IMAGE_ENDINGS = {
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".gif",
    ".bmp",
    ".dib",
    ".tif",
    ".tiff",
    ".webp",
    ".avif",
    ".jp2",
    ".pgm",
    ".ppm",
    ".pbm",
    ".pnm",
}
# what a file is read as, whatever its ending says: no format that another program must render
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
LARGEST_IMAGE = 2**28  # bytes
DAMAGE = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    OverflowError,
    MemoryError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    NotImplementedError,
    Image.DecompressionBombError,
)


def is_image(item: Item) -> bool:
    """Whether a file is taken as an image: by its ending, or by its content where it has none."""
    if item.ending:
        return item.ending in IMAGE_ENDINGS
    return item.size <= LARGEST_IMAGE and begins_as_image(io.BytesIO(item.read()))


def begins_as_image(stream: IO[bytes]) -> bool:
    """Whether a file begins as an image of one of FORMATS."""
    try:
        with Image.open(stream, formats=FORMATS):
            return True
    except DAMAGE:
        return False


def read_images(items: Sequence[Item], where: str) -> np.ndarray:
    """Image files -> uint8 (N, H, W). Raises InputError that names all that cannot be read."""
    images = np.empty((len(items), SIDE, SIDE), np.uint8)
    refused = []
    for number, item in enumerate(progress(items, "reading images")):
        try:
            images[number] = read_image(item)
        except InputError as error:
            refused.append(str(error))
    if len(refused) == 1 and len(items) == 1:
        raise InputError(f"{where}: {refused[0]}")
    if refused:
        raise InputError(
            f"{where}: {len(refused):,} of {len(items):,} images cannot be read: {some(refused)}"
        )
    return images


def read_image(item: Item) -> np.ndarray:
    """Any image file -> uint8 (48, 48): upright, grey, centre-cropped to a square and reduced.

    The first frame of an animation or page of a document; what is transparent lies on white. Raises
    InputError, without the name of the folder.
    """
    if item.size > LARGEST_IMAGE:
        raise InputError(f"{item.name}: not a readable image (more than {LARGEST_IMAGE >> 20} MiB)")
    try:
        with Image.open(io.BytesIO(item.read()), formats=FORMATS) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                levels = eight_bit(np.asarray(image), file.format == "PPM")
                image = Image.fromarray(levels)
            elif "A" in image.getbands() or "a" in image.mode or "transparency" in image.info:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            # (LANCZOS reduces with antialiasing)
            grey = ImageOps.fit(image.convert("L"), (SIDE, SIDE), Image.Resampling.LANCZOS)
            return np.array(grey)
    except DAMAGE as error:
        words = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # (its words are an address in memory)
            words = "of no known format"
        raise InputError(f"{item.name}: not a readable image ({words})") from None


def eight_bit(levels: np.ndarray, sixteen: bool = False) -> np.ndarray:
    """Grey levels of more than 8 bits (h, w) -> uint8 (h, w).

    16-bit levels, and whole numbers up to 65,535, are divided by 257 (up to 255 they are 8-bit
    already, unless `sixteen`). Floats in 0..1 are multiplied by 255, those in 0..255 are taken as
    they are. All others are stretched from their smallest to their largest. Raises ValueError for
    NaN and infinity.
    """
    sixteen = sixteen or levels.dtype.itemsize == 2
    whole = levels.dtype.kind in "iu"
    values = levels.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a level is NaN or infinite")
    low = values.min()
    high = values.max()
    if whole and low >= 0 and high <= 65535:
        scaled = values if high <= 255 and not sixteen else values / 257
    elif not whole and low >= 0 and high <= 255:
        scaled = values if high > 1 else 255 * values
    else:
        scaled = (values - low) / (high - low or 1) * 255
    return np.round(scaled).astype(np.uint8)
