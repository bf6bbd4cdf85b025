"""What a strategy costs: the bytes that it leaves, and the time of its training step."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from assignment3.model import save_model
from assignment4.adaptation import Adaptation, Adapted
from assignment4.config import Config
from assignment4.costs import adapter_bytes, cost_rows
from assignment4.jobs import Job
from assignment4.lora import LoRA
from assignment4.pretrained import Base
from assignment4.strategies import FULL, NO_ADAPTATION, Strategy, Variant, lora
from common.forecasting.prices import CURRENCIES
from common.forecasting.simulate import simulate
from common.forecasting.windows import Windows, split
from common.run import Run
from tests.assignment4.test_strategies import build

CONFIG = Config(seeds=1, ranks=(2,), rank=2, epochs=1, timed_steps=2)


@pytest.fixture(scope="module")
def adaptation(tmp_path_factory):
    """A small base and simulated currencies."""
    folder = tmp_path_factory.mktemp("costs")
    file = folder / "model.minmax-0.keras"
    network = build()
    kernel = network.model.get_layer("head").kernel  # zero in a network that was never trained
    kernel.assign(0.3 * np.random.default_rng(0).standard_normal(kernel.shape))
    save_model(file, network.model)
    prices = simulate(CURRENCIES, 300, 1)
    windows = Windows(prices, split(prices.contiguous(), 48, 3, 60, 40), 48, 3, log=False)
    with Run(CONFIG, folder / "run", __file__, "simulated", {}) as run:
        yield Adaptation(CONFIG, run, windows, Base(folder, [file], network))


def test_an_adapter_takes_the_bytes_of_its_files_and_other_weights_four_each(
    adaptation, tmp_path: Path
):
    adapted = adaptation.train(Job(lora(2), 0, 1e-3))
    adapted.adapter_file.save(tmp_path / "a.safetensors")
    files = [(tmp_path / f"a.{suffix}").stat().st_size for suffix in ("safetensors", "json")]
    assert adapter_bytes(adapted) == sum(files) > 4 * adapted.params
    whole = Adapted([], 7, 0.0, 0, 0.0, {}, np.ones(1), None)
    assert adapter_bytes(whole) == 28


@pytest.mark.parametrize("variant", get_args(Variant))
def test_a_trained_variant_is_stored_and_its_file_gives_the_same_weights(
    adaptation, tmp_path, variant
):
    job = Job(Strategy("lora", 2, variant=variant), 0, 1e-2, epochs=1, stage=1)
    adapted = adaptation.train(job)
    adapted.adapter_file.save(tmp_path / "a.safetensors")

    # onto the network with the target's scales, as it was before training
    model, lora = adaptation.prepared(job, adaptation.windows.parts.train)
    before = [weight.numpy() for weight in lora.detach().weights]
    again = LoRA(model)
    again.load(tmp_path / "a.safetensors", "again")
    again.merge()
    names = [weight.path for weight in model.weights]
    moved = 0
    for name, old, ours, theirs in zip(
        names, before, model.get_weights(), adapted.weights, strict=True
    ):
        if name != "quantiles/shrink":  # which is no part of an adapter
            np.testing.assert_allclose(ours, theirs, atol=2e-6, err_msg=name)
            moved += not np.array_equal(old, theirs)
    assert moved == len(again.targets())


def test_rows_of_costs_are_timed_where_that_is_asked_and_something_is_trained(adaptation):
    jobs = [Job(strategy, 0, 1e-3) for strategy in (NO_ADAPTATION, FULL, lora(2))]
    rows = {(row.model, row.metric): row.value for row in cost_rows(adaptation, jobs)}
    assert rows["no adaptation", "adapter_bytes"] == 0
    assert ("no adaptation", "step_seconds") not in rows
    for model in ("full fine-tuning", "LoRA, rank 2"):
        assert 0 < rows[model, "step_seconds"] < math.inf
    again = {(row.model, row.metric): row.value for row in cost_rows(adaptation, jobs)}
    assert again == rows  # timed once
    adaptation.config = replace(CONFIG, timed_steps=0)
    assert {row.metric for row in cost_rows(adaptation, jobs)} == {"adapter_bytes"}
