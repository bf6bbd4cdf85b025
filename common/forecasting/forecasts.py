"""Tables of forecasts: that of predict.py, and the long one of a whole backtest.

The names of the long table's columns are those of Nixtla's libraries (statsforecast,
neuralforecast): unique_id, ds, cutoff, y, and y_hat-lo-80 for the lower end of an 80 % interval.

Shape letters: N origins, H horizon, S series, Q quantile levels.
"""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import atomic_path
from common.forecasting.backtest import Forecast
from common.forecasting.history import Prices
from common.forecasting.metrics import LEVELS, interval
from common.forecasting.sessions import DAY
from common.forecasting.windows import Windows
from common.run import progress

SHARES = (0.80, 0.95)  # of the two intervals
QUANTILES = [f"q{level:.2f}" for level in LEVELS]  # q0.01 to q0.99


@dataclasses.dataclass(frozen=True)
class NextSteps:
    """The forecast after the last known price."""

    times: np.ndarray  # datetime64 (H,)
    point: np.ndarray  # (H, S)
    quantiles: np.ndarray  # (H, S, Q)


def time_format(prices: Prices) -> str:
    """How the times of a table are written: the date alone where the steps are days or longer."""
    return "%Y-%m-%dT%H:%M:%SZ" if prices.step < DAY else "%Y-%m-%d"


def next_table(prices: Prices, forecast: NextSteps, quantiles: bool = False) -> pd.DataFrame:
    """One row per series and step: the forecast, no change, and the 80 % and 95 % intervals.

    With `quantiles` also every quantile level, q0.01 to q0.99.
    """
    low80, high80 = interval(forecast.quantiles, 0.80)  # (H, S)
    low95, high95 = interval(forecast.quantiles, 0.95)
    form = time_format(prices)
    rows = []
    for s, name in enumerate(prices.series):
        for h, moment in enumerate(forecast.times):
            row = {
                "series": name,
                "time": pd.Timestamp(moment).strftime(form),
                "forecast": forecast.point[h, s],
                "no_change": prices.values[-1, s],
                "low_80": low80[h, s],
                "high_80": high80[h, s],
                "low_95": low95[h, s],
                "high_95": high95[h, s],
            }
            if quantiles:
                row |= dict(zip(QUANTILES, forecast.quantiles[h, s], strict=True))
            rows.append(row)
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------- of a backtest


def backtest_tables(
    windows: Windows, origins: np.ndarray, forecast: Forecast
) -> Iterator[pd.DataFrame]:
    """The forecasts at the origins (N,), one table of N * H rows per series.

    Columns unique_id, ds and cutoff (datetime64, UTC), y and y_hat (float64), the ends of the
    intervals, and q0.01 to q0.99 (float32).
    """
    prices = windows.prices
    ahead = origins[:, None] + np.arange(1, windows.horizon + 1)  # (N, H)
    actual = windows.future(origins)  # (N, H, S)
    for s, name in enumerate(prices.series):
        levels = forecast.distribution[:, :, s].reshape(-1, len(LEVELS))  # (N * H, Q)
        columns = {
            "unique_id": np.full(len(levels), name, object),
            "ds": prices.times[ahead].ravel(),
            "cutoff": np.repeat(prices.times[origins], windows.horizon),
            "y": actual[:, :, s].ravel(),
            "y_hat": forecast.point[:, :, s].ravel().astype(np.float64),
        }
        for share in SHARES:
            low, high = interval(levels, share)
            columns[f"y_hat-lo-{share * 100:.0f}"] = low
            columns[f"y_hat-hi-{share * 100:.0f}"] = high
        table = pd.DataFrame(columns)
        quantiles = pd.DataFrame(levels.astype(np.float32), columns=QUANTILES)
        yield pd.concat([table, quantiles], axis=1)


def write_backtest(path: Path, windows: Windows, origins: np.ndarray, forecast: Forecast) -> str:
    """Writes the forecasts at the origins to a .parquet, .csv or .csv.gz, series by series.

    Returns the file, its rows and its size in words.
    """
    tables = progress(
        backtest_tables(windows, origins, forecast), f"{path}", len(windows.prices.series)
    )
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            write_parquet(temporary, tables)
        elif path.suffix == ".gz":
            with gzip.open(temporary, "wt", encoding="utf-8", newline="") as file:
                write_csv(file.write, tables, time_format(windows.prices))
        else:
            with open(temporary, "w", encoding="utf-8", newline="") as file:
                write_csv(file.write, tables, time_format(windows.prices))
    rows = len(origins) * windows.horizon * len(windows.prices.series)
    return f"{path}: {rows:,} rows, {path.stat().st_size / 1e6:.1f} MB"


def write_parquet(path: Path, tables: Iterator[pd.DataFrame]) -> None:
    """Writes the tables as the row groups of one parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    first = pa.Table.from_pandas(next(tables), preserve_index=False)
    with parquet.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(pa.Table.from_pandas(table, first.schema, preserve_index=False))


def write_csv(write: Callable[[str], object], tables: Iterator[pd.DataFrame], form: str) -> None:
    """Writes the tables as one csv with one header."""
    header = True
    for table in tables:
        options = {"index": False, "float_format": "%.8g", "date_format": form}
        write(table.to_csv(header=header, lineterminator="\n", **options))
        header = False
