"""What the tests of assignment 5 share: a tiny config, sample files and trainings without a run."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
from PIL import Image

from assignment5.config import NETWORKS, Config, Job, Network
from assignment5.data import Parts
from assignment5.denoiser import Trained
from assignment5.synthetic import draw_flowers
from assignment5.train import train
from common.files import StateDict
from common.machine import Device
from common.run import Run

TINY = dataclasses.replace(
    Config.of_preset("smoke"), source="synthetic", precision="float32", device="cpu"
)
CPU = Device("cpu", bfloat16=False)


def tiny_parts() -> Parts:
    """Forty drawn flowers to train on, six of them to watch."""
    pixels, _ = draw_flowers(40, TINY.side, 0)
    return Parts(pixels, pixels[:6], pixels[:6])


def train_tiny(config: Config, folder: Path, network: Network = NETWORKS[0]) -> Trained:
    """A network trained by a config in a run of its own."""
    with Run(config, folder, __file__, "synthetic", {}) as run:
        return train(Job("x", network, "tuned", config), run, tiny_parts(), CPU)


def same_weights(one: StateDict, other: StateDict) -> bool:
    """Whether two networks are equal to the bit."""
    return all(bool((one[name] == other[name]).all()) for name in one)


def png(side: int = 40, mode: str = "RGB", seed: int = 0) -> bytes:
    """A PNG file of random pixels, a little wider than high."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 9, 4), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "PNG")
    return stream.getvalue()


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """An image file of an array."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def noise(count: int, side: int = 20) -> np.ndarray:
    """Different images uint8 (count, side, side, 3)."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def write_tree(folder: Path, *names: str) -> Path:
    """Different PNG images under these names, whatever their endings."""
    for name, pixels in zip(names, noise(len(names)), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(pixels))
    return folder


def write_flowers(folder: Path, count: int, seed: int = 0) -> Path:
    """A folder of drawn flowers of 16 x 16 pixels."""
    folder.mkdir()
    for number, image in enumerate(draw_flowers(count, 16, seed)[0]):
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    return folder
