"""Scores of rollouts: by hand, by identity, by invariance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.cli import InputError
from final_project import metrics
from final_project.baselines.grid import Grid
from tests.final_project.helpers import mesh, scattered


def one(values) -> np.ndarray:
    """One trajectory, one time, one field: (1, 1, P, 1)."""
    return np.asarray(values, float)[None, None, :, None]


# ---------------------------------------------------------------------------------- error of fields


def test_errors_of_fields_by_hand():
    prediction, truth = (
        one([1, 2, 3]),
        one([1, 0, 1]),
    )  # squared error 0 + 4 + 4, squared truth 2, variance 2 / 9
    assert metrics.squared_relative_l2(prediction, truth).item() == pytest.approx(4)
    assert metrics.relative_l2(prediction, truth).item() == pytest.approx(2)
    assert metrics.vrmse(prediction, truth).item() == pytest.approx(np.sqrt(8 / 3 / (2 / 9)))
    assert metrics.pooled_nrmse(prediction, truth).item() == pytest.approx(2)
    assert metrics.correlation(prediction, truth).item() == pytest.approx(0, abs=1e-15)


def test_nothing_over_nothing_is_nothing_and_a_floor_is_in_units_of_the_field():
    rest = one([0, 0])
    assert metrics.squared_relative_l2(rest, rest).item() == 0
    assert metrics.squared_relative_l2(one([1e-4, 0]), rest).item() == np.inf
    found = metrics.squared_relative_l2(one([1e-4, 0]), rest, floor=1e-8)
    assert found.item() == pytest.approx(0.5)  # mean square of the error 5e-9
    assert metrics.vrmse(one([7.0, 7]), one([7.0, 7])).item() == 0


def test_pooled_scores_divide_by_the_whole_trajectory():
    truth = np.stack([one([0, 0])[0, 0], one([3, -3])[0, 0]])[
        None
    ]  # (1, 2, 2, 1): from rest; mean square and mean variance 4.5
    prediction = truth + np.array([1.5, -1.5])[:, None]
    for found in (
        metrics.pooled_nrmse(prediction, truth),
        metrics.vrmse(prediction, truth, pooled=True),
    ):
        assert found.ravel() == pytest.approx([1.5 / np.sqrt(4.5)] * 2)
    assert metrics.vrmse(prediction, truth)[0, 0, 0] > 1e3


def test_every_error_of_the_truth_is_zero_and_its_correlation_one():
    truth = np.random.default_rng(0).normal(size=(2, 3, 40, 2))
    for error in (
        metrics.squared_relative_l2,
        metrics.relative_l2,
        metrics.vrmse,
        metrics.pooled_nrmse,
    ):
        assert error(truth, truth).shape == (2, 3, 2)
        assert not error(truth, truth).any()
    assert metrics.correlation(truth, truth) == pytest.approx(1)


def test_predicting_the_mean_scores_one():
    truth = np.random.default_rng(1).normal(3, 2, size=(2, 3, 40, 2))
    assert metrics.vrmse(
        np.broadcast_to(truth.mean(2, keepdims=True), truth.shape), truth
    ) == pytest.approx(1)


@given(st.floats(0.1, 10), st.floats(-5, 5), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_invariances(scale, shift, seed):
    prediction, truth = np.random.default_rng(seed).normal(size=(2, 1, 2, 30, 2))
    order = np.random.default_rng(seed).permutation(30)
    for error in (
        metrics.squared_relative_l2,
        metrics.vrmse,
        metrics.pooled_nrmse,
        metrics.correlation,
    ):
        assert error(prediction[:, :, order], truth[:, :, order]) == pytest.approx(
            error(prediction, truth)
        )
        for factor in (scale, 1e-30, 1e-6, 1e7):
            assert error(factor * prediction, factor * truth) == pytest.approx(
                error(prediction, truth), rel=1e-12
            )
    assert metrics.vrmse(prediction + shift, truth + shift) == pytest.approx(
        metrics.vrmse(prediction, truth)
    )
    assert metrics.correlation(scale * prediction + shift, truth) == pytest.approx(
        metrics.correlation(prediction, truth)
    )
    assert metrics.relative_l2(prediction, truth) ** 2 == pytest.approx(
        metrics.squared_relative_l2(prediction, truth)
    )


@pytest.mark.parametrize(
    ("prediction", "truth", "wanted"),
    [([0.1] * 7, [0.7] * 7, 1), ([0.1] * 7, range(7), 0), (range(7), [0.1] * 7, 0)],
)
def test_correlation_of_constant_fields_is_decided_not_divided_by_zero(prediction, truth, wanted):
    assert metrics.correlation(one(list(prediction)), one(list(truth))).item() == wanted


def test_time_to_correlation_of_a_known_decay():
    decay = 0.9 ** np.arange(1, 11)  # 0.9, 0.81, 0.729 ...: two steps hold 0.8
    never, blown = np.ones(10), np.where(np.arange(10) < 4, 1, np.nan)
    found = metrics.time_to_correlation(np.stack([decay, never, blown], -1)[None], dt=0.5)
    assert found.tolist() == [[1.0, 5.0, 2.0]]
    back = np.array([0.9, 0.1, 0.9])[None, :, None]
    assert (
        metrics.time_to_correlation(back).item() == 1
    )  # the first time below, whatever comes after


@pytest.mark.parametrize("shapes", [((2, 3, 4, 1), (2, 3, 5, 1)), ((3, 4, 1), (3, 4, 1))])
def test_unequal_shapes_are_refused(shapes):
    with pytest.raises(InputError, match="one shape"):
        metrics.squared_relative_l2(*(np.zeros(shape) for shape in shapes))


# ------------------------------------------------------------------------------------------ spectra


@pytest.mark.parametrize("shape", [(12, 30), (7, 5)])
def test_band_energies_sum_to_the_squared_norm(shape):
    field = np.random.default_rng(2).normal(size=(3, 2, *shape))
    energy = metrics.band_energy(field, aspect=2.5, edges=(1.0, 2.0))
    assert energy.shape == (3, 2, 3)
    assert energy.sum(-1) == pytest.approx((field**2).sum((-2, -1)))


@pytest.mark.parametrize(
    ("cycles", "band"), [(0, 0), (2, 0), (3.5, 0), (4, 1), (8, 1), (11.5, 1), (12, 2), (20, 2)]
)
@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_pure_cosine_lies_in_its_band(cycles, band, axis):
    rows, aspect = 48, 2.0
    middles = (np.arange(rows if axis == "y" else int(rows * aspect)) + 0.5) / rows  # in heights
    line = np.cos(2 * np.pi * cycles * middles)
    field = np.outer(line, np.ones(96)) if axis == "y" else np.outer(np.ones(rows), line)
    assert metrics.band_energy(field, aspect).argmax() == band
    assert metrics.band_energy(field, aspect)[band] == pytest.approx((field**2).sum())


def test_a_lost_band_scores_one_and_the_others_zero():
    nodes, triangles = mesh(32, 32, width=1.0)
    grid = Grid(nodes, triangles, 32, 32)
    rows = (np.arange(32) + 0.5) / 32
    low, high = (np.repeat(np.cos(2 * np.pi * cycles * rows), 32) for cycles in (2, 14))
    truth = np.repeat((low + 0.1 * high)[None, None, :, None], 2, axis=1)
    bands = metrics.spectral_bands(
        np.broadcast_to(low[:, None], truth.shape), truth, grid.to_grid, grid.aspect
    )
    assert bands.shape == (1, 2, 1, 3)
    assert bands[0, :, 0] == pytest.approx(np.array([[0, 0, 1]] * 2), abs=1e-6)


@given(st.floats(0.06, 0.4), st.floats(0, 6.28))
@settings(max_examples=40, deadline=None)
def test_the_frequency_of_a_sine_is_found_to_half_a_percent(frequency, phase):
    dt, count = 0.5, 200
    signal = 3 + np.sin(2 * np.pi * frequency * dt * np.arange(count) + phase)
    assert metrics.dominant_frequency(signal, dt) == pytest.approx(frequency, rel=5e-3)


def test_spectra_of_several_probes_at_once():
    time = 0.1 * np.arange(256)
    signals = np.stack([np.sin(2 * np.pi * f * time) for f in (0.7, 2.1)] + [np.full(256, 0.3)])
    frequencies, power = metrics.probe_spectrum(signals, 0.1)
    assert power.shape == (3, 129)
    assert frequencies[power[:2].argmax(1)] == pytest.approx([0.7, 2.1], abs=0.02)
    assert power[0].sum() * frequencies[1] == pytest.approx(0.5, rel=0.02)  # the variance of a sine
    assert metrics.dominant_frequency(signals, 0.1) == pytest.approx([0.7, 2.1, 0], abs=0.01)
    with pytest.raises(InputError, match="at least 8"):
        metrics.dominant_frequency(np.zeros(5), 0.1)


# ------------------------------------------------------------------------------------------ physics


def test_gradients_are_exact_for_linear_fields():
    nodes, triangles = scattered()
    x, y, areas = metrics.gradients(nodes, triangles)
    line = 2 + 3 * nodes[:, 0] - 5 * nodes[:, 1]
    assert x @ line == pytest.approx(3)
    assert y @ line == pytest.approx(-5)
    assert areas.sum() == pytest.approx(3)


def test_divergence_and_gradient_of_linear_velocities():
    nodes, triangles = scattered()
    u, v = 3 * nodes[:, 0] + nodes[:, 1], 7 * nodes[:, 0] - nodes[:, 1]
    velocity = np.stack([u, v], -1)[None, None]
    found = metrics.velocity_gradient(velocity, nodes, triangles)
    assert [part.item() for part in found] == pytest.approx([2, np.sqrt(9 + 1 + 49 + 1)])
    assert metrics.divergence(velocity, velocity, nodes, triangles).item() == pytest.approx(
        2 / np.sqrt(60)
    )
    still = np.stack([nodes[:, 1], nodes[:, 0]], -1)[None, None]
    assert metrics.divergence(still, velocity, nodes, triangles).item() == pytest.approx(
        0, abs=1e-12
    )


def test_divergence_is_weighted_by_area_and_pooled_over_time():
    nodes = np.array([[0.0, 0], [2, 0], [2, 2], [0, 2], [3, 2]])
    triangles = np.array(
        [[0, 1, 2], [0, 2, 3], [1, 4, 2]]
    )  # areas 2, 2, 1; node 4 is the corner of the last alone
    velocity = np.zeros((1, 2, 5, 2))
    velocity[0, 1, 4, 0] = 1  # du/dx = 1 in the last triangle, where du/dy = 0
    assert metrics.velocity_gradient(velocity, nodes, triangles)[0].ravel() == pytest.approx(
        [0, np.sqrt(1 / 5)]
    )
    assert metrics.divergence(velocity, velocity, nodes, triangles).ravel() == pytest.approx(
        [0, np.sqrt(2)]
    )


def test_node_weights_are_thirds_of_triangles():
    nodes = np.array([[0.0, 0], [2, 0], [2, 2], [0, 2], [9, 9]])
    weights = metrics.node_weights(nodes, np.array([[0, 1, 2], [0, 2, 3]]))
    assert weights == pytest.approx(np.array([4, 2, 4, 2, 0]) / 3)
    clockwise = metrics.node_weights(nodes, np.array([[0, 2, 1], [0, 2, 3]]))
    assert clockwise == pytest.approx(weights)


@pytest.mark.parametrize("triangles", [np.zeros((0, 3), int), np.array([[0, 1, 2]])])
def test_triangles_without_area_are_refused(triangles):
    with pytest.raises(InputError, match="must have an area"):
        metrics.gradients(np.array([[0.0, 0], [1, 1], [2, 2], [0, 1]]), triangles)


def test_mass_drift_and_bounds_by_hand():
    alpha = np.array([[[1.0, 0, 0.5], [1.2, 0, 0.5], [1, -0.3, 0.5]]])
    weights = np.array([1.0, 1, 2])
    assert metrics.mass_drift(alpha, weights).ravel() == pytest.approx([0, 0.1, -0.15])
    assert metrics.bounds_violation(alpha).ravel() == pytest.approx([0, 0.2, 0.3])


def test_score_collects_everything_and_is_perfect_for_the_truth():
    nodes, triangles = mesh(6, 16)
    grid = Grid(nodes, triangles, 6, 16)
    flow = np.random.default_rng(4).uniform(size=(2, 5, 96, 4))
    first, truth = flow[:, 0], flow[:, 1:]
    domain = metrics.Domain(("u", "v", "alpha", "p"), nodes, triangles, grid.to_grid, grid.aspect)
    found = metrics.score(truth, truth, first, domain)
    whole = {"divergence", "mass_drift", "bounds_violation"}
    assert {name: part.shape for name, part in found.items()} == {
        name: (2, 4) if name in whole else (2, 4, 4) for name in found
    }
    assert whole < set(found)
    for name in set(found) - whole - {"correlation"}:
        assert not found[name].any(), name
    mass = flow[..., 2] @ metrics.node_weights(nodes, triangles)
    assert found["mass_drift"] == pytest.approx(mass[:, 1:] / mass[:, :1] - 1)
    assert found["divergence"] == pytest.approx(
        metrics.divergence(truth[..., :2], truth[..., :2], nodes, triangles)
    )
    pressure = dataclasses.replace(domain, field_names=("p",))
    alone = metrics.score(truth[..., 3:], truth[..., 3:], first[..., 3:], pressure)
    assert set(found) - set(alone) == whole
    blown = metrics.score(np.full_like(truth, np.inf), truth, first, domain)
    assert np.isinf(blown["squared_relative_l2"]).all()


# ---------------------------------------------------------------------------------------- intervals


def test_bootstrap_intervals_cover_the_mean_about_95_times_in_100():
    samples = np.random.default_rng(5).normal(2, 1, size=(300, 25))
    intervals = np.array(
        [metrics.bootstrap(values, 400, seed) for seed, values in enumerate(samples)]
    )
    covered = ((intervals[:, 0] <= 2) & (intervals[:, 1] >= 2)).mean()
    assert 0.88 <= covered <= 0.98
    assert (
        metrics.bootstrap(samples[0], seed=1)
        == metrics.bootstrap(samples[0], seed=1)
        != metrics.bootstrap(samples[0], seed=2)
    )


def test_a_paired_ratio_cancels_what_both_find_hard():
    hard = np.random.default_rng(6).lognormal(0, 2, 30)
    assert metrics.bootstrap_ratio(0.5 * hard, hard) == pytest.approx((0.5, 0.5))
    low, high = metrics.bootstrap_ratio(
        0.5 * hard + np.random.default_rng(7).uniform(0, 0.1, 30), hard
    )
    assert 0.5 < low < high < 0.6
    assert metrics.bootstrap_ratio(np.array([np.inf, 1]), np.ones(2))[1] == np.inf


def drawn_means(values: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """Bootstrapped means (D,) of values (S, N)."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(values.shape[1], size=(draws, values.shape[1]))
    return metrics.resampled_means(values, rows, generator)


