"""Images from what people have -> checked uint8 arrays of one side, with labels where there are any, and an 80 / 10 / 10 split.

Shape letters: N images, S side.
"""

from __future__ import annotations

import dataclasses
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pooch
import scipy.io
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from assignment5.synthetic import draw_flowers
from common.cli import InputError, data_folder
from common.run import progress, sha256

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".gif"}
SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
ARCHIVES = {
    "102flowers.tgz": "md5:52808999861908f626f3c1f4e79d11fa",
    "imagelabels.mat": "md5:e0620be6f572b9609742df49c70aed4d",
}
FOUND = (
    "oxford_flowers102",
    "oxford_flowers102.tar",
    "oxford_flowers102_64px.tar",
    "102flowers.tgz",
)
NOTICE = "built-in drawn flowers, not photographs; for Oxford Flowers 102 use --source flowers (a download of 330 MB), or give --data PATH"


@dataclasses.dataclass(frozen=True)
class Images:
    """Checked input: `pixels` uint8 (N, S, S, 3), `labels` int64 (N,) from 0 or None, `names` of the files."""

    source: str
    pixels: np.ndarray
    labels: np.ndarray | None
    names: list[str]
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return len(self.pixels)


@dataclasses.dataclass(frozen=True)
class Split:
    """Row indices int64 of the three parts, disjoint."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split(count: int, seed: int) -> Split:
    """A random 80 % to train on; half of the rest for every choice, the other half scored once."""
    order = np.random.default_rng((seed, 80)).permutation(count)
    first, second = int(0.8 * count), int(0.9 * count)
    return Split(*(np.sort(part) for part in np.split(order, (first, second))))


def load(
    source: str, path: Path | None, side: int, synthetic_images: int = 4000, seed: int = 0
) -> Images:
    """Images from `source` ("auto" | "flowers" | "folder" | "synthetic") at side x side; auto takes `path`, else flowers in the data
    folder, else the built-in sample. flowers without `path` uses the data folder, or downloads the official archive into it.

    Raises InputError with one line for anything that is missing, unreadable or too small.
    """
    if path is not None and not Path(path).exists():
        raise InputError(f"--data {path} does not exist")
    if source == "folder" and path is None:
        raise InputError("--source folder: give the folder or tar of images with --data")
    if source == "auto":
        kept = next((place for name in FOUND if (place := data_folder() / name).exists()), None)
        source = "folder" if path is not None else "flowers" if kept is not None else "synthetic"
    if source == "synthetic":
        pixels, labels = draw_flowers(synthetic_images, side, seed)
        provenance = {
            "generator": "assignment5/synthetic.py",
            "images": synthetic_images,
            "notice": NOTICE,
        }
        return Images(
            source, pixels, labels, [f"drawn-{number}" for number in range(len(pixels))], provenance
        )
    if path is None:
        path = (
            next((place for name in FOUND if (place := data_folder() / name).exists()), None)
            or download()
        )
    return dataclasses.replace(read(Path(path), side), source=source)


def load_again(record: dict[str, Any]) -> Images:
    """The images that a run was made from, by its run.json. Raises InputError as `load`."""
    settings = record["config"]
    return load(
        record["source"],
        settings["data"] and Path(settings["data"]),
        settings["side"],
        settings["synthetic_images"],
        settings["seed"],
    )


def download(site: str = SITE) -> Path:
    """The official archive and its labels in the data folder, checked by md5. Raises InputError where that fails."""
    pooch.get_logger().setLevel("WARNING")  # the bar says that it fetches; a refusal stays one line
    for name, digest in ARCHIVES.items():
        try:
            pooch.retrieve(
                site + name,
                digest,
                fname=name,
                path=data_folder(),
                progressbar=name.endswith("tgz"),
                downloader=pooch.HTTPDownloader(progressbar=name.endswith("tgz"), timeout=30),
            )
        except ValueError:
            raise InputError(
                f"{site}{name}: the download's checksum is not {digest}; nothing was kept, try again"
            ) from None
        except Exception as error:  # (requests' many ways to fail)
            raise InputError(
                f"{site}{name} cannot be fetched ({type(error).__name__}); put it into {data_folder()} by hand"
            ) from None
    return data_folder() / "102flowers.tgz"


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(relative name, content) of every file below a folder or in a tar, in the order of names."""
    if path.is_dir():
        for file in sorted(
            item for item in path.rglob("*") if item.is_file() and not item.name.startswith(".")
        ):
            if file.suffix.lower() in ENDINGS or file.name == "labels.csv":
                yield file.relative_to(path).as_posix(), file.read_bytes()
        return
    try:
        with tarfile.open(path) as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts or member.issym() or member.islnk():
                    raise InputError(
                        f"{path}: {member.name} points out of the archive; only plain relative files are allowed"
                    )
                if not member.isfile() or not (
                    name.suffix.lower() in ENDINGS or name.name == "labels.csv"
                ):
                    continue
                if (content := archive.extractfile(member)) is not None:  # (None: a folder)
                    yield member.name, content.read()
    except (tarfile.TarError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise InputError(
            f"{path} is not a readable tar ({error}); allowed are a folder or a tar of images"
        ) from None


def read_image(content: bytes, name: str, side: int) -> tuple[np.ndarray, str]:
    """(uint8 (side, side, 3), the image's own mode): the centre square, reduced with antialiasing; grey is repeated, transparency is laid on white.

    Raises InputError for what cannot be read or is smaller than `side`.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            mode, (width, height) = picture.mode, picture.size
            if min(width, height) < side:
                raise InputError(
                    f"{name} has {width} x {height} pixels; at least {side} x {side} are needed (or a smaller --side)"
                )
            picture.draft(
                "RGB", (2 * side, 2 * side)
            )  # a JPEG is decoded at the smallest size that is enough
            whole: Image.Image = picture
            if "A" in picture.getbands() or "transparency" in picture.info:
                clear = picture.convert("RGBA")
                whole = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
            width, height = whole.size
            edge = min(width, height)
            left, top = (width - edge) // 2, (height - edge) // 2
            square = (
                whole.convert("RGB")
                .crop((left, top, left + edge, top + edge))
                .resize((side, side), Image.Resampling.BICUBIC)
            )
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InputError(
            f"{name} cannot be read as an image; allowed are {', '.join(sorted(ENDINGS))}"
        ) from None
    return np.asarray(square), mode


def read(path: Path, side: int) -> Images:
    """Every image of a folder or tar; labels from a labels.csv (file, label), the official imagelabels.mat beside it, or the names of subfolders.

    Exact duplicates are left out. Raises InputError as `read_image`, and where there is no image at all.
    """
    pixels, names, table = [], [], None
    modes: dict[str, int] = {}
    for name, content in progress(_files(path), "reading images"):
        if name.endswith("labels.csv"):
            table = _labels(content, path)
            continue
        square, mode = read_image(content, f"{path}/{name}", side)
        pixels.append(square)
        names.append(name)
        modes[mode] = modes.get(mode, 0) + 1
    if not pixels:
        raise InputError(f"{path} holds no image; allowed are {', '.join(sorted(ENDINGS))}")
    stacked = np.stack(pixels)
    labels = _label_each(path, names, table)
    _, first = np.unique(
        stacked.reshape(len(stacked), -1).view(f"V{stacked[0].nbytes}").ravel(), return_index=True
    )
    keep = np.sort(first)
    provenance = {
        "path": path.name,
        "sha256": sha256(path),
        "images": len(names),
        "duplicates_left_out": len(names) - len(keep),
        "modes": modes,
    }
    return Images(
        "folder",
        stacked[keep],
        None if labels is None else labels[keep],
        [names[row] for row in keep],
        provenance,
    )


def _labels(content: bytes, path: Path) -> dict[str, str]:
    """{file name: label} of a labels.csv."""
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str)
        return dict(zip(table["file"], table["label"], strict=True))
    except (KeyError, ValueError):
        raise InputError(f"{path}/labels.csv: the columns file, label are needed") from None


def _label_each(path: Path, names: list[str], table: dict[str, str] | None) -> np.ndarray | None:
    """Labels int64 (N,) from 0, or None where there are none or only one."""
    official = path.parent / "imagelabels.mat"
    if table is not None:
        found = [table.get(PurePosixPath(name).name, table.get(name)) for name in names]
        words = [word for word in found if word is not None]
        if len(words) < len(found):
            raise InputError(f"{path}/labels.csv: no label for {names[found.index(None)]}")
    elif path.name == "102flowers.tgz" and official.exists():
        numbers = scipy.io.loadmat(official)["labels"].ravel()
        words = [str(numbers[int(PurePosixPath(name).stem.split("_")[1]) - 1]) for name in names]
    else:
        words = [str(PurePosixPath(name).parent) for name in names]
    kinds, labels = np.unique(words, return_inverse=True)
    return labels.astype(np.int64) if len(kinds) > 1 else None


def draws(
    seed: int, step: int, batch: int, count: int, side: int, device: str
) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    """What one step of training sees: rows (B,) in 0..count-1, mirrored or not (B,), times (B,), noises (B, 3, S, S).

    Functions of (seed, step) alone, whatever the number of processes and parts, so a resumed or a divided training is the same training;
    every row comes once in `count` places.
    """
    places = step * batch + np.arange(batch)
    passes = {
        number: np.random.default_rng((seed, number)).permutation(count)
        for number in np.unique(places // count)
    }
    rows = np.array([passes[place // count][place % count] for place in places])
    generator = torch.Generator(device).manual_seed(seed * 10_000_019 + step)
    mirrored = torch.rand(batch, generator=generator, device=device) < 0.5
    times = torch.rand(batch, generator=generator, device=device)
    return (
        rows,
        mirrored,
        times,
        torch.randn((batch, 3, side, side), generator=generator, device=device),
    )
