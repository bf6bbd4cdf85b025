"""Files of faces and code maps -> checked arrays; every bad file is one clear line.

Shape letters: N rows, H W = 48 x 48 grey levels, h w = 12 x 12 code indices, m = 256 codes of
d numbers, k = 7 classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError

from common.cli import InputError
from common.run import progress

# the order of FER-2013's labels 0..6
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
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


@dataclass(frozen=True)
class Pictures:
    """Checked pictures: images uint8 (N, H, W), labels int64 (N,) or None, part (N,) or None."""

    images: np.ndarray
    labels: np.ndarray | None
    part: np.ndarray | None


@dataclass(frozen=True)
class CodeMaps:
    """Checked code maps: uint8 (N, h, w), codebook float32 (m, d) or None, labels, part or None."""

    maps: np.ndarray
    codebook: np.ndarray | None
    labels: np.ndarray
    part: np.ndarray | None


# ----------------------------------------------------------------------------------- pictures


def read_csv(path: Path) -> Pictures:
    """FER's own format: columns emotion, pixels (2,304 numbers in a string) and Usage."""
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable csv ({error})") from None
    table.columns = [str(name).strip().lower() for name in table.columns]
    missing = {"emotion", "pixels"} - set(table.columns)
    if missing:
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
    wrong = np.flatnonzero(counts != SIDE * SIDE)
    if wrong.size:
        raise InputError(
            f"{path}: row {wrong[0]} has {counts.iloc[wrong[0]]} pixels; "
            f"{SIDE * SIDE} are needed (is the file cut off?)"
        )
    try:
        values = np.array(" ".join(pixels).split(), dtype=np.float32)
    except ValueError as error:
        raise InputError(f"{path}: a pixel is not a number ({error})") from None
    images = whole_numbers(values, path, 255).astype(np.uint8)
    usage = table["usage"].to_numpy() if "usage" in table else None
    return checked(path, images.reshape(-1, SIDE, SIDE), table["emotion"].to_numpy(), usage)


def read_npz(path: Path, labelled: bool) -> Pictures:
    """Arrays images (N, H, W), labels (N,) and usage (N,); `labelled`: the labels must be there."""
    try:
        # opened here, because numpy leaves a damaged file open
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {
                name: archive[name] for name in ("images", "labels", "usage") if name in archive
            }
    except Exception as error:  # a damaged archive: zipfile's, zlib's, struct's or numpy's errors
        raise InputError(f"{path}: not a readable npz without pickled objects ({error})") from None
    if "images" not in arrays or (labelled and "labels" not in arrays):
        needed = "images and labels" if labelled else "images"
        raise InputError(f"{path}: arrays {sorted(arrays)}; {needed} are needed")
    images = arrays["images"]
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE) or len(images) == 0:
        raise InputError(f"{path}: images {images.shape}; (N, {SIDE}, {SIDE}) with N > 0 is needed")
    pixels = whole_numbers(images, path, 255).astype(np.uint8)
    return checked(path, pixels, arrays.get("labels"), arrays.get("usage"))


def image_files(folder: Path) -> list[Path]:
    """The image files below a folder, sorted. Raises InputError where there are none."""
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in IMAGE_ENDINGS and file.is_file()
    )
    if not files:
        endings = ", ".join(sorted(IMAGE_ENDINGS))
        raise InputError(f"{folder}: no images ({endings}) in this folder")
    return files


def read_folder(folder: Path, labelled: bool) -> Pictures:
    """Image files in <train|test>/<class>/, or in any folders where no labels are needed."""
    files = image_files(folder)
    labels = []
    usage = []
    for file in files if labelled else []:
        parents = file.relative_to(folder).parts[:-1]
        if not parents or parents[-1].lower() not in CLASSES:
            raise InputError(
                f"{file}: images must stand in <train|test>/<class>/, with a class of "
                f"{', '.join(CLASSES)}"
            )
        labels.append(CLASSES.index(parents[-1].lower()))
        usage.append(parents[-2] if len(parents) > 1 else "train")
    images = np.stack([read_image(file) for file in progress(files, "reading images")])
    if not labelled:
        return checked(folder, images, None, None)
    return checked(folder, images, np.array(labels), np.array(usage))


