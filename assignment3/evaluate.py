"""Backtests a finished run's forecasters: on its own test part, or on prices they have not seen with --data."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

from assignment2.model import load_forecasters
from assignment3.figures import draw_figures
from assignment3.model import NORMALISATIONS, load_all
from common.cli import entry, parse
from common.forecast import EvaluateConfig, Group, Saved, evaluate
from common.prices import COINS
from common.run import choose_device

HERE = Path(__file__).resolve().parent


def load(folder: Path, device: str) -> Saved:
    """The Transformers of a run folder behind both normalisations, and the Seq2Seq beside them."""
    groups: list[Group] = []
    for normalisation, label in NORMALISATIONS.items():
        models = load_all(folder, normalisation)
        groups.append(Group("Transformer", label, models, f"{label}, mean of {len(models)} seeds"))
    seq2seq, series = load_forecasters(
        folder / "model.seq2seq.safetensors", choose_device(device)[0]
    )
    groups.append(Group("Seq2Seq", "quantile head", seq2seq, f"mean of {len(seq2seq)} seeds"))
    return Saved(
        groups, series, pairs=list(combinations([(group.model, group.mean) for group in groups], 2))
    )


def main(config: EvaluateConfig) -> dict[str, Any]:
    return evaluate(
        config, HERE / "results", COINS, lambda folder: load(folder, config.device), draw_figures
    )


if __name__ == "__main__":
    entry(lambda: main(parse(EvaluateConfig)))
