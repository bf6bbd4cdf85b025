"""Figures of a backtest, drawn from a run folder's arrays and rows.

Shape letters: T times, H horizon, S series, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from dateutil import rrule
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from common.figures import (
    MARKERS,
    PALETTE,
    WIDTH,
    Option,
    colours,
    figure,
    heat_map,
    legend_below,
)
from common.files import JsonObject
from common.forecasting.assigned import Window
from common.forecasting.backtest import Forecast
from common.forecasting.metrics import LEVELS
from common.forecasting.windows import Windows
from common.results import SHOWN_SERIES

Arrays: TypeAlias = Mapping[str, np.ndarray]  # predictions.npz
FAN_STEPS = 48  # known prices in a fan
COURSE_STEPS = 12  # of the course's window are drawn before the steps ahead
GREY = "#888888"
PALE = 0.35  # opacity of what is not significant
THOUSAND = 1_000  # prices from here on are written with separators
OFF_SCALE = ("drift", "seasonal naive")
NETWORKS = ("Seq2Seq", "Transformer")
# one colour per model in every run; baselines are dashed
KNOWN = {
    "Seq2Seq": PALETTE[0],
    "Transformer": PALETTE[1],
    "log-HAR-t": PALETTE[6],
    "random walk": GREY,
}
# of a fan's time axis, by the unit that its ticks count; with fewer AutoDateLocator finds no
# distance for some spans, and warns
MOST_TICKS = {
    rrule.YEARLY: 3,
    rrule.MONTHLY: 5,
    rrule.DAILY: 4,
    rrule.HOURLY: 5,
    rrule.MINUTELY: 5,
}


def panels(count: int) -> dict[str, Option]:
    """Options of `figure` for a grid of `count` small panels, at most three in a row."""
    columns = min(count, 3)
    rows = -(-count // columns)
    size = (WIDTH, 1.75 * rows + 0.7)
    return {"size": size, "rows": rows, "columns": columns, "squeeze": False}


def tidy(axes: np.ndarray, used: int, columns: int) -> None:
    """Hides the unused panels of a grid and puts one legend there, or below the panels."""
    handles, labels = axes.flat[0].get_legend_handles_labels()
    for panel in axes.flat[used:]:
        panel.axis("off")
    if used < axes.size:
        legend = axes.flat[used].legend(handles, labels, loc="center left")
        legend.set_in_layout(False)  # else its length would move the panels
    else:
        legend_below(axes.flat[0].figure, axes.flat[:1], columns)


def shown_of(series: Sequence[str]) -> tuple[list[str], str]:
    """The first SHOWN_SERIES series, and a line about the others ("" where there are none)."""
    shown = [str(name) for name in series[:SHOWN_SERIES]]
    if len(shown) == len(series):
        return shown, ""
    return shown, (
        f"drawn are the first {len(shown)} of {len(series)} series; "
        "the scores of all are in metrics.json"
    )


def step_word(record: JsonObject, usual: str) -> str:
    """What one step of the prices is: hour, day, week, or "step of 4 hours".

    `usual` is that of a run which was made before the step was kept.
    """
    step = record["data"].get("step")
    if step is None:
        return usual
    number, _, unit = str(step).partition(" ")
    return unit if number == "1" else f"step of {step}"


def in_words(number: int) -> str:
    """A number of a title: in words up to ten."""
    words = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    return words[number] if number < len(words) else str(number)


# -------------------------------------------------------------------------------------- fans


def fan_arrays(windows: Windows, forecast: Forecast) -> dict[str, np.ndarray]:
    """What `fans_of` and `calibration` draw of a forecast of the test part.

    The fans are those of the origin whose steps moved by the median of all: neither a calm nor a
    wild day. `moved` (S,) tells the series whose price changed at all.
    """
    prices = windows.prices
    origins = windows.parts.test
    known = min(FAN_STEPS, windows.context)
    truth = windows.future(origins)  # (N, H, S)
    moves = np.abs(truth / prices.values[origins][:, None] - 1).mean((1, 2))  # (N,)
    shown = int(np.argsort(moves)[len(moves) // 2])
    origin = origins[[shown]]
    rows = slice(origins[shown] - known + 1, origins[shown] + windows.horizon + 1)
    return {
        "series": np.array(prices.series),
        "levels": LEVELS,
        "fan_origin": origin,
        "fan_times": prices.times[rows].astype("datetime64[m]").astype(np.int64),
        "fan_past": windows.past(origin)[0, -known:],
        "fan_future": truth[shown],
        "fan_point": forecast.point[shown],
        "fan_quantiles": forecast.distribution[shown],
        "below": shares_below(truth, forecast.distribution),  # (S, Q)
        "moved": (truth != prices.values[origins][:, None]).any((0, 1)),  # (S,)
    }


def shares_below(truth: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Share (S, Q) of outcomes (N, H, S) below each of the quantiles (N, H, S, Q)."""
    count = np.zeros(quantiles.shape[2:])
    for outcome, levels in zip(truth, quantiles, strict=True):  # all at once would fill a GB
        count += (outcome[..., None] < levels).sum(0)
    return count / (len(truth) * truth.shape[1])


