"""Assignment 5: DDIM diffusion (Song et al. 2021) with a Transformer in place of the U-Net.

    python assignment5/train.py
    python assignment5/train.py --preset full --source flowers
    torchrun --nproc_per_node=4 assignment5/train.py --preset full --source flowers

The default takes Oxford Flowers 102 where it is found, else drawn flowers, at 32 x 32 pixels, and
ten minutes on two cores. `full` is 64 x 64, 50 epochs, both recipes, and wants a GPU. "as assigned"
is Keras' example with nothing but the network changed, "tuned" is what `ablate.py` chose on
validation. After 25 passes (results/flowers-long) expect a KID at 20 DDIM steps of 0.09 by the
Transformer and 0.10 by the U-Net, in features of a network trained here.
"""

from __future__ import annotations

from assignment5.config import (
    NEIGHBOURS,
    NETWORKS,
    SCORED_AT_LEAST,
    Config,
    Job,
    training_jobs,
)
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(Config)

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from assignment5 import data
from assignment5.artifacts import closest_pairs, distances, pictures
from assignment5.checkpoint import Checkpoint
from assignment5.codec import TrainedCodec, train_codec
from assignment5.conversion import half_precision, to_float
from assignment5.data import Draws, Images, Parts, Split
from assignment5.dcgan import Gan, save_dcgan, train_dcgan
from assignment5.denoiser import Denoiser, Trained, build, save_denoiser
from assignment5.diffusion import Diffusion
from assignment5.evaluation import (
    METRICS_INFO,
    accuracy_row,
    noise_error,
    print_scores,
    score_all,
    score_times,
)
from assignment5.feature_net import (
    imagenet_spaces,
    inception_spaces,
    own_space,
    save_all_features,
    train_all_features,
)
from assignment5.figures import draw_closest, draw_figures
from assignment5.memory import backward_in_parts, to_device
from assignment5.seen import Seen
from common.cli import InputError
from common.files import tensors, write_arrays
from common.machine import Device, choose_device
from common.muon import Muon
from common.results import Results
from common.run import Run, progress
from common.shard import Shard
from common.world import World

HERE = Path(__file__).resolve().parent
SCORING = ("samples", "seeds", "steps", "powers", "sweep", "imagenet", "dcgan", "inception")
FEATURE_OPTIONS = ("feature_width", "feature_epochs", "feature_seeds")
# options that choose which trainings there are and how they are scored, and change none of them
CHOOSING = ("recipes", "only", *SCORING, *FEATURE_OPTIONS)


