"""The split by distance: parts, neighbours, borders, and the distances that are reported."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.cli import InputError
from final_project.data import Split, split
from final_project.solver import even_draws
from final_project.splits import APART, distances, distances_in_words, positions

PARTS = ("train", "validation", "interpolation", "gap", "extrapolation", "margin")
HELD_OUT = ("validation", "interpolation")

# the first parameters of `draw_parameters` (NGSolve is not needed, and must not come before torch)
FIRST = {
    "cylinder": lambda drawn: 60 + 340 * drawn[:, :1],
    "lock_exchange": lambda drawn: np.exp(np.log(1e5) + np.log(20) * drawn[:, :1]),
}


def cases(count: int, seed: int = 0) -> np.ndarray:
    """Parameters (N, 2): different Reynolds numbers in no order, and another column."""
    random = np.random.default_rng(seed)
    return np.column_stack([random.permutation(300 + 7.0 * np.arange(count)), random.random(count)])


def values_of(parameters: np.ndarray, parts: Split) -> dict[str, np.ndarray]:
    """The different first parameters of each part."""
    return {name: np.unique(parameters[getattr(parts, name), 0]) for name in PARTS}


def check_parts(parameters: np.ndarray, parts: Split) -> None:
    """What holds for every split by values."""
    rows = [getattr(parts, name) for name in PARTS]
    assert sorted(np.concatenate(rows)) == list(range(len(parameters)))
    assert all((np.diff(part) > 0).all() for part in rows)
    assert len(parts.train) >= 2
    assert len(parts.validation) >= 1
    assert len(parts.interpolation) >= 1

    # no value is in two parts:
    values = values_of(parameters, parts)
    assert sum(map(len, values.values())) == len(np.unique(parameters[:, 0]))

    # both neighbours of an interpolated value are trained on:
    trained = values["train"]
    several = np.unique(parameters[:, 0])
    for value in values["interpolation"]:
        number = np.searchsorted(several, value)
        assert several[number - 1] in trained
        assert several[number + 1] in trained

    # what lies beyond the training:
    top, extent = trained.max(), np.ptp(trained)
    if len(values["extrapolation"]):
        assert values["extrapolation"].min() - top >= 0.1 * extent * (1 - 1e-6)
        assert values["gap"].max() < top
        assert values["gap"].min() > trained.min()
    if len(values["margin"]):
        assert values["margin"].min() > top
        assert values["margin"].max() < values["extrapolation"].min()


@given(count=st.integers(4, 130), seed=st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_equally_spaced_values(count, seed):
    parameters = cases(count, seed)
    parts = split(parameters, seed)
    check_parts(parameters, parts)
    if count < 12:
        assert not {"gap", "extrapolation", "margin"} & {k for k, v in parts.sizes.items() if v}
        assert "no gap and no extrapolation" in parts.note
        return
    assert 0.04 * count <= len(parts.extrapolation) <= 0.2 * count
    gap = np.sort((parameters[parts.gap, 0] - 300) / 7)
    assert len(gap) >= 1
    assert (np.diff(gap) == 1).all()
    assert len(parts.train) >= 0.4 * count


@given(
    values=st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=4, max_size=60),
    copies=st.lists(st.integers(1, 4), min_size=60, max_size=60),
)
@settings(max_examples=150, deadline=None)
def test_any_values_with_any_number_of_trajectories(values, copies):
    values = np.unique(np.round(values, 3))
    if len(values) < 4:
        return
    parameters = np.repeat(values, copies[: len(values)])[:, None]
    parts = split(parameters, 0)
    check_parts(parameters, parts)


@pytest.mark.parametrize("flow", FIRST)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [64, 96])
def test_the_draws_fill_every_part_at_the_distances_that_it_promises(flow, seed, count):
    parameters = FIRST[flow](even_draws(count, 4 if flow == "cylinder" else 2, seed))
    parts = split(parameters, seed)
    check_parts(parameters, parts)
    assert parts.note == ""
    assert len(parts.margin) == 0
    assert len(parts.train) >= count // 2 - 2
    assert min(parts.sizes.values()) >= 5

    # levels are 1/32 of the trained range apart, and the extrapolation begins 4 levels beyond
    found = distances(parameters, parts)
    for name in HELD_OUT:
        assert found[name] == pytest.approx(100 / 32)
    assert np.unique(found["gap"].round(3)).tolist() == [3.125, 6.25]
    assert np.unique(found["extrapolation"].round(3)).tolist() == [12.5, 15.625, 18.75, 21.875]


@pytest.mark.parametrize("flow", FIRST)
def test_eight_draws_and_the_built_in_samples_have_the_parts_they_can_have(flow):
    for count in (6, 8, 16):
        parameters = FIRST[flow](even_draws(count, 4 if flow == "cylinder" else 2, 0))
        parts = split(parameters, 0)
        check_parts(parameters, parts)
        assert (distances(parameters, parts)["interpolation"] >= 100 * APART).all()
        assert (len(parts.gap) > 0) == (len(parts.extrapolation) > 0) == (count >= 12)


def test_forty_and_four_by_hand():
    assert list(split(cases(4), 0).sizes.values()) == [2, 1, 1, 0, 0]
    parameters = cases(40)
    parts = split(parameters, 0)
    number = {name: np.sort((parameters[getattr(parts, name), 0] - 300) / 7) for name in PARTS}
    # 6 of 40 leave 3 in between, 4 leave 3 as well: 4 is the share aimed at. Value 36 is 36 / 1.1 =
    # 32.7 steps from the first, so values 33 to 35 are the margin; of 33 values inside, the gap is
    # 4 around number 18; of the other 29, 6 and 3 are held out.
    assert number["extrapolation"].tolist() == [36, 37, 38, 39]
    assert number["margin"].tolist() == [33, 34, 35]
    assert number["gap"].tolist() == [16, 17, 18, 19]
    assert len(number["interpolation"]) == 6
    assert len(number["validation"]) == 3
    assert parts.note.startswith("margin: 3 of 40 trajectories, beyond the trained range by less")


def test_values_that_are_close_together_are_held_out_last():
    """Twenty values 4 % apart, and five pairs that are 0.1 % apart: none of the pairs is taken."""
    pairs = np.concatenate([0.8 + 0.04 * np.arange(5), 0.801 + 0.04 * np.arange(5)])
    parameters = np.concatenate([0.04 * np.arange(20), pairs])[:, None]
    for seed in range(5):
        parts = split(parameters, seed)
        held_out = np.concatenate([parts.interpolation, parts.validation])
        assert (parameters[held_out] < 0.8).all()
        assert (distances(parameters, parts)["interpolation"] >= 100 * APART).all()


def test_the_result_depends_on_values_and_seed_only():
    parameters = cases(40)
    found = split(parameters, 3)
    order = np.random.default_rng(9).permutation(40)
    shuffled = split(parameters[order], 3)
    scaled = split(np.column_stack([2 * parameters[:, 0], np.full(40, 1e9)]), 3)
    for name in PARTS:
        assert (getattr(split(parameters, 3), name) == getattr(found, name)).all()
        assert sorted(order[getattr(shuffled, name)]) == getattr(found, name).tolist()
        assert (getattr(scaled, name) == getattr(found, name)).all()
    others = [set(split(parameters, seed).interpolation) for seed in range(3)]
    assert any(other != set(found.interpolation) for other in others)


@pytest.mark.parametrize(
    "parameters",
    [np.zeros((20, 0)), np.full((20, 1), 100.0), np.repeat([[1.0], [2.0]], 10, axis=0)],
)
def test_without_a_varied_parameter_the_split_is_random_and_says_so(parameters):
    parts = split(parameters, 0)
    assert "the split is random" in parts.note
    assert list(parts.sizes.values()) == [14, 2, 4, 0, 0]
    assert (split(parameters, 1).interpolation != parts.interpolation).any()
    if np.ptp(parameters, 0).sum() == 0:
        assert distances(parameters, parts) == {}


@pytest.mark.parametrize("count", range(4))
def test_too_few_are_refused(count):
    with pytest.raises(InputError, match=rf"^{count} trajector\w+ (is|are) too few"):
        split(cases(count), 0)


# ------------------------------------------------------------------------------------ distances


def test_distances_by_hand():
    parameters = np.array([[60.0], [100.0], [110.0], [160.0], [190.0]])
    nothing = np.zeros(0, int)
    parts = Split(np.array([0, 3]), np.array([1]), np.array([2]), nothing, np.array([4]), nothing)
    found = distances(parameters, parts)  # the trained range is 60 to 160
    assert list(found) == ["validation", "interpolation", "extrapolation"]
    assert found["validation"] == pytest.approx([40])
    assert found["interpolation"] == pytest.approx([50])
    assert found["extrapolation"] == pytest.approx([30])
    assert distances_in_words("Re", found) == (
        "nearest trained Re, in % of the trained range: validation 40.0 to 40.0, "
        "interpolation 50.0 to 50.0, extrapolation 30.0 to 30.0"
    )
    assert distances_in_words("Re", {}) == ""


def test_a_parameter_that_spans_a_decade_is_measured_by_its_logarithm():
    assert positions(np.array([[1.0], [10.0], [100.0]])).tolist() == [0, 0.5, 1]
    assert positions(np.array([[1.0], [3.0], [9.0]])).tolist() == [0, 0.25, 1]
    assert positions(np.array([[-1.0], [10.0], [99.0]])).tolist() == [0, 0.11, 1]
    assert positions(np.full((3, 1), 7.0)).tolist() == [0, 0, 0]
