"""One training of the comparison, on how much data and for how long, as values with labels.

Nothing heavy is imported here: figures make the labels of a run's rows from its config.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from assignment4.strategies import Strategy


@dataclasses.dataclass(frozen=True)
class Passes:
    """A fixed number of passes over the training part."""

    epochs: int

    @property
    def label(self) -> str:
        """The variant in metrics.json."""
        return f"{self.epochs} epoch" + ("s" if self.epochs > 1 else "")


@dataclasses.dataclass(frozen=True)
class Amount:
    """How much of the target's training part is trained on: its last weeks, or its last share."""

    share: float = 1.0
    weeks: float = 0.0  # 0: the share counts

    @property
    def label(self) -> str:
        """The variant in metrics.json."""
        if self.weeks:
            return f"{self.weeks:g} week{'s' if self.weeks != 1 else ''} of data"
        return "to convergence" if self.share == 1 else f"{100 * self.share:g} % of the data"

    @property
    def name(self) -> str:
        """As names of jobs have it; that of the whole part is empty."""
        if self.weeks:
            return f"weeks_{self.weeks:g}"
        return "" if self.share == 1 else f"share_{self.share:g}"

    def of(self, origins: np.ndarray, times: np.ndarray, least: int) -> np.ndarray:
        """The last ones of training origins (N,) into times datetime64 (T,), `least` or more."""
        count = int(self.share * len(origins))
        if self.weeks:
            span = np.timedelta64(round(self.weeks * 7 * 86_400), "s")
            count = int((times[origins] > times[origins[-1]] - span).sum())
        return origins[-max(count, least) :]


WHOLE = Amount()
CONVERGENCE = WHOLE.label


def ensemble_label(variant: str, seeds: int) -> str:
    """The variant under which the mean forecast over the seeds is reported."""
    return f"{variant}, mean of {seeds} seeds"


def sequence_label(stage: int) -> str:
    """The variant of a network that was adapted to so many targets, one after another."""
    return f"after {stage} adaptation{'s' if stage > 1 else ''} in sequence"


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: a strategy with a seed and a peak learning rate.

    It is trained on an `amount` of the training part, for `epochs` epochs at most (None: those of
    --epochs). A `stage` above 0 is the number of this adaptation among those that follow each
    other.
    """

    strategy: Strategy
    seed: int
    lr: float
    amount: Amount = WHOLE
    epochs: int | None = None
    stage: int = 0

    @property
    def variant(self) -> str:
        """The variant in metrics.json."""
        if self.stage:
            return sequence_label(self.stage)
        return self.amount.label if self.epochs is None else Passes(self.epochs).label

    @property
    def kind(self) -> str:
        """What the names of all seeds begin with."""
        words = [self.strategy.label.replace(", ", "-").replace(" ", "_"), f"{self.lr:g}"]
        if self.amount.name:
            words.append(self.amount.name)
        if self.epochs is not None:
            words.append(f"epochs_{self.epochs}")
        if self.stage:
            words.append(f"stage_{self.stage}")
        return "-".join(words)

    @property
    def name(self) -> str:
        """The name of the job in metrics.csv and of its checkpoints."""
        return f"{self.kind}-{self.seed}"