class Known(NamedTuple):
    """The prices that a fan begins with: times (T,) and prices (T, S)."""

    times: np.ndarray
    prices: np.ndarray


class Ahead(NamedTuple):
    """The forecast of a fan: times (H,), quantiles (H, S, Q), levels (Q,), and the truth (H, S)."""

    times: np.ndarray
    quantiles: np.ndarray
    levels: np.ndarray
    actual: np.ndarray | None = None


def fan(axes: Axes, known: Known, ahead: Ahead, s: int) -> None:
    """Draws the known prices of series s, its forecast's intervals and median, and the truth."""
    last = known.prices[-1:, s]
    times = np.concatenate([known.times[-1:], ahead.times])  # (H + 1,): joined to the last price

    def at(level: float) -> np.ndarray:
        """The forecast's quantile (H + 1,)."""
        steps = [np.interp(level, ahead.levels, row) for row in ahead.quantiles[:, s]]
        return np.concatenate([last, steps])

    axes.plot(known.times, known.prices[:, s], color="black", lw=1, label="known prices")
    for share, opacity in ((0.95, 0.2), (0.80, 0.4)):
        low = at((1 - share) / 2)
        high = at((1 + share) / 2)
        label = f"{100 * share:g} % interval"
        axes.fill_between(times, low, high, color=PALETTE[0], alpha=opacity, lw=0, label=label)
    axes.plot(times, at(0.5), color=PALETTE[0], label="median")
    axes.plot(times, np.repeat(last, len(times)), color=GREY, ls=":", label="no change")
    if ahead.actual is not None:
        truth = np.concatenate([last, ahead.actual[:, s]])
        axes.plot(times, truth, color=PALETTE[1], lw=1, label="actual prices")
    axes.xaxis.set_major_locator(mdates.AutoDateLocator(minticks=2, maxticks=MOST_TICKS))
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(axes.xaxis.get_major_locator()))
    separated(axes)


def separated(axes: Axes) -> None:
    """Writes prices of a thousand and more with separators."""
    if axes.get_ylim()[1] >= THOUSAND:
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))


def fans(
    path: Path,
    record: JsonObject,
    series: Sequence[str],
    known: Known,
    ahead: Ahead,
    title: str,
) -> None:
    """Writes one `fan` for each of the series that `shown_of` names."""
    shown, others = shown_of(series)
    with figure(path, record, **panels(len(shown))) as (picture, axes):
        for s, (name, panel) in enumerate(zip(shown, axes.flat, strict=False)):
            fan(panel, known, ahead, s)
            panel.set_title(name)
            panel.set_ylabel("price (USD)" if s % axes.shape[1] == 0 else "")
        tidy(axes, len(shown), columns=6)
        picture.suptitle(titled(title, others))


def titled(title: str, *others: str) -> str:
    """A title with lines about what is not drawn below it."""
    return "\n".join([title, *filter(None, others)])


def fans_of(path: Path, record: JsonObject, arrays: Arrays) -> None:
    """The `fans` of a run, from the arrays of `fan_arrays`."""
    times = arrays["fan_times"].astype("datetime64[m]")
    steps = len(arrays["fan_past"])
    known = Known(times[:steps], arrays["fan_past"])
    ahead = Ahead(times[steps:], arrays["fan_quantiles"], arrays["levels"], arrays["fan_future"])
    moment = str(known.times[-1]).replace("T", " ")
    title = f"Forecast from {moment} UTC: 80 % and 95 % intervals, mean of the seeds"
    fans(path, record, [str(name) for name in arrays["series"]], known, ahead, title)


