"""The files of images in a folder, a tar or a zip, and a count of what is left aside.

Links are followed, and each folder is read once however many links lead to it. Nothing is unpacked.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import stat
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from common.cli import InputError

ENDINGS = {
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}
ALLOWED = f"allowed are {', '.join(sorted(ENDINGS))}"
FORMATS = "a folder, tar, zip or npz of images"
TABLE = "labels.csv"
SYSTEM = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "$RECYCLE.BIN", "lost+found"}
LARGEST = 2**30  # bytes of one file
LISTED = 8  # kinds of files left aside that are named

# what is left aside
HIDDEN = "hidden or a system's own"
AGAIN = "links to folders that are read already"
SPECIAL = "devices, pipes and broken links"

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
TarMode: TypeAlias = Literal["r:", "r:gz", "r:bz2", "r:xz"]
COMPRESSIONS: dict[bytes, TarMode] = {
    b"\x1f\x8b": "r:gz",
    b"BZh": "r:bz2",
    b"\xfd7zXZ": "r:xz",
    b"\x5d\x00\x00": "r:xz",
}
DAMAGE = (  # what the libraries raise for a damaged archive or array
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,  # an encrypted zip, or a compression that zipfile does not know
    OverflowError,
    MemoryError,
    SyntaxError,  # (the header of an array is a literal of Python)
    tokenize.TokenError,
    KeyError,
    TypeError,
)


class UnreadableFile(InputError):
    """A mistake in one of many files, after which the others can still be read."""


@dataclass(frozen=True)
class Entry:
    """One file: its name below the root, its place in the order, and how to read its bytes.

    Reading raises UnreadableFile, or InputError where the whole archive is damaged.
    """

    name: PurePosixPath
    order: PurePosixPath | str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Collection:
    """The wanted files, in the order in which they are read fastest, and the others by kind."""

    entries: list[Entry] = field(default_factory=list)
    aside: Counter[str] = field(default_factory=Counter)

    def add(
        self, name: PurePosixPath, order: PurePosixPath | str, read: Callable[[], bytes]
    ) -> None:
        """Takes a file that is an image or the table of labels, and counts any other."""
        if is_hidden(name):
            self.aside[HIDDEN] += 1
        elif name.suffix.lower() in ENDINGS or name.name == TABLE:
            self.entries.append(Entry(name, order, read))
        else:
            self.aside[name.suffix.lower() or "without an ending"] += 1

    @property
    def aside_words(self) -> str:
        """What was left aside: "3 hidden or a system's own, 2 .txt"; empty where nothing was."""
        kinds = [f"{count:,} {kind}" for kind, count in self.aside.most_common()]
        more = len(kinds) - LISTED
        rest = [f"{more} kinds more"] if more > 0 else []
        return ", ".join(kinds[:LISTED] + rest)


def is_hidden(name: PurePosixPath) -> bool:
    """Whether a part of the name begins with a dot or is what an operating system leaves."""
    return any(part.startswith(".") or part in SYSTEM for part in name.parts)


def check_kind(path: Path) -> None:
    """Raises InputError for a device, a pipe or a socket, which would never end."""
    if not path.is_dir() and not path.is_file():
        raise InputError(f"{path} is no regular file and no folder; give {FORMATS}")


@contextlib.contextmanager
def collection(path: Path) -> Iterator[Collection]:
    """Yields what a folder or archive holds; entries can be read inside the block.

    Raises InputError where the path is neither, is damaged, or holds names that point out of it.
    """
    check_kind(path)
    if path.is_dir():
        yield in_folder(path)
        return
    head = first_bytes(path)
    if head.startswith(ZIP):
        with contextlib.ExitStack() as stack:
            with readable(path, "zip"):
                archive = stack.enter_context(zipfile.ZipFile(path))
            yield in_zip(path, archive)
        return
    if path.suffix.lower() in ENDINGS:
        raise InputError(f"{path} is a single image; give {FORMATS}")
    if head and not any(head):
        raise InputError(f"{path} begins with zeros: it was not written to its end; copy it again")
    modes = [mode for start, mode in COMPRESSIONS.items() if head.startswith(start)]
    with contextlib.ExitStack() as stack:
        with readable(path, "tar"):
            tar = stack.enter_context(tarfile.open(path, modes[0] if modes else "r:"))
        yield in_tar(path, tar)


def first_bytes(path: Path) -> bytes:
    """The first block of a file. Raises InputError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(512)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None


