"""Forecasts the hours after the last known one for every coin, with 80 % and 95 % intervals, beside no change."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from assignment2.model import load_forecasters
from assignment2.scoring import Windows
from common.backtest import LEVELS, ROLLING, interval
from common.cli import InputError, PathOrNone, entry, parse
from common.figures import fans
from common.prices import COINS, check_positive, load_prices, select
from common.run import atomic_path, choose_device, newest_run
from common.windows import origins

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config:
    """Forecast of the next hours."""

    run: PathOrNone = None
    """run folder (default: the newest finished run in results/)"""
    source: Literal["auto", "yahoo", "cache", "csv", "simulated"] = "auto"
    """where the latest prices come from: Yahoo now, the cached history, a file (--data)"""
    data: PathOrNone = None
    """the latest prices as a file"""
    out: Path = Path("forecast.csv")
    """table to write; a figure of the same name goes beside it"""
    device: Literal["auto", "cpu", "cuda"] = "auto"


def main(config: Config) -> pd.DataFrame:
    folder = config.run or newest_run(HERE / "results")
    models, series = load_forecasters(folder / "model.seq2seq.safetensors", choose_device(config.device)[0])
    prices = select(load_prices(config.source, config.data, COINS, "3mo"), series)
    check_positive(prices, "Seq2Seq forecasts log returns")
    context, horizon = models[0].settings["context"], models[0].settings["horizon"]
    if len(prices.times) < context or not prices.contiguous()[-context + 1 :].all():
        raise InputError(
            f"{prices.provenance.get('path', prices.source)}: the last {context} rows are needed without a gap; {len(prices.times)} rows are there"
        )
    windows, now = Windows(prices, None, context, horizon), np.array([len(prices.times) - 1])
    at = np.concatenate([origins(prices.contiguous(), context, horizon)[-ROLLING:], now])  # what came since corrects the intervals
    past, times = windows.inputs(now)
    points, quantiles = zip(*(model.predict(*windows.inputs(at)) for model in models), strict=True)
    point, quantiles = np.mean(points, 0)[-1], windows.recalibrated(np.mean(quantiles, 0), at)[-1]  # (H, S), (H, S, Q)
    low80, high80 = interval(quantiles, 0.80)
    low95, high95 = interval(quantiles, 0.95)
    ahead = times[0, -1] + np.arange(1, horizon + 1) * (times[0, -1] - times[0, -2])
    table = pd.DataFrame(
        {"series": name, "time": pd.Timestamp(ahead[h]).strftime("%Y-%m-%dT%H:%M:%SZ"), "forecast": point[h, s], "no_change": past[0, -1, s],
         "low_80": low80[h, s], "high_80": high80[h, s], "low_95": low95[h, s], "high_95": high95[h, s]}
        for s, name in enumerate(series) for h in range(horizon)
    )  # fmt: skip
    with atomic_path(config.out) as temporary:
        table.to_csv(temporary, index=False, float_format="%.8g")
    record = {"source": prices.source, "data": prices.provenance, "preset": f"of {folder.name}"}
    picture, title = config.out.with_suffix(".png"), f"Forecast from {prices.moment(-1)}: 80 % and 95 % intervals"
    fans(picture, record, series, times[0, -48:], past[0, -48:], ahead, quantiles, LEVELS, title)
    print(table.to_string(index=False, float_format=lambda number: f"{number:.6g}"))
    print(f"in {config.out} and {picture}; last known price: {prices.moment(-1)}")
    return table


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
