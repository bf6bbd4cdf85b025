"""Final project: ViT-SEA, a mesh autoencoder and a causal Transformer whose streams exchange state.

Esmati et al. (NeurIPS 2024, arXiv 2410.15495). Stage one codes each frame; stage two predicts the
next code. Trajectories are split for both; a rollout is given its first frame alone.

    python final_project/simulate.py --flow cylinder     # makes the data set (see its --help)
    python final_project/train.py --flow cylinder        # on it, else on a small built-in one
    python final_project/train.py --preset full          # every model and baseline, three seeds
    torchrun --nproc_per_node=4 final_project/train.py --preset full

Some minutes on two cores for the default preset. In three minutes of training the committed runs'
wide stream has a squared relative L2 of rollouts inside the range of 0.001 on the lock exchange and
of 0.003 on the cylinder; an error of 1 is as large as the field.
"""

from __future__ import annotations

from common.cli import entry, read_options
from final_project.config import Config

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(Config)

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common.cli import InputError, Preset, data_folder
from common.files import tensors, write_arrays
from common.machine import choose_device
from common.results import Results, Row
from common.run import Run, progress
from common.shard import Shard
from common.world import World
from final_project.artifacts import attention_arrays, error_arrays, picture_arrays
from final_project.autoencoder import Autoencoder, MeshAutoencoder
from final_project.checkpoint import save_mesh, save_networks
from final_project.config import (
    CONTROLS,
    FLOORS,
    MODELS,
    STEPPERS,
    AutoencoderName,
    BaselineName,
    Recipe,
    Trick,
)
from final_project.data import Flow, Split, groups_of, load_flow, split
from final_project.evaluation import (
    METRICS_INFO,
    BaselineScores,
    CodedTruth,
    Fit,
    Judge,
    Scored,
    Scores,
    print_scores,
    score_baseline,
)
from final_project.factory import (
    Groups,
    architecture,
    build_autoencoder,
    build_temporal,
    geometry,
    sizes_of,
)
from final_project.figures import draw_figures
from final_project.fit import (
    FRAMES,
    Fitted,
    Fitting,
    Job,
    TrainingFlow,
    ValidationError,
    Windows,
    distributed,
)
from final_project.patches import patch_table
from final_project.raw import Reading
from final_project.rollout import (
    after_own_steps,
    after_unroll,
    pushforward,
    teacher_forcing,
    unrolled,
)
from final_project.seen import save_seen
from final_project.splits import distances, distances_in_words
from final_project.surrogate import Surrogate, Trained, decode, encode
from final_project.temporal import TemporalModel

HERE = Path(__file__).resolve().parent
MOST_MEMORY = 4e9  # bytes, for the second moments of one field group's patches
CODED_EVERY = 5  # frames between those that stage one is validated on: neighbours are alike
# options that choose which trainings there are, and change none of them
PARTS = ("models", "baselines", "seeds", "baseline_seeds", "stage")
DRAWN = 3  # the first models of a run whose rollouts are drawn


# --------------------------------------------------------------------------------- objectives


class CodeError(nn.Module):
    """Stage one's objective: the error of the frames (B, P, F) that come back."""

    def __init__(self, autoencoder: MeshAutoencoder):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, frames: Tensor) -> Tensor:
        """As the class."""
        return self.autoencoder.reconstruction_loss(frames)


class StepError(nn.Module):
    """Stage two's objective on true latents z (B, T, G, L).

    The error of the next latent from noisy latents, from the model's own, over whole rollouts, and
    at the end of an unroll of `ahead` steps without gradient and as many with it as the recipe has.
    """

    def __init__(
        self,
        temporal: TemporalModel,
        tricks: tuple[Trick, ...],
        rollout_steps: int,
        recipe: Recipe | None = None,
    ):
        super().__init__()
        self.temporal = temporal
        self.tricks = tricks
        self.rollout_steps = rollout_steps
        self.recipe = recipe if recipe is not None and recipe.unroll else None

    def forward(
        self, z: Tensor, theta: Tensor, noise: Tensor, rolling: bool, ahead: int = 0
    ) -> Tensor:
        """As the class."""
        loss = teacher_forcing(self.temporal, z, theta, noise)
        if "pushforward" in self.tricks:
            loss = loss + pushforward(self.temporal, z, theta)
        if rolling:
            # errors grow along a rollout: divided by its length they are about as large as the
            # others, so that Adam's scales hold
            steps = self.rollout_steps
            loss = loss + unrolled(self.temporal, z[:, : steps + 1], theta, steps) / steps
        if self.recipe is not None:
            graded = self.recipe.graded
            seen = z[:, : self.recipe.context + ahead + graded]
            error = after_unroll(self.temporal, seen, theta, noise, ahead, graded)
            loss = loss + error / (ahead + graded)
        return loss


