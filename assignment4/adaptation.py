"""Adapts pretrained networks to the target, one job at a time, and stores what each job leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from assignment3.backend import keras, tf
from assignment3.config import ForecasterSettings
from assignment3.fit import Fitted, fit
from assignment3.model import Forecaster
from assignment4.config import Config
from assignment4.jobs import Job, ensemble_label
from assignment4.lora import LoRA
from assignment4.lora.adapter_file import AdapterFile
from assignment4.lora.affine import kernels
from assignment4.pretrained import Base, Weights, adapt_by, rates_of, trained_weights
from assignment4.strategies import NO_ADAPTATION, singular_key
from common.files import JsonObject
from common.forecasting.ensemble import ModelGroup
from common.forecasting.volatility import LogHar, Prior, clock_bins, fit_log_har
from common.forecasting.windows import Windows
from common.run import Run


@dataclasses.dataclass(frozen=True)
class Adapted:
    """What a job leaves: the network's plain weights (an adapter merged), `params` of them trained.

    `crps` is the validation score of the best `epoch`; 0 is the state before training.
    `singular_values` belong to the change of every affine map, `shrink` (H, S) is the share of the
    location that a point forecast keeps, and `adapter` holds the fields of an AdapterFile.
    """

    weights: list[np.ndarray]
    params: int
    crps: float
    epoch: int
    seconds: float
    singular_values: dict[str, np.ndarray]
    shrink: np.ndarray
    adapter: JsonObject | None

    @property
    def adapter_file(self) -> AdapterFile:
        """The adapter without its base, as it is saved; LoRA alone has one."""
        if self.adapter is None:
            raise ValueError("this network was not trained by LoRA")
        return AdapterFile(**self.adapter)


class Adaptation:
    """The target's windows, the pretrained networks and the run that jobs are trained in.

    `strategy` says on which devices (None: TensorFlow's usual one).
    """

    def __init__(
        self,
        config: Config,
        run: Run,
        windows: Windows,
        base: Base,
        strategy: tf.distribute.Strategy | None = None,
    ):
        self.config = config
        self.run = run
        self.windows = windows
        self.base = base
        self.strategy = strategy or tf.distribute.get_strategy()
        self.trained: dict[Job, Adapted] = {}
        self._hars: dict[tuple[int, bool], LogHar] = {}
        self._prior: Prior | None = None
        if config.start == "base":
            self._prior = Prior.of(base.network.fitted.har, clock_bins(windows.prices.step))

    def train(self, job: Job) -> Adapted:
        """Trains a job, once; a finished one is read from the run folder after --resume."""
        if job not in self.trained:
            with self.strategy.scope():
                self.trained[job] = self.run.memo(job.name, self._adapt, job)
        return self.trained[job]

    def train_seeds(self, job: Job) -> list[Adapted]:
        """Trains a job with every seed of the run."""
        return [self.train(replace(job, seed=seed)) for seed in range(self.config.seeds)]

    def group(self, job: Job, brief: bool = True) -> ModelGroup:
        """Trains a job with every seed, as one model of the comparison."""
        adapted = self.train_seeds(job)
        return ModelGroup(
            job.strategy.label,
            job.variant,
            [Weights(self.base.network, each.weights, each.params) for each in adapted],
            ensemble_label(job.variant, len(adapted)),
            seconds=float(np.mean([each.seconds for each in adapted])),
            brief=brief,
        )

    def untrained(self, jobs: Iterable[Job]) -> dict[str, int]:
        """How many seeds' networks validation prefers as they were before training, by strategy."""
        return {
            job.strategy.label: sum(adapted.epoch == 0 for adapted in self.train_seeds(job))
            for job in jobs
            if job.strategy != NO_ADAPTATION
        }

    def singular_values(self, jobs: Iterable[Job]) -> dict[str, np.ndarray]:
        """Singular values of what every job changed in every affine map, as predictions.npz
        names them."""
        return {
            singular_key(job.strategy, path): values
            for job in jobs
            for path, values in self.train(job).singular_values.items()
        }

    def _adapt(self, job: Job) -> Adapted:
        """One network to an amount of the target's training part."""
        windows = self.windows
        parts = windows.parts
        train_origins = job.amount.of(parts.train, windows.prices.times, self.config.batch)

        # the network, and what the strategy trains of it
        model, lora = self.prepared(job, train_origins)
        before = kernels(model)
        params = trained_weights(model)

        # training, stopped on validation
        tuned = Forecaster(model)  # made after the adapter, so that it traces that
        if params:
            recipe = self.config.recipe(job, len(train_origins) / len(parts.train))
            rates = rates_of(job.strategy, lora, self.config.lora_plus_ratio)
            fitted = fit(tuned, windows, train_origins, self.run, job.name, recipe, rates)
        else:
            usual_change = windows.changes(parts.train).std(0)  # (H, S)
            fitted = Fitted(windows.crps(tuned, usual_change, parts.validation), 0, 0.0)

        # the adapter before the shrinkage, which is no part of its base
        adapter = None if lora is None else dataclasses.asdict(lora.export())
        past, times = windows.inputs(parts.validation)
        changes = tuned.targets(past, windows.future(parts.validation))
        tuned.fit_shrink(past, times, changes)

        # plain weights: W <- W + s A B
        if lora is not None:
            lora.merge()
        singular_values = {
            path: np.linalg.svd(kernel - before[path], compute_uv=False)
            for path, kernel in kernels(model).items()
        }
        return Adapted(
            model.get_weights(),
            params,
            fitted.crps,
            fitted.epoch,
            fitted.seconds,
            singular_values,
            tuned.fitted.fitted_shrink.numpy(),
            adapter,
        )

    def prepared(self, job: Job, origins: np.ndarray) -> tuple[keras.Model, LoRA | None]:
        """The network of a job before training, and its adapter: h = x W + b + s (x A) B with A
        and B alone trained."""
        keras.utils.set_random_seed(job.seed)  # a loaded network draws its dropout's seeds anew
        model = self._network(job)

        # the usual size of a change on the target
        past, _ = self.windows.inputs(origins)
        pretrained = job.strategy.kind != "scratch"
        Forecaster(model).fit_scales(past, self.har(origins, pretrained), keep_shape=pretrained)
        return model, adapt_by(model, job.strategy, job.seed, self.config.alpha)

    def fitted_arrays(self) -> list[np.ndarray]:
        """The arrays of a pretrained network's quantile layer on the whole training part."""
        network = self.base.network
        saved = network.fitted.get_weights()
        train = self.windows.parts.train
        past, _ = self.windows.inputs(train)
        network.fit_scales(past, self.har(train, pretrained=True), keep_shape=True)
        arrays = network.fitted.get_weights()
        network.fitted.set_weights(saved)
        return arrays

    def har(self, origins: np.ndarray, pretrained: bool) -> LogHar:
        """The target's log-HAR-t of the last training origins, fitted once.

        A pretrained network knows what its base was trained from, where --start says so.
        """
        prior = self._prior if pretrained else None
        key = (len(origins), prior is None)
        if key not in self._hars:
            self._hars[key] = fit_log_har(self.windows, origins, prior)
        return self._hars[key]

    def _network(self, job: Job) -> keras.Model:
        """The pretrained network of the job's seed, or an untrained one of its size."""
        if job.strategy.kind != "scratch":
            return self.base.load(job.seed)
        settings = self.base.network.settings | {"series": self.windows.prices.series}
        return Forecaster.build(ForecasterSettings(**settings), job.seed).model
