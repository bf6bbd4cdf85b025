"""Faces or code maps from what people have -> checked arrays, an audit of duplicates, and leak-free splits.

Shape letters: N images, H W = 48 x 48 grey levels, h w = 12 x 12 code indices.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from assignment1.synthetic import draw_faces
from common.cli import InputError, data_folder
from common.run import progress, sha256

CLASSES = (
    "angry",
    "disgust",
    "fear",
    "happy",
    "sad",
    "surprise",
    "neutral",
)  # the order of FER-2013's labels 0..6
SIDE = 48
GRID = 12
CODES = 256
IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm"}
PARTS = {
    "training": "train",
    "train": "train",
    "publictest": "test",
    "test": "test",
    "privatetest": "private",
    "private": "private",
    "val": "test",
    "validation": "test",
}
NOTICE = "built-in synthetic faces, not real data; for FER-2013 put fer2013.csv into the folder that ADL_DATA_DIR names (default data/), or give --data PATH"


@dataclasses.dataclass(frozen=True)
class Faces:
    """Checked input: `images` uint8 (N, 48, 48) or `codemaps` uint8 (N, 12, 12) (with `codebook` float32 (256, d) or None),
    `labels` int64 (N,) in 0..6 or None, `part` (N,) of "train" | "test" | "private"."""

    source: str
    images: np.ndarray | None
    codemaps: np.ndarray | None
    codebook: np.ndarray | None
    labels: np.ndarray | None
    part: np.ndarray
    provenance: dict[str, Any]
    classes: tuple[str, ...] = CLASSES

    def __len__(self) -> int:
        return len(self.part)

    @property
    def given(self) -> np.ndarray:
        """The images, or else the code maps."""
        rows = self.codemaps if self.images is None else self.images
        if rows is None:
            raise InputError(f"{self.source}: images or code maps are needed")
        return rows

    @property
    def truth(self) -> np.ndarray:
        """The labels, where there must be some."""
        if self.labels is None:
            raise InputError(f"{self.source}: labels are needed")
        return self.labels


@dataclasses.dataclass(frozen=True)
class Split:
    """Row indices of the three parts, int64, disjoint; no group of duplicates stands in two of them."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


# -------------------------------------------------------------------------------------------------------------- sources


def load(source: str, path: Path | None, synthetic_faces: int = 6000, seed: int = 0) -> Faces:
    """Faces from `source` ("auto" | "fer2013" | "codemaps" | "synthetic"); auto takes `path`, else the data folder, else the sample.

    Raises InputError with one line for anything that is missing, unreadable or out of range.
    """
    if path is not None and not Path(path).exists():
        raise InputError(f"--data {path} does not exist")
    if source == "auto":
        if path is None:
            path = next(
                (
                    p
                    for name in ("fer2013.csv", "fer2013.npz", "fer2013_48x48.npz", "fer2013")
                    if (p := data_folder() / name).exists()
                ),
                None,
            )
        source = (
            "synthetic" if path is None else "codemaps" if _is_codemaps(Path(path)) else "fer2013"
        )
    if source == "synthetic":
        images, labels = draw_faces(synthetic_faces, seed)
        part = np.where(np.arange(synthetic_faces) % 6 == 5, "test", "train")
        return Faces(
            source,
            images,
            None,
            None,
            labels,
            part,
            {"generator": "assignment1/synthetic.py", "faces": synthetic_faces, "notice": NOTICE},
        )
    if path is None:
        names = (
            ("fer2013.csv", "fer2013.npz", "fer2013_48x48.npz", "fer2013")
            if source == "fer2013"
            else ("codemaps", "codemaps.npy")
        )
        path = next((p for name in names if (p := data_folder() / name).exists()), None)
        if path is None:
            raise InputError(
                f"--source {source}: none of {', '.join(names)} in {data_folder()}; give the place with --data"
            )
    faces = (
        load_codemaps(Path(path))
        if source == "codemaps"
        else load_images(Path(path), labelled=True)
    )
    for name in ("train", "test"):
        present = np.unique(faces.truth[faces.part == name])
        if (name == "train" or (faces.part == name).any()) and len(present) < 2:
            raise InputError(
                f"{path}: the {name} part has {len(present)} of the classes 0..6; at least two are needed"
            )
    return faces


