"""Samples new images from a saved run: PNG files and one grid.

    python assignment5/predict.py --n 18
    python assignment5/predict.py --n 64 --sampler dpm++ --steps 10 --seed 3 --out flowers/
    python assignment5/predict.py --n 9 --seed 3 --to-seed 8            # a way between two images
    python assignment5/predict.py --init-image mine.jpg --mask white-where-to-paint.png
    python assignment5/predict.py --run RUN --class sunflower --count 16 --guidance 2

Seconds on two cores.
"""

from __future__ import annotations

from assignment5.config import PredictConfig, Wish
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(PredictConfig)

import difflib
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from assignment5.collection import UnreadableFile
from assignment5.denoiser import DenoiserConfig, load_denoiser
from assignment5.figures import tile
from assignment5.pixels import read_image
from assignment5.sampling import Request, Sketch, noise_set, sample, sphere
from common.cli import InputError, check_writable
from common.files import atomic_path
from common.machine import choose_device
from common.run import SavedRun

HERE = Path(__file__).resolve().parent


def label_of(config: PredictConfig, known: DenoiserConfig) -> int | None:
    """The label of --class. Raises InputError for a class that the network does not know."""
    if config.kind is None:
        if config.guidance != 1 and not known.class_names:
            raise InputError("--guidance: the run was trained without --classes; leave it out")
        return None
    if not known.class_names:
        raise InputError(f"--class {config.kind}: the run was trained without --classes")
    names = [name.lower() for name in known.class_names]
    if config.kind.lower() not in names:
        near = difflib.get_close_matches(config.kind.lower(), names, 5) or names[:5]
        raise InputError(f"--class {config.kind} is none of {len(names)}; near: {', '.join(near)}")
    return names.index(config.kind.lower())


def sketch_of(config: PredictConfig, side: int) -> Sketch | None:
    """--init-image and --mask at side x side. Raises InputError for files that are no pictures."""
    if config.init_image is None or config.mask is None:
        return None
    arrays = []
    for path in (config.init_image, config.mask):
        try:
            arrays.append(np.array(read_image(path.read_bytes(), str(path), side)[0]))
        except (UnreadableFile, OSError) as error:
            raise InputError(f"{path} cannot be read as a picture ({error})") from None
    picture, mask = (torch.from_numpy(array).permute(2, 0, 1)[None] / 255 for array in arrays)
    kept = mask.mean(1, keepdim=True) < 0.5
    if kept.all():
        raise InputError(f"--mask {config.mask} is white nowhere; nothing is to be painted")
    return Sketch(picture, kept)


def noises_of(config: PredictConfig, side: int) -> Tensor:
    """The noises (N, 3, S, S): of --seed, or on the way from there to --to-seed."""
    if config.to_seed is None:
        return noise_set(config.seed, config.n, side)
    start, end = (noise_set(seed, 1, side)[0] for seed in (config.seed, config.to_seed))
    return sphere(start, end, config.n)


def main(config: PredictConfig) -> np.ndarray:
    """Samples and writes images; returns them, uint8 (N, S, S, 3)."""
    # Load the network:
    device = choose_device(config.device)
    saved = SavedRun.open(config.run, HERE / "results")
    denoiser = load_denoiser(saved.folder / f"model.{config.network}.safetensors", device)
    side = denoiser.config.side
    wish = Wish(label_of(config, denoiser.config), config.guidance)
    request = Request(wish, sketch_of(config, side))
    out = config.out or saved.folder / "samples"
    check_writable("--out", out)

    # Sample:
    start = time.perf_counter()
    images = sample(
        denoiser.model,
        noises_of(config, side),
        config.sampling,
        denoiser.bfloat16,
        config.seed,
        request=request,
    )
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
