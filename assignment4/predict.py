"""Forecasts the next days of every currency and oil by an adapter, with 80 % and 95 % intervals."""

from __future__ import annotations

from assignment4.config import PredictConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(PredictConfig)

import dataclasses

import pandas as pd

from assignment3.devices import choose_strategy
from assignment4.evaluate import RESULTS, load_adapters, run_of
from common.forecasting.ahead import forecast_next
from common.forecasting.prices import CURRENCIES


def main(config: PredictConfig) -> pd.DataFrame:
    choose_strategy(config.device)
    return forecast_next(
        dataclasses.replace(config, run=run_of(config)),
        RESULTS,
        CURRENCIES,
        lambda folder: load_adapters(folder, config.adapter, config.base),
    )


if __name__ == "__main__":
    entry(main, OPTIONS)
