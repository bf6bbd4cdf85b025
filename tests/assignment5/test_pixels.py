"""One image: upright, on white, 8 bits of whatever it has."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from assignment5 import data
from assignment5.pixels import Span, to_bytes
from common.cli import InputError
from tests.assignment5.helpers import encoded, noise

SIDE = 16
STORED = {  # EXIF's orientation: how the upright picture lies in the file
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def square(content: bytes) -> np.ndarray:
    return data.read_image(content, "x", SIDE)[0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("number", STORED)
def test_photographs_stand_upright(kind, number):
    upright = Image.fromarray(noise(1, 9)[0][:, :6]).resize((61, 82), Image.Resampling.BICUBIC)
    stored = upright if STORED[number] is None else upright.transpose(STORED[number])
    exif = Image.Exif()
    exif[0x0112] = number
    stream = io.BytesIO()
    options = {"quality": 100} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    stored.save(stream, kind, exif=exif, **options)
    difference = np.abs(
        square(stream.getvalue()).astype(int) - square(encoded(np.asarray(upright)))
    )
    assert difference.mean() <= (3 if kind == "JPEG" else 0)


def test_a_damaged_exif_block_is_no_reason_to_refuse():
    wrong = encoded(noise(1)[0], "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert square(wrong).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("PPM", "<u2")]
)
def test_sixteen_bits_lose_the_lower_eight(kind, dtype):
    values = np.arange(8100).reshape(90, 90) * 8
    eight = (values >> 8).astype(np.uint8)
    assert np.array_equal(square(encoded(values.astype(dtype), kind)), square(encoded(eight)))


def png_16(values: np.ndarray, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits a channel, of a colour type that Pillow does not write."""
    height, width = values.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    framed = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_sixteen_bit_colours_and_a_transparent_grey():
    colours = np.random.default_rng(0).integers(0, 65536, (20, 20, 3))
    eight = encoded((colours >> 8).astype(np.uint8))
    assert np.array_equal(square(png_16(colours, 2)), square(eight))
    grey = np.full((20, 20), 1000)
    clear = png_16(grey, 0, (b"tRNS", struct.pack(">H", 1000)))
    assert (square(clear) == 255).all()


@pytest.mark.parametrize(
    ("low", "high", "dtype", "wanted"),
    [
        (0, 1, "f4", 127.5),  # shares of white
        (0, 255, "f4", 127.5),
        (0, 200, "i4", 100),
        (0, 65535, "i4", 127.5),
        (-3, 5, "f4", 127.5),  # stretched
        (-1000, 3000, "i4", 127.5),
    ],
)
def test_numbers_are_scaled_by_the_span_of_the_whole_set(tmp_path, low, high, dtype, wanted):
    middle = np.full((20, 20), (low + high) / 2).astype(dtype)
    whole = middle.copy()
    whole[:10] = high
    whole[10:] = low
    (tmp_path / "a.tif").write_bytes(encoded(middle, "TIFF"))
    (tmp_path / "b.tif").write_bytes(encoded(whole, "TIFF"))
    images = data.read(tmp_path, SIDE)
    assert np.abs(images.pixels[0] - wanted).max() <= 1
    assert images.pixels[1].max() >= (200 if high == 200 else 254)
    assert images.pixels[1].min() <= 1
    assert f"numbers from {low:g} to {high:g} are" in images.provenance["read"]


def test_a_dark_float_image_stays_dark_beside_a_bright_one(tmp_path):
    for name, level in (("dark", 1.0), ("bright", 200.0)):
        content = encoded(np.full((20, 20), level, np.float32), "TIFF")
        (tmp_path / f"{name}.tif").write_bytes(content)
    assert data.read(tmp_path, SIDE).pixels.mean((1, 2, 3)).tolist() == [200, 1]


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(encoded(np.full((20, 20), np.nan, np.float32), "TIFF"))
    with pytest.raises(InputError, match=r"a.tif holds NaN or infinite values"):
        data.read(tmp_path, SIDE)


def test_bytes_of_whole_numbers():
    assert to_bytes(np.array([0, 1, 255]), Span(0, 255)).tolist() == [0, 1, 255]
    assert to_bytes(np.array([0, 255, 256, 65535]), Span(0, 65535)).tolist() == [0, 0, 1, 255]
    assert to_bytes(np.array([7e9, 7e9]), Span(7e9, 7e9)).tolist() == [0, 0]
    most = 1.7e308
    assert to_bytes(np.array([-most, 0, most]), Span(-most, most)).tolist() == [0, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_every_mode_shows_the_same_grey(mode):
    grey = Image.new("RGB", (20, 20), (255, 255, 255))
    image = Image.new("LAB", (20, 20), (255, 128, 128)) if mode == "LAB" else grey.convert(mode)
    stream = io.BytesIO()
    image.save(stream, "TIFF")
    pixels, own = data.read_image(stream.getvalue(), "x", SIDE)
    assert own == mode
    assert pixels.min() >= 253


def test_what_is_transparent_lies_on_white():
    half = np.zeros((20, 20, 4), np.uint8)
    half[..., 3] = 128
    assert np.unique(square(encoded(half))).tolist() == [127]
    palette = Image.fromarray(noise(1)[0]).quantize(8)
    stream = io.BytesIO()
    palette.save(stream, "PNG", transparency=0)
    shown = data.read_image(stream.getvalue(), "x", 20)[0]
    assert (shown[np.asarray(palette) == 0] == 255).all()


def test_the_first_frame_of_several_is_taken_and_said(tmp_path):
    first, *others = (Image.fromarray(each) for each in noise(3))
    for name in ("a.webp", "b.png", "c.tif"):
        options = {"lossless": True} if name.endswith("webp") else {}
        first.save(tmp_path / name, save_all=True, append_images=others, **options)
    images = data.read(tmp_path, 20)
    assert np.array_equal(images.pixels, noise(3)[:1])
    assert "3 with several frames, the first taken" in images.provenance["read"]


def test_too_many_pixels_are_refused_in_no_time(tmp_path):
    Image.new("1", (14000, 14000)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"bomb.png has too many pixels"):
        data.read(tmp_path, SIDE)


def test_dark_sixteen_bit_images_are_told(tmp_path):
    values = (np.arange(400).reshape(20, 20) * 10).astype("u2")
    (tmp_path / "a.png").write_bytes(encoded(values))
    assert "reach 3,990 of 65,535 and look dark" in data.read(tmp_path, SIDE).provenance["read"]
