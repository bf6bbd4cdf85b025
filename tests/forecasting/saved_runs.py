"""A run folder that was made in milliseconds, with a forecaster that needs no training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from common.files import JsonObject, write_arrays
from common.forecasting.config import ForecastConfig
from common.forecasting.ensemble import ModelGroup
from common.forecasting.metrics import LEVELS, metrics_info
from common.forecasting.prices import read_table
from common.forecasting.saved import SavedForecasters
from common.forecasting.windows import split
from common.results import Row
from common.run import Run
from tests.forecasting.price_tables import PAIR

CONTEXT, HORIZON = 8, 2
ROW = Row(protocol="held-out", split="test", model="a", variant="b", metric="crps", value=1.0)


@dataclasses.dataclass(frozen=True)
class Walk:
    """A random walk with the deviation of the returns in its context; `shift` moves the median."""

    shift: float = 0.0
    params: int = 0

    @property
    def settings(self) -> JsonObject:
        return {"context": CONTEXT, "horizon": HORIZON}

    def predict(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        deviation = np.diff(np.log(past), axis=1).std(1)[:, None]  # (N, 1, S)
        steps = np.sqrt(np.arange(1, HORIZON + 1))[:, None]  # (H, 1)
        point = past[:, -1:] * np.exp(self.shift * deviation * steps)  # (N, H, S)
        width = (deviation * steps)[..., None] * norm.ppf(LEVELS)  # (N, H, S, Q)
        return point, (point[..., None] * np.exp(width)).astype(np.float32)


def load(_: Path) -> SavedForecasters:
    """Two seeds of the random walk, for both series of PAIR."""
    group = ModelGroup("Walk", "one", [Walk(0.1), Walk(-0.1)], "mean of 2 seeds")
    return SavedForecasters([group], PAIR.series)


def draw(folder: Path) -> None:
    """Leaves a sign that figures were drawn."""
    (folder / "drawn.png").write_bytes(b"")


def walk_table(hours: int, seed: int = 0, freq: str = "h") -> pd.DataFrame:
    """A wide table of PAIR's series."""
    returns = np.random.default_rng(seed).standard_t(5, (hours, 2)) * 0.01
    prices = np.array(PAIR.first) * np.exp(np.cumsum(returns, 0))
    times = pd.date_range("2024-01-01", periods=hours, freq=freq)
    form = "%Y-%m-%dT%H:%M:%SZ" if freq == "h" else "%Y-%m-%d"
    return pd.DataFrame({"time": times.strftime(form), "BTC": prices[:, 0], "ETH": prices[:, 1]})


def write(table: pd.DataFrame, path: Path, **options: object) -> Path:
    """The table as a csv."""
    table.to_csv(path, index=False, **options)
    return path


def saved_run(folder: Path, data: Path, steps: int = 60) -> Path:
    """The folder of a finished run on a table, with test and validation parts of `steps` rows."""
    config = ForecastConfig(
        data=data, source="csv", test_steps=steps, validation_steps=steps, out=folder
    )
    prices = read_table(data)
    parts = split(prices.contiguous(), CONTEXT, HORIZON, steps, steps)
    with Run(config, folder, "assignment2/train.py", "csv", prices.provenance) as run:
        run.note(parts=parts.dates(prices.times))
        run.log(1, 1, "train", loss=1.0)
        write_arrays(folder / "predictions.npz", levels=LEVELS)
        run.finish([ROW], metrics_info())
    return folder
