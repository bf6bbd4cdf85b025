"""Forecasts the hours after the last known one for every coin, with 80 % and 95 % intervals."""

from __future__ import annotations

from assignment3.config import PredictConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(PredictConfig)

from pathlib import Path

import pandas as pd

import assignment2.evaluate
from assignment3.evaluate import RESULTS
from assignment3.model import load_all, transformer_group
from common.forecasting.ahead import forecast_next
from common.forecasting.prices import COINS
from common.forecasting.saved import SavedForecasters


def load_chosen(folder: Path, config: PredictConfig) -> SavedForecasters:
    """The forecasters that --model names."""
    if config.model == "seq2seq":
        return assignment2.evaluate.load(folder, config.device)
    forecasters = load_all(folder, config.model)
    series = tuple(forecasters[0].settings["series"])
    return SavedForecasters([transformer_group(forecasters, config.model)], series)


def main(config: PredictConfig) -> pd.DataFrame:
    return forecast_next(config, RESULTS, COINS, lambda folder: load_chosen(folder, config))


if __name__ == "__main__":
    entry(main, OPTIONS)
