"""One training of the comparison, on how much data and for how long, as values with labels.

Nothing heavy is imported here: figures make the labels of a run's rows from its config.
"""

from __future__ import annotations

import dataclasses

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
class Share:
    """The share of the target's training part, its last windows, that is trained on."""

    share: float

    @property
    def label(self) -> str:
        """The variant in metrics.json."""
        return "to convergence" if self.share == 1 else f"{100 * self.share:g} % of the data"


CONVERGENCE = Share(1.0).label


def ensemble_label(variant: str, seeds: int) -> str:
    """The variant under which the mean forecast over the seeds is reported."""
    return f"{variant}, mean of {seeds} seeds"


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: a strategy with a seed and a peak learning rate.

    It is trained on the last `share` of the training part, for `epochs` epochs at most (None: those
    of --epochs).
    """

    strategy: Strategy
    seed: int
    lr: float
    share: float = 1.0
    epochs: int | None = None

    @property
    def variant(self) -> str:
        """The variant in metrics.json."""
        return Share(self.share).label if self.epochs is None else Passes(self.epochs).label

    @property
    def kind(self) -> str:
        """What the names of all seeds begin with."""
        words = [self.strategy.label.replace(", ", "-").replace(" ", "_"), f"{self.lr:g}"]
        if self.share != 1:
            words.append(f"share_{self.share:g}")
        if self.epochs is not None:
            words.append(f"epochs_{self.epochs}")
        return "-".join(words)

    @property
    def name(self) -> str:
        """The name of the job in metrics.csv and of its checkpoints."""
        return f"{self.kind}-{self.seed}"
