"""Scores a finished run's denoisers: against its own held-out images, or against images they have not seen with --data.

python assignment5/evaluate.py
python assignment5/evaluate.py --data more_flowers/ --steps 5 20 50
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from assignment5 import data
from assignment5.diffusion import Sampler
from assignment5.features import Inception
from assignment5.figures import draw_figures
from assignment5.models import NETWORKS, load_denoiser, load_feature_net, parameters
from assignment5.protocols import METRICS_INFO, Judge, print_table, sampled_rows
from common.cli import InputError, PathOrNone, entry, parse
from common.report import compile_report
from common.run import choose_device, newest_run, write_json

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config:
    """Scores saved denoisers and draws a run's figures again."""

    run: PathOrNone = None
    """run folder (default: the newest finished one)"""
    data: PathOrNone = None
    """a folder or tar of images that the networks have not seen (default: the run's own test part)"""
    out: PathOrNone = None
    """json file (default: evaluation-<data>.json in the run folder)"""
    sampler: Sampler = "ddim"
    steps: tuple[int, ...] = (5, 20)
    samples: int = 512
    """images sampled for a score, a set of noise"""
    seeds: int = 5
    """sets of noise"""
    inception: bool = False
    """score in Inception's features too (pip install torch-fidelity; fetches its weights)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"


def main(config: Config) -> dict[str, Any]:
    folder = config.run or newest_run(HERE / "results")
    if not (folder / "run.json").exists():
        raise InputError(f"--run {folder} holds no run.json; give the folder of a finished run of assignment 5")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    device, bfloat16 = choose_device(config.device)
    describers = [("own network", load_feature_net(folder / "features.safetensors", device).describe)]
    describers += [("Inception", Inception(device).describe)] if config.inception else []
    saved = {name: load_denoiser(folder / f"model.{name}.safetensors", device) for name in NETWORKS}
    if config.data is None:
        images = data.load_again(record)
        parts = data.split(len(images), record["config"]["seed"])
        train, real = images.pixels[parts.train], images.pixels[parts.test]
    else:
        images = data.load("folder", config.data, record["config"]["side"])
        train, real = None, images.pixels
    if len(real) < 6 or config.samples < 6:
        raise InputError(f"{len(real)} images and {config.samples} samples: at least 6 of each are needed for neighbourhoods")
    judges = [Judge(name, describe, train, real, "test") for name, describe in describers]
    table: list[dict[str, Any]] = []
    for name, (model, about) in saved.items():
        wanted = [(config.sampler, steps) for steps in config.steps]
        table += sampled_rows(judges, model, name, about["recipe"], wanted, config.samples, config.seeds, record["config"]["side"], bfloat16,
                              params=parameters(model))  # fmt: skip
    result = {"run": {"folder": folder.name, "data": images.provenance, "images": len(real)}, "metrics_info": METRICS_INFO, "rows": table}
    out = config.out or folder / f"evaluation-{config.data.stem if config.data else 'test'}.json"
    write_json(out, result)
    draw_figures(folder)
    compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    print_table(result, out)
    return result


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
