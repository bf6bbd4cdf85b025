"""Learning rates are chosen on validation, and every job is trained once."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest

from assignment4.adaptation import Adaptation, Adapted
from assignment4.config import Config
from assignment4.jobs import Job
from assignment4.pretrained import Base
from assignment4.strategies import FULL, HEAD_ONLY, NO_ADAPTATION, lora
from assignment4.train import choose_rates
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
