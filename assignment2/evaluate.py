"""Backtests a finished run's forecasters on its own test part, or with --data on new prices."""

from __future__ import annotations

from common.cli import entry, read_options
from common.forecasting.config import EvaluateConfig

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(EvaluateConfig)

from pathlib import Path

from assignment2.figures import draw_figures
from assignment2.model import load_forecasters, seq2seq_group
from common.forecasting.baselines import har_key
from common.forecasting.ensemble import Pair
from common.forecasting.prices import COINS
from common.forecasting.saved import SavedForecasters
from common.forecasting.scripts import evaluate
from common.machine import choose_device
from common.results import Results

RESULTS = Path(__file__).resolve().parent / "results"


def load(folder: Path, device: str) -> SavedForecasters:
    """The forecasters of a run folder."""
    file = folder / "model.seq2seq.safetensors"
    forecasters, series = load_forecasters(file, choose_device(device).name)
    group = seq2seq_group(forecasters)
    if forecasters[0].start != "har":
        return SavedForecasters([group], series)
    har = forecasters[0].har
    pairs = [Pair(group.ensemble_key, har_key(har))]
    return SavedForecasters([group], series, pairs=pairs, har=har)


def main(config: EvaluateConfig) -> Results:
    return evaluate(
        config, RESULTS, COINS, lambda folder: load(folder, config.device), draw_figures
    )


if __name__ == "__main__":
    entry(main, OPTIONS)
