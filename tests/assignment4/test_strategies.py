"""Transfer: what each strategy trains, names and labels, comparisons, adapters on a forecaster."""

from __future__ import annotations

import dataclasses
import zipfile
from typing import get_args

import numpy as np
import pytest

from assignment3.backend import keras
from assignment3.config import EncoderSettings, ForecasterSettings
from assignment3.model import Forecaster, load_model, save_model
from assignment3.optimiser import VectorOptimiser
from assignment4.comparisons import holm_rows, pairs
from assignment4.config import Config
from assignment4.jobs import CONVERGENCE, WHOLE, Amount, Job, Passes, ensemble_label
from assignment4.lora import LoRA
from assignment4.lora.adapter_file import weights_digest
from assignment4.lora.affine import kernels
from assignment4.pretrained import (
    COURSE_FILE,
    Weights,
    adapt_by,
    base_digest,
    base_files,
    rates_of,
    trained_weights,
)
from assignment4.slots import filled, predict_filled
from assignment4.strategies import (
    FROM_SCRATCH,
    FULL,
    HEAD_ONLY,
    NO_ADAPTATION,
    Relative,
    Strategy,
    Variant,
    compared,
    lora,
    main_strategies,
    saved_strategies,
)
from common.cli import InputError
from common.forecasting.ensemble import ModelGroup, Pair
from common.forecasting.prices import COINS, CURRENCIES
from common.forecasting.simulate import simulate
from common.forecasting.volatility import fit_log_har
from common.forecasting.windows import Windows, split
from common.results import Row

SMALL = EncoderSettings(width=8, blocks=2, heads=2, key=4, feed_forward=0, norm="post", dropout=0.0)
COURSE = EncoderSettings(
    width=64, blocks=3, heads=8, key=64, feed_forward=0, norm="post", dropout=0.2
)
RANKS = (1, 2, 4, 8, 16, 32)


def build(encoder: EncoderSettings = SMALL) -> Forecaster:
    settings = ForecasterSettings(
        series=CURRENCIES.series,
        context=48,
        horizon=3,
        normalisation="minmax",
        decays=(0.8, 0.97),
        **dataclasses.asdict(encoder),
    )
    return Forecaster.build(settings, seed=0)


def with_adapter(model: keras.Model, strategy: Strategy, alpha: float | None = None) -> LoRA:
    adapter = adapt_by(model, strategy, 0, alpha)
    assert adapter is not None
    return adapter


# ------------------------------------------------------------------------- what a strategy trains


@pytest.mark.parametrize(
    ("strategy", "trained"),
    [
        (NO_ADAPTATION, set()),
        (HEAD_ONLY, {"head/kernel", "head/bias"}),
        (FULL, None),
        (FROM_SCRATCH, None),
    ],
)
def test_what_a_strategy_trains(strategy, trained):
    model = build().model
    adapt_by(model, strategy, 0)
    paths = {variable.path for variable in model.trainable_variables}
    every = {
        variable.path for variable in model.weights if not variable.path.startswith("quantiles/")
    }
    assert paths == (every if trained is None else trained)


def test_lora_reaches_every_affine_map_and_attention_alone_where_that_is_asked():
    model = build().model
    adapter = with_adapter(model, lora(2), alpha=4)
    assert set(adapter.update()) == set(kernels(model))
    assert trained_weights(model) == adapter.count()
    attention = Strategy("lora", 2, attention_only=True)
    adapter = with_adapter(build().model, attention)
    adapted = {path.partition("/")[0] for path in adapter.update()}
    assert adapted == {"attention_1", "attention_2"}


def test_a_layer_narrower_than_the_rank_takes_its_own_width():
    adapter = with_adapter(build(COURSE).model, lora(32))
    assert adapter.update()["head"].shape == (64, 28)
    factors = adapter.adapter("target").factors
    assert factors["head"].b.shape == (28, 28)
    assert factors["attention_2/query"].b.shape == (32, 8, 64)


