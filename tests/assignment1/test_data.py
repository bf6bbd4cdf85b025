"""The built-in faces, the audit and the split, and every bad file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import RidgeClassifier

from assignment1.audit import audit, fingerprints, held_out_split
from assignment1.data import Faces, load, load_codemaps, load_images
from assignment1.images import read_image
from assignment1.listing import Item
from assignment1.synthetic import draw_faces
from assignment1.words import CLASSES
from common.cli import InputError


def test_synthetic_faces_are_deterministic_and_neither_trivial_nor_hopeless():
    faces, labels = draw_faces(6000, 0)
    again, _ = draw_faces(6000, 0)
    np.testing.assert_array_equal(faces, again)
    assert set(labels) == set(range(7))
    X = faces.reshape(len(faces), -1) / 255.0
    linear = RidgeClassifier(alpha=100).fit(X[:5000] - X[:5000].mean(0), labels[:5000])
    assert 0.5 < linear.score(X[5000:] - X[:5000].mean(0), labels[5000:]) < 0.85


def planted() -> Faces:
    faces, labels = draw_faces(400, 1)
    faces[1] = faces[0]  # an exact twin
    labels[1] = labels[0]
    faces[3] = np.clip(faces[2].astype(int) + 3, 0, 255)  # a brighter near twin with another label
    labels[3] = (labels[2] + 1) % 7
    faces[350] = faces[10]  # a twin in the test part
    labels[350] = labels[10]
    faces[5] = 128
    part = np.where(np.arange(400) >= 300, "test", "train")
    return Faces("fer2013", faces, None, None, labels, part, {})


def test_audit_finds_what_was_planted():
    faces = planted()
    audited = audit(faces)
    groups = audited.groups
    counts = audited.counts
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert groups[10] == groups[350]
    assert len(np.unique(groups)) == 397
    assert set(np.flatnonzero(audited.unfit)) == {2, 3, 5}
    assert counts["exact_duplicates"] == 2
    assert counts["near_duplicates"] == 1
    assert counts["groups_with_conflicting_labels"] == 1
    assert counts["groups_with_conflicting_labels_exact"] == 0
    assert counts["training_rows_with_a_twin_in_another_part"] == 1
    assert counts["constant_images"] == 1


def test_no_group_stands_on_two_sides_and_the_test_part_is_whole():
    faces = planted()
    audited = audit(faces)
    groups = audited.groups
    for seed in range(5):
        split = held_out_split(faces, audited, seed, 0.2)
        parts = [set(groups[part]) for part in (split.train, split.validation, split.test)]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]
        np.testing.assert_array_equal(split.test, np.arange(300, 400))
        assert 10 not in split.train
        assert 10 not in split.validation
        assert not audited.unfit[np.concatenate([split.train, split.validation])].any()
        assert 40 < len(split.validation) < 80


def test_the_split_does_not_look_at_test_labels_or_pixels():
    faces = planted()
    audited = audit(faces)
    before = held_out_split(faces, audited, 0, 0.2)
    labels = faces.labels.copy()
    labels[300:] = (labels[300:] + 3) % 7
    after = held_out_split(dataclasses.replace(faces, labels=labels), audited, 0, 0.2)
    np.testing.assert_array_equal(before.train, after.train)
    np.testing.assert_array_equal(before.validation, after.validation)


def write_csv(path: Path, emotion="3", pixels=None, usage="Training", rows: int = 3) -> Path:
    text = pixels if pixels is not None else " ".join(["7"] * 2304)
    lines = [f"{i % 3},{' '.join([str(i)] * 2304)},Training" for i in range(rows - 1)] + [
        f"{emotion},{text},{usage}"
    ]
    path.write_text("emotion,pixels,Usage\n" + "\n".join(lines) + "\n")
    return path


def test_good_csv_npz_and_folder_agree(tmp_path):
    faces, labels = draw_faces(12, 0)
    rows = [
        f"{label},{' '.join(map(str, face.ravel()))},{'PublicTest' if i % 4 == 3 else 'Training'}"
        for i, (face, label) in enumerate(zip(faces, labels, strict=True))
    ]
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n" + "\n".join(rows))
    usage = np.where(np.arange(12) % 4 == 3, "PublicTest", "Training")
    np.savez(tmp_path / "f.npz", images=faces, labels=labels, usage=usage)
    for i, (face, label) in enumerate(zip(faces, labels, strict=True)):
        folder = tmp_path / "tree" / ("test" if i % 4 == 3 else "train") / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(folder / f"{i:02d}.png")
    loaded = [load("fer2013", tmp_path / name) for name in ("fer2013.csv", "f.npz", "tree")]
    for given in loaded:
        order = np.argsort(fingerprints(given.images))
        expected = np.argsort(fingerprints(faces))
        np.testing.assert_array_equal(given.images[order], faces[expected])
        np.testing.assert_array_equal(given.labels[order], labels[expected])
        np.testing.assert_array_equal(
            (given.part == "test")[order], (usage == "PublicTest")[expected]
        )


def bad_inputs(tmp_path: Path) -> dict[str, tuple[str, Path, str]]:
    """name -> (source, path, words of the message)."""
    faces, labels = draw_faces(8, 0)
    maps = np.random.default_rng(0).integers(256, size=(8, 12, 12))

    def codemaps(name: str, **changes: np.ndarray) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for key, array in ({"codemaps": maps, "labels": labels} | changes).items():
            np.save(folder / f"{key}.npy", array, allow_pickle=array.dtype == object)
        return folder

    def npz(name: str, **arrays: np.ndarray) -> Path:
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("emotion,pixels,Usage\n")
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    cut = write_csv(tmp_path / "cut.csv").read_text()
    (tmp_path / "cut.csv").write_text(cut[: len(cut) - 900])
    (tmp_path / "no_images").mkdir()
    (tmp_path / "tree/train/happy").mkdir(parents=True)
    (tmp_path / "tree/train/happy/a.png").write_bytes(b"not a picture")
    (tmp_path / "strange/train/bored").mkdir(parents=True)
    (tmp_path / "strange/train/bored/a.png").write_bytes(b"x")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut off")
    one_hot = np.eye(7)[labels]
    two = one_hot.copy()
    two[4, (labels[4] + 1) % 7] = 1
    return {
        "empty csv": ("fer2013", tmp_path / "empty.csv", "not a readable csv"),
        "csv without rows": ("fer2013", tmp_path / "header.csv", "no rows"),
        "csv without columns": ("fer2013", tmp_path / "columns.csv", "no column emotion, pixels"),
        "truncated csv": ("fer2013", tmp_path / "cut.csv", "pixels; 2304 are needed"),
        "short pixel string": (
            "fer2013",
            write_csv(tmp_path / "short.csv", pixels="1 2 3"),
            "3 pixels",
        ),
        "pixel not a number": (
            "fer2013",
            write_csv(tmp_path / "word.csv", pixels=" ".join(["x"] * 2304)),
            "not a number",
        ),
        "pixel out of range": (
            "fer2013",
            write_csv(tmp_path / "range.csv", pixels=" ".join(["256"] * 2304)),
            "256",
        ),
        "label 9": ("fer2013", write_csv(tmp_path / "nine.csv", emotion="9"), "label 9"),
        "label NaN": ("fer2013", write_csv(tmp_path / "nan.csv", emotion="nan"), "NaN"),
        "unknown usage": ("fer2013", write_csv(tmp_path / "usage.csv", usage="Secret"), "Secret"),
        "one class": (
            "fer2013",
            npz("one.npz", images=faces, labels=np.zeros(8, int)),
            "1 of the classes",
        ),
        "NaN pixels": (
            "fer2013",
            npz("nan.npz", images=np.full((8, 48, 48), np.nan), labels=labels),
            "NaN",
        ),
        "wrong image size": (
            "fer2013",
            npz("size.npz", images=np.zeros((8, 32, 32)), labels=labels),
            "48, 48",
        ),
        "labels of another length": (
            "fer2013",
            npz("length.npz", images=faces, labels=labels[:3]),
            "one label per image",
        ),
        "no labels": ("fer2013", npz("none.npz", images=faces), "labels are needed"),
        "pickled objects": (
            "fer2013",
            npz("pickle.npz", images=np.array([{1: 2}], dtype=object), labels=labels),
            "pickled",
        ),
        "broken npz": ("fer2013", tmp_path / "broken.npz", "not a readable npz"),
        "folder without images": ("fer2013", tmp_path / "no_images", "no images"),
        "unreadable image": ("fer2013", tmp_path / "tree", "not a readable image"),
        "unknown class folder": ("fer2013", tmp_path / "strange", "a class of angry"),
        "another format": ("fer2013", Path(__file__), "allowed are"),
        "missing path": ("auto", tmp_path / "nowhere", "does not exist"),
        "index 256": (
            "codemaps",
            codemaps("c256", codemaps=np.where(maps == maps[0, 0, 0], 256, maps)),
            "256",
        ),
        "index -1": ("codemaps", codemaps("cneg", codemaps=maps - 1 - maps.min()), "-1"),
        "map of another shape": ("codemaps", codemaps("cshape", codemaps=maps[:, :11]), "12, 12"),
        "rows that are not one-hot": ("codemaps", codemaps("ctwo", labels=two), "row 4"),
        "one-hot of another width": (
            "codemaps",
            codemaps("cwide", labels=np.eye(8)[labels]),
            "(N, 7)",
        ),
        "label 9 of a code map": ("codemaps", codemaps("cnine", labels=labels + 9), "0..6"),
        "codebook of another shape": (
            "codemaps",
            codemaps("cbook", codebook=np.zeros((128, 256))),
            "(256, d)",
        ),
        "codebook with NaN": (
            "codemaps",
            codemaps("cnan", codebook=np.full((256, 4), np.nan)),
            "NaN",
        ),
        "pickled code maps": (
            "codemaps",
            codemaps("cpickle", labels=np.array([{1: 2}] * 8, dtype=object)),
            "pickled",
        ),
        "code maps missing": ("codemaps", tmp_path / "no_images", "does not exist"),
    }


def test_every_bad_input_is_one_clear_line(tmp_path):
    for name, (source, path, words) in bad_inputs(tmp_path).items():
        with pytest.raises(InputError) as caught:
            load(source, path)
        message = " ".join(str(caught.value).split())
        assert words in message, f"{name}: {message}"
        assert path.name.split("/")[-1] in message, f"{name}: {message}"


def test_every_part_that_encode_writes_is_read_back(tmp_path):
    faces, labels = draw_faces(60, 3)
    usage = np.array(["Training", "PublicTest", "PrivateTest"])[np.arange(60) % 3]
    np.savez(tmp_path / "faces.npz", images=faces, labels=labels, usage=usage)
    part = load_images(tmp_path / "faces.npz", labelled=True).part
    for name, array in (
        ("codemaps", np.zeros((60, 12, 12), np.int64)),
        ("labels", labels),
        ("usage", part),
    ):
        np.save(tmp_path / f"{name}.npy", array)
    np.testing.assert_array_equal(load_codemaps(tmp_path).part, part)
    assert set(part) == {"train", "test", "private"}


def test_a_source_that_is_asked_for_never_falls_back(tmp_path, monkeypatch):
    monkeypatch.setenv("ADL_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match="fer2013"):
        load("fer2013", None)
    assert load("auto", None, 50).source == "synthetic"


def item_of(path: Path) -> Item:
    return Item(path.name, path.stat().st_size, path.read_bytes)


def test_any_image_is_read(tmp_path):
    base = Image.fromarray(draw_faces(1, 0)[0][0]).resize((300, 200))
    for name, mode in (
        ("rgb.png", "RGB"),
        ("rgba.png", "RGBA"),
        ("palette.png", "P"),
        ("grey.jpg", "L"),
        ("deep.png", "I;16"),
        ("bit.png", "1"),
    ):
        image = Image.fromarray(np.asarray(base, np.uint16) * 200)
        if mode != "I;16":
            image = base.convert(mode)
        image.save(tmp_path / name)
        pixels = read_image(item_of(tmp_path / name))
        assert pixels.shape == (48, 48)
        assert pixels.dtype == np.uint8
        assert pixels.std() > 5, name


@pytest.mark.realdata
@pytest.mark.skipif(not os.environ.get("ADL_DATA_DIR"), reason="ADL_DATA_DIR names no data folder")
def test_audit_of_fer2013():
    faces = load("fer2013", None)
    audited = audit(faces)
    groups = audited.groups
    counts = audited.counts
    assert counts["groups_with_conflicting_labels_exact"] == 43
    assert counts["constant_images"] == 12
    split = held_out_split(faces, audited, 0)
    assert len(split.test) == 3589
    assert not set(groups[split.train]) & set(groups[split.test])