@pytest.mark.parametrize("trainings", [1, 2, 3, 5])
def test_the_two_way_bootstrap_has_the_variance_that_follows_by_hand(trainings):
    """With Y = mean + a_s + b_n + c_sn, a, b and c of zero sums, and S - 1 of S trainings drawn:

    variance = sum a^2 / (S (S - 1)) + sum b^2 / N^2 + sum c^2 / (S N) / ((S - 1) N).
    """
    random = np.random.default_rng(1)
    seeds = random.normal(0, 2, (trainings, 1))
    table = 5 + seeds + random.normal(0, 3, 12) + random.normal(0, 2, (trainings, 12))
    a = table.mean(1) - table.mean()
    b = table.mean(0) - table.mean()
    c = table - table.mean() - a[:, None] - b
    wanted = (b**2).sum() / 12**2
    if trainings > 1:
        wanted += (a**2).sum() / (trainings * (trainings - 1))
        wanted += (c**2).mean() / ((trainings - 1) * 12)
    means = drawn_means(table, 100_000)
    assert means.mean() == pytest.approx(table.mean(), abs=4 * np.sqrt(wanted / 1e5))
    assert means.var() == pytest.approx(wanted, rel=0.03)


def test_the_variance_over_trainings_is_unbiased():
    """Trainings that differ by s = 1 alone: the mean of three has the variance 1/3."""
    random = np.random.default_rng(2)
    tables = random.normal(0, 1, (3000, 3, 1)) * np.ones((1, 1, 4))
    found = np.mean([drawn_means(table, 60, seed).var() for seed, table in enumerate(tables)])
    assert found == pytest.approx(1 / 3 * 59 / 60, rel=0.06)  # of 60 draws


