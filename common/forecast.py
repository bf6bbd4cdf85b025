"""What the forecasting assignments share: windows of a price history, the rows of a backtest, and the bodies of evaluate.py and predict.py.

Shape letters: N origins, C context, H horizon, S series, Q quantile levels.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
import pandas as pd

from common.backtest import (
    LEVELS,
    ROLLING,
    ROLLING_DAYS,
    Backtest,
    RidgeWindow,
    baselines,
    change,
    crps_quantiles,
    interval,
    metrics_info,
    recalibrate,
)
from common.cli import BaseConfig, InputError, PathOrNone
from common.figures import fans
from common.prices import Market, Prices, check_positive, load_prices, select
from common.run import atomic_path, newest_run, peak_mb, write_json
from common.windows import Parts, future, origins, past, split, steps_ahead

F = TypeVar("F", bound="Forecaster")


class Forecaster(Protocol):
    """What a backtest needs of a model."""

    @property
    def settings(self) -> dict[str, Any]:
        """With "context" and "horizon"."""

    @property
    def params(self) -> int:
        """How many weights were trained."""

    def predict(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Point (N, H, S) and quantiles (N, H, S, Q) in prices, of prices (N, C, S) at times datetime64 (N, C)."""


@dataclasses.dataclass(frozen=True)
class Group(Generic[F]):
    """One kind of model: a forecaster a seed, the names of its row and of the row of their mean, seconds of training a seed, and
    whether its rows are brief: pooled over series and steps only."""

    model: str
    variant: str
    forecasters: Sequence[F]
    mean: str
    seconds: float | None = None
    brief: bool = False


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a run folder holds: its kinds of model, their series, whether changes are log returns and which kinds are set beside each other."""

    groups: Sequence[Group]
    series: tuple[str, ...]
    log: bool = True
    pairs: Sequence[tuple[tuple[str, str], tuple[str, str]]] = ()


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of C + H rows around given origins of a price history; changes are log returns, or price differences."""

    prices: Prices
    known: Parts | None
    context: int
    horizon: int
    log: bool = True

    @property
    def parts(self) -> Parts:
        """The parts of the history; new prices have none."""
        if self.known is None:
            raise InputError("these prices have no training, validation and test part")
        return self.known

    @property
    def rolling(self) -> int:
        """Steps that residuals and recalibration look back: 60 days of hours, a year of trading days."""
        return ROLLING if self.prices.hourly else ROLLING_DAYS

    def past(self, at: np.ndarray) -> np.ndarray:
        """Prices (N, C, S) up to and including the origins."""
        return past(self.prices.values, at, self.context)

    def inputs(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All that a forecaster sees: prices (N, C, S) and their times (N, C)."""
        return self.past(at), past(self.prices.times[:, None], at, self.context)[..., 0]

    def future(self, at: np.ndarray) -> np.ndarray:
        """Prices (N, H, S) after the origins."""
        return future(self.prices.values, at, self.horizon)

    def changes(self, at: np.ndarray) -> np.ndarray:
        """Changes (N, H, S) from the last known price."""
        return change(self.future(at), self.prices.values[at], self.log)

    def before(self, at: np.ndarray) -> np.ndarray:
        """The origins, and in front of them those from whose outcomes a forecast is recalibrated."""
        every = origins(self.prices.contiguous(), self.context, self.horizon)
        return np.concatenate([every[every < at[0]][-self.rolling - self.horizon :], at])

    def recalibrated(self, quantiles: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Quantiles (N, H, S, Q) of prices at ascending origins, each corrected by the outcomes known at it; the last origin
        may be the last price."""
        values = self.prices.values
        truth = future(
            np.concatenate([values, np.full((self.horizon, values.shape[1]), np.nan)]),
            at,
            self.horizon,
        )
        last = values[at].astype(np.float32)
        moves = recalibrate(
            change(quantiles, last, self.log),
            change(truth, values[at], self.log).astype(np.float32),
            self.rolling,
        )
        return (
            last[:, None, :, None] * np.exp(moves) if self.log else last[:, None, :, None] + moves
        )

    def ridge(self) -> RidgeWindow:
        """NLinear, fitted on the training part and chosen on the validation part."""
        known = [
            (self.past(at), self.future(at)) for at in (self.parts.train, self.parts.validation)
        ]
        return RidgeWindow(self.log).fit(*known[0], *known[1])

    def crps(self, forecaster: Forecaster, size: np.ndarray, at: np.ndarray) -> float:
        """Mean CRPS of a forecaster over the usual size (H, S) of each series' change: what training is stopped by."""
        _, quantiles = forecaster.predict(*self.inputs(at))
        return float(
            (
                crps_quantiles(
                    change(quantiles, self.prices.values[at], self.log), self.changes(at)
                )
                / size
            ).mean()
        )


# -------------------------------------------------------------------------------------------------------------- scores


def held_out_rows(
    windows: Windows,
    groups: Sequence[Group],
    at: np.ndarray,
    split: str,
    ridge: RidgeWindow | None,
    pairs: Sequence[tuple[tuple[str, str], tuple[str, str]]] = (),
) -> tuple[list[dict[str, Any]], dict[tuple[str, str], dict[str, np.ndarray]]]:
    """Rows of every baseline, of every group (each seed, their mean, it before recalibration) and of the pairs of (model, variant)
    at the given origins; and of each group that is not brief the mean forecast over seeds {"point" (N, H, S), "quantiles" (N, H, S, Q)} in prices."""
    prices, table = windows.prices, []
    means: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    seen, actual = windows.past(at), windows.future(at)
    forecasts: dict[tuple[str, str], Any] = {
        (model, variant): (point, quantiles)
        for model, variant, point, quantiles in baselines(
            prices.values,
            prices.contiguous(),
            at,
            windows.context,
            windows.horizon,
            ridge,
            windows.log,
            windows.rolling,
        )
    }
    bench = Backtest(
        seen, actual, prices.series, forecasts["random walk", "rolling residuals"][1], windows.log
    )
    for (model, variant), forecast in forecasts.items():
        table += bench.rows(model, variant, [forecast], split=split)
    del forecasts
    look_back = windows.before(at)
    inputs = windows.inputs(look_back)
    for group in groups:
        count, params = len(group.forecasters), group.forecasters[0].params
        raw: Any = np.float32(0)  # arrays from the first seed on
        points: Any = 0.0

        def each(
            group: Group = group, count: int = count
        ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            nonlocal raw, points
            for model in group.forecasters:
                point, quantiles = model.predict(*inputs)
                raw, points = raw + quantiles / count, points + point[-len(at) :] / count
                yield point[-len(at) :], windows.recalibrated(quantiles, look_back)[-len(at) :]

        facts: dict[str, Any] = {
            "split": split,
            "seconds": group.seconds and round(group.seconds, 2),
            "peak_mb": peak_mb(),
        }
        rows = bench.rows(group.model, group.variant, each(), params=params, **facts)
        plain = (points, raw[-len(at) :])
        mean = {"point": points, "quantiles": windows.recalibrated(raw, look_back)[-len(at) :]}
        if not group.brief:
            means[group.model, group.variant] = mean
            rows += bench.rows(
                group.model,
                f"{group.mean}, not recalibrated",
                [plain],
                split=split,
                params=params * count,
            )
        rows += bench.rows(
            group.model,
            group.mean,
            [(mean["point"], mean["quantiles"])],
            split=split,
            params=params * count,
        )
        table += pooled(rows) if group.brief else rows
    brief = {(group.model, group.mean) for group in groups if group.brief}
    for one, other in pairs:
        rows = bench.against(one, other, split=split)
        table += pooled(rows) if {one, other} & brief else rows
    return table, means


def pooled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows over all series and steps."""
    return [row for row in rows if row["series"] is None and row["horizon"] is None]


def assigned_rows(
    seen: np.ndarray, coming: np.ndarray, answers: Sequence[tuple[str, str, np.ndarray, int]]
) -> list[dict[str, Any]]:
    """The course's figure, mean squared error in prices, of answers (model, variant, forecast (H, S), trained weights) and of no change.

    A variant that ends in "next steps" is scored on the prices `coming` (H, S) after the course's window `seen` (T, S), every
    other one on the window's own end.
    """
    horizon = len(coming)
    answers = [
        *answers,
        *(
            ("no change", where, np.tile(last, (horizon, 1)), 0)
            for where, last in (("trained window", seen[-horizon - 1]), ("next steps", seen[-1]))
        ),
    ]
    found = []
    for model, variant, forecast, params in answers:
        split, truth = (
            ("test", coming) if variant.endswith("next steps") else ("train", seen[-horizon:])
        )
        found.append(
            {
                "protocol": "as-assigned",
                "split": split,
                "model": model,
                "variant": variant,
                "metric": "mse",
                "value": float(((forecast - truth) ** 2).mean()),
                "n_seeds": 1,
                "params": params,
            }
        )
    return found


def fan_arrays(windows: Windows, mean: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the figures of a forecast are drawn from: one fan a series at a usual origin of the test part, and calibration."""
    at = windows.parts.test
    truth = windows.future(at)
    # the origin whose steps moved by the median of all: neither a calm nor a wild day
    moves = np.abs(truth / windows.prices.values[at][:, None] - 1).mean((1, 2))
    shown = int(np.argsort(moves)[len(moves) // 2])
    rows = slice(at[shown] - 47, at[shown] + windows.horizon + 1)
    return {
        "series": np.array(windows.prices.series),
        "levels": LEVELS,
        "fan_origin": at[[shown]],
        "fan_times": windows.prices.times[rows].astype("datetime64[m]").astype(np.int64),
        "fan_past": windows.past(at[[shown]])[0, -48:],
        "fan_future": truth[shown],
        "fan_point": mean["point"][shown],
        "fan_quantiles": mean["quantiles"][shown],
        "below": (truth[..., None] < mean["quantiles"]).mean((0, 1)),  # (S, Q): calibration
    }


def print_table(results: dict[str, Any], folder: Path) -> None:
    """The pooled figures of the test part on the terminal."""
    rows = pooled(results["rows"])
    if assigned := [row for row in rows if row["protocol"] == "as-assigned"]:
        print("as assigned, mean squared error in USD squared")
    for row in assigned:
        print(f"  {row['model']:30}{row['variant']:46}{row['value']:14.4f}")
    metrics = ("rmsse", "crps_ratio", "coverage_80", "coverage_95")
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if row["protocol"] == "held-out" and row["split"] == "test":
            found.setdefault((row["model"], row["variant"]), {})[row["metric"]] = row["value"]

    def lines(names: Sequence[str], titles: Sequence[str]) -> None:
        print(f"  {'model':30}{'variant':46}" + "".join(f"{title:>12}" for title in titles))
        for (model, variant), values in found.items():
            if any(name in values for name in names):
                print(
                    f"  {model:30}{variant:46}"
                    + "".join(
                        f"{values[name]:12.4f}" if name in values else f"{'-':>12}"
                        for name in names
                    )
                )

    print("held out, test part, pooled over series and steps")
    lines(metrics, ("RMSSE", "CRPS ratio", "in 80 %", "in 95 %"))
    if any("crps_against" in values for values in found.values()):
        print("one against another, the same origins")
        lines(
            ("rmse_against", "p_rmse_against", "crps_against", "p_crps_against"),
            ("RMSE ratio", "p", "CRPS ratio", "p"),
        )
    print(f"everything is in {folder}")


# ------------------------------------------------------------------------------------------------------------- scripts


@dataclasses.dataclass(frozen=True)
class ForecastConfig(BaseConfig):
    """The options that the train.py of every forecasting assignment has."""

    source: Literal["auto", "yahoo", "cache", "csv", "simulated"] = "auto"
    """where the prices come from; auto: --data, else the data folder, else Yahoo, else the built-in simulated sample"""
    period: str = "max"
    """how far back Yahoo is asked: 1mo, 3mo, 1y ..., max (729 days of hours)"""
    steps: int = 20_000
    """hours (or days) of the simulated sample"""
    seed: int = 0
    """of the simulated sample and the as-assigned networks; the held-out networks use 0 .. seeds-1"""
    seeds: int = 5
    """how many held-out networks of each kind are trained"""
    test_steps: int = 8760
    """steps of the test part at the end of the history (at most a quarter of it)"""
    validation_steps: int = 4380
    """steps of the validation part before it"""
    assigned_steps: int = 101
    """the course's window, its last `horizon` steps being the target"""

    def prices(self, market: Market) -> Prices:
        """The prices that the options name; a resumed run takes those that it began with."""
        source = "cache" if self.resume and self.source == "yahoo" else self.source
        return load_prices(source, self.data, market, self.period, self.seed, self.steps)


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Backtest of saved forecasters, beside every baseline."""

    run: PathOrNone = None
    """run folder (default: the newest finished run in results/)"""
    data: PathOrNone = None
    """prices to score on (csv, csv.gz, parquet; wide or long); every origin in the file that has a whole context is scored"""
    out: PathOrNone = None
    """where the scores go (default: evaluation.json in the run folder)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Forecast of the next steps."""

    run: PathOrNone = None
    """run folder (default: the newest finished run in results/)"""
    source: Literal["auto", "yahoo", "cache", "csv", "simulated"] = "auto"
    """where the latest prices come from: Yahoo now, the cached history, a file (--data)"""
    data: PathOrNone = None
    """the latest prices as a file"""
    out: Path = Path("forecast.csv")
    """table to write; a figure of the same name goes beside it"""
    device: Literal["auto", "cpu", "cuda"] = "auto"


WHY = "forecasts of log returns need prices above zero"


def evaluate(
    config: EvaluateConfig,
    results: Path,
    market: Market,
    load: Callable[[Path], Saved],
    draw: Callable[[Path], None],
) -> dict[str, Any]:
    """Scores a run's saved models on its own test part, or on every origin of the user's prices; writes evaluation.json."""
    folder = config.run or newest_run(results)
    saved = load(folder)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    made, settings = record["config"], saved.groups[0].forecasters[0].settings
    context, horizon = settings["context"], settings["horizon"]
    if config.data is None:
        where = Path(made["data"]) if made["data"] else None
        source = (
            "cache"
            if record["source"] == "yahoo"
            else record["source"]
            if where or record["source"] == "simulated"
            else "auto"
        )
        prices = select(
            load_prices(source, where, market, made["period"], made["seed"], made["steps"]),
            saved.series,
        )
        parts = split(
            prices.contiguous(), context, horizon, made["test_steps"], made["validation_steps"]
        )
        if prices.provenance.get("sha256") != record["data"].get("sha256"):
            raise InputError(
                f"the prices that {folder} was trained on are not here (another sha256); name the file with --data"
            )
    else:
        prices, parts = select(load_prices("csv", config.data, market), saved.series), None
    if saved.log:
        check_positive(prices, WHY)
    at = origins(prices.contiguous(), context, horizon) if parts is None else parts.test
    if len(at) < 10:
        raise InputError(
            f"{config.data}: {len(prices.times)} rows hold {len(at)} windows of {context} + {horizon} rows without a gap; at least 10 are needed"
        )
    windows = Windows(prices, parts, context, horizon, saved.log)
    ridge = (
        None if parts is None else windows.ridge()
    )  # new prices have no training part to fit it on
    table, _ = held_out_rows(windows, saved.groups, at, "test", ridge, saved.pairs)
    found: dict[str, Any] = {
        "run": {
            "folder": str(folder),
            "data": prices.provenance,
            "origins": len(at),
            "first": prices.moment(int(at[0])),
            "last": prices.moment(int(at[-1])),
        },
        "metrics_info": metrics_info(saved.log),
        "rows": table,
    }
    out = config.out or folder / "evaluation.json"
    write_json(out, found)
    if config.data is None and config.out is None:
        draw(folder)
    print(f"{len(at):,} origins, {found['run']['first']} to {found['run']['last']}")
    constant = [
        name
        for name, values in zip(prices.series, prices.values.T, strict=True)
        if np.ptp(values) == 0
    ]
    if constant:
        print(
            f"{', '.join(constant)}: the price never moves, so RMSSE is not defined and has no row"
        )
    print_table(found, out)
    return found


def forecast_next(
    config: PredictConfig, results: Path, market: Market, load: Callable[[Path], Saved]
) -> pd.DataFrame:
    """Tells the steps after the last known price by the first kind of model of a run: a table, its csv and a figure."""
    folder = config.run or newest_run(results)
    saved = load(folder)
    models = saved.groups[0].forecasters
    context, horizon = models[0].settings["context"], models[0].settings["horizon"]
    prices = select(
        load_prices(config.source, config.data, market, "3mo" if market.hourly else "1y"),
        saved.series,
    )
    if saved.log:
        check_positive(prices, WHY)
    if len(prices.times) < context or not prices.contiguous()[-context + 1 :].all():
        raise InputError(
            f"{prices.provenance.get('path', prices.source)}: the last {context} rows are needed without a gap; {len(prices.times)} rows are there"
        )
    windows, now = (
        Windows(prices, None, context, horizon, saved.log),
        np.array([len(prices.times) - 1]),
    )
    at = np.concatenate(
        [origins(prices.contiguous(), context, horizon)[-windows.rolling :], now]
    )  # what came since corrects the intervals
    seen, times = windows.inputs(now)
    points, quantiles = zip(*(model.predict(*windows.inputs(at)) for model in models), strict=True)
    point, quantiles = (
        np.mean(points, 0)[-1],
        windows.recalibrated(np.mean(quantiles, 0), at)[-1],
    )  # (H, S), (H, S, Q)
    (low80, high80), (low95, high95), ahead = (
        interval(quantiles, 0.80),
        interval(quantiles, 0.95),
        steps_ahead(times, horizon)[0],
    )
    form = "%Y-%m-%dT%H:%M:%SZ" if prices.hourly else "%Y-%m-%d"
    table = pd.DataFrame(
        {
            "series": name,
            "time": pd.Timestamp(ahead[h]).strftime(form),
            "forecast": point[h, s],
            "no_change": seen[0, -1, s],
            "low_80": low80[h, s],
            "high_80": high80[h, s],
            "low_95": low95[h, s],
            "high_95": high95[h, s],
        }
        for s, name in enumerate(prices.series)
        for h in range(horizon)
    )
    with atomic_path(config.out) as temporary:
        table.to_csv(temporary, index=False, float_format="%.8g")
    record = {"source": prices.source, "data": prices.provenance, "preset": f"of {folder.name}"}
    picture, title = (
        config.out.with_suffix(".png"),
        f"Forecast from {prices.moment(-1)}: 80 % and 95 % intervals",
    )
    fans(
        picture,
        record,
        prices.series,
        times[0, -48:],
        seen[0, -48:],
        ahead,
        quantiles,
        LEVELS,
        title,
    )
    print(table.to_string(index=False, float_format=lambda number: f"{number:.6g}"))
    print(f"in {config.out} and {picture}; last known price: {prices.moment(-1)}")
    return table
