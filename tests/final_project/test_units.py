"""Fields in units of their own: no score, code or rollout depends on those of the data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from final_project.artifacts import picture_arrays
from final_project.autoencoder import Autoencoder
from final_project.baselines.pod import PODLinear
from final_project.baselines.simple import Persistence
from final_project.checkpoint import load_networks, save_mesh, save_networks
from final_project.config import MODELS, Config
from final_project.data import Flow, split
from final_project.evaluation import Judge, Scores
from final_project.factory import architecture, build_autoencoder, build_temporal, sizes_of
from final_project.fit import TrainingFlow
from final_project.painting import Scale, limits
from final_project.patches import patch_table
from final_project.pictures import read_pictures
from final_project.surrogate import Surrogate, encode
from final_project.units import BLOWN_UP, Units
from tests.final_project.waves import waves

FACTORS = (1e-6, 1e-3, 1e7)
GROUPS = ((0, 1), (2,))
OF_THE_ZERO = ("relative_l2", "squared_relative_l2", "pooled_nrmse", "spectral_low")


def double() -> Flow:
    """Waves in float64, which no factor rounds to float32."""
    flow = waves()
    noise = 1e-3 * np.random.default_rng(1).normal(size=flow.fields.shape)
    return dataclasses.replace(flow, fields=flow.fields + noise)


def in_units(flow: Flow, factor: float, offset: tuple[float, ...] = (0, 0, 0)) -> Flow:
    """The same flow with other units and zeros of its fields."""
    return dataclasses.replace(flow, fields=factor * flow.fields + np.array(offset))


# ---------------------------------------------------------------------------------------- units


def test_units_of_a_field_and_their_inverse():
    values = np.random.default_rng(0).normal(size=(3, 4, 5, 2)) * [2.0, 1e-9] + [101_325, 0]
    units = Units.of(values)
    assert units.mean == pytest.approx(values.mean((0, 1, 2)))
    assert units.std == pytest.approx(values.std((0, 1, 2)), rel=1e-9)
    normal = units.standardise(values)
    assert normal.mean((0, 1, 2)) == pytest.approx(0, abs=1e-9)
    assert units.physical(normal) == pytest.approx(values, rel=1e-14)


@pytest.mark.parametrize("value", [0.0, 0.1, 101_325.0, -1e-20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_field_is_zero_in_its_units_and_comes_back_exactly(value, dtype):
    values = np.full((2, 3, 70, 1), value, dtype)
    units = Units.of(values)
    assert units.std == 0
    assert not units.standardise(values).any()
    assert (units.physical(np.ones((1, 1))) == values[0, 0, :1]).all()
    assert units.scale == (abs(float(dtype(value))) or 1.0)


def test_what_float32_leaves_of_a_constant_is_no_field():
    values = np.float32(101_325) + np.float32(0.0078125) * (np.arange(50) % 2)
    assert Units.of(values.astype(np.float32)[:, None]).std == 0
    assert Units.of(np.linspace(101_325, 101_326, 50)[:, None]).std > 0.2


def test_predictions_are_bounded_in_units_of_the_field():
    units = Units(np.array([5e6]), np.array([1e5]))
    given = np.array([[np.nan], [np.inf], [-np.inf], [5.3e6]])
    bounded = units.bounded(given)[:, 0]
    assert bounded.tolist() == [
        5e6 + BLOWN_UP * 1e5,
        5e6 + BLOWN_UP * 1e5,
        5e6 - BLOWN_UP * 1e5,
        5.3e6,
    ]


# --------------------------------------------------------------------------------------- scores


def scores_of(flow: Flow, seed: int = 0) -> Scores:
    """Scores of a baseline that learns, on a flow in any units."""
    parts = split(flow.parameters, seed)
    units = Units.of(flow.fields[parts.train])
    judge = Judge(flow, (8, 16), 20, units)

    def predict(first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        wrong = np.sin(np.arange(first[0].size)).reshape(first[0].shape)
        return np.repeat(first[:, None], steps, 1) + 0.3 * units.std * wrong

    return judge.score(predict, parts)


@pytest.mark.parametrize("factor", FACTORS)
def test_no_score_changes_with_the_unit_of_a_field(factor):
    wanted = scores_of(double())
    found = scores_of(in_units(double(), factor))
    for part, scores in wanted.items():
        for name, values in scores.items():
            assert found[part][name] == pytest.approx(values, rel=1e-9, abs=1e-12), name


def test_what_does_not_depend_on_the_zero_of_a_field():
    wanted = scores_of(double())["interpolation"]
    found = scores_of(in_units(double(), 1.0, (300.0, -5.0, 101_325.0)))["interpolation"]
    for name, values in wanted.items():
        if name in OF_THE_ZERO:
            assert not np.allclose(found[name], values, rtol=0.1), name
        else:
            assert found[name] == pytest.approx(values, rel=1e-7, abs=1e-9), name


@pytest.mark.parametrize("factor", [1.0, 5e6, 1e-6])
def test_a_perfect_model_scores_zero_and_persistence_the_same_in_every_unit(factor):
    """(Clipping at 1e6 in physical units once gave a perfect model a VRMSE of 228.)"""
    flow = in_units(double(), factor, (0, 0, 50 * factor))
    rows = {tuple(each): row for row, each in enumerate(flow.parameters.tolist())}

    def perfect(first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        return np.stack([flow.fields[rows[tuple(t.tolist())], 1 : steps + 1] for t in theta])

    scores = Judge(flow, (8, 16), 20).score(perfect, split(flow.parameters, 0))["interpolation"]
    for name in ("squared_relative_l2", "vrmse", "vrmse_pooled", "spectral_high"):
        assert not scores[name].any()
    assert scores["correlation"] == pytest.approx(1)


def constant_w(value: float) -> Flow:
    """Waves with a fourth field that is the same everywhere."""
    flow = waves()
    w = np.full_like(flow.fields[..., :1], value)
    fields = np.concatenate([flow.fields, w], -1)
    return dataclasses.replace(flow, fields=fields, field_names=("u", "v", "p", "w"))


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_field_has_no_error_where_it_is_predicted_and_a_finite_one_elsewhere(value):
    flow = constant_w(value)
    parts = split(flow.parameters, 0)
    judge = Judge(flow, (8, 16), 20, Units.of(flow.fields[parts.train]))
    right = judge.score(lambda first, theta, steps: np.repeat(first[:, None], steps, 1), parts)
    for name in ("squared_relative_l2", "vrmse_pooled", "pooled_nrmse", "spectral_high"):
        assert not right["interpolation"][name][..., 3].any()
    wrong = judge.score(lambda first, theta, steps: 1 + np.repeat(first[:, None], steps, 1), parts)
    for scores in wrong["interpolation"].values():
        assert np.isfinite(scores).all()
    assert (wrong["interpolation"]["vrmse_pooled"][..., 3] > 1).all()


@pytest.mark.parametrize("factor", FACTORS)
def test_learning_baselines_work_in_units_of_the_field(factor):
    theta = waves().parameters
    found = []
    for flow in (double(), in_units(double(), factor, (0, 0, 2 * factor))):
        model = PODLinear(modes=4).fit(flow.fields[:10, :12], theta[:10])
        rollout = model.rollout(flow.fields[10:, 0], theta[10:], 5)
        found.append(Units.of(flow.fields).standardise(rollout))
    assert found[1] == pytest.approx(found[0], rel=1e-6, abs=1e-6)


def test_persistence_keeps_the_type_of_the_data():
    flow = in_units(double(), 1.0, (0, 0, 101_325))
    rollout = (
        Persistence()
        .fit(flow.fields, flow.parameters)
        .rollout(flow.fields[:2, 0], flow.parameters[:2], 3)
    )
    assert (rollout == flow.fields[:2, :1]).all()


# ------------------------------------------------------------------------------------- networks


def autoencoder_of(flow: Flow) -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(patch_table(flow.coordinates, 4, 4), GROUPS, latent=4, width=16)
    model.fit_linear(torch.from_numpy(flow.fields[:10].reshape(-1, *flow.fields.shape[2:])))
    return model.eval()


@pytest.mark.parametrize(("factor", "offset"), [(1e-6, 0.0), (1e7, 0.0), (1.0, 101_325.0)])
def test_codes_do_not_depend_on_the_units_of_the_fields(factor, offset):
    plain = in_units(waves(), 1 + 1e-9)  # (without noise, whose components are not determined)
    other = in_units(plain, factor, (0, 0, offset))
    one = encode(autoencoder_of(plain), plain.fields[:2])
    two = encode(autoencoder_of(other), other.fields[:2])
    assert torch.allclose(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("offset", [300.0, 101_325.0, -101_325.0])
def test_what_networks_read_is_the_same_to_the_last_bit_with_any_offset(offset):
    """The digits that an offset takes once changed a whole training: Muon magnifies them."""
    plain = double()
    spread = Units.of(plain.fields).std
    other = dataclasses.replace(plain, fields=plain.fields + offset * spread)
    one, two = autoencoder_of(plain), autoencoder_of(other)
    first, second = (torch.from_numpy(flow.fields[0]) for flow in (plain, other))
    assert torch.equal(one.patches(first), two.patches(second))
    assert torch.equal(encode(one, plain.fields[:2]), encode(two, other.fields[:2]))


def test_raw_fields_are_not_rounded():
    flow = double()
    raw = Autoencoder(patch_table(flow.coordinates, 4, 4), GROUPS, latent=4, width=16)
    fields = 1e-6 * torch.from_numpy(flow.fields[0])
    assert torch.equal(raw.patches(fields)[:, raw.real], fields.float()[:, raw.index[raw.real]])


def small_surrogate(flow: Flow) -> tuple[Config, Surrogate]:
    config = Config.of_preset("smoke")
    torch.manual_seed(0)
    autoencoder = build_autoencoder(config, "own", flow.coordinates, GROUPS)
    assert isinstance(autoencoder, Autoencoder)
    autoencoder.fit_linear(torch.from_numpy(flow.fields.reshape(-1, *flow.fields.shape[2:])))
    sizes = sizes_of(config, MODELS["SEA"], flow.coordinates, GROUPS, flow.parameters.shape[1])
    temporal = build_temporal(architecture(config, "SEA", sizes), sizes)
    z = encode(autoencoder, flow.fields)
    temporal.fit(z, torch.from_numpy(flow.parameters).float())
    return config, Surrogate(autoencoder.eval(), temporal.eval())


def test_what_is_read_back_predicts_what_was_trained_in_kelvin(tmp_path):
    """Means in float16 once made 300.11 K 300 K, three deviations off."""
    flow = in_units(double(), 0.04, (0, 0, 300.11))
    config, surrogate = small_surrogate(flow)
    save_networks(tmp_path, flow, GROUPS, config, "SEA", surrogate)
    save_mesh(tmp_path, flow.coordinates, flow.triangles)
    saved = load_networks(tmp_path, flow, "cpu").surrogate
    assert saved.autoencoder.mean.dtype == torch.float64
    assert torch.equal(saved.autoencoder.mean, surrogate.autoencoder.mean)
    assert torch.equal(saved.temporal.scales.theta_mean, surrogate.temporal.scales.theta_mean)
    first = flow.fields[:2, 0]
    trained = surrogate.predict(first, flow.parameters[:2], 4)
    read_back = saved.predict(first, flow.parameters[:2], 4)
    assert np.abs(read_back - trained).max() < 0.02 * flow.fields[..., 2].std()


def test_a_constant_field_is_trained_on_and_comes_back_as_it_is():
    flow = constant_w(3.0)
    torch.manual_seed(0)
    table = patch_table(flow.coordinates, 4, 4)
    autoencoder = Autoencoder(table, (*GROUPS, (3,)), latent=4, width=16).eval()
    autoencoder.fit_linear(torch.from_numpy(flow.fields.reshape(-1, *flow.fields.shape[2:])))
    z = encode(autoencoder, flow.fields)
    assert not z[:, :, 2].any()
    theta = torch.from_numpy(flow.parameters).float()
    config = Config.of_preset("smoke")
    for name in ("SEA", "patch SEA"):
        sizes = sizes_of(config, MODELS[name], flow.coordinates, (*GROUPS, (3,)), 2)
        temporal = build_temporal(architecture(config, name, sizes), sizes).eval()
        temporal.fit(z, theta)
        assert not temporal.scales.delta_std[2].any()
        assert torch.isfinite(temporal(z, theta)).all()
        surrogate = Surrogate(autoencoder, temporal)
        rollout = surrogate.predict(flow.fields[:2, 0], flow.parameters[:2], 3)
        assert (rollout[..., 3] == 3.0).all()


def test_validation_chooses_alike_in_every_unit():
    def chosen(flow: Flow) -> float:
        data = TrainingFlow.of(flow, GROUPS, split(flow.parameters, 0), 20)
        still = np.repeat(data.validation_fields[:, :1], 19, 1)
        return data.validation_error(still).vrmse

    wanted = chosen(double())
    for factor in FACTORS:
        assert chosen(in_units(double(), factor)) == pytest.approx(wanted, rel=1e-9)
    assert chosen(in_units(double(), 1.0, (3, 300, 101_325))) == pytest.approx(wanted, rel=1e-8)


# -------------------------------------------------------------------------------------- figures


def test_pictures_keep_large_and_nearly_constant_fields(tmp_path):
    flow = in_units(double(), 1.0, (0, 0, 101_325.0))
    judge = Judge(flow, (8, 16), 20)
    parts = split(flow.parameters, 0)
    models = {"SEA": lambda first, theta, steps: np.repeat(first[:, None], steps, 1)}
    arrays = picture_arrays(judge, parts.interpolation, models, np.arange(3.0))
    np.savez(tmp_path / "pictures.npz", **arrays)
    pictures = read_pictures(tmp_path / "pictures.npz", {"config": {"models": ["SEA"]}})
    p = pictures.truth[..., 2]
    row = int(parts.interpolation[1])
    assert p == pytest.approx(flow.fields[row][pictures.frames][..., 2], abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 7.0, -101_325.0])
def test_colour_limits_are_relative_to_the_field(value):
    low, high = limits(np.full(50, value))
    assert low < value < high
    values = np.linspace(1e-7, 2e-7, 1000)
    assert limits(values) == pytest.approx((1.002e-7, 1.998e-7), rel=1e-3)
    kelvin = Scale.of_field("T", 300 + np.linspace(0, 0.2, 1000))
    assert (kelvin.low, kelvin.high) == pytest.approx((300.0004, 300.1996), abs=1e-4)
    assert Scale.of_field("v", np.linspace(-1, 2, 1000)).low < -1.9
