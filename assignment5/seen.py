"""Which images a run was trained on, and which it was chosen on: digests of their pixels.

Shape letters: N images, S side.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.cli import InputError
from common.files import write_arrays

FILE = "seen.npz"


def digest_of(pixels: np.ndarray) -> str:
    """sha256 of images uint8 (N, S, S, 3) in their order."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def digests(pixels: np.ndarray) -> np.ndarray:
    """uint64 (N,): eight bytes that stand for each image of uint8 (N, S, S, 3)."""
    words = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in pixels]
    return np.frombuffer(b"".join(words), np.uint64)


@dataclass(frozen=True)
class Seen:
    """Digests uint64 of the images that a run was trained on, and of those it was chosen on."""

    train: np.ndarray
    validation: np.ndarray

    @classmethod
    def of(cls, train: np.ndarray, validation: np.ndarray) -> Seen:
        """Those of two parts uint8 (N, S, S, 3)."""
        return cls(digests(train), digests(validation))

    def save(self, folder: Path) -> None:
        """Writes them into a run folder."""
        write_arrays(folder / FILE, train=self.train, validation=self.validation)

    @classmethod
    def load(cls, folder: Path) -> Seen:
        """Those of a run folder. Raises InputError for a damaged file."""
        try:
            with open(folder / FILE, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                train, validation = file["train"], file["validation"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{folder / FILE} is damaged ({error}); copy it again") from None
        if train.dtype != np.uint64 or validation.dtype != np.uint64:
            raise InputError(f"{folder / FILE} holds no digests of images; copy it again")
        return cls(train, validation)
