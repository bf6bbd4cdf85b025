"""Images from files -> checked uint8 arrays of one side, with labels where there are any.

Also the split (the user's own parts, else 80 / 10 / 10), and what each step of training draws.
Shape letters: N images, B batch, S side.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import get_args

import numpy as np
import pooch
import scipy.io
import torch
from torch import Tensor

from assignment5.arrays import holds_arrays, pictures_of, stacks_of
from assignment5.collection import (
    ALLOWED,
    TABLE,
    Collection,
    Entry,
    UnreadableFile,
    check_kind,
    collection,
)
from assignment5.config import Config, Source
from assignment5.layout import (
    UNLABELLED,
    known_parts,
    label_in,
    layout_of,
    names_of,
    numbered,
    read_labels,
)
from assignment5.pixels import Picture, read_picture, scale_words
from assignment5.pixels import read_image as read_image
from assignment5.seen import digest_of
from assignment5.synthetic import draw_flowers
from common.cli import InputError, data_folder
from common.files import JsonObject, sha256
from common.run import SavedRun, progress

PARTS = ("train", "validation", "test")
LISTED = 10  # files that a refusal names
ADVICE = f"repair or remove what is no use; {ALLOWED}"
MOST_DRAWN = 10**6  # flowers that a run.json may ask for
LARGEST_SHIFT = 8  # of a noisy image: the side through this
UNNAMED = 0.1  # share of the images whose class is withheld (Ho & Salimans 2022, table 1)
DARK = 4096  # 16-bit images that stay below look black
SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
ARCHIVE = "102flowers.tgz"
OFFICIAL_LABELS = "imagelabels.mat"
NAMES = Path(__file__).with_name("flower_names.txt")  # line k: the class of label k from 1
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
    """Checked input: pixels uint8 (N, S, S, 3), labels int64 (N,) from 0 or None, file names.

    `parts` (N,) holds "train", "validation" and "test" where the user has made parts, else None.
    """

    source: str
    pixels: np.ndarray
    labels: np.ndarray | None
    names: list[str]
    provenance: JsonObject
    parts: np.ndarray | None = None
    class_names: tuple[str, ...] = ()  # of the labels; () without

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
        return Parts(
            pixels[self.train],
            pixels[self.validation],
            pixels[self.test],
            None if images.labels is None else images.labels[self.train],
            images.class_names,
        )


@dataclass(frozen=True)
class Parts:
    """Pixels uint8 (N, S, S, 3) of the three parts, and labels (N,) of the training part."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return self.train.shape[1]


def split(count: int, seed: int) -> Split:
    """A random 80 % to train on; half of the rest for every choice, the other half for scores."""
    order = np.random.default_rng((seed, 80)).permutation(count)
    train, validation, test = np.split(order, (int(0.8 * count), int(0.9 * count)))
    return Split(np.sort(train), np.sort(validation), np.sort(test))


