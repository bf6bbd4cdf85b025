"""The files below a folder or in an archive, by name; nothing is unpacked onto the disk."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar, cast

from common.cli import InputError

Archive = TypeVar("Archive", zipfile.ZipFile, tarfile.TarFile)

HIDDEN = {"__macosx", "thumbs.db", "desktop.ini", "@eadir"}  # beside names that begin with a dot
DEEPEST = 40  # folders inside each other
MOST_FOLDERS = 100_000
LARGEST = 2**31  # bytes of one file that is read at once
HEAD = 512  # bytes that tell what a file is
DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,  # a zip file with a password
    NotImplementedError,  # a compression that Python does not know
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    KeyError,
    IndexError,
)


@dataclass(frozen=True)
class Item:
    """One file: its name below the folder or in the archive (with "/"), size, and content."""

    name: str
    size: int
    read: Callable[[], bytes]

    @property
    def folders(self) -> list[str]:
        """The names of the folders that it stands in, the outermost first."""
        return self.name.split("/")[:-1]

    @property
    def ending(self) -> str:
        """Its ending in lower case with the dot, or ""."""
        return os.path.splitext(self.name)[1].lower()


@dataclass
class Listing:
    """What a folder or an archive holds, in the order in which reading it is fast."""

    place: Path
    items: list[Item] = field(default_factory=list)
    hidden: int = 0
    broken: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)

    @property
    def left_out(self) -> list[str]:
        """What is no file to read, in words."""
        words = []
        if self.hidden:
            words.append(f"hidden files or folders: {self.hidden:,}")
        if self.broken:
            words.append(f"links to nothing or in a circle: {some(self.broken)}")
        if self.special:
            words.append(f"devices or pipes: {some(self.special)}")
        return words


def some(names: list[str], most: int = 10) -> str:
    """The first names, and how many more there are."""
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def count(number: int, word: str) -> str:
    """A number of things: "1 face", "2 faces"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one of those that systems leave behind."""
    return name.startswith(".") or name.lower() in HIDDEN


def readable(name: str) -> str:
    """A name whose bytes may be no UTF-8, so that it can be printed and written."""
    return os.fsencode(name).decode("utf-8", "replace")


def whole(stream: IO[bytes], where: str) -> bytes:
    """The rest of a stream. Raises InputError where it is damaged or larger than LARGEST."""
    try:
        content = stream.read(LARGEST + 1)
    except DAMAGE as error:
        raise InputError(f"{where}: cannot be read ({reason(error)})") from None
    if len(content) > LARGEST:
        raise InputError(f"{where}: more than {LARGEST // 2**30} GiB; give a smaller file")
    return content


def reason(error: BaseException) -> str:
    """An error's own words on one line."""
    strerror = getattr(error, "strerror", None)
    return " ".join(str(strerror or error).split()) or type(error).__name__


# ------------------------------------------------------------------------------------ folders


def folder_listing(folder: Path) -> Listing:
    """The files below a folder, links followed, sorted.

    A link back to a folder that it lies in is named and not entered. Raises InputError for a
    folder that cannot be read, and for more folders than any data set has.
    """
    listing = Listing(folder)
    _Walk(listing).enter(str(folder), "", ())
    return listing


class _Walk:
    """One pass over a folder."""

    def __init__(self, listing: Listing):
        self.listing = listing
        self.folders = 0

    def enter(self, place: str, prefix: str, above: tuple[tuple[int, int], ...]) -> None:
        """Lists a folder; `above` are the device and inode of the folders that it lies in."""
        try:
            about = os.stat(place)
            with os.scandir(place) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(f"{readable(place)}: cannot be read ({error.strerror})") from None
        me = (about.st_dev, about.st_ino)
        self.folders += 1
        if me in above:
            self.listing.broken.append(prefix.rstrip("/"))
            return
        if len(above) >= DEEPEST or self.folders > MOST_FOLDERS:
            raise InputError(
                f"{self.listing.place}: more than {DEEPEST} folders inside each other or "
                f"{MOST_FOLDERS:,} in all; is there a link among them that leads back?"
            )
        for entry in entries:
            self.take(entry, prefix, (*above, me))

    def take(
        self, entry: os.DirEntry[str], prefix: str, above: tuple[tuple[int, int], ...]
    ) -> None:
        """Lists a file, enters a folder, and counts everything else."""
        name = prefix + readable(entry.name)
        if is_hidden(entry.name):
            self.listing.hidden += 1
            return
        try:
            about = entry.stat()
        except OSError:  # a link to nothing, or to itself
            self.listing.broken.append(name)
            return
        if stat.S_ISDIR(about.st_mode):
            self.enter(entry.path, name + "/", above)
        elif stat.S_ISREG(about.st_mode):
            path = Path(entry.path)
            self.listing.items.append(Item(name, about.st_size, lambda: read_file(path)))
        else:
            self.listing.special.append(name)


