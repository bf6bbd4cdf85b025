"""Images from files -> checked uint8 arrays of one side, with labels where there are any.

Also the 80 / 10 / 10 split, and what each step of training draws.
Shape letters: N images, B batch, S side.
"""

from __future__ import annotations

import dataclasses
import io
import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pooch
import scipy.io
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from assignment5.config import Config, Source
from assignment5.synthetic import draw_flowers
from common.cli import InputError, data_folder
from common.files import JsonObject, sha256
from common.run import progress

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".gif"}
ALLOWED = f"allowed are {', '.join(sorted(ENDINGS))}"
SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
ARCHIVE = "102flowers.tgz"
OFFICIAL_LABELS = "imagelabels.mat"
CHECKSUMS = {
    ARCHIVE: "md5:52808999861908f626f3c1f4e79d11fa",
    OFFICIAL_LABELS: "md5:e0620be6f572b9609742df49c70aed4d",
}
FLOWERS = (  # names under which the data folder may hold Oxford Flowers 102
    "oxford_flowers102",
    "oxford_flowers102.tar",
    "oxford_flowers102_64px.tar",
    ARCHIVE,
)
NOTICE = (
    "built-in drawn flowers, not photographs; for Oxford Flowers 102 use --source flowers "
    "(a download of 330 MB), or give --data PATH"
)


@dataclass(frozen=True)
class Images:
    """Checked input: pixels uint8 (N, S, S, 3), labels int64 (N,) from 0 or None, file names."""

    source: str
    pixels: np.ndarray
    labels: np.ndarray | None
    names: list[str]
    provenance: JsonObject

    def __len__(self) -> int:
        return len(self.pixels)


# ------------------------------------------------------------------------------------- the split


@dataclass(frozen=True)
class Split:
    """Row indices int64 of the three parts, disjoint."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images in each part."""
        return {name: len(rows) for name, rows in vars(self).items()}

    def of(self, images: Images) -> Parts:
        """The pixels of the three parts."""
        pixels = images.pixels
        return Parts(pixels[self.train], pixels[self.validation], pixels[self.test])