def load_again(record: dict[str, Any]) -> Faces:
    """The faces that a run was made from, by its run.json. Raises InputError as `load`."""
    settings = record["config"]
    return load(
        record["source"],
        settings["data"] and Path(settings["data"]),
        settings["synthetic_faces"],
        settings["seed"],
    )


def load_images(path: Path, labelled: bool) -> Faces:
    """Grey faces from a FER csv, an npz or an image folder (or one image); `labelled` says whether labels must be there."""
    if not path.exists():
        raise InputError(f"--data {path} does not exist")
    if path.is_dir():
        return _from_folder(path, labelled)
    ending = path.suffix.lower()
    if ending == ".csv":
        return _from_csv(path)
    if ending == ".npz":
        return _from_npz(path, labelled)
    if ending in IMAGE_ENDINGS and not labelled:
        return _faces(path, read_image(path)[None], None, None)
    raise InputError(
        f"{path}: allowed are a FER csv (emotion, pixels, Usage), an npz (images, labels, usage) or a folder of images"
    )


def load_codemaps(path: Path) -> Faces:
    """The course's format: codemaps.npy (N, 12, 12), labels.npy (N, 7) one-hot or (N,), codebook.npy (256, d) if present."""
    folder = path if path.is_dir() else path.parent
    maps, labels = _npy(folder / "codemaps.npy"), _npy(folder / "labels.npy")
    if maps.ndim != 3 or maps.shape[1:] != (GRID, GRID) or len(maps) == 0:
        raise InputError(
            f"{folder / 'codemaps.npy'}: shape {maps.shape}; (N, {GRID}, {GRID}) with N > 0 is needed"
        )
    maps = _integers(maps, folder / "codemaps.npy", 0, CODES - 1)
    labels = _integers(labels, folder / "labels.npy", 0, len(CLASSES) - 1)
    if labels.ndim == 2:
        if labels.shape[1] != len(CLASSES):
            raise InputError(
                f"{folder / 'labels.npy'}: shape {labels.shape}; (N, {len(CLASSES)}) one-hot or (N,) is needed"
            )
        if not np.isin(labels, (0, 1)).all() or not (labels.sum(1) == 1).all():
            row = int(np.flatnonzero((labels.sum(1) != 1) | ~np.isin(labels, (0, 1)).all(1))[0])
            raise InputError(f"{folder / 'labels.npy'}: row {row} is not one-hot (one 1, else 0)")
        labels = labels.argmax(1)
    labels = labels.astype(np.int64)
    if labels.shape != (len(maps),):
        raise InputError(
            f"{folder / 'labels.npy'}: {labels.shape[0] if labels.ndim else 0} labels for {len(maps)} code maps"
        )
    codebook = None
    if (folder / "codebook.npy").exists():
        codebook = _npy(folder / "codebook.npy")
        if codebook.ndim != 2 or codebook.shape[0] != CODES or codebook.dtype.kind != "f":
            raise InputError(
                f"{folder / 'codebook.npy'}: {codebook.dtype} {codebook.shape}; float ({CODES}, d) is needed, one row a code"
            )
        if not np.isfinite(codebook).all():
            raise InputError(f"{folder / 'codebook.npy'}: NaN or infinity")
    part = np.full(len(maps), "train")
    if (folder / "usage.npy").exists():
        part = _parts(_npy(folder / "usage.npy"), folder / "usage.npy", len(maps))
    provenance = {
        "path": str(folder.name),
        "sha256": {name.name: sha256(name) for name in sorted(folder.glob("*.npy"))},
    }
    return Faces(
        "codemaps",
        None,
        maps.astype(np.uint8),
        None if codebook is None else codebook.astype(np.float32),
        labels,
        part,
        provenance,
    )


def read_image(path: Path) -> np.ndarray:
    """Any image file -> uint8 (48, 48): upright, grey, centre-cropped to a square, reduced with antialiasing."""
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("I;16", "I", "F"):  # 16-bit and float greys, which "L" would clip
                levels = np.asarray(image, dtype=np.float64)
                span = levels.max() - levels.min()
                image = Image.fromarray(np.uint8((levels - levels.min()) / (span or 1) * 255))
            elif "A" in image.getbands() or "transparency" in image.info:
                image = Image.alpha_composite(
                    Image.new("RGBA", image.size, "white"), image.convert("RGBA")
                )
            return np.array(
                ImageOps.fit(image.convert("L"), (SIDE, SIDE), Image.Resampling.LANCZOS)
            )
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise InputError(f"{path}: not a readable image ({error})") from None


