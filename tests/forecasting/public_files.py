"""Price files in the shapes that exporters publish, with what is in them, written by hand."""

from __future__ import annotations

import dataclasses
import gzip
import io
import zipfile
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class PublicFile:
    """Files by name, and the right times, series and values (one list per time)."""

    files: dict[str, bytes]
    times: list[str]
    series: list[str]
    values: list[list[float]]
    words: tuple[str, ...] = ()
    """what the line about the reading says"""

    def write(self, folder: Path) -> Path:
        """Writes the files; the path is the one file, or the folder of several."""
        for name, raw in self.files.items():
            (folder / name).write_bytes(raw)
        return folder / next(iter(self.files)) if len(self.files) == 1 else folder


def one(name: str, text: str, encoding: str = "utf-8") -> dict[str, bytes]:
    """A file of lines that are indented here."""
    lines = [line.strip(" ") for line in text.strip("\n ").split("\n")]
    return {name: ("\n".join(lines) + "\n").encode(encoding)}


def zipped(name: str, text: str) -> dict[str, bytes]:
    """The same inside a .zip."""
    ((_, raw),) = one(name, text).items()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"data/{name}", raw)
        archive.writestr("__MACOSX/._" + name, b"\0\0")
    return {name.rsplit(".", 1)[0] + ".zip": buffer.getvalue()}


FEW = ["2018-11-26", "2018-11-27", "2018-11-28"]
GSPC = [[2673.45], [2682.17], [2743.79]]
YAHOO = """
    Date,Open,High,Low,Close,Adj Close,Volume
    2018-11-26,2649.97,2674.35,2649.97,2673.45,2670.01,3443950000
    2018-11-27,2663.75,2682.53,2655.89,2682.17,2680.02,3485220000
    2018-11-28,2691.45,2744.00,2684.38,2743.79,2740.03,3951670000"""
YAHOO_BACKWARDS = """
    Date,Open,High,Low,Close,Adj Close,Volume
    2018-11-28,2691.45,2744.00,2684.38,2743.79,2740.03,3951670000
    2018-11-27,2663.75,2682.53,2655.89,2682.17,2680.02,3485220000
    2018-11-26,2649.97,2674.35,2649.97,2673.45,2670.01,3443950000"""
BARS = ["2017-04-19T09:00", "2017-04-19T10:00", "2017-04-19T11:00"]
EURUSD = [[1.0716], [1.0721], [1.0709]]
BINANCE_ROWS = """
    {0}00000{u},42283.58,42554.57,42261.02,42475.23,1271.68108,{0}99999{v},53957248.97,47134,682.57,2,0
    {1}00000{u},42475.23,42775.00,42431.65,42613.56,1196.37856,{1}99999{v},50984142.51,46396,619.44,2,0
    {2}00000{u},42613.57,42638.41,42500.00,42581.10,685.21980,{2}99999{v},29161340.56,35087,345.32,2,0"""
BINANCE_STAMPS = "17040672", "17040708", "17040744"
BINANCE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
    "taker_buy_quote_volume,ignore"
)
BTC_HOURS = ["2024-01-01T00:00", "2024-01-01T01:00", "2024-01-01T02:00"]
BTC = [[42475.23], [42613.56], [42581.10]]
DAYS = ["2024-01-02", "2024-01-03", "2024-01-04"]

