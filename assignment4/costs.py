"""What a strategy costs: seconds of a training step, and bytes that it leaves beside its base."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
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
        "median time of one training step on one batch; the strategies take turns",
    ),
}


def cost_rows(adaptation: Adaptation, jobs: Sequence[Job]) -> list[Row]:
    """Bytes of every job, and with --timed-steps the seconds of its step."""
    adapted = {job: adaptation.train(job) for job in jobs}
    values = [(job, "adapter_bytes", float(adapter_bytes(adapted[job]))) for job in jobs]
    if adaptation.config.timed_steps:
        trained = [job for job in jobs if adapted[job].params]
        seconds = adaptation.run.memo("step_seconds", step_seconds, adaptation, trained)
        values += [(job, "step_seconds", each) for job, each in zip(trained, seconds, strict=True)]
    return [
        Row(
            protocol="held-out",
            split="train",
            model=job.strategy.label,
            variant=job.variant,
            metric=metric,
            value=value,
            params=adapted[job].params,
        )
        for job, metric, value in values
    ]


def adapter_bytes(adapted: Adapted) -> int:
    """Bytes of an adapter's two files, or of the trained weights of a network without one."""
    if adapted.adapter is None:
        return FLOAT * adapted.params
    with tempfile.TemporaryDirectory() as folder:
        adapted.adapter_file.save(Path(folder) / "adapter.safetensors")
        return sum(file.stat().st_size for file in Path(folder).iterdir())


def step_seconds(adaptation: Adaptation, jobs: Sequence[Job]) -> list[float]:
    """Median seconds of a training step of each job.

    The jobs take turns, so that a load that comes and goes on the machine meets all of them.
    """
    steps = [training_step_of(adaptation, job) for job in jobs]
    seconds: list[list[float]] = []
    for _ in range(adaptation.config.timed_steps):
        seconds.append([])
        for step in steps:
            start = time.perf_counter()
            step()
            seconds[-1].append(time.perf_counter() - start)
    return [float(each) for each in np.median(seconds, axis=0)]


def training_step_of(adaptation: Adaptation, job: Job) -> Callable[[], float]:
    """A function that takes one more training step on a job's first windows; it is traced."""
    config = adaptation.config
    origins = adaptation.windows.parts.train
    model, lora = adaptation.prepared(job, origins)
    batch = training_batch(Forecaster(model), adaptation.windows, origins[: config.batch])
    rates = rates_of(job.strategy, lora, config.lora_plus_ratio)
    plain = build_optimiser(config.recipe(job, 1.0), config.timed_steps + 1)
    optimiser = VectorOptimiser(plain, model.trainable_variables, rates)
    step = training_step(model, optimiser)

    def another() -> float:
        return float(step(*batch))

    another()
    return another