def test_rank_8_trains_a_seventh_of_the_weights_and_rank_2_less_than_a_25th():
    settings = ForecasterSettings(
        series=COINS.series,
        context=96,
        horizon=5,
        normalisation="log",
        decays=(0.5, 0.8, 0.9, 0.99, 0.97),
        **dataclasses.asdict(COURSE),
    )
    model = Forecaster.build(settings, seed=0).model
    whole = trained_weights(model)
    shares = {}
    for rank in (2, 8):
        adapter = with_adapter(model, lora(rank))
        shares[rank] = adapter.count() / whole
        adapter.detach()
    assert shares[8] == pytest.approx(0.14, abs=0.01)
    assert shares[2] < 0.04


def test_an_adapter_switched_off_leaves_the_forecast_on_the_coins_as_it_was():
    base = build()
    prices = simulate(CURRENCIES, 500, 1)
    windows = Windows(prices, split(prices.contiguous(), 48, 3, 100, 80), 48, 3, log=False)
    base.fit_scales(windows.past(windows.parts.train), fit_log_har(windows))
    inputs = windows.inputs(np.arange(100, 110))
    kernel = base.model.get_layer("head").kernel
    kernel.assign(0.3 * np.random.default_rng(0).standard_normal(kernel.shape))
    before = base.predict(*inputs)

    adapter = with_adapter(base.model, lora(2))
    for variable in adapter.trainable_variables:
        variable.assign(0.3 * np.random.default_rng(1).standard_normal(variable.shape))
    changed = Forecaster(base.model).predict(*inputs)
    assert np.abs(changed[1] / before[1] - 1).max() > 1e-4
    with adapter.disabled():
        off = Forecaster(base.model).predict(*inputs)
    np.testing.assert_array_equal(off[0], before[0])
    np.testing.assert_array_equal(off[1], before[1])

    adapter.merge()
    merged = Weights(build(), base.model.get_weights(), 0)
    np.testing.assert_allclose(merged.predict(*inputs)[1], changed[1], rtol=1e-5, atol=1e-5)

    # taken off after the merge, it has left nothing behind
    adapter.detach()
    removed = Forecaster(base.model).predict(*inputs)
    np.testing.assert_array_equal(removed[0], before[0])
    np.testing.assert_array_equal(removed[1], before[1])


def test_a_relative_of_lora_differs_from_it_by_what_it_is_named_for():
    factors = {}
    for variant in get_args(Variant):
        model = build().model
        kernel = model.get_layer("head").kernel.numpy()
        adapter = with_adapter(model, Strategy("lora", 2, variant=variant), alpha=4).adapter()
        factors[variant] = adapter.factors["head"]
        assert factors[variant].a.shape == (kernel.shape[0], 2)
    plain = factors.pop("LoRA")
    assert (float(plain.scale), plain.magnitude, plain.start) == (2, None, None)
    assert float(factors["rsLoRA"].scale) == pytest.approx(4 / 2**0.5)
    assert factors["DoRA"].magnitude is not None
    assert factors["PiSSA"].start is not None
    np.testing.assert_array_equal(factors["LoRA+"].a, plain.a)


@pytest.mark.parametrize(("variant", "ratio"), [("LoRA", 1), ("DoRA", 1), ("LoRA+", 16)])
def test_only_lora_plus_gives_b_a_rate_of_its_own(variant, ratio):
    model = build().model
    strategy = Strategy("lora", 2, variant=variant)
    adapter = with_adapter(model, strategy)
    trained = model.trainable_variables
    rates = rates_of(strategy, adapter, 16)
    optimiser = VectorOptimiser(keras.optimizers.SGD(0.01), trained, rates)
    before = [variable.numpy() for variable in trained]
    optimiser.apply([np.ones(variable.shape, np.float32) for variable in trained])
    for variable, start in zip(trained, before, strict=True):
        expected = 0.01 * (ratio if variable.name == "lora_b" else 1)
        np.testing.assert_allclose(start - variable.numpy(), expected, rtol=1e-3)


# ------------------------------------------------------------------------------ names and labels


def test_every_strategy_has_its_label_once():
    relatives = get_args(Relative)
    labels = [strategy.label for strategy in compared(RANKS, 8, relatives)]
    assert len(labels) == len(set(labels)) == 5 + 6 + 1 + 4
    assert {f"{relative}, rank 8" for relative in relatives} <= set(labels)
    assert "LoRA, rank 8, attention only" in labels
    assert compared((8, 8), 8, ("DoRA", "DoRA")) == compared((8,), 8, ("DoRA",))