PUBLIC: dict[str, PublicFile] = {
    "Yahoo, oldest first": PublicFile(
        one("GSPC.csv", YAHOO),
        FEW,
        ["GSPC"],
        GSPC,
        ("left out: Open, High, Low, Adj Close, Volume",),
    ),
    "Yahoo, newest first": PublicFile(
        one("GSPC.csv", YAHOO_BACKWARDS), FEW, ["GSPC"], GSPC, ("newest first, turned round",)
    ),
    "Yahoo in a .zip": PublicFile(zipped("GSPC.csv", YAHOO), FEW, ["GSPC"], GSPC),
    "Kaggle's coins": PublicFile(
        one(
            "coin_Bitcoin.csv",
            """
            SNo,Name,Symbol,Date,High,Low,Open,Close,Volume,Marketcap
            1,Bitcoin,BTC,2013-04-29 23:59:59,147.488,134.0,134.444,144.539,0.0,1603768864.5
            2,Bitcoin,BTC,2013-04-30 23:59:59,146.929,134.05,144.0,139.0,0.0,1542813125.0
            3,Bitcoin,BTC,2013-05-01 23:59:59,139.889,107.72,139.0,116.989,0.0,1298954593.75""",
        ),
        ["2013-04-29", "2013-04-30", "2013-05-01"],
        ["BTC"],
        [[144.539], [139.0], [116.989]],
        ("left out: SNo, Name, High, Low, Open, Volume, Marketcap",),
    ),
    "CoinGecko": PublicFile(
        one(
            "eth-usd-max.csv",
            """
            snapped_at,price,market_cap,total_volume
            2015-08-07 00:00:00 UTC,2.83162,0.0,90622.0
            2015-08-08 00:00:00 UTC,1.33075,80339475.0,368070.0
            2015-08-10 00:00:00 UTC,0.687586,41556309.0,400464.1""",
        ),
        ["2015-08-07", "2015-08-08", "2015-08-10"],
        ["eth-usd-max"],
        [[2.83162], [1.33075], [0.687586]],
        ("left out: market_cap, total_volume",),
    ),
    "CryptoDataDownload": PublicFile(
        one(
            "Gemini_BTCUSD_1h.csv",
            """
            https://www.CryptoDataDownload.com
            unix,date,symbol,open,high,low,close,Volume BTC,Volume USD
            1646106180,2022-03-01 05:00:00,BTC/USD,43046.58,43046.58,42958.68,42972.52,0.05,2351
            1646102580,2022-03-01 04:00:00,BTC/USD,43018.23,43046.59,43018.23,43046.58,0.14,6074
            1646098980,2022-03-01 03:00:00,BTC/USD,43022.24,43022.24,43016.03,43016.03,0.01,492""",
        ),
        ["2022-03-01T03:00", "2022-03-01T04:00", "2022-03-01T05:00"],
        ["BTC/USD"],
        [[43016.03], [43046.58], [42972.52]],
        ("left out above the header: 'https://www.CryptoDataDownload.com'",),
    ),
    "CryptoDataDownload, before 2020": PublicFile(
        one(
            "Coinbase_BTCUSD_1h.csv",
            """
            Timestamps are UTC timezone,https://www.CryptoDataDownload.com
            Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USD
            2019-10-17 01-PM,BTCUSD,7993.05,7996.03,7965,7995.71,230.14,1836656.69
            2019-10-17 12-PM,BTCUSD,7991.95,8018.39,7989.66,7993.05,221.39,1771963.71
            2019-10-17 11-AM,BTCUSD,8005.8,8009.95,7981.02,7991.95,335.93,2686006.16""",
        ),
        ["2019-10-17T11:00", "2019-10-17T12:00", "2019-10-17T13:00"],
        ["BTCUSD"],
        [[7991.95], [7993.05], [7995.71]],
    ),
    "MetaTrader 5": PublicFile(
        one(
            "EURUSD_H1.csv",
            "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
            "2017.04.19\t09:00:00\t1.0716\t1.0722\t1.0708\t1.0716\t1413\t0\t1\n"
            "2017.04.19\t10:00:00\t1.0717\t1.0723\t1.0715\t1.0721\t1022\t0\t1\n"
            "2017.04.19\t11:00:00\t1.0721\t1.0722\t1.0709\t1.0709\t984\t0\t1",
        ),
        BARS,
        ["EURUSD_H1"],
        EURUSD,
        ("<DATE> and <TIME> are joined",),
    ),
    "MetaTrader 4": PublicFile(
        one(
            "EURUSD60.csv",
            """
            2017.04.19,09:00,1.0716,1.0722,1.0708,1.0716,1413
            2017.04.19,10:00,1.0717,1.0723,1.0715,1.0721,1022
            2017.04.19,11:00,1.0721,1.0722,1.0709,1.0709,984""",
        ),
        BARS,
        ["EURUSD60"],
        EURUSD,
        ("no header line; taken as date, time, open, high, low, close, volume",),
    ),
    "Binance with a header": PublicFile(
        one(
            "BTCUSDT-1h-2024-01.csv",
            BINANCE_HEADER + BINANCE_ROWS.format(*BINANCE_STAMPS, u="", v=""),
        ),
        BTC_HOURS,
        ["BTCUSDT"],
        BTC,
        ("times are milliseconds since 1970",),
    ),
    "Binance without a header, microseconds": PublicFile(
        zipped("BTCUSDT-1h-2024-01.csv", BINANCE_ROWS.format(*BINANCE_STAMPS, u="000", v="999")),
        BTC_HOURS,
        ["BTCUSDT"],
        BTC,
        ("times are microseconds since 1970", "no header line"),
    ),
    "yfinance, closes of two tickers": PublicFile(
        one(
            "closes.csv",
            """
            Price,Close,Close
            Ticker,BTC-USD,ETH-USD
            Datetime,,
            2024-01-01 00:00:00+00:00,42475.23,2291.2
            2024-01-01 01:00:00+00:00,42613.56,2295.1
            2024-01-01 02:00:00+00:00,42581.10,2290.7""",
        ),
        BTC_HOURS,
        ["BTC-USD", "ETH-USD"],
        [[42475.23, 2291.2], [42613.56, 2295.1], [42581.10, 2290.7]],
        ("3 header lines, as yfinance writes them",),
    ),
    "yfinance, one ticker": PublicFile(
        one(
            "data.csv",
            """
            Price,Close,High,Low,Open,Volume
            Ticker,AAPL,AAPL,AAPL,AAPL,AAPL
            Date,,,,,
            2024-01-02,185.64,188.44,183.89,187.15,82488700
            2024-01-03,184.25,185.88,183.43,184.22,58414500
            2024-01-04,181.91,183.09,180.88,182.15,71983600""",
        ),
        DAYS,
        ["AAPL"],
        [[185.64], [184.25], [181.91]],
        ("left out: AAPL High, AAPL Low, AAPL Open, AAPL Volume",),
    ),
    "yfinance before 0.2.40, two tickers": PublicFile(
        one(
            "data.csv",
            """
            ,Adj Close,Adj Close,Close,Close,Volume,Volume
            ,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT
            Date,,,,,,
            2024-01-02,184.9,368.0,185.64,370.87,82488700,25258600
            2024-01-03,183.5,367.7,184.25,370.60,58414500,23083500
            2024-01-04,181.2,365.1,181.91,367.94,71983600,20901500""",
        ),
        DAYS,
        ["AAPL", "MSFT"],
        [[185.64, 370.87], [184.25, 370.60], [181.91, 367.94]],
    ),
    "ECB": PublicFile(
        one(
            "eurofxref-hist.csv",
            """
            Date,USD,JPY,CYP,RUB,
            2024-01-04,1.0953,158.35,N/A,N/A,
            2024-01-03,1.0919,156.19,N/A,N/A,
            2024-01-02,1.0956,155.48,N/A,N/A,""",
        ),
        DAYS,
        ["USD", "JPY"],
        [[1.0956, 155.48], [1.0919, 156.19], [1.0953, 158.35]],
        ("CYP (no price); RUB (no price)", "newest first, turned round"),
    ),
    "FRED": PublicFile(
        one(
            "DEXUSEU.csv",
            """
            DATE,DEXUSEU
            2023-12-29,1.1062
            2024-01-01,.
            2024-01-02,1.0956
            2024-01-03,1.0919""",
        ),
        ["2023-12-29", "2024-01-02", "2024-01-03"],
        ["DEXUSEU"],
        [[1.1062], [1.0956], [1.0919]],
        ("1 row without any price left out",),
    ),
    "FRED, since 2024": PublicFile(
        one(
            "SP500.csv",
            """
            observation_date,SP500
            2024-01-02,4742.83
            2024-01-03,4704.81
            2024-01-04,4688.68""",
        ),
        DAYS,
        ["SP500"],
        [[4742.83], [4704.81], [4688.68]],
    ),
    "Investing.com": PublicFile(
        one(
            "Gold Futures Historical Data.csv",
            """
            "Date","Price","Open","High","Low","Vol.","Change %"
            "01/31/2024","2,067.40","2,055.40","2,074.90","2,048.60","270.19K","0.81%"
            "01/30/2024","2,050.90","2,051.80","2,067.70","2,046.60","2.5K","0.28%"
            "01/29/2024","998.10","1,037.70","1,057.60","1,036.30","1.11M","0.41%" """,
            "utf-8-sig",
        ),
        ["2024-01-29", "2024-01-30", "2024-01-31"],
        ["Gold Futures Historical Data"],
        [[998.10], [2050.90], [2067.40]],
        ("dates are month/day/year", "the price is Price"),
    ),
    "Investing.com in Portuguese, latin-1": PublicFile(
        one(
            "ibov.csv",
            """
            "Data";"Último";"Abertura";"Máxima";"Mínima";"Vol.";"Var%"
            "31.01.2024";"127.752";"127.402";"129.178";"126.995";"10,31B";"0,28%"
            "30.01.2024";"127.401,81";"128.502";"128.502";"126.936";"9,62B";"-0,86%"
            "29.01.2024";"128.502,53";"128.967";"129.035";"128.001";"8,24B";"-0,36%" """,
            "latin-1",
        ),
        ["2024-01-29", "2024-01-30", "2024-01-31"],
        ["ibov"],
        [[128502.53], [127401.81], [127752.0]],
        ("the price is Último",),
    ),
    "Stooq, days": PublicFile(
        one(
            "eurusd_d.csv",
            """
            Date,Open,High,Low,Close,Volume
            2024-01-02,1.10427,1.10455,1.0937,1.09399,0
            2024-01-03,1.09396,1.09658,1.08927,1.09222,0
            2024-01-04,1.09222,1.09721,1.09152,1.09441,0""",
        ),
        DAYS,
        ["eurusd_d"],
        [[1.09399], [1.09222], [1.09441]],
    ),
    "Stooq, hours": PublicFile(
        one(
            "eurusd.txt",
            """
            <TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>
            EURUSD,60,20170419,090000,1.0716,1.0722,1.0708,1.0716,1413,0
            EURUSD,60,20170419,100000,1.0717,1.0723,1.0715,1.0721,1022,0
            EURUSD,60,20170419,110000,1.0721,1.0722,1.0709,1.0709,984,0""",
        ),
        BARS,
        ["EURUSD"],
        EURUSD,
    ),
    "Bitstamp": PublicFile(
        one(
            "btcusd_bitstamp.csv",
            """
            Timestamp,Open,High,Low,Close,Volume_(BTC),Volume_(Currency),Weighted_Price
            1704067200,42283.58,42554.57,42261.02,42475.23,12.71,539572.48,42430.1
            1704070800,42475.23,42775.00,42431.65,42613.56,11.96,509841.42,42614.9
            1704074400,42613.57,42638.41,42500.00,42581.10,6.85,291613.40,42557.2""",
        ),
        BTC_HOURS,
        ["btcusd_bitstamp"],
        BTC,
        ("times are seconds since 1970",),
    ),
    "a German spreadsheet in UTF-16": PublicFile(
        one(
            "kurse.csv",
            """
            Datum;DAX;Öl
            02.01.2024;16.769,36;75,89
            03.01.2024;16.538,39;78,25
            04.01.2024;16.617;77,59""",
            "utf-16",
        ),
        DAYS,
        ["DAX", "Öl"],
        [[16769.36, 75.89], [16538.39, 78.25], [16617.0, 77.59]],
        ("dates are day/month/year",),
    ),
    "a Brazilian spreadsheet in latin-1": PublicFile(
        one(
            "dolar.csv",
            """
            Data;Último
            15/01/2024;4,8679
            16/01/2024;4,9269
            17/01/2024;4,9299""",
            "latin-1",
        ),
        ["2024-01-15", "2024-01-16", "2024-01-17"],
        ["dolar"],
        [[4.8679], [4.9269], [4.9299]],
        ("read as Windows-1252",),
    ),
    "long, as neuralforecast": PublicFile(
        one(
            "long.csv",
            """
            unique_id,ds,y
            B,2024-01-02,5
            B,2024-01-03,6
            B,2024-01-04,7
            A,2024-01-02,1.5
            A,2024-01-03,2.5
            A,2024-01-04,3.5""",
        ),
        DAYS,
        ["B", "A"],
        [[5, 1.5], [6, 2.5], [7, 3.5]],
    ),
    "long, closes by ticker": PublicFile(
        one(
            "prices.csv",
            """
            ticker,date,close
            AAPL,2024-01-02,185.64
            MSFT,2024-01-02,370.87
            AAPL,2024-01-03,184.25
            MSFT,2024-01-03,370.60
            AAPL,2024-01-04,181.91
            MSFT,2024-01-04,367.94""",
        ),
        DAYS,
        ["AAPL", "MSFT"],
        [[185.64, 370.87], [184.25, 370.60], [181.91, 367.94]],
    ),
    "Kaggle's S&P 500, long with bars": PublicFile(
        one(
            "all_stocks_5yr.csv",
            """
            date,open,high,low,close,volume,Name
            2024-01-02,187.15,188.44,183.89,185.64,82488700,AAPL
            2024-01-03,184.22,185.88,183.43,184.25,58414500,AAPL
            2024-01-04,182.15,183.09,180.88,181.91,71983600,AAPL
            2024-01-02,373.86,375.90,366.77,370.87,25258600,MSFT
            2024-01-03,369.01,373.26,368.51,370.60,23083500,MSFT
            2024-01-04,370.67,373.10,367.17,367.94,20901500,MSFT""",
        ),
        DAYS,
        ["AAPL", "MSFT"],
        [[185.64, 370.87], [184.25, 370.60], [181.91, 367.94]],
    ),
    "backtesting.py": PublicFile(
        one(
            "EURUSD.csv",
            """
            ,Open,High,Low,Close,Volume
            2017-04-19 09:00:00,1.0716,1.0722,1.0708,1.0716,1413
            2017-04-19 10:00:00,1.0717,1.0723,1.0715,1.0721,1022
            2017-04-19 11:00:00,1.0721,1.0722,1.0709,1.0709,984""",
        ),
        BARS,
        ["EURUSD"],
        EURUSD,
    ),
    "CoinMarketCap": PublicFile(
        one(
            "Bitcoin_historical.csv",
            """
            timeOpen;timeClose;timeHigh;timeLow;name;open;high;low;close;volume;marketCap;timestamp
            "2024-01-04T00:00:00.000Z";"2024-01-04T23:59:59.999Z";"2024-01-04T01:00:00.000Z";\
"2024-01-04T02:00:00.000Z";"2781";42855.8;44770.0;42613.7;44179.9;30448.1;865.6;\
"2024-01-04T23:59:59.999Z"
            "2024-01-03T00:00:00.000Z";"2024-01-03T23:59:59.999Z";"2024-01-03T01:00:00.000Z";\
"2024-01-03T02:00:00.000Z";"2781";44961.6;45503.2;40813.5;42848.1;46342.3;839.4;\
"2024-01-03T23:59:59.999Z"
            "2024-01-02T00:00:00.000Z";"2024-01-02T23:59:59.999Z";"2024-01-02T01:00:00.000Z";\
"2024-01-02T02:00:00.000Z";"2781";44187.1;45899.7;44176.9;44957.9;39335.2;880.6;\
"2024-01-02T23:59:59.999Z" """,
        ),
        DAYS,
        ["Bitcoin_historical"],
        [[44957.9], [42848.1], [44179.9]],
    ),
    "Nasdaq": PublicFile(
        one(
            "HistoricalData.csv",
            """
            Date,Close/Last,Volume,Open,High,Low
            01/31/2024,$184.40,55467800,$187.04,$187.095,$184.35
            01/30/2024,$188.04,55859370,$190.94,$191.80,$187.47
            01/29/2024,$191.73,47145620,$192.01,$192.20,$189.58""",
        ),
        ["2024-01-29", "2024-01-30", "2024-01-31"],
        ["HistoricalData"],
        [[191.73], [188.04], [184.40]],
    ),
    "Dukascopy": PublicFile(
        one(
            "EURUSD_Candlestick_1_Hour.csv",
            """
            Local time,Open,High,Low,Close,Volume
            31.03.2024 00:00:00.000 GMT+0100,1.0716,1.0722,1.0708,1.0716,1413.1
            31.03.2024 01:00:00.000 GMT+0100,1.0717,1.0723,1.0715,1.0721,1022.2
            31.03.2024 03:00:00.000 GMT+0200,1.0721,1.0722,1.0709,1.0709,984.3""",
        ),
        ["2024-03-30T23:00", "2024-03-31T00:00", "2024-03-31T01:00"],
        ["EURUSD_Candlestick_1_Hour"],
        EURUSD,
        ("times of several zones (summer time) are turned into UTC",),
    ),
    "HistData": PublicFile(
        one(
            "DAT_ASCII_EURUSD_H1.csv",
            """
            20170419 090000;1.0716;1.0722;1.0708;1.0716;0
            20170419 100000;1.0717;1.0723;1.0715;1.0721;0
            20170419 110000;1.0721;1.0722;1.0709;1.0709;0""",
        ),
        BARS,
        ["DAT_ASCII_EURUSD_H1"],
        EURUSD,
    ),
    "a folder of bars, one file a ticker": PublicFile(
        one(
            "AAPL.csv",
            """
            Date,Open,High,Low,Close,Volume
            2024-01-02,187.15,188.44,183.89,185.64,82488700
            2024-01-03,184.22,185.88,183.43,184.25,58414500
            2024-01-04,182.15,183.09,180.88,181.91,71983600""",
        )
        | {
            "MSFT.csv.gz": gzip.compress(
                b"Date,Open,High,Low,Close,Volume\n"
                b"2024-01-04,370.67,373.10,367.17,367.94,20901500\n"
                b"2024-01-03,369.01,373.26,368.51,370.60,23083500\n"
                b"2024-01-02,373.86,375.90,366.77,370.87,25258600\n"
            ),
            "README.md": b"About these files",
            ".DS_Store": b"\0\1",
        },
        DAYS,
        ["AAPL", "MSFT"],
        [[185.64, 370.87], [184.25, 370.60], [181.91, 367.94]],
        ("left out of the folder: README.md",),
    ),
    "a folder of Binance's months": PublicFile(
        one(
            "BTCUSDT-1h-2023-12.csv",
            """
            1704063600000,42283.58,42554.57,42261.02,42300.00,1271.6,1704067199999,5.3,47,6.5,2,0""",
        )
        | one(
            "BTCUSDT-1h-2024-01.csv",
            BINANCE_HEADER + BINANCE_ROWS.format(*BINANCE_STAMPS, u="", v=""),
        ),
        ["2023-12-31T23:00", *BTC_HOURS],
        ["BTCUSDT"],
        [[42300.00], *BTC],
        ("BTCUSDT is put together from 2 files",),
    ),
}
