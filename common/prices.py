"""Price histories from Yahoo, from the user's tables or simulated -> one checked array that knows where it comes from.

Shape letters: T times, S series.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.signal import lfilter

from common.cli import InputError, data_folder
from common.run import atomic_path

TIME_NAMES = ("time", "date", "ds", "datetime", "timestamp")
HOUR, DAY = np.timedelta64(1, "h"), np.timedelta64(1, "D")
YAHOO_DAYS = 729  # Yahoo keeps 730 days of hourly prices, and refuses some tickers at exactly that


@dataclasses.dataclass(frozen=True)
class Prices:
    """Checked prices: `times` datetime64[ns] (T,) in UTC, increasing; `values` float64 (T, S), finite; `hourly` or daily."""

    times: np.ndarray
    values: np.ndarray
    series: tuple[str, ...]
    hourly: bool
    source: str
    provenance: dict[str, Any]

    def contiguous(self) -> np.ndarray:
        """bool (T-1,): row i to i + 1 is no gap, that is one hour, or at most 5 days (weekend and holidays) in a daily series."""
        steps = np.diff(self.times)
        return steps == HOUR if self.hourly else steps <= 5 * DAY

    def moment(self, row: int) -> str:
        """The time of a row in ISO 8601; only the date in a daily series."""
        return f"{str(self.times[row])[:19]}Z" if self.hourly else str(self.times[row])[:10]


@dataclasses.dataclass(frozen=True)
class Market:
    """S series that belong together; `first` is a typical price, `deviation` and `correlation` are those of one step's log returns."""

    name: str
    series: tuple[str, ...]
    tickers: tuple[str, ...]
    file: str
    hourly: bool
    first: tuple[float, ...]
    deviation: tuple[float, ...]
    correlation: tuple[tuple[float, ...], ...]


# fmt: off
COINS = Market(  # measured on crypto_hourly_usdt.csv.gz, 2020-08 to 2025-06
    "coins", ("BTC", "ETH", "DOGE", "ADA", "LTC", "SOL", "DOT"),
    ("BTC-USD", "ETH-USD", "DOGE-USD", "ADA-USD", "LTC-USD", "SOL-USD", "DOT-USD"), "crypto_hourly_usdt.csv.gz", True,
    (40_000.0, 2_100.0, 0.10, 0.50, 86.0, 47.0, 6.6), (0.00658, 0.00854, 0.01448, 0.01129, 0.01025, 0.01374, 0.01174),
    ((1.00, 0.84, 0.53, 0.68, 0.73, 0.62, 0.68), (0.84, 1.00, 0.54, 0.72, 0.76, 0.66, 0.73),
     (0.53, 0.54, 1.00, 0.51, 0.51, 0.45, 0.50), (0.68, 0.72, 0.51, 1.00, 0.69, 0.61, 0.70),
     (0.73, 0.76, 0.51, 0.69, 1.00, 0.59, 0.69), (0.62, 0.66, 0.45, 0.61, 0.59, 1.00, 0.61),
     (0.68, 0.73, 0.50, 0.70, 0.69, 0.61, 1.00)),
)
CURRENCIES = Market(  # USD per unit; measured on fx_oil_daily.csv, 2010 to 2024, without the day of WTI's negative price
    "currencies", ("EUR", "GBP", "JPY", "AUD", "CAD", "CHF", "WTI"),
    ("EURUSD=X", "GBPUSD=X", "JPYUSD=X", "AUDUSD=X", "CADUSD=X", "CHFUSD=X", "CL=F"), "fx_oil_daily.csv", False,
    (1.16, 1.37, 0.0092, 0.76, 0.78, 1.06, 73.0), (0.00535, 0.00568, 0.00596, 0.0069, 0.00504, 0.00619, 0.0301),
    ((1.00, 0.62, 0.32, 0.56, 0.48, 0.66, 0.06), (0.62, 1.00, 0.20, 0.55, 0.49, 0.44, 0.08),
     (0.32, 0.20, 1.00, 0.20, 0.10, 0.40, -0.05), (0.56, 0.55, 0.20, 1.00, 0.70, 0.41, 0.14),
     (0.48, 0.49, 0.10, 0.70, 1.00, 0.35, 0.18), (0.66, 0.44, 0.40, 0.41, 0.35, 1.00, 0.01),
     (0.06, 0.08, -0.05, 0.14, 0.18, 0.01, 1.00)),
)
# fmt: on


