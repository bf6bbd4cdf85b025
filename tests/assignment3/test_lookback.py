"""The linear models of the exchange-rate benchmark, and what validation may choose by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import assignment2.config
import assignment4.config
from assignment3.config import Config, ExchangeConfig, LookbackConfig
from assignment3.exchange import Benchmark, split_by_share
from assignment3.lookback import CHOSEN, PICKED, DLinear, Errors, NLinear, rows_of, train_seed
from common.cli import InputError, parse

CONFIG = LookbackConfig(epochs=2, seeds=1, batch=64, lr=5e-3)


def benchmark(values: np.ndarray) -> Benchmark:
    return Benchmark(values, split_by_share(len(values), 30, 4), 30, 4)


def test_nlinear_follows_the_level():
    model = NLinear(30, 4)
    known = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(known + 7), model(known) + 7)


def test_dlinear_is_two_maps_of_the_moving_average_and_the_rest():
    model = DLinear(30, 4)
    known = torch.randn(1, 30, generator=torch.Generator().manual_seed(0))
    with_ends = np.r_[[known[0, 0]] * 12, known[0].numpy(), [known[0, -1]] * 12]
    average = np.convolve(with_ends, np.ones(25) / 25, "valid")
    rest = known[0].numpy() - average
    trend, seasonal = (layer.weight.detach().numpy() for layer in (model.trend, model.rest))
    expected = trend @ average + seasonal @ rest
    expected += (model.trend.bias + model.rest.bias).detach().numpy()
    np.testing.assert_allclose(model(known)[0].detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_training_and_its_choice_see_nothing_of_the_test_part():
    values = np.random.default_rng(0).standard_normal((400, 2)).cumsum(0) / 10
    clean = benchmark(values)
    poisoned = values.copy()
    poisoned[clean.parts.test[0] + 1 :] += 5
    for model in ("NLinear", "DLinear"):
        one = train_seed(CONFIG, model, clean, 0)
        other = train_seed(CONFIG, model, benchmark(poisoned), 0)
        assert one[0] == other[0]  # the validation error
        assert one[1] != other[1]


def test_validation_chooses_one_look_back_and_the_test_part_would_choose_another():
    errors = {96: Errors([0.2], [0.5], 1), 336: Errors([0.3], [0.4], 1)}
    rows = {(row.variant, row.split): row.value for row in rows_of("DLinear", 12, errors)}
    assert rows[CHOSEN, "test"] == 0.5
    assert rows[PICKED, "test"] == 0.4


@pytest.mark.parametrize(
    ("config", "option"),
    [
        (LookbackConfig, "--contexts"),
        (LookbackConfig, "--horizons"),
        (ExchangeConfig, "--horizons"),
        (Config, "--decays"),
        (assignment2.config.Config, "--decays"),
        (assignment4.config.Config, "--lora-lrs"),
    ],
)
def test_an_option_of_several_values_needs_one(config, option):
    with pytest.raises(InputError, match=f"{option}: at least one value is needed"):
        parse(config, [option])
