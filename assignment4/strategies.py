"""What is trained of a pretrained forecaster, as values with labels.

Nothing heavy is imported here: figures make the labels of a run's rows from its config.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

Kind = Literal["none", "head", "norms", "scratch", "full", "lora"]
Relative = Literal["rsLoRA", "DoRA", "PiSSA", "LoRA+"]  # of LoRA, as tables name them
Variant = Literal["LoRA", Relative]
LABELS: dict[Kind, str] = {
    "none": "no adaptation",
    "head": "head only",
    "norms": "biases and layer norms",
    "scratch": "from scratch",
    "full": "full fine-tuning",
}
SMALL_RANK = 2  # its adapters are saved beside those of --rank


@dataclasses.dataclass(frozen=True)
class Strategy:
    """One way to adapt a network; `rank` and what follows belong to low-rank adapters."""

    kind: Kind
    rank: int = 0
    attention_only: bool = False
    variant: Variant = "LoRA"

    @property
    def label(self) -> str:
        """The model's name in metrics.json."""
        if self.kind != "lora":
            return LABELS[self.kind]
        where = ", attention only" if self.attention_only else ""
        return f"{self.variant}, rank {self.rank}{where}"

    @property
    def targets(self) -> tuple[str, ...] | None:
        """Regular expressions of the adapted layers: all, or the four projections of every
        attention."""
        return (r"attention_\d+/",) if self.attention_only else None


NO_ADAPTATION = Strategy("none")
HEAD_ONLY = Strategy("head")
NORMS_ONLY = Strategy("norms")
FROM_SCRATCH = Strategy("scratch")
FULL = Strategy("full")


def lora(rank: int) -> Strategy:
    """LoRA on every affine map."""
    return Strategy("lora", rank)


def compared(ranks: tuple[int, ...], rank: int, relatives: tuple[Relative, ...]) -> list[Strategy]:
    """Every strategy that is trained to convergence, once.

    LoRA has each of `ranks`, LoRA on attention alone and its `relatives` have `rank`.
    """
    strategies = [
        NO_ADAPTATION,
        HEAD_ONLY,
        NORMS_ONLY,
        FROM_SCRATCH,
        FULL,
        *(lora(each) for each in ranks),
        Strategy("lora", rank, attention_only=True),
        *(Strategy("lora", rank, variant=relative) for relative in relatives),
    ]
    return list(dict.fromkeys(strategies))


def main_strategies(rank: int) -> tuple[Strategy, Strategy, Strategy]:
    """The strategies that are also trained on less data; all but the first for few passes too."""
    return FROM_SCRATCH, FULL, lora(rank)


def saved_strategies(ranks: tuple[int, ...], rank: int) -> list[Strategy]:
    """The strategies whose adapters the run folder keeps."""
    return [lora(each) for each in ranks if each in (SMALL_RANK, rank)]


def course_strategies(ranks: tuple[int, ...]) -> list[Strategy]:
    """The strategies of the course."""
    return [FROM_SCRATCH, FULL, *(lora(rank) for rank in ranks)]


def singular_key(strategy: Strategy, path: str) -> str:
    """The name in predictions.npz of the singular values of what an affine map changed by."""
    return f"singular | {strategy.label} | {path}"
