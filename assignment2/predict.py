"""Forecasts the hours after the last known one for every coin, with 80 % and 95 % intervals, beside no change."""

from __future__ import annotations

import pandas as pd

from assignment2.evaluate import HERE, load
from common.cli import entry, parse
from common.forecast import PredictConfig, forecast_next
from common.prices import COINS


def main(config: PredictConfig) -> pd.DataFrame:
    return forecast_next(
        config, HERE / "results", COINS, lambda folder: load(folder, config.device)
    )


if __name__ == "__main__":
    entry(lambda: main(parse(PredictConfig)))
