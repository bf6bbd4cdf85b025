"""Samples new images from a saved run: PNG files and one grid.

    python assignment5/predict.py --n 18
    python assignment5/predict.py --n 64 --sampler dpm++ --steps 10 --seed 3 --out flowers/

Seconds on two cores.
"""

from __future__ import annotations

from assignment5.config import PredictConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(PredictConfig)

import time
from pathlib import Path

import numpy as np
from PIL import Image

from assignment5.denoiser import load_denoiser
from assignment5.figures import tile
from assignment5.sampling import noise_set, sample
from common.cli import InputError, check_writable
from common.files import atomic_path
from common.machine import choose_device
from common.run import SavedRun

HERE = Path(__file__).resolve().parent


def main(config: PredictConfig) -> np.ndarray:
    """Samples and writes images; returns them, uint8 (N, S, S, 3)."""
    # Load the network:
    device = choose_device(config.device)
    saved = SavedRun.open(config.run, HERE / "results")
    denoiser = load_denoiser(saved.folder / f"model.{config.network}.safetensors", device)
    out = config.out or saved.folder / "samples"
    check_writable("--out", out)

    # Sample:
    start = time.perf_counter()
    noises = noise_set(config.seed, config.n, denoiser.config.side)
    images = sample(denoiser.model, noises, config.sampling, denoiser.bfloat16, config.seed)
    seconds = time.perf_counter() - start

    # Write one file per image, and the grid:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be made ({error.strerror}); give a writable folder"
        ) from None
    files = {f"{number:04d}.png": image for number, image in enumerate(images)}
    files["grid.png"] = tile(images, columns=max(1, round(len(images) ** 0.5 * 1.4)))
    for name, pixels in files.items():
        with atomic_path(out / name) as temporary:
            Image.fromarray(pixels).save(temporary)
    print(f"{config.n} images by the {config.network} in {seconds:.1f} s: {out}")
    return images


if __name__ == "__main__":
    entry(main, OPTIONS)