class OwnStepError(nn.Module):
    """Stage two's objective of models that read one frame.

    The error of the next latents, `ahead` own steps after noisy true latents z (B, T, G, L); of a
    recipe with unrolls, as `after_unroll`.
    """

    def __init__(self, temporal: TemporalModel, recipe: Recipe):
        super().__init__()
        self.temporal = temporal
        self.recipe = recipe

    def forward(self, z: Tensor, theta: Tensor, noise: Tensor, ahead: int) -> Tensor:
        """As the class."""
        graded = self.recipe.graded
        seen = z[:, : self.recipe.context + ahead + graded]
        if self.recipe.unroll:
            return after_unroll(self.temporal, seen, theta, noise, ahead, graded) / (ahead + graded)
        needed = (ahead + 1) * self.temporal.bundle + 1
        return after_own_steps(self.temporal, z[:, :needed], theta, noise, ahead)


# ------------------------------------------------------------------------------------- stages


@dataclass(frozen=True)
class Coder:
    """A trained autoencoder."""

    autoencoder: MeshAutoencoder
    seconds: float


def train_autoencoder(
    config: Config, run: Run, name: AutoencoderName, data: TrainingFlow, device: str, label: str
) -> Fitted:
    """Stage one: codes of single frames, from the training trajectories alone.

    label : of its checkpoint and of its validation error in metrics.csv.
    """
    recipe = config.autoencoder_recipe(name)
    (share,) = run.world.share(recipe.batch, 1)

    # Model: ours starts as the best linear code
    torch.manual_seed(config.seed)
    model = build_autoencoder(config, name, data.coordinates, data.groups)
    frames = torch.from_numpy(data.fields.reshape(-1, *data.fields.shape[2:]))  # (N T, P, F)
    if isinstance(model, Autoencoder):
        model.fit_linear(frames)
    elif not data.dimensionless:  # raw numbers, as published, mean nothing in arbitrary units
        model.fit_normaliser(frames)
    model.to(device)
    frames = frames.to(device)
    # a flow that starts from rest has no relative error in its first frame
    moving = data.validation_fields[:, 1::CODED_EVERY]

    fitting = Fitting(run, label, model, recipe)
    objective = distributed(CodeError(model), run.world)
    with run.stoppable(fitting.save) as check:
        for step in fitting.remaining():
            # One step on random frames:
            rng = np.random.default_rng((config.seed, FRAMES, step))
            rows = rng.integers(len(frames), size=recipe.batch)[share]
            loss = objective(frames[torch.from_numpy(rows).to(device)])
            fitting.descend(loss)
            check(fitting.step, loss.item())

            # Validation chooses the weights:
            if fitting.is_due:
                codes = encode(model, moving)
                error = data.validation_error(decode(model, codes), CODED_EVERY)
                fitting.validated(loss.item(), error)
    return fitting.result()


def trained_coder(
    config: Config, run: Run, kind: AutoencoderName, data: TrainingFlow, device: str
) -> Coder:
    """The autoencoder of stage one, trained or as the run has stored it."""
    part = f"autoencoder error, {kind}"
    fitted = run.memo(part, train_autoencoder, config, run, kind, data, device, part)
    autoencoder = build_autoencoder(config, kind, data.coordinates, data.groups)
    autoencoder.load_state_dict(tensors(fitted.weights))
    return Coder(autoencoder.to(device).eval(), fitted.seconds)


