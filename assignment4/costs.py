"""What a strategy costs: seconds of a training step, and bytes of what it leaves beside its base.

The first step of each is left out, which traces.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from assignment3.fit import build_optimiser, training_batch, training_step
from assignment3.model import Forecaster
from assignment3.optimiser import VectorOptimiser
from assignment4.adaptation import Adaptation, Adapted
from assignment4.jobs import Job
from assignment4.pretrained import rates_of
from common.results import Metric, Row

FLOAT = np.dtype(np.float32).itemsize
COSTS = {
    "adapter_bytes": Metric(
        "bytes",
        "lower",
        "what is kept of an adaptation beside its base: the files of an adapter, "
        "else 4 bytes for each trained weight; 0: the base alone",
    ),
    "step_seconds": Metric(
        "seconds",
        "lower",
        "median time of one training step on one batch, all strategies timed in turn",
    ),
}


def cost_rows(adaptation: Adaptation, jobs: Sequence[Job]) -> list[Row]:
    """Bytes of every job, and with --timed-steps the seconds of its step."""
    steps = adaptation.config.timed_steps
    rows = []
    for job in jobs:
        adapted = adaptation.train(job)
        values = {"adapter_bytes": float(adapter_bytes(adapted))}
        if steps and adapted.params:
            name = f"step_seconds-{job.name}"
            values["step_seconds"] = adaptation.run.memo(name, step_seconds, adaptation, job, steps)
        rows += [
            Row(
                protocol="held-out",
                split="train",
                model=job.strategy.label,
                variant=job.variant,
                metric=metric,
                value=value,
                params=adapted.params,
            )
            for metric, value in values.items()
        ]
    return rows


def adapter_bytes(adapted: Adapted) -> int:
    """Bytes of an adapter's two files, or of the trained weights of a network without one."""
    if adapted.adapter is None:
        return FLOAT * adapted.params
    with tempfile.TemporaryDirectory() as folder:
        adapted.adapter_file.save(Path(folder) / "adapter.safetensors")
        return sum(file.stat().st_size for file in Path(folder).iterdir())


def step_seconds(adaptation: Adaptation, job: Job, steps: int) -> float:
    """Median seconds of so many training steps of a job, on the first batch of its windows."""
    config = adaptation.config
    origins = adaptation.windows.parts.train
    model, lora = adaptation.prepared(job, origins)
    forecaster = Forecaster(model)
    batch = training_batch(forecaster, adaptation.windows, origins[: config.batch])
    rates = rates_of(model, job.strategy, lora, config.lora_plus_ratio)
    plain = build_optimiser(config.recipe(job, 1.0), steps + 1)
    optimiser = VectorOptimiser(plain, model.trainable_variables, rates)
    step = training_step(model, optimiser)
    float(step(*batch))  # traced

    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        float(step(*batch))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