def train(
    job: Job, run: Run, parts: Parts, device: Device, codec: TrainedCodec | None = None
) -> Trained:
    """Trains one network on the training part; the validation part is only watched.

    A network that denoises codes needs the trained codec, whose seconds count as its own.
    """
    config = job.config
    steps_per_epoch = max(config.repeats * len(parts.train) // config.batch, 1)
    steps = config.epochs * steps_per_epoch

    # Create model, the moving average of its weights (which samples), and the optimiser:
    model = fresh_model(job, parts, codec)
    labels = labels_for(model, parts, device)
    model = to_device(model, device.name)
    average = copy.deepcopy(model).requires_grad_(False)
    optimisers = optimisers_of(model, config)
    state = Checkpoint(run, job.name, model, average, optimisers)
    state.load()

    # Setup data, and the learner, which is the model over all processes:
    images = torch.from_numpy(parts.train).to(device.name)
    learner = distributed(model, device, run.world)
    shares = run.world.share(config.batch, config.accumulate)

    def objective(draws: Draws) -> Tensor:
        """The mean loss of some of a step's images, as their share of the step's loss."""
        shown, noises = augmented(to_float(images[draws.rows]), draws, config, model.mean)
        told = None if labels is None else labels[draws.rows].masked_fill(draws.unnamed, -1)
        with torch.autocast(device.name, torch.bfloat16, enabled=device.bfloat16):
            losses = learner(
                shown, noises, draws.times, config.error, config.min_snr, config.loss, told
            )  # (B,)
            return losses.mean() / config.accumulate

    # Train:
    with run.stoppable(state.save) as check:
        for step in progress(range(state.step, steps), job.name):
            set_learning_rate(optimisers, learning_rate(config, step, steps))
            draws = data.draw(config, step, len(images), device.name)
            loss = backward_in_parts(learner, objective, draws, shares)
            descend(optimisers)
            update_average(average, model, min(config.ema, (1 + step) / (10 + step)))

            # Log, validate, save:
            state.step = done = step + 1
            if done % 10 == 0 or done == steps:  # (reading the loss waits for the device)
                check(done, float(loss))
            if done % 100 == 0 or done == steps:
                epoch = step // steps_per_epoch
                run.log(done, epoch, "train", **{f"loss, {job.name}": float(loss)})
            if done % 1000 == 0 or done == steps:
                epoch = done // steps_per_epoch
                error = noise_error(average, parts.validation)
                run.log(done, epoch, "validation", **{f"noise error, {job.name}": error})
                state.save()

    seconds = state.seconds + (codec.seconds if codec else 0)
    return Trained(half_precision(average), seconds, images=steps * config.batch)


def codec_for(job: Job, run: Run, parts: Parts, device: Device) -> TrainedCodec | None:
    """The codec of a job's codes, trained or as the run has stored it; None for pixels."""
    if not job.config.denoiser(job.network).latent:
        return None
    return run.memo("codec", train_codec, job.config, run, parts.train, device)


def fresh_model(job: Job, parts: Parts, codec: TrainedCodec | None) -> Diffusion:
    """A job's network before its training, which knows the channels' scale and its codec."""
    torch.manual_seed(job.config.seed)
    model = build(job.config.denoiser(job.network, parts.class_names))
    standardise(model, parts.train)
    if model.codec is not None and codec is not None:
        model.codec.load_state_dict(tensors(codec.weights))
    return model


def standardise(model: Diffusion, pixels: np.ndarray) -> None:
    """Sets the mean and deviation of the channels to those of images uint8 (N, S, S, 3).

    The deviation is at least one step of 8 bits, for a channel that is the same everywhere.
    """
    model.mean.copy_(torch.from_numpy(pixels.mean((0, 1, 2)) / 255))
    std = (pixels / 255).std((0, 1, 2))
    model.std.copy_(torch.from_numpy(np.maximum(std, 1 / 255)))


def labels_for(model: Diffusion, parts: Parts, device: Device) -> Tensor | None:
    """The labels int64 (N,) of the training part, on its device; sets the chances of the classes.

    None for a network without classes.
    """
    classes = len(model.chances)
    if parts.labels is None or not classes:
        return None
    labels = torch.from_numpy(parts.labels)
    model.chances.copy_(torch.bincount(labels, minlength=classes) / len(labels))
    return labels.to(device.name)


def augmented(images: Tensor, draws: Draws, config: Config, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Images and noises (B, 3, S, S), mirrored and moved as the recipe says."""
    shown = mirror(images, draws.mirrored & config.flips)
    if config.scoreaug:
        return shifted(shown, draws.noises, draws.shifts, mean)
    return shown, draws.noises


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Images (B, 3, S, S), of which those `mirrored` (B,) are flipped, channels last in memory."""
    shown = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return shown.contiguous(memory_format=torch.channels_last)


def shifted(images: Tensor, noises: Tensor, shifts: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Images and noises (B, 3, S, S) moved by rows and columns `shifts` (B, 2), as ScoreAug does.

    What is moved is the noisy image with all that is to be predicted of it, so the network sees
    by the pixels without noise, which are the mean (3,), that it was moved, and does not draw
    moved images (arXiv 2508.07926).
    """
    middle = mean[:, None, None]
    return shift(images - middle, shifts) + middle, shift(noises, shifts)


def shift(x: Tensor, shifts: Tensor) -> Tensor:
    """(B, C, S, S) moved down and right by `shifts` (B, 2), with zeros for what comes in."""
    side = x.shape[3]
    places = torch.arange(side, device=x.device)
    rows, columns = (places - shifts[:, axis, None] for axis in (0, 1))  # (B, S), where from
    inside = ((rows >= 0) & (rows < side))[:, None, :, None] & ((columns >= 0) & (columns < side))[
        :, None, None, :
    ]  # (B, 1, S, S)
    moved = x.gather(2, rows.clamp(0, side - 1)[:, None, :, None].expand_as(x))
    moved = moved.gather(3, columns.clamp(0, side - 1)[:, None, None, :].expand_as(x))
    return moved * inside


def distributed(model: Diffusion, device: Device, world: World) -> nn.Module:
    """The model compiled for a GPU, over all processes; its weights are the model's own."""
    learner: nn.Module = model.train()
    if world.size > 1 and device.name == "cuda":
        learner = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if device.name == "cuda":
        learner = torch.compile(learner)  # type: ignore[assignment]  # torch's stub: a function
    if world.size > 1:
        learner = nn.parallel.DistributedDataParallel(learner, forward_sync_buffers=False)
    return learner


def learning_rate(config: Config, step: int, steps: int) -> float:
    """Linear warm-up, then constant, or to zero on a cosine that begins with the training."""
    warm = min(1, (step + 1) / max(config.warmup, 1))
    fall = (1 + np.cos(np.pi * step / steps)) / 2 if config.decay else 1
    return config.lr * warm * fall


def optimisers_of(model: Diffusion, config: Config) -> list[torch.optim.Optimizer]:
    """AdamW; where the config says so, Muon for the matrices inside the Transformer's blocks.

    Muon's steps are as large as AdamW's (Liu et al. 2025, section 2.2), so both have one rate.
    """
    inside: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue  # of a codec, which is trained before
        is_matrix = weight.ndim == 2 and name.startswith("network.blocks.")
        (inside if is_matrix and config.optimiser == "muon" else others).append(weight)
    decay = config.weight_decay
    adamw = torch.optim.AdamW(others, lr=config.lr, weight_decay=decay, fused=True)
    return [adamw, Muon(inside, lr=config.lr, weight_decay=decay)] if inside else [adamw]


def set_learning_rate(optimisers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Sets the learning rate of every group of weights."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate


def descend(optimisers: Sequence[torch.optim.Optimizer]) -> None:
    """One step of every optimiser."""
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad()


def update_average(average: Diffusion, model: Diffusion, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model, for weights and statistics."""
    torch._foreach_lerp_(floats(average), floats(model), 1 - decay)


def floats(model: Diffusion) -> list[Tensor]:
    """Weights and floating-point buffers of a network, by reference."""
    return [value for value in model.state_dict().values() if value.is_floating_point()]


def arithmetic(config: Config) -> Device:
    """The device, with the precision that --precision names. Raises InputError for no GPU."""
    device = choose_device(config.device)
    if config.precision == "auto":
        return device
    return dataclasses.replace(device, bfloat16=config.precision == "bfloat16")


def check_sizes(config: Config, images: Images, split: Split) -> None:
    """Raises InputError where the images are too few to train on or to score against."""
    given = f"{len(images)} images" if images.parts is None else "the parts as given"
    if len(split.train) < config.batch:
        raise InputError(
            f"{given} leave {len(split.train)} to train on, fewer than "
            f"--batch {config.batch}; give more of them"
        )
    if config.classes and images.labels is None:
        raise InputError(
            "--classes: the images have no labels; put each class into a folder of its own, or "
            "leave the option out"
        )
    scored = min(len(split.validation), len(split.test))
    if scored < SCORED_AT_LEAST:
        enough = 10 * SCORED_AT_LEAST
        advice = f"at least {enough} of them" if images.parts is None else "more in each part"
        raise InputError(
            f"{given} leave {scored} to judge by, and {SCORED_AT_LEAST} are needed "
            f"({NEIGHBOURS} nearest neighbours); give {advice}"
        )


def parts_line(split: Split, side: int) -> str:
    """The sizes of the parts in words."""
    train, validation, test = split.sizes.values()
    return (
        f"parts: {train:,} images to train on, {validation:,} for choices, {test:,} to score "
        f"against, at {side} x {side} pixels"
    )


def yardstick(
    config: Config, run: Run, parts: Parts, seconds: float | None, device: Device
) -> Gan | None:
    """With --dcgan a DCGAN that is trained for as long as a network was, and saved; else None."""
    if not config.dcgan:
        return None
    trained = run.memo("DCGAN", train_dcgan, config.seed, run, parts.train, seconds or 0, device)
    save_dcgan(run.folder, trained)
    return Gan(trained, device.name)


def main(config: Config) -> Results | None:
    """Trains, evaluates and records; returns what metrics.json holds (None but in one process)."""
    # Setup data, device and processes: checked before anything is written:
    images = data.load_for(config)
    split = data.split_of(images, config.seed)
    check_sizes(config, images, split)
    parts = split.of(images)
    device = arithmetic(config)
    world = World.join(device.name)
    world.share(config.batch, config.accumulate)
    spaces = []
    if world.rank == 0:
        spaces += imagenet_spaces(config.imagenet, device.name)
        spaces += inception_spaces(config.inception, device.name)

    shard = Shard.of(config.shard)
    folder = config.out or HERE / "results" / f"{images.source}-{config.preset}"
    about = (images.source, images.provenance, world, shard, CHOOSING)
    with Run(config, folder, __file__, *about) as run:
        run.note(device=device.name, bfloat16=device.bfloat16)
        run.note(processes=world.size, split=split.sizes)
        if run.writes:
            print(parts_line(split, images.pixels.shape[1]), flush=True)
            Seen.of(parts.train, parts.validation).save(folder)

        # Train both networks by every recipe, on the same images in the same order:
        denoisers = []
        for job in shard.share(training_jobs(config)):
            codec = codec_for(job, run, parts, device)
            trained = run.memo(job.name, train, job, run, parts, device, codec)
            denoisers.append(Denoiser.of(job, trained, device, images.class_names))
        world.leave()
        if world.rank:  # the first process alone evaluates
            return None
        if not shard.is_whole:
            print(shard.last_words)
            return None

        # Evaluate: samplers on validation, then every network on the test part, once:
        features = train_all_features(config, run, images, split, device)
        run.note(features=features[0].summary)
        own = own_space(features, device.name)
        gan = yardstick(config, run, parts, denoisers[0].seconds, device)
        scores = run.memo("scores", score_all, config, denoisers, [own, *spaces], parts, gan)
        times = run.memo("times", score_times, config, denoisers, own, parts)
        rows = [*scores.as_rows(), *times.as_rows(), accuracy_row(features)]

        # Record: the first recipe's networks, what the figures are made from, figures, report:
        save_all_features(folder, features)
        for network in NETWORKS:
            first = next(each for each in denoisers if each.config.network == network)
            save_denoiser(folder / f"model.{network}.safetensors", first)
        write_arrays(folder / "pictures.npz", **pictures(denoisers))
        write_arrays(folder / "distances.npz", **distances(denoisers, own, parts))
        pairs = closest_pairs(denoisers[0], own, parts.train, len(parts.test))
        draw_closest(folder, pairs)
        results = run.finish(rows, METRICS_INFO, draw_figures, HERE / "report.typ")
    print_scores(results["rows"])
    print(f"\nwritten: {folder}")
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