def test_adapters_of_the_plain_lora_at_two_ranks_are_saved():
    assert saved_strategies(RANKS, 8) == [lora(2), lora(8)]
    assert saved_strategies((2,), 2) == [lora(2)]


@pytest.mark.parametrize(
    ("job", "name", "variant"),
    [
        (Job(FULL, 1, 3e-4), "full_fine-tuning-0.0003-1", CONVERGENCE),
        (Job(lora(8), 0, 1e-3, Amount(0.05)), "LoRA-rank_8-0.001-share_0.05-0", "5 % of the data"),
        (Job(lora(8), 2, 1e-3, epochs=1), "LoRA-rank_8-0.001-epochs_1-2", "1 epoch"),
        (
            Job(Strategy("lora", 8, attention_only=True), 4, 3e-3),
            "LoRA-rank_8-attention_only-0.003-4",
            CONVERGENCE,
        ),
        (
            Job(FULL, 0, 1e-3, epochs=2, stage=3),
            "full_fine-tuning-0.001-epochs_2-stage_3-0",
            "after 3 adaptations in sequence",
        ),
    ],
)
def test_names_and_labels_of_a_job(job, name, variant):
    assert job.name == name
    assert job.variant == variant


def test_an_amount_is_the_last_windows_of_the_training_part():
    times = np.datetime64("2024-01-01T00", "h") + np.arange(2000)
    origins = np.arange(100, 1500)
    assert list(Amount(weeks=1).of(origins, times, 32)) == list(origins[-168:])
    assert list(Amount(0.1).of(origins, times, 32)) == list(origins[-140:])
    assert list(Amount(weeks=0.1).of(origins, times, 32)) == list(origins[-32:])
    assert list(WHOLE.of(origins, times, 32)) == list(origins)


def test_fewer_series_fill_the_slots_again_and_are_forecast_by_the_mean_of_theirs():
    network = build()
    prices = simulate(CURRENCIES, 500, 1)
    windows = Windows(prices, split(prices.contiguous(), 48, 3, 100, 80), 48, 3, log=False)
    past, times = windows.inputs(np.arange(400, 410))
    network.fit_scales(windows.past(windows.parts.train), fit_log_har(windows))
    kernel = network.model.get_layer("head").kernel
    kernel.assign(0.3 * np.random.default_rng(0).standard_normal(kernel.shape))

    # as many series as slots: the network's own forecast
    for mine, own in zip(
        predict_filled(network, past, times), network.predict(past, times), strict=True
    ):
        np.testing.assert_array_equal(mine, own)

    # three series: slots 0, 3 and 6 have the first
    two = filled(
        dataclasses.replace(prices, values=prices.values[:, :3], series=("a", "b", "c")), 7
    )
    assert two.series == ("a", "b", "c", "a in 3", "b in 4", "c in 5", "a in 6")
    point, quantiles = predict_filled(network, past[..., :3], times)
    own_point, own = network.predict(past[..., [0, 1, 2, 0, 1, 2, 0]], times)
    assert point.shape == (10, 3, 3)
    np.testing.assert_allclose(point[..., 0], own_point[..., [0, 3, 6]].mean(-1))
    np.testing.assert_allclose(quantiles[:, :, 1], own[:, :, [1, 4]].mean(2))


def test_labels_of_passes_and_shares():
    assert [Passes(epochs).label for epochs in (1, 2)] == ["1 epoch", "2 epochs"]
    assert [Amount(0.5).label, WHOLE.label] == ["50 % of the data", CONVERGENCE]
    assert [Amount(weeks=weeks).label for weeks in (1, 8)] == ["1 week of data", "8 weeks of data"]


def test_a_share_is_trained_for_more_epochs_in_proportion_to_its_root():
    config = Config(epochs=5, patience=2)
    recipe = config.recipe(Job(FULL, 0, 1e-3), 0.25)
    assert (recipe.epochs, recipe.patience) == (10, 4)
    assert config.recipe(Job(FULL, 0, 1e-3, epochs=2), 1.0).epochs == 2