@dataclass(frozen=True)
class Parts:
    """Pixels uint8 (N, S, S, 3) of the three parts."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return self.train.shape[1]


def split(count: int, seed: int) -> Split:
    """A random 80 % to train on; half of the rest for every choice, the other half for scores."""
    order = np.random.default_rng((seed, 80)).permutation(count)
    train, validation, test = np.split(order, (int(0.8 * count), int(0.9 * count)))
    return Split(np.sort(train), np.sort(validation), np.sort(test))


# ------------------------------------------------------------------------------ where images lie


def load(
    source: Source, path: Path | None, side: int, synthetic_images: int = 4000, seed: int = 0
) -> Images:
    """Images of a source at side x side.

    auto takes `path`, else flowers in the data folder, else the built-in sample; flowers without
    `path` uses the data folder, or downloads the official archive into it.
    Raises InputError with one line for anything that is missing, unreadable or too small.
    """
    if path is not None and not path.exists():
        raise InputError(f"--data {path} does not exist")
    if source == "folder" and path is None:
        raise InputError("--source folder: give the folder or tar of images with --data")
    if source == "auto":
        source = available(path)
    if source == "synthetic":
        return synthetic(synthetic_images, side, seed)
    if path is None:
        path = flowers_in_data_folder() or download()
    return dataclasses.replace(read(path, side), source=source)


def load_for(config: Config) -> Images:
    """The images that a config names. Raises InputError as `load`."""
    return load(config.source, config.data, config.side, config.synthetic_images, config.seed)


def load_again(record: JsonObject) -> Images:
    """The images that a run was made from, by its run.json. Raises InputError as `load`."""
    config = record["config"]
    path = Path(config["data"]) if config["data"] else None
    return load(record["source"], path, config["side"], config["synthetic_images"], config["seed"])


def available(path: Path | None) -> Source:
    """The source that "auto" stands for."""
    if path is not None:
        return "folder"
    if flowers_in_data_folder() is not None:
        return "flowers"
    return "synthetic"


def flowers_in_data_folder() -> Path | None:
    """Oxford Flowers 102 in the data folder, where it is there."""
    candidates = [data_folder() / name for name in FLOWERS]
    return next((path for path in candidates if path.exists()), None)


def synthetic(count: int, side: int, seed: int) -> Images:
    """The built-in drawn sample, with the notice that says so."""
    pixels, labels = draw_flowers(count, side, seed)
    names = [f"drawn-{number}" for number in range(count)]
    provenance = {
        "generator": "assignment5/synthetic.py",
        "images": count,
        "notice": NOTICE,
    }
    return Images("synthetic", pixels, labels, names, provenance)


def download(site: str = SITE) -> Path:
    """The official archive and its labels in the data folder, checked by md5.

    Raises InputError where that fails.
    """
    pooch.get_logger().setLevel("WARNING")  # the bar says that it fetches; a refusal stays one line
    for name, digest in CHECKSUMS.items():
        large = name == ARCHIVE
        try:
            pooch.retrieve(
                site + name,
                digest,
                fname=name,
                path=data_folder(),
                progressbar=large,
                downloader=pooch.HTTPDownloader(progressbar=large, timeout=30),
            )
        except ValueError:
            raise InputError(
                f"{site}{name}: the download's checksum is not {digest}; "
                "nothing was kept, try again"
            ) from None
        except Exception as error:  # (requests' many ways to fail)
            raise InputError(
                f"{site}{name} cannot be fetched ({type(error).__name__}); "
                f"put it into {data_folder()} by hand"
            ) from None
    return data_folder() / ARCHIVE


# ------------------------------------------------------------------------------- reading images


def read(path: Path, side: int) -> Images:
    """Every image of a folder or tar at side x side; exact duplicates are left out.

    Labels come from a labels.csv (file, label), the official imagelabels.mat beside the archive,
    or the names of subfolders.
    Raises InputError as `read_image`, and where there is no image at all.
    """
    pixels: list[np.ndarray] = []
    names: list[str] = []
    modes: Counter[str] = Counter()
    table: dict[str, str] | None = None
    for name, content in progress(files_below(path), "reading images"):
        if name.endswith("labels.csv"):
            table = read_labels(content, path)
            continue
        square, mode = read_image(content, f"{path}/{name}", side)
        pixels.append(square)
        names.append(name)
        modes[mode] += 1
    if not pixels:
        raise InputError(f"{path} holds no image; {ALLOWED}")

    stacked = np.stack(pixels)  # (N, S, S, 3)
    labels = labels_of(path, names, table)
    unique = first_of_each(stacked)
    provenance = {
        "path": path.name,
        "sha256": sha256(path),
        "images": len(names),
        "duplicates_left_out": len(names) - len(unique),
        "modes": dict(modes),
    }
    return Images(
        source="folder",
        pixels=stacked[unique],
        labels=None if labels is None else labels[unique],
        names=[names[row] for row in unique],
        provenance=provenance,
    )


def first_of_each(pixels: np.ndarray) -> np.ndarray:
    """Rows int64, ascending, of the first image of each set of equal ones in (N, S, S, 3)."""
    flat = pixels.reshape(len(pixels), -1)
    whole = flat.view(f"V{pixels[0].nbytes}").ravel()  # one value per image
    _, first = np.unique(whole, return_index=True)
    return np.sort(first)


def is_wanted(name: PurePosixPath) -> bool:
    """Whether a file is an image or the table of labels."""
    return name.suffix.lower() in ENDINGS or name.name == "labels.csv"


def files_below(path: Path) -> Iterator[tuple[str, bytes]]:
    """(relative name, content) of the images and labels.csv in a folder or tar, by name."""
    return files_in_folder(path) if path.is_dir() else files_in_tar(path)


def files_in_folder(path: Path) -> Iterator[tuple[str, bytes]]:
    """(relative name, content) of each wanted file below a folder."""
    for file in sorted(path.rglob("*")):
        visible = file.is_file() and not file.name.startswith(".")
        relative = PurePosixPath(file.relative_to(path).as_posix())
        if visible and is_wanted(relative):
            yield str(relative), file.read_bytes()


def files_in_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each wanted file in a tar.

    Raises InputError for a damaged archive and for members that point out of it.
    """
    try:
        with tarfile.open(path) as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts or member.issym() or member.islnk():
                    raise InputError(
                        f"{path}: {member.name} points out of the archive; "
                        "only plain relative files are allowed"
                    )
                if not member.isfile() or not is_wanted(name):
                    continue
                content = archive.extractfile(member)
                if content is not None:  # (None: a folder)
                    yield member.name, content.read()
    except (tarfile.TarError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise InputError(
            f"{path} is not a readable tar ({error}); allowed are a folder or a tar of images"
        ) from None


def read_image(content: bytes, name: str, side: int) -> tuple[np.ndarray, str]:
    """(uint8 (side, side, 3), the image's own mode): the centre square, reduced with antialiasing.

    Grey is repeated in three channels, transparency is laid on white.
    Raises InputError for what cannot be read or is smaller than `side`.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            mode = picture.mode
            width, height = picture.size
            if min(width, height) < side:
                raise InputError(
                    f"{name} has {width} x {height} pixels; at least {side} x {side} are needed "
                    "(or a smaller --side)"
                )
            # a JPEG is decoded at the smallest size that is enough
            picture.draft("RGB", (2 * side, 2 * side))
            square = centre_square(on_white(picture))
            reduced = square.resize((side, side), Image.Resampling.BICUBIC)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InputError(f"{name} cannot be read as an image; {ALLOWED}") from None
    return np.asarray(reduced), mode


def on_white(picture: Image.Image) -> Image.Image:
    """An image in RGB, with what is transparent laid on white."""
    if "A" in picture.getbands() or "transparency" in picture.info:
        clear = picture.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(white, clear).convert("RGB")
    return picture.convert("RGB")


def centre_square(picture: Image.Image) -> Image.Image:
    """The largest square in the middle of an image."""
    width, height = picture.size
    edge = min(width, height)
    left = (width - edge) // 2
    top = (height - edge) // 2
    return picture.crop((left, top, left + edge, top + edge))


# --------------------------------------------------------------------------------------- labels


def read_labels(content: bytes, path: Path) -> dict[str, str]:
    """{file name: label} of a labels.csv. Raises InputError where its columns are missing."""
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str)
        return dict(zip(table["file"], table["label"], strict=True))
    except (KeyError, ValueError):
        raise InputError(f"{path}/labels.csv: the columns file, label are needed") from None


def labels_of(path: Path, names: list[str], table: dict[str, str] | None) -> np.ndarray | None:
    """Labels int64 (N,) from 0, or None where all images have the same.

    Raises InputError where the table lacks an image.
    """
    official = path.parent / OFFICIAL_LABELS
    if table is not None:
        words = [label_in(table, name, path) for name in names]
    elif path.name == ARCHIVE and official.exists():
        numbers = scipy.io.loadmat(official)["labels"].ravel()
        words = [str(numbers[official_number(name) - 1]) for name in names]
    else:
        words = [str(PurePosixPath(name).parent) for name in names]
    kinds, labels = np.unique(words, return_inverse=True)
    return labels.astype(np.int64) if len(kinds) > 1 else None


def label_in(table: dict[str, str], name: str, path: Path) -> str:
    """The label of one image. Raises InputError where the table has none."""
    label = table.get(PurePosixPath(name).name, table.get(name))
    if label is None:
        raise InputError(f"{path}/labels.csv: no label for {name}")
    return label


def official_number(name: str) -> int:
    """The number of an image of the official archive: jpg/image_00042.jpg -> 42."""
    return int(PurePosixPath(name).stem.split("_")[1])


# --------------------------------------------------------------------------- what a step draws


@dataclass(frozen=True)
class Draws:
    """The random part of one training step of B images."""

    rows: Tensor  # int64 (B,), which images
    mirrored: Tensor  # bool (B,), whether they are mirrored
    times: Tensor  # float (B,) in [0, 1]
    noises: Tensor  # float (B, 3, S, S), standard normal

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> Draws:
        """Some of the images."""
        return Draws(self.rows[part], self.mirrored[part], self.times[part], self.noises[part])


def draw(config: Config, step: int, count: int, device: str) -> Draws:
    """What one step of training on `count` images draws.

    A function of (seed, step) alone, whatever the number of processes and parts, so that a
    resumed or a divided training is the same training.
    """
    batch = config.batch
    rows = torch.from_numpy(rows_of_step(config.seed, step, batch, count)).to(device)
    generator = torch.Generator(device).manual_seed(config.seed * 10_000_019 + step)
    mirrored = torch.rand(batch, generator=generator, device=device) < 0.5
    times = torch.rand(batch, generator=generator, device=device)
    shape = (batch, 3, config.side, config.side)
    noises = torch.randn(shape, generator=generator, device=device)
    return Draws(rows, mirrored, times, noises)


def rows_of_step(seed: int, step: int, batch: int, count: int) -> np.ndarray:
    """Rows int64 (B,) in 0..count-1 of a step; each pass over the data has its own order."""
    places = step * batch + np.arange(batch)  # in the endless sequence of passes
    orders = {
        number: np.random.default_rng((seed, number)).permutation(count)
        for number in np.unique(places // count)
    }
    return np.array([orders[place // count][place % count] for place in places])
