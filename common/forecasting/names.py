"""What the headers of published price files mean: closes, volumes, indices, clocks, tickers.

A name is compared in small letters, without brackets, numbering and repeated blanks.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

CLOSE = "close"
LISTED = 12  # names in a message
PRICE_FIELDS = ("open", "high", "low", CLOSE, "adj close")

# the words that exporters use, English first, then those of Investing.com's other languages
FIELDS = {
    "open": (
        "open, opening price, open price, price open, px open, abertura, apertura, eröffn, "
        "eröffnung, erster, ouv, otwarcie, откр, открытие, açılış, 开盘, 开盘价, 始値, 시가, 오픈"
    ),
    "high": (
        "high, high price, price high, px high, max, máxima, máximo, massimo, hoch, tageshoch, "
        "plus haut, hoog, najwyzszy, najwyższy, макс, максимум, yüksek, 最高, 最高价, 高値, 고가"
    ),
    "low": (
        "low, low price, price low, px low, min, mínima, mínimo, minimo, tief, tagestief, "
        "plus bas, laag, najnizszy, najniższy, мин, минимум, düşük, 最低, 最低价, 安値, 저가"
    ),
    "adj close": "adj close, adjclose, adjusted close, close adj, adjusted",
    CLOSE: (
        "close, closing price, close price, close/last, close last, last, last price, price, "
        "settle, último, ultimo, zuletzt, dernier, cierre, chiusura, fechamento, schluss, "
        "schlusskurs, kurs, preis, preço, precio, prix, prezzo, price close, px last, px close, "
        "prc, ostatnio, zamkniecie, zamknięcie, цена, закрытие, laatste, şimdi, 收盘, 收盘价, "
        "終値, 종가, valor, obs value, value, y"
    ),
    "volume": (
        "volume, vol, qty, quantity, amount, tickvol, tick volume, real volume, volumes, "
        "volumen, turnover, total volume, px volume, volume traded, number of shares, "
        "wolumen, wol, объём, объем, hac, umsatz, stücke, stuecke, 成交量, 成交额, 出来高, 거래량, "
        "quote asset volume, quote volume, base volume, taker buy base asset volume, "
        "taker buy quote asset volume, taker buy volume, taker buy quote volume, volume ccy, "
        "vol ccy, vol quote, vol ccy quote, volumeto, volumefrom, market cap, marketcap, mktcap, "
        "circulatingsupply, circulating supply"
    ),
    "other": (
        "return, returns, log return, log returns, logret, pct change, pct chg, pre close, "
        "涨跌幅, 涨跌额, 振幅, 换手率, change, change %, % change, chg, chg %, "
        "var, var %, var%, % var, variation %, +/- %, "
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
    "return": "other",
    "returns": "other",
    "log return": "other",
    "logret": "other",
    "pct change": "other",
}
# the short names of bars at Polygon, Finnhub and OKX, in a table that has the first four of them
LETTERS = {"o": "open", "h": "high", "l": "low", "c": CLOSE, "v": "volume", "vw": "other"}
LETTERS |= {"n": "other", "s": "other", "t": "clock"}
MIDDLE = ("mid", "price")  # words before a field that are no ticker
WRITTEN_TOGETHER = "open|high|low|close|volume"
# a price's currency in brackets names no ticker, as in "close (USD)"
IN_CURRENCY = r"(open|high|low|close|volume|market ?cap)\s*\((?:USD[TC]?|EUR|GBP|JPY|CNY|INR|CHF)\)"

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
    "time period start",
    "time open",
    "window start",
    "start time",
    "timestamp",
    "ts",
    "mts",
    "ts event",
    "dates",
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
    "дата",
    "tarih",
    "日期",
    "交易日期",
    "日付け",
    "日付",
    "날짜",
    "time period",
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
    "ts code",
    "代码",
    "股票代码",
    "product id",
    "item id",
    "series id",
    "permno",
    "gvkey",
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
    return re.sub(r"[\s_]+", " ", text).strip(" .*")


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
    in_currency = re.fullmatch(
        IN_CURRENCY, re.sub(r"^\d+[ab]?\. ", "", name.strip()), re.IGNORECASE
    )
    if in_currency:
        return Label(name, "", FIELD_OF[in_currency[1].lower()])
    pair = re.fullmatch(r"\(['\"](.*)['\"], ['\"](.*)['\"]\)", name.strip())
    words = list(pair.groups()) if pair else re.split(r"[\s_|:]+", name.strip().strip("()"))
    for count in (2, 1):
        for field_words, rest in (
            (words[:count], words[count:]),
            (words[-count:], words[:-count]),
        ):
            field = TICKER_FIELDS.get(plain(" ".join(field_words)), "")
            if field and rest:
                return Label(name, "_".join(rest).strip("()"), field)
    for pattern in (
        rf"(?i)(?P<ticker>.+)[.-](?P<field>{WRITTEN_TOGETHER})",  # BTC-USD.Close
        rf"(?i)(?P<field>{WRITTEN_TOGETHER})[.-](?P<ticker>.+)",
        rf"(?P<ticker>.*[a-z0-9])(?P<field>{WRITTEN_TOGETHER.title()})",  # btcClose
    ):
        match = re.fullmatch(pattern, name.strip())
        if match:
            ticker = "" if match["ticker"].lower() in MIDDLE else match["ticker"]
            return Label(name, ticker, TICKER_FIELDS[match["field"].lower()])
    is_volume = "volume" in together or "marketcap" in together
    return Label(name, "", "volume" if is_volume else "")


def with_letters(labels: Sequence[Label]) -> list[Label]:
    """The labels with the fields that o, h, l and c stand for, alone or as mid.o, where all are."""
    parts = [re.fullmatch(r"(?:(.+)[._ ])?([a-z]{1,2})", label.name.strip()) for label in labels]
    found: dict[str, set[str]] = {}
    for match in parts:
        if match:
            found.setdefault(match[1] or "", set()).add(match[2])
    result = []
    for label, match in zip(labels, parts, strict=True):
        prefix = (match[1] or "") if match else ""
        if match and match[2] in LETTERS and found[prefix] >= {"o", "h", "l", "c"}:
            ticker = "" if prefix in MIDDLE else prefix
            label = Label(label.name, ticker, LETTERS[match[2]])
        result.append(label)
    return result


def is_ticker_name(name: str) -> bool:
    """Whether a column of that name says which ticker a row is of."""
    return plain(name) in TICKER_NAMES


def time_rank(name: str) -> int:
    """How far behind the usual names of a time column a name stands; -1 where it is none."""
    text = plain(name)
    return TIME_NAMES.index(text) if text in TIME_NAMES else -1


def listed(names: Sequence[str]) -> str:
    """Names with commas between, the first dozen of many."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
