"""Writes faces in the course's own format: code maps, one-hot labels and the codebook.

    python assignment1/encode.py --out codes/                      the data of the newest run
    python assignment1/encode.py --data fer2013.csv --out codes/   any labelled faces

codemaps.npy (N, 12, 12), labels.npy (N, 7), codebook.npy (256, 128), and usage.npy (N,), which
says what each row is for; `train.py --source codemaps --data codes/` reads them back.
"""

from __future__ import annotations

from assignment1.config import EncodeConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(EncodeConfig)

from pathlib import Path

import numpy as np

from assignment1.artifacts import VQVAE_FILE
from assignment1.data import load_images
from assignment1.saved import damaged, own_faces
from assignment1.vqvae import load_vqvae
from common.cli import InputError
from common.files import atomic_path
from common.machine import choose_device
from common.run import SavedRun, announce

HERE = Path(__file__).resolve().parent


def main(config: EncodeConfig) -> dict[str, np.ndarray]:
    if (config.out / "codemaps.npy").exists():
        raise InputError(f"--out {config.out} holds code maps already; name another folder")
    saved = SavedRun.open(config.run, HERE / "results", needs=("metrics.json", VQVAE_FILE))
    vqvae = load_vqvae(saved.folder / VQVAE_FILE, choose_device(config.device).name)
    faces = own_faces(saved) if config.data is None else load_images(config.data, labelled=True)
    announce(faces.provenance)

    with damaged(saved.folder / VQVAE_FILE):
        codemaps = vqvae.encode(faces.given)
    arrays = {
        "codemaps": codemaps,
        "labels": np.eye(len(faces.classes), dtype=np.uint8)[faces.truth],
        "codebook": vqvae.codebook.vectors.cpu().numpy(),
        "usage": faces.part,
    }
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {config.out} cannot be written ({error.strerror})") from None
    for name, array in arrays.items():
        with atomic_path(config.out / f"{name}.npy") as temporary:
            np.save(temporary, array, allow_pickle=False)
    print(f"{len(faces)} code maps of {saved.folder.name} are in {config.out}")
    return arrays


if __name__ == "__main__":
    entry(main, OPTIONS)