def _is_codemaps(path: Path) -> bool:
    return path.name == "codemaps.npy" or (path / "codemaps.npy").exists()


def _from_csv(path: Path) -> Faces:
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable csv ({error})") from None
    table.columns = [str(name).strip().lower() for name in table.columns]
    if missing := {"emotion", "pixels"} - set(table.columns):
        raise InputError(
            f"{path}: no column {', '.join(sorted(missing))}; emotion, pixels and Usage are needed"
        )
    if not table.columns.is_unique:
        raise InputError(
            f"{path}: two columns of one name; emotion, pixels and Usage are needed, each once"
        )
    if table.empty:
        raise InputError(f"{path}: no rows")
    pixels = table["pixels"].fillna("").astype(str).str.strip()
    counts = pixels.str.split().str.len()
    if (wrong := np.flatnonzero(counts != SIDE * SIDE)).size:
        raise InputError(
            f"{path}: row {wrong[0]} has {counts.iloc[wrong[0]]} pixels; {SIDE * SIDE} are needed (is the file cut off?)"
        )
    try:
        values = np.array(" ".join(pixels).split(), dtype=np.float32)
    except ValueError as error:
        raise InputError(f"{path}: a pixel is not a number ({error})") from None
    images = _integers(values, path, 0, 255).astype(np.uint8).reshape(-1, SIDE, SIDE)  # (N, H, W)
    return _faces(
        path,
        images,
        table["emotion"].to_numpy(),
        table["usage"].to_numpy() if "usage" in table else None,
    )


def _from_npz(path: Path, labelled: bool) -> Faces:
    try:
        # opened here, because numpy leaves a damaged file open
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            held = {
                name: archive[name] for name in ("images", "labels", "usage") if name in archive
            }
    except (
        Exception
    ) as error:  # numpy raises zipfile, zlib, struct and its own errors on a damaged archive
        raise InputError(f"{path}: not a readable npz without pickled objects ({error})") from None
    if "images" not in held or (labelled and "labels" not in held):
        raise InputError(
            f"{path}: arrays {sorted(held)}; images{' and labels' if labelled else ''} are needed"
        )
    images = held["images"]
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE) or len(images) == 0:
        raise InputError(f"{path}: images {images.shape}; (N, {SIDE}, {SIDE}) with N > 0 is needed")
    return _faces(
        path,
        _integers(images, path, 0, 255).astype(np.uint8),
        held.get("labels"),
        held.get("usage"),
    )


def _from_folder(path: Path, labelled: bool) -> Faces:
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS and p.is_file())
    if not files:
        raise InputError(f"{path}: no images ({', '.join(sorted(IMAGE_ENDINGS))}) in this folder")
    labels = usage = None
    if labelled:
        labels, usage = [], []
        for file in files:
            words = file.relative_to(path).parts
            if len(words) < 2 or words[-2].lower() not in CLASSES:
                raise InputError(
                    f"{file}: images must stand in <train|test>/<class>/, with a class of {', '.join(CLASSES)}"
                )
            labels.append(CLASSES.index(words[-2].lower()))
            usage.append(words[-3] if len(words) > 2 else "train")
    images = np.stack([read_image(file) for file in progress(files, "reading images")])
    faces = _faces(
        path,
        images,
        None if labels is None else np.array(labels),
        None if usage is None else np.array(usage),
    )
    return (
        faces
        if labelled
        else dataclasses.replace(
            faces,
            provenance={**faces.provenance, "files": [str(p.relative_to(path)) for p in files]},
        )
    )


