"""fit and predict on pandas data frames: what train.py and predict.py do with files."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pandas as pd

from common.cli import InputError
from common.files import atomic_path
from common.forecasting.ahead import forecast_table
from common.forecasting.config import ForecastConfig, PredictConfig, Reading
from common.forecasting.history import Prices
from common.forecasting.markets import Market
from common.forecasting.prices import read_frame, usd_prices
from common.forecasting.saved import Load, load_saved
from common.forecasting.sessions import DAY
from common.run import SavedRun

P = TypeVar("P", bound=PredictConfig)
PRICES_FILE = "prices.parquet"  # of a run folder: the frame that the run was made with


def fit_frame(
    frame: pd.DataFrame,
    folder: str | Path,
    config_class: type[ForecastConfig],
    main: Callable[..., object],
    options: dict[str, object],
) -> Path:
    """Trains on a frame as train.py does on a file; returns the run folder.

    The frame is checked as a file is, and kept in the folder, where evaluate.py finds it. Options
    are those of train.py by their names in Python. Raises InputError for a frame or an option that
    cannot be used, and TypeError for an option that does not exist.
    """
    folder = Path(folder)
    file = folder / PRICES_FILE
    config = config_of(config_class, options)
    if getattr(config, "candles", False):
        raise InputError("candles=True: a data frame is read as closes alone; train.py reads files")
    prices = read_frame(as_frame(frame), Reading.of(config))
    table = plain_table(prices)
    plainly = Reading(columns=prices.series, time_column="time")  # nothing is left to choose
    config = dataclasses.replace(config, **dataclasses.asdict(plainly), source="csv", out=folder)
    config.check()
    check_folder(folder, config, table)

    with kept(table, file):
        main(dataclasses.replace(config, data=file))
    return folder


@contextlib.contextmanager
def kept(table: pd.DataFrame, file: Path) -> Iterator[None]:
    """Keeps the table in the run folder of a run that begins inside the block.

    Where the block refuses before it has begun one, everything is as it was before.
    """
    record = file.with_name("run.json")
    is_new = not file.parent.exists()
    before = [bytes_of(file), bytes_of(record)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_table(table, file)
    try:
        yield
    except InputError:
        if bytes_of(record) == before[1]:
            file.unlink()
            if before[0] is not None:
                file.write_bytes(before[0])
            if is_new:
                file.parent.rmdir()
        raise
    if not file.exists():  # overwrite=True has emptied the folder
        write_table(table, file)


def bytes_of(file: Path) -> bytes | None:
    """The content of a file, or None where there is none."""
    return file.read_bytes() if file.exists() else None


def as_frame(given: object) -> pd.DataFrame:
    """A data frame as it is, and a named pandas series as a frame of one column.

    Raises InputError for anything else.
    """
    if isinstance(given, pd.Series):
        return given.to_frame(given.name or "price")
    if not isinstance(given, pd.DataFrame):
        kind = type(given).__name__
        raise InputError(f"a pandas data frame of prices is needed; {kind} was given")
    return given


def config_of(config_class: type[ForecastConfig], options: dict[str, object]) -> ForecastConfig:
    """The options of train.py over those of the preset among them."""
    preset = options.get("preset", "default")
    return dataclasses.replace(config_class.of_preset(preset), **options)  # type: ignore[arg-type]


def check_folder(folder: Path, config: ForecastConfig, table: pd.DataFrame) -> None:
    """Raises InputError where the folder holds a run that the options do not replace or go on."""
    if not (folder / "run.json").exists() or config.overwrite:
        return
    if not config.resume:
        raise InputError(
            f"{folder} holds a run; overwrite=True replaces it, resume=True continues it; "
            "or give another folder"
        )
    file = folder / PRICES_FILE
    if file.exists() and not pd.read_parquet(file).equals(table):
        raise InputError(f"resume=True: {folder} was made with another frame; give the same one")


def plain_table(prices: Prices) -> pd.DataFrame:
    """Prices as a wide table with a time column: dates alone where the steps are days or longer."""
    table = pd.DataFrame(prices.values, columns=list(prices.series))
    times = pd.DatetimeIndex(prices.times)
    table.insert(0, "time", times.tz_localize("UTC") if prices.step < DAY else times)
    return table


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Writes the table as parquet, the same bytes for the same table."""
    with atomic_path(file) as temporary:
        table.to_parquet(temporary, index=False)


def predict_options(config_class: type[P], run: str | Path | None, options: dict[str, object]) -> P:
    """The options of predict.py by their names in Python, checked as those of a command."""
    folder = None if run is None else Path(run)
    config = config_class(run=folder, **options)  # type: ignore[arg-type]  # checked here:
    config.check()
    return config


def predict_frame(
    frame: pd.DataFrame, config: PredictConfig, results: Path, market: Market, load: Load
) -> pd.DataFrame:
    """The table of predict.py for the steps after a frame's last row; nothing is written.

    Raises InputError for a frame that the run's models cannot forecast.
    """
    run = SavedRun.open(config.run, results, needs=())
    saved = load_saved(run, load)
    if saved.candles:
        raise InputError(
            f"{run.folder} reads candles, and a data frame is read as closes alone; "
            "predict.py --data reads a file"
        )
    prices = usd_prices(read_frame(as_frame(frame), Reading.of(config), saved.series), market)
    _, _, table = forecast_table(saved.checked(prices), run, saved, config, market)
    return table
