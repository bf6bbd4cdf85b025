"""Forecasts the hours after the last known one for every coin, with 80 % and 95 % intervals."""

from __future__ import annotations

from assignment3.config import PredictConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(PredictConfig)

import pandas as pd

from assignment3.devices import choose_strategy
from assignment3.evaluate import RESULTS, load_chosen
from common.forecasting.ahead import forecast_next
from common.forecasting.prices import COINS


def main(config: PredictConfig) -> pd.DataFrame:
    choose_strategy(config.device)
    return forecast_next(config, RESULTS, COINS, lambda folder: load_chosen(folder, config))


if __name__ == "__main__":
    entry(main, OPTIONS)