def load_prices(
    source: str,
    data: Path | None,
    market: Market,
    period: str = "max",
    seed: int = 0,
    steps: int = 20_000,
) -> Prices:
    """Prices from "csv" | "yahoo" | "cache" (Yahoo's as last fetched) | "simulated"; "auto" takes the first of these that there is.

    Raises InputError with one line for anything missing, unreadable or out of range; only "auto" falls back, with a notice
    in the provenance of a simulation. `period` ("60d", "6mo", "max") is for Yahoo's, `seed` and `steps` for the simulation.
    """
    if source not in (known := ("auto", "yahoo", "cache", "csv", "simulated")):
        raise InputError(f"--source {source}; allowed are {', '.join(known)}")
    if data is not None and source not in ("auto", "csv"):
        raise InputError(f"--data {data} goes with --source csv or auto, not with {source}")
    _days(period)
    path = data_folder() / market.file if data is None else Path(data)
    if source == "csv" or (source == "auto" and (data is not None or path.exists())):
        return _usd_quotes(read_table(path), market)
    if source in ("cache", "yahoo"):
        return cached(market, period) if source == "cache" else fetch(market, period)
    if source == "auto":
        with contextlib.suppress(InputError):
            return cached(market, period)
        with contextlib.suppress(InputError):
            if _reachable():
                return fetch(market, period, attempts=1)
    return simulate(market, steps, seed)


def select(prices: Prices, series: Sequence[str]) -> Prices:
    """The prices of exactly these series, in this order. Raises InputError when the table lacks some or has others."""
    if set(prices.series) != set(series):
        where = prices.provenance.get("path", prices.source)
        raise InputError(
            f"{where} has the series {', '.join(prices.series)}; exactly {', '.join(series)} are needed"
        )
    values = prices.values[:, [prices.series.index(name) for name in series]]
    return dataclasses.replace(prices, values=values, series=tuple(series))


def check_positive(prices: Prices, why: str) -> None:
    """Raises InputError that names the first price which is zero or negative, and `why` ("a logarithm needs prices above zero")."""
    for row, column in np.argwhere(prices.values <= 0)[:1]:
        where, name = prices.provenance.get("path", prices.source), prices.series[column]
        raise InputError(
            f"{where}: {name} is {prices.values[row, column]:g} at {prices.moment(row)}; {why}"
        )


