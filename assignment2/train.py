"""Assignment 2: Seq2Seq LSTM with attention and teacher forcing on hourly prices of seven coins.

Sutskever et al. 2014, Luong et al. 2015, Bengio et al. 2015. `python assignment2/train.py` trains
on prices it finds, else on the built-in sample; a minute and a half on two CPU cores. On real coins
expect a CRPS about 3 % below a random walk with rolling residuals, most of it by a linear model of
volatility that the network starts from, and a point forecast that is hardly better than no change.

Shape letters: B batch, T steps of the course's window, C context, H horizon, S series, Q quantiles.
"""

from __future__ import annotations

from assignment2.config import Config
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(Config)

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from assignment2.config import CLIP_NORM, WARM_UP, Course
from assignment2.figures import draw_figures
from assignment2.model import (
    Forecaster,
    Seq2Seq,
    attention_maps,
    pinball,
    range_loss,
    save_forecasters,
    seq2seq_group,
)
from common.files import State, StateDict, tensors, write_arrays
from common.forecasting.assigned import CourseForecast, CourseWindow, assigned_rows, course_arrays
from common.forecasting.baselines import fit_baselines, har_key
from common.forecasting.ensemble import Pair, held_out_rows
from common.forecasting.figures import fan_arrays
from common.forecasting.metrics import metrics_info
from common.forecasting.prices import COINS, Prices, check_positive, load_for
from common.forecasting.scripts import print_results
from common.forecasting.volatility import LogHar, clock_bins, fit_log_har
from common.forecasting.windows import MinMax, Windows, split
from common.machine import choose_device
from common.results import Results
from common.run import Run, progress
from common.shard import Shard

HERE = Path(__file__).resolve().parent


# -------------------------------------------------------------------------------- as assigned


@dataclasses.dataclass(frozen=True)
class CourseTask:
    """The course's one window, in the units that a network is trained in."""

    context: np.ndarray  # (1, C, S)
    target: np.ndarray  # (1, H, S)
    later: np.ndarray  # (1, C, S): the context of the steps after the window


@dataclasses.dataclass(frozen=True)
class CourseSeq2Seq:
    """What the course's Seq2Seq forecasts (H, S), in the units of its task."""

    teacher_forced: np.ndarray  # the target, with the truth as decoder inputs
    free_running: np.ndarray  # the target, from the network's own outputs
    next_steps: np.ndarray  # the steps after the window, free-running: the only real forecast
    params: int


