"""Learning rates are chosen on validation, and every job is trained once."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest

from assignment3.backend import keras
from assignment3.model import Forecaster
from assignment4 import pretrained
from assignment4.adaptation import Adaptation, Adapted
from assignment4.config import Config
from assignment4.jobs import Job
from assignment4.pretrained import Base
from assignment4.sequence import adapt_in_sequence, series_groups
from assignment4.strategies import FULL, HEAD_ONLY, NO_ADAPTATION, Strategy, lora
from assignment4.train import check_weeks, choose_rates
from common.cli import InputError
from common.forecasting.prices import CURRENCIES
from common.forecasting.simulate import simulate
from common.forecasting.windows import Windows
from common.run import Run

CONFIG = Config(ranks=(2,), rank=2, lrs=(1e-4, 1e-3, 1e-2), lora_lrs=(1e-3,), seeds=2)


def adapt(adaptation: Adaptation, job: Job) -> Adapted:
    """A training that is best at a learning rate of 0.001, and improves from seed 1 on."""
    crps = abs(math.log10(job.lr / 1e-3))
    adaptation.run.log(0, 0, "validation", **{f"crps_{job.name}": crps})
    return Adapted([np.zeros(1)], 1, crps, job.seed, 1.0, {}, np.ones((1, 1)), None)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(Adaptation, "_adapt", adapt)
    with Run(CONFIG, tmp_path / "run", __file__, "simulated", {}) as run:
        yield run


def network(weight: float) -> keras.Model:
    """One weight."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.full((1, 1), weight, np.float32)])
    return model


def adaptation(run: Run) -> Adaptation:
    base = cast(Base, SimpleNamespace(network=None))
    return Adaptation(CONFIG, run, cast(Windows, None), base)


def test_each_strategy_has_the_rate_with_the_best_mean_validation_score(run):
    rates = choose_rates(CONFIG, adaptation(run))
    assert rates[FULL] == 1e-3
    assert rates[HEAD_ONLY] == rates[lora(2)] == 1e-3
    assert rates[NO_ADAPTATION] == 1e-4  # which is not trained
    tried = pd.read_csv(run.folder / "metrics.csv").name.unique()
    assert "crps_full_fine-tuning-0.01-0" in tried
    assert not any("LoRA" in name or "head" in name for name in tried)


def test_candidates_of_few_epochs_choose_for_lora_of_every_rank(run):
    config = replace(CONFIG, ranks=(2, 8), lora_lrs=(1e-4, 1e-3), rate_epochs=1)
    jobs = Adaptation(config, run, cast(Windows, None), adaptation(run).base)
    rates = choose_rates(config, jobs)
    assert list(rates) == config.compared()
    attention = Strategy("lora", 2, attention_only=True)
    assert rates[lora(2)] == rates[lora(8)] == rates[attention] == rates[FULL] == 1e-3
    tried = {name.rpartition("-")[0] for name in pd.read_csv(run.folder / "metrics.csv").name}
    assert {"crps_LoRA-rank_2-0.0001-epochs_1", "crps_LoRA-rank_2-0.001-epochs_1"} <= tried
    assert all(name.endswith("-epochs_1") for name in tried)
    assert not any("rank_8" in name or "attention" in name for name in tried)


def test_each_adaptation_in_sequence_starts_where_the_last_one_ended(run, monkeypatch):
    """Of three groups of series, the network of each seed is loaded with the weights before."""

    def add_one(adaptation: Adaptation, job: Job) -> Adapted:
        start = adaptation.base.load(job.seed).get_weights()
        return replace(adapt(adaptation, job), weights=[each + 1 for each in start])

    monkeypatch.setattr(Adaptation, "_adapt", add_one)
    monkeypatch.setattr(pretrained, "load_model", lambda file: network(float(file.name)))
    files = [run.folder / "10", run.folder / "20"]
    shared = cast(Forecaster, SimpleNamespace(settings={"series": ["a", "b", "c"]}))
    prices = simulate(CURRENCIES, 300, 1)
    windows = Windows(prices, None, 48, 3)
    jobs = Adaptation(CONFIG, run, windows, Base(run.folder, files, shared))

    monkeypatch.setattr(jobs, "config", replace(CONFIG, sequence=3, sequence_epochs=1))
    found = adapt_in_sequence(jobs, Job(FULL, 0, 1e-3), prices)
    assert [job.stage for job in found] == [1, 2, 3]
    for number, networks in enumerate(found.values(), start=1):
        assert [float(each.weights[0][0, 0]) for each in networks] == [10 + number, 20 + number]


def test_a_target_is_divided_into_as_many_groups_as_it_has_series_at_most():
    prices = simulate(CURRENCIES, 300, 1)
    groups = series_groups(prices, 3)
    assert [group.series for group in groups] == [
        ("EUR", "GBP", "JPY"),
        ("AUD", "CAD"),
        ("CHF", "WTI"),
    ]
    np.testing.assert_array_equal(groups[1].values, prices.values[:, 3:5])
    two = replace(prices, values=prices.values[:, :2], series=("EUR", "GBP"))
    assert [group.series for group in series_groups(two, 3)] == [("EUR",), ("GBP",)]


def test_a_job_is_trained_once_and_metrics_keep_every_try(run):
    jobs = adaptation(run)
    rates = choose_rates(CONFIG, jobs)
    group = jobs.group(Job(FULL, 0, rates[FULL]))
    assert (group.model, group.variant) == ("full fine-tuning", "to convergence")
    assert (group.ensemble, group.seconds) == ("to convergence, mean of 2 seeds", 1.0)
    names = list(pd.read_csv(run.folder / "metrics.csv").name)
    assert len(names) == len(set(names))
    assert {f"crps_full_fine-tuning-{rate:g}-0" for rate in CONFIG.lrs} <= set(names)
    assert "crps_full_fine-tuning-0.001-1" in names


def test_networks_that_are_best_before_training_are_counted_per_strategy(run):
    jobs = [Job(FULL, 0, 1e-3), Job(NO_ADAPTATION, 0, 1e-3)]
    assert adaptation(run).untrained(jobs) == {"full fine-tuning": 1}


def test_more_weeks_than_there_are_cannot_be_the_last_ones():
    times = np.datetime64("2024-01-01", "h") + np.arange(0, 24 * 7 * 3 + 1, 1)
    check_weeks((1.0, 3.0), times)
    with pytest.raises(InputError, match=r"--weeks 3.5: the training part has 3.0 weeks"):
        check_weeks((1.0, 3.5), times)
