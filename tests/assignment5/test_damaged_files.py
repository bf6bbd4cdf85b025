"""Images and archives of images that are damaged."""

from __future__ import annotations

import functools
import io
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from assignment1 import data as faces
from assignment5 import data as flowers
from tests.assignment1.test_damaged_files import valid_faces
from tests.fuzzing import HARM, few, harm, refused_or, strange

FORMATS = ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm", "avif")


@functools.cache
def pictures() -> dict[str, bytes]:
    pixels, _ = flowers.draw_flowers(len(FORMATS), 24, 0)
    found = {}
    for kind, image in zip(FORMATS, pixels, strict=True):
        held = io.BytesIO()
        Image.fromarray(image).save(held, kind)
        found[f"a/{kind}.{kind}"] = held.getvalue()
    return found


def valid_images(found: flowers.Images) -> bool:
    return (
        found.pixels.dtype == np.uint8
        and found.pixels.shape[1:] == (16, 16, 3)
        and 0 < len(found) == len(found.names)
    )


@pytest.mark.parametrize("kind", FORMATS)
@few(60)
@given(drawn=HARM)
@example(drawn=([], "doubled", 21694))  # a png whose next chunk is none: Pillow says SyntaxError
def test_damaged_images_in_a_folder(tmp_path, kind, drawn):
    (tmp_path / f"picture.{kind}").write_bytes(harm(pictures()[f"a/{kind}.{kind}"], drawn))
    refused_or(lambda: flowers.read(tmp_path, 16), tmp_path, valid_images)
    if kind == "avif":  # not among the formats of assignment 1
        return
    ending = {"jpeg": "jpg", "gif": "png", "ppm": "pgm"}.get(
        kind, kind
    )  # (assignment 1 knows no gif; the content decides)
    place = (tmp_path / f"picture.{kind}").rename(tmp_path / f"picture.{ending}")
    refused_or(lambda: faces.load_images(place, False), tmp_path, valid_faces)
    place.unlink()


def packed(mode: str) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode=mode) as tar:
        for name, content in {
            **pictures(),
            "labels.csv": b"file,label\n" + b"".join(f"{k}.{k},{k[0]}\n".encode() for k in FORMATS),
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return held.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@few(50)
@given(drawn=HARM)
def test_damaged_archives_of_images(tmp_path, mode, drawn):
    (tmp_path / "images.tar").write_bytes(harm(packed(mode), drawn))
    refused_or(lambda: flowers.read(tmp_path / "images.tar", 16), tmp_path, valid_images)


@few(80)
@given(drawn=HARM)
def test_damaged_zips_of_images(tmp_path, drawn):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in pictures().items():
            archive.writestr(name, content)
    (tmp_path / "images.zip").write_bytes(harm(held.getvalue(), drawn))
    refused_or(lambda: flowers.read(tmp_path / "images.zip", 16), tmp_path, valid_images)


@few(150)
@given(images=strange(np.zeros((4, 20, 20, 3), np.uint8)), labels=strange(np.arange(4)))
def test_strange_arrays_of_images(tmp_path, images, labels):
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    refused_or(lambda: flowers.read(tmp_path / "images.npz", 16), tmp_path, valid_images)
    np.savez(tmp_path / "images.npz", x_train=images, y_train=labels, x_test=images)
    refused_or(lambda: flowers.read(tmp_path / "images.npz", 16), tmp_path, valid_images)


@few(80)
@given(drawn=HARM)
def test_damaged_arrays_of_images(tmp_path, drawn):
    held = io.BytesIO()
    np.savez_compressed(held, images=flowers.draw_flowers(4, 20, 0)[0])
    (tmp_path / "images.npz").write_bytes(harm(held.getvalue(), drawn))
    refused_or(lambda: flowers.read(tmp_path / "images.npz", 16), tmp_path, valid_images)
    held = io.BytesIO()
    np.save(held, flowers.draw_flowers(4, 20, 0)[0])
    (tmp_path / "images.npy").write_bytes(harm(held.getvalue(), drawn))
    refused_or(lambda: flowers.read(tmp_path / "images.npy", 16), tmp_path, valid_images)


@few(80)
@given(exif=st.binary(max_size=80), pixel=st.integers(0, 255))
def test_strange_exif(tmp_path, exif, pixel):
    held = io.BytesIO()
    head = b"Exif\0\0II*\0\x08\0\0\0"
    Image.new("RGB", (20, 20), (pixel, 0, 0)).save(held, "JPEG", exif=head + exif)
    (tmp_path / "picture.jpg").write_bytes(held.getvalue())
    images = flowers.read(tmp_path, 16)
    assert abs(int(images.pixels[0, 8, 8, 0]) - pixel) <= 3


@few(80)
@given(
    st.lists(
        st.lists(
            st.sampled_from(["file", "label", "a.png", "b.png", "", "nan", "x", '"', "\0"]),
            max_size=3,
        ).map(",".join),
        max_size=4,
    ).map("\n".join)
)
def test_strange_labels_of_images(tmp_path, text):
    (tmp_path / "a.png").write_bytes(pictures()["a/png.png"])
    (tmp_path / "b.png").write_bytes(pictures()["a/bmp.bmp"])
    (tmp_path / "labels.csv").write_text(text)
    refused_or(lambda: flowers.read(tmp_path, 16), tmp_path, valid_images)
