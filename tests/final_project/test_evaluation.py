"""What a rollout is scored by, and how the table orders models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common.results import Row
from final_project.config import CONTROLS, MODELS
from final_project.data import split
from final_project.evaluation import Judge, Scored, in_order
from tests.final_project.waves import waves


def persistence(first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
    return np.repeat(first[:, None], steps, 1)


def by_key(rows: list[Row]) -> dict[tuple[str, str | None, str], float]:
    return {(row.variant, row.series, row.metric): row.value for row in rows}


@pytest.fixture(scope="module")
def judged() -> tuple[Judge, dict]:
    """A judge of waves and the scores of persistence."""
    flow = waves()
    judge = Judge(flow, (8, 16), 20)
    return judge, judge.score(persistence, split(flow.parameters, 0))


def test_persistence_is_scored_as_by_hand(judged):
    judge, scores = judged
    flow = judge.flow
    test = split(flow.parameters, 0).interpolation
    assert scores["interpolation"]["squared_relative_l2"].shape == (len(test), 19, 3)
    assert scores["longer"]["squared_relative_l2"].shape == (len(test), 10, 3)

    v = flow.fields[test, ..., 1].astype(np.float64)
    error = ((v[:, :1] - v[:, 1:20]) ** 2).sum(2) / ((v[:, 1:20] ** 2).sum(2) + 1e-8)
    rows = [
        row
        for row in judge.rows(Scored("persistence", [scores]))
        if (row.variant, row.series, row.horizon) == ("interpolation", "v", None)
    ]
    value = next(row.value for row in rows if row.metric == "relative_l2_squared")
    assert value == pytest.approx(error.mean(), rel=1e-5)


def test_the_exchange_ratio_is_paired_by_trajectory(judged):
    judge, scores = judged
    control = Scored("control", [scores])
    rows = judge.exchange_rows(Scored("SEA", [scores]), control)
    assert rows[0].model == "SEA over control"
    assert by_key(rows)["gap", "v", "exchange_ratio"] == pytest.approx(1)

    halved = {
        part: {name: values / 2 for name, values in of_part.items()}
        for part, of_part in scores.items()
    }
    rows = judge.exchange_rows(Scored("SEA", [halved]), control)
    low = by_key(rows)["interpolation", None, "exchange_ratio_low"]
    assert low == pytest.approx(0.5, rel=1e-5)


def test_a_rollout_that_blew_up_has_finite_scores(judged):
    judge, _ = judged

    def blown_up(first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        return np.full((len(first), steps, *first.shape[1:]), np.inf)

    scores = judge.score(blown_up, split(judge.flow.parameters, 0))
    assert all(np.isfinite(row.value) for row in judge.rows(Scored("blown up", [scores])))


def test_the_table_puts_the_matched_control_right_after_its_model():
    errors = {"FNO": 0.2, "no exchange, matched": 0.1, "SEA": 0.3, "persistence": 0.25}
    assert in_order(errors) == ["FNO", "persistence", "SEA", "no exchange, matched"]
    assert in_order({"no exchange, matched": 0.1, "FNO": 0.2}) == ["no exchange, matched", "FNO"]


def test_every_control_differs_from_its_model_in_how_fields_are_coupled_alone():
    for ours, controls in CONTROLS.items():
        without, *_ = controls
        assert MODELS[without].architecture.exchange == "none"
        for control in controls:
            assert MODELS[control].matched
            same = MODELS[ours].architecture
            coupling = {"exchange": same.exchange, "joint": same.joint}
            assert replace(MODELS[control].architecture, **coupling) == same
            assert MODELS[control].architecture.exchange != same.exchange
            assert MODELS[control].tricks == MODELS[ours].tricks
            assert MODELS[control].patches == MODELS[ours].patches
