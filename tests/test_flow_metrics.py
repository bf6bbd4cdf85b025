"""Final project: scores by hand and by identity, and the controls on flows whose future is known."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay

from common.cli import InputError
from final_project import metrics
from final_project.baselines import (
    FNO,
    RIDGES,
    Grid,
    OneStep,
    ParameterInterpolation,
    Persistence,
    PODLinear,
    SpectralConvolution,
    Stepper,
    Training,
    UNet,
    closest,
    last_period,
    train,
)

torch.set_num_threads(1)


def one(values) -> np.ndarray:
    """One trajectory, one time, one field: (1, 1, P, 1)."""
    return np.asarray(values, float)[None, None, :, None]


def mesh(rows: int, columns: int, width: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (P, 2) of a regular grid, row by row from below, of height 1, and its triangles."""
    x, y = np.meshgrid(np.linspace(0, width, columns), np.linspace(0, 1, rows))
    nodes = np.stack([x.ravel(), y.ravel()], 1)
    return nodes, Delaunay(nodes).simplices


def wave(phase: np.ndarray, nodes: np.ndarray, amplitude: float = 1.0) -> np.ndarray:
    """u, v of a travelling wave at phases (T,): (T, P, 2)."""
    angle = 2 * nodes[:, 0] - np.asarray(phase)[:, None]
    return amplitude * np.stack([np.cos(angle), np.sin(angle) * (1 + nodes[:, 1])], -1)


# ------------------------------------------------------------------------------------------------------ error of fields


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


