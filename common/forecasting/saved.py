"""A run's saved forecasters, and the prices that they were trained on, as its folder tells them."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from common.cli import Fields, InputError, data_folder
from common.files import read_json
from common.forecasting.config import ForecastConfig
from common.forecasting.ensemble import ModelGroup, Pair
from common.forecasting.history import Prices, check_positive, one_line, select, words_of
from common.forecasting.markets import Market
from common.forecasting.prices import load_for
from common.forecasting.volatility import LogHar
from common.forecasting.windows import Windows, split
from common.run import SavedRun, announce

NEEDS_POSITIVE = "forecasts of log returns need prices above zero"
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)
METRICS_CSV = ["step", "epoch", "split", "name", "value"]


@dataclasses.dataclass(frozen=True)
class SavedForecasters:
    """The models of a run folder, and the pairs of them to compare."""

    groups: Sequence[ModelGroup]
    series: tuple[str, ...]
    """the series that they forecast"""
    log: bool = True
    """whether changes are log returns"""
    pairs: Sequence[Pair] = ()
    har: LogHar | None = None
    """the linear model that the networks start from, a baseline for new prices"""

    @property
    def context(self) -> int:
        """Steps of history in each forecast's input."""
        return self.groups[0].forecasters[0].settings["context"]

    @property
    def horizon(self) -> int:
        """Steps forecast ahead."""
        return self.groups[0].forecasters[0].settings["horizon"]

    @property
    def candles(self) -> bool:
        """Whether the forecasters read candles beside the closes."""
        return bool(self.groups[0].forecasters[0].settings.get("candles", False))

    def market(self, market: Market) -> Market:
        """The market whose prices they read: with candles where they do."""
        return market.with_candles() if self.candles else market

    def ordered(self, prices: Prices) -> Prices:
        """The prices in the order of the models' series.

        Raises InputError for other series, and for prices that have no logarithm if one is needed.
        """
        chosen = select(prices, self.series)
        if self.log:
            check_positive(chosen, NEEDS_POSITIVE)
        return chosen

    def checked(self, prices: Prices) -> Prices:
        """The same, and what was read is announced. Raises InputError as `ordered` does."""
        chosen = self.ordered(prices)
        announce(chosen.provenance)
        return chosen


Load = Callable[[Path], SavedForecasters]


def load_saved(run: SavedRun, load: Load) -> SavedForecasters:
    """The forecasters that `load` reads from a run folder.

    Raises InputError for files of another kind, and for models that do not fit each other.
    """
    with damaged(f"the models in {run.folder}"):
        saved = load(run.folder)
        every = [forecaster for group in saved.groups for forecaster in group.forecasters]
        sizes = {(model.settings["context"], model.settings["horizon"]) for model in every}
        if len(sizes) != 1 or not all(group.forecasters for group in saved.groups):
            raise ValueError(f"{len(sizes)} different sizes of context and horizon")
        if not saved.series or not all(isinstance(name, str) for name in saved.series):
            raise ValueError("their series have no names")
    return saved


@contextlib.contextmanager
def damaged(what: str) -> Iterator[None]:
    """Turns what a damaged or foreign file raises inside the block into one line about `what`."""
    try:
        yield
    except DAMAGE as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        raise InputError(
            f"{what} cannot be used ({reason}); name the folder of a finished run with --run"
        ) from None


# -------------------------------------------------------------------------- a run's own prices


def options_of(run: SavedRun) -> ForecastConfig:
    """The options about prices that a run was made with, as a resumed run has them.

    The source is the one that it found, and options that it did not have yet are default. Raises
    InputError where run.json holds something else.
    """
    with damaged(str(run.folder / "run.json")):
        values: Fields = {}
        for field in dataclasses.fields(ForecastConfig):
            value = run.config.get(field.name, field.default)
            value = tuple(value) if isinstance(value, list) else value
            if field.default is not None and not isinstance(value, type(field.default)):
                raise TypeError(f"{field.name} is {value!r}")
            values[field.name] = value
        values["data"] = None if values["data"] is None else Path(values["data"])
        values |= {"source": run.record["source"], "resume": True}
        return ForecastConfig(**values)


def prices_of(run: SavedRun, market: Market, instead: Path | None = None) -> Prices:
    """The prices that a run was trained on, read as it read them, from its file or from `instead`.

    Raises InputError where they are not here, or are others by now.
    """
    options = options_of(run)
    if instead is not None:
        options = dataclasses.replace(options, data=instead)
    elsewhere = InputError(
        f"the prices that {run.folder} was trained on are not here (another sha256); "
        "name the file with --data"
    )
    file = data_folder() / market.file if options.data is None else options.data
    if options.source == "csv" and not file.exists():
        raise elsewhere
    prices = load_for(options, market)
    if prices.provenance.get("sha256") != run.data.get("sha256"):
        raise elsewhere
    return prices


def own_windows(run: SavedRun, saved: SavedForecasters, prices: Prices) -> Windows:
    """The windows of the prices that a run was trained on, in the same parts."""
    options = options_of(run)
    parts = split(
        prices.contiguous(),
        saved.context,
        saved.horizon,
        options.test_steps,
        options.validation_steps,
    )
    return Windows(prices, parts, saved.context, saved.horizon, saved.log)


# -------------------------------------------------------------------------------------- steps


def check_step(run: SavedRun, prices: Prices, market: Market) -> None:
    """Raises InputError where the prices have another step than those of the run."""
    trained = step_of_run(run, market)
    given = words_of(prices.step)
    if given != trained:
        raise InputError(
            f"{run.folder} was trained on steps of {trained}, and the steps of {prices.place} "
            f"are {given}; give prices of its step, or train a run on these"
        )


def step_of_run(run: SavedRun, market: Market) -> str:
    """The step of a run's prices in words, as "1 hour".

    A run from before it was noted tells by the unit of its gaps, else by its market.
    """
    if "step" in run.data:
        return str(run.data["step"])
    gaps = run.data.get("gaps")
    hourly = market.hourly
    if isinstance(gaps, dict) and ("missing_hours" in gaps or "missing_days" in gaps):
        hourly = "missing_hours" in gaps
    return "1 hour" if hourly else "1 day"


# ------------------------------------------------------------------------- what figures read


def check_drawable(folder: Path) -> None:
    """Raises InputError where a file that a run's figures are drawn from is missing or damaged.

    It is asked before any work begins, as the figures are drawn last.
    """
    with damaged(str(folder / "metrics.json")):
        rows = read_json(folder / "metrics.json")["rows"]
        if not all(set(METRICS_CSV[2:]) - {"name"} <= set(row) for row in rows):
            raise ValueError("rows without split and value")
    try:
        with open(folder / "metrics.csv", encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        if lines[:1] != [METRICS_CSV] or any(len(line) != len(METRICS_CSV) for line in lines):
            raise ValueError("other columns")
    except (OSError, ValueError, csv.Error) as error:
        raise _undrawable(folder / "metrics.csv", error) from None
    try:
        with (
            open(folder / "predictions.npz", "rb") as stream,
            np.load(stream, allow_pickle=False) as arrays,
        ):
            for name in arrays:
                arrays[name]
    except (OSError, EOFError, *DAMAGE, zipfile.BadZipFile, zlib.error) as error:
        raise _undrawable(folder / "predictions.npz", error) from None


def _undrawable(file: Path, error: Exception) -> InputError:
    return InputError(
        f"{file} is missing or damaged ({one_line(error)}), so the run's figures cannot be drawn; "
        "with --out FILE the scores alone are written"
    )
