"""Scores a finished run's denoisers again, and draws all of its figures again.

    python assignment5/evaluate.py
    python assignment5/evaluate.py --part validation --sampler ddim heun dpm++ --steps 5 10 20 50
    python assignment5/evaluate.py --data more_flowers.zip --steps 5 20 50

Without --data the samples are scored against the run's own held-out images, with it against those
of the given images that the networks were neither trained nor chosen on. With --data or --out
nothing of the run is drawn again. Where the run's own images are at hand, images of known quality
are scored too, and how rightly each measure orders them. A few minutes on two cores.
"""

from __future__ import annotations

from assignment5.config import GIVEN, NETWORKS, SCORED_AT_LEAST, EvaluateConfig, Sampling
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(EvaluateConfig)

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import typst

from assignment5 import data
from assignment5.artifacts import closest_pairs
from assignment5.dcgan import load_dcgan
from assignment5.denoiser import Denoiser, load_denoiser
from assignment5.evaluation import (
    METRICS_INFO,
    Judge,
    calibration_rows,
    gan_rows,
    judges_of,
    print_scores,
    sampled_rows,
)
from assignment5.feature_net import imagenet_spaces, inception_spaces, load_own_space
from assignment5.figures import Drawable, damaged, draw_closest, draw_evaluations, draw_figures
from assignment5.sampling import NoiseSets
from assignment5.seen import FILE, Seen, digests
from common.cli import InputError
from common.figures import source_line
from common.files import JsonObject, read_json
from common.machine import Device, choose_device
from common.report import compile_report
from common.results import Results, Row, write_results
from common.run import SavedRun, announce, progress

HERE = Path(__file__).resolve().parent
NEEDED = ("metrics.json", "metrics.csv", "pictures.npz", "distances.npz")


@dataclass(frozen=True)
class Real:
    """Images uint8 (N, S, S, 3) to score against, and the run's other parts where they are at hand.

    `split` names them in rows, `other` is the held-out part that they are not.
    """

    pixels: np.ndarray
    split: str
    train: np.ndarray | None
    source: str
    provenance: JsonObject
    left_out: dict[str, int] | None = None
    other: np.ndarray | None = None


def own_part(saved: SavedRun, part: str, side: int) -> Real:
    """A held-out part of the run's own images. Raises InputError as `data.load_again`."""
    images = data.load_again(saved, side)
    announce(images.provenance)
    parts = data.split_again(saved, images)
    other = parts.validation if part == "test" else parts.test
    return Real(
        getattr(parts, part), part, parts.train, images.source, images.provenance, other=other
    )


def given_images(saved: SavedRun, path: Path, side: int) -> Real:
    """The images of --data, less those that the run was trained or chosen on; says how many.

    Raises InputError as `data.load`.
    """
    images = data.load("folder", path, side)
    announce(images.provenance)
    seen = seen_by(saved, side)
    if seen is None:
        return Real(images.pixels, GIVEN, None, images.source, images.provenance)
    marks = digests(images.pixels)
    trained = np.isin(marks, seen.train)  # (N,)
    chosen = np.isin(marks, seen.validation) & ~trained
    if (trained | chosen).any():
        print(
            f"{trained.sum():,} of {len(images):,} images were trained on and {chosen.sum():,} "
            f"chosen on (the same pixels at {side} x {side}); they are left out",
            flush=True,
        )
    return Real(
        images.pixels[~(trained | chosen)],
        GIVEN,
        None,
        images.source,
        images.provenance,
        {"trained_on": int(trained.sum()), "chosen_on": int(chosen.sum())},
    )


def seen_by(saved: SavedRun, side: int) -> Seen | None:
    """What the run was trained and chosen on, by its file or by its own images.

    None, with a notice, where neither is at hand.
    """
    if (saved.folder / FILE).exists():
        return Seen.load(saved.folder)
    try:
        images = data.load_again(saved, side)
    except InputError as error:
        print(
            f"notice: {saved.folder} has no {FILE} and its own images are not here ({error}); "
            "images that it was trained on are not left out",
            file=sys.stderr,
        )
        return None
    parts = data.split_again(saved, images)
    return Seen.of(parts.train, parts.validation)


def check_enough(real: Real) -> None:
    """Raises InputError for fewer images than the scores need."""
    if len(real.pixels) >= SCORED_AT_LEAST:
        return
    name = real.provenance.get("path", real.source)
    seen = sum((real.left_out or {}).values())
    known = f", of which the run has seen {seen}" if seen else ""
    raise InputError(
        f"{name} holds {len(real.pixels) + seen} images to score against{known}; "
        f"at least {SCORED_AT_LEAST} that are new are needed"
    )


