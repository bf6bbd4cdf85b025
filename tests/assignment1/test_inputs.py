"""Faces as people have them: folders, links, archives, tables, spellings, image files."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assignment1.audit import audit, fingerprints, held_out_split
from assignment1.data import FER_NAMES, Faces, load, load_images
from assignment1.images import eight_bit, read_image
from assignment1.listing import Item
from assignment1.synthetic import draw_faces
from assignment1.words import CLASSES, label_of, part_of
from common.cli import InputError

FACES, _ = draw_faces(84, 7)
LABELS = np.arange(84) % 7
CK48 = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "contempt")
ATULAPRA = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")


def png(face: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(face).save(held, "PNG")
    return held.getvalue()


def tree(place: Path, name_of: Callable[[int, int], str], rows: int = 84) -> Path:
    """A folder of faces; name_of(row, label) is the folder of a face."""
    for row in range(rows):
        folder = place / name_of(row, int(LABELS[row]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row:03d}.png").write_bytes(png(FACES[row]))
    return place


def thirds(row: int, names: tuple[str, ...] = ("train", "val", "test")) -> str:
    return names[0 if row % 6 < 4 else row % 6 - 3]


def in_parts(row: int, label: int) -> str:
    """train/happy, val/sad, ..."""
    return f"{thirds(row)}/{CLASSES[label]}"


def facts(faces: Faces) -> list[tuple[int, int, str]]:
    """(fingerprint, label, part) of every face, in the order of the fingerprints."""
    known = fingerprints(faces.given)
    return sorted(zip(known.tolist(), faces.truth.tolist(), faces.part.tolist(), strict=True))


def expected(part: Callable[[int], str], rows: int = 84) -> list[tuple[int, int, str]]:
    known = fingerprints(FACES[:rows]).tolist()
    return sorted((known[row], int(LABELS[row]), part(row)) for row in range(rows))


def three_parts(row: int) -> str:
    return thirds(row, ("train", "validation", "test"))


def table(rows: int = 84, usage: Callable[[int], str] | None = None, **names: str) -> str:
    """A FER csv; names may give other column names."""
    head = [names.get("emotion", "emotion"), names.get("pixels", "pixels")]
    lines = [",".join(head + (["Usage"] if usage else []))]
    for row in range(rows):
        cells = [str(LABELS[row]), " ".join(map(str, FACES[row].ravel()))]
        lines.append(",".join(cells + ([usage(row)] if usage else [])))
    return "\n".join(lines) + "\n"


FER_TABLE = table(usage=lambda row: thirds(row, ("Training", "PublicTest", "PrivateTest")))


def fer_part(row: int) -> str:
    return thirds(row, ("train", "test", "private"))


# ------------------------------------------------------------------------------------ folders


@pytest.mark.parametrize(
    "name_of",
    [
        in_parts,
        lambda row, label: f"{thirds(row, ('train', 'valid', 'test'))}/{ATULAPRA[label]}",
        lambda row, label: f"{thirds(row, ('Training', 'Validation', 'Testing'))}/{label}",
        lambda row, label: f"{thirds(row)}/{label}_{CLASSES[label]}",
        lambda row, label: f"{thirds(row)}/{6 - label}. {CLASSES[label].upper()}",
        lambda row, label: f"{CLASSES[label]}/{thirds(row)}",
        lambda row, label: f"faces/images/{thirds(row)}/{CLASSES[label]}/{row % 3}",
        lambda row, label: f"FER2013{thirds(row, ('Train', 'Valid', 'Test'))}/{CLASSES[label]}",
        lambda row, label: f"{thirds(row, ('train_set', 'val_set', 'test_set'))}/{CLASSES[label]}",
    ],
    ids=range(9),
)
def test_folders_of_parts_and_classes_in_many_spellings(tmp_path, name_of):
    faces = load("auto", tree(tmp_path / "set", name_of))
    assert facts(faces) == expected(three_parts)


def test_words_for_expressions_and_parts():
    assert [label_of(name) for name in ATULAPRA] == list(range(7))
    assert [label_of(name) for name in CK48] == [0, 1, 2, 3, 4, 5, -1]
    ferplus = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral", "NF")
    assert [label_of(name) for name in ferplus] == [0, 1, 2, 3, 4, 5, 6, -1]
    assert label_of("bored") is None
    words = ("Training", "PublicTest", "PrivateTest", "val", "valid", "validation", "test ")
    parts = ["train", "test", "private", "validation", "validation", "validation", "test"]
    assert [part_of(word) for word in words] == parts
    assert part_of("happy") is None


def test_classes_without_parts_are_all_for_training_and_contempt_is_left_out(tmp_path):
    def name_of(row: int, label: int) -> str:
        return f"CK+48/{CK48[label]}"

    faces = load("auto", tree(tmp_path / "set", name_of))
    assert len(faces) == 72
    assert set(faces.truth) == set(range(6))
    assert set(faces.part) == {"train"}
    assert "12 faces of contempt" in faces.provenance["read"]
    assert "neutral 0" in faces.provenance["read"]


def test_linked_parts_and_classes_are_read(tmp_path):
    given = tree(tmp_path / "set", in_parts)
    away = tmp_path / "away"
    away.mkdir()
    (given / "test").rename(away / "held")
    (given / "train/happy").rename(away / "smiles")
    (given / "test").symlink_to(away / "held")
    (given / "train/happy").symlink_to("../../away/smiles")
    face = given / "train/neutral/006.png"
    face.rename(away / "one.png")
    face.symlink_to(away / "one.png")
    assert facts(load("auto", given)) == expected(three_parts)
    (tmp_path / "link").symlink_to(given)
    assert facts(load("auto", tmp_path / "link")) == expected(three_parts)


def test_links_in_a_circle_and_to_nothing_are_named(tmp_path):
    given = tree(tmp_path / "set", in_parts)
    (given / "train/happy/back").symlink_to(given)
    (given / "train/sad/here").symlink_to(".")
    (given / "gone").symlink_to(tmp_path / "nowhere")
    faces = load("auto", given)
    assert facts(faces) == expected(three_parts)
    for name in ("train/happy/back", "train/sad/here", "gone"):
        assert name in faces.provenance["read"]


def test_hidden_files_and_others_are_skipped_and_counted(tmp_path):
    given = tree(tmp_path / "set", in_parts)
    (given / "train/happy/._000.png").write_bytes(b"\0\5\x16\7")
    (given / "__MACOSX/train/happy").mkdir(parents=True)
    (given / "__MACOSX/train/happy/a.png").write_bytes(b"x")
    (given / ".thumbs").mkdir()
    (given / "train/happy/Thumbs.db").write_bytes(b"x")
    (given / "train/notes.txt").write_text("notes")
    (given / "sample.png").write_bytes(png(FACES[0]))
    os.mkfifo(given / "train/happy/pipe.png")
    faces = load("auto", given)
    assert facts(faces) == expected(three_parts)
    read = faces.provenance["read"]
    assert "hidden files or folders: 4" in read
    assert "1 other file (.txt)" in read
    assert "devices or pipes: train/happy/pipe.png" in read
    assert "outside the folders of classes: sample.png" in read
    assert "84 faces (train 56, validation 14, test 14): angry 12" in read


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train/bored/a.png", "train/bored/a.png: images must stand in"),
        ("happy/a.png", "1 image in no part"),
        ("train/happy/sad/a.png", "two classes"),
        ("train/happy/test/a.png", "two parts"),
    ],
)
def test_images_that_cannot_be_placed(tmp_path, name, message):
    given = tree(tmp_path / "set", in_parts)
    (given / name).parent.mkdir(parents=True, exist_ok=True)
    (given / name).write_bytes(png(FACES[0]))
    with pytest.raises(InputError, match=message):
        load("auto", given)


@pytest.mark.parametrize("first", [1, 0])
def test_numbers_of_another_data_set_are_refused(tmp_path, first):
    given = tree(tmp_path / "set", lambda row, label: f"train/{label + first}")
    if first == 0:
        (given / "train/7").mkdir()
        (given / "train/7/a.png").write_bytes(png(FACES[0]))
    with pytest.raises(InputError, match="name the folders by words"):
        load("auto", given)


def test_all_unreadable_images_are_one_message(tmp_path):
    given = tree(tmp_path / "set", in_parts)
    for number in range(12):
        (given / f"train/happy/bad{number:02d}.jpg").write_bytes(b"not a picture")
    with pytest.raises(InputError) as caught:
        load("auto", given)
    message = str(caught.value)
    assert "12 of 96 images cannot be read" in message
    assert "bad09.jpg" in message
    assert "bad10.jpg" not in message
    assert "and 2 more" in message
    assert "\n" not in message


# ------------------------------------------------------------------------- the parts that count


def test_the_validation_part_of_the_user_is_the_validation_part(tmp_path):
    given = tree(tmp_path / "set", in_parts)
    faces = load("auto", given)
    split = held_out_split(faces, audit(faces), 0, 0.1)
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    for name, rows in parts.items():
        assert set(rows) <= set(np.flatnonzero(faces.part == name))
    assert len(split.validation) == 14
    assert len(split.test) == 14


def test_without_a_test_part_it_is_drawn_from_training_alone(tmp_path):
    halves = ("train", "valid", "valid")
    given = tree(tmp_path / "set", lambda row, label: f"{thirds(row, halves)}/{CLASSES[label]}")
    faces = load("auto", given)
    assert set(faces.part) == {"train", "validation"}
    split = held_out_split(faces, audit(faces), 0, 0.1)
    assert set(faces.part[split.test]) == {"train"}
    np.testing.assert_array_equal(faces.part[split.validation], "validation")
    assert len(split.validation) == 28


def test_a_twin_in_the_validation_part_leaves_training_and_one_in_the_test_part_leaves_both():
    images, labels = FACES.copy(), LABELS.copy()
    part = np.array([three_parts(row) for row in range(84)])
    train, validation, test = (np.flatnonzero(part == name) for name in np.unique(part)[[1, 2, 0]])
    images[train[0]] = images[validation[0]]
    labels[train[0]] = labels[validation[0]]
    images[validation[1]] = images[test[0]]
    labels[validation[1]] = labels[test[0]]
    faces = Faces("fer2013", images, None, None, labels, part, {})
    split = held_out_split(faces, audit(faces), 0)
    assert train[0] not in split.train
    assert validation[0] in split.validation
    assert validation[1] not in split.validation
    np.testing.assert_array_equal(split.test, test)


def test_private_test_is_kept_aside_or_is_the_test_part_where_there_is_no_other():
    part = np.array([fer_part(row) for row in range(84)])
    faces = Faces("fer2013", FACES, None, None, LABELS, part, {})
    split = held_out_split(faces, audit(faces), 0)
    np.testing.assert_array_equal(part[split.test], "test")
    assert "private" not in set(part[np.concatenate([split.train, split.validation])])
    alone = np.where(part == "private", "private", "train")
    faces = Faces("fer2013", FACES, None, None, LABELS, alone, {})
    split = held_out_split(faces, audit(faces), 0)
    np.testing.assert_array_equal(split.test, np.flatnonzero(alone == "private"))


# ------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize(
    "text",
    [
        FER_TABLE,
        FER_TABLE.replace("emotion,pixels,Usage", "emotion, Usage, pixels", 1)
        and "\ufeff" + FER_TABLE,
        FER_TABLE.replace("emotion,pixels,Usage", "emotion, pixels, Usage"),
        FER_TABLE.replace(",Training", ", Training ").replace(",Public", ",  Public"),
        FER_TABLE.replace(",", ";"),
        FER_TABLE.replace(",", "\t"),
        FER_TABLE.replace("\n", "\r\n"),
        FER_TABLE.replace("emotion,pixels,Usage", "label,pixels,Usage"),
    ],
    ids=range(8),
)
def test_tables_as_they_are_written(tmp_path, text):
    (tmp_path / "f.csv").write_text(text, encoding="utf-8", newline="")
    assert facts(load("auto", tmp_path / "f.csv")) == expected(fer_part)


def test_the_columns_of_icml_face_data(tmp_path):
    lines = ["emotion, Usage, pixels"]
    for row in range(84):
        usage = thirds(row, ("Training", "PublicTest", "PrivateTest"))
        lines.append(f"{LABELS[row]},{usage}, {' '.join(map(str, FACES[row].ravel()))}")
    (tmp_path / "icml_face_data.csv").write_text("\n".join(lines))
    assert facts(load("auto", tmp_path / "icml_face_data.csv")) == expected(fer_part)


@pytest.mark.parametrize("words", [CLASSES, ATULAPRA, (" Angry ", *CLASSES[1:]), tuple("0123456")])
def test_words_in_the_emotion_column(tmp_path, words):
    rows = [f"{words[LABELS[row]]},{' '.join(map(str, FACES[row].ravel()))}" for row in range(84)]
    (tmp_path / "f.csv").write_text("emotion,pixels\n" + "\n".join(rows))
    assert facts(load("auto", tmp_path / "f.csv")) == expected(lambda row: "train")


@pytest.mark.parametrize("word", ["7", "contempt"])
def test_a_table_of_eight_classes(tmp_path, word):
    pixels = " ".join(map(str, FACES[0].ravel()))
    (tmp_path / "ckextended.csv").write_text(table() + f"{word},{pixels}\n" * 3)
    faces = load("auto", tmp_path / "ckextended.csv")
    assert facts(faces) == expected(lambda row: "train")
    assert "3 faces of contempt" in faces.provenance["read"]


def test_tables_that_lack_something_say_what(tmp_path):
    votes = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt"
    (tmp_path / "fer2013new.csv").write_text(f"{votes},unknown,NF\nTraining,a.png,4,0,0,1,3,2,0\n")
    with pytest.raises(InputError, match=r"votes of FER\+, without pixels; give fer2013\.csv"):
        load("auto", tmp_path / "fer2013new.csv")
    (tmp_path / "bare.csv").write_text(FER_TABLE.split("\n", 1)[1])
    with pytest.raises(InputError, match="no header line"):
        load("auto", tmp_path / "bare.csv")
    (tmp_path / "raf.csv").write_text(
        table(56).replace("\n0,", "\n7,")
    )  # 1..7 is another data set's order
    with pytest.raises(InputError, match="label 7"):
        load("auto", tmp_path / "raf.csv")
    (tmp_path / "bored.csv").write_text(table(14).replace("\n3,", "\nbored,"))
    with pytest.raises(InputError, match="label 'bored'; allowed are angry, disgust"):
        load("auto", tmp_path / "bored.csv")


@pytest.mark.parametrize("head", ["pixels", "emotion,pixels"])
def test_to_predict_pixels_are_enough(tmp_path, head):
    start = "" if head == "pixels" else "who knows,"
    rows = [start + " ".join(map(str, face.ravel())) for face in FACES[:5]]
    (tmp_path / "test.csv").write_text(head + "\n" + "\n".join(rows))
    faces = load_images(tmp_path / "test.csv", labelled=False)
    np.testing.assert_array_equal(faces.images, FACES[:5])
    assert faces.labels is None
    with pytest.raises(InputError, match=r"no column emotion|label 'who knows'"):
        load_images(tmp_path / "test.csv", labelled=True)


def test_pixels_with_decimals_are_read_and_fractions_refused(tmp_path):
    text = " ".join(f"{value}.0" for value in FACES[0].ravel())
    (tmp_path / "f.csv").write_text(f"pixels\n{text}\n")
    np.testing.assert_array_equal(
        load_images(tmp_path / "f.csv", labelled=False).images[0], FACES[0]
    )
    (tmp_path / "f.csv").write_text("pixels\n" + " ".join(["0.5"] * 2304) + "\n")
    with pytest.raises(InputError, match=r"value 0\.5; whole numbers"):
        load_images(tmp_path / "f.csv", labelled=False)


def test_an_npz_in_the_order_of_its_own_classes(tmp_path):
    order = np.argsort(CLASSES)  # alphabetical: 4 is neutral
    numbers = np.argsort(order)[LABELS]
    part = [three_parts(row) for row in range(84)]
    names = np.array(CLASSES)[order]
    np.savez(tmp_path / "f.npz", images=FACES, labels=numbers, usage=part, classes=names)
    assert facts(load("auto", tmp_path / "f.npz")) == expected(three_parts)
    np.savez(
        tmp_path / "w.npz", images=FACES[..., None], labels=np.array(CLASSES)[LABELS], usage=part
    )
    assert facts(load("auto", tmp_path / "w.npz")) == expected(three_parts)


# ----------------------------------------------------------------------------------- archives


def zipped(place: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(place, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return place


def tarred(place: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(place, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return place


KAGGLE = {
    "fer2013/README": b"readme",
    "fer2013/fer2013.bib": b"bib",
    "fer2013/fer2013.csv": FER_TABLE.encode(),
}
IMAGES = {
    f"{thirds(row, ('train', 'val', 'test'))}/{CLASSES[LABELS[row]]}/{row}.png": png(FACES[row])
    for row in reversed(range(84))
}
SQUEEZED = gzip.compress(FER_TABLE.encode(), mtime=0)
CUT_OFF = gzip.compress(b"x" * 2000, mtime=0)[:40]
MAC = {"__MACOSX/train/happy/._3.png": b"\0\5\x16\7", "./.DS_Store": b"x"}


@pytest.mark.parametrize(
    ("name", "make", "part"),
    [
        ("fer2013.tar.gz", lambda path: tarred(path, KAGGLE), fer_part),
        ("fer2013.tar", lambda path: tarred(path, KAGGLE, "w"), fer_part),
        ("fer2013.tar.xz", lambda path: tarred(path, KAGGLE, "w:xz"), fer_part),
        ("archive.zip", lambda path: zipped(path, KAGGLE), fer_part),
        ("archive.zip", lambda path: zipped(path, IMAGES | MAC), three_parts),
        ("images.tar", lambda path: tarred(path, IMAGES | MAC, "w"), three_parts),
        ("images.tgz", lambda path: tarred(path, IMAGES | MAC), three_parts),
        ("fer2013.csv.gz", lambda path: path.write_bytes(SQUEEZED), fer_part),
        ("fer2013", lambda path: path.write_text(FER_TABLE), fer_part),
        ("download", lambda path: tarred(path, KAGGLE), fer_part),
        ("download", lambda path: zipped(path, KAGGLE), fer_part),
        ("download", lambda path: path.write_bytes(SQUEEZED), fer_part),
    ],
)
def test_archives_and_files_without_an_ending(tmp_path, name, make, part):
    make(tmp_path / name)
    faces = load("auto", tmp_path / name)
    assert facts(faces) == expected(part)
    inside = "fer2013/fer2013.csv" if part is fer_part and "csv" not in name else ""
    if name not in ("fer2013", "download"):
        assert faces.provenance["read"].startswith(f"{name}/{inside}".rstrip("/") + ": 84 faces")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("fer2013/fer2013.csv", lambda path: path.write_text(FER_TABLE)),
        ("fer2013.csv", lambda path: path.write_text(FER_TABLE)),
        ("icml_face_data.csv", lambda path: path.write_text(FER_TABLE)),
        ("fer2013.tar.gz", lambda path: tarred(path, KAGGLE)),
        ("fer2013/fer2013.tar.gz", lambda path: tarred(path, KAGGLE)),
        ("archive.zip", lambda path: zipped(path, KAGGLE)),
        ("archive.zip", lambda path: zipped(path, IMAGES)),
        ("fer2013/train/a", lambda path: tree(path.parents[1], in_parts)),
    ],
)
def test_the_data_folder_is_searched_for_what_people_download(tmp_path, monkeypatch, name, make):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    make(tmp_path / name)
    monkeypatch.setenv("ADL_DATA_DIR", str(tmp_path))
    faces = load("auto", None)
    assert faces.source == "fer2013"
    assert len(faces) == 84


def test_an_archive_of_another_data_set_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("ADL_DATA_DIR", str(tmp_path))
    zipped(tmp_path / "archive.zip", {"flowers/rose/1.png": png(FACES[0])})
    assert load("auto", None, 50).source == "synthetic"
    (tmp_path / "archive.zip").write_bytes(b"PK\3\4 cut off")
    assert load("auto", None, 50).source == "synthetic"
    assert FER_NAMES[:4] == ("fer2013.csv", "fer2013.npz", "fer2013_48x48.npz", "fer2013")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", b"PK\x03\x04 cut off", "not a whole archive"),
        ("a.tar.gz", CUT_OFF, "cannot be unpacked|cannot be read|allowed"),
        ("a.tar", b"\0" * 4096, "begins with zeros"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c" + b"\1" * 600, "unpack it first"),
        ("a.mat", b"MATLAB 5.0" + b"\1" * 600, "allowed are"),
        ("empty", b"", "allowed are"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load("auto", tmp_path / name)
    assert name in str(caught.value)


def test_devices_and_pipes_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path / "pipe.csv", tmp_path / "pipe.npz", Path("/dev/zero")):
        for labelled in (True, False):
            with pytest.raises(InputError, match="a device or a pipe"):
                load_images(path, labelled)


def test_a_file_of_two_gigabytes_of_zeros_is_refused_at_once(tmp_path):
    with open(tmp_path / "x.tar", "wb") as stream:
        stream.truncate(2**31)
    with pytest.raises(InputError, match="begins with zeros"):
        load_images(tmp_path / "x.tar", True)


# ------------------------------------------------------------------------------- image files


def item(content: bytes, name: str = "x.png") -> Item:
    return Item(name, len(content), lambda: content)


def saved(image: Image.Image, kind: str, **options: object) -> Item:
    held = io.BytesIO()
    image.save(held, kind, **options)
    return item(held.getvalue(), f"x.{kind.lower()}")


FACE = FACES[0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_divided_by_257(kind):
    deep = Image.fromarray(FACE.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(saved(deep, kind)), FACE)
    dark = Image.fromarray(FACE.astype(np.uint16))  # of 65,535: nearly black
    assert read_image(saved(dark, kind)).max() <= 1


def test_levels_of_other_depths():
    ramp = np.array([[0.0, 0.25, 1.0]])
    np.testing.assert_array_equal(eight_bit(ramp), [[0, 64, 255]])
    np.testing.assert_array_equal(eight_bit(100 * ramp), [[0, 25, 100]])
    np.testing.assert_array_equal(eight_bit(1000 * ramp), [[0, 64, 255]])
    np.testing.assert_array_equal(eight_bit(ramp - 0.5), [[0, 64, 255]])
    np.testing.assert_array_equal(eight_bit(np.array([[0, 128, 255]], np.int32)), [[0, 128, 255]])
    np.testing.assert_array_equal(eight_bit(np.array([[0, 257, 65535]], np.int32)), [[0, 1, 255]])
    np.testing.assert_array_equal(eight_bit(np.array([[0, 2**20]], np.int32)), [[0, 255]])
    np.testing.assert_array_equal(eight_bit(np.full((1, 2), -3.0)), [[0, 0]])
    with pytest.raises(ValueError, match="NaN"):
        eight_bit(np.array([[np.nan]]))


def test_float_images():
    image = Image.fromarray(FACE.astype(np.float32) / 255)
    np.testing.assert_array_equal(read_image(saved(image, "TIFF")), FACE)
    image = Image.fromarray(FACE.astype(np.float32))
    np.testing.assert_array_equal(read_image(saved(image, "TIFF")), FACE)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP", "PNG", "TIFF", "JPEG", "PPM", "DIB"])
def test_kinds_of_files(kind):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    found = read_image(saved(Image.fromarray(FACE), kind, **options)).astype(int)
    assert np.abs(found - FACE).mean() < 5


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "CMYK", "YCbCr", "1", "I", "F"])
def test_colour_modes(mode):
    kind = {"CMYK": "TIFF", "YCbCr": "TIFF", "I": "TIFF", "F": "TIFF"}.get(mode, "PNG")
    found = read_image(saved(Image.fromarray(FACE).convert(mode), kind)).astype(int)
    assert np.abs(found - FACE).mean() < (128 if mode == "1" else 4)


def test_what_is_transparent_lies_on_white():
    clear = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
    assert (read_image(saved(clear, "PNG")) == 255).all()
    palette = Image.new("P", (48, 48), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert (read_image(saved(palette, "PNG", transparency=0)) == 255).all()


def test_exif_turns():
    turns = {1: 0, 3: 2, 6: 1, 8: 3}  # orientation: quarter turns against the clock as stored
    for orientation, quarters in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = Image.fromarray(np.ascontiguousarray(np.rot90(FACE, quarters)))
        found = read_image(saved(stored, "PNG", exif=exif))
        np.testing.assert_array_equal(found, FACE)


def test_a_photograph_is_cropped_at_its_centre():
    wide = np.zeros((96, 192), np.uint8)
    wide[:, 48:144] = 200
    assert (read_image(saved(Image.fromarray(wide), "PNG"))[:, 4:-4] > 195).all()


def test_no_image_is_handed_to_another_program():
    with pytest.raises(InputError, match="not a readable image"):
        read_image(item(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n", "face.png"))


def test_every_image_of_a_folder_is_predicted(tmp_path):
    kinds = {"a.gif": "GIF", "b.jfif": "JPEG", "c.bmp": "BMP", "d.webp": "WEBP", "e": "PNG"}
    (tmp_path / "faces").mkdir()
    for name, kind in kinds.items():
        Image.fromarray(FACE).save(tmp_path / "faces" / name, kind)
    (tmp_path / "faces/f.heic").write_bytes(b"x")
    faces = load_images(tmp_path / "faces", labelled=False)
    assert faces.names == tuple(sorted(kinds))
    assert "1 other file (.heic)" in faces.provenance["read"]
    one = load_images(tmp_path / "faces/a.gif", labelled=False)
    assert one.names == ("a.gif",)
    assert len(load_images(tmp_path / "faces/e", labelled=False)) == 1


def test_names_that_are_no_utf_8_can_be_printed(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    Image.fromarray(FACE).save(tmp_path / name, "PNG")
    faces = load_images(tmp_path, labelled=False)
    assert faces.names == ("caf\ufffd.png",)
    assert faces.provenance["read"].encode()


# ------------------------------------------------------------------- numbers and lists of others


def test_numbers_from_one_to_six_are_no_order_of_ours(tmp_path):
    """Six classes counted from 1 would be learnt under wrong names, without a word."""
    tree(tmp_path / "a", lambda row, label: f"train/{1 + label % 6}")
    with pytest.raises(InputError, match=r"folders 1\.\.6 without a 0"):
        load_images(tmp_path / "a", labelled=True)
    np.savez(tmp_path / "a.npz", images=FACES, labels=1 + LABELS % 6)
    with pytest.raises(InputError, match=r"labels 1\.\.6 without a 0"):
        load_images(tmp_path / "a.npz", labelled=True)
    np.savez(tmp_path / "a.npz", images=FACES, labels=3 + LABELS % 2)  # happy and sad alone
    assert set(load_images(tmp_path / "a.npz", labelled=True).truth.tolist()) == {3, 4}


def test_pixels_as_lists(tmp_path):
    rows = zip(FACES, LABELS, strict=True)
    lines = [f'{label},"{face.ravel().tolist()}"' for face, label in rows]
    (tmp_path / "a.csv").write_text("\n".join(["emotion,pixels", *lines]))
    faces = load_images(tmp_path / "a.csv", labelled=True)
    assert (faces.given == FACES).all()
    assert faces.truth.tolist() == LABELS.tolist()


def test_a_file_that_is_no_image_is_told_without_an_address(tmp_path):
    (tmp_path / "a.png").write_bytes(b"abc")
    with pytest.raises(InputError) as caught:
        load_images(tmp_path, labelled=False)
    assert str(caught.value).endswith("a.png: not a readable image (of no known format)")