def train_course_seq2seq(
    course: Course, run: Run, task: CourseTask, device: str, metric: str
) -> CourseSeq2Seq:
    """Trains the course's Seq2Seq on one window, teacher forced; its loss is logged as `metric`."""
    torch.manual_seed(course.seed)
    context = torch.from_numpy(task.context).float().to(device)  # (1, C, S)
    target = torch.from_numpy(task.target).float().to(device)  # (1, H, S)
    later = torch.from_numpy(task.later).float().to(device)  # (1, C, S)
    _, horizon, series = target.shape

    # Decoder inputs: the truth, one step late
    shifted = torch.cat([torch.zeros_like(target[:, :1]), target[:, :-1]], 1)  # (1, H, S)

    # Model and optimiser:
    model = Seq2Seq(series, series, course.units, series).to(device)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=course.lr, eps=course.epsilon)

    # Training:
    with run.stoppable(lambda: None) as check:
        for epoch in progress(range(1, course.epochs + 1), "as assigned"):
            loss = torch.nn.functional.mse_loss(model(context, shifted), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            run.log(epoch, epoch, "train", **{metric: loss.item()})
            check(epoch, loss.item())

    # Forecasts, with the truth and without it:
    first = shifted[:, 0]
    with torch.no_grad():
        teacher_forced = model(context, shifted)
        free_running, _ = model.decode(context, first, horizon)
        next_steps, _ = model.decode(later, first, horizon)
    return CourseSeq2Seq(
        teacher_forced[0].double().cpu().numpy(),
        free_running[0].double().cpu().numpy(),
        next_steps[0].double().cpu().numpy(),
        model.params,
    )


def seq2seq_forecasts(
    seq2seq: CourseSeq2Seq,
    to_prices: Callable[[np.ndarray], np.ndarray],
    later_to_prices: Callable[[np.ndarray], np.ndarray],
    prefix: str = "",
) -> list[CourseForecast]:
    """The forecasts of the course's Seq2Seq in prices; `prefix` begins their variants."""
    forced = to_prices(seq2seq.teacher_forced)
    free = to_prices(seq2seq.free_running)
    following = later_to_prices(seq2seq.next_steps)
    return [
        CourseForecast("Seq2Seq", prefix + "teacher forced", "trained", forced, seq2seq.params),
        CourseForecast("Seq2Seq", prefix + "free-running", "trained", free, seq2seq.params),
        CourseForecast("Seq2Seq", prefix + "free-running", "next", following, seq2seq.params),
    ]


def as_assigned(config: Config, run: Run, prices: Prices, device: str) -> CourseWindow:
    """The course's experiment: one window, trained and scored on it, teacher forced.

    The same weights are then used without the truth, on the window and on the steps after it.
    """
    horizon = config.horizon
    seen = prices.values[-config.assigned_steps - horizon : -horizon]  # (T, S)
    coming = prices.values[-horizon:]  # (H, S)

    # The course scaled over the whole window, its target included:
    scaler = MinMax.fit(seen)
    window = scaler.transform(seen)[None]  # (1, T, S)
    task = CourseTask(window[:, :-horizon], window[:, -horizon:], window[:, horizon:])

    seq2seq = run.memo(
        "as-assigned", train_course_seq2seq, config.course, run, task, device, "assigned_mse"
    )
    forecasts = seq2seq_forecasts(seq2seq, scaler.inverse, scaler.inverse)
    return CourseWindow(seen, coming, forecasts)


# ----------------------------------------------------------------------------------- held out


@dataclasses.dataclass(frozen=True)
class Trained:
    """The weights of a held-out network and the seconds that its training took."""

    weights: StateDict
    seconds: float


@dataclasses.dataclass(frozen=True)
class Best:
    """The weights with the best validation CRPS so far."""

    crps: float
    epoch: int
    weights: StateDict


def build_forecaster(config: Config, prices: Prices) -> Forecaster:
    """An untrained forecaster of these series."""
    return Forecaster(
        len(prices.series),
        config.context,
        config.horizon,
        config.units,
        config.decays,
        config.dropout,
        config.start,
        clock_bins(prices.step),
        config.candles,
    )


class Learner:
    """A held-out network in training: AdamW under one cycle of the learning rate."""

    def __init__(self, config: Config, model: Forecaster, train_windows: int):
        self.model = model
        self.unit = model.deviation * model.spread  # (H, S): so that coins and steps weigh alike
        self.trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.batches = max(train_windows // config.batch, 1)
        self.steps = config.epochs * self.batches
        self.optimiser = torch.optim.AdamW(
            self.trained, lr=config.lr, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, config.lr, total_steps=self.steps, pct_start=WARM_UP
        )

    def state(self) -> State:
        """What a checkpoint holds of the training."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def restore(self, state: State) -> None:
        """Continues from the state of a checkpoint."""
        self.model.load_state_dict(tensors(state["model"]))
        self.optimiser.load_state_dict(tensors(state["optimiser"]))
        self.schedule.load_state_dict(state["schedule"])


def truth_share(config: Config, step: int, steps: int) -> float:
    """Scheduled sampling (Bengio et al. 2015): the share of decoder inputs that are the truth."""
    until = max(config.teacher_until * steps, 1)
    return config.teacher_forcing * max(0.0, 1 - step / until)


def train_epoch(
    config: Config,
    learner: Learner,
    windows: Windows,
    seed: int,
    epoch: int,
    check: Callable[[int, float], None],
) -> float:
    """One pass over the training windows, in an order and with draws of its own; its mean loss."""
    model = learner.model.train()
    device = learner.unit.device
    torch.manual_seed(seed * 1000 + epoch)
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(windows.parts.train)
    losses = []
    for batch in range(learner.batches):
        step = epoch * learner.batches + batch
        origins = order[batch * config.batch : (batch + 1) * config.batch]
        truth = torch.from_numpy(windows.changes(origins)).float().to(device)  # (B, H, S)

        # Scheduled sampling: some decoder inputs are the truth
        draws = rng.random((len(origins), config.horizon))
        forced = torch.from_numpy(draws < truth_share(config, step, learner.steps)).to(device)

        # Objective: the CRPS of the quantiles, over the usual size of a change
        inputs = windows.inputs(origins)
        _, quantiles, _ = model(*inputs, truth=truth, forced=forced)  # (B, H, S, Q)
        loss = (pinball(quantiles, truth, model.levels) / learner.unit).mean()
        if config.candles:
            ranges = torch.from_numpy(windows.ranges_ahead(origins)).float().to(device)
            loss = loss + config.range_weight * range_loss(quantiles, ranges)

        learner.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.trained, CLIP_NORM)
        learner.optimiser.step()
        learner.schedule.step()
        losses.append(loss.item())
        check(step, losses[-1])
    return float(np.mean(losses))


def train_forecaster(
    config: Config, run: Run, windows: Windows, seed: int, device: str, har: LogHar | None
) -> Trained:
    """Trains one held-out network and returns the weights with the best validation CRPS.

    Every draw is a function of (seed, epoch), so that a resumed run is the same run.
    """
    start = time.perf_counter()
    train = windows.parts.train
    validation = windows.parts.validation

    # Model: its scales are those of the training part
    torch.manual_seed(seed)
    model = build_forecaster(config, windows.prices).to(device)
    model.fit_scales(windows.inputs(train), windows.changes(train), har)
    learner = Learner(config, model, len(train))
    usual_change = learner.unit.cpu().numpy()

    # The untrained network is the first candidate; a resumed run goes on from its checkpoint:
    crps = windows.crps(model, usual_change, validation)
    best = Best(crps, 0, copied(model.state_dict()))
    run.log(seed * learner.steps, 0, "validation", **{f"crps_seed{seed}": crps})
    first_epoch = 0
    saved = run.load(f"forecaster-{seed}")
    if saved is not None:
        first_epoch = saved["epoch"]
        best = Best(**tensors(saved["best"]))
        learner.restore(saved)

    # Training, until validation has not improved for `patience` epochs:
    with run.stoppable(lambda: None) as check:
        for epoch in progress(range(first_epoch, config.epochs), f"Seq2Seq, seed {seed}"):
            if epoch - best.epoch >= config.patience:
                break
            loss = train_epoch(config, learner, windows, seed, epoch, check)
            crps = windows.crps(model, usual_change, validation)
            step = (epoch + 1) * learner.batches
            run.log(step, epoch + 1, "train", **{f"loss_seed{seed}": loss})
            run.log(step, epoch + 1, "validation", **{f"crps_seed{seed}": crps})
            if crps < best.crps:
                best = Best(crps, epoch + 1, copied(model.state_dict()))
            state = {"epoch": epoch + 1, "best": vars(best), **learner.state()}
            run.save(f"forecaster-{seed}", state)

    # The best weights, and how much of their location a point forecast keeps:
    model.load_state_dict(best.weights)
    model.fit_shrink(windows.inputs(validation), windows.changes(validation))
    return Trained(model.state_dict(), time.perf_counter() - start)


def copied(weights: StateDict) -> StateDict:
    """Weights that further training leaves as they are."""
    return {name: weight.clone() for name, weight in weights.items()}


def train_forecasters(
    config: Config, run: Run, windows: Windows, device: str, har: LogHar | None
) -> tuple[list[Forecaster], float]:
    """Trains one held-out network per seed; returns them and the mean seconds of a training."""
    forecasters = []
    seconds = []
    for seed in range(config.seeds):
        trained = trained_forecaster(config, run, windows, seed, device, har)
        forecaster = build_forecaster(config, windows.prices).to(device)
        forecaster.load_state_dict(tensors(trained.weights))
        forecasters.append(forecaster.eval())
        seconds.append(trained.seconds)
    return forecasters, float(np.mean(seconds))


def trained_forecaster(
    config: Config, run: Run, windows: Windows, seed: int, device: str, har: LogHar | None
) -> Trained:
    """The held-out network of a seed, trained or as the run has stored it."""
    start = har if config.start == "har" else None
    name = f"forecaster-{seed}"
    return run.memo(name, train_forecaster, config, run, windows, seed, device, start)


def train_share(config: Config, run: Run, windows: Windows, device: str) -> None:
    """Trains the networks of the run's shard and leaves them to the whole run."""
    course = -1  # beside the seeds of the held-out networks
    har = fit_log_har(windows)
    for seed in run.shard.share(range(course, config.seeds)):
        if seed == course:
            as_assigned(config, run, windows.prices, device)
        else:
            trained_forecaster(config, run, windows, seed, device, har)
    print(run.shard.last_words)


def main(config: Config) -> Results | None:
    """Trains, evaluates and records; returns what metrics.json holds (None: of a shard)."""
    # Data: checked before anything is written
    prices = load_for(config, COINS.with_candles() if config.candles else COINS)
    check_positive(prices, "Seq2Seq forecasts log returns, which need prices above zero")
    parts = split(
        prices.contiguous(),
        config.context,
        config.horizon,
        config.test_steps,
        config.validation_steps,
    )
    windows = Windows(prices, parts, config.context, config.horizon)
    device = choose_device(config.device).name
    shard = Shard.of(config.shard)

    folder = config.out or HERE / "results" / f"{prices.source}-{config.preset}"
    with Run(config, folder, __file__, prices.source, prices.provenance, shard=shard) as run:
        run.note(parts=parts.dates(prices.times), device=device)
        print(windows.sizes(), flush=True)
        if not shard.is_whole:
            train_share(config, run, windows, device)
            return None

        # Models: as the course had it, then on many windows with every choice made on validation
        course = as_assigned(config, run, prices, device)
        fitted = fit_baselines(windows)
        forecasters, seconds = train_forecasters(config, run, windows, device, fitted.har)
        save_forecasters(folder / "model.seq2seq.safetensors", forecasters, prices.series)

        # Evaluation: the test part is read once
        group = seq2seq_group(forecasters, seconds)
        pairs = [Pair(group.ensemble_key, har_key(fitted.har))] if fitted.har else []
        validation = held_out_rows(windows, [group], parts.validation, "validation", fitted, pairs)
        test = held_out_rows(windows, [group], parts.test, "test", fitted, pairs)

        # Record:
        arrays = fan_arrays(windows, test.ensembles.pop(group.key))
        arrays |= attention_maps(windows, forecasters[0], arrays["fan_origin"])
        write_arrays(folder / "predictions.npz", **arrays, **course_arrays(course))
        rows = [*assigned_rows(course), *validation.rows, *test.rows]
        results = run.finish(rows, metrics_info(), draw_figures, HERE / "report.typ")
    print_results(results, folder)
    return results


if __name__ == "__main__":
    entry(main, OPTIONS)