# ------------------------------------------------------------------------------------- scores


def by_horizon(
    path: Path,
    record: JsonObject,
    rows: pd.DataFrame,
    scale: str,
    known: Mapping[str, str] | None = None,
) -> None:
    """RMSE over no change's and CRPS ratio by step ahead of every model and variant among `rows`.

    The axes fit the model `scale`; lines that lie outside them, or at 1 like the reference itself,
    are left out, and with them a panel without any line. `known` are colours of trained models.
    """
    shown = {
        "rmsse": "RMSE ratio (1: no change)",
        "crps_ratio": "CRPS ratio (1: random walk)",
    }
    rows = rows[rows.series.isna() & rows.horizon.notna() & rows.metric.isin(shown)]
    rows = rows[~rows.model.isin(OFF_SCALE)]
    moving = rows[rows.model == scale].groupby("metric").value.agg(lambda v: not at_one(v))
    metrics = [metric for metric in shown if moving.get(metric, False)] or list(shown)
    options: dict[str, Option] = {"columns": len(metrics), "squeeze": False}
    with figure(path, record, (WIDTH, 3.5), **options) as (picture, axes):
        for panel, metric in zip(axes.flat, metrics, strict=True):
            fit_scale(panel, rows[(rows.metric == metric) & (rows.model == scale)].value)
            step_curves(panel, rows, metric, known or {})
            panel.set(xlabel="step ahead", ylabel=shown[metric])
            panel.set_xticks(sorted(rows.horizon.unique()))
            panel.axhline(1, color=GREY, lw=1.2, ls=":")
        legend_below(picture, axes.flat, columns=2)  # the lines leave no room inside
        picture.suptitle(
            "Error by step ahead, geometric mean over series, test part; bars: deviation over\n"
            "training seeds; lines at 1 throughout and lines off the scale are not drawn"
        )


def at_one(values: pd.Series) -> bool:
    """Whether all ratios are 1, as those of a model that forecasts like its reference."""
    return bool(np.allclose(values.to_numpy(float), 1, rtol=0, atol=1e-9))


def step_curves(panel: Axes, rows: pd.DataFrame, metric: str, known: Mapping[str, str]) -> None:
    """One metric against the step, one line per model and variant, in the model's colour.

    A line that is at 1 throughout, or outside the panel's limits, is not drawn.
    """
    names = dict.fromkeys(zip(rows.model, rows.variant, strict=True))
    colour = model_colours(rows.model) | dict(known)
    for number, (model, variant) in enumerate(names):
        of_model = (rows.model == model) & (rows.variant == variant)
        line = rows[of_model & (rows.metric == metric)].sort_values("horizon")
        if at_one(line.value) or not line.value.between(*panel.get_ylim()).any():
            continue
        panel.errorbar(
            line.horizon,
            line.value,
            line["std"].fillna(0),
            color=colour[model],
            marker=MARKERS[number % len(MARKERS)],
            ms=4,
            ls="-" if model in {*NETWORKS, *known} else "--",
            label=f"{model}, {variant}",
        )


def model_colours(models: Iterable[str]) -> dict[str, str]:
    """A colour for each model: that of `KNOWN`, and the free ones in order for the others."""
    free = [colour for colour in PALETTE if colour not in KNOWN.values()]
    others = [name for name in dict.fromkeys(models) if name not in KNOWN]
    return KNOWN | {name: free[number % len(free)] for number, name in enumerate(others)}


def fit_scale(panel: Axes, values: pd.Series) -> None:
    """Limits the axis to a model's values and 1, with some room."""
    low = min([1, *values])
    high = max([1, *values])
    room = high - low
    panel.set_ylim(low - 0.3 * room - 0.001, high + 0.5 * room + 0.001)


# a ratio, the p of its test, and the title of their map
AGAINST_REFERENCES = (
    ("rmsse", "p_rmse", "RMSE against no change"),
    ("crps_ratio", "p_crps", "CRPS against the rolling random walk"),
)