def _faces(
    path: Path, images: np.ndarray, labels: np.ndarray | None, usage: np.ndarray | None
) -> Faces:
    if labels is not None:
        if np.shape(labels) != (len(images),):
            raise InputError(
                f"{path}: labels of shape {np.shape(labels)} for {len(images)} images; one label an image is needed"
            )
        labels = _integers(np.asarray(labels), path, 0, len(CLASSES) - 1, "label").astype(np.int64)
    part = np.full(len(images), "train") if usage is None else _parts(usage, path, len(images))
    return Faces(
        "fer2013",
        images,
        None,
        None,
        labels,
        part,
        {"path": path.name, "sha256": sha256(path), "images": len(images)},
    )


def _parts(usage: np.ndarray, path: Path, n: int) -> np.ndarray:
    if np.shape(usage) != (n,):
        raise InputError(f"{path}: usage of shape {np.shape(usage)} for {n} images")
    try:
        words = np.asarray(usage).astype(str)
    except (ValueError, TypeError):
        raise InputError(
            f"{path}: usage of type {np.asarray(usage).dtype}; words are needed"
        ) from None
    known = {str(word): PARTS.get(str(word).lower()) for word in np.unique(words)}
    if bad := [word for word, part in known.items() if part is None]:
        raise InputError(
            f"{path}: usage {bad[0]!r}; allowed are Training, PublicTest, PrivateTest, train, test, private"
        )
    return np.array([known[str(word)] for word in words])


def _npy(path: Path) -> np.ndarray:
    if not path.exists():
        raise InputError(f"{path} does not exist; codemaps.npy and labels.npy are needed")
    try:
        with open(path, "rb") as stream:
            array = np.load(stream, allow_pickle=False)
    except (
        Exception
    ) as error:  # numpy raises tokenize's, zipfile's and its own errors on a damaged file
        raise InputError(f"{path}: not a readable npy without pickled objects ({error})") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: an npz archive under the name of an npy array")
    return array


def _integers(
    values: np.ndarray, path: Path, low: int, high: int, what: str = "value"
) -> np.ndarray:
    if values.dtype.kind not in "biuf":
        raise InputError(
            f"{path}: {what}s of type {values.dtype}; whole numbers {low}..{high} are needed"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(
            f"{path}: a {what} is NaN or infinite; whole numbers {low}..{high} are needed"
        )
    if values.size and ((values < low) | (values > high) | (values != np.floor(values))).any():
        wrong = values[(values < low) | (values > high) | (values != np.floor(values))].flat[0]
        raise InputError(f"{path}: {what} {wrong}; whole numbers {low}..{high} are needed")
    return values


# ------------------------------------------------------------------------------------------------------ audit and split


def fingerprints(rows: np.ndarray) -> np.ndarray:
    """uint64 (N,): a 63-bit hash of the exact content of each row (blake2b)."""
    from hashlib import blake2b

    return np.array(
        [
            int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest(), "big") >> 1
            for row in rows
        ],
        dtype=np.uint64,
    )


def perceptual_hash(images: np.ndarray) -> np.ndarray:
    """uint64 (N,): the signs of the 8 x 8 lowest DCT coefficients against their median, without the mean (pHash, Zauner 2010)."""
    hashes = np.empty(len(images), np.uint64)
    for start in range(0, len(images), 4096):
        block = images[start : start + 4096].astype(np.float32)
        low = dctn(block, axes=(1, 2))[:, :8, :8].reshape(len(block), 64)[:, 1:]  # (n, 63)
        bits = low > np.median(low, axis=1, keepdims=True)
        hashes[start : start + 4096] = np.packbits(np.pad(bits, ((0, 0), (1, 0))), axis=1).view(
            ">u8"
        )[:, 0]
    return hashes


def near_duplicates(images: np.ndarray, bits: int = 3, correlation: float = 0.98) -> np.ndarray:
    """int64 (P, 2): pairs whose perceptual hashes differ in at most `bits` places and whose pixels correlate that much.

    Two hashes that differ in at most 3 places agree in one of four 16-bit bands, so only rows that share a band are compared.
    """
    hashes, found = perceptual_hash(images), []
    for band in range(4):
        key = (hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = np.argsort(key, kind="stable")
        for step in range(1, len(order)):
            same = np.flatnonzero(key[order[:-step]] == key[order[step:]])
            if not same.size:
                break
            i, j = order[same], order[same + step]
            close = np.bitwise_count(hashes[i] ^ hashes[j]) <= bits
            found.append(np.stack([i[close], j[close]], axis=1))
    pairs = np.unique(np.sort(np.concatenate([np.empty((0, 2), np.int64), *found]), axis=1), axis=0)
    keep = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), 4096):
        a, b = (
            images[pairs[start : start + 4096, k]].reshape(-1, SIDE * SIDE).astype(np.float32)
            for k in (0, 1)
        )
        a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
        norm = np.sqrt((a * a).sum(1) * (b * b).sum(1))
        keep[start : start + 4096] = (a * b).sum(1) >= correlation * np.maximum(norm, 1e-6)
    return pairs[keep]