def train_temporal(
    config: Config, run: Run, job: Job, data: TrainingFlow, autoencoder: MeshAutoencoder
) -> Fitted:
    """Stage two: the next code from the codes before it, whose streams exchange state."""
    recipe = config.temporal_recipe(job.spec)
    tricks = job.spec.tricks

    # Data: frozen codes of the training trajectories
    z = encode(autoencoder, data.fields)  # (N, T, G, L)
    theta = torch.from_numpy(data.parameters).float().to(z.device)  # (N, K)
    if recipe.window is None:  # whole trajectories: no more of them than there are
        recipe = replace(recipe, batch=min(recipe.batch, len(z)))
    (share,) = run.world.share(recipe.batch, 1)

    # Model:
    torch.manual_seed(1000 * config.seed + job.seed)
    model = build_temporal(job.architecture, job.sizes).to(z.device)
    model.fit(z, theta, geometry(config, autoencoder, data.coordinates))

    # Objective:
    noise = config.noise if "noise" in tricks else None
    seeds = (config.seed, job.seed)
    windows = Windows(z, theta, recipe, seeds, noise, model.scales.delta_std, share)
    rollout_steps = min(config.rollout_steps, windows.length - 1)
    of_patches = job.spec.patches
    if of_patches:
        objective_of: nn.Module = OwnStepError(model, recipe)
    else:
        objective_of = StepError(model, tricks, rollout_steps, recipe)
    objective = distributed(objective_of, run.world)
    rolling_from = (1 - config.rollout_share) * recipe.steps

    fitting = Fitting(run, job.label, model, recipe)
    with run.stoppable(fitting.save) as check:
        for step in fitting.remaining():
            # One step on random windows:
            batch = windows.draw(step)
            if job.architecture.attention_dropout:
                torch.manual_seed(windows.seed_of_dropout(step))
            if of_patches:
                loss = objective(batch.z, batch.theta, batch.noise, batch.ahead)
            else:
                rolling = "rollout" in tricks and step >= rolling_from
                loss = objective(batch.z, batch.theta, batch.noise, rolling, batch.ahead)
            fitting.descend(loss)
            check(fitting.step, loss.item())

            # Validation chooses the weights by whole rollouts:
            if fitting.is_due:
                error = rollout_error(Surrogate(autoencoder, model), data)
                fitting.validated(loss.item(), error)
    return fitting.result()


def trained_model(
    config: Config,
    run: Run,
    job: Job,
    data: TrainingFlow,
    coders: Mapping[AutoencoderName, Coder],
    device: str,
) -> Trained:
    """The surrogate of a job, trained or as the run has stored it."""
    coder = coders[job.spec.autoencoder]
    fitted = run.memo(job.label, train_temporal, config, run, job, data, coder.autoencoder)
    temporal = build_temporal(job.architecture, job.sizes)
    temporal.load_state_dict(tensors(fitted.weights))
    seconds = coder.seconds + fitted.seconds
    return Trained(coder.autoencoder, temporal.to(device).eval(), seconds)


def rollout_error(surrogate: Surrogate, data: TrainingFlow) -> ValidationError:
    """Errors of rollouts of the validation trajectories from their first frames."""
    first = data.validation_fields[:, 0]
    steps = data.validation_fields.shape[1] - 1
    return data.validation_error(surrogate.predict(first, data.validation_parameters, steps))


# --------------------------------------------------------------------------------------- data


def load(config: Config) -> tuple[Flow, str]:
    """The flow, and the name of its source. Raises InputError for files that cannot be used."""
    path = config.data or data_folder() / f"{config.flow}.h5"
    nothing_found = config.source == "auto" and config.data is None and not path.exists()
    if config.source == "simulated" or nothing_found:
        from final_project.simulate import built_in  # NGSolve is needed only here

        sample: Preset = "smoke" if config.preset == "smoke" else "default"
        return built_in(config.flow, sample, workers=2), f"simulated-{config.flow}"
    if not path.exists():
        raise InputError(
            f"{path} does not exist; make it with simulate.py, give --data, or take "
            "--source simulated"
        )
    reading = Reading(thin=config.thin, every=config.every, trajectories=config.trajectories)
    return load_flow(path, reading=reading), path.absolute().stem


def check_patches(config: Config, flow: Flow, groups: Groups) -> None:
    """Refuses patches so full that their principal components would not fit into memory."""
    table = patch_table(flow.coordinates, *config.boxes)
    values = table.shape[1] * max(map(len, groups))
    needed = 8 * len(table) * values**2
    if needed > MOST_MEMORY:
        raise InputError(
            f"--boxes {config.boxes[0]} {config.boxes[1]}: a patch of {table.shape[1]:,} nodes; "
            f"its components need {needed / 1e9:.0f} GB: take more boxes, or fewer points of a "
            "grid with --thin"
        )


