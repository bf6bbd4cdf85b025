"""Folders and archives as strangers have them: links, hidden files, parts, devices, arrays."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from assignment5 import data
from assignment5.config import Config, EvaluateConfig
from assignment5.layout import part_word
from common.cli import InputError, parse
from tests.assignment5.helpers import encoded, noise, png, write_tree

SIDE = 16


def told(images: data.Images) -> str:
    return images.provenance["read"]


# -------------------------------------------------------------------------------- links and junk


def test_linked_folders_and_files_are_read_and_circles_end(tmp_path):
    elsewhere = write_tree(tmp_path / "elsewhere", "c1/a.png", "c2/b.png", "c3.png")
    folder = tmp_path / "data"
    (folder / "c0").mkdir(parents=True)
    (folder / "c0" / "own.png").write_bytes(png())
    (folder / "c0" / "up").symlink_to(folder)
    (folder / "c1").symlink_to(elsewhere / "c1")
    (folder / "c2").symlink_to(elsewhere / "c2")
    (folder / "c0" / "linked.png").symlink_to(elsewhere / "c3.png")
    (folder / "dead").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.png")
    images = data.read(folder, SIDE)
    assert images.names == ["c0/linked.png", "c0/own.png", "c1/a.png", "c2/b.png"]
    assert images.labels.tolist() == [0, 0, 1, 2]
    assert "2 devices, pipes and broken links" in told(images)
    assert "1 links to folders that are read already" in told(images)
    (tmp_path / "link").symlink_to(folder)
    assert np.array_equal(data.read(tmp_path / "link", SIDE).pixels, images.pixels)


def test_two_folders_that_link_to_each_other_are_read_once(tmp_path):
    write_tree(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    assert data.read(tmp_path, SIDE).names == ["a/1.png", "b/2.png"]


def packed(folder: Path, kind: str) -> Path:
    return Path(shutil.make_archive(str(folder), kind, folder))


def test_hidden_and_other_files_are_left_aside_and_counted(tmp_path):
    names = ("a/1.PNG", "a/2.jfif", "b/3.JPG", "b/4.tif", "b/5.webp")
    junk = ("__MACOSX/a/._1.png", "a/._1.png", ".DS_Store", "Thumbs.db", ".git/6.png")
    folder = write_tree(tmp_path / "data", *names, *junk, "notes.txt", "photo.heic")
    for place in (folder, packed(folder, "zip"), packed(folder, "tar"), packed(folder, "gztar")):
        images = data.read(place, SIDE)
        assert images.names == list(names), place
        assert images.labels.tolist() == [0, 0, 1, 1, 1]
        assert "5 hidden or a system's own" in told(images)
        assert "1 .heic" in told(images)
        assert "1 .txt" in told(images)


def test_all_unusable_files_are_named_at_once(tmp_path):
    write_tree(tmp_path, *(f"good{number}.png" for number in range(3)))
    for number in range(6):
        (tmp_path / f"cut{number}.png").write_bytes(png()[:90])
        (tmp_path / f"empty{number}.jpg").write_bytes(b"")
    (tmp_path / "small.png").write_bytes(png(8))
    with pytest.raises(InputError) as refusal:
        data.read(tmp_path, SIDE)
    line = str(refusal.value)
    assert "13 of 16 files cannot be used: cut0.png cannot be read as an image | cut1.png" in line
    assert "empty3.jpg is empty | and 3 more" in line
    assert "\n" not in line
    (tmp_path / "cut0.png").rename(tmp_path.parent / "x")
    for path in (*tmp_path.glob("cut*"), *tmp_path.glob("empty*")):
        path.unlink()
    with pytest.raises(InputError, match=r"small.png has 17 x 8 pixels; at least 16 x 16"):
        data.read(tmp_path, SIDE)


# ------------------------------------------------------------------------ devices, zeros, archives


@pytest.mark.parametrize("config", [Config, EvaluateConfig])
def test_devices_and_pipes_are_refused_at_once(tmp_path, config):
    os.mkfifo(tmp_path / "pipe")
    for place in ("/dev/zero", "/dev/null", str(tmp_path / "pipe")):
        with pytest.raises(InputError, match="is no regular file and no folder"):
            parse(config, ["--data", place])
        with pytest.raises(InputError, match="is no regular file and no folder"):
            data.read(Path(place), SIDE)


def test_files_of_zeros_and_other_files_are_one_line(tmp_path):
    zeros = tmp_path / "zeros.tar"
    with open(zeros, "wb") as file:
        file.truncate(2**31)
    with pytest.raises(InputError, match=r"zeros.tar begins with zeros"):
        data.read(zeros, SIDE)
    for name, content, words in (
        ("empty.tar", b"", "not a readable tar"),
        ("empty.zip", b"PK\5\6" + bytes(18), "holds no image"),
        ("cut.zip", b"PK\3\4" + bytes(50), "not a readable zip"),
        ("table.csv", b"a,b\n1,2\n", "not a readable tar"),
        ("photo.png", png(), "is a single image"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=words):
            data.read(tmp_path / name, SIDE)


def test_a_zip_that_points_out_or_is_damaged_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("../a.png", png())
    with pytest.raises(InputError, match="points out of the archive"):
        data.read(tmp_path / "out.zip", SIDE)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("a.png", png())
        archive.writestr("b.png", png(seed=1))
    content = bytearray((tmp_path / "bad.zip").read_bytes())
    content[100] ^= 255
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"a.png cannot be unpacked"):
        data.read(tmp_path / "bad.zip", SIDE)


def test_links_inside_a_tar(tmp_path):
    path = tmp_path / "links.tar"

    def add(name: str, kind: bytes, target: str) -> None:
        with tarfile.open(path, "a") as tar:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = target
            tar.addfile(member)

    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("a/1.png")
        member.size = len(png())
        tar.addfile(member, io.BytesIO(png()))
    add("b/hard.png", tarfile.LNKTYPE, "a/1.png")
    add("b/soft.png", tarfile.SYMTYPE, "../a/1.png")
    images = data.read(path, SIDE)
    assert images.provenance["images"] == 3
    assert images.names == ["a/1.png"]
    add("c", tarfile.SYMTYPE, "a")
    with pytest.raises(InputError, match="c is a link to a, which is no file of the archive"):
        data.read(path, SIDE)


# --------------------------------------------------------------------------------- parts, labels


@pytest.mark.parametrize("above", ["", "set/"])
@pytest.mark.parametrize("order", ["{part}/{kind}/{number}.png", "{kind}/{part}/{number}.png"])
def test_folders_of_parts_are_no_classes(tmp_path, above, order):
    names = [
        above + order.format(part=part, kind=kind, number=number)
        for part, count in (("train", 4), ("Valid", 2), ("test", 3))
        for kind in ("c0", "c1", "c2")
        for number in range(count)
    ]
    images = data.read(write_tree(tmp_path, *names), SIDE)
    assert sorted(set(images.labels.tolist())) == [0, 1, 2]
    split = data.split_of(images, 0)
    assert split.sizes == {"train": 12, "validation": 6, "test": 9}
    assert all("test" in images.names[row] for row in split.test)
    assert "in 3 classes; parts as given (12 train, 6 validation, 9 test)" in told(images)


def test_a_part_that_is_missing_is_drawn_from_the_training_part(tmp_path):
    names = [f"train/c{number % 2}/{number}.png" for number in range(30)]
    names += [f"test/{number}.png" for number in range(10)]  # (without classes)
    images = data.read(write_tree(tmp_path, *names), SIDE)
    split = data.split_of(images, 0)
    assert split.sizes == {"train": 26, "validation": 4, "test": 10}
    assert images.labels[split.test].tolist() == [-1] * 10
    assert set(images.labels[split.train].tolist()) == {0, 1}
    assert "validation drawn from train" in told(images)


@pytest.mark.parametrize(
    "folders",
    [
        ("training_set", "test_set"),
        ("Train Images", "Test Images"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("set/train/train", "set/test/test"),
    ],
)
def test_folders_of_parts_with_more_words_are_no_classes(tmp_path, folders):
    names = [f"{folder}/c{number % 2}/{number}.png" for folder in folders for number in range(8)]
    images = data.read(write_tree(tmp_path / "set", *names), 8)
    assert images.parts.tolist() == ["test"] * 8 + ["train"] * 8
    assert images.labels.tolist() == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4


@pytest.mark.parametrize("word", ["test_tube", "train station", "set", "trained", "images"])
def test_words_that_are_no_part(word):
    assert part_word(word) is None


def test_words_of_parts_that_are_classes_stay_classes(tmp_path):
    names = [f"{kind}/{number}.png" for kind in ("car", "train") for number in range(2)]
    images = data.read(write_tree(tmp_path / "a", *names), SIDE)
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.parts is None
    mixed = write_tree(tmp_path / "b", "train/c/1.png", "test/c/2.png", "more/3.png")
    with pytest.raises(InputError, match=r"more/3.png lies in none of the parts"):
        data.read(mixed, SIDE)


def test_an_image_with_two_labels_is_refused(tmp_path):
    write_tree(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,1\na.png,2\n")
    with pytest.raises(InputError, match=r"a.png has two labels"):
        data.read(tmp_path, SIDE)


# ---------------------------------------------------------------------------------------- arrays


def stored(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "images.npz", **arrays)
    return folder / "images.npz"


def test_arrays_are_read_as_their_files_would_be(tmp_path):
    pixels = noise(6)
    folder = tmp_path / "files"
    folder.mkdir()
    for number, image in enumerate(pixels):
        (folder / f"{number}.png").write_bytes(encoded(image))
    wanted = data.read(folder, SIDE).pixels
    same = {
        "rgb": pixels,
        "first": np.moveaxis(pixels, 3, 1),
        "shares": pixels / 255,
        "deep": pixels.astype("u2") * 257,
        "whole": pixels.astype(np.int64),
    }
    for name, array in same.items():
        found = data.read(stored(tmp_path, images=array), SIDE).pixels
        assert np.array_equal(found, wanted), name
    np.save(tmp_path / "images.npy", pixels)
    assert np.array_equal(data.read(tmp_path / "images.npy", SIDE).pixels, wanted)
    grey = data.read(stored(tmp_path, images=pixels[..., 0], labels=np.arange(6) % 3), SIDE)
    assert grey.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (grey.pixels[..., 0] == grey.pixels[..., 2]).all()


def test_arrays_of_parts(tmp_path):
    pixels, kinds = noise(10), np.arange(10) % 2
    for train, test, labels in (
        ("x_train", "x_test", ("y_train", "y_test")),
        ("train_images", "test_images", ("train_labels", "test_labels")),
    ):
        arrays = {train: pixels[:6], test: pixels[6:]}
        arrays |= {labels[0]: kinds[:6, None], labels[1]: kinds[6:, None]}
        images = data.read(stored(tmp_path, **arrays), SIDE)
        assert images.labels.tolist() == kinds.tolist()
        assert images.parts.tolist() == ["train"] * 6 + ["test"] * 4


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.array([{}])}, "not a readable npz"),
        ({"a": np.arange(3)}, "holds no images but a int64"),
        ({"a": noise(4), "b": noise(4)}, "which of a, b are the images"),
        ({"images": noise(4, 9)}, "have 9 x 9 pixels; at least 16 x 16"),
        ({"images": noise(4) * np.nan}, "holds NaN or infinite values"),
        ({"images": noise(4), "labels": np.arange(3)}, "one label for each of the 4 images"),
    ],
)
def test_bad_arrays_are_one_line(tmp_path, arrays, words):
    with pytest.raises(InputError, match=words):
        data.read(stored(tmp_path, **arrays), SIDE)