def test_an_adaptation_in_sequence_is_kept_whatever_validation_says():
    config = Config(sequence_epochs=2)
    recipe = config.recipe(Job(lora(8), 0, 1e-3, epochs=2, stage=1), 1.0)
    assert (recipe.epochs, recipe.least_epochs) == (2, 2)
    assert config.recipe(Job(lora(8), 0, 1e-3), 1.0).least_epochs == 0


def test_ranks_of_a_preset_end_at_the_width_of_the_base_and_others_are_refused():
    full = Config.of_preset("full")
    assert full.fitting(16).ranks == (1, 2, 4, 8, 16)
    assert full.fitting(64) == full
    with pytest.raises(InputError, match="--ranks 32: from 1 to 16"):
        dataclasses.replace(full, ranks=(8, 32)).fitting(16)
    with pytest.raises(InputError, match="--ranks 8: from 1 to 4"):
        full.fitting(4)


# ----------------------------------------------------------------------------------- comparisons


def group(strategy: Strategy, variant: str) -> ModelGroup:
    return ModelGroup(strategy.label, variant, [], ensemble_label(variant, 5))


def test_pairs_compare_rows_that_exist():
    share = Amount(0.05).label
    whole = [group(strategy, CONVERGENCE) for strategy in compared((2, 8), 8, ("DoRA",))]
    less = [group(strategy, share) for strategy in main_strategies(8)]
    result = pairs(whole, less, 8)
    rows = {each.ensemble_key for each in (*whole, *less)}
    assert {key for pair in result for key in (pair.one, pair.other)} <= rows
    ensemble = ensemble_label(share, 5)
    assert Pair((lora(8).label, ensemble), (FROM_SCRATCH.label, ensemble)) in result
    assert len(result) == len(set(result))


def test_p_values_of_all_pairs_are_corrected_together():
    def row(model: str, p: float, **cell: object) -> Row:
        entry = {"protocol": "held-out", "split": "test", "model": model, "variant": "x"} | cell
        return Row(**entry, metric="p_crps_against", value=p)

    pooled = [row("a", 0.01), row("b", 0.04), row("c", 0.03)]
    others = [row("a", 0.001, series="EUR"), row("a", 0.001, split="validation")]
    found = {each.model: each.value for each in holm_rows([*pooled, *others])}
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm_rows([]) == []


# ------------------------------------------------------------------------------------------ base


def test_a_base_of_another_shape_or_none_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"make it with: python assignment3/train\.py"):
        base_files(tmp_path, "minmax", 7)
    save_model(tmp_path / "model.minmax-0.keras", build().model)
    with pytest.raises(InputError, match=r"holds no run\.json"):
        base_files(tmp_path, "minmax", 7)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / COURSE_FILE).write_bytes(b"")
    assert len(base_files(tmp_path, "minmax", 7)) == 1
    assert len(base_files(tmp_path, "minmax", 1)) == 1
    with pytest.raises(InputError, match=r"forecasts 7 series, and there are 8 here; choose 7"):
        base_files(tmp_path, "minmax", 8)


def test_a_base_is_named_by_its_weights_and_not_by_the_bytes_of_its_file(tmp_path):
    model = build().model
    digest = base_digest(model)
    first, again = tmp_path / "first.keras", tmp_path / "again.keras"
    save_model(first, model)
    with zipfile.ZipFile(first) as old, zipfile.ZipFile(again, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))  # with the date of now, and not compressed
    assert first.read_bytes() != again.read_bytes()
    assert base_digest(load_model(first)) == base_digest(load_model(again)) == digest

    # one weight, one fitted number, and the same numbers in another shape are another base
    for variable in (model.trainable_variables[0], model.get_layer("quantiles").fitted_shrink):
        before = variable.numpy()
        changed = before.copy()
        changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(9))
        variable.assign(changed)
        assert base_digest(model) != digest
        variable.assign(before)
    assert base_digest(model) == digest
    values = np.zeros((2, 3), np.float32)
    digests = {
        weights_digest([("kernel", values)]),
        weights_digest([("bias", values)]),
        weights_digest([("kernel", values.T)]),
        weights_digest([("kernel", values.view(np.int32))]),
    }
    assert len(digests) == 4