def test_the_official_error_of_a_field_at_rest_is_divided_by_1e_8():
    assert metrics.squared_relative_l2(one([1e-4, 0]), one([0, 0])).item() == pytest.approx(1)


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
        assert error(scale * prediction, scale * truth) == pytest.approx(
            error(prediction, truth), rel=1e-5
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


# ------------------------------------------------------------------------------------------------------------- spectra


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


# ------------------------------------------------------------------------------------------------------------- physics


def scattered() -> tuple[np.ndarray, np.ndarray]:
    nodes = np.concatenate(
        [mesh(3, 4)[0], np.random.default_rng(3).uniform((0.05, 0.05), (2.95, 0.95), (40, 2))]
    )
    return nodes, Delaunay(nodes).simplices


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
    found = metrics.score(
        truth, truth, first, ("u", "v", "alpha", "p"), nodes, triangles, grid.to_grid, grid.aspect
    )
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
    alone = metrics.score(
        truth[..., 3:],
        truth[..., 3:],
        first[..., 3:],
        ("p",),
        nodes,
        triangles,
        grid.to_grid,
        grid.aspect,
    )
    assert set(found) - set(alone) == whole
    blown = metrics.score(
        np.full_like(truth, np.inf),
        truth,
        first,
        ("u", "v", "alpha", "p"),
        nodes,
        triangles,
        grid.to_grid,
        grid.aspect,
    )
    assert np.isinf(blown["squared_relative_l2"]).all()


# ------------------------------------------------------------------------------------------------------------ intervals


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


@pytest.mark.parametrize(
    "call", [lambda: metrics.bootstrap([]), lambda: metrics.bootstrap_ratio([1, 2], [1])]
)
def test_bootstrap_of_nothing_is_refused(call):
    with pytest.raises(InputError, match="value"):
        call()


# --------------------------------------------------------------------------------------------------------- no learning


def test_persistence_is_perfect_on_a_frozen_flow_and_only_there():
    frame = np.random.default_rng(8).normal(size=(2, 1, 30, 3)).astype(np.float32)
    frozen, theta = np.repeat(frame, 5, 1), np.zeros((2, 1))
    found = Persistence().fit(frozen, theta).rollout(frozen[:, 0], theta, 4)
    assert found.dtype == np.float32
    assert not metrics.squared_relative_l2(found, frozen[:, 1:]).any()
    assert metrics.squared_relative_l2(found, frozen[:, 1:] + 1).all()


def test_the_closest_point_of_a_polyline():
    corners = np.array([[0.0, 0], [4, 0], [4, 4]])
    assert closest(corners, np.array([1.0, 2])) == pytest.approx((4, 0.25))
    assert closest(corners, np.array([5.0, 3])) == pytest.approx((1, 1.75))
    assert closest(corners, np.array([-3.0, -4])) == pytest.approx((25, 0))


def test_the_last_period_is_found_between_frames_and_only_where_there_is_one():
    time = np.arange(60)
    turn = 2 * np.pi * time / 17.3
    assert last_period(np.stack([np.cos(turn), np.sin(turn)], 1)) == pytest.approx(17.3, abs=0.02)
    transient = 5 * np.exp(-time / 6)  # dies out before the last period
    assert last_period(np.stack([np.cos(turn), np.sin(turn), transient], 1)) == pytest.approx(
        17.3, abs=0.05
    )
    assert last_period(time[:, None] * np.ones((60, 3))) is None
    assert last_period(np.ones((60, 3))) is None


def test_parameter_interpolation_is_exact_on_a_flow_linear_in_the_parameter():
    nodes, _ = mesh(3, 8)
    base = wave(0.3 * np.arange(12), nodes)  # (T, P, 2)
    grow = np.zeros((12, 24, 2))
    grow[..., 1] = np.arange(12)[:, None]  # differs at every time, by the parameter alone
    base[..., 1] = 0

    def flow(*values):
        return np.stack([base + value * grow / 100 for value in values]), np.array(values)[:, None]

    model = ParameterInterpolation().fit(*flow(1.0, 2.0, 4.0, 8.0))
    truth, theta = flow(3.0, 2.0)
    assert model.rollout(truth[:, 0], theta, 11) == pytest.approx(truth[:, 1:], abs=1e-6)
    outside, theta = flow(9.0)
    assert model.rollout(outside[:, 0], theta, 11) == pytest.approx(flow(8.0)[0][:, 1:], abs=1e-6)


def test_parameter_interpolation_finds_the_phase_and_goes_on_past_the_end():
    nodes, _ = mesh(4, 10)
    speed = 2 * np.pi / 40
    train = np.stack([wave(speed * np.arange(100) + shift, nodes) for shift in (0.0, 1.0)])
    model = ParameterInterpolation().fit(train, np.array([[100.0], [200.0]]))
    truth = wave(speed * (np.arange(201) + 0.4) + 2, nodes)[None]
    found = model.rollout(truth[:, 0], np.array([[150.0]]), 200)
    assert (
        metrics.relative_l2(found, truth[:, 1:]).max() < 0.02
    )  # linear between frames: (speed / 2)^2 / 2 = 0.3 %
    unaligned = metrics.relative_l2(train[:1, 1:], truth[:, 1:100]).min()
    assert unaligned > 0.5


def test_parameter_interpolation_holds_the_last_frame_of_what_never_repeats():
    line = np.arange(6.0)[None, :, None, None] * np.ones((1, 6, 5, 1))
    model = ParameterInterpolation().fit(line, np.zeros((1, 1)))
    assert model.rollout(line[:, 3], np.zeros((1, 1)), 4)[0, :, 0, 0] == pytest.approx([4, 5, 5, 5])


def test_parameter_interpolation_judges_neighbours_over_all_parameters_and_does_without_any():
    levels = np.arange(4.0)[:, None, None, None] * np.ones((4, 3, 5, 1))
    theta = np.array([[1.0, 0], [1, 9], [2, 0], [2, 9]])
    model = ParameterInterpolation().fit(levels, theta)
    assert model.rollout(levels[:1, 0], np.array([[1.25, 8.0]]), 1).ravel() == pytest.approx(
        0.75 * 1 + 0.25 * 3
    )
    blind = ParameterInterpolation().fit(levels, np.zeros((4, 0)))
    assert blind.rollout(levels[2:3, 0] + 0.1, np.zeros((1, 0)), 1).ravel() == pytest.approx(2)


# ------------------------------------------------------------------------------------------------------- POD and a map


def rotation(theta: np.ndarray, count: int, phases: np.ndarray) -> np.ndarray:
    """Two modes that turn about a mean by an angle of 0.2 a step, with an equilibrium that moves with theta: (N, T, 30, 2)."""
    modes = np.linalg.qr(np.random.default_rng(9).normal(size=(60, 4)))[0]
    angle = 0.2 * np.arange(count) + phases[:, None]
    z = np.stack(
        [
            5 * np.cos(angle),
            5 * np.sin(angle),
            np.broadcast_to(theta, angle.shape),
            np.full(angle.shape, 3),
        ],
        -1,
    )
    return (z @ modes.T).reshape(len(theta), count, 30, 2)


def test_pod_with_a_linear_map_is_exact_on_a_rotation():
    theta, phases = np.array([[0.0], [1.0], [2.0], [4.0]]), np.array([0.0, 1, 2, 3])
    model = PODLinear(energy=1 - 1e-9).fit(rotation(theta, 40, phases), theta)
    assert model.basis_.shape == (60, 3)
    assert model.basis_.T @ model.basis_ == pytest.approx(np.eye(3), abs=1e-9)
    truth = rotation(np.array([[3.0]]), 101, np.array([0.5]))
    found = model.rollout(truth[:, 0], np.array([[3.0]]), 100)
    assert metrics.relative_l2(found, truth[:, 1:]).max() < 1e-4
    assert model.ridge_ == 1e-10
    assert PODLinear(modes=2).fit(rotation(theta, 40, phases), theta).basis_.shape == (60, 2)


def test_a_map_that_depends_on_the_parameter_is_learned():
    theta = np.array([[0.0], [1.0], [2.0], [3.0]])
    decay = (1 - 0.02 * theta) ** np.arange(30)  # z' = z - 0.02 theta z
    flow = decay[:, :, None, None] * np.ones((4, 30, 6, 1)) * np.arange(1, 7)[:, None]
    flow = np.concatenate([flow, flow[:, :, ::-1] * 0 + 1], -1)
    rows = [0, 1, 3]
    found = (
        PODLinear(energy=1 - 1e-9)
        .fit(flow[rows], theta[rows])
        .rollout(flow[2:3, 0], theta[2:3], 29)
    )
    assert metrics.relative_l2(found, flow[2:3, 1:]).max() < 1e-3


def test_the_ridge_is_chosen_on_validation_rollouts_and_a_blow_up_is_not_hidden():
    theta, phases = np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 1, 2])
    train = rotation(theta, 40, phases)
    still = np.repeat(train[:, :1], 40, 1)
    alone = [PODLinear(energy=1 - 1e-9, ridges=(ridge,)).fit(train, theta) for ridge in RIDGES]
    for validation in (train, still):
        best = np.argmin(
            [
                np.square(model.rollout(validation[:, 0], theta, 39) - validation[:, 1:]).mean()
                for model in alone
            ]
        )
        assert (
            PODLinear(energy=1 - 1e-9).fit(train, theta, (validation, theta)).ridge_ == RIDGES[best]
        )
    assert PODLinear(energy=1 - 1e-9).fit(train, theta, (still, theta)).ridge_ > 1e-3
    growing = (
        3.0 ** np.arange(20)[None, :, None, None]
        * np.ones((1, 20, 4, 1))
        * np.arange(1, 5)[:, None]
    )
    found = (
        PODLinear(ridges=(1e-10,))
        .fit(growing, np.zeros((1, 0)))
        .rollout(growing[:, -1], np.zeros((1, 0)), 1000)
    )
    assert not np.isfinite(found[:, -1]).any()


