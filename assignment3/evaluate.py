"""Backtests a finished run's forecasters on its own test part, or with --data on new prices."""

from __future__ import annotations

from common.cli import entry, read_options
from common.forecasting.config import EvaluateConfig

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(EvaluateConfig)

from itertools import combinations
from pathlib import Path

import assignment2.evaluate
from assignment3.config import NORMALISATIONS, PredictConfig
from assignment3.devices import choose_strategy
from assignment3.figures import draw_figures
from assignment3.model import average_group, load_all, transformer_group
from common.forecasting.baselines import LOG_HAR
from common.forecasting.ensemble import Pair
from common.forecasting.prices import COINS
from common.forecasting.saved import SavedForecasters
from common.forecasting.scripts import evaluate
from common.results import Results

RESULTS = Path(__file__).resolve().parent / "results"


def load(folder: Path, device: str) -> SavedForecasters:
    """The Transformers of a run folder behind both normalisations, and its Seq2Seq."""
    transformers = [
        transformer_group(load_all(folder, normalisation), normalisation)
        for normalisation in NORMALISATIONS
    ]
    seq2seq = assignment2.evaluate.load(folder, device)
    groups = [*transformers, *seq2seq.groups]
    if seq2seq.har is not None:
        groups.append(average_group(seq2seq.groups[0], transformers[0], seq2seq.har))
    keys = [group.ensemble_key for group in groups]
    if seq2seq.har is not None:
        keys.append(LOG_HAR)
    pairs = [Pair(*two) for two in combinations(keys, 2)]
    return SavedForecasters(groups, seq2seq.series, pairs=pairs, har=seq2seq.har)


def load_chosen(folder: Path, config: PredictConfig) -> SavedForecasters:
    """The forecasters that --model names."""
    if config.model == "seq2seq":
        return assignment2.evaluate.load(folder, config.device)
    forecasters = load_all(folder, config.model)
    series = tuple(forecasters[0].settings["series"])
    return SavedForecasters([transformer_group(forecasters, config.model)], series)


def main(config: EvaluateConfig) -> Results:
    choose_strategy(config.device)
    return evaluate(
        config, RESULTS, COINS, lambda folder: load(folder, config.device), draw_figures
    )


if __name__ == "__main__":
    entry(main, OPTIONS)
