"""What a strategy costs: the bytes that it leaves, and the time of its training step."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assignment3.model import save_model
from assignment4.adaptation import Adaptation, Adapted
from assignment4.config import Config
from assignment4.costs import adapter_bytes, cost_rows
from assignment4.jobs import Job
from assignment4.pretrained import Base
from assignment4.strategies import FULL, NO_ADAPTATION, lora
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
