"""Backtests a finished run's adapters and the network without one: on its own test part, or on rates they have not seen with --data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from assignment3.model import Forecaster, load_model
from assignment4.figures import draw_figures
from assignment4.lora import LoRA
from assignment4.scoring import load_scales
from assignment4.strategies import PRETRAINED
from common.cli import InputError, PathOrNone, entry, parse
from common.forecast import EvaluateConfig, Group, Saved, evaluate
from common.prices import CURRENCIES
from common.run import sha256

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config(EvaluateConfig):
    """Backtest of saved adapters, beside their base and every baseline."""

    adapter: PathOrNone = None
    """one adapter (x.safetensors, with x.json and scales.safetensors beside it) instead of all of the run"""
    base: PathOrNone = None
    """run folder of assignment 3 that holds the pretrained networks (default: the one of that name in its results)"""


def adapted(file: Path, base: Path | None) -> Forecaster:
    """The forecaster that an adapter makes of its base. Raises InputError where one of them is missing or is another."""
    scales = load_scales(file.parent / "scales.safetensors")
    number = file.stem.rpartition("-")[2]
    made = (
        scales["bases"][int(number) % len(scales["bases"])]
        if number.isdigit()
        else scales["bases"][0]
    )
    place = (base or PRETRAINED / made["run"]) / made["file"]
    if not place.is_file():
        raise InputError(
            f"{file}: its base {place} does not exist; make it with python assignment3/train.py, or name its run with --base"
        )
    if sha256(place) != made["sha256"]:
        raise InputError(
            f"{file} is an adapter for another base than {place} (sha256 {made['sha256'][:12]}); name the right run with --base"
        )
    model = load_model(place)
    fitted = model.get_layer("quantiles")
    for name in ("spread", "deviation"):
        getattr(fitted, f"fitted_{name}").assign(scales[name])
    LoRA(model).load(file, "target")
    fitted.fitted_shrink.assign(
        scales["shrink"].get(file.stem.removeprefix("adapter."), fitted.fitted_shrink.numpy())
    )
    return Forecaster(model)


def load(folder: Path, adapter: Path | None, base: Path | None) -> Saved:
    """The forecasters of a run folder by kind of adapter, or the one of an adapter."""
    files = [adapter] if adapter is not None else sorted(folder.glob("adapter.*.safetensors"))
    if not files:
        raise InputError(
            f"{folder} holds no adapter.*.safetensors; make them with: python assignment4/train.py"
        )
    kinds: dict[str, list[Path]] = {}
    for file in files:
        kinds.setdefault(
            file.stem.removeprefix("adapter.").rpartition("-")[0] if adapter is None else file.stem,
            [],
        ).append(file)
    scales = load_scales(files[0].parent / "scales.safetensors")
    groups = []
    for kind, members in sorted(
        kinds.items(), key=lambda item: (len(item[0]), item[0]), reverse=True
    ):  # the higher rank first
        models = [adapted(file, base) for file in members]
        groups.append(Group("LoRA", kind, models, f"{kind}, mean of {len(models)} seeds"))
    return Saved(groups, tuple(scales["series"]), scales["normalisation"] == "log")


def main(config: Config) -> dict[str, Any]:
    return evaluate(
        config,
        HERE / "results",
        CURRENCIES,
        lambda folder: load(folder, config.adapter, config.base),
        draw_figures,
    )


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