def cells(
    path: Path,
    record: JsonObject,
    rows: pd.DataFrame,
    series: Sequence[str],
    model: str,
    variant: str,
    maps: Sequence[tuple[str, str, str]] = AGAINST_REFERENCES,
) -> None:
    """Maps of (ratio, its p, title) of one model by series and step.

    All maps of a figure are on one scale of colours. A star marks p < 0.05 after Holm, and what is
    not significant is pale. Series without a ratio, whose price never moved, are named and left
    out.
    """
    rows = rows[(rows.model == model) & (rows.variant == variant)]
    with_ratio = set.intersection(*(set(rows[rows.metric == metric].series) for metric, *_ in maps))
    still = [str(name) for name in series if name not in with_ratio]
    shown, others = shown_of([name for name in series if name in with_ratio])
    height = 0.24 * max(len(shown), 2) + 1.2
    spread = max((spread_of(rows, metric, shown) for metric, *_ in maps), default=0.0)
    with figure(path, record, (WIDTH, height), 1, len(maps), sharey=True) as (picture, axes):
        for panel, (metric, p, title) in zip(axes, maps, strict=True):
            if shown:
                image = cell_map(panel, rows, shown, metric, p, spread)
            panel.set(title=f"{title}\n(* p < 0.05)", xlabel="step ahead")
        if shown:
            picture.colorbar(image, ax=axes, label="ratio of errors")
        lines = titled(others, without_ratio(still)).strip()
        if lines:
            picture.suptitle(lines)


def without_ratio(series: Sequence[str]) -> str:
    """A line about the series that have no ratio, or "" where each has one."""
    if not series:
        return ""
    names = ", ".join(series[:SHOWN_SERIES])
    more = len(series) - SHOWN_SERIES
    return f"left out, because the price never moves: {names}" + (
        f" and {more} more" if more > 0 else ""
    )


def spread_of(rows: pd.DataFrame, metric: str, series: Sequence[str]) -> float:
    """The largest distance of a ratio from 1, at least a thousandth."""
    distances = np.abs(matrix_of(rows, metric, series) - 1)
    return max(float(distances[np.isfinite(distances)].max(initial=0)), 1e-3)


def cell_map(
    panel: Axes, rows: pd.DataFrame, series: Sequence[str], metric: str, p: str, spread: float
) -> AxesImage:
    """The map of one ratio, 1 - spread to 1 + spread, starred where its p is below 0.05."""
    values = matrix_of(rows, metric, series)
    significant = matrix_of(rows, p, series) < 0.05
    steps = [str(step + 1) for step in range(values.shape[1])]
    texts = np.char.add(np.char.mod("%.3f", values), np.where(significant, "*", ""))
    style: dict[str, Option] = {"vmin": 1 - spread, "vmax": 1 + spread, "cmap": "PuOr_r"}
    style["alpha"] = np.where(significant, 1.0, PALE)
    image = heat_map(panel, values, list(series), steps, texts, **style)
    names = [label.get_text() for label in panel.get_xticklabels()]
    panel.set_xticks(panel.get_xticks(), names, rotation=0, ha="center")
    return image


def matrix_of(rows: pd.DataFrame, metric: str, series: Sequence[str]) -> np.ndarray:
    """Values (S, H) of a metric by series and step, NaN where there is none."""
    single = rows[rows.series.notna() & rows.horizon.notna()]
    steps = sorted(single.horizon.unique())
    of_metric = single[single.metric == metric]
    table = of_metric.pivot(index="series", columns="horizon", values="value")
    return table.reindex(index=series, columns=steps).to_numpy(float)