@pytest.mark.parametrize("settings", [{"modes": 0}, {"energy": 0.0}, {"energy": 1.1}])
def test_modes_and_energy_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match="allowed are"):
        PODLinear(**settings).fit(np.ones((2, 3, 4, 1)), np.ones((2, 1)))


# ---------------------------------------------------------------------------------------------------------------- grid


def test_the_grid_of_grid_nodes_is_the_identity():
    nodes, triangles = mesh(5, 9)
    order = np.random.default_rng(10).permutation(45)
    fields = np.random.default_rng(11).normal(size=(2, 3, 45, 2))
    for nodes_, fields_, triangles_ in (
        (nodes, fields, triangles),
        (nodes[order], fields[:, :, order], Delaunay(nodes[order]).simplices),
    ):
        grid = Grid(nodes_, triangles_, 5, 9)
        assert np.array_equal(
            grid.to_grid(fields_), fields.reshape(2, 3, 5, 9, 2).transpose(0, 1, 4, 2, 3)
        )
        assert np.array_equal(grid.to_nodes(grid.to_grid(fields_)), fields_)
        assert grid.mask.all()
    assert Grid(nodes, triangles, 5, 9).aspect == pytest.approx(3 * 9 / 8 / (5 / 4))
    assert grid.to_grid(fields.astype(np.float32)).dtype == np.float32


