"""Baselines on flows whose future is known."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.spatial import Delaunay

from common.cli import InputError
from final_project import metrics
from final_project.baselines.grid import RIDGE, Grid, Nodes, lines, returning, rim
from final_project.baselines.networks import FNO, SpectralConvolution, UNet
from final_project.baselines.onestep import Check, Draws, OneStep, Stepper, train
from final_project.baselines.pod import RIDGES, PODLinear
from final_project.baselines.simple import ParameterInterpolation, Persistence, closest, last_period
from final_project.baselines.transolver import Transolver
from final_project.config import OneStepRecipe
from tests.final_project.helpers import mesh, scattered, wave

torch.set_num_threads(1)


# ------------------------------------------------------------------------------------- no learning


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


# ----------------------------------------------------------------------------------- POD and a map


def rotation(theta: np.ndarray, count: int, phases: np.ndarray) -> np.ndarray:
    """Two modes that turn by 0.2 per step about a mean that moves with theta: (N, T, 30, 2)."""
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


# -------------------------------------------------------------------------------------------- grid


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


def test_graded_lines_have_as_many_nodes_between_them_as_they_are_asked_for():
    rng = np.random.default_rng(0)
    values = np.concatenate([[0.0, 1.0], rng.beta(2, 8, 2000)])
    even = lines(values, 11, 0.0)
    assert even == pytest.approx(np.linspace(0, 1, 11))
    full = lines(values, 11, 1.0)
    assert np.histogram(values, full)[0] == pytest.approx(200, abs=3)
    half = lines(values, 11, 0.5)
    for found in (full, half):
        assert (found[0], found[-1]) == (0, 1)
        assert (np.diff(found) > 0).all()
    # a line's place is where the mean of both shares is a tenth more
    share = (np.searchsorted(np.sort(values), half) / len(values) + half) / 2
    assert share == pytest.approx(np.linspace(0, 1, 11), abs=2e-3)


def test_a_graded_grid_keeps_linear_fields_and_loses_less_near_a_fine_part_of_the_mesh():
    rng = np.random.default_rng(1)
    near = rng.normal((0.5, 0.5), 0.05, (400, 2)).clip(0.02, 0.98) * [1, 1]
    nodes = np.concatenate([mesh(6, 16)[0], near])
    triangles = Delaunay(nodes).simplices
    line = (2 + 3 * nodes[:, 0] - 5 * nodes[:, 1])[:, None]
    bump = np.exp(-((nodes - 0.5) ** 2).sum(1) / 0.004)[:, None]
    lost = {}
    for grading in (0.0, 0.5):
        grid = Grid(nodes, triangles, 16, 32, grading)
        assert grid.to_nodes(grid.to_grid(line)) == pytest.approx(line)
        lost[grading] = np.square(grid.to_nodes(grid.to_grid(bump)) - bump).mean()
        assert grid.static.shape == (3, 16, 32)
        x = grid.to_grid(2 * nodes[:, :1] / 3 - 1)[0]
        assert grid.static[0] == pytest.approx(x, abs=1e-9)
    assert lost[0.5] < lost[0.0] / 5


def test_a_fitted_grid_gives_back_what_the_mesh_gave_where_the_mesh_is_finer():
    rng = np.random.default_rng(1)
    near = rng.normal((1.5, 0.5), 0.05, (60, 2))
    nodes = np.concatenate([mesh(6, 16)[0], near])
    triangles = Delaunay(nodes).simplices
    bump = np.exp(-((nodes - (1.5, 0.5)) ** 2).sum(1) / 0.004)[:, None]
    line = (2 + 3 * nodes[:, 0] - 5 * nodes[:, 1])[:, None]
    lost = {}
    for fitted in (False, True):
        grid = Grid(nodes, triangles, 16, 48, fitted=fitted)
        lost[fitted] = np.square(grid.to_nodes(grid.to_grid(bump)) - bump).mean()
        # what interpolation brings back by itself is not changed:
        assert grid.to_grid(line) == pytest.approx(Grid(nodes, triangles, 16, 48).to_grid(line))
    assert lost[True] < lost[False] / 4


def test_a_correction_is_the_smallest_that_meets_the_nodes():
    forward = scipy.sparse.csr_array(
        np.zeros((2, 1))
    )  # two points, and interpolation finds nothing
    backward = scipy.sparse.csr_array([[0.6, 0.8]])  # a node between them
    corrected = returning(forward, backward).toarray()
    # least squares: the node's weights, over their sum of squares (1) and the ridge
    assert corrected[:, 0] == pytest.approx(np.array([0.6, 0.8]) / (1 + RIDGE))


def test_the_rim_of_a_mesh_is_its_sides_and_the_edge_of_its_hole():
    nodes, triangles = mesh(5, 7)
    expected = np.flatnonzero(np.isin(nodes[:, 0], (0, 3)) | np.isin(nodes[:, 1], (0, 1)))
    assert np.array_equal(rim(triangles), expected)
    hole = triangles[~(triangles == 17).any(1)]  # around the node in the middle
    assert set(rim(hole)) - set(expected) == set(np.unique(triangles[(triangles == 17).any(1)])) - {
        17
    } - set(expected)
    layout = Nodes(nodes, triangles)
    assert np.array_equal(np.flatnonzero(layout.static[2]), expected)
    assert layout.static[:2].min(1) == pytest.approx([-1, -1])
    assert layout.static[:2].max(1) == pytest.approx([1, 1])


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


# ---------------------------------------------------------------------------------------- networks

SLICES = partial(Transolver, width=16, layers=2, heads=2, slices=4)
NETWORKS = {
    "FNO": partial(FNO, width=8, layers=2, modes=(4, 6)),
    "UNet": partial(UNet, widths=(8, 16, 16)),
}
TINY = OneStepRecipe(steps=25, batch=8, lr=1e-2, noise=0.01, checks=2)


def waves(count: int = 4) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Waves on a small grid's nodes, faster with theta: float32 (N, 12, P, 2), theta (N, 1)."""
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
    assert np.array_equal(grid.to_nodes(grid.to_grid(fields)), fields)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_beats_persistence_within_its_steps_and_repeats_bit_for_bit(name):
    fields, theta, grid = waves()
    model = OneStep(NETWORKS[name], grid, TINY).fit(fields[:3], theta[:3], (fields[3:], theta[3:]))
    assert model.trained_.loss < 0.5  # persistence has 1, plus the noise
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
    assert last.trained_.validation is None


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


