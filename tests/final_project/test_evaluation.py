"""What a rollout is scored by, and how the table orders models."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from common.results import Row
from final_project.config import CONTROLS, MODELS
from final_project.data import split
from final_project.evaluation import CodedTruth, Judge, Scored, in_order
from final_project.surrogate import decode, encode
from tests.final_project.test_units import small_surrogate
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


def test_rollouts_begin_a_second_time_in_the_middle_of_the_trained_frames(judged):
    judge, scores = judged
    fields = judge.flow.fields[split(judge.flow.parameters, 0).interpolation].astype(np.float64)
    assert scores["other starts"]["squared_relative_l2"].shape == (len(fields), 19, 3)
    u = fields[..., 0]
    error = ((u[:, 10:11] - u[:, 11:30]) ** 2).sum(2) / (u[:, 11:30] ** 2).sum(2)
    assert scores["other starts"]["squared_relative_l2"][..., 0] == pytest.approx(error, rel=1e-5)

    short = Judge(
        dataclasses.replace(
            judge.flow, fields=judge.flow.fields[:, :20], time=judge.flow.time[:20]
        ),
        (8, 16),
        20,
    )
    found = short.score(persistence, split(judge.flow.parameters, 0))
    assert found["other starts"]["squared_relative_l2"].shape[1] == 9
    assert "longer" not in found


def test_the_longer_part_tells_the_correlation_at_its_end(judged):
    judge, scores = judged
    rows = by_key(judge.rows(Scored("persistence", [scores])))
    wanted = scores["longer"]["correlation"][:, -1, 1].mean()  # the last tenth of ten steps
    assert rows["longer", "v", "final_correlation"] == pytest.approx(wanted)
    assert not any(metric == "final_correlation" for part, _, metric in rows if part != "longer")


def test_the_floor_is_of_the_frames_after_the_one_that_is_given():
    """Two trajectories that begin alike are told apart by their parameters."""
    flow = waves(5, frames=12, nodes=60)
    fields = flow.fields.copy()
    fields[1, 0] = fields[0, 0]
    flow = dataclasses.replace(flow, fields=fields)
    _, surrogate = small_surrogate(flow)
    floor = CodedTruth(surrogate.autoencoder, flow)
    rows = np.array([1, 4])
    for start in (0, 5):
        found = floor.predict(flow.fields[rows, start], flow.parameters[rows], 3)
        wanted = flow.fields[rows, start + 1 : start + 4]
        coded = decode(surrogate.autoencoder, encode(surrogate.autoencoder, wanted))
        assert np.array_equal(found, coded)


def test_intervals_of_a_model_and_of_a_ratio_are_over_its_trainings_too(judged):
    """Three trainings whose errors are 1, 2 and 3 times those of the control."""
    judge, scores = judged

    def times(factor: int) -> dict:
        return {
            part: {name: factor * values for name, values in of_part.items()}
            for part, of_part in scores.items()
        }

    control = Scored("control", [scores])
    ours = Scored("SEA", [times(factor) for factor in (1, 2, 3)])
    found = by_key(judge.exchange_rows(ours, control))
    for part in ("interpolation", "gap", "extrapolation", "longer", "other starts"):
        for series in ("u", "v", "p", None):
            ends = [found[part, series, f"exchange_ratio{end}"] for end in ("_low", "", "_high")]
            assert ends == pytest.approx([1, 2, 3], rel=1e-5)
    one = by_key(judge.exchange_rows(Scored("SEA", [times(2)]), control))
    assert one["gap", "v", "exchange_ratio_low"] == pytest.approx(2)
    assert one["gap", "v", "exchange_ratio_high"] == pytest.approx(2)


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
            assert dataclasses.replace(MODELS[control].architecture, **coupling) == same
            assert MODELS[control].architecture.exchange != same.exchange
            assert MODELS[control].tricks == MODELS[ours].tricks
            assert MODELS[control].patches == MODELS[ours].patches
