"""Windows of a price history, and the rows and stored arrays that assignment 2's scripts make of its forecasts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from assignment2.model import Forecaster
from common.backtest import LEVELS, METRICS_INFO, ROLLING, Backtest, RidgeWindow, baselines, change, crps_quantiles, recalibrate
from common.prices import Prices
from common.run import peak_mb
from common.windows import Parts, future, origins, past

INFO = METRICS_INFO | {
    "mse": {"unit": "squared price unit (USD squared)", "better": "lower",
            "reference": "over all series and steps, as the course counted it: ruled by the dearest coin; 0: every price right"},
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of C + H rows around given origins of a price history."""

    prices: Prices
    parts: Parts | None
    context: int
    horizon: int

    def past(self, at: np.ndarray) -> np.ndarray:
        """Prices (N, C, S) up to and including the origins."""
        return past(self.prices.values, at, self.context)

    def inputs(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All that a forecaster sees: prices (N, C, S) and their times (N, C)."""
        return self.past(at), past(self.prices.times[:, None], at, self.context)[..., 0]

    def changes(self, at: np.ndarray) -> np.ndarray:
        """Log returns (N, H, S) from the last known price."""
        return change(future(self.prices.values, at, self.horizon), self.prices.values[at])

    def before(self, at: np.ndarray) -> np.ndarray:
        """The origins, and in front of them those of the 60 days before, from which a forecast is recalibrated."""
        every = origins(self.prices.contiguous(), self.context, self.horizon)
        return np.concatenate([every[every < at[0]][-ROLLING - self.horizon :], at])

    def recalibrated(self, quantiles: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Quantiles (N, H, S, Q) of prices at ascending origins, each corrected by the outcomes known at it; the last origin
        may be the last price."""
        values = self.prices.values
        truth = future(np.concatenate([values, np.full((self.horizon, values.shape[1]), np.nan)]), at, self.horizon)
        last = values[at].astype(np.float32)
        return last[:, None, :, None] * np.exp(recalibrate(change(quantiles, last), change(truth, values[at]).astype(np.float32)))

    def ridge(self) -> RidgeWindow:
        """NLinear, fitted on the training part and chosen on the validation part."""
        known = [(self.past(at), future(self.prices.values, at, self.horizon)) for at in (self.parts.train, self.parts.validation)]
        return RidgeWindow().fit(*known[0], *known[1])

    def crps(self, model: Forecaster, at: np.ndarray) -> float:
        """Mean CRPS of a forecaster over the usual size of each series' change: what training is stopped by."""
        _, quantiles = model.predict(*self.inputs(at))
        size = (model.deviation * model.spread).cpu().numpy()
        return float((crps_quantiles(change(quantiles, self.prices.values[at]), self.changes(at)) / size).mean())


def assigned_rows(assigned: dict[str, Any]) -> list[dict[str, Any]]:
    """The course's figure, the same weights without the truth, and no change, on the trained window and on the next steps."""
    horizon = len(assigned["coming"])
    target, coming = assigned["seen"][-horizon:], assigned["coming"]
    cases = [("train", name, assigned[name], target) for name in ("teacher forced, trained window", "free-running, trained window")]
    cases.append(("test", "free-running, next steps", assigned["free-running, next steps"], coming))
    cases.append(("train", "trained window", np.repeat(assigned["seen"][-horizon - 1 : -horizon], horizon, 0), target))
    cases.append(("test", "next steps", np.repeat(assigned["seen"][-1:], horizon, 0), coming))
    return [
        {"protocol": "as-assigned", "split": split, "model": "Seq2Seq" if number < 3 else "no change", "variant": variant, "metric": "mse",
         "value": float(((forecast - truth) ** 2).mean()), "n_seeds": 1, "params": assigned["params"] if number < 3 else 0}
        for number, (split, variant, forecast, truth) in enumerate(cases)
    ]  # fmt: skip


def held_out_rows(
    windows: Windows, models: list[Forecaster], at: np.ndarray, split: str, ridge: RidgeWindow | None, seconds: float | None
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Rows of every baseline and of the forecasters at the given origins, and the mean forecast over seeds
    {"point" (N, H, S), "quantiles" (N, H, S, Q)} in prices."""
    prices, table = windows.prices, []
    seen, actual = windows.past(at), future(prices.values, at, windows.horizon)
    forecasts = {(model, variant): (point, quantiles) for model, variant, point, quantiles in
                 baselines(prices.values, prices.contiguous(), at, windows.context, windows.horizon, ridge)}  # fmt: skip
    bench = Backtest(seen, actual, prices.series, forecasts["random walk", "rolling residuals"][1])
    for (model, variant), forecast in forecasts.items():
        table += bench.rows(model, variant, [forecast], split=split)
    del forecasts
    params, variant = models[0].network.parameters_trained, f"mean of {len(models)} seeds"
    raw, points, look_back = np.float32(0), 0.0, windows.before(at)

    def each() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal raw, points
        for model in models:
            point, quantiles = model.predict(*windows.inputs(look_back))
            raw, points = raw + quantiles / len(models), points + point[-len(at) :] / len(models)
            yield point[-len(at) :], windows.recalibrated(quantiles, look_back)[-len(at) :]

    table += bench.rows("Seq2Seq", "quantile head", each(), split=split, params=params, seconds=seconds, peak_mb=peak_mb())
    table += bench.rows("Seq2Seq", f"{variant}, not recalibrated", [(points, raw[-len(at) :])], split=split, params=params * len(models))
    mean = {"point": points, "quantiles": windows.recalibrated(raw, look_back)[-len(at) :]}
    table += bench.rows("Seq2Seq", variant, [(mean["point"], mean["quantiles"])], split=split, params=params * len(models))
    return table, mean


def score(
    windows: Windows, models: list[Forecaster], seconds: float, assigned: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """All rows of metrics.json, and the mean forecast over seeds on the test part."""
    ridge = windows.ridge()
    table = assigned_rows(assigned)
    for name in ("validation", "test"):
        rows, kept = held_out_rows(windows, models, getattr(windows.parts, name), name, ridge, round(seconds, 2))
        table += rows
    return table, kept


def stored(windows: Windows, models: list[Forecaster], assigned: dict[str, Any], mean: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the figures are drawn from: one fan a series, attention, calibration and the as-assigned window."""
    at = windows.parts.test
    truth = future(windows.prices.values, at, windows.horizon)
    # the origin whose five steps moved by the median of all: neither a calm nor a wild day
    moves = np.abs(windows.changes(at)).mean((1, 2))
    shown = int(np.argsort(moves)[len(moves) // 2])
    origin = at[[shown]]
    some = at[:: max(len(at) // 200, 1)]
    attention = models[0](*windows.inputs(some))[2].detach().cpu().numpy()
    return {
        "series": np.array(windows.prices.series), "levels": LEVELS,
        "fan_times": windows.prices.times[origin[0] - 47 : origin[0] + windows.horizon + 1].astype("datetime64[m]").astype(np.int64),
        "fan_past": windows.past(origin)[0, -48:], "fan_future": truth[shown],
        "fan_point": mean["point"][shown], "fan_quantiles": mean["quantiles"][shown],
        "attention_mean": attention.mean(0), "attention_one": models[0](*windows.inputs(origin))[2].detach().cpu().numpy()[0],
        "below": (truth[..., None] < mean["quantiles"]).mean((0, 1)),  # (S, Q): calibration
        **{f"assigned | {name}": value for name, value in assigned.items() if isinstance(value, np.ndarray)},
    }  # fmt: skip


def print_table(results: dict[str, Any], folder: Path) -> None:
    """The pooled figures of the test part on the terminal."""
    rows = [row for row in results["rows"] if row["series"] is None and row["horizon"] is None]
    print("as assigned, mean squared error in USD squared")
    for row in rows:
        if row["protocol"] == "as-assigned":
            print(f"  {row['model']:16}{row['variant']:34}{row['value']:14.3f}")
    print(
        f"held out, test part, pooled over series and steps\n  {'model':16}{'variant':34}{'RMSSE':>9}{'CRPS ratio':>12}{'in 80 %':>9}{'in 95 %':>9}"
    )
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if row["protocol"] == "held-out" and row["split"] == "test":
            found.setdefault((row["model"], row["variant"]), {})[row["metric"]] = row["value"]
    for (model, variant), values in found.items():
        cells = [values.get(name) for name in ("rmsse", "crps_ratio", "coverage_80", "coverage_95")]
        print(
            f"  {model:16}{variant:34}"
            + "".join(f"{'-':>9}" if cell is None else f"{cell:{width}.4f}" for cell, width in zip(cells, (9, 12, 9, 9), strict=True))
        )
    print(f"everything is in {folder}")
