"""Hourly prices from Yahoo, merged into one history in the data folder.

Every fetch adds the hours that are new; a cached price is never replaced by another one.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import logging
import re
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from common.cli import InputError, data_folder
from common.files import JsonObject, atomic_path
from common.forecasting.history import (
    DAY,
    HOUR,
    Prices,
    checked_prices,
    digest_of,
    one_line,
)
from common.forecasting.markets import Market

LONGEST_REQUEST = (
    729  # Yahoo keeps 730 days of hourly prices, and refuses some tickers at exactly that
)
LONGEST_PERIOD = 100_000  # days: more than datetime64[ns] can go back
DAYS_OF = {"d": 1, "wk": 7, "mo": 30.44, "y": 365.25}
TOLERANCE = 1e-3  # relative, between a cached price and the same hour fetched again
RATE_LIMIT = r"rate.?limit|too many requests|\b429\b"
NO_NETWORK = r"resolve|connect|curl|timed? ?out|network|proxy|\bssl"
# not in threads, which share a switch that turns a lost connection into "possibly delisted";
# not adjusted, because a later dividend would change the prices of before
DOWNLOAD = {
    "interval": "1h",
    "auto_adjust": False,
    "progress": False,
    "threads": False,
    "timeout": 10,
}


def days_of(period: str) -> int:
    """Days of a period as Yahoo writes it, such as 60d or 6mo; "max" is the longest.

    Raises InputError for any other text.
    """
    parts = re.fullmatch(r"max|([1-9]\d{0,3})(d|wk|mo|y)", period)
    if parts is None:
        raise InputError(
            f"--period {period}; allowed are max, or a number and d, wk, mo or y, "
            "such as 60d or 6mo"
        )
    if period == "max":
        return LONGEST_PERIOD
    return min(LONGEST_PERIOD, round(int(parts[1]) * DAYS_OF[parts[2]]))


def reachable() -> bool:
    """Whether Yahoo answers within seconds; without a network yfinance would wait for minutes."""
    try:
        urllib.request.urlopen("https://query2.finance.yahoo.com", timeout=4).close()
    except urllib.error.HTTPError:  # an answer all the same
        return True
    except (OSError, http.client.HTTPException):
        return False
    return True


# -------------------------------------------------------------------------------------- cache


def cache_path(market: Market) -> Path:
    """The file of a market's history."""
    return data_folder() / "yahoo" / f"{market.name}-1h.parquet"


def cached(market: Market, period: str = "max") -> Prices:
    """The last `period` of the history as fetched and merged so far.

    Raises InputError without an intact cache.
    """
    path = cache_path(market)
    if not path.exists():
        raise InputError(f"{path} does not exist; --source yahoo fetches it")
    raw = path.read_bytes()
    try:
        history, about = read_history(raw, market)
    except Exception:  # pyarrow raises its own errors on a damaged file; anything may be missing
        raise InputError(f"{path} is damaged; --source yahoo fetches it anew") from None
    history = history[history.index > history.index[-1] - days_of(period) * DAY]
    facts = {
        "path": path.name,
        "sha256": sha256(raw).hexdigest(),
        "tickers": list(market.tickers),
        **about,
    }
    return checked_prices(history, "yahoo", path, facts)


def read_history(raw: bytes, market: Market) -> tuple[pd.DataFrame, JsonObject]:
    """Times x series of a cache file, and what it says about their download.

    Raises ValueError where the values are not those that were written.
    """
    table = pq.read_table(io.BytesIO(raw))
    about = json.loads(table.schema.metadata[b"history"])
    history = table.to_pandas(ignore_metadata=True).set_index("time")
    digest = about.pop("values")
    if tuple(history.columns) != market.series or digest != digest_of(history):
        raise ValueError("other values than were written")
    return history, about


def write_history(path: Path, history: pd.DataFrame, about: JsonObject) -> None:
    """Writes times x series and what is said about them as one parquet file."""
    columns = {"time": history.index, **{name: history[name] for name in history}}
    metadata = {"history": json.dumps({"values": digest_of(history), **about})}
    with atomic_path(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary)


# -------------------------------------------------------------------------------------- fetch


def fetch(
    market: Market,
    period: str = "max",
    attempts: int = 4,
    sleep: Callable[[float], None] = time.sleep,
    now: pd.Timestamp | None = None,
) -> Prices:
    """Downloads the full hours that every ticker has and merges them into the cached history.

    Returns that as `cached` does. Raises InputError where Yahoo gives nothing, or other prices
    than before; the cache then stays as it is.
    """
    path = cache_path(market)
    now = now or pd.Timestamp.now("UTC")
    earlier = intact_cache(market)
    request = period if days_of(period) <= LONGEST_REQUEST else f"{LONGEST_REQUEST}d"
    closes = download_closes(market.tickers, request, attempts, sleep)

    # Full hours that every ticker has:
    full_hour = (closes.index == closes.index.floor("h")) & (closes.index + HOUR <= now)
    hours = closes[full_hour]
    history = hours.set_axis(list(market.series), axis=1).dropna()
    dropped = {
        "partial_hours": len(closes) - len(hours),
        "hours_not_of_every_ticker": len(hours) - len(history),
    }

    # One history, checked before it is written:
    if earlier is not None:
        history = merged(earlier, history, path)
    checked_prices(history, "yahoo", "Yahoo", {})
    about = {"fetched": now.strftime("%Y-%m-%dT%H:%M:%SZ"), "dropped": dropped}
    write_history(path, history, about)
    return cached(market, period)


