"""Scores a finished run's denoisers against its own held-out images, or against images they have not seen with --data, and draws everything again.

python assignment5/evaluate.py
python assignment5/evaluate.py --part validation --sampler ddim heun dpm++ --steps 5 10 20 50
python assignment5/evaluate.py --data more_flowers/ --steps 5 20 50
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from assignment5 import data
from assignment5.config import check
from assignment5.diffusion import Sampler
from assignment5.features import Inception
from assignment5.figures import draw_evaluations, draw_figures
from assignment5.models import NETWORKS, load_denoiser, load_feature_net
from assignment5.protocols import METRICS_INFO, Judge, print_table, sampled_rows
from common.cli import InputError, PathOrNone, entry, parse
from common.report import compile_report
from common.run import choose_device, newest_run, write_json
from common.weights import parameters

HERE = Path(__file__).resolve().parent
NEEDED = ("run.json", "metrics.json", "metrics.csv", "pictures.npz", "distances.npz")


@dataclasses.dataclass(frozen=True)
class Config:
    """Scores saved denoisers and draws a run's figures again."""

    run: PathOrNone = None
    """run folder (default: the newest finished one)"""
    data: PathOrNone = None
    """a folder or tar of images that the networks have not seen (default: the run's own)"""
    part: Literal["validation", "test"] = "test"
    """which of the run's own parts is scored against, without --data"""
    out: PathOrNone = None
    """json file; a figure of the same name stands beside it (default: evaluation-<data or part>.json in the run folder)"""
    sampler: tuple[Sampler, ...] = ("ddim",)
    """one or more"""
    steps: tuple[int, ...] = (5, 20)
    """each sampler's numbers of steps"""
    power: float = 1.0
    """exponent of the samplers' times: 1 steps evenly, below 1 the last step is a long one"""
    samples: int = 512
    """images sampled for a score, a set of noise"""
    seeds: int = 5
    """sets of noise"""
    inception: bool = False
    """score in Inception's features too (pip install torch-fidelity; fetches its weights)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        check(self)


def main(config: Config) -> dict[str, Any]:
    folder = config.run or newest_run(HERE / "results")
    if missing := [name for name in NEEDED if not (folder / name).exists()]:
        raise InputError(
            f"--run {folder} holds no {missing[0]}; give the folder of a finished run of assignment 5"
        )
    out = (
        config.out
        or folder
        / f"evaluation-{config.data.name.split('.')[0] if config.data else config.part}.json"
    )
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    device, bfloat16 = choose_device(config.device)
    describers = [
        ("own network", load_feature_net(folder / "features.safetensors", device).describe)
    ]
    describers += [("Inception", Inception(device).describe)] if config.inception else []
    saved = {name: load_denoiser(folder / f"model.{name}.safetensors", device) for name in NETWORKS}
    side = record["config"]["side"]

    # the images to score against, and the training part where it is at hand
    images = data.load("folder", config.data, side) if config.data else data.load_again(record)
    train, real, split = None, images.pixels, "test"
    if config.data is None:
        parts = data.split(len(images), record["config"]["seed"])
        train, real, split = (
            images.pixels[parts.train],
            images.pixels[getattr(parts, config.part)],
            config.part,
        )
    if len(real) < 6:
        raise InputError(
            f"{images.provenance.get('path', images.source)} holds {len(real)} images to score against; at least 6 are needed"
        )

    # scores, table and figures
    judges = [Judge(name, describe, train, real, split) for name, describe in describers]
    wanted = [(sampler, steps) for sampler in config.sampler for steps in config.steps]
    table: list[dict[str, Any]] = []
    for name, (model, about) in saved.items():
        table += sampled_rows(
            judges,
            model,
            name,
            about["recipe"],
            wanted,
            config.samples,
            config.seeds,
            side,
            bfloat16 and about["bfloat16"],
            power=config.power,
            params=parameters(model),
        )
    result = {
        "run": {"folder": folder.name, "data": images.provenance, "images": len(real)},
        "metrics_info": METRICS_INFO,
        "rows": table,
    }
    write_json(out, result)
    draw_evaluations(
        out.with_suffix(".png"),
        record | {"source": images.source, "data": images.provenance},
        pd.DataFrame(table),
    )
    draw_figures(folder)
    compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    print_table(result, out, split)
    return result


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
