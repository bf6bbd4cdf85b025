"""Chooses the learning rate and the batch of one network on validation, each try for equal seconds.

What a method is compared with gets as many tries as the method had, by the same rule. The test
trajectories are not read. Each try is a row of metrics.json, and its learning curve is in
metrics.csv.

    python final_project/tune.py --network "autoencoder, as published" --seconds 180
    python final_project/tune.py --network "as published" --rates 1e-4 3e-4 1e-3 --batches 2 4
    python final_project/tune.py --network SEA --rates 2e-3 5e-3 --batches 4

A try takes --seconds, and a few more to measure its speed. Then give train.py the options that the
last line names.
"""

from __future__ import annotations

from common.cli import entry, read_options
from final_project.tune_config import TuneConfig

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(TuneConfig)

import itertools
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from common.cli import option_of
from common.machine import choose_device
from common.results import Results, Row, print_table
from common.run import Run
from final_project.autoencoder import MeshAutoencoder
from final_project.config import (
    CHECKS,
    MODELS,
    STEPPERS,
    Config,
    OneStepRecipe,
    StepperName,
)
from final_project.data import groups_of, split
from final_project.evaluation import METRICS_INFO, Judge, checked_error, stepper
from final_project.factory import architecture, sizes_of
from final_project.fit import Fitted, Job, TrainingFlow
from final_project.train import (
    HERE,
    check_patches,
    load,
    note_data,
    train_autoencoder,
    train_temporal,
    trained_coder,
)
from final_project.tune_config import AUTOENCODERS, knobs_of

MEASURED = (2, 10)  # steps of two short trainings: the speed is their difference


@dataclass(frozen=True)
class Study:
    """What all tries share. The judge knows the grid of FNO and U-Net, and scores nothing here."""

    network: str
    data: TrainingFlow
    judge: Judge
    device: str
    coder: MeshAutoencoder | None  # of a temporal model


@dataclass(frozen=True)
class Attempt:
    """What a try came to."""

    error: float  # VRMSE on validation, of the weights that were kept
    seconds: float
    steps: int
    checking: float  # of the seconds, those on validation


def attempt(config: Config, run: Run, label: str, study: Study) -> Attempt:
    """One training of the network under a label of its own."""
    network = study.network
    if network in STEPPERS:
        return attempt_stepper(config, run, label, study, cast(StepperName, network))
    steps = getattr(config, knobs_of(network).steps)

    fitted: Fitted
    if study.coder is None:
        kind = AUTOENCODERS[network]
        fitted = train_autoencoder(config, run, kind, study.data, study.device, label)
    else:
        spec = MODELS[network]
        parameters = study.data.parameters.shape[1]
        mesh = study.data.coordinates
        sizes = sizes_of(config, spec, mesh, study.data.groups, parameters)
        job = Job(network, 0, architecture(config, network, sizes), sizes, label)
        fitted = train_temporal(config, run, job, study.data, study.coder)
    return Attempt(fitted.error, fitted.seconds, steps, fitted.checking)


def attempt_stepper(
    config: Config, run: Run, label: str, study: Study, name: StepperName
) -> Attempt:
    """As `attempt`, of FNO, U-Net or Transolver."""
    data = study.data
    model = stepper(config, study.judge, study.device, name)
    model.score = partial(checked_error, run, data, label, model)
    model.fit(data.fields, data.parameters)
    trained = model.trained_
    error = math.inf if trained.validation is None else trained.validation
    return Attempt(error, trained.seconds, model.recipe.steps, trained.checking)


def steps_within(config: TuneConfig, run: Run, study: Study, lr: float, batch: int) -> int:
    """How many steps with a batch take the seconds of a try, checks on validation included."""
    measured: list[Attempt] = []
    for steps in MEASURED:
        label = f"speed, batch {batch}, {steps} steps"
        short = replace(config.attempt(lr, batch, steps), checks=1)
        measured.append(run.memo(label, attempt, short, run, label, study))

    # a check may take as long as a hundred steps, and never twice the same
    few, more = MEASURED
    seconds = [each.seconds - each.checking for each in measured]
    step = max((seconds[1] - seconds[0]) / (more - few), 1e-6)
    check = sum(each.checking for each in measured) / len(measured)
    of_steppers = study.network in STEPPERS
    checks = config.checks or (OneStepRecipe.checks if of_steppers else CHECKS)
    return max(1, round((config.seconds - checks * check) / step))


def main(config: TuneConfig) -> Results:
    """Trains and records every try; returns what metrics.json holds."""
    # Data: the test trajectories are left alone
    flow, source = load(config)
    groups = groups_of(flow.field_names, config.groups)
    parts = split(flow.parameters, config.seed)
    check_patches(config, flow, groups)
    data = TrainingFlow.of(flow, groups, parts, min(config.frames, len(flow.time)))
    judge = Judge(flow, config.grid, config.frames, data.units)
    device = choose_device(config.device).name
    name = config.network.replace(", ", "-").replace(" ", "_")
    folder = config.out or HERE / "results" / f"{source}-tuning-{name}"

    rows = []
    with Run(config, folder, __file__, source, flow.provenance) as run:
        note_data(config, run, flow, parts, groups, device)
        coder = None
        if config.network in MODELS:
            kind = MODELS[config.network].autoencoder
            coder = trained_coder(config, run, kind, data, device).autoencoder
        study = Study(config.network, data, judge, device, coder)

        # Tries: every rate with every batch, for as many steps as the seconds allow
        tried: dict[tuple[float, int], Attempt] = {}
        for batch, lr in itertools.product(config.batches, config.rates):
            steps = steps_within(config, run, study, config.rates[0], batch)
            label = f"try, lr {lr:g}, batch {batch}"
            options = config.attempt(lr, batch, steps)
            result: Attempt = run.memo(label, attempt, options, run, label, study)
            tried[lr, batch] = result
            rows.append(
                Row(
                    protocol="held-out",
                    split="validation",
                    model=config.network,
                    variant=f"lr {lr:g}, batch {batch}, {result.steps} steps",
                    metric="vrmse",
                    value=result.error,
                    n_seeds=1,
                    seconds=round(result.seconds, 1),
                )
            )
        results = run.finish(rows, METRICS_INFO)

    print_table(results["rows"], {"vrmse": "VRMSE on validation"}, title=config.network)
    lr, batch = min(tried, key=lambda pair: tried[pair].error)
    knobs = knobs_of(config.network)
    values = zip(knobs, (f"{lr:g}", batch, tried[lr, batch].steps), strict=True)
    print("best: " + " ".join(f"{option_of(knob)} {value}" for knob, value in values))
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
