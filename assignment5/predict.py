"""New images from a saved run: PNG files and one grid.

python assignment5/predict.py --n 18
python assignment5/predict.py --n 64 --sampler dpm++ --steps 10 --seed 3 --out flowers/
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from assignment5.config import check
from assignment5.diffusion import Sampler
from assignment5.figures import tile
from assignment5.models import load_denoiser
from assignment5.protocols import noise_set, sample
from common.cli import InputError, PathOrNone, entry, parse
from common.run import atomic_path, choose_device, newest_run

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config:
    """Samples new images."""

    run: PathOrNone = None
    """run folder (default: the newest finished one)"""
    out: PathOrNone = None
    """folder for the PNG files and grid.png (default: samples in the run folder)"""
    network: Literal["Transformer", "U-Net"] = "Transformer"
    n: int = 16
    """how many images"""
    sampler: Sampler = "ddim"
    steps: int = 20
    power: float = 1.0
    """exponent of the sampler's times: 1 steps evenly; with few steps less is better, see README.md"""
    eta: float = 0.0
    """noise put back at each DDIM step: 0 none, 1 as much as DDPM"""
    seed: int = 0
    """of the noise: the same seed gives the same images"""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        check(self)


def main(config: Config) -> np.ndarray:
    device, bfloat16 = choose_device(config.device)
    folder = config.run or newest_run(HERE / "results")
    model, about = load_denoiser(folder / f"model.{config.network}.safetensors", device)
    start = time.perf_counter()
    noises = noise_set(config.seed, config.n, about["config"]["side"])
    images = sample(
        model,
        noises,
        config.steps,
        config.sampler,
        config.eta,
        bfloat16 and about["bfloat16"],
        config.seed,
        power=config.power,
    )
    seconds = time.perf_counter() - start
    out = config.out or folder / "samples"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be made ({error.strerror}); give a writable folder"
        ) from None
    files = {f"{number:04d}.png": image for number, image in enumerate(images)}
    files["grid.png"] = tile(images, max(1, round(len(images) ** 0.5 * 1.4)))
    for name, pixels in files.items():
        with atomic_path(out / name) as temporary:
            Image.fromarray(pixels).save(temporary)
    print(f"{config.n} images by the {config.network} in {seconds:.1f} s: {out}")
    return images


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