def read_file(path: Path) -> bytes:
    """The content of a file. Raises InputError for anything but a regular file."""
    check_regular(path)
    try:
        with open(path, "rb") as stream:
            return whole(stream, readable(str(path)))
    except OSError as error:
        raise InputError(f"{readable(str(path))}: cannot be read ({error.strerror})") from None


def check_regular(path: Path) -> None:
    """Raises InputError for a device, a pipe or a socket, which might never end."""
    try:
        about = path.stat()
    except OSError as error:
        raise InputError(f"{readable(str(path))}: cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(about.st_mode):
        raise InputError(f"{path}: neither a file nor a folder (a device or a pipe)")


# ----------------------------------------------------------------------------------- archives


def head_of(path: Path) -> bytes:
    """The first bytes of a regular file. Raises InputError."""
    check_regular(path)
    try:
        with open(path, "rb") as stream:
            return stream.read(HEAD)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def is_tar(head: bytes) -> bool:
    """Whether the first bytes are those of a tar archive."""
    return head[257:262] == b"ustar"


@contextlib.contextmanager
def unpressed(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file that may be compressed by gzip, bzip2 or xz."""
    head = head_of(path)
    kinds = ((b"\x1f\x8b", gzip.GzipFile), (b"BZh", bz2.BZ2File), (b"\xfd7zXZ\x00", lzma.LZMAFile))
    opener = next((kind for magic, kind in kinds if head.startswith(magic)), io.FileIO)
    with opener(path) as stream:
        yield cast(IO[bytes], stream)


@contextlib.contextmanager
def archive_listing(path: Path) -> Iterator[Listing | None]:
    """The files of a zip or tar archive, which stay readable inside the block; None for others.

    Raises InputError for an archive that is damaged.
    """
    head = head_of(path)
    with unpressed(path) as stream:
        try:
            first = stream.read(HEAD)
            stream.seek(0)
        except DAMAGE as error:
            raise InputError(f"{path}: cannot be unpacked ({reason(error)})") from None
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            with opened(path, lambda: zipfile.ZipFile(stream)) as archive:
                yield zip_listing(path, archive)
        elif is_tar(first):
            with opened(path, lambda: tarfile.open(fileobj=stream, mode="r:")) as archive:
                yield tar_listing(path, archive)
        else:
            yield None


def opened(path: Path, opener: Callable[[], Archive]) -> Archive:
    """An archive. Raises InputError where it is damaged."""
    try:
        return opener()
    except DAMAGE as error:
        raise InputError(f"{path}: not a whole archive ({reason(error)})") from None


def zip_listing(path: Path, archive: zipfile.ZipFile) -> Listing:
    """The files of a zip archive, sorted."""
    listing = Listing(path)
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        if not info.is_dir():
            take_member(
                listing, info.filename, info.file_size, functools.partial(archive.open, info)
            )
    return listing


def tar_listing(path: Path, archive: tarfile.TarFile) -> Listing:
    """The files of a tar archive in its own order: going back would unpack it from the start."""
    listing = Listing(path)
    try:
        members = archive.getmembers()
    except DAMAGE as error:
        raise InputError(f"{path}: not a whole archive ({reason(error)})") from None
    for member in members:
        if member.isreg() and not member.issparse():
            take_member(
                listing, member.name, member.size, functools.partial(extracted, archive, member)
            )
        elif not member.isdir():
            listing.special.append(readable(member.name))
    return listing


def extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """The content of a regular member."""
    stream = archive.extractfile(member)
    if stream is None:
        raise OSError("not a regular file")
    return stream


def take_member(
    listing: Listing, filename: str, size: int, opener: Callable[[], IO[bytes]]
) -> None:
    """Lists a file of an archive, or counts it where it is hidden."""
    name = readable(filename).replace("\\", "/").removeprefix("./")
    if any(is_hidden(word) for word in name.split("/") if word != ".."):
        listing.hidden += 1
        return

    def read() -> bytes:
        where = f"{listing.place}: {name}"
        if size > LARGEST:
            raise InputError(f"{where}: more than {LARGEST // 2**30} GiB; give a smaller file")
        try:
            with opener() as stream:
                return whole(stream, where)
        except DAMAGE as error:
            raise InputError(f"{where}: cannot be read ({reason(error)})") from None

    listing.items.append(Item(name, size, read))