def read_image(path: Path) -> np.ndarray:
    """Any image file -> uint8 (48, 48): upright, grey, centre-cropped to a square and reduced."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode in ("I;16", "I", "F"):  # 16-bit and float greys, which "L" would clip
                levels = np.asarray(image, dtype=np.float64)
                span = levels.max() - levels.min()
                image = Image.fromarray(np.uint8((levels - levels.min()) / (span or 1) * 255))
            elif "A" in image.getbands() or "transparency" in image.info:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            # (LANCZOS reduces with antialiasing)
            grey = ImageOps.fit(image.convert("L"), (SIDE, SIDE), Image.Resampling.LANCZOS)
            return np.array(grey)
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise InputError(f"{path}: not a readable image ({error})") from None


def checked(
    path: Path, images: np.ndarray, labels: np.ndarray | None, usage: np.ndarray | None
) -> Pictures:
    """Images with checked labels and parts. Raises InputError."""
    if labels is not None:
        if np.shape(labels) != (len(images),):
            raise InputError(
                f"{path}: labels of shape {np.shape(labels)} for {len(images)} images; "
                "one label per image is needed"
            )
        labels = whole_numbers(np.asarray(labels), path, len(CLASSES) - 1, "label").astype(np.int64)
    part = None if usage is None else parts_of(usage, path, len(images))
    return Pictures(images, labels, part)


# ---------------------------------------------------------------------------------- code maps


def read_codemaps(folder: Path) -> CodeMaps:
    """The course's format: codemaps.npy (N, h, w), labels.npy (N, k) one-hot or (N,).

    codebook.npy (m, d) and usage.npy (N,) are read where they are present.
    """
    path = folder / "codemaps.npy"
    maps = read_npy(path)
    labels = read_npy(folder / "labels.npy")
    if maps.ndim != 3 or maps.shape[1:] != (GRID, GRID) or len(maps) == 0:
        raise InputError(f"{path}: shape {maps.shape}; (N, {GRID}, {GRID}) with N > 0 is needed")
    maps = whole_numbers(maps, path, CODES - 1)
    labels = label_indices(labels, folder / "labels.npy", len(maps))
    usage_path = folder / "usage.npy"
    part = None
    codebook = None
    if (folder / "codebook.npy").exists():
        codebook = read_codebook(folder / "codebook.npy")
    if usage_path.exists():
        part = parts_of(read_npy(usage_path), usage_path, len(maps))
    return CodeMaps(maps.astype(np.uint8), codebook, labels, part)


def label_indices(labels: np.ndarray, path: Path, rows: int) -> np.ndarray:
    """Labels (N, k) one-hot or (N,) -> indices int64 (N,). Raises InputError."""
    labels = whole_numbers(labels, path, len(CLASSES) - 1)
    if labels.ndim == 2:
        if labels.shape[1] != len(CLASSES):
            raise InputError(
                f"{path}: shape {labels.shape}; (N, {len(CLASSES)}) one-hot or (N,) is needed"
            )
        one_hot = np.isin(labels, (0, 1)).all(1) & (labels.sum(1) == 1)
        if not one_hot.all():
            row = int(np.flatnonzero(~one_hot)[0])
            raise InputError(f"{path}: row {row} is not one-hot (one 1, else 0)")
        labels = labels.argmax(1)
    if labels.shape != (rows,):
        count = labels.shape[0] if labels.ndim else 0
        raise InputError(f"{path}: {count} labels for {rows} code maps")
    return labels.astype(np.int64)


def read_codebook(path: Path) -> np.ndarray:
    """A codebook float32 (m, d). Raises InputError."""
    codebook = read_npy(path)
    if codebook.ndim != 2 or codebook.shape[0] != CODES or codebook.dtype.kind != "f":
        raise InputError(
            f"{path}: {codebook.dtype} {codebook.shape}; float ({CODES}, d) is needed, "
            "one row per code"
        )
    if not np.isfinite(codebook).all():
        raise InputError(f"{path}: NaN or infinity")
    return codebook.astype(np.float32)


def read_npy(path: Path) -> np.ndarray:
    """One array. Raises InputError where the file is missing, damaged or holds objects."""
    if not path.exists():
        raise InputError(f"{path} does not exist; codemaps.npy and labels.npy are needed")
    try:
        with open(path, "rb") as stream:
            array = np.load(stream, allow_pickle=False)
    except Exception as error:  # a damaged file: tokenize's, zipfile's or numpy's errors
        raise InputError(f"{path}: not a readable npy without pickled objects ({error})") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: an npz archive under the name of an npy array")
    return array


# ------------------------------------------------------------------------------------- checks


def parts_of(usage: np.ndarray, path: Path, rows: int) -> np.ndarray:
    """FER's words for the parts -> (N,) of "train" | "test" | "private". Raises InputError."""
    if np.shape(usage) != (rows,):
        raise InputError(f"{path}: usage of shape {np.shape(usage)} for {rows} images")
    try:
        words = np.asarray(usage).astype(str)
    except (ValueError, TypeError):
        raise InputError(
            f"{path}: usage of type {np.asarray(usage).dtype}; words are needed"
        ) from None
    for word in np.unique(words):
        if str(word).lower() not in PARTS:
            raise InputError(
                f"{path}: usage {str(word)!r}; allowed are Training, PublicTest, PrivateTest, "
                "train, test, private"
            )
    return np.array([PARTS[str(word).lower()] for word in words])


def whole_numbers(values: np.ndarray, path: Path, largest: int, what: str = "value") -> np.ndarray:
    """The values, if all are whole numbers in 0..largest. Raises InputError otherwise."""
    needed = f"whole numbers 0..{largest} are needed"
    if values.dtype.kind not in "biuf":
        raise InputError(f"{path}: {what}s of type {values.dtype}; {needed}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{path}: a {what} is NaN or infinite; {needed}")
    wrong = (values < 0) | (values > largest) | (values != np.floor(values))
    if wrong.any():
        raise InputError(f"{path}: {what} {values[wrong].flat[0]}; {needed}")
    return values