def test_linear_fields_survive_the_grid_and_the_way_back():
    nodes, triangles = scattered()
    line = (2 + 3 * nodes[:, 0] - 5 * nodes[:, 1])[:, None]
    grid = Grid(nodes, triangles, 7, 13)
    x, y = np.meshgrid(np.linspace(0, 3, 13), np.linspace(0, 1, 7))
    assert grid.to_grid(line)[0] == pytest.approx(2 + 3 * x - 5 * y)
    assert grid.to_nodes(grid.to_grid(line)) == pytest.approx(line)


def test_a_hole_is_masked_and_filled_from_its_rim():
    nodes, _ = mesh(21, 61)
    nodes = nodes[np.hypot(nodes[:, 0] - 1, nodes[:, 1] - 0.5) > 0.2]
    triangles = Delaunay(nodes).simplices
    middles = nodes[triangles].mean(1)
    triangles = triangles[np.hypot(middles[:, 0] - 1, middles[:, 1] - 0.5) > 0.22]
    grid = Grid(nodes, triangles, 41, 121)
    x, y = np.meshgrid(np.linspace(0, 3, 121), np.linspace(0, 1, 41))
    distance = np.hypot(x - 1, y - 0.5)
    assert not grid.mask[distance < 0.15].any()
    assert grid.mask[distance > 0.3].all()
    line = (1 + nodes[:, 0] - nodes[:, 1])[:, None]
    assert grid.to_grid(line)[0] == pytest.approx(1 + x - y)
    assert Grid(
        nodes, np.zeros((0, 3), int), 41, 121
    ).mask.all()  # without triangles nothing says that it is a hole


def test_outside_the_hull_the_nearest_node_counts():
    nodes = np.array([[0.0, 0], [1, 0], [0, 1], [0.2, 0.2]])
    grid = Grid(nodes, Delaunay(nodes).simplices, 2, 2)
    assert grid.mask.tolist() == [[True, True], [True, False]]
    assert grid.to_grid(np.array([[1.0], [2], [3], [4]]))[0, 1, 1] in (2, 3)


@pytest.mark.parametrize(
    ("nodes", "rows", "message"),
    [
        (np.eye(3)[:, :2], 1, "at least 2 x 2"),
        (np.arange(4.0)[:, None] * np.ones(2), 4, "span no area"),
        (np.eye(2), 4, "span no area"),
    ],
)
def test_impossible_grids_are_refused(nodes, rows, message):
    with pytest.raises(InputError, match=message):
        Grid(nodes, np.zeros((0, 3), int), rows, 4)


# ------------------------------------------------------------------------------------------------------------ networks

NETWORKS = {
    "FNO": partial(FNO, width=8, layers=2, modes=(4, 6)),
    "UNet": partial(UNet, widths=(8, 16, 16)),
}
TINY = Training(steps=25, batch=8, lr=1e-2, noise=0.01, checks=2)


def waves(count: int = 4) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Travelling waves on a small grid's nodes, faster with theta: fields float32 (N, 12, P, 2), theta (N, 1)."""
    nodes, triangles = mesh(8, 18)
    theta = np.linspace(1, 2, count)[:, None]
    fields = np.stack([wave(0.3 * value * np.arange(12), nodes) for value in theta[:, 0]])
    return fields.astype(np.float32), theta, Grid(nodes, triangles, 8, 18)


@pytest.mark.parametrize(("network", "count"), [(FNO, 1_184_931), (UNet, 973_763)])
def test_sizes_of_the_networks(network, count):
    made = network(7, 3, 32, 96)
    assert sum(parameter.numel() for parameter in made.parameters()) == count
    assert not made(torch.randn(1, 7, 32, 96)).any()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(12, 24), (7, 13)])
def test_any_grid_goes_in_and_a_zero_head_gives_zero(name, shape):
    network = NETWORKS[name](5, 2, *shape)
    x = torch.randn(2, 5, *shape)
    assert network(x).shape == (2, 2, *shape)
    assert not network(x).any()
    torch.nn.init.normal_(network.head[-1].weight)
    assert network(x).std() > 0.01