def calibration(path: Path, record: JsonObject, arrays: Arrays) -> None:
    """Share of outcomes below each quantile, less the quantile's level, one line per series."""
    levels = arrays["levels"]
    series = [str(name) for name in arrays["series"]]
    moved = arrays["moved"] if "moved" in arrays else np.ones(len(series), bool)
    below_of = {name: arrays["below"][s] for s, name in enumerate(series) if moved[s]}
    shown, others = shown_of(list(below_of))
    still = without_ratio([name for name in series if name not in below_of])
    names = colours(shown)
    with figure(path, record, (WIDTH, 3.3)) as (picture, panel):
        for number, name in enumerate(names):
            below = below_of[name]
            panel.plot(
                100 * levels,
                100 * (below - levels),
                label=name,
                color=names[name],
                marker=MARKERS[number % len(MARKERS)],  # which a grey print needs
                ms=4,
                markevery=(2 * number, 14),
            )
        panel.axhspan(-2, 2, color="#EEEEEE", zorder=0)
        panel.axhline(0, color=GREY, lw=0.8)
        panel.set(xlabel="quantile level (%)", ylabel="outcomes below it, less the level (points)")
        title = "Calibration on the test part; grey: within 2 points"
        panel.set_title(titled(title, others, still))
        legend_below(picture, [panel], columns=7)


def seed_curves(panel: Axes, log: pd.DataFrame, prefix: str) -> None:
    """Validation scores `<prefix><seed>` of metrics.csv against the epoch, one line per seed.

    The legend is the caller's, which one figure of several panels needs once.
    """
    seeds = [
        name.removeprefix(prefix)
        for name in log.name.unique()
        if name.startswith(prefix) and name.removeprefix(prefix).isdigit()
    ]
    for number, seed in enumerate(sorted(seeds)):
        style: dict[str, Option] = {
            "color": PALETTE[number % len(PALETTE)],
            "marker": MARKERS[number % len(MARKERS)],
            "ms": 3,
        }
        part = log[log.name == prefix + seed]
        panel.plot(part.epoch, part.value, label=f"seed {seed}", **style)
    panel.set(xlabel="epoch", ylabel="validation CRPS")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def logarithmic(panel: Axes) -> None:
    """A logarithmic axis of losses; linear where all are zero, of prices that never move."""
    if any((np.asarray(line.get_ydata()) > 0).any() for line in panel.lines):
        panel.set_yscale("log")


# -------------------------------------------------------------------------- the course's window


class CourseLine(NamedTuple):
    """One forecast (H, S) of the course's window: label, key in predictions.npz, where, colour."""

    label: str
    key: str
    window: Window
    colour: str


def course_figure(
    path: Path,
    record: JsonObject,
    arrays: Arrays,
    lines: Sequence[CourseLine],
    title: str,
) -> None:
    """The end of the course's window and the steps after it, each series in its own panel."""
    names, others = shown_of([str(name) for name in arrays["series"]])
    with figure(path, record, **panels(len(names))) as (picture, axes):
        for number, (name, panel) in enumerate(zip(names, axes.flat, strict=False)):
            course_panel(panel, arrays, lines, number)
            panel.set_title(name)
            lowest = number + axes.shape[1] >= len(names)
            panel.set_xlabel("step (0: last trained)" if lowest else "")
            panel.set_ylabel("price (USD)" if number % axes.shape[1] == 0 else "")
        tidy(axes, len(names), columns=3)
        picture.suptitle(titled(title, others))


def course_panel(panel: Axes, arrays: Arrays, lines: Sequence[CourseLine], series: int) -> None:
    """Truth, every forecast and no change for one series."""
    seen = arrays["assigned | seen"][:, series]  # (T,)
    coming = arrays["assigned | coming"][:, series]  # (H,)
    horizon = len(coming)
    trained_steps = np.arange(1 - horizon, 1)
    next_steps = np.arange(1, horizon + 1)

    shown = np.arange(-COURSE_STEPS, horizon) + 1
    truth = np.concatenate([seen, coming])[-len(shown) :]
    panel.plot(shown, truth, color="black", lw=1, label="price")
    windows = [line.window for line in lines]
    for number, line in enumerate(lines):
        steps = trained_steps if line.window == "trained" else next_steps
        style: dict[str, Option] = {"color": line.colour, "marker": MARKERS[number], "ms": 3}
        if windows.index(line.window) == number < len(windows) - 1:
            style |= {"ms": 6, "mfc": "none"}  # wide and open: the next line may lie on it
        panel.plot(steps, arrays[line.key][:, series], label=line.label, **style)
    unchanged = np.repeat(seen[-1], horizon)
    panel.plot(next_steps, unchanged, color=GREY, ls=":", label="no change")
    panel.axvspan(0.5 - horizon, 0.5, color="#EEEEEE", zorder=0)
    separated(panel)