def test_a_score_is_asked_at_every_check_and_its_best_weights_are_kept():
    fields, theta, grid = waves()
    model = OneStep(NETWORKS["UNet"], grid, dataclasses.replace(TINY, steps=8, checks=4))
    errors = iter([3.0, 1.0, math.nan, 2.0])
    asked = []
    weights = []

    def score(check: Check) -> float:
        asked.append(check)
        weights.append({key: each.clone() for key, each in model.stepper_.state_dict().items()})
        return next(errors)

    model.score = score
    model.fit(fields, theta)
    assert [check.step for check in asked] == [2, 4, 6, 8]
    assert asked[-1].loss == model.trained_.loss
    assert [check.seconds for check in asked] == sorted(check.seconds for check in asked)
    assert asked[-1].seconds <= model.trained_.seconds
    assert model.trained_.validation == 1.0
    kept = model.stepper_.state_dict()
    assert all(torch.equal(kept[key], weights[1][key]) for key in kept)
    assert not all(torch.equal(kept[key], weights[3][key]) for key in kept)


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
        OneStepRecipe(steps=40, batch=1, lr=0.0, noise=0.0, pushforward=2),
    )
    last = [value for value, graded in network.seen if graded]
    ahead = [round(value) // 100 for value in last]  # each of its own steps adds 100
    assert len(last) == 40
    assert set(ahead) == {0, 1, 2}
    assert sum(ahead) == len(network.seen) - 40
    assert all(
        value % 100 + steps <= 4 for value, steps in zip(last, ahead, strict=True)
    )  # the target is a frame of the data
    assert found.loss == pytest.approx((100 * ahead[-1] + 100 - ahead[-1] - 1) ** 2)


class Ramp(torch.nn.Module):
    """Adds 1, 2 and 3 to the state for the three frames of a bundle."""

    def forward(self, x):
        return torch.arange(1.0, 4.0).reshape(3, 1, 1).expand(len(x), 3, *x.shape[2:])


@pytest.mark.parametrize("steps", [1, 3, 4, 8])
def test_bundles_go_on_from_their_last_frame(steps):
    stepper = Stepper(Ramp(), torch.zeros(3, 2, 2), torch.full((1,), 10.0))
    states = list(stepper.rollout(torch.zeros(1, 1, 2, 2), torch.zeros(1, 0), steps))
    assert [state[0, 0, 0, 0].item() for state in states] == [10.0 * n for n in range(1, steps + 1)]


def test_a_bundle_is_trained_on_its_frames_after_whole_bundles_of_its_own():
    states = torch.arange(9.0)[None, :, None, None, None].expand(2, 9, 1, 2, 2)  # frame t holds t
    none = torch.zeros(2, 0)
    recipe = OneStepRecipe(steps=30, batch=2, lr=0.0, noise=0.0, pushforward=1, bundle=3)
    draws = Draws(np.random.default_rng(0), torch.Generator())
    aheads = set()
    for _ in range(30):
        start, target, _, ahead = draws.transitions(states, recipe)
        aheads.add(ahead)
        wanted = start[:, None] + 3 * ahead + torch.arange(1.0, 4.0).reshape(3, 1, 1, 1)
        torch.testing.assert_close(target, wanted)
    assert aheads == {0, 1}

    # whole bundles of the data's own rule have no error
    network = Ramp()
    network.number = torch.nn.Parameter(torch.zeros(1))
    network.register_forward_hook(lambda module, _, out: out + module.number)
    found = train(Stepper(network, torch.zeros(3, 2, 2), torch.ones(1)), states, none, recipe)
    assert found.loss == 0.0


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_bundles_learn_too(name):
    fields, theta, grid = waves()
    recipe = dataclasses.replace(TINY, bundle=3)
    model = OneStep(NETWORKS[name], grid, recipe).fit(fields[:3], theta[:3])
    assert model.trained_.loss < 0.5
    assert model.rollout(fields[3:, 0], theta[3:], 7).shape == (1, 7, *fields.shape[2:])
    with pytest.raises(InputError, match="bundles of 12 frames: there are 12 frames"):
        OneStep(NETWORKS[name], grid, dataclasses.replace(TINY, bundle=12)).fit(fields, theta)


def test_a_training_that_diverges_is_stopped():
    fields, theta, grid = waves()
    wild = dataclasses.replace(TINY, lr=1e30)
    with pytest.raises(FloatingPointError, match="FNO: the loss is"):
        OneStep(NETWORKS["FNO"], grid, wild).fit(fields, theta)


# ------------------------------------------------------------------------------------- all of them


def baselines(grid: Grid) -> list:
    short = dataclasses.replace(TINY, steps=3)
    nodes = Nodes(*mesh(8, 18))
    return [
        Persistence(),
        ParameterInterpolation(),
        PODLinear(),
        *(OneStep(network, grid, short) for network in NETWORKS.values()),
        OneStep(SLICES, nodes, short),
    ]


@pytest.mark.parametrize("number", range(6))
def test_no_baseline_reads_test_trajectories_or_changes_what_it_is_given(number):
    fields, theta, grid = waves(6)
    found = []
    for poison in (0.0, 1e6):
        given = fields.copy()
        given[4:, 1:] += poison  # all but the start frames of the test part
        kept = given.copy()
        model = baselines(grid)[number].fit(given[:3], theta[:3], (given[3:4], theta[3:4]))
        found.append(model.rollout(given[4:, 0], theta[4:], 6))
        assert np.array_equal(given, kept)
    assert found[0].shape == (2, 6, 144, 2)
    assert found[0].dtype == np.float32
    assert np.array_equal(*found)


@pytest.mark.parametrize("number", range(6))
def test_every_baseline_does_without_parameters_and_refuses_what_does_not_match(number):
    fields, theta, grid = waves()
    model = baselines(grid)[number].fit(fields, theta[:, :0])
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
            baselines(grid)[number].fit(bad, parameters)