def jobs_of(config: Config, data: TrainingFlow) -> list[Job]:
    """The trainings of the second stage. Raises InputError for sizes that do not fit."""
    parameters = data.parameters.shape[1]
    frames = data.fields.shape[1]
    if config.unroll_steps and config.longest_unroll > frames:
        raise InputError(
            f"--unroll-steps {config.unroll_steps} --unroll-graded {config.unroll_graded}: "
            f"{config.longest_unroll} frames, the first included; there are {frames}"
        )
    if any(MODELS[name].patches for name in config.models) and config.patch_bundle >= frames:
        raise InputError(
            f"--patch-bundle {config.patch_bundle}: allowed are 1 to {frames - 1} for {frames} "
            "frames"
        )
    jobs = []
    for name in config.models if config.stage != "autoencoder" else ():
        sizes = sizes_of(config, MODELS[name], data.coordinates, data.groups, parameters)
        wanted = architecture(config, name, sizes)
        jobs += [Job(name, seed, wanted, sizes) for seed in range(config.seeds)]
    return jobs


def note_data(
    config: Config, run: Run, flow: Flow, parts: Split, groups: Groups, device: str
) -> None:
    """Notes in run.json what the run reads; says its parts, and what could not be had."""
    alone = len(groups) == 1
    away = distances(flow.parameters, parts)
    run.note(
        device=device,
        processes=run.world.size,
        groups=[[flow.field_names[field] for field in group] for group in groups],
        nodes=len(flow.coordinates),
        frames=len(flow.time),
        split=parts.sizes,
        split_note=parts.note,
        distances={name: values.round(2).tolist() for name, values in away.items()},
        intervals="over seeds and trajectories" if config.seeds > 1 else "over trajectories alone",
        exchange="off: one field group" if alone else "on",
    )
    if run.writes:
        listed = ", ".join(f"{count} for {name}" for name, count in parts.sizes.items())
        frames = min(config.frames, len(flow.time))
        print(f"trajectories: {listed}; {frames} of {len(flow.time)} frames train and are scored")
        if away:
            print(distances_in_words(flow.parameter_names[0], away))
        if config.seeds == 1:
            print("one training of each model: intervals are over trajectories alone")
    for notice in (parts.note, "one field group: no exchange" if alone else ""):
        if notice and run.writes:
            print(f"notice: {notice}", file=sys.stderr)


# --------------------------------------------------------------------------------- evaluation


def fits_of(config: Config) -> list[Fit]:
    """The baselines to fit."""
    fits = []
    for name in config.baselines if config.stage != "autoencoder" else ():
        trainings = config.baseline_seeds if name in STEPPERS else 1
        fits += [Fit(name, seed) for seed in range(trainings)]
    return fits


def score_floors(
    run: Run, judge: Judge, parts: Split, coders: Mapping[AutoencoderName, Coder]
) -> list[Scored]:
    """Scores of the true frames of the test trajectories, encoded and decoded."""
    scored = []
    for name, coder in coders.items():
        label = FLOORS[name]
        floor = CodedTruth(coder.autoencoder, judge.flow)
        scores = run.memo(f"scores {label}", judge.score, floor.predict, parts)
        scored.append(Scored(label, [scores], floor.params, round(coder.seconds, 1)))
    return scored


def score_baselines(
    config: Config,
    run: Run,
    judge: Judge,
    parts: Split,
    data: TrainingFlow,
    device: str,
    fits: Iterable[Fit],
) -> list[Scored]:
    """Scores of baselines on the test trajectories, fitted on the same ones as the models."""
    results: dict[BaselineName, list[BaselineScores]] = {}
    for fit in fits:
        inputs = (config, run, judge, parts, data, device, fit)
        result = run.memo(f"scores {fit.name}, seed {fit.seed}", score_baseline, *inputs)
        results.setdefault(fit.name, []).append(result)

    scored = []
    for name, found in results.items():
        seconds = round(float(np.mean([each.seconds for each in found])), 1)
        scored.append(Scored(name, [each.scores for each in found], found[0].params, seconds))
    return scored