def test_intervals_cover_a_ratio_of_models_whose_trainings_differ():
    """Errors with a factor by training and one by trajectory: over trajectories alone too narrow.

    log error = training (deviation 0.3) + trajectory (0.5) + rest (0.1); the ratio is 1.
    """
    random = np.random.default_rng(3)
    both = alone = 0
    for seed in range(200):
        hard = random.normal(0, 0.5, 15)
        models = [
            np.exp(random.normal(0, 0.3, (5, 1)) + hard + random.normal(0, 0.1, (5, 15)))
            for _ in range(2)
        ]
        low, high = metrics.bootstrap_ratio(*models, draws=300, seed=seed)
        both += low <= 1 <= high
        low, high = metrics.bootstrap_ratio(*(each.mean(0) for each in models), 300, seed)
        alone += low <= 1 <= high
    assert 0.87 <= both / 200 <= 0.99
    assert alone / 200 < 0.5


def test_different_numbers_of_trainings_can_be_compared_and_one_is_over_trajectories_alone():
    random = np.random.default_rng(4)
    hard = random.lognormal(0, 1, 20)
    three = hard * np.array([[0.9], [1.0], [1.1]])
    low, high = metrics.bootstrap_ratio(three, hard)
    assert low == pytest.approx(0.9)
    assert high == pytest.approx(1.1)
    assert metrics.bootstrap(hard[None]) == metrics.bootstrap(hard)
    assert metrics.bootstrap_ratio(three[:1], hard[None]) == metrics.bootstrap_ratio(three[0], hard)


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.bootstrap([]),
        lambda: metrics.bootstrap_ratio([1, 2], [1]),
        lambda: metrics.bootstrap(np.ones((2, 2, 2))),
    ],
)
def test_bootstrap_of_nothing_is_refused(call):
    with pytest.raises(InputError, match="value"):
        call()
