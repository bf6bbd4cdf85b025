"""Hourly or daily prices from Yahoo, merged into one history in the data folder.

Every fetch adds the rows that are new; a cached price is never replaced by another one. Each set of
tickers and each interval has a history of its own.
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
from common.forecasting.markets import COINS, CURRENCIES, Market
from common.forecasting.readings import with_read

LONGEST_REQUEST = (
    729  # Yahoo keeps 730 days of hourly prices, and refuses some tickers at exactly that
)
LONGEST_PERIOD = 100_000  # days: more than datetime64[ns] can go back
LONGEST_DAILY = 36_500  # days: a longer period is asked for as "max"
NAMED_TICKERS = 3  # in the name of a cache file of the user's own tickers
DAYS_OF = {"d": 1, "wk": 7, "mo": 30.44, "y": 365.25}
TOLERANCE = 1e-3  # relative, between a cached price and the same hour fetched again
RATE_LIMIT = r"rate.?limit|too many requests|\b429\b"
NO_NETWORK = r"resolve|connect|curl|timed? ?out|network|proxy|\bssl"
# not in threads, which share a switch that turns a lost connection into "possibly delisted";
# not adjusted, because a later dividend would change the prices of before
DOWNLOAD = {
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


def interval_of(market: Market) -> str:
    """The step of a market's prices as Yahoo writes it."""
    return "1h" if market.hourly else "1d"


def cache_path(market: Market) -> Path:
    """The file of a market's history: one for each set of tickers and each interval."""
    return data_folder() / "yahoo" / f"{cache_name(market)}-{interval_of(market)}.parquet"


def cache_name(market: Market) -> str:
    """The market's name; of other tickers than its own, those and a digest of all of them."""
    own = {known.name: known.tickers for known in (COINS, CURRENCIES)}
    if own.get(market.name, market.tickers) == market.tickers:
        return market.name
    tickers = sorted(market.tickers)
    digest = sha256("\0".join(tickers).encode()).hexdigest()[:8]
    shown = [re.sub(r"[^A-Za-z0-9]+", "", ticker) for ticker in tickers[:NAMED_TICKERS]]
    return "-".join([*shown, digest])


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
    prices = checked_prices(history, "yahoo", path, facts)
    notes = [
        f"{count:,} {what.replace('_', ' ')} are left out"
        for what, count in about.get("dropped", {}).items()
        if count and "not_of_every" in what
    ]
    return with_read(prices, notes)


def read_history(raw: bytes, market: Market) -> tuple[pd.DataFrame, JsonObject]:
    """Times x series of a cache file, and what it says about their download.

    Raises ValueError where the values are not those that were written.
    """
    table = pq.read_table(io.BytesIO(raw))
    about = json.loads(table.schema.metadata[b"history"])
    history = table.to_pandas(ignore_metadata=True).set_index("time")
    digest = about.pop("values")
    if set(history.columns) != set(market.series) or digest != digest_of(history):
        raise ValueError("other values than were written")
    return history[list(market.series)], about


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
    """Downloads the whole hours or days that every ticker has, into the cached history.

    Returns that as `cached` does. Raises InputError where Yahoo gives nothing, or other prices
    than before; the cache then stays as it is.
    """
    path = cache_path(market)
    now = now or pd.Timestamp.now("UTC")
    earlier = intact_cache(market)
    request = request_of(period, market)
    closes = download_closes(market, request, attempts, sleep)

    # Whole steps that every ticker has:
    whole = closes[whole_steps(closes.index, market, now)]
    history = whole.set_axis(list(market.series), axis=1).dropna()
    unit = "hours" if market.hourly else "days"
    dropped = {
        f"partial_{unit}": len(closes) - len(whole),
        f"{unit}_not_of_every_ticker": len(whole) - len(history),
    }
    if len(history) < 2 <= len(whole):
        raise InputError(
            f"Yahoo: {', '.join(market.tickers)} share {len(history)} of {len(whole)} {unit}; "
            "ask for fewer tickers, or for those of one exchange (--tickers, --interval 1d)"
        )

    # One history, checked before it is written:
    if earlier is not None:
        history = merged(earlier, history, path)
    checked_prices(history, "yahoo", "Yahoo", {})
    about = {"fetched": now.strftime("%Y-%m-%dT%H:%M:%SZ"), "dropped": dropped}
    write_history(path, history, about)
    return cached(market, period)


def request_of(period: str, market: Market) -> str:
    """The period to ask Yahoo for: no more than it keeps."""
    days = days_of(period)
    if market.hourly:
        return period if days <= LONGEST_REQUEST else f"{LONGEST_REQUEST}d"
    return period if days <= LONGEST_DAILY else "max"


def whole_steps(times: pd.DatetimeIndex, market: Market, now: pd.Timestamp) -> np.ndarray:
    """Whether each row is an hour or a day that is over, bool (T,).

    Hours begin where most of them do: at full hours, or at the half hours of a stock exchange.
    """
    if not market.hourly:
        return np.asarray(times + DAY <= now)
    within = times - times.floor("h")
    usual = within.value_counts().index[0]  # (the most frequent)
    return np.asarray((within == usual) & (times + HOUR <= now))


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
    market: Market,
    period: str,
    attempts: int,
    sleep: Callable[[float], None] = time.sleep,
) -> pd.DataFrame:
    """Yahoo's closes in UTC, one column per ticker, NaN where it has none.

    The running hour or day is included. Raises InputError when a ticker has no price at all after
    `attempts` with doubling pauses.
    """
    tickers = market.tickers
    with yfinance_errors() as errors:
        for attempt in range(attempts):
            if attempt:
                sleep(2.0**attempt)
            errors.clear()
            try:
                closes = tidy_closes(download(market, period), market)
            except Exception as error:  # yfinance and its network library let theirs through
                errors.append(repr(error))
                empty = list(tickers)
                continue
            empty = [ticker for ticker in tickers if closes[ticker].isna().all()]
            if not empty:
                return closes
    raise InputError(reason_of(" ".join(errors), empty, period, market))


def download(market: Market, period: str) -> pd.DataFrame:
    """What yfinance returns, without its warnings."""
    with warnings.catch_warnings():
        import yfinance  # which sets filters of its own

        warnings.simplefilter("ignore")  # pandas 3 on yfinance's code
        frame = yfinance.download(
            list(market.tickers), period=period, interval=interval_of(market), **DOWNLOAD
        )
    return pd.DataFrame(columns=["Close"]) if frame is None or frame.empty else frame


def tidy_closes(frame: pd.DataFrame, market: Market) -> pd.DataFrame:
    """The closes of yfinance's table, sorted by time in UTC, one column per ticker.

    The columns are (price, ticker), or (ticker, price) when grouped by ticker, or prices alone.
    Days are the exchange's own dates, whatever the zone of their stamps.
    """
    tickers = market.tickers
    if frame.columns.nlevels > 1:
        price_first = "Close" in frame.columns.get_level_values(0)
        frame = frame.xs("Close", axis=1, level=0 if price_first else 1)
    else:
        frame = frame[["Close"]].set_axis(list(tickers[:1]), axis=1)
    if market.hourly:
        times = pd.to_datetime(frame.index, utc=True).as_unit("ns")
    else:
        dates = pd.DatetimeIndex(frame.index).tz_localize(None).normalize()
        times = dates.tz_localize("UTC").as_unit("ns")
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


def reason_of(errors: str, empty: Sequence[str], period: str, market: Market) -> str:
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
        f"Yahoo gave no {'hourly' if market.hourly else 'daily'} prices of {', '.join(empty)}: "
        f"an unknown ticker, or none in {period} ({answer})"
    )
