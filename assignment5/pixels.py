"""The bytes of an image file, or the numbers of an array, as one square of 8-bit RGB.

Upright by EXIF, transparency on white, the first frame of several, 16 bits cut to 8.
Shape letters: H, W height and width of an image, S side of the square.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from assignment5.collection import UnreadableFile

TURNS = {  # EXIF's orientation: what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
STRAIGHT = {"La": "LA", "RGBa": "RGBA"}  # modes with premultiplied colours
SLACK = 1e-3  # by which numbers may leave a range, as sharpened images do
BITS_PER_SAMPLE = 258  # tags of a TIFF
PHOTOMETRIC = 262
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # beyond which Pillow refuses an image


@dataclass(frozen=True)
class Span:
    """The least and the largest number of some pictures, whose scale is not in the file."""

    low: float
    high: float

    def joined(self, other: Span) -> Span:
        """The span of both."""
        return Span(min(self.low, other.low), max(self.high, other.high))

    def within(self, largest: float) -> bool:
        """Whether the numbers lie from 0 to `largest`."""
        slack = SLACK * largest
        return self.low >= -slack and self.high <= largest + slack


@dataclass(frozen=True)
class Picture:
    """One image: uint8 (S, S, 3), the file's own mode, and what was done to it.

    `span` is that of numbers whose scale the whole set decides (modes I and F), else None.
    """

    pixels: np.ndarray
    mode: str
    turned: bool = False
    see_through: bool = False
    frames: bool = False
    span: Span | None = None
    sixteen: int | None = None  # the largest value of 16 bits


# ------------------------------------------------------------------------------------- one image


def read_image(content: bytes, name: str, side: int) -> tuple[np.ndarray, str]:
    """(uint8 (side, side, 3), the image's own mode): the centre square, reduced with antialiasing.

    Raises UnreadableFile for what cannot be read or is smaller than `side`.
    """
    picture = read_picture(content, name, side)
    return picture.pixels, picture.mode


def read_picture(content: bytes, name: str, side: int, span: Span | None = None) -> Picture:
    """The centre square of an image file, upright, on white, reduced with antialiasing.

    `span` is that of all pictures of the same mode, where numbers have no scale of their own.
    Raises UnreadableFile as `read_image`.
    """
    if not content:
        raise UnreadableFile(f"{name} is empty")
    image, mode, frames, turned = decoded(content, name, side)
    own, sixteen = None, None
    if is_16_bit(image):
        sixteen = int(np.asarray(image).max())
    elif mode in ("I", "F"):
        own = span_of(np.asarray(image), name)
    shown, see_through = as_rgb(image, span or own)
    turn = TURNS.get(orientation(image))
    if turn is not None:
        shown = shown.transpose(turn)
    turned = turned or turn is not None
    return Picture(reduced(shown, side), mode, turned, see_through, frames, own, sixteen)


def decoded(content: bytes, name: str, side: int) -> tuple[Image.Image, str, bool, bool]:
    """(first frame, the file's own mode, whether there are more, whether Pillow has turned it).

    Raises UnreadableFile as `read_image`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, which name no file
            image = Image.open(io.BytesIO(content))
            mode = image.mode
            width, height = image.size
            if min(width, height) >= side:
                # a JPEG is decoded at the smallest size that is enough
                image.draft("RGB", (2 * side, 2 * side))
                several = image.format != "MPO" and getattr(image, "is_animated", False)
                turns_itself = image.format == "TIFF" and orientation(image) in TURNS
                image.seek(0)
                image.load()
                return image, mode, several, turns_itself
    except Image.DecompressionBombError:
        raise UnreadableFile(
            f"{name} has too many pixels; at most {MOST_PIXELS:,} are read"
        ) from None
    except Exception:  # (Pillow's formats fail in many ways)
        raise UnreadableFile(f"{name} cannot be read as an image") from None
    raise UnreadableFile(
        f"{name} has {width} x {height} pixels; at least {side} x {side} are needed "
        "(or a smaller --side)"
    )


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 (upright) where there is none or it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # (a damaged EXIF block is no part of the picture)
        return 1


def as_rgb(image: Image.Image, span: Span | None) -> tuple[Image.Image, bool]:
    """(in RGB, whether some of it was transparent): grey in three channels, the clear on white."""
    if is_16_bit(image):
        return eight_bits(image)
    if span is not None:
        return Image.fromarray(to_bytes(np.asarray(image), span)).convert("RGB"), False
    if image.mode in STRAIGHT:
        image = image.convert(STRAIGHT[image.mode])
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB"), False
    clear = image.convert("RGBA")
    white = Image.new("RGBA", clear.size, "white")
    see_through = bool(np.asarray(clear.getchannel("A")).min() < 255)
    return Image.alpha_composite(white, clear).convert("RGB"), see_through


def reduced(image: Image.Image, side: int) -> np.ndarray:
    """uint8 (side, side, 3) of an RGB image: the largest square in its middle, antialiased."""
    width, height = image.size
    edge = min(width, height)
    left = (width - edge) // 2
    top = (height - edge) // 2
    square = image.crop((left, top, left + edge, top + edge))
    return np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))