def score_models(
    run: Run, judge: Judge, parts: Split, trained: Mapping[Job, Trained]
) -> list[Scored]:
    """Scores of models that are rolled out from the first frames of the test trajectories."""
    results: dict[str, list[Scores]] = {}
    trainings: dict[str, list[Trained]] = {}
    for job, training in progress(trained.items(), "scores", len(trained)):
        scores = run.memo(
            f"scores {job.name}, seed {job.seed}", judge.score, training.predict, parts
        )
        results.setdefault(job.name, []).append(scores)
        trainings.setdefault(job.name, []).append(training)

    scored = []
    for name, found in results.items():
        seconds = round(float(np.mean([each.seconds for each in trainings[name]])), 1)
        scored.append(Scored(name, found, trainings[name][0].params, seconds))
    return scored


def rows_of(judge: Judge, scored: list[Scored]) -> list[Row]:
    """Rows of metrics.json: scores, and the ratios of models to their controls."""
    rows = [row for each in scored for row in judge.rows(each)]
    by_name = {each.model: each for each in scored}
    for ours, controls in CONTROLS.items():
        for control in controls:
            if {ours, control} <= set(by_name):
                rows += judge.exchange_rows(by_name[ours], by_name[control])
    return rows


def save_artifacts(
    config: Config,
    folder: Path,
    judge: Judge,
    parts: Split,
    groups: Groups,
    scored: list[Scored],
    trained: Mapping[Job, Trained],
) -> None:
    """Writes the first model, and the arrays that the figures are made from."""
    surrogates = {job.name: training for job, training in trained.items() if job.seed == 0}
    first = config.models[0]
    surrogate = surrogates[first]
    save_networks(folder, judge.flow, groups, config, first, surrogate)

    errors = error_arrays(scored)
    write_arrays(folder / "errors.npz", **errors)

    test = parts.interpolation
    shown = {name: surrogates[name].predict for name in config.models[:DRAWN]}
    pictures = picture_arrays(judge, test, shown, errors[f"{first} | interpolation"].mean((1, 2)))
    attention = attention_arrays(judge, int(test[0]), surrogate, groups, config.boxes)
    write_arrays(folder / "pictures.npz", **pictures, **attention)


def main(config: Config) -> Results | None:
    """Trains, evaluates and records; returns what metrics.json holds, on the first process."""
    # Data: trajectories are split for both stages; everything is checked before a file is written
    flow, source = load(config)
    groups = groups_of(flow.field_names, config.groups)
    parts = split(flow.parameters, config.seed)
    check_patches(config, flow, groups)
    data = TrainingFlow.of(flow, groups, parts, min(config.frames, len(flow.time)))
    judge = Judge(flow, config.grid, config.frames, data.units)
    jobs, fits = jobs_of(config, data), fits_of(config)
    shard = Shard.of(config.shard)
    mine = shard.share([*jobs, *fits])
    device = choose_device(config.device).name
    world = World.join(device)
    folder = config.out or HERE / "results" / f"{source}-{config.preset}"

    with Run(config, folder, __file__, source, flow.provenance, world, shard, PARTS) as run:
        note_data(config, run, flow, parts, groups, device)

        # Stage one, encode: a code per frame and field group
        coders: dict[AutoencoderName, Coder] = {}
        for kind in config.autoencoders:
            coders[kind] = trained_coder(config, run, kind, data, device)

        # Stage two, exchange: the next code, from streams that read each other
        trained: dict[Job, Trained] = {}
        for job in jobs:
            if job in mine:
                trained[job] = trained_model(config, run, job, data, coders, device)
        world.leave()
        if world.rank > 0:
            return None

        # Evaluation: encode the first frame, roll its code out, decode
        fits = [fit for fit in fits if fit in mine]
        of_models = score_models(run, judge, parts, trained)
        of_baselines = score_baselines(config, run, judge, parts, data, device, fits)
        if not shard.is_whole:
            print(shard.last_words)
            return None
        scored = [*score_floors(run, judge, parts, coders), *of_baselines, *of_models]
        save_mesh(folder, flow.coordinates, judge.triangles)
        save_seen(folder, flow, parts)
        rows = rows_of(judge, scored)
        if not trained:
            results = run.finish(rows, METRICS_INFO)
        else:
            save_artifacts(config, folder, judge, parts, groups, scored, trained)
            results = run.finish(rows, METRICS_INFO, draw_figures, HERE / "report.typ")
    print_scores(results["rows"], folder)
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
