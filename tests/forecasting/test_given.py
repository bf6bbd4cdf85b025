"""Given prices are scored without what a run was trained or stopped on, told by their rows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from common.cli import InputError
from common.forecasting.baselines import Fitted
from common.forecasting.ensemble import held_out_rows
from common.forecasting.given import GivenOrigins, GivenWindows, Used
from common.forecasting.history import Prices
from common.forecasting.windows import Windows, split
from common.run import SavedRun
from tests.forecasting.helpers import walk, windows_of
from tests.forecasting.saved_runs import CONTEXT, HORIZON, load, saved_run, walk_table, write


def own_windows(steps: int, context: int = 96, horizon: int = 5, part: int = 8760) -> Windows:
    """A run's windows with the parts of assignment 2."""
    windows = windows_of(walk(steps), context, horizon)
    parts = split(windows.prices.contiguous(), context, horizon, part, part)
    return dataclasses.replace(windows, known=parts)


def left_out(own: Windows, prices: Prices) -> GivenOrigins:
    given = dataclasses.replace(own, prices=prices, known=None)
    return GivenOrigins.of(given.origins(), Used.by_rows(own, prices), own.horizon)


def test_the_file_of_a_run_is_scored_without_its_training_and_validation_part():
    own = own_windows(2500)
    given = left_out(own, own.prices)
    assert (given.all, given.trained, given.stopped, given.reaching) == (2400, 958, 621, 12)
    assert given.words.startswith(
        "1,579 of 2,400 origins lie in the part that the models were trained (958) or stopped "
        "(621) on and are left out"
    )
    # no scored step was forecast in training or validation
    made_with = np.concatenate([own.parts.train, own.parts.validation])
    targets = set((made_with[:, None] + np.arange(1, 6)).ravel())
    scored = set((given.scored[:, None] + np.arange(1, 6)).ravel())
    assert not targets & scored
    assert set(own.parts.test) <= set(given.scored)
    # nothing more is left out than that: the origins between the parts are scored
    assert len(given.scored) == 2400 - 1579 - 12


def changed(prices: Prices, **fields: object) -> Prices:
    return dataclasses.replace(prices, **fields)


def test_rows_are_known_by_time_and_price():
    own = own_windows(900)
    prices = own.prices
    digits = changed(prices, values=np.round(prices.values, 2))  # around 100: five digits
    assert left_out(own, digits).trained == len(own.parts.train)
    others = changed(prices, values=walk(900, seed=1))
    assert left_out(own, others).left_out == 0
    later = changed(prices, times=prices.times + np.timedelta64(900, "h"))
    assert left_out(own, later).left_out == 0
    cut = slice(300, None)
    end = left_out(own, changed(prices, times=prices.times[cut], values=prices.values[cut]))
    assert end.trained == 0
    assert end.stopped == (own.parts.validation >= 300 + 95).sum() == 179
    one_changed = prices.values.copy()
    one_changed[own.parts.train[5]] *= 1.01  # then its row is another, yet its targets are known
    given = left_out(own, changed(prices, values=one_changed))
    assert (given.trained, given.reaching) == (len(own.parts.train) - 1, 13)


def test_the_dates_of_a_run_tell_its_parts_where_its_prices_are_not_here(tmp_path):
    from common.forecasting.prices import read_table

    file = write(walk_table(400), tmp_path / "p.csv")
    run = SavedRun.open(saved_run(tmp_path / "run", file), tmp_path)
    prices = read_table(file)
    parts = split(prices.contiguous(), 8, 2, 60, 60)
    used = Used.by_dates(run, prices)
    np.testing.assert_array_equal(np.flatnonzero(used.trained), np.arange(7, parts.train[-1] + 1))
    np.testing.assert_array_equal(np.flatnonzero(used.stopped), parts.validation)

    record = json.loads((tmp_path / "run" / "run.json").read_text())
    for notes in ({}, {"parts": []}, {"parts": {"train": {"first": "x", "last": 3}}}):
        broken = SavedRun(run.folder, {**record, "notes": notes})
        with pytest.raises(InputError, match="does not tell the dates of its train part"):
            Used.by_dates(broken, prices)


@pytest.mark.parametrize("rolling", [220, 1440])
def test_a_scored_origin_has_the_same_forecast_whichever_others_are_scored(monkeypatch, rolling):
    monkeypatch.setattr(Windows, "rolling", rolling)
    windows = windows_of(walk(700), CONTEXT, HORIZON)
    given = GivenWindows(**vars(windows))
    every = given.origins()
    chosen = np.concatenate([np.arange(220, 260), np.arange(500, len(every))])

    def quantiles(origins: np.ndarray) -> np.ndarray:
        groups = load(Path()).groups
        found = held_out_rows(given, groups, origins, "test", Fitted(), kept=[groups[0].key])
        return found.ensembles[groups[0].key].distribution

    np.testing.assert_array_equal(quantiles(every[chosen]), quantiles(every)[chosen])
    # without holes it is what any windows do
    np.testing.assert_array_equal(given.before(every[300:]), windows.before(every[300:]))