def test_a_spectral_convolution_with_one_matrix_multiplies_low_modes_by_it():
    layer = SpectralConvolution(2, (3, 4))
    matrix = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    layer.weight.data = (
        torch.stack([matrix, torch.zeros(2, 2)], -1)[None, :, :, None, None]
        .expand(2, 2, 2, 3, 4, 2)
        .contiguous()
    )
    rows, columns = torch.meshgrid(torch.arange(16.0) / 16, torch.arange(24.0) / 24, indexing="ij")
    low = torch.stack(
        [
            torch.cos(2 * torch.pi * (2 * rows + 3 * columns)),
            torch.sin(2 * torch.pi * (columns - 2 * rows)),
        ]
    )[None]
    high = torch.cos(2 * torch.pi * (6 * rows + 7 * columns)).expand(1, 2, 16, 24)
    assert torch.allclose(layer(low + high), torch.einsum("birc,io->borc", low, matrix), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_has_not_learned_is_persistence(name):
    fields, theta, grid = waves()
    model = OneStep(NETWORKS[name], grid, dataclasses.replace(TINY, steps=1, lr=0.0)).fit(
        fields, theta
    )
    found = model.rollout(fields[:, 0], theta, 3)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.repeat(fields[:, :1], 3, 1), abs=1e-5)
    assert np.array_equal(model.floor(fields), fields)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_beats_persistence_within_its_steps_and_repeats_bit_for_bit(name):
    fields, theta, grid = waves()
    model = OneStep(NETWORKS[name], grid, TINY).fit(fields[:3], theta[:3], (fields[3:], theta[3:]))
    assert model.trained_["steps"] == TINY.steps
    assert model.trained_["loss"] < 0.5  # persistence has 1, plus the noise
    error = metrics.squared_relative_l2(
        model.rollout(fields[3:, 0], theta[3:], 5), fields[3:, 1:6]
    ).mean()
    frozen = metrics.squared_relative_l2(
        Persistence().fit(fields, theta).rollout(fields[3:, 0], theta[3:], 5), fields[3:, 1:6]
    ).mean()
    assert error < 0.5 * frozen
    again = OneStep(NETWORKS[name], grid, TINY).fit(fields[:3], theta[:3], (fields[3:], theta[3:]))
    other = OneStep(NETWORKS[name], grid, dataclasses.replace(TINY, seed=1)).fit(
        fields[:3], theta[:3], (fields[3:], theta[3:])
    )
    states = [made.stepper_.state_dict() for made in (model, again, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])
    alone = model.rollout(fields[2:3, 0], theta[2:3], 4)
    assert alone == pytest.approx(
        model.rollout(fields[:, 0], theta, 4)[2:3], abs=1e-4
    )  # whatever else is in the batch


def test_the_best_weights_on_validation_are_kept():
    fields, theta, grid = waves()
    still = np.repeat(fields[3:, :1], 12, 1)
    training = dataclasses.replace(TINY, steps=30, checks=30)
    model = OneStep(NETWORKS["UNet"], grid, training).fit(fields[:3], theta[:3], (still, theta[3:]))
    last = OneStep(NETWORKS["UNet"], grid, training).fit(fields[:3], theta[:3])
    errors = [
        np.square(made.rollout(still[:, 0], theta[3:], 11) - still[:, 1:]).mean()
        for made in (model, last)
    ]
    assert errors[0] < errors[1]  # a frozen flow: the less training on waves the better
    assert last.trained_["validation"] is None


def test_noise_on_the_input_teaches_the_way_back_to_the_data():
    fields, theta, grid = waves()
    still = np.repeat(fields[:, :1], 12, 1)
    model = OneStep(NETWORKS["UNet"], grid, dataclasses.replace(TINY, steps=60, noise=0.5)).fit(
        still, theta
    )
    wrong = 0.5 * np.random.default_rng(12).normal(size=still[:, 0].shape).astype(np.float32)
    found = model.rollout(still[:, 0] + wrong, theta, 1)[:, 0]
    assert (
        np.square(found - still[:, 0]).mean() < 0.7 * np.square(wrong).mean()
    )  # persistence, which uncorrected targets teach, has 1


class Shift(torch.nn.Module):
    """Adds one number; writes down what comes in, and whether it brings a gradient."""

    def __init__(self):
        super().__init__()
        self.number, self.seen = torch.nn.Parameter(torch.tensor(100.0)), []

    def forward(self, x):
        self.seen.append((x[:, 0].mean().item(), torch.is_grad_enabled()))
        return self.number.expand(len(x), 1, *x.shape[2:])


