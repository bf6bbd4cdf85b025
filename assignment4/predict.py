"""Forecasts the days after the last known one for every currency and oil, with 80 % and 95 % intervals, by an adapter on its base."""

from __future__ import annotations

import dataclasses

import pandas as pd

from assignment4.evaluate import HERE, load
from common.cli import PathOrNone, entry, parse
from common.forecast import PredictConfig, forecast_next
from common.prices import CURRENCIES


@dataclasses.dataclass(frozen=True)
class Config(PredictConfig):
    """Forecast of the next days."""

    adapter: PathOrNone = None
    """one adapter (x.safetensors, with x.json and scales.safetensors beside it) instead of all of the run's highest rank"""
    base: PathOrNone = None
    """run folder of assignment 3 that holds the pretrained networks (default: the one of that name in its results)"""


def main(config: Config) -> pd.DataFrame:
    return forecast_next(
        config,
        HERE / "results",
        CURRENCIES,
        lambda folder: load(folder, config.adapter, config.base),
    )


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