def split_of(images: Images, seed: int) -> Split:
    """The user's own parts, where the images have them, else `split`.

    Of a training part without a test or a validation part beside it, a random tenth of all images
    becomes each part that is missing.
    """
    if images.parts is None:
        return split(len(images), seed)
    rows = {part: np.flatnonzero(images.parts == part) for part in PARTS}
    train = np.random.default_rng((seed, 80)).permutation(rows["train"])
    for part in ("test", "validation"):
        if not len(rows[part]):
            rows[part], train = np.split(train, [min(len(images) // 10, len(train))])
    return Split(np.sort(train), np.sort(rows["validation"]), np.sort(rows["test"]))


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
        raise InputError("--source folder: give the folder or archive of images with --data")
    if source == "auto":
        source = available(path)
    if source == "synthetic":
        return synthetic(synthetic_images, side, seed)
    if path is None:
        path = flowers_in_data_folder() or download()
    images = dataclasses.replace(read(path, side), source=source)
    return with_names(images) if source == "flowers" else images


def with_names(flowers: Images) -> Images:
    """Oxford Flowers whose classes 1 to 102 bear their names instead of the numbers."""
    names = NAMES.read_text(encoding="utf-8").splitlines()
    numbers = [name for name in flowers.class_names if name.isdecimal()]
    if len(numbers) < len(flowers.class_names) or not all(
        0 < int(number) <= len(names) for number in numbers
    ):
        return flowers
    return dataclasses.replace(
        flowers, class_names=tuple(names[int(number) - 1] for number in numbers)
    )


def load_for(config: Config) -> Images:
    """The images that a config names. Raises InputError as `load`."""
    return load(config.source, config.data, config.side, config.synthetic_images, config.seed)


def load_again(saved: SavedRun, side: int) -> Images:
    """The images that a run of side x side was made from, by its run.json.

    Raises InputError as `load`, and where these are others by now: then the parts would be others.
    """
    options, source = saved.config, saved.record["source"]
    where = f"{saved.folder}/run.json"
    try:
        path = Path(options["data"]) if options["data"] else None
        own, seed = int(options["side"]), int(options["seed"])
        count = int(options["synthetic_images"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{where} is not of assignment 5 ({type(error).__name__}: {error})"
        ) from None
    if own != side:
        raise InputError(f"{where} names images of side {own}, the models draw {side} x {side}")
    if source not in get_args(Source) or not 0 < count <= MOST_DRAWN or seed < 0:
        raise InputError(f"{where} is not of assignment 5 ({source}, {count} drawn, seed {seed})")
    images = load(source, path, side, count, seed)

    # the pixels decide; runs that do not know their digest know that of the file
    for key in ("pixels_sha256", "sha256"):
        if key not in saved.data:
            continue
        if saved.data[key] != images.provenance.get(key):
            raise InputError(
                f"{saved.folder} was made from {saved.data.get('path', 'other images')}, and "
                f"{path or images.provenance.get('path')} holds others by now; give images with "
                "--data"
            )
        break
    return images


def split_again(saved: SavedRun, images: Images) -> Parts:
    """The parts of the images of `load_again`."""
    return split_of(images, int(saved.config["seed"])).of(images)


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
        "read": f"{count:,} drawn flowers of {len(np.unique(labels))} kinds, {side} x {side}",
        "generator": "assignment5/synthetic.py",
        "images": count,
        "notice": NOTICE,
    }
    kinds = tuple(str(kind) for kind in np.unique(labels))
    return Images("synthetic", pixels, labels, names, provenance, class_names=kinds)


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


@dataclass
class Gathered:
    """What a file or folder holds: names, pictures and classes (N,), and the user's parts."""

    names: list[PurePosixPath] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    parts: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


def read(path: Path, side: int) -> Images:
    """Every image of a folder, tar, zip or npz at side x side; exact duplicates are left out.

    Labels come from a labels.csv (file, label), the official imagelabels.mat beside the archive,
    the names of folders, or an array of labels.
    Raises InputError as `read_image`, and where there is no image at all.
    """
    check_kind(path)
    gathered = from_arrays(path, side) if holds_arrays(path) else from_files(path, side)
    stacked = np.stack([picture.pixels for picture in gathered.pictures])  # (N, S, S, 3)
    unique = first_of_each(stacked)
    parts = None if gathered.parts is None else gathered.parts[unique]
    words = [gathered.classes[row] for row in unique]
    labels = numbered(words, parts)
    name = Path(os.path.abspath(path)).name  # (also of ".")
    provenance = {
        "path": name,
        "read": read_words(name, gathered, labels, parts, len(unique)),
        "sha256": sha256(path),
        "pixels_sha256": digest_of(stacked[unique]),
        "images": len(stacked),
        "duplicates_left_out": len(stacked) - len(unique),
        "modes": dict(Counter(picture.mode for picture in gathered.pictures)),
    }
    return Images(
        source="folder",
        pixels=stacked[unique],
        labels=labels,
        names=[str(gathered.names[row]) for row in unique],
        provenance=provenance,
        parts=parts,
        class_names=names_of(words, labels),
    )


def from_arrays(path: Path, side: int) -> Gathered:
    """What an .npz or .npy holds. Raises InputError as `stacks_of` and `pictures_of`."""
    stacks = stacks_of(path)
    pictures, scale = pictures_of(path, stacks, side)
    gathered = Gathered(notes=[scale] if scale else [])
    parts: list[str] = []
    for stack in stacks:
        gathered.names += stack.named()
        parts += [stack.part] * len(stack.images)
        labels = [""] * len(stack.images) if stack.labels is None else stack.labels
        gathered.classes += [str(label) for label in labels]
    gathered.pictures = list(progress(pictures, "reading images", len(parts)))
    gathered.parts = known_parts(parts if all(parts) else None)
    return gathered


def from_files(path: Path, side: int) -> Gathered:
    """What a folder, tar or zip holds. Raises InputError that names all files that are no use."""
    read: list[tuple[Entry, Picture]] = []
    bad: list[str] = []
    table: dict[str, str] | None = None
    with collection(path) as held:
        for entry in progress(held.entries, "reading images"):
            try:
                content = entry.read()
                if entry.name.name == TABLE:
                    table = read_labels(content, path)
                    continue
                read.append((entry, read_picture(content, str(entry.name), side)))
            except UnreadableFile as error:
                bad.append(str(error))
        if bad:
            raise unusable(path, bad, len(held.entries))
        if not read:
            aside = f" (left aside: {held.aside_words})" if held.aside else ""
            raise InputError(f"{path} holds no image{aside}; {ALLOWED}")
        scales = rescale(read, side)

    read.sort(key=lambda item: item[0].order)
    gathered = Gathered([entry.name for entry, _ in read], [picture for _, picture in read])
    gathered.classes, gathered.parts = classes_and_parts(path, gathered.names, table)
    gathered.notes = [*scales, *aside_note(held)]
    return gathered


def aside_note(held: Collection) -> list[str]:
    """What was left aside in words, where something was."""
    return [f"left aside: {held.aside_words}"] if held.aside else []


def unusable(path: Path, bad: list[str], count: int) -> InputError:
    """The refusal of files that are no use: the first ten, and how many there are."""
    if len(bad) == 1:
        return InputError(f"{path}/{bad[0]}; {ADVICE}")
    more = f" | and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
    first = " | ".join(bad[:LISTED])
    return InputError(
        f"{path}: {len(bad)} of {count} files cannot be used: {first}{more}; {ADVICE}"
    )


def rescale(read: list[tuple[Entry, Picture]], side: int) -> list[str]:
    """Reads images without a scale of their own again, by the span of all; says how in words."""
    words = []
    for mode in ("I", "F"):
        rows = [row for row, (_, picture) in enumerate(read) if span_in(picture, mode)]
        spans = [span for row in rows if (span := read[row][1].span)]
        if not spans:
            continue
        span = spans[0]
        for other in spans[1:]:
            span = span.joined(other)
        for row in rows:
            entry = read[row][0]
            read[row] = entry, read_picture(entry.read(), str(entry.name), side, span)
        words.append(f"{len(rows)} of mode {mode}: {scale_words(span, whole=mode == 'I')}")
    return words


def span_in(picture: Picture, mode: str) -> bool:
    """Whether a picture is of a mode whose scale the whole set decides."""
    return picture.mode == mode and picture.span is not None


def read_words(
    name: str,
    gathered: Gathered,
    labels: np.ndarray | None,
    parts: np.ndarray | None,
    unique: int,
) -> str:
    """One sentence on what was read, and one on what was done to it and left out."""
    pictures = gathered.pictures
    modes = Counter(picture.mode for picture in pictures)
    kinds = ", ".join(f"{count:,} {mode}" for mode, count in modes.most_common())
    if labels is None:
        classes = "without labels"
    else:
        classes = f"in {len(set(labels.tolist()) - {UNLABELLED})} classes"
    words = [f"{name}: {len(pictures):,} images ({kinds}) {classes}"]
    if parts is not None:
        sizes = Counter(parts.tolist())
        own = ", ".join(f"{sizes[part]:,} {part}" for part in PARTS if sizes[part])
        drawn = [part for part in PARTS if not sizes[part]]
        rest = f", {' and '.join(drawn)} drawn from train" if drawn else ""
        words.append(f"parts as given ({own}{rest})")
    if unique < len(pictures):
        words.append(f"{len(pictures) - unique:,} exact duplicates left out")

    # what was done to some of them
    sixteen = [picture.sixteen for picture in pictures if picture.sixteen is not None]
    for count, done in (
        (sum(picture.turned for picture in pictures), "turned upright by EXIF"),
        (sum(picture.see_through for picture in pictures), "with transparency laid on white"),
        (sum(picture.frames for picture in pictures), "with several frames, the first taken"),
        (len(sixteen), "cut from 16 to 8 bits"),
    ):
        if count:
            words.append(f"{count:,} {done}")
    if sixteen and max(sixteen) < DARK:
        words.append(f"these reach {max(sixteen):,} of 65,535 and look dark: rescale them")
    return "; ".join(words + gathered.notes)


def first_of_each(pixels: np.ndarray) -> np.ndarray:
    """Rows int64, ascending, of the first image of each set of equal ones in (N, S, S, 3)."""
    flat = pixels.reshape(len(pixels), -1)
    whole = flat.view(f"V{pixels[0].nbytes}").ravel()  # one value per image
    _, first = np.unique(whole, return_index=True)
    return np.sort(first)


def classes_and_parts(
    path: Path, names: list[PurePosixPath], table: dict[str, str] | None
) -> tuple[list[str], np.ndarray | None]:
    """The class of each image, and its part (N,) where the user has made parts.

    Raises InputError where the table lacks an image, or where images lie beside the parts.
    """
    kinds, parts = layout_of(path, names)
    official = path.parent / OFFICIAL_LABELS
    if table is not None:
        kinds = [label_in(table, name, path) for name in names]
    elif path.name == ARCHIVE and official.exists():
        kinds = official_labels(official, names)
    return kinds, known_parts(parts)


def official_labels(file: Path, names: list[PurePosixPath]) -> list[str]:
    """The labels of jpg/image_00042.jpg and its like. Raises InputError where there are none."""
    try:
        labels = scipy.io.loadmat(file)["labels"].ravel()
        return [str(labels[int(name.stem.split("_")[1]) - 1]) for name in names]
    except (OSError, ValueError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"{file} does not hold the labels of the images beside it ({error}); remove one of them"
        ) from None


# --------------------------------------------------------------------------- what a step draws


@dataclass(frozen=True)
class Draws:
    """The random part of one training step of B images."""

    rows: Tensor  # int64 (B,), which images
    mirrored: Tensor  # bool (B,), whether they are mirrored
    times: Tensor  # float (B,) in [0, 1]
    noises: Tensor  # float (B, 3, S, S), standard normal
    shifts: Tensor  # int64 (B, 2), rows and columns by which they are shifted; zero for half
    unnamed: Tensor  # bool (B,), whether the network is not told their class

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> Draws:
        """Some of the images."""
        return Draws(*(drawn[part] for drawn in vars(self).values()))


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

    # what few trainings use is drawn last, so that the rest does not depend on it
    farthest = config.side // LARGEST_SHIFT
    shifts = torch.randint(-farthest, farthest + 1, (batch, 2), generator=generator, device=device)
    shifts *= torch.rand((batch, 1), generator=generator, device=device) < 0.5
    unnamed = torch.rand(batch, generator=generator, device=device) < UNNAMED
    return Draws(rows, mirrored, times, noises, shifts, unnamed)


def rows_of_step(seed: int, step: int, batch: int, count: int) -> np.ndarray:
    """Rows int64 (B,) in 0..count-1 of a step; each pass over the data has its own order."""
    places = step * batch + np.arange(batch)  # in the endless sequence of passes
    orders = {
        number: np.random.default_rng((seed, number)).permutation(count)
        for number in np.unique(places // count)
    }
    return np.array([orders[place // count][place % count] for place in places])
