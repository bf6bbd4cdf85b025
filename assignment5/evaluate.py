"""Scores a finished run's denoisers again, and draws all of its figures again.

    python assignment5/evaluate.py
    python assignment5/evaluate.py --part validation --sampler ddim heun dpm++ --steps 5 10 20 50
    python assignment5/evaluate.py --data more_flowers/ --steps 5 20 50

Without --data the samples are scored against the run's own held-out images, with it against images
that the networks have not seen. A few minutes on two cores.
"""

from __future__ import annotations

from assignment5.config import NETWORKS, SCORED_AT_LEAST, EvaluateConfig, Sampling
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(EvaluateConfig)

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from assignment5 import data
from assignment5.data import Images
from assignment5.denoiser import load_denoiser
from assignment5.evaluation import METRICS_INFO, judges_of, print_scores, sampled_rows
from assignment5.feature_net import inception_spaces, load_feature_space
from assignment5.figures import draw_evaluations, draw_figures
from assignment5.sampling import NoiseSets
from common.cli import InputError
from common.machine import choose_device
from common.report import compile_report
from common.results import Results, write_evaluation
from common.run import SavedRun

HERE = Path(__file__).resolve().parent
NEEDED = ("metrics.json", "metrics.csv", "pictures.npz", "distances.npz")


@dataclass(frozen=True)
class Real:
    """Images uint8 (N, S, S, 3) to score against, and the training part where it is at hand."""

    pixels: np.ndarray
    split: str
    train: np.ndarray | None


def judged_images(config: EvaluateConfig, saved: SavedRun, side: int) -> tuple[Images, Real]:
    """The images of --data or of the run, and what of them is scored against.

    Raises InputError as `data.load`, and for fewer images than the scores need.
    """
    if config.data is not None:
        images = data.load("folder", config.data, side)
        real = Real(images.pixels, "test", None)
    else:
        images = data.load_again(saved.record)
        parts = data.split(len(images), saved.config["seed"]).of(images)
        real = Real(getattr(parts, config.part), config.part, parts.train)
    if len(real.pixels) < SCORED_AT_LEAST:
        name = images.provenance.get("path", images.source)
        raise InputError(
            f"{name} holds {len(real.pixels)} images to score against; "
            f"at least {SCORED_AT_LEAST} are needed"
        )
    return images, real


def main(config: EvaluateConfig) -> Results:
    """Scores the networks of a run; returns what the json file holds."""
    # Open the run: networks and spaces of features:
    saved = SavedRun.open(config.run, HERE / "results", NEEDED)
    folder = saved.folder
    device = choose_device(config.device)
    spaces = [load_feature_space(folder / "features.safetensors", device.name)]
    spaces += inception_spaces(config.inception, device.name)
    denoisers = [
        load_denoiser(folder / f"model.{network}.safetensors", device) for network in NETWORKS
    ]
    side = denoisers[0].config.side
    images, real = judged_images(config, saved, side)

    # Score every network by every sampler and number of steps:
    judges = judges_of(spaces, real.pixels, real.split, real.train)
    noises = NoiseSets(config.seeds, config.samples, side)
    rows = []
    for denoiser in denoisers:
        for sampler in config.sampler:
            for steps in config.steps:
                sampling = Sampling(sampler, steps, config.power)
                rows += sampled_rows(denoiser, sampling, noises, judges)

    # Record the scores, and draw them and the run's own figures:
    name = config.part if config.data is None else config.data.name.split(".")[0]
    out = config.out or folder / f"evaluation-{name}.json"
    about = {"folder": folder.name, "data": images.provenance, "images": len(real.pixels)}
    results = write_evaluation(out, about, METRICS_INFO, rows)
    record = {**saved.record, "source": images.source, "data": images.provenance}
    table = pd.DataFrame(results["rows"])
    draw_evaluations(out.with_suffix(".png"), record, table, denoisers[0].recipe, config.power)
    draw_figures(folder)
    compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    print_scores(results["rows"], real.split)
    print(f"\nwritten: {out}")
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
