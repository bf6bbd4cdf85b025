"""Writes faces in the course's own format: codemaps.npy (N, 12, 12), labels.npy (N, 7) one-hot, codebook.npy (256, 128).

    python assignment1/encode.py --out codes/                      the data of the newest finished run
    python assignment1/encode.py --data fer2013.csv --out codes/   any labelled faces

usage.npy (N,) keeps which row is for training and which for testing; `train.py --source codemaps --data codes/` reads it all back.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Literal

import numpy as np

from assignment1 import data
from assignment1.vqvae import load_vqvae
from common.cli import InputError, PathOrNone, entry, parse
from common.run import atomic_path, choose_device, newest_run

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config:
    """Encodes labelled faces with the saved VQ-VAE of a run."""

    out: Path = Path("codemaps")
    """folder that the files are written into"""
    data: PathOrNone = None
    """labelled faces: FER csv, npz or folder (default: the data of the run)"""
    run: PathOrNone = None
    """run folder (default: the newest finished one)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"


def main(config: Config) -> dict[str, np.ndarray]:
    folder = config.run or newest_run(HERE / "results")
    vqvae = load_vqvae(folder / "vqvae.safetensors", choose_device(config.device)[0])
    if config.data is None:
        faces = data.load_again(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    else:
        faces = data.load_images(config.data, labelled=True)
    arrays = {
        "codemaps": vqvae.encode(faces.given),
        "labels": np.eye(len(faces.classes), dtype=np.uint8)[faces.truth],
        "codebook": vqvae.codebook.vectors.cpu().numpy(),
        "usage": faces.part,
    }
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            with atomic_path(config.out / f"{name}.npy") as temporary:
                np.save(temporary, array, allow_pickle=False)
    except OSError as error:
        raise InputError(f"--out {config.out} cannot be written ({error.strerror})") from None
    print(f"{len(faces)} code maps of {folder.name} are in {config.out}")
    return arrays


if __name__ == "__main__":
    entry(lambda: main(parse(Config, sys.argv[1:])))
