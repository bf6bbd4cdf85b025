"""Candles: the high, low and volume of each step, beside its close, and what a model reads of them.

Small faults are mended and counted: a high below its close or a low above it is moved to the close,
and a missing or impossible candle becomes its close without volume. Where more than a few are at
fault the columns belong to another ticker, and the file is refused.

Shape letters: R rows, N windows, C context, T = C - 1 steps in it, S series. The three of a candle
array (R, 3, S) or (N, C, 3, S) are high, low and volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from common.cli import InputError
from common.files import JsonObject
from common.forecasting.names import CLOSE, Label, listed, plain

CANDLE_FIELDS = ("high", "low", "volume")
LARGEST_MENDED = 0.05  # of all candles: more are not those of the closes
MENDED = {
    "missing": "that are missing or impossible are their close, without volume",
    "close_outside": "whose close lies outside are stretched to it",
}
NEEDED = "a run with --candles needs high, low and volume of each series"
VOLUME_FLOOR = 1e-3  # of the window's mean volume: the logarithm of a step without trades
VOLUME_LIMIT = 4.0  # of the logarithm of a volume over the window's mean one


# ------------------------------------------------------------------------------------- files


def candle_columns(
    labels: Sequence[Label], prices: Mapping[str, str], where: object
) -> dict[str, dict[str, str]]:
    """The columns of every field of CANDLE_FIELDS as {field: {series: column}}.

    `prices` are the columns of the closes by series. Raises InputError where a series has none.
    """
    by_name = {label.name: label for label in labels}
    found: dict[str, dict[str, str]] = {field: {} for field in CANDLE_FIELDS}
    for series, column in prices.items():
        close = by_name[column]
        for field in CANDLE_FIELDS:
            of_series = [
                label.name
                for label in labels
                if label.field == field and label.ticker == close.ticker and close.field == CLOSE
            ]
            of_series.sort(key=lambda name: plain(name) != field)  # before "quote asset volume"
            if of_series:
                found[field][series] = of_series[0]
    for field in CANDLE_FIELDS:
        lacking = [series for series in prices if series not in found[field]]
        if lacking and not any(found.values()):
            raise InputError(f"{NEEDED}; {where} has closes alone")
        if lacking:
            raise InputError(f"{NEEDED}; {where} has no {field} of {listed(lacking)}")
    return found


def aligned(
    candles: Mapping[str, pd.DataFrame], closes: pd.DataFrame, where: object
) -> tuple[np.ndarray, JsonObject]:
    """The candles (R, 3, S) of closes (R, S) at the same times, and how many were mended.

    `candles` holds a frame of times x series for every field. Raises InputError where more than 5 %
    of the candles do not belong to their closes.
    """
    close = closes.to_numpy(np.float64)
    high, low, volume = (
        candles[field].reindex(index=closes.index, columns=closes.columns).to_numpy(np.float64)
        for field in CANDLE_FIELDS
    )
    known = np.isfinite(high) & np.isfinite(low) & np.isfinite(volume)
    known &= ((low > 0) | (close <= 0)) & (volume >= 0)
    outside = known & ((high < close) | (low > close))
    mended = int(outside.sum() + (~known).sum())
    if mended > LARGEST_MENDED * close.size:
        raise InputError(
            f"{where}: {mended:,} of {close.size:,} candles are missing or do not hold their "
            f"close between low and high, more than {LARGEST_MENDED:.0%}; {NEEDED}"
        )
    array = np.stack(
        [
            np.where(known, np.maximum(high, close), close),
            np.where(known, np.minimum(low, close), close),
            np.where(known, volume, 0),
        ],
        axis=1,
    )  # (R, 3, S)
    return array, {"missing": int((~known).sum()), "close_outside": int(outside.sum())}


# ------------------------------------------------------------------------------------ models


def range_volatility(past: np.ndarray, candles: np.ndarray, log: bool = True) -> np.ndarray:
    """Garman & Klass' volatility (N, T, S) of each step of prices (N, C, S) with candles.

    Garman & Klass 1980, with the close before as the open and inside the range (a market that was
    closed opens elsewhere): sigma^2 = (high - low)^2 / 2 - (2 ln 2 - 1) (close - open)^2 of
    logarithms, or of prices where `log` is false.
    """
    before, close = past[:, :-1], past[:, 1:]  # (N, T, S)
    high = np.maximum(candles[:, 1:, 0], np.maximum(before, close))
    low = np.minimum(candles[:, 1:, 1], np.minimum(before, close))
    if log:
        spread, change = np.log(high / low), np.log(close / before)
    else:
        spread, change = high - low, close - before
    return np.sqrt(0.5 * spread**2 - (2 * np.log(2) - 1) * change**2)


def relative_volume(candles: np.ndarray) -> np.ndarray:
    """Logarithm (N, T, S) of each step's volume over the window's mean one, clipped.

    0 where the window has no volume at all.
    """
    volume = candles[:, 1:, 2]  # (N, T, S)
    mean = volume.mean(1, keepdims=True)
    share = np.divide(volume, mean, out=np.ones_like(volume), where=mean > 0)
    return np.clip(np.log(share + VOLUME_FLOOR), -VOLUME_LIMIT, VOLUME_LIMIT)