def evaluation_file(config: EvaluateConfig, folder: Path, provenance: JsonObject) -> Path:
    """Where the scores go: --out, else a file of its own in the run folder for each set of images.

    Raises InputError where --out would replace another kind of file.
    """
    if config.out is not None:
        if config.out.exists() and digest_in(config.out) is None:
            raise InputError(f"--out {config.out} is there and holds no scores; name another file")
        return config.out
    if config.data is None:
        return folder / f"evaluation-{config.part}.json"
    stem = config.data.resolve().name.split(".")[0] or "data"
    if stem in ("validation", "test"):  # the names of the run's own parts
        stem = f"{GIVEN}-{stem}"
    file = folder / f"evaluation-{stem}.json"
    digest = str(provenance["pixels_sha256"])
    if file.exists() and digest_in(file) != digest:  # of other images in a file of the same name
        return folder / f"evaluation-{stem}-{digest[:8]}.json"
    return file


def digest_in(file: Path) -> str | None:
    """The digest of the images that a file of scores is about, None for a file of another kind."""
    try:
        about = read_json(file)["run"]
        return str(about["data"].get("pixels_sha256", "")) if "folder" in about else None
    except (InputError, KeyError, TypeError, AttributeError):
        return None


def scored(config: EvaluateConfig, denoisers: list[Denoiser], judges: list[Judge]) -> list[Row]:
    """The rows of every network by every sampler and number of steps."""
    noises = NoiseSets(config.seeds, config.samples, denoisers[0].config.side)
    cells = [
        (denoiser, Sampling(sampler, steps, config.power))
        for denoiser in denoisers
        for sampler in config.sampler
        for steps in config.steps
    ]
    rows: list[Row] = []
    for denoiser, sampling in progress(cells, "networks and samplers scored"):
        rows += sampled_rows(denoiser, sampling, noises, judges)
    return rows


def yardstick_rows(config: EvaluateConfig, real: Real, judges: list[Judge]) -> list[Row]:
    """Rows of images of known quality, where the run's own images that make them are at hand."""
    if real.train is None or real.other is None:
        return []
    return calibration_rows(judges, real.train, real.other, config.seeds, config.samples)


def draw_again(folder: Path) -> None:
    """Draws a run's figures and report. Raises InputError where run.json lacks what it needs."""
    draw_figures(folder)
    try:
        compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    except typst.TypstError as error:
        raise InputError(
            f"{folder}: the report cannot be made of run.json and metrics.json ({error}); the "
            "scores are written"
        ) from None


def networks_of(saved: SavedRun, device: Device) -> list[Denoiser]:
    """The saved denoisers of a run. Raises InputError where they are not of one run."""
    denoisers = [
        load_denoiser(saved.folder / f"model.{network}.safetensors", device) for network in NETWORKS
    ]
    sides = [denoiser.config.side for denoiser in denoisers]
    if len(set(sides)) > 1:
        raise InputError(f"{saved.folder}: its models draw images of sides {sides}; name a run")
    return denoisers


def main(config: EvaluateConfig) -> Results:
    """Scores the networks of a run; returns what the json file holds."""
    # Open the run: networks and spaces of features:
    redraws = config.data is None and config.out is None
    needed = NEEDED if redraws else NEEDED[:1]
    saved = SavedRun.open(config.run, HERE / "results", needed)
    folder = saved.folder
    if config.out is None and not os.access(folder, os.W_OK):
        raise InputError(f"{folder} cannot be written; name a file for the scores with --out")
    with damaged(folder / "run.json"):
        source_line(saved.record)  # of the figures
    if redraws:
        Drawable.read(folder)  # refuses damaged files before the work
    device = choose_device(config.device)
    spaces = [load_own_space(folder, device.name)]
    spaces += imagenet_spaces(config.imagenet, device.name)
    spaces += inception_spaces(config.inception, device.name)
    denoisers = networks_of(saved, device)

    # The images to score against:
    side = denoisers[0].config.side
    gan = load_dcgan(folder, side, device.name)
    if config.data is None:
        real = own_part(saved, config.part, side)
    else:
        real = given_images(saved, config.data, side)
    check_enough(real)
    out = evaluation_file(config, folder, real.provenance)
    print(f"scored against {len(real.pixels):,} images", flush=True)

    # Score every network by every sampler and number of steps:
    judges = judges_of(spaces, real.pixels, real.split, real.train)
    rows = scored(config, denoisers, judges)
    rows += yardstick_rows(config, real, judges)
    if gan is not None:
        rows += gan_rows(gan, judges, config.seeds, config.samples)

    # Record the scores, and draw them and the run's own figures:
    about = {"folder": folder.name, "data": real.provenance, "images": len(real.pixels)}
    if real.left_out is not None:
        about["left_out"] = real.left_out
    results = write_results(out, about, METRICS_INFO, rows)
    record = {**saved.record, "source": real.source, "data": real.provenance}
    table = pd.DataFrame(results["rows"])
    draw_evaluations(out.with_suffix(".png"), record, table, denoisers[0].recipe, config.power)
    if redraws:
        draw_again(folder)
        if real.train is not None:
            pairs = closest_pairs(denoisers[0], spaces[0], real.train, len(real.pixels))
            draw_closest(folder, pairs)
    print_scores(results["rows"], real.split)
    print(f"\nwritten: {out}")
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