def intact_cache(market: Market) -> Prices | None:
    """The cached history; None, with a warning on stderr, where it is damaged."""
    if not cache_path(market).exists():
        return None
    try:
        return cached(market)
    except InputError as error:
        print(f"warning: {error}", file=sys.stderr)
        return None


def merged(earlier: Prices, later: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Two histories as one; where both have an hour the earlier price stays.

    Raises InputError where they differ. The newest cached hour is left out of that, because it may
    have been corrected since.
    """
    times = pd.DatetimeIndex(earlier.times, tz="UTC")
    before = pd.DataFrame(earlier.values, times, earlier.series)
    settled = before.index[:-1].intersection(later.index)
    old = before.loc[settled].to_numpy()
    new = later.loc[settled].to_numpy()
    for row, column in np.argwhere(np.abs(new - old) > TOLERANCE * np.abs(old))[:1]:
        raise InputError(
            f"{earlier.series[column]} at {settled[row]} is {new[row, column]:g} at Yahoo and "
            f"{old[row, column]:g} in {path}, which stays as it is; "
            "move that file away to begin a new history"
        )
    history = pd.concat([before[:-1], later, before[-1:]])
    return history[~history.index.duplicated()].sort_index()


# ----------------------------------------------------------------------------------- download


def download_closes(
    tickers: Sequence[str],
    period: str,
    attempts: int,
    sleep: Callable[[float], None] = time.sleep,
) -> pd.DataFrame:
    """Yahoo's hourly closes in UTC, one column per ticker, NaN where it has none.

    The running hour is included. Raises InputError when a ticker has no price at all after
    `attempts` with doubling pauses.
    """
    with yfinance_errors() as errors:
        for attempt in range(attempts):
            if attempt:
                sleep(2.0**attempt)
            errors.clear()
            try:
                closes = tidy_closes(download(tickers, period), tickers)
            except Exception as error:  # yfinance and its network library let theirs through
                errors.append(repr(error))
                empty = list(tickers)
                continue
            empty = [ticker for ticker in tickers if closes[ticker].isna().all()]
            if not empty:
                return closes
    raise InputError(reason_of(" ".join(errors), empty, period))


def download(tickers: Sequence[str], period: str) -> pd.DataFrame:
    """What yfinance returns, without its warnings."""
    with warnings.catch_warnings():
        import yfinance  # which sets filters of its own

        warnings.simplefilter("ignore")  # pandas 3 on yfinance's code
        frame = yfinance.download(list(tickers), period=period, **DOWNLOAD)
    return pd.DataFrame(columns=["Close"]) if frame is None or frame.empty else frame


def tidy_closes(frame: pd.DataFrame, tickers: Sequence[str]) -> pd.DataFrame:
    """The closes of yfinance's table, sorted by time in UTC, one column per ticker.

    The columns are (price, ticker), or (ticker, price) when grouped by ticker, or prices alone.
    """
    if frame.columns.nlevels > 1:
        price_first = "Close" in frame.columns.get_level_values(0)
        frame = frame.xs("Close", axis=1, level=0 if price_first else 1)
    else:
        frame = frame[["Close"]].set_axis(list(tickers[:1]), axis=1)
    times = pd.to_datetime(frame.index, utc=True).as_unit("ns")
    closes = frame.set_axis(times).reindex(columns=list(tickers)).sort_index()
    return closes[~closes.index.duplicated(keep="last")].astype(np.float64)


@contextlib.contextmanager
def yfinance_errors() -> Iterator[list[str]]:
    """Collects what yfinance logs: it logs what fails and returns an empty column."""
    errors: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(record.getMessage())

    handler = Collector(logging.ERROR)
    logger = logging.getLogger("yfinance")
    propagate = logger.propagate
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield errors
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def reason_of(errors: str, empty: Sequence[str], period: str) -> str:
    """One line about why a download failed, from what yfinance logged."""
    answer = one_line(errors) or "an empty answer"
    if re.search(RATE_LIMIT, errors, re.IGNORECASE):
        return (
            f"Yahoo refuses more requests for now, a rate limit ({answer}); "
            "wait an hour, or use --source cache or --data FILE"
        )
    if re.search(NO_NETWORK, errors, re.IGNORECASE):
        return (
            f"Yahoo cannot be reached ({answer}); "
            "without a network use --source cache or --data FILE"
        )
    return (
        f"Yahoo gave no hourly prices of {', '.join(empty)}: "
        f"an unknown ticker, or none in {period} ({answer})"
    )
