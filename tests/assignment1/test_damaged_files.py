"""Faces and code maps that are damaged, strange or many; no loader unpickles."""

from __future__ import annotations

import functools
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assignment1 import data as faces
from assignment1.artifacts import load_elm
from assignment1.synthetic import draw_faces
from common.cli import InputError
from tests.conftest import peak_memory
from tests.fuzzing import HARM, few, harm, refused_or, strange


@functools.cache
def usual(name: str) -> np.ndarray:
    images, labels = draw_faces(4, 0)
    rng = np.random.default_rng(0)
    return {
        "images": images,
        "labels": np.arange(4),
        "usage": np.array(["train", "test"] * 2),
        "one_hot": np.eye(7)[labels],
        "codemaps": rng.integers(256, size=(4, 12, 12)),
        "codebook": rng.random((256, 8)).astype("f4"),
    }[name]


def valid_faces(found: faces.Faces) -> bool:
    rows = found.images if found.codemaps is None else found.codemaps
    whole = (
        rows.dtype == np.uint8
        and rows.shape[1:] in {(48, 48), (12, 12)}
        and 0 < len(rows) == len(found.part)
    )
    codes = found.codebook is None or (
        found.codebook.dtype == np.float32 and bool(np.isfinite(found.codebook).all())
    )
    known = found.labels is None or (
        found.labels.shape == (len(rows),) and set(np.unique(found.labels)) <= set(range(7))
    )
    return (
        whole and codes and known and set(found.part) <= {"train", "validation", "test", "private"}
    )


@few(150)
@given(
    images=strange(usual("images")),
    labels=strange(usual("labels")),
    usage=st.none() | strange(usual("usage")),
    labelled=st.booleans(),
)
def test_strange_arrays_in_an_image_npz(tmp_path, images, labels, usage, labelled):
    np.savez(
        tmp_path / "faces.npz",
        images=images,
        labels=labels,
        **({} if usage is None else {"usage": usage}),
    )
    refused_or(lambda: faces.load_images(tmp_path / "faces.npz", labelled), tmp_path, valid_faces)


def test_labels_that_are_neither_words_nor_numbers(tmp_path):
    images = np.arange(2 * 48 * 48, dtype=np.uint8).reshape(2, 48, 48)
    np.savez(tmp_path / "faces.npz", images=images, labels=np.array([b"a", b"b"], "V4"))
    with pytest.raises(InputError, match=r"labels of type \|V4; allowed are words and numbers"):
        faces.load_images(tmp_path / "faces.npz", True)


@few(200)
@given(
    maps=strange(usual("codemaps")),
    labels=strange(usual("labels")) | strange(usual("one_hot")),
    codebook=st.none() | strange(usual("codebook")),
    usage=st.none() | strange(usual("usage")),
)
def test_strange_arrays_as_code_maps(tmp_path, maps, labels, codebook, usage):
    for name, array in {
        "codemaps": maps,
        "labels": labels,
        "codebook": codebook,
        "usage": usage,
    }.items():
        (tmp_path / f"{name}.npy").unlink(missing_ok=True)
        if array is not None:
            np.save(tmp_path / f"{name}.npy", array)
    refused_or(lambda: faces.load_codemaps(tmp_path), tmp_path, valid_faces)


def archive(save: Callable[..., None], *arrays: np.ndarray, **named: np.ndarray) -> bytes:
    held = io.BytesIO()
    save(held, *arrays, **named)
    return held.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@few(80)
@given(drawn=HARM)
def test_damaged_image_npz(tmp_path, save, drawn):
    raw = archive(save, images=usual("images"), labels=usual("labels"))
    (tmp_path / "faces.npz").write_bytes(harm(raw, drawn))
    refused_or(lambda: faces.load_images(tmp_path / "faces.npz", True), tmp_path, valid_faces)


@pytest.mark.parametrize("name", ["codemaps", "labels", "codebook"])
@few(80)
@given(drawn=HARM, header=st.booleans())
def test_damaged_code_maps(tmp_path, name, drawn, header):
    for each in ("codemaps", "labels", "codebook"):
        np.save(tmp_path / f"{each}.npy", usual(each))
    raw = (tmp_path / f"{name}.npy").read_bytes()
    (tmp_path / f"{name}.npy").write_bytes(
        harm(raw[:128], drawn) + raw[128:] if header else harm(raw, drawn)
    )
    refused_or(lambda: faces.load_codemaps(tmp_path), tmp_path, valid_faces)


def test_an_archive_under_the_name_of_an_array(tmp_path):
    np.save(tmp_path / "labels.npy", usual("labels"))
    whole = archive(np.savez, codemaps=usual("codemaps"))
    for raw in (whole, whole[:300], whole[:-30], b"PK\x03\x04"):
        (tmp_path / "codemaps.npy").write_bytes(raw)
        with pytest.raises(InputError, match=r"codemaps\.npy"):
            faces.load_codemaps(tmp_path)


HEADS = [
    "emotion,pixels,Usage",
    "emotion,pixels",
    "Emotion,emotion,pixels",
    "emotion,pixels,Pixels",
    "emotion,Usage,usage",
    " emotion, pixels, Usage",
    "label;pixels;split",
    "pixels",
]


@few(60)
@given(drawn=HARM, head=st.sampled_from(HEADS))
def test_damaged_fer_tables(tmp_path, drawn, head):
    row = " ".join(["7"] * 2304)
    raw = f"{head}\n0,{row},Training\n1,{row},PublicTest\n".encode()
    (tmp_path / "f.csv").write_bytes(harm(raw, drawn))
    refused_or(lambda: faces.load_images(tmp_path / "f.csv", True), tmp_path, valid_faces)


