"""Backtests a finished run's adapters on its own test part, or with --data on new rates."""

from __future__ import annotations

from assignment4.config import EvaluateConfig, PredictConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(EvaluateConfig)

import dataclasses
from pathlib import Path

from assignment3.devices import choose_strategy
from assignment3.model import Forecaster, load_model
from assignment4.artifacts import SCALES, Scales
from assignment4.figures import draw_figures
from assignment4.jobs import ensemble_label
from assignment4.lora import LoRA
from assignment4.lora.adapter_file import AdapterFile
from assignment4.pretrained import PRETRAINED, base_digest
from assignment4.slots import FilledForecaster
from common.cli import InputError
from common.forecasting.ensemble import ModelGroup
from common.forecasting.prices import CURRENCIES
from common.forecasting.saved import SavedForecasters
from common.forecasting.scripts import evaluate
from common.results import Results

RESULTS = Path(__file__).resolve().parent / "results"


def adapted(file: Path, base: Path | None) -> FilledForecaster:
    """The forecaster that an adapter makes of its base, the seed's own of the file's name.

    Raises InputError where the adapter or its base is missing, or where the base is another.
    """
    scales = Scales.read(file.parent / SCALES)
    seed = file.stem.rpartition("-")[2]
    named = scales.bases[int(seed) % len(scales.bases) if seed.isdigit() else 0]
    base_file = (base or PRETRAINED / named["run"]) / named["file"]
    if not base_file.is_file():
        raise InputError(
            f"{file}: its base {base_file} does not exist; "
            "make it with python assignment3/train.py, or name its run with --base"
        )
    model = load_model(base_file)
    digest = base_digest(model)
    if digest != named["weights"]:
        raise InputError(
            f"{file} is an adapter for another base than {base_file}: for weights with the digest "
            f"{named['weights'][:12]}, and these have {digest[:12]}; name the right run with --base"
        )

    # the base with the target's scales is what the adapter was trained on
    fitted = model.get_layer("quantiles")
    fitted.set_weights(scales.fitted)
    LoRA(model).load(file, "target")
    shrink = scales.shrink.get(file.stem.removeprefix("adapter."))
    if shrink is not None:
        fitted.fitted_shrink.assign(shrink)
    return FilledForecaster(Forecaster(model))


def load_adapters(folder: Path, adapter: Path | None, base: Path | None) -> SavedForecasters:
    """The forecasters of a run folder, the highest rank first, or that of one adapter file."""
    files = by_variant(folder) if adapter is None else {adapter.stem: [adapter]}
    groups = []
    for variant, members in files.items():
        forecasters = [adapted(file, base) for file in members]
        ensemble = ensemble_label(variant, len(forecasters))
        groups.append(ModelGroup("LoRA", variant, forecasters, ensemble))
    scales = Scales.read((folder if adapter is None else adapter.parent) / SCALES)
    return SavedForecasters(groups, tuple(scales.series), scales.normalisation == "log")


def by_variant(folder: Path) -> dict[str, list[Path]]:
    """The adapters of a run folder by rank, the highest first. Raises InputError without any."""
    files = sorted(folder.glob("adapter.*.safetensors"))
    if not files:
        raise InputError(
            f"{folder} holds no adapter.*.safetensors; make them with: python assignment4/train.py"
        )
    by_rank: dict[int, list[Path]] = {}
    for file in files:
        by_rank.setdefault(AdapterFile.read(file).rank, []).append(file)
    return {f"r{rank}": by_rank[rank] for rank in sorted(by_rank, reverse=True)}


def run_of(config: EvaluateConfig | PredictConfig) -> Path | None:
    """The run that --run names, else the one that --adapter lies in, else None: the newest."""
    if config.run is None and config.adapter is not None:
        folder = config.adapter.parent
        return folder if (folder / "run.json").is_file() else None
    return config.run


def main(config: EvaluateConfig) -> Results:
    choose_strategy(config.device)
    return evaluate(
        dataclasses.replace(config, run=run_of(config)),
        RESULTS,
        CURRENCIES,
        lambda folder: load_adapters(folder, config.adapter, config.base),
        draw_figures,
    )


if __name__ == "__main__":
    entry(main, OPTIONS)