@contextlib.contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Turns what the libraries raise for a damaged archive into one line."""
    try:
        yield
    except DAMAGE as error:
        raise InputError(f"{path} is not a readable {kind} ({error}); give {FORMATS}") from None


# --------------------------------------------------------------------------------------- folders


def in_folder(root: Path) -> Collection:
    """What lies below a folder.

    Folders in their own place come before those that links lead to, and each is read once, so that
    links in a circle end. Raises InputError for a folder that may not be read.
    """
    found = Collection()
    places: deque[tuple[Path, PurePosixPath]] = deque([(root, PurePosixPath())])
    links: deque[tuple[Path, PurePosixPath]] = deque()
    entered: set[tuple[int, int]] = set()
    while places or links:
        place, below = places.popleft() if places else links.popleft()
        try:
            status = place.stat()
            items = sorted(os.scandir(place), key=lambda item: item.name)
        except OSError as error:
            raise InputError(f"{place} cannot be read ({error.strerror})") from None
        if (status.st_dev, status.st_ino) in entered:
            found.aside[AGAIN] += 1
            continue
        entered.add((status.st_dev, status.st_ino))

        for item in items:
            path = Path(item.path)
            name = below / item.name
            if is_hidden(name):
                found.aside[HIDDEN] += 1
            elif path.is_dir():  # (also at the end of a link)
                (links if item.is_symlink() else places).append((path, name))
            elif path.is_file():
                found.add(name, name, file_reader(path, name))
            else:
                found.aside[SPECIAL] += 1
    found.entries.sort(key=lambda entry: entry.name)
    return found


def file_reader(path: Path, name: PurePosixPath) -> Callable[[], bytes]:
    """How to read one file of a folder."""

    def read() -> bytes:
        try:
            check_size(name, path.stat().st_size)
            return path.read_bytes()
        except OSError as error:
            raise UnreadableFile(f"{name} cannot be read ({error.strerror})") from None

    return read


def check_size(name: object, size: int) -> None:
    """Raises UnreadableFile for a file that is too large to be an image."""
    if size > LARGEST:
        raise UnreadableFile(f"{name} has {size:,} bytes; at most {LARGEST:,} are read of one file")


# -------------------------------------------------------------------------------------- archives


def inner_name(path: Path, name: str) -> PurePosixPath:
    """A member's name below the root. Raises InputError where it points out of the archive."""
    inner = PurePosixPath(name.replace("\\", "/"))
    if inner.is_absolute() or ".." in inner.parts:
        raise points_out(path, name)
    return inner


def points_out(path: Path, name: str) -> InputError:
    """The refusal of a member that names a place outside."""
    return InputError(
        f"{path}: {name} points out of the archive; only plain relative files are allowed"
    )


def in_tar(path: Path, tar: tarfile.TarFile) -> Collection:
    """What a tar holds; links are followed to files of the same tar."""
    found = Collection()
    with readable(path, "tar"):
        members = tar.getmembers()
    places = {PurePosixPath(member.name): member for member in members}
    for member in members:
        name = inner_name(path, member.name)
        if member.issym() or member.islnk():
            if is_hidden(name):
                found.aside[HIDDEN] += 1
                continue
            found.add(name, member.name, tar_reader(path, tar, linked(path, member, places)))
        elif member.isfile():
            found.add(name, member.name, tar_reader(path, tar, member))
        elif not member.isdir():
            found.aside[SPECIAL] += 1
    return found


def linked(
    path: Path, member: tarfile.TarInfo, places: dict[PurePosixPath, tarfile.TarInfo]
) -> tarfile.TarInfo:
    """The file of the same tar that a link leads to.

    Raises InputError for a link to anything else: what lies behind it would be missing unnoticed.
    """
    start = PurePosixPath(member.name).parent if member.issym() else PurePosixPath()
    target = PurePosixPath(os.path.normpath(start / member.linkname))
    if target.is_absolute() or ".." in target.parts:
        raise points_out(path, member.name)
    aim = places.get(target)
    if aim is None or not aim.isfile():
        raise InputError(
            f"{path}: {member.name} is a link to {member.linkname}, which is no file of the "
            "archive; pack the files themselves (tar --dereference)"
        )
    return aim


def tar_reader(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    """How to read one file of a tar."""

    def read() -> bytes:
        check_size(member.name, member.size)
        with readable(path, "tar"):
            content = tar.extractfile(member)
            return b"" if content is None else content.read()

    return read


def in_zip(path: Path, archive: zipfile.ZipFile) -> Collection:
    """What a zip holds."""
    found = Collection()
    for member in archive.infolist():
        name = inner_name(path, member.filename)
        if member.is_dir():
            continue
        if stat.S_ISLNK(member.external_attr >> 16) and not is_hidden(name):
            raise InputError(
                f"{path}: {member.filename} is a link; pack the files themselves "
                "(zip without --symlinks)"
            )
        found.add(name, member.filename, zip_reader(archive, member))
    return found


def zip_reader(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], bytes]:
    """How to read one file of a zip."""

    def read() -> bytes:
        check_size(member.filename, member.file_size)
        try:
            return archive.read(member)
        except DAMAGE as error:
            raise UnreadableFile(f"{member.filename} cannot be unpacked ({error})") from None

    return read
