"""What the headers of published price files mean: closes, volumes, indices, clocks, tickers.

A name is compared in small letters, without brackets, numbering and repeated blanks.
"""

from __future__ import annotations

import dataclasses
import re

CLOSE = "close"
PRICE_FIELDS = ("open", "high", "low", CLOSE, "adj close")

# the words that exporters use, English first, then those of Investing.com's other languages
FIELDS = {
    "open": "open, opening price, open price, abertura, apertura, eröffn, eröffnung, ouv",
    "high": "high, high price, max, máxima, máximo, massimo, hoch, plus haut",
    "low": "low, low price, min, mínima, mínimo, minimo, tief, plus bas",
    "adj close": "adj close, adjclose, adjusted close, close adj, adjusted",
    CLOSE: (
        "close, closing price, close price, close/last, close last, last, last price, price, "
        "settle, último, ultimo, zuletzt, dernier, cierre, chiusura, fechamento, schluss, "
        "schlusskurs, kurs, preis, preço, precio, prix, prezzo, value, y"
    ),
    "volume": (
        "volume, vol, qty, quantity, amount, tickvol, tick volume, real volume, volumes, "
        "volumen, turnover, total volume, "
        "quote asset volume, quote volume, base volume, taker buy base asset volume, "
        "taker buy quote asset volume, taker buy volume, taker buy quote volume, volume ccy, "
        "vol ccy, vol quote, volumeto, volumefrom, market cap, marketcap, mktcap, "
        "circulatingsupply, circulating supply"
    ),
    "other": (
        "change, change %, % change, chg, chg %, var, var %, var%, % var, variation %, +/- %, "
        "changepercent, change percent, vwap, weighted price, average, "
        "count, trades, tradecount, trade count, trades count, number of trades, no of trades, "
        "num trades, transactions, ignore, confirm, spread, dividends, dividend, dividend amount, "
        "ex-dividend, stock splits, split ratio, split coefficient, splitfactor, divcash, "
        "capital gains, openint, open int, open interest, oi, prev close, previous close, "
        "52w h, 52w l, adjopen, adj open, adjhigh, adj high, adjlow, adj low, adjvolume, "
        "adj volume"
    ),
    "row": "sno, s no, sr no, sl no, serial no, serial number, rownum, row number, unnamed: 0",
    "clock": (
        "unix, unix timestamp, unix time, timestamp, epoch, close time, closetime, timeclose, "
        "time close, timehigh, time high, timelow, time low, timeopen, time open, year, month, "
        "day, hour, minute, second, weekday, day of week, dayofweek, week, quarter"
    ),
}
FIELD_OF = {word.strip(): field for field, words in FIELDS.items() for word in words.split(",")}
RUN_TOGETHER = {word.replace(" ", ""): field for word, field in FIELD_OF.items()}
# without the words that are series elsewhere, as VALUE or MAX
TICKER_FIELDS = {
    "open": "open",
    "high": "high",
    "low": "low",
    "close": CLOSE,
    "adj close": "adj close",
    "adjclose": "adj close",
    "volume": "volume",
    "vol": "volume",
    "market cap": "volume",
    "marketcap": "volume",
}

# the first that a table has is its time, where its cells are dates
TIME_NAMES = (
    "date/time",
    "datetime",
    "date time",
    "datetime utc",
    "date",
    "ds",
    "time",
    "open time",
    "opentime",
    "timeopen",
    "time open",
    "window start",
    "timestamp",
    "snapped at",
    "observation date",
    "gmt time",
    "local time",
    "date utc",
    "time utc",
    "timestamp utc",
    "unix timestamp",
    "unix time",
    "unix",
    "epoch",
    "data",
    "datum",
    "fecha",
    "price date",
    "trade date",
    "dateandtime",
    "dt",
)
TICKER_NAMES = (
    "unique id",
    "ticker",
    "symbol",
    "pair",
    "instrument",
    "instrument name",
    "currency pair",
    "asset",
    "coin",
    "stock",
    "tic",
    "ric",
    "security",
    "code",
    "series id",
    "name",
)


@dataclasses.dataclass(frozen=True)
class Label:
    """What a column is: its name in the file, the ticker in it, and which field of that it has."""

    name: str
    ticker: str = ""
    field: str = ""


def plain(name: str) -> str:
    """A name as it is compared: `<CLOSE>` and "4. close" -> close, Adj_Close -> adj close."""
    text = re.sub(r"^\d+[a-z]?\. ", "", name.strip().lower())
    text = text.strip("<>\"'").strip()
    text = re.sub(r"\((.*?)\)", r" \1", text)
    return re.sub(r"[\s_]+", " ", text).strip(" .")


def label_of(name: str) -> Label:
    """A column's ticker and field as its name alone tells them.

    `Close` is a field, `Close_BTC-USD`, `BTC-USD close` and `('Close', 'BTC-USD')` are a field of
    a ticker, and `BTC` is neither: a price under its own name.
    """
    text = plain(name)
    together = text.replace(" ", "")
    if text in FIELD_OF or together in RUN_TOGETHER:
        return Label(name, "", FIELD_OF.get(text) or RUN_TOGETHER[together])
    if text in TIME_NAMES:
        return Label(name, "", "clock")
    pair = re.fullmatch(r"\(['\"](.*)['\"], ['\"](.*)['\"]\)", name.strip())
    words = list(pair.groups()) if pair else re.split(r"[\s_|:]+", name.strip().strip("()"))
    for count in (1, 2):
        for field_words, rest in (
            (words[:count], words[count:]),
            (words[-count:], words[:-count]),
        ):
            field = TICKER_FIELDS.get(plain(" ".join(field_words)), "")
            if field and rest:
                return Label(name, "_".join(rest).strip("()"), field)
    is_volume = "volume" in together or "marketcap" in together
    return Label(name, "", "volume" if is_volume else "")


def is_ticker_name(name: str) -> bool:
    """Whether a column of that name says which ticker a row is of."""
    return plain(name) in TICKER_NAMES


def time_rank(name: str) -> int:
    """How far behind the usual names of a time column a name stands; -1 where it is none."""
    text = plain(name)
    return TIME_NAMES.index(text) if text in TIME_NAMES else -1