# ---------------------------------------------------------------------------- more than 8 bits


def is_16_bit(image: Image.Image) -> bool:
    """Whether an image is grey with 16 bits; Pillow reads those of a PGM file into mode I."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")


def eight_bits(image: Image.Image) -> tuple[Image.Image, bool]:
    """The upper 8 of 16 (or 12) bits in RGB; the value that the file calls transparent is white.

    The upper byte is what Pillow itself takes of 16-bit colours.
    """
    values = np.asarray(image).astype(np.int64)  # (H, W)
    tags = getattr(image, "tag_v2", {})
    bits = 12 if tags.get(BITS_PER_SAMPLE) == (12,) else 16
    if tags.get(PHOTOMETRIC) == 0:  # 0 is white
        values = 2**bits - 1 - values
    grey = np.clip(values >> (bits - 8), 0, 255).astype(np.uint8)
    clear = np.zeros(grey.shape, bool)
    if isinstance(image.info.get("transparency"), int):
        clear = values == image.info["transparency"]
        grey[clear] = 255
    return Image.fromarray(grey).convert("RGB"), bool(clear.any())


def span_of(values: np.ndarray, name: str) -> Span:
    """The span of some numbers. Raises UnreadableFile where one is not finite."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise UnreadableFile(f"{name} holds NaN or infinite values; replace them")
    return Span(low, high)


def to_bytes(values: np.ndarray, span: Span) -> np.ndarray:
    """uint8 of numbers of any shape whose scale follows from the span of all of their set.

    Fractions from 0 to 1 are multiplied by 255, numbers from 0 to 255 stay, whole ones from 0 to
    65,535 lose 8 bits, and others are stretched from their span to 0..255.
    """
    whole = values.dtype.kind in "iu"
    wide = values.astype(np.float64)
    if not whole and span.within(1):
        wide = 255 * wide
    elif not span.within(255) and whole and span.within(65535):
        wide = np.floor(wide / 256)
    elif not span.within(255):
        reach = span.high / 2 - span.low / 2  # (halves: the difference may be infinite)
        wide = 255 * ((wide / 2 - span.low / 2) / reach) if reach else 0 * wide
    return np.clip(np.round(wide), 0, 255).astype(np.uint8)


def scale_words(span: Span, whole: bool) -> str:
    """How `to_bytes` reads numbers of a span, in words."""
    numbers = f"{span.low:g} to {span.high:g}"
    if not whole and span.within(1):
        return f"numbers from {numbers} are shares of white"
    if span.within(255):
        return f"numbers from {numbers} are kept as 8 bits"
    if whole and span.within(65535):
        return f"numbers from {numbers} are cut from 16 to 8 bits"
    return f"numbers from {numbers} are stretched to 0..255, the same for all images"
