"""Every number that affects a result of assignment 4, with its default."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, Self

import common.forecasting.config
from assignment3.config import FitRecipe, Normalisation
from assignment4.jobs import Amount, Job
from assignment4.strategies import Relative, Strategy, compared, lora
from common.cli import InputError, PathOrNone, check_exists, check_ranges
from common.forecasting.config import ForecastConfig, check_not_empty

FEW_PASSES = (1, 2)  # of the course's tuning
FORGETTING_WINDOWS = 1000  # about as many windows of the coins' validation part are scored
RANGES = {
    "assigned_epochs": (1, math.inf),
    "assigned_ranks": (1, math.inf),
    "assigned_lr": (0, math.inf),
    "ranks": (1, math.inf),
    "rank": (1, math.inf),
    "shares": (0.001, 0.999),
    "weeks": (0.1, math.inf),
    "passes": (1, math.inf),
    "lrs": (0, math.inf),
    "lora_lrs": (0, math.inf),
    "rate_epochs": (0, math.inf),
    "lora_plus_ratio": (0, math.inf),
    "sequence": (0, math.inf),
    "sequence_epochs": (1, math.inf),
    "timed_steps": (0, math.inf),
    "epochs": (1, math.inf),
    "patience": (1, math.inf),
    "batch": (1, math.inf),
    "alpha": (0, math.inf),
    "weight_decay": (0, math.inf),
}


@dataclasses.dataclass(frozen=True)
class Config(ForecastConfig):
    """Assignment 4: transfer of a forecaster to currencies and oil.

    The full preset bounds its time by how it chooses rates: a candidate is trained for one epoch
    with every seed (--rate-epochs), and the rate of LoRA at --rank serves the other ranks and
    attention alone. Measured on validation with three seeds: one epoch orders 0.001, 0.003 and 0.01
    alike at ranks 2 and 8, and rank 8 has the same best of them after five epochs.
    """

    base: PathOrNone = None
    """run folder of assignment 3 with the pretrained networks (default: its newest finished run
    that --out did not name)"""
    start: Literal["own", "base"] = "own"
    """where little data leave the linear start of a pretrained network: near the mean of the
    target's own speeds, or near the start that the base was trained from"""
    normalisation: Normalisation = "minmax"
    """which pretrained networks; minmax takes oil's negative price of April 2020, log refuses it"""
    steps: int = 3000
    """days of the simulated sample"""

    assigned_epochs: int = 1000
    """epochs of training from scratch on the course's one window; other strategies have 1 and 2"""
    assigned_ranks: tuple[int, ...] = (2, 8, 16)
    """LoRA's ranks on the course's one window"""
    assigned_lr: float = 1e-3
    """Adam's learning rate on the course's one window"""

    test_steps: int = 1500
    """steps of the test part at the end of the history (at most a quarter of it)"""
    validation_steps: int = 750
    """steps of the validation part before the test part (at most a quarter of the history)"""
    ranks: tuple[int, ...] = (2, 8)
    """ranks of LoRA on every affine map; those of a preset end at the width of the base"""
    rank: int = 8
    """rank (one of --ranks) of LoRA on attention alone and on less data, and of its relatives"""
    relatives: tuple[Relative, ...] = ("rsLoRA",)
    """relatives of LoRA that are compared at --rank: rsLoRA, DoRA, PiSSA, LoRA+"""
    shares: tuple[float, ...] = (0.05, 0.25)
    """shares of the training part, its last windows, that three strategies are also trained on"""
    weeks: tuple[float, ...] = ()
    """last weeks of the training part that three strategies are also trained on"""
    lrs: tuple[float, ...] = (3e-4, 1e-3)
    """candidates for the peak learning rate, chosen per strategy on validation over all seeds"""
    lora_lrs: tuple[float, ...] = (1e-3, 3e-3)
    """candidates for the peak learning rate of LoRA, the head and the norms, which take more"""
    lora_plus_ratio: float = 16.0
    """LoRA+: the learning rate of B over that of A, whose candidates are --lrs"""
    rate_epochs: int = 0
    """epochs of a candidate's training; 0: as many as --epochs, so that the best is trained then"""
    passes: tuple[int, ...] = (1, 2)
    """few passes over the training part, as the course had them, for two strategies"""
    epochs: int = 5
    """most epochs on the whole training part; on a share of it divided by sqrt(share)"""
    patience: int = 2
    """epochs without a better validation CRPS before training stops; divided by sqrt(share) too"""
    batch: int = 32
    """windows per batch"""
    alpha: float = 16.0
    """LoRA's alpha: the update is scaled by alpha / rank, in rsLoRA by alpha / sqrt(rank)"""
    weight_decay: float = 0.01
    """AdamW's weight decay"""
    sequence: int = 0
    """groups of the target's series that networks are adapted to one after another; 0: none"""
    sequence_epochs: int = 1
    """epochs of each adaptation in sequence, every one of them kept"""
    timed_steps: int = 0
    """training steps of each strategy that are timed; 0: none"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, RANGES)
        check_not_empty(self, "ranks", "lrs", "lora_lrs")
        if self.rank not in self.ranks:
            given = " ".join(str(rank) for rank in self.ranks)
            raise InputError(f"--rank {self.rank}: allowed are those of --ranks: {given}")

    def check(self) -> None:
        super().check()
        check_exists("--base", self.base)

    @classmethod
    def presets(cls) -> dict[str, dict[str, object]]:
        smoke: dict[str, object] = {
            "steps": 700,
            "seeds": 1,
            "assigned_epochs": 10,
            "ranks": (2,),
            "rank": 2,
            "assigned_ranks": (2,),
            "shares": (0.1,),
            "passes": (),
            "epochs": 1,
            "lrs": (3e-4,),
            "lora_lrs": (1e-3,),
            "relatives": (),
            "sequence": 2,
        }
        full: dict[str, object] = {
            "seeds": 3,
            "ranks": (1, 2, 4, 8, 16, 32),
            "relatives": ("rsLoRA", "DoRA", "PiSSA", "LoRA+"),
            "lrs": (1e-4, 3e-4, 1e-3),
            "lora_lrs": (1e-3, 3e-3, 1e-2),
            "rate_epochs": 1,
            "sequence": 3,
            "timed_steps": 20,
        }
        default: dict[str, object] = {
            "steps": 2000,
            "seeds": 1,
            "assigned_epochs": 300,
            "ranks": (2, 8),
            "shares": (0.05,),
            "passes": (1,),
            "lrs": (3e-4,),
            "lora_lrs": (1e-3,),
            "epochs": 2,
        }
        return {"smoke": smoke, "default": default, "full": full}

    def fitting(self, widest: int) -> Self:
        """The options for a base whose widest layer has room for a rank of `widest`.

        Ranks of a preset end there, one that was asked for is refused with an InputError.
        """
        ranks = self.ranks
        if ranks == self.of_preset(self.preset).ranks:
            ranks = tuple(rank for rank in ranks if rank <= max(widest, self.rank))
        for rank in (*ranks, *self.assigned_ranks):
            if rank > widest:
                raise InputError(
                    f"--ranks {rank}: from 1 to {widest}, "
                    "the width of the base's widest layer, is allowed"
                )
        return dataclasses.replace(self, ranks=ranks)

    def compared(self) -> list[Strategy]:
        """Every strategy that is trained to convergence."""
        return compared(self.ranks, self.rank, self.relatives)

    def candidate_rates(self, strategy: Strategy) -> tuple[float, ...]:
        """The learning rates that a strategy may choose from on validation."""
        gentle = strategy.kind in ("none", "scratch", "full") or strategy.variant == "LoRA+"
        return self.lrs if gentle else self.lora_lrs

    def chooses_for(self, strategy: Strategy) -> Strategy:
        """The strategy whose learning rate this one has: itself, or LoRA at --rank.

        With --rate-epochs LoRA of another rank or on attention alone does not choose: s = alpha / r
        is there to make the rate the same at every rank (Hu et al. 2021, section 4.1).
        """
        plain = strategy.kind == "lora" and strategy.variant == "LoRA"
        return lora(self.rank) if plain and self.rate_epochs else strategy

    def recipe(self, job: Job, share: float) -> FitRecipe:
        """How a job is trained on a share of the training part.

        Little data have few steps per epoch, so they get more epochs.
        """
        return FitRecipe(
            seed=job.seed,
            epochs=round((job.epochs or self.epochs) / share**0.5),
            patience=round(self.patience / share**0.5),
            batch=self.batch,
            lr=job.lr,
            weight_decay=self.weight_decay,
            least_epochs=self._least_epochs(job),
        )

    def _least_epochs(self, job: Job) -> int:
        """Epochs that are kept whatever validation says."""
        if job.stage:
            return self.sequence_epochs
        return 1 if job.strategy.kind == "scratch" else 0

    @property
    def amounts(self) -> list[Amount]:
        """The parts of the training part that three strategies are also trained on."""
        return [
            *(Amount(share) for share in self.shares),
            *(Amount(weeks=weeks) for weeks in self.weeks),
        ]


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(common.forecasting.config.EvaluateConfig):
    """Backtest of saved adapters and of every baseline."""

    adapter: PathOrNone = None
    """one adapter (x.safetensors with x.json and scales.safetensors) instead of all of the run"""
    base: PathOrNone = None
    """run folder of assignment 3 with the pretrained networks (default: found by its name)"""

    def check(self) -> None:
        super().check()
        check_exists("--adapter", self.adapter)
        check_exists("--base", self.base)


@dataclasses.dataclass(frozen=True)
class PredictConfig(common.forecasting.config.PredictConfig):
    """Forecast of the next days."""

    adapter: PathOrNone = None
    """one adapter (x.safetensors with x.json and scales.safetensors), not the highest rank's"""
    base: PathOrNone = None
    """run folder of assignment 3 with the pretrained networks (default: found by its name)"""

    def check(self) -> None:
        super().check()
        check_exists("--adapter", self.adapter)
        check_exists("--base", self.base)
