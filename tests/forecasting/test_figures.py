"""What figures draw of many series, of series that never move, and of a short context."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from common.figures import figure
from common.forecasting import figures
from common.forecasting.backtest import Entry, Forecast, Reference, score, score_rows
from common.forecasting.metrics import LEVELS
from common.forecasting.windows import Windows, split
from tests.forecasting.helpers import walk, windows_of

RECORD = {"source": "csv", "preset": "smoke", "data": {"path": "prices.csv"}}
Drawn = dict[str, Figure]  # by the name of the file


@pytest.fixture
def drawn(monkeypatch) -> Drawn:
    """Every figure that is drawn, as it was when its block ended."""
    pictures: Drawn = {}

    @contextlib.contextmanager
    def kept(path: Path, *arguments, **options):
        with figure(path, *arguments, **options) as (picture, axes):
            yield picture, axes
            pictures[path.name] = picture

    monkeypatch.setattr(figures, "figure", kept)
    return pictures


def texts(picture: Figure) -> str:
    titles = [picture.get_suptitle(), *(axes.get_title() for axes in picture.axes)]
    return "\n".join(filter(None, titles))


def named(windows: Windows, series: tuple[str, ...]) -> Windows:
    return dataclasses.replace(windows, prices=dataclasses.replace(windows.prices, series=series))


def scored(values: np.ndarray, context: int = 30) -> tuple[Windows, Forecast]:
    """Windows with parts of prices (T, S), and no change between 1 % less and more."""
    windows = windows_of(values, context)
    parts = split(windows.prices.contiguous(), context, windows.horizon, 100, 100)
    windows = dataclasses.replace(windows, known=parts)
    point = np.repeat(windows.past(parts.test)[:, -1:], windows.horizon, axis=1)
    return windows, Forecast(point, point[..., None] * (0.99 + 0.02 * LEVELS))


def rows_of(windows: Windows, forecast: Forecast) -> pd.DataFrame:
    origins = windows.parts.test
    known = windows.past(origins), windows.future(origins)
    reference = Reference(*known, windows.prices.series, forecast.distribution)
    with np.errstate(divide="ignore"):
        rows = score_rows(score(reference, [forecast]), Entry(model="A", variant="b", split="test"))
    return pd.DataFrame([dataclasses.asdict(row) for row in rows])


def test_of_many_series_the_first_twelve_are_drawn_and_a_line_says_so(tmp_path, drawn):
    windows, forecast = scored(np.repeat(walk(500, 7), 2, axis=1))
    windows = named(windows, tuple(f"S{s}" for s in range(14)))
    arrays = figures.fan_arrays(windows, forecast)
    assert arrays["series"].tolist() == list(windows.prices.series)
    figures.fans_of(tmp_path / "fans.png", RECORD, arrays)
    figures.calibration(tmp_path / "calibration.png", RECORD, arrays)
    rows = rows_of(windows, forecast)
    figures.cells(tmp_path / "cells.png", RECORD, rows, windows.prices.series, "A", "b")
    line = "drawn are the first 12 of 14 series; the scores of all are in metrics.json"
    for name, picture in drawn.items():
        assert line in texts(picture), name
    assert [axes.get_title() for axes in drawn["fans.png"].axes] == [f"S{s}" for s in range(12)]
    assert len(drawn["cells.png"].axes[0].get_yticks()) == 12


def test_a_series_that_never_moves_is_named_and_left_out(tmp_path, drawn):
    values = walk(500, 3)
    values[:, 1] = 0.27229
    windows, forecast = scored(values)
    rows = rows_of(windows, forecast)
    assert rows[(rows.series == "B") & (rows.metric == "rmsse")].empty
    figures.cells(tmp_path / "cells.png", RECORD, rows, windows.prices.series, "A", "b")
    figures.calibration(tmp_path / "calibration.png", RECORD, figures.fan_arrays(windows, forecast))
    for picture in drawn.values():
        assert "left out, because the price never moves: B" in texts(picture)
    labels = [label.get_text() for label in drawn["cells.png"].axes[0].get_yticklabels()]
    assert labels == ["A", "C"]
    assert len(drawn["calibration.png"].axes[0].get_lines()) == 2 + 1  # and the line at zero


def test_figures_without_any_ratio_are_drawn_all_the_same(tmp_path, drawn):
    windows, forecast = scored(np.full((500, 1), 3.75))
    rows = rows_of(windows, forecast)
    figures.cells(tmp_path / "cells.png", RECORD, rows, ("A",), "A", "b")
    figures.by_horizon(tmp_path / "horizon.png", RECORD, rows, "A")
    figures.calibration(tmp_path / "calibration.png", RECORD, figures.fan_arrays(windows, forecast))
    assert len(drawn) == 3


@pytest.mark.parametrize(("context", "known"), [(2, 2), (24, 24), (47, 47), (60, 48)])
def test_fans_begin_with_as_many_known_prices_as_the_context_has(tmp_path, context, known):
    windows, forecast = scored(walk(500), context)
    arrays = figures.fan_arrays(windows, forecast)
    assert len(arrays["fan_past"]) == known
    assert len(arrays["fan_times"]) == known + windows.horizon
    assert arrays["fan_times"][known - 1] == windows.prices.times[arrays["fan_origin"][0]].astype(
        "datetime64[m]"
    ).astype(int)
    figures.fans_of(tmp_path / "fans.png", RECORD, arrays)


def test_the_shares_below_each_quantile_are_those_of_all_outcomes():
    rng = np.random.default_rng(0)
    truth = rng.random((40, 3, 2))
    quantiles = np.sort(rng.random((40, 3, 2, 99)), -1)
    expected = (truth[..., None] < quantiles).mean((0, 1))
    np.testing.assert_allclose(figures.shares_below(truth, quantiles), expected)


@pytest.mark.parametrize(
    ("step", "word"),
    [(None, "hour"), ("1 hour", "hour"), ("1 day", "day"), ("15 minutes", "step of 15 minutes")],
)
def test_a_step_is_called_by_its_length(step, word):
    data = {} if step is None else {"step": step}
    assert figures.step_word({"data": data}, "hour") == word


@pytest.mark.parametrize("minutes", [15, 60, 240, 24 * 60, 7 * 24 * 60])
def test_the_time_axis_of_a_fan_has_ticks_for_every_step_and_length(minutes):
    for steps in range(4, 54):
        times = np.datetime64("2024-01-31T09:00", "m") + np.arange(steps) * np.timedelta64(
            minutes, "m"
        )
        axes = Figure().subplots()
        prices = np.linspace(1, 2, steps)[:, None]
        quantiles = prices[-2:, :, None] + LEVELS
        known = figures.Known(times[:-2], prices[:-2])
        figures.fan(axes, known, figures.Ahead(times[-2:], quantiles, LEVELS), 0)
        assert 1 <= len(axes.get_xticks()) <= 6  # a warning is an error here