def packed(kind: str, files: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return held.getvalue()
    with tarfile.open(fileobj=held, mode=kind) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return held.getvalue()


def picture(kind: str) -> bytes:
    held = io.BytesIO()
    Image.fromarray(usual("images")[0]).save(held, kind)
    return held.getvalue()


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
@few(40)
@given(drawn=HARM, table=st.booleans(), labelled=st.booleans())
def test_damaged_archives(tmp_path, kind, drawn, table, labelled):
    row = " ".join(["7"] * 2304)
    files = {f"train/{name}/a.png": picture("PNG") for name in ("happy", "sad")}
    if table:
        files = {"fer2013/fer2013.csv": f"emotion,pixels,Usage\n0,{row},Training\n".encode()}
    (tmp_path / "x").write_bytes(harm(packed(kind, files), drawn))
    refused_or(lambda: faces.load_images(tmp_path / "x", labelled), tmp_path, valid_faces)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@few(40)
@given(drawn=HARM)
def test_damaged_images(tmp_path, kind, drawn):
    (tmp_path / "train/happy").mkdir(parents=True, exist_ok=True)
    file = tmp_path / f"train/happy/a.{kind.lower()}"
    file.write_bytes(harm(picture(kind), drawn))
    for path, labelled in ((tmp_path, True), (file, False)):
        refused_or(functools.partial(faces.load_images, path, labelled), tmp_path, valid_faces)


WORDS = st.sampled_from(
    ["train", "val", "test", "happy", "3_sad", "7", "2", "contempt", "other", ".hidden", "é", "a b"]
)


@few(80)
@given(names=st.lists(st.lists(WORDS, max_size=4), min_size=1, max_size=6))
def test_strange_folders(tmp_path, names):
    files = {"/".join([*words, f"{n}.png"]): picture("PNG") for n, words in enumerate(names)}
    (tmp_path / "x.zip").write_bytes(packed("zip", files))
    refused_or(lambda: faces.load_images(tmp_path / "x.zip", True), tmp_path, valid_faces)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("labels", np.full((4, 7), "x"), "labels.npy: values of type <U1"),
        ("labels", np.zeros((4, 7), "V4"), r"labels.npy: values of type \|V4"),
        ("usage", np.zeros(4, "V4"), r"usage.npy: usage of type \|V4"),
        ("usage", np.array([b"train", b"test", b"\xff", b"test"]), "usage.npy: usage of type"),
    ],
)
def test_types_that_fuzzing_found(tmp_path, name, array, message):
    for each in ("codemaps", "labels"):
        np.save(tmp_path / f"{each}.npy", usual(each))
    np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(InputError, match=message):
        faces.load_codemaps(tmp_path)


def test_words_as_bytes_are_words(tmp_path):
    np.savez(
        tmp_path / "faces.npz",
        images=usual("images"),
        labels=usual("labels"),
        usage=usual("usage").astype("S"),
    )
    assert list(faces.load_images(tmp_path / "faces.npz", True).part) == ["train", "test"] * 2


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return (Path.write_text, (self.place, "caught"))


@pytest.mark.parametrize(
    ("name", "load", "usual_files"),
    [
        ("images.npz", lambda path: faces.load_images(path, True), {}),
        ("images.npz", lambda path: faces.load_images(path, False), {}),
        ("codemaps.npy", lambda path: faces.load_codemaps(path.parent), {"labels": "labels"}),
        ("labels.npy", lambda path: faces.load_codemaps(path.parent), {"codemaps": "codemaps"}),
        (
            "codebook.npy",
            lambda path: faces.load_codemaps(path.parent),
            {"codemaps": "codemaps", "labels": "labels"},
        ),
        (
            "usage.npy",
            lambda path: faces.load_codemaps(path.parent),
            {"codemaps": "codemaps", "labels": "labels"},
        ),
        ("model.npz", load_elm, {}),
    ],
)
def test_no_loader_unpickles(tmp_path, name, load, usual_files):
    for file, key in usual_files.items():
        np.save(tmp_path / f"{file}.npy", usual(key))
    trap = np.array([Trap(tmp_path / "caught")] * 4, dtype=object)
    for raw in (
        [archive(np.save, trap), trap.dumps()]
        if name.endswith("npy")
        else [archive(np.savez, images=trap, facts=trap), trap.dumps()]
    ):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            load(tmp_path / name)
        assert not (tmp_path / "caught").exists()
    np.load(io.BytesIO(trap.dumps()), allow_pickle=True)
    assert (
        tmp_path / "caught"
    ).exists()  # the trap works: a loader that had taken it would have been seen


def test_200_000_faces_through_an_elm_in_bounded_memory():
    units = 500
    memory = peak_memory(f"""
import numpy as np
from assignment1.elm import ELMClassifier
rng = np.random.default_rng(0)
X, y = rng.integers(256, size=(200_000, 144), dtype=np.uint8), rng.integers(7, size=200_000)
X[:, 0] = 36 * y
model = ELMClassifier({units}, penalty="ridge", direct_links=True, random_state=0)
model.fit(X[:5_000], y[:5_000])
before = peak_mb()
model.fit(X, y)
assert (model.predict(X[:2_000]) == y[:2_000]).mean() > 0.3""")
    rows = 200_000 * 144 * 4 / 2**20  # as float32
    hidden = 200_000 * (units + 144) * 4 / 2**20
    assert memory < rows + 80 < hidden, f"{memory:.0f} MiB"  # some blocks, never the hidden matrix