def _prices(frame: pd.DataFrame, source: str, where: object, **facts: Any) -> Prices:
    """Times x series through the checks that all sources share; times without a zone are UTC, `facts` join the provenance."""
    index, values = frame.index, np.ascontiguousarray(frame, np.float64)
    if len(frame) < 2:
        raise InputError(f"{where}: {len(frame)} rows of prices; at least 2 are needed")
    for row, column in np.argwhere(~np.isfinite(values))[:1]:
        raise InputError(
            f"{where}: {frame.columns[column]} at {index[row]} is missing or not finite; every row needs every price"
        )
    _ordered(index, where)
    utc = index.tz_convert(None) if index.tz else index
    usual = np.sort(np.diff(utc))[(len(utc) - 2) // 2]
    hourly, unit = bool(usual == HOUR), HOUR if usual == HOUR else DAY
    if not hourly and not DAY <= usual <= 5 * DAY:
        raise InputError(
            f"{where}: most steps are {pd.Timedelta(usual)}; hourly or daily prices are needed"
        )
    utc = utc if hourly else index.tz_localize(None).normalize()  # a day is its local date
    steps = np.diff(utc)
    for row in np.flatnonzero(steps < unit)[:1]:
        raise InputError(
            f"{where}: {index[row]} and {index[row + 1]} stand too close; steps of {pd.Timedelta(unit)} or more are needed"
        )
    prices = Prices(utc.to_numpy(), values, tuple(frame.columns), hourly, source, {})
    gaps = np.flatnonzero(~prices.contiguous())
    largest = gaps[np.argsort(-steps[gaps], kind="stable")][:10]
    zone = {"None": "none named, read as UTC", "UTC": "UTC"}.get(
        str(index.tz), f"{index.tz}, turned into UTC"
    )
    counts: dict[str, Any] = {
        "count": len(gaps),
        "missing_hours" if hourly else "missing_days": int((steps[gaps] // unit - 1).sum()),
    }
    counts["largest"] = [
        {"after": prices.moment(row), "before": prices.moment(row + 1)} for row in largest
    ]
    identity = {
        "rows": len(utc),
        "first": prices.moment(0),
        "last": prices.moment(-1),
        "gaps": counts,
    }
    return dataclasses.replace(prices, provenance={"time_zone": zone, **facts, **identity})


def _ordered(index: pd.DatetimeIndex, where: object) -> None:
    for row in np.flatnonzero(index[1:] <= index[:-1])[:1]:
        what = "stands twice" if index[row] == index[row + 1] else f"comes after {index[row]}"
        raise InputError(
            f"{where}: {index[row + 1]} {what}; every time once and in order is needed"
        )


def _short(error: object) -> str:
    return " ".join(str(error).split())[:200]


# --------------------------------------------------------------------------------------------------------------- tables


def read_table(path: Path) -> Prices:
    """Prices from a .csv, .txt, .tsv (or these .gz) or .parquet table: a time column and one a series, or long (unique_id, ds, y).

    Raises InputError with one line that says where the table is not what is needed.
    """
    path = Path(path)
    facts: dict[str, Any] = {}
    ending = path.name.lower().removesuffix(".gz")
    if not path.is_file():
        raise InputError(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; a table of prices is needed"
        )
    if not ending.endswith((".csv", ".txt", ".tsv", ".parquet")):
        raise InputError(f"{path}: allowed are .csv, .txt and .tsv, plain or .gz, and .parquet")
    try:
        raw = path.read_bytes()
        if ending.endswith(".parquet"):
            table = pd.read_parquet(io.BytesIO(raw))
            table = table.reset_index(
                drop=table.index.dtype.kind in "iu" and table.index.name is None
            )
        else:
            text = (
                (gzip.decompress(raw) if path.name.lower().endswith(".gz") else raw)
                .decode("utf-8-sig")
                .lstrip("\r\n")
            )
            facts["separator"] = max(",;\t", key=text.partition("\n")[0].count)
            # with header=None pandas holds every row to the first one's length, and leaves names that stand twice alone
            table = pd.read_csv(
                io.StringIO(text),
                sep=facts["separator"],
                header=None,
                dtype="str",
                keep_default_na=False,
            )
            table = table.iloc[1:].reset_index(drop=True).set_axis(table.iloc[0], axis=1)
    except (
        Exception
    ) as error:  # pyarrow, zlib and pandas raise their own on a damaged or empty file
        raise InputError(f"{path}: not a readable table ({_short(error)})") from None
    table.columns = [str(name).strip() for name in table.columns]
    lower = [name.lower() for name in table.columns]
    for name in lower:
        if not name or lower.count(name) > 1:
            raise InputError(
                f"{path}: {f'two columns named {name}' if name else 'a column without a name'}; each needs its own"
            )
    facts |= {"path": path.name, "sha256": hashlib.sha256(raw).hexdigest()}
    if {"unique_id", "ds", "y"} <= set(lower):
        table.columns = lower
        times, y, names = (
            _times(table["ds"], path),
            _numbers(table["y"], path),
            table["unique_id"].astype("str").fillna(""),
        )
        for row in np.flatnonzero(~np.isfinite(y))[:1]:
            raise InputError(
                f"{path}: {names[row]} at {times[row]} is missing or not finite; every row needs a price"
            )
        for name, rows in names.groupby(names).indices.items():
            _ordered(times[rows], f"{path}, series {name}")
        whole = pd.Series(y, [times, names]).unstack()[list(names.unique())]
        frame = whole.dropna()
        if frame.empty:
            raise InputError(
                f"{path}: its series ({', '.join(whole)}) share no time; rows with the same ds are needed"
            )
        facts["times_not_in_every_series"] = len(whole) - len(frame)
    else:
        place = next((i for i, name in enumerate(lower) if name in TIME_NAMES), 0)
        rest = table.drop(columns=table.columns[place])
        if rest.empty:
            raise InputError(
                f"{path}: {len(rest)} rows and {rest.shape[1]} price columns beside the time; 2 and 1 are the least"
            )
        times = _times(table.iloc[:, place], path)
        frame = pd.DataFrame({name: _numbers(rest[name], path) for name in rest}).set_axis(times)
    return _prices(frame, "csv", path, **facts)


def _times(column: pd.Series, path: Path) -> pd.DatetimeIndex:
    """Times in one form and one zone. Raises InputError for anything else, bare numbers included: days, seconds, milliseconds?"""
    text, reasons = column.astype("str").fillna("").str.strip(), []
    for row in np.flatnonzero(
        ~text.str.contains("[0-9]") | pd.to_numeric(text, errors="coerce").notna()
    )[:1]:
        what = (
            f"column {column.name}"
            if column.name.lower() in TIME_NAMES
            else f"no time column, and the first, {column.name},"
        )
        raise InputError(
            f"{path}: {what} holds {text[row]!r} in row {row + 1}; times such as 2024-01-31T13:00:00Z are needed"
        )
    for form in ("ISO8601", None):  # None: another form, which the first row tells
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                index = pd.DatetimeIndex(
                    pd.to_datetime(column if column.dtype.kind == "M" else text, format=form)
                ).as_unit("ns")
                if not index.hasnans and not any(
                    "Could not infer" in str(warning.message) for warning in caught
                ):
                    return index
            except (ValueError, OverflowError) as error:
                reasons.append(_short(error).split(". ")[0])
    raise InputError(
        f"{path}: column {column.name}: {[*reasons, 'no times'][0]}; one form and zone are needed, such as 2024-01-31T13:00:00Z"
    )


def _numbers(column: pd.Series, path: Path) -> np.ndarray:
    if column.dtype.kind in "iuf":
        return column.to_numpy(np.float64, na_value=np.nan)
    text = column.astype("str").fillna("").str.strip()
    numbers = pd.to_numeric(text, errors="coerce")
    for row in np.flatnonzero(
        numbers.isna() & ~text.str.lower().isin(("", "nan", "na", "n/a", "null", "none", "<na>"))
    )[:1]:
        raise InputError(
            f"{path}: column {column.name} holds {text[row]!r} in row {row + 1}; numbers with a decimal point are needed"
        )
    return numbers.to_numpy(np.float64)


def _usd_quotes(prices: Prices, market: Market) -> Prices:
    """The quotes USD_per_X and X_per_USD of fx_oil_daily.csv as the market's series in USD per X; any other table as it is."""
    names = [
        next((n for n in (f"USD_per_{s}", f"{s}_per_USD", s) if n in prices.series), "")
        for s in market.series
    ]
    if "" in names or names == list(market.series):
        return prices
    values = prices.values[:, [prices.series.index(name) for name in names]]
    turned = np.array([name.endswith("_per_USD") for name in names])
    quotes = dataclasses.replace(
        prices, values=values[:, turned], series=tuple(np.array(names)[turned])
    )
    check_positive(quotes, "a quote per USD is above zero")
    values[:, turned] = 1 / quotes.values
    facts = {
        "turned_over": list(quotes.series),
        "left_out": [name for name in prices.series if name not in names],
    }
    return dataclasses.replace(
        prices, values=values, series=market.series, provenance={**prices.provenance, **facts}
    )


# ---------------------------------------------------------------------------------------------------------------- yahoo


def cached(market: Market, period: str = "max") -> Prices:
    """The last `period` of Yahoo's hourly history as fetched and merged so far. Raises InputError without an intact cache."""
    path = _cache(market)
    if not path.exists():
        raise InputError(f"{path} does not exist; --source yahoo fetches it")
    try:
        table = pq.read_table(io.BytesIO(raw := path.read_bytes()))
        kept = json.loads(table.schema.metadata[b"history"])
        frame = table.to_pandas(ignore_metadata=True).set_index("time")
        intact = tuple(frame.columns) == market.series and kept.pop("values") == _digest(frame)
    except (
        Exception
    ):  # pyarrow raises its own errors on a damaged file, and anything may be missing in it
        intact = False
    if not intact:
        raise InputError(f"{path} is damaged; --source yahoo fetches it anew")
    frame = frame[frame.index > frame.index[-1] - _days(period) * DAY]
    facts = {
        "path": path.name,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "tickers": list(market.tickers),
        **kept,
    }
    return _prices(frame, "yahoo", path, **facts)


def fetch(
    market: Market,
    period: str = "max",
    attempts: int = 4,
    sleep: Callable = time.sleep,
    now: pd.Timestamp | None = None,
) -> Prices:
    """Downloads the full hours that every ticker has, merges them into the cached history and returns that as `cached` does.

    Raises InputError where Yahoo gives nothing, or other prices than before; the cache then stays as it is.
    """
    path, old, now = _cache(market), None, now or pd.Timestamp.now("UTC")
    try:
        old = cached(market) if path.exists() else None
    except InputError as error:
        print(f"warning: {error}", file=sys.stderr)
    closes = _closes(
        market.tickers, period if _days(period) <= YAHOO_DAYS else f"{YAHOO_DAYS}d", attempts, sleep
    )
    hours = closes[(closes.index == closes.index.floor("h")) & (closes.index + HOUR <= now)]
    history = hours.set_axis(list(market.series), axis=1).dropna()
    dropped = {
        "partial_hours": len(closes) - len(hours),
        "hours_not_of_every_ticker": len(hours) - len(history),
    }
    if old is not None:
        before = pd.DataFrame(old.values, pd.DatetimeIndex(old.times, tz="UTC"), old.series)
        settled = before.index[:-1].intersection(
            history.index
        )  # the newest cached hour may have been corrected since
        a, b = before.loc[settled].to_numpy(), history.loc[settled].to_numpy()
        for row, column in np.argwhere(np.abs(b - a) > 1e-3 * np.abs(a))[:1]:
            what = f"{old.series[column]} at {settled[row]} is {b[row, column]:g} at Yahoo and {a[row, column]:g} in {path}"
            raise InputError(
                f"{what}, which stays as it is; move that file away to begin a new history"
            )
        history = pd.concat([before[:-1], history, before[-1:]])
        history = history[~history.index.duplicated()].sort_index()
    _prices(history, "yahoo", "Yahoo")  # what fails the checks does not reach the cache
    kept = {
        "values": _digest(history),
        "fetched": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "dropped": dropped,
    }
    table = pa.table({"time": history.index, **{name: history[name] for name in market.series}})
    with atomic_path(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata({"history": json.dumps(kept)}), temporary)
    return cached(market, period)


def _closes(
    tickers: Sequence[str], period: str, attempts: int, sleep: Callable = time.sleep
) -> pd.DataFrame:
    """Yahoo's hourly closes in UTC, a column a ticker, NaN where it has none, the running hour included.

    Raises InputError when a ticker has no price at all after `attempts` with doubling pauses.
    """
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(
            self, record: logging.LogRecord
        ) -> None:  # yfinance logs what fails and returns an empty column
            lines.append(record.getMessage())

    handler, logger = Lines(logging.ERROR), logging.getLogger("yfinance")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        for attempt in range(attempts):
            if attempt:
                sleep(2.0**attempt)
            lines.clear()
            try:
                with warnings.catch_warnings():
                    import yfinance  # which sets filters of its own

                    warnings.simplefilter("ignore")  # pandas 3 on yfinance's code
                    # not in threads, which share a switch that turns a lost connection into "possibly delisted"; not adjusted,
                    # because a later dividend would change the prices of before
                    options = {
                        "auto_adjust": False,
                        "progress": False,
                        "threads": False,
                        "timeout": 10,
                    }
                    frame = yfinance.download(
                        list(tickers), period=period, interval="1h", **options
                    )
                frame = pd.DataFrame(columns=["Close"]) if frame is None or frame.empty else frame
                if (
                    frame.columns.nlevels > 1
                ):  # (price, ticker), or (ticker, price) when grouped by ticker
                    frame = frame.xs(
                        "Close",
                        axis=1,
                        level=0 if "Close" in frame.columns.get_level_values(0) else 1,
                    )
                else:
                    frame = frame[["Close"]].set_axis(list(tickers[:1]), axis=1)
                closes = (
                    frame.set_axis(pd.to_datetime(frame.index, utc=True).as_unit("ns"))
                    .reindex(columns=list(tickers))
                    .sort_index()
                )
                closes = closes[~closes.index.duplicated(keep="last")].astype(np.float64)
                if not (empty := [ticker for ticker in tickers if closes[ticker].isna().all()]):
                    return closes
            except (
                Exception
            ) as error:  # yfinance and the network library below it let theirs through
                lines.append(repr(error))
                empty = list(tickers)
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    whole = " ".join(lines)
    said = _short(whole) or "an empty answer"
    if re.search(r"rate.?limit|too many requests|\b429\b", whole, re.I):
        raise InputError(
            f"Yahoo refuses more requests for now, a rate limit ({said}); wait an hour, or use --source cache or --data FILE"
        )
    if re.search(r"resolve|connect|curl|timed? ?out|network|proxy|\bssl", whole, re.I):
        raise InputError(
            f"Yahoo cannot be reached ({said}); without a network use --source cache or --data FILE"
        )
    raise InputError(
        f"Yahoo gave no hourly prices of {', '.join(empty)}: an unknown ticker, or none in {period} ({said})"
    )


def _reachable() -> bool:
    """Whether Yahoo answers within seconds; where a network swallows requests yfinance would wait for minutes."""
    try:
        urllib.request.urlopen("https://query2.finance.yahoo.com", timeout=4).close()
    except urllib.error.HTTPError:  # an answer all the same
        return True
    except (OSError, http.client.HTTPException):
        return False
    return True


def _cache(market: Market) -> Path:
    return data_folder() / "yahoo" / f"{market.name}-1h.parquet"


def _digest(frame: pd.DataFrame) -> str:
    parts = (
        "\0".join(frame.columns).encode(),
        frame.index.as_unit("ns").asi8.tobytes(),
        frame.to_numpy().tobytes("C"),
    )
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _days(period: str) -> int:
    """Days of a period as Yahoo writes it, at most what datetime64[ns] can go back; "max" is that."""
    if not (parts := re.fullmatch(r"max|([1-9]\d{0,3})(d|wk|mo|y)", period)):
        raise InputError(
            f"--period {period}; allowed are max, or a number and d, wk, mo or y, such as 60d or 6mo"
        )
    return (
        100_000
        if period == "max"
        else min(
            100_000, round(int(parts[1]) * {"d": 1, "wk": 7, "mo": 30.44, "y": 365.25}[parts[2]])
        )
    )


# ----------------------------------------------------------------------------------------------------------- simulation


def simulate(market: Market, steps: int = 20_000, seed: int = 0) -> Prices:
    """Prices with the market's deviations and correlations, Student t shocks (4 df), volatility in clusters and no predictable mean.

    Log volatility is a shared and an own AR(1) (stochastic volatility, Taylor 1986), times a cycle of the day when hourly.
    """
    if steps < 10:
        raise InputError(f"--steps {steps}; a simulation has at least 10")
    end, frequency = ("2024-12-31 23:00", "h") if market.hourly else ("2024-12-31", "B")
    index = pd.date_range(end=end, periods=steps, freq=frequency, tz="UTC", unit="ns")
    rng, n, size = np.random.default_rng(seed), steps - 1, len(market.series)
    # einsum rather than a BLAS product, whose last bits depend on the number of threads
    shocks = np.einsum(
        "ts,us->tu", rng.standard_normal((n, size)), np.linalg.cholesky(market.correlation)
    )
    shocks *= np.sqrt(
        2 / rng.chisquare(4, (n, 1))
    )  # one divisor for all series: multivariate t, crashes come together
    memory, burn_in = 0.99, 1000
    waves = lfilter(
        [np.sqrt(1 - memory**2)], [1, -memory], rng.standard_normal((n + burn_in, 1 + size)), axis=0
    )[burn_in:]
    returns = shocks * np.exp(0.5 * waves[:, :1] + 0.1 * waves[:, 1:])
    if market.hourly:
        returns *= 1.05 + 0.3 * np.cos(2 * np.pi * (index.hour.to_numpy()[1:, None] - 15) / 24)
    returns *= np.array(market.deviation) / returns.std(0)
    values = np.array(market.first) * np.exp(
        np.concatenate([np.zeros((1, size)), np.cumsum(returns, 0)])
    )
    frame = pd.DataFrame(values, index, list(market.series))
    notice = "simulated prices, not real data; get real ones with --source yahoo, --data FILE, or "
    notice += f"{market.file} in the folder that ADL_DATA_DIR names (default data/)"
    facts = {
        "generator": "common/prices.py simulate",
        "seed": seed,
        "steps": steps,
        "sha256": _digest(frame),
        "notice": notice,
    }
    return _prices(frame, "simulated", "simulation", **facts)
