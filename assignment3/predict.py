"""Forecasts the hours after the last known one for every coin, with 80 % and 95 % intervals, beside no change."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pandas as pd

from assignment3.evaluate import HERE, load
from common.cli import entry, parse
from common.forecast import PredictConfig, forecast_next
from common.prices import COINS


@dataclasses.dataclass(frozen=True)
class Config(PredictConfig):
    """Forecast of the next hours."""

    model: Literal["log", "minmax", "seq2seq"] = "log"
    """the Transformers behind which normalisation, or the Seq2Seq beside them"""


def main(config: Config) -> pd.DataFrame:
    place = ("log", "minmax", "seq2seq").index(config.model)

    def chosen(folder):
        saved = load(folder, config.device)
        return dataclasses.replace(saved, groups=saved.groups[place : place + 1])

    return forecast_next(config, HERE / "results", COINS, chosen)


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