def test_pushforward_starts_from_the_models_own_steps_and_aims_at_the_data():
    states = torch.arange(6.0)[None, :, None, None, None].expand(2, 6, 1, 2, 2)  # frame t holds t
    network = Shift()
    stepper = Stepper(network, torch.zeros(3, 2, 2), torch.ones(1))
    found = train(
        stepper,
        states,
        torch.zeros(2, 0),
        Training(steps=40, batch=1, lr=0.0, noise=0.0, pushforward=2),
    )
    last = [value for value, graded in network.seen if graded]
    ahead = [round(value) // 100 for value in last]  # each of its own steps adds 100
    assert len(last) == 40
    assert set(ahead) == {0, 1, 2}
    assert sum(ahead) == len(network.seen) - 40
    assert all(
        value % 100 + steps <= 4 for value, steps in zip(last, ahead, strict=True)
    )  # the target is a frame of the data
    assert found["loss"] == pytest.approx((100 * ahead[-1] + 100 - ahead[-1] - 1) ** 2)


def test_seconds_end_a_training_before_its_steps_do():
    fields, theta, grid = waves()
    model = OneStep(
        NETWORKS["UNet"], grid, dataclasses.replace(TINY, steps=100_000, budget_seconds=0.3)
    ).fit(fields, theta)
    assert 0.3 <= model.trained_["seconds"] < 10
    assert 0 < model.trained_["steps"] < 100_000


def test_a_training_without_end_and_one_that_diverges_are_stopped():
    fields, theta, grid = waves()
    with pytest.raises(InputError, match="steps or budget_seconds"):
        OneStep(NETWORKS["UNet"], grid, Training(steps=None)).fit(fields, theta)
    with pytest.raises(FloatingPointError, match="FNO: the loss is"):
        OneStep(NETWORKS["FNO"], grid, dataclasses.replace(TINY, lr=1e30)).fit(fields, theta)


# ------------------------------------------------------------------------------------------------------------ all of them


def controls(grid: Grid) -> list:
    short = dataclasses.replace(TINY, steps=3)
    return [
        Persistence(),
        ParameterInterpolation(),
        PODLinear(),
        *(OneStep(network, grid, short) for network in NETWORKS.values()),
    ]


@pytest.mark.parametrize("number", range(5))
def test_no_control_looks_at_test_trajectories_or_changes_what_it_is_given(number):
    fields, theta, grid = waves(6)
    found = []
    for poison in (0.0, 1e6):
        given = fields.copy()
        given[4:, 1:] += poison  # all but the start frames of the test part
        kept = given.copy()
        model = controls(grid)[number].fit(given[:3], theta[:3], (given[3:4], theta[3:4]))
        found.append(model.rollout(given[4:, 0], theta[4:], 6))
        assert np.array_equal(given, kept)
    assert found[0].shape == (2, 6, 144, 2)
    assert found[0].dtype == np.float32
    assert np.array_equal(*found)


@pytest.mark.parametrize("number", range(5))
def test_every_control_does_without_parameters_and_refuses_what_does_not_match(number):
    fields, theta, grid = waves()
    model = controls(grid)[number].fit(fields, theta[:, :0])
    assert model.rollout(fields[:1, 0], theta[:1, :0], 2).shape == (1, 2, 144, 2)
    for first, parameters, steps, message in (
        (fields[:1, 0, :9], theta[:1, :0], 2, "fitted on"),
        (fields[:1, 0], theta[:1], 2, "fitted on"),
        (fields[:2, 0], theta[:1, :0], 2, "fitted on"),
        (fields[:1, 0], theta[:1, :0], 0, "at least one"),
    ):
        with pytest.raises(InputError, match=message):
            model.rollout(first, parameters, steps)
    spoiled = fields.copy()
    spoiled[0, 0, 0, 0] = np.nan
    for bad, parameters, message in (
        (fields[0], theta, "are needed"),
        (fields, theta[:2], "are needed"),
        (fields[:0], theta[:0], "are needed"),
        (fields[:, :1], theta, "at least 2"),
        (spoiled, theta, "NaN or inf"),
    ):
        with pytest.raises(InputError, match=message):
            controls(grid)[number].fit(bad, parameters)