def audit(faces: Faces) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Group number of each row (duplicates share one), a mask of rows unfit for training, and counts for the record.

    Unfit are constant images and all members of a group whose labels disagree.
    """
    rows = faces.given
    n = len(rows)
    _, exact = np.unique(fingerprints(rows), return_inverse=True)
    constant = rows.reshape(n, -1).min(1) == rows.reshape(n, -1).max(1)
    first = np.unique(exact, return_index=True)[1]
    pairs = np.stack([np.arange(n), first[exact]], axis=1)
    near = near_duplicates(rows[first]) if faces.images is not None else np.empty((0, 2), np.int64)
    near = near[~(constant[first[near[:, 0]]] | constant[first[near[:, 1]]])]
    pairs = np.concatenate([pairs, first[near]])
    groups = connected_components(
        coo_array((np.ones(len(pairs)), pairs.T), shape=(n, n)), directed=False
    )[1]

    def disagree(group: np.ndarray) -> np.ndarray:
        low, high = np.full(group.max() + 1, 99), np.full(group.max() + 1, -1)
        np.minimum.at(low, group, faces.truth)
        np.maximum.at(high, group, faces.truth)
        return low < high

    def across(group: np.ndarray) -> int:
        table = {name: np.isin(group, group[faces.part == name]) for name in np.unique(faces.part)}
        return int((np.sum(list(table.values()), axis=0) > 1)[faces.part == "train"].sum())

    counts = {
        "rows": n,
        "exact_duplicates": n - int(exact.max()) - 1,
        "near_duplicates": int(exact.max()) - int(groups.max()),
        "groups_with_conflicting_labels_exact": int(disagree(exact).sum()),
        "groups_with_conflicting_labels": int(disagree(groups).sum()),
        "training_rows_with_a_twin_in_another_part": across(groups),
        "constant_images": int(constant.sum()),
    }
    return groups, constant | disagree(groups)[groups], counts


def held_out_split(
    faces: Faces, groups: np.ndarray, unfit: np.ndarray, seed: int, validation: float = 0.1
) -> Split:
    """Train, validation and test rows; the test part is kept whole and its twins leave the other two.

    Without a test part in the data one seventh of the groups becomes it. Groups are drawn class by class.
    Raises InputError when a part ends with fewer than two classes.
    """
    rng = np.random.default_rng(seed)
    test = faces.part == "test"
    pool = (faces.part == "train") & ~unfit
    if not test.any():
        test = _draw(groups, faces.truth, np.flatnonzero(pool), 1 / 7, rng)
    pool &= ~np.isin(groups, groups[test | (faces.part == "private")])
    chosen = _draw(groups, faces.truth, np.flatnonzero(pool), validation, rng)
    split = Split(np.flatnonzero(pool & ~chosen), np.flatnonzero(chosen), np.flatnonzero(test))
    for name, rows in vars(split).items():
        if len(present := np.unique(faces.truth[rows])) < 2:
            raise InputError(
                f"the {name} part ends with {len(present)} classes in {len(rows)} rows; at least two are needed: give more data"
            )
    return split


def _draw(
    groups: np.ndarray, labels: np.ndarray, rows: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Boolean mask over all rows: those of `rows` in a random `share` of each class's groups."""
    names, first = np.unique(groups[rows], return_index=True)
    label, chosen = labels[rows][first], []
    for value in np.unique(label):
        members = rng.permutation(names[label == value])
        chosen.append(members[: round(share * len(members))])
    mask = np.zeros(len(groups), bool)
    mask[rows[np.isin(groups[rows], np.concatenate(chosen))]] = True
    return mask
